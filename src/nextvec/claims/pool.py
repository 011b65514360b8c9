"""Runs side by side, each in a process of its own: a crash of one is not a crash of all, and memory is given back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO

from nextvec.claims.facts import cores, gpus
from nextvec.claims.jobs import Job
from nextvec.files import storage_error
from nextvec.types import InputError, NextvecError, Progress

__all__ = ["FailedRunError", "default_parallel", "environment", "run_jobs"]

_POLL = 0.05  # seconds between two looks at the processes
_STATUS_EVERY = 30.0  # seconds between two lines about what is going on
_GRACE = 3.0  # seconds that a process gets to end itself

Note = Callable[[str], None]


class FailedRunError(NextvecError):
    """A run of a claim failed; the message names arm, seed, the last line of the error, and the log."""


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]


def default_parallel(scale: str) -> int:
    """How many runs go side by side: one per GPU at gpu scale, else one per core."""
    return max(1, len(gpus())) if scale == "gpu" else cores()


def run_jobs(jobs: Sequence[Job], *, parallel: int, progress: Progress, note: Note, base: int = 0) -> list[str]:
    """Run ``jobs``, at most ``parallel`` at a time; one line for each that failed (the others still run).

    ``base`` counts those that were done before, for ``progress``. An interruption (Ctrl-C) ends all processes; what
    was complete is kept.
    """
    if parallel < 1:
        raise InputError(f"{parallel} jobs at a time: at least 1 is needed")
    parallel = min(parallel, max(1, len(jobs)))
    devices = gpus()
    waiting, running, failures = deque(jobs), dict[int, _Running](), list[str]()
    total, done, said = base + len(jobs), base, time.monotonic()
    progress(done, total)
    try:
        while waiting or running:
            for slot in range(parallel):
                if waiting and slot not in running:
                    running[slot] = _start(waiting.popleft(), environment(slot, parallel, devices))
            for slot, one in list(running.items()):
                if one.process.poll() is None:
                    continue
                del running[slot]
                one.log.close()
                if failure := _failure(one):
                    failures.append(failure)
                    note(failure)
                done += 1
                progress(done, total)
            if time.monotonic() - said >= _STATUS_EVERY:
                said = time.monotonic()
                note("running: " + "; ".join(map(_status, running.values())))
            time.sleep(_POLL)
    finally:
        _stop(running.values())
    return failures


def environment(slot: int, parallel: int, devices: Sequence[str]) -> dict[str, str]:
    """Variables of the process in ``slot``: its share of the cores, its GPU, our module path, no random hashes."""
    made = dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHASHSEED": "0",
    }
    if parallel > 1:
        share = str(max(1, cores() // parallel))
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            made.setdefault(name, share)
        made.setdefault("TOKENIZERS_PARALLELISM", "false")
        if devices:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(str(i) for i in range(len(devices)))).split(",")
            made["CUDA_VISIBLE_DEVICES"] = visible[slot % len(visible)]
    return made


def _start(job: Job, variables: dict[str, str]) -> _Running:
    try:
        job.work.mkdir(parents=True, exist_ok=True)
        job.status.unlink(missing_ok=True)
        log = job.log.open("wb")
    except OSError as error:
        raise storage_error(error, job.log) from error
    command = [sys.executable, "-u", "-m", "nextvec.claims.arm", job.to_json()]
    # A session of its own: Ctrl-C reaches us alone, and we end it with all the processes it may have started. The
    # pipe is its lifeline: it breaks when we are gone, even by SIGKILL.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=variables, start_new_session=True
    )
    return _Running(job, process, log)


def _failure(one: _Running) -> str | None:
    """None, or the line that says what went wrong and where to read more."""
    code = one.process.returncode
    if one.process.stdin:
        one.process.stdin.close()
    if code == 0 and one.job.finished() is not None:
        return None
    lines = one.job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = lines[-1].strip() if lines else f"ended with code {code} and said nothing"
    if code < 0:
        reason = f"killed by signal {signal.Signals(-code).name}"
        reason += " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"{one.job} failed: {reason} (log: {one.job.log})"


def _status(one: _Running) -> str:
    try:
        done, _, total = one.job.status.read_text(encoding="ascii").partition(" ")
    except (OSError, UnicodeDecodeError):
        return str(one.job)
    return f"{one.job} ({done.strip()}{'/' + total.strip() if total.strip() else ''})"


def _stop(running: Iterable[_Running]) -> None:
    left = [one for one in running if one.process.poll() is None]
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for one in left:
            with contextlib.suppress(OSError):
                os.killpg(one.process.pid, signal_number)
        until = time.monotonic() + _GRACE
        while any(one.process.poll() is None for one in left) and time.monotonic() < until:
            time.sleep(_POLL)
