"""What the database refuses, in one clear line each. No line holds a parameter or a password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

from nextvec.types import ConflictError, InputError, NextvecError, StorageError

__all__ = ["BusyDatabaseError", "DamagedDatabaseError", "errors_told"]


_LATER = (
    *(f"table: {name}" for name in ("authors", "revisions", "snapshots", "withdrawn", "source_records", "names")),
    *("table: submissions", "table: categories", "table: mail_", "column: papers.site_"),
)
"""What came after the first version: a database without it is old, not damaged."""
_UNDEFINED = ("42P01", "42703")
_BUSY = ("55P03", "40001", "40P01")
_REASONS = {
    "25006": "it is read-only",
    "53100": "the disk is full",
    "42501": "its user lacks a right ({cause})",
}
"""States of PostgreSQL (SQLSTATE) that say more than its message."""
_REASONS_OF_SQLITE = {
    "readonly": "it is read-only",
    "full": "the disk is full",
    "unable to open": "it cannot be opened (is the disk read-only?)",
}


class DamagedDatabaseError(StorageError):
    """The database file is there but cannot be read as one."""


class BusyDatabaseError(ConflictError):
    """Another writer holds the database: the same may work in a moment."""


@contextmanager
def errors_told(location: str) -> Iterator[None]:
    try:
        yield
    except NextvecError:
        raise
    except UnicodeEncodeError as error:
        raise InputError("a text holds half of a character, which no database keeps: send it as UTF-8") from error
    except sa.exc.TimeoutError as error:
        raise StorageError(f"cannot use the paper database {location!r}: all connections to it are in use") from error
    except (DBAPIError, _driver_error()) as error:
        cause = str(getattr(error, "orig", None) or error)
        if isinstance(error, DBAPIError) and "psycopg" in type(error.orig).__module__:
            told = _of_postgresql(error, location)
        else:
            told = _of_sqlite(error, location, cause)
        if told is None:
            raise
        raise told from error


def _of_sqlite(error: Exception, location: str, cause: str) -> NextvecError | None:
    if "locked" in cause:
        return _busy(location)
    if any(f"no such {name}" in cause for name in _LATER):
        return StorageError(
            f"the paper database {location!r} was made by an older nextvec and is on a read-only disk: "
            "open it once with this nextvec where it can be written"
        )
    if any(word in cause for word in ("not a database", "malformed", "no such table", "no such column")):
        return DamagedDatabaseError(
            f"the paper database {location!r} is damaged ({cause}): move it away and ingest the papers again"
        )
    if isinstance(error, OperationalError) or "sqlite" in type(error).__module__:
        reason = next((text for word, text in _REASONS_OF_SQLITE.items() if word in cause), cause)
        return StorageError(f"cannot use the paper database {location!r}: {reason}")
    return None


def _of_postgresql(error: DBAPIError, location: str) -> NextvecError | None:
    state = getattr(error.orig, "sqlstate", None) or ""
    lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
    cause = lines[0][:300]  # further ones may repeat what was to be written
    if isinstance(error, IntegrityError):
        return None
    if isinstance(error, DataError):
        return InputError(f"the database does not keep such a value: {cause}")
    if state in _BUSY:
        return _busy(location)
    if state in _UNDEFINED:
        return StorageError(
            f"the paper database {location!r} was made by an older nextvec ({cause}), and its home is on a read-only "
            "disk: open it once with this nextvec where the home can be written"
        )
    reason = _REASONS.get(state, "{cause}").format(cause=cause)
    return StorageError(f"cannot use the paper database {location!r}: {reason}")


def _busy(location: str) -> BusyDatabaseError:
    return BusyDatabaseError(f"the paper database {location!r} is busy with another writer: try again")


def _driver_error() -> type[Exception]:
    import sqlite3

    return sqlite3.Error
