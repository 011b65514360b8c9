"""Plain text files of evaluation sets, line by line: what every loader of one does the same way."""

from __future__ import annotations

from pathlib import Path

from nextvec.files import storage_error
from nextvec.types import InputError

__all__ = ["number", "read_lines"]


def read_lines(path: Path, *, encoding: str = "utf-8") -> list[tuple[str, str]]:
    """The non-empty lines of ``path`` as (place, line), the place being "name:17".

    Only a line feed ends a line (texts hold other characters that Python would end one at); a carriage return before
    it and a leading BOM are dropped. StorageError where the file cannot be read, InputError where it is in another
    encoding or holds no line.
    """
    try:
        text = path.read_bytes().decode(encoding)
    except OSError as error:
        raise storage_error(error, path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not {encoding.upper()}: the file is damaged") from error
    lines = text.removeprefix("\ufeff").split("\n")
    found = [(f"{path.name}:{i}", line.removesuffix("\r")) for i, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise InputError(f"{str(path)!r} holds no line: the file is damaged or truncated")
    return found


def number(text: str, place: str, what: str, low: float, high: float) -> float:
    """``text`` as a number from ``low`` to ``high``; InputError that names the place for anything else."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{place}: the {what} is {text!r:.40}; expected a number") from None
    if not low <= value <= high:  # NaN compares false too
        raise InputError(f"{place}: the {what} is {value}; expected {low:g} to {high:g}")
    return value
