"""The same ingest again and again beside a running site, in a process of its own.

A process, not a thread: what goes wrong in it, or grows in it, ends with it, and readers never wait for it. Only one
process writes a site at a time; when it is another one's turn, this one comes back at the next time.
"""

from __future__ import annotations

import contextlib
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from nextvec.types import InputError

__all__ = ["Scheduler", "read_every"]

_UNITS = {"m": 60, "h": 3_600, "d": 86_400}
_SHORTEST, _LONGEST = 60, 30 * 86_400
_log = logging.getLogger("nextvec.papers")


def read_every(text: str) -> int:
    """``90m``, ``6h``, ``1d`` -> seconds, from a minute to thirty days. InputError for anything else."""
    found = re.fullmatch(r"(\d{1,5})\s*([mhd])", text.strip().lower(), re.ASCII)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not _SHORTEST <= seconds <= _LONGEST:
        raise InputError(f"every is {text[:40]!r}; expected a time from 1m to 30d, such as 6h")
    return seconds


class Scheduler:
    """Runs each of ``commands`` (arguments of ``nextvec``), one after the other, every ``every`` seconds.

    ``last``: when this was last done (naive UTC), so that a restart does not repeat it at once; ``say``: told one line
    about each run. ``start`` and ``stop``; a run that is going on when it is stopped is interrupted, and goes on with
    the next start.
    """

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        every: float,
        *,
        last: Callable[[], datetime | None] = lambda: None,
        say: Callable[[str], None] = _log.info,
    ) -> None:
        self.commands = [list(command) for command in commands]
        self.every = every
        self.runs: list[int] = []
        """The exit codes of all runs."""
        self._last = last
        self._say = say
        self._stop = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="nextvec-ingest", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Interrupt what runs, and wait for its end."""
        self._stop.set()
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
        self._thread.join(timeout=30)

    def first_wait(self) -> float:
        """Seconds until the first run: what is left of the time since the last one."""
        before = self._last()
        if before is None:
            return 0.0
        gone = (datetime.now(UTC).replace(tzinfo=None) - before).total_seconds()
        return min(max(self.every - gone, 0.0), self.every)

    def _work(self) -> None:
        wait = self.first_wait()
        while not self._stop.wait(wait):
            began = time.monotonic()
            for command in self.commands:
                if self._stop.is_set():
                    return
                self._run(command)
            wait = max(self.every - (time.monotonic() - began), 1.0)

    def _run(self, command: Sequence[str]) -> None:
        with self._lock:
            if self._stop.is_set():
                return
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nextvec.cli.main", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        out, errors = self._process.communicate()
        code = self._process.returncode
        self.runs.append(code)
        told = [line for line in (out if code == 0 else errors).splitlines() if line.strip()]
        if not self._stop.is_set():
            with contextlib.suppress(OSError, ValueError):  # nobody may listen any more
                self._say(f"{' '.join(command[:4])}: {told[-1][:300] if told else f'ended with {code}'}")
