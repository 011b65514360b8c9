"""What every command shares: JSON or text out, progress, and errors as one line with an exit code.

Exit codes: 0 done; 1 the work could not be done (bad input, missing file, full disk, no network);
2 the command line itself was wrong; 130 interrupted with Ctrl-C.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

import typer

from nextvec.types import StorageError


class Reporter(Protocol):
    """A ``Progress`` that also takes a few words to show beside the bar."""

    def __call__(self, done: int, total: int | None, words: str = "") -> None: ...


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def emit(document: Any, *, as_json: bool, text: str | None = None) -> None:
    """Print ``document`` as JSON, or ``text`` for people (``text=None``: nothing for people)."""
    if as_json:
        # Escapes of another kind than JSON's own would break the document.
        plain = not (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
        text = json.dumps(document, ensure_ascii=plain, indent=2, default=str)
    if text is not None:
        try:
            print(text, flush=True)
        except BrokenPipeError:  # the reader (head, less) went away, which is not an error
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise StorageError(f"the output cannot be written: {error.strerror or error}") from error


def note(message: str) -> None:
    """A line about what is going on: standard error, so that standard output stays machine-readable."""
    print(message, file=sys.stderr, flush=True)


def table(headers: list[str], rows: list[list[str]], *, right: tuple[int, ...] = ()) -> str:
    """A plain aligned table; ``right`` names the columns that are aligned to the right."""
    widths = [max(len(str(row[i])) for row in [headers, *rows]) for i in range(len(headers))]

    def line(row: list[str]) -> str:
        cells = [
            str(cell).rjust(width) if i in right else str(cell).ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(headers), line(["-" * width for width in widths]), *(line(row) for row in rows)])


@contextmanager
def progress(label: str, *, quiet: bool = False) -> Iterator[Reporter]:
    """A progress bar with the time left in a terminal, a plain line every few seconds elsewhere, nothing when
    ``quiet``.

    Yields a callable, ``(done, total, words="")``; everything goes to standard error.
    """
    if quiet:
        yield lambda done, total, words="": None
    elif sys.stderr.isatty():
        with _rich_bar(label) as report:
            yield report
    else:
        with _plain_lines(label) as report:
            yield report


@contextmanager
def _rich_bar(label: str) -> Iterator[Reporter]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, words="")
        yield lambda done, total, words="": bar.update(task, completed=done, total=total, words=words)


@contextmanager
def _plain_lines(label: str, *, every: float = 3.0) -> Iterator[Reporter]:
    state: dict[str, Any] = {"said": time.monotonic(), "done": -1, "total": None, "shown": -1, "words": ""}

    def say() -> None:
        total = f"/{state['total']}" if state["total"] else ""
        note(f"{label}: {state['done']}{total}  {state['words']}".rstrip())
        state["shown"] = state["done"]

    def report(done: int, total: int | None, words: str = "") -> None:
        state["done"], state["total"], state["words"] = done, total, words
        if time.monotonic() - float(state["said"] or 0) >= every:
            state["said"] = time.monotonic()
            say()

    yield report
    if state["done"] != state["shown"]:
        say()
