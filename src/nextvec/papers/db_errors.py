"""What the database refuses, in one clear line each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, OperationalError

from nextvec.types import ConflictError, NextvecError, StorageError

__all__ = ["DamagedDatabaseError", "errors_told"]


_LATER = (
    *(f"table: {name}" for name in ("authors", "revisions", "snapshots", "withdrawn", "source_records", "names")),
    *("table: submissions", "table: mail_", "column: papers.site_"),
)
"""What came after the first version: a database without it is old, not damaged."""


class DamagedDatabaseError(StorageError):
    """The database file is there but cannot be read as one."""


@contextmanager
def errors_told(location: str) -> Iterator[None]:
    try:
        yield
    except NextvecError:
        raise
    except (DatabaseError, sa.exc.TimeoutError, _driver_error()) as error:
        cause = str(getattr(error, "orig", None) or error)
        if "locked" in cause:
            raise ConflictError(f"the paper database {location!r} is busy with another writer: try again") from error
        if any(f"no such {name}" in cause for name in _LATER):
            raise StorageError(
                f"the paper database {location!r} was made by an older nextvec and is on a read-only disk: "
                "open it once with this nextvec where it can be written"
            ) from error
        if any(word in cause for word in ("not a database", "malformed", "no such table", "no such column")):
            raise DamagedDatabaseError(
                f"the paper database {location!r} is damaged ({cause}): move it away and ingest the papers again"
            ) from error
        if isinstance(error, OperationalError) or "sqlite" in type(error).__module__:
            hint = {
                "readonly": "it is read-only",
                "full": "the disk is full",
                "unable to open": "it cannot be opened (is the disk read-only?)",
            }
            reason = next((text for word, text in hint.items() if word in cause), cause)
            raise StorageError(f"cannot use the paper database {location!r}: {reason}") from error
        raise


def _driver_error() -> type[Exception]:
    import sqlite3

    return sqlite3.Error
