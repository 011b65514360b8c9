"""All engines on one workload: each in a process of its own, on the same cores, in rounds whose order rotates.

What a run leaves in its folder: ``results/ENGINE.build.json`` and ``results/ENGINE.roundN.json``, one document per
process, written when it ends. The same command goes on with those that are missing, whatever ended the run before.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextvec.evaluate.ann.engines import engine, names
from nextvec.files import atomic_write, sha256, storage_error
from nextvec.types import InputError

__all__ = ["Options", "choose", "run"]

Report = Callable[[int, int, str], None]
"""(processes done, all, what runs now)."""

_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS",
    "LANCE_CPU_THREADS",
)  # fmt: skip
_TAIL = 400  # characters of what a failed process said last


@dataclass(frozen=True, kw_only=True)
class Options:
    """seconds: for each point, one by one and in batches; limit: seconds that one process may take; threads: cores
    that every engine may use."""

    seconds: float = 0.2
    rounds: int = 3
    threads: int = 1
    limit: float = 3600.0
    keep_indexes: bool = False

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.limit <= 0 or self.rounds < 1 or self.threads < 1:
            raise InputError(
                f"seconds {self.seconds}, limit {self.limit}, rounds {self.rounds} and threads {self.threads}: "
                "expected more than 0 seconds, at least 1 round and 1 thread"
            )
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
        if self.threads > cores:
            raise InputError(f"threads is {self.threads}, this process may use {cores} cores")


def choose(wanted: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """(engines that can run here, those that cannot with the reason). InputError where none can, NotFoundError."""
    usable, missing = [], {}
    for name in dict.fromkeys(wanted or names()):
        reason = engine(name).missing()
        if reason is None:
            usable.append(name)
        else:
            missing[name] = reason
    if not usable:
        raise InputError(f"no engine can run: {'; '.join(f'{name}: {why}' for name, why in missing.items())}")
    return usable, missing


def run(
    workload: Path, out: Path, engines: Sequence[str], options: Options | None = None, *, report: Report | None = None
) -> dict[str, dict[str, Any]]:
    """Build and measure ``engines`` (see ``choose``) on the workload in ``workload``; results are kept in ``out``.

    Gives, for each engine, {"build": document or None, "rounds": documents, "failed": reason or None}. StorageError.
    """
    options = options or Options()
    key = _key(workload, options)
    results = out / "results"
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, results) from error
    found: dict[str, dict[str, Any]] = {name: {"build": None, "rounds": [], "failed": None} for name in engines}
    total = len(engines) * (options.rounds + 1)
    done = 0

    def told(name: str, stage: str) -> None:
        if report:
            report(done, total, f"{name}, {stage}")

    for number in range(1, options.rounds + 1):
        turn = (number - 1) % len(engines)
        for name in [*engines[turn:], *engines[:turn]]:
            own, index = found[name], out / "index" / name
            paths = [results / f"{name}.round{n}.json" for n in range(1, options.rounds + 1)]
            kept = [_read(path, key) for path in paths]
            if own["build"] is None and own["failed"] is None:
                own["build"] = _read(results / f"{name}.build.json", key)
                if own["build"] is None or (not index.is_dir() and None in kept):
                    told(name, "build")
                    _clear([results / f"{name}.build.json", *paths])
                    kept = [None] * options.rounds
                    job = {"stage": "build", "out": results / f"{name}.build.json"}
                    _accept(
                        own, "build", _process({**job, **_common(name, workload, index, key, options)}, options, None)
                    )
                done += 1
            if own["failed"] is None:
                document = kept[number - 1]
                if document is None:
                    told(name, f"round {number}")
                    job = {"stage": "measure", "out": paths[number - 1], **_common(name, workload, index, key, options)}

                    def cells(at: int, of: int, name: str = name, number: int = number) -> None:
                        told(name, f"round {number}, cell {at} of {of}")

                    document = _process(job, options, cells)
                _accept(own, "rounds", document)
            done += 1
            told(name, f"round {number} done")
    if not options.keep_indexes:
        shutil.rmtree(out / "index", ignore_errors=True)
    return found


def _accept(own: dict[str, Any], place: str, document: dict[str, Any]) -> None:
    if "failed" in document:
        own["failed"] = document["failed"]
    elif place == "rounds":
        own["rounds"].append(document)
    else:
        own[place] = document


def _common(name: str, workload: Path, index: Path, key: str, options: Options) -> dict[str, Any]:
    return {
        "engine": name,
        "workload": workload,
        "index": index,
        "key": key,
        "threads": options.threads,
        "seconds": options.seconds,
    }


def _key(workload: Path, options: Options) -> str:
    """A hash of what decides a result, so that no run goes on with those of another."""
    told = json.dumps([sha256(workload / "workload.json"), options.seconds, options.threads])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _read(path: Path, key: str) -> dict[str, Any] | None:
    """A finished document of the same run; None where there is none, it failed, or is of another run."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    usable = isinstance(document, dict) and document.get("key") == key and "failed" not in document
    return document if usable else None


def _clear(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _process(job: Mapping[str, Any], options: Options, cells: Callable[[int, int], None] | None) -> dict[str, Any]:
    """Run one job and give its document; what went wrong is in its "failed"."""
    out = Path(job["out"])
    file, log = out.with_suffix(".job"), out.with_suffix(".log")
    with atomic_write(file, "w") as stream:
        json.dump(job, stream, default=str)
    environment = {**os.environ, **{name: str(options.threads) for name in _THREADS}}
    command = [sys.executable, "-m", "nextvec.evaluate.ann.worker", str(file)]
    late = threading.Event()
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(options.limit, stop)
        timer.start()
        try:
            for line in process.stdout or ():
                parts = line.split()
                if cells and len(parts) == 2 and all(part.isdecimal() for part in parts):
                    cells(int(parts[0]), int(parts[1]))
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
            if process.stdout:
                process.stdout.close()
            file.unlink(missing_ok=True)
    if code == 0:
        log.unlink(missing_ok=True)
        return dict(json.loads(out.read_text(encoding="utf-8")))
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no word"]
    why = f"it took longer than {options.limit:.0f} s" if late.is_set() else f"exit code {code}: {said[-1][:_TAIL]}"
    return {"failed": f"{job['stage']}: {why}"}


def machine(options: Options) -> dict[str, Any]:
    """What a reader must know of where the figures come from."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
