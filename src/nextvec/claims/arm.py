"""The process of one run: ``python -m nextvec.claims.arm JOB``, started by ``pool``; its result is one JSON file."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from nextvec import __version__, catalog
from nextvec.claims.facts import commit, cores
from nextvec.claims.jobs import Job, digest
from nextvec.files import atomic_write
from nextvec.types import Claim, ConflictError, InputError, Run

_EVERY = 1.0  # seconds between two reports of progress


def main() -> None:
    """Run the job; what fails is told in the last line of the log, and with exit code 1."""
    _end_with_parent()
    job = Job.from_json(sys.argv[1])
    try:
        result = run(job)
        with atomic_write(job.result, "w") as stream:
            json.dump(result, stream, indent=1, ensure_ascii=False)
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        print(f"{type(error).__name__}: {first}", file=sys.stderr, flush=True)
        sys.exit(1)
    finally:
        job.status.unlink(missing_ok=True)


def run(job: Job) -> dict[str, Any]:
    """Do what ``job`` says, in this process; what is to be kept of it."""
    method = catalog.find(job.package, job.method)
    if digest(method, version=__version__) != job.key:
        raise ConflictError(f"the file of {job.method} was changed after the claim was started: start it again")
    claim: Claim = method.claim(job.scale)
    began = time.perf_counter()
    measures = {}
    if job.arm:
        job.folder.mkdir(parents=True, exist_ok=True)
        _seed(job.seed)
        made = claim.arms[job.arm](Run(job.seed, job.shared, job.folder, _reporter(job)))
        measures = _checked(made, job)
    else:
        # What an interrupted preparation left may be torn: it begins anew.
        shutil.rmtree(job.folder, ignore_errors=True)
        job.folder.mkdir(parents=True)
        _seed(job.seed)
        if claim.prepare is not None:
            claim.prepare(job.folder)
    return {
        "kind": "claim run",
        "method": job.method,
        "scale": job.scale,
        "arm": job.arm,
        "seed": job.seed,
        "measures": measures,
        "seconds": round(time.perf_counter() - began, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or cores()),
        "nextvec": __version__,
        "commit": commit(),
    }


def _checked(made: Any, job: Job) -> dict[str, float]:
    if not isinstance(made, Mapping) or not made:
        raise InputError(f"arm {job.arm!r} returned {type(made).__name__}; expected measures, a mapping of numbers")
    measures = {str(name): float(value) for name, value in made.items()}
    for name, value in measures.items():
        if not math.isfinite(value):
            raise InputError(f"measure {name!r} is {value}: a diverged run has no place in a mean")
    return measures


def _seed(seed: int) -> None:
    """Seed what an arm might have forgotten. An arm still has to make its own generators from ``Run.seed``."""
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


def _reporter(job: Job) -> Any:
    said = -math.inf

    def report(done: int, total: int | None) -> None:
        nonlocal said
        if time.monotonic() - said >= _EVERY:
            said = time.monotonic()
            with contextlib.suppress(OSError):  # a report is not worth a run
                job.status.write_text(f"{done} {total or ''}", encoding="ascii")

    return report


def _end_with_parent() -> None:
    """End this process and its children when the one that started it is gone, however it went: it holds the other end
    of our standard input."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        if os.getpid() == os.getpgid(0):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main()
