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
_SCHEMA = 1  # of the documents in results: another one is not gone on with
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
    work = _Work(workload, out, _key(workload, options), options)
    try:
        work.results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, work.results) from error
    found: dict[str, dict[str, Any]] = {name: {"build": None, "rounds": [], "failed": None} for name in engines}
    total, done = len(engines) * (options.rounds + 1), 0

    def told(words: str) -> None:
        if report:
            report(done, total, words)

    for number in range(1, options.rounds + 1):
        turn = (number - 1) % len(engines)
        for name in [*engines[turn:], *engines[:turn]]:
            own = found[name]
            if number == 1:
                told(f"{name}, build")
                _accept(own, "build", work.built(name))
                done += 1
            if own["failed"] is None:
                document = work.measured(name, number, told)
                _accept(own, "rounds", document)
            done += 1
            told(f"{name}, round {number} done")
    if not options.keep_indexes:
        shutil.rmtree(out / "index", ignore_errors=True)
    return found


@dataclass(frozen=True, slots=True)
class _Work:
    """Finished documents where they are there, else the processes that make them."""

    workload: Path
    out: Path
    key: str
    options: Options

    @property
    def results(self) -> Path:
        return self.out / "results"

    def built(self, name: str) -> dict[str, Any]:
        """The document of the build. An index that is gone is made again if something is still to be measured with
        it, and then everything is: figures of two builds are not mixed."""
        path = self.results / f"{name}.build.json"
        rounds = [self._round(name, number) for number in range(1, self.options.rounds + 1)]
        kept = _read(path, self.key)
        if kept is not None and (self._index(name).is_dir() or all(_read(one, self.key) for one in rounds)):
            return kept
        for one in (path, *rounds):
            one.unlink(missing_ok=True)
        return self._process("build", name, path, None)

    def measured(self, name: str, number: int, told: Callable[[str], None]) -> dict[str, Any]:
        """The document of a round."""

        def cells(at: int, of: int) -> None:
            told(f"{name}, round {number}, cell {at} of {of}")

        path = self._round(name, number)
        return _read(path, self.key) or self._process("measure", name, path, cells)

    def _round(self, name: str, number: int) -> Path:
        return self.results / f"{name}.round{number}.json"

    def _index(self, name: str) -> Path:
        return self.out / "index" / name

    def _process(self, stage: str, name: str, out: Path, cells: Callable[[int, int], None] | None) -> dict[str, Any]:
        job = {
            "stage": stage,
            "engine": name,
            "out": str(out.resolve()),
            "workload": str(self.workload.resolve()),
            "index": str(self._index(name).resolve()),
            "key": self.key,
            "threads": self.options.threads,
            "seconds": self.options.seconds,
        }
        return _process(job, self.options, cells)


def _accept(own: dict[str, Any], place: str, document: dict[str, Any]) -> None:
    if "failed" in document:
        own["failed"] = document["failed"]
    elif place == "rounds":
        own["rounds"].append(document)
    else:
        own[place] = document


def _key(workload: Path, options: Options) -> str:
    """A hash of what decides a result, so that no run goes on with those of another."""
    told = json.dumps([_SCHEMA, sha256(workload / "workload.json"), options.seconds, options.threads])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _read(path: Path, key: str) -> dict[str, Any] | None:
    """A finished document of the same run; None where there is none, it failed, or is of another run."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    usable = isinstance(document, dict) and document.get("key") == key and "failed" not in document
    return document if usable else None


def _process(job: Mapping[str, Any], options: Options, cells: Callable[[int, int], None] | None) -> dict[str, Any]:
    """Run one job and give its document; what went wrong is in its "failed"."""
    out = Path(job["out"])
    file, log = out.with_suffix(".job"), out.with_suffix(".log")
    with atomic_write(file, "w") as stream:
        json.dump(job, stream)
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
