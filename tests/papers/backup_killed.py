"""A backup or restore that dies, as by kill -9: ``python backup_killed.py backup|restore HOME FILE POINT [DATABASE]``.

Points of a backup: ``copied`` when the database was copied, ``packed`` when the file was written, ``checked`` before it
takes its name. Of a restore: ``unpacked``, ``adapted`` before the home is touched, ``placed`` when the secret
is there, ``half`` in the middle of writing the database, ``replaced`` before the old index goes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nextvec.papers.operations import backup as module
from nextvec.papers.operations import transfer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_after(name: str) -> None:
    """Replace a function of the module by one that dies when it is done."""
    before: Callable[..., Any] = getattr(module, name)

    def done(*given: Any, **more: Any) -> Any:
        before(*given, **more)
        die()

    setattr(module, name, done)


class Halfway:
    """A connection whose copy dies after its first pages."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __enter__(self) -> Any:
        self.connection.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.connection.__exit__(*error)

    def execute(self, *given: Any) -> Any:
        return self.connection.thing.execute(*given)

    def backup(self, target: Any, **more: Any) -> None:
        calls = iter(range(100))
        self.connection.thing.backup(target.connection.thing, pages=4, progress=lambda *_: next(calls) > 3 and die())


POINTS = {
    "copied": lambda: dies_after("inspect"),
    "packed": lambda: dies_after("pack"),
    "checked": lambda: dies_after("_checked"),
    "unpacked": lambda: dies_after("unpack"),
    "adapted": lambda: dies_after("_adapted"),
    "placed": lambda: dies_after("_place_secret"),
    "replaced": lambda: dies_after("_put"),
}


if __name__ == "__main__":
    action, home, file, point, *database = sys.argv[1:]
    if point == "half":
        raw, write = module.raw, transfer._write
        module.raw = lambda *given: Halfway(raw(*given))  # type: ignore[assignment, return-value]
        tables = iter(range(5))
        transfer._write = lambda *given: write(*given) if next(tables, None) is not None else die()
    else:
        POINTS[point]()
    if action == "backup":
        module.backup(Path(home), Path(file), force=True)
    else:
        module.restore(Path(file), Path(home), force=True, database=next(iter(database), None))
    sys.exit("it was to die")
