"""The process of one engine: ``python -m nextvec.evaluate.ann.worker JOB.json``. The runner starts it.

It builds the index or opens and measures it, and writes one JSON document. Progress goes to standard output, a line
"done total" each. Memory is counted from the moment when the workload is loaded and nothing of the engine is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nextvec.evaluate.ann.engines import engine
from nextvec.evaluate.ann.engines._engine import Engine, Unsupported
from nextvec.evaluate.ann.measure import Judge, Memory, measure
from nextvec.evaluate.ann.workload import open_workload
from nextvec.files import atomic_write

__all__ = ["main"]


def main(path: Path) -> None:
    """Do the job in ``path``: {"stage", "engine", "workload", "index", "out", "threads", "seconds", "key"}."""
    job = json.loads(path.read_text(encoding="utf-8"))
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    kind = engine(job["engine"])
    document = {"key": job["key"], "engine": job["engine"], "version": kind.version(), "note": kind.note}
    try:
        document |= _build(kind, job) if job["stage"] == "build" else _measure(kind, job)
    except Unsupported as error:
        document["failed"] = str(error)
    with atomic_write(Path(job["out"]), "w") as stream:
        json.dump(document, stream, indent=1)


def _follow(parent: int) -> None:
    """End when the runner is gone, however it went: nobody would read the result."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _build(kind: type[Engine], job: Mapping[str, Any]) -> dict[str, Any]:
    workload = open_workload(Path(job["workload"]), verify=False)
    folder = Path(job["index"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = kind(folder, workload.schema, threads=job["threads"])
    Memory.restart()
    before = Memory.now()
    began = time.perf_counter()
    made.build(workload.vectors, workload.attributes)
    seconds = time.perf_counter() - began
    peak = Memory.peak() - before
    return {"build_s": seconds, "build_bytes": peak if kind.counts_memory else None, "disk_bytes": made.disk()}


def _measure(kind: type[Engine], job: Mapping[str, Any]) -> dict[str, Any]:
    folder = Path(job["workload"])
    workload = open_workload(folder, verify=False, mapped=True)
    opened = kind(Path(job["index"]), workload.schema, threads=job["threads"])
    judge = Judge(workload, folder)
    Memory.restart()
    before = Memory.now()
    began = time.perf_counter()
    opened.open(workload.attributes)
    open_s = time.perf_counter() - began
    try:
        points = measure(
            opened,
            workload,
            judge,
            seconds=job["seconds"],
            progress=lambda done, total: print(done, total, flush=True),
        )
        peak = Memory.peak() - before
    finally:
        opened.close()
        judge.close()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    memory = peak if kind.counts_memory else None
    return {"open_s": open_s, "search_bytes": memory, "load": load, "points": points}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
