"""The connection to the database of papers: opened and migrated, read from snapshots, written in transactions; and the
facts that it keeps about itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from nextvec.files import storage_error
from nextvec.papers import postgresql as pg
from nextvec.papers.db_errors import errors_told
from nextvec.papers.migrations import migrate
from nextvec.papers.tables import FACTS

__all__ = ["Connected", "rows_among", "rows_of", "upsert_statement"]


_CACHE = 8_000
"""Kilobytes of pages that each connection to a file keeps. There are up to fifteen connections, and with many readers
each of them fills its own: four times as much made a server of 60 MB one of 450 MB."""
_AT_ONCE = 5_000  # rows: while the driver hands them out, other threads hardly come to run
_LISTED = 500  # values in one statement
_HOLDERS = 8
"""Snapshots that are held at once (``snapshot_held``), of the fifteen connections to a file or the forty to a server:
whoever works something out for those who wait, a snapshot in hand, finds a connection for it."""


@dataclass(slots=True)
class _Held:
    """What one thread reads for a while: ``facts``, and ``connection``, None where each read takes one of its own."""

    db: Connected
    facts: dict[str, str]
    connection: sa.Connection | None


_HELD: ContextVar[_Held | None] = ContextVar("snapshot_held", default=None)


class Connected:
    """What ``Database`` stands on."""

    def __init__(
        self,
        location: str | Path | sa.URL,
        *,
        read_only: bool = False,
        settle: Callable[[sa.Connection], None] | None = None,
    ) -> None:
        """Open and migrate. ``location``: a SQLite file, or the address of a PostgreSQL database. Raises StorageError
        (unusable file or server), DamagedDatabaseError, InputError (an address that is none), MissingExtraError.

        ``read_only`` opens it as it is, without migrating; a folder of a SQLite file that cannot be written (a
        read-only disk) is read as an unchanging snapshot. ``settle`` is called in the transaction that migrates, at
        its end.
        """
        where: Path | sa.URL
        if isinstance(location, str):
            where = pg.read_address(location) if "://" in location else Path(location)
        else:
            where = location
        self.read_only = read_only
        self._holders = threading.BoundedSemaphore(_HOLDERS)
        self._engine: sa.Engine
        if isinstance(where, sa.URL):
            self.location = pg.shown(where)
            self._engine = pg.make_engine(where)
            snapshot: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            self._reading = self._engine.execution_options(**snapshot)
            self._writing = self._engine.execution_options(isolation_level="READ COMMITTED", nextvec_write=True)
        else:
            self.location = str(where)
            self._engine = _engine(where, read_only=read_only)
            self._reading = self._engine.execution_options()
            self._writing = self._engine.execution_options(nextvec_write=True)
        try:
            if not read_only:
                self._prepare(where.parent if isinstance(where, Path) else None, settle)
        except BaseException:
            self.close()
            raise

    def _prepare(self, folder: Path | None, settle: Callable[[sa.Connection], None] | None) -> None:
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise storage_error(error, folder) from error
        with self.write() as connection:
            migrate(connection)
            if settle:
                settle(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A snapshot; database errors come out as StorageError."""
        held = self._held()
        if held is None or held.connection is None:
            with errors_told(self.location), self._reading.begin() as connection:
                yield connection
            return
        try:
            with errors_told(self.location):
                yield held.connection
        except BaseException:
            held.connection = None  # PostgreSQL answers nothing more in a transaction that had an error
            raise

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction: all of it or nothing; one at a time."""
        if (held := self._held()) is not None:
            held.connection = None  # what is written is read after it
        with errors_told(self.location), self._writing.begin() as connection:
            yield connection

    # -- facts -------------------------------------------------------------------------------------------------
    def fact(self, name: str) -> str | None:
        """A fact about the site (encoder, generation, source), or None."""
        if (held := self._held()) is not None:
            return held.facts.get(name)
        with self.read() as connection:
            return connection.execute(sa.select(FACTS.c.value).where(FACTS.c.name == name)).scalar()

    def facts(self, *names: str) -> dict[str, str]:
        """Those of these facts that there are."""
        if (held := self._held()) is not None:
            return {name: held.facts[name] for name in names if name in held.facts}
        with self.read() as connection:
            rows = connection.execute(sa.select(FACTS.c.name, FACTS.c.value).where(FACTS.c.name.in_(names)))
            return {row.name: row.value for row in rows}

    @contextmanager
    def snapshot_held(self) -> Iterator[None]:
        """While the block runs, what its thread reads is as it was when it began, over one connection: a page asks ten
        times, and each transaction of its own costs as much as the question. For what only reads: what the block writes
        is read by what follows in it, but not by ``fact``.

        Where many do so already, only the facts are held, and each question is a transaction again.
        """
        if self._held() is not None:
            yield
            return
        if not self._holders.acquire(blocking=False):
            with self.read() as connection:
                facts = _facts(connection)
            with self._holding(_Held(self, facts, None)):
                yield
            return
        with ExitStack() as stack:
            stack.callback(self._holders.release)
            with errors_told(self.location):
                connection = stack.enter_context(self._reading.begin())
                facts = _facts(connection)
            with self._holding(_Held(self, facts, connection)):
                yield

    @contextmanager
    def _holding(self, held: _Held) -> Iterator[None]:
        token = _HELD.set(held)
        try:
            yield
        finally:
            _HELD.reset(token)

    def _held(self) -> _Held | None:
        held = _HELD.get()
        return held if held is not None and held.db is self else None

    def set_facts(self, **facts: str) -> None:
        """Store facts, in one transaction."""
        with self.write() as connection:
            statement = upsert_statement(connection, FACTS, "name", ["value"])
            connection.execute(statement, [{"name": name, "value": value} for name, value in facts.items()])


def _facts(connection: sa.Connection) -> dict[str, str]:
    return {row.name: row.value for row in connection.execute(sa.select(FACTS.c.name, FACTS.c.value))}


def _engine(file: Path, *, read_only: bool) -> sa.Engine:
    path = file.resolve()
    address = f"file:{_quoted(path)}"
    if read_only:
        # WAL needs to create files beside the database; where that is impossible nobody writes either.
        address += "?mode=ro" if os.access(path.parent, os.W_OK) else "?mode=ro&immutable=1"
    # Parameters are titles, addresses, comments: an error in the log must not repeat them.
    creator = partial(_connect, address)
    engine = sa.create_engine("sqlite://", creator=creator, poolclass=sa.pool.QueuePool, hide_parameters=True)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # The driver's own transactions would leave DDL outside; IMMEDIATE lets two writers wait, not fail.
        writing = connection.get_execution_options().get("nextvec_write", False)
        # To the driver itself: a page begins often, and SQLAlchemy takes as long for this as for a question.
        driver = connection.connection.dbapi_connection
        assert driver is not None
        driver.execute("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _connect(address: str) -> Any:
    import sqlite3

    connection = sqlite3.connect(
        address + ("&" if "?" in address else "?") + "cache=private",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=30.0,
    )
    if "mode=ro" not in address:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA cache_size=-{_CACHE}")
    return connection


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path))


def rows_of(connection: sa.Connection, query: sa.Executable) -> list[tuple[Any, ...]]:
    """The rows as the driver gives them (no types are worked out), for many of them: in a fifth of the time."""
    cursor: Any = connection.execute(query).cursor
    found: list[tuple[Any, ...]] = []
    while some := cursor.fetchmany(_AT_ONCE):
        found += some
    return found


def rows_among(
    connection: sa.Connection, query: sa.Select[Any], column: sa.ColumnElement[str], wanted: Sequence[str]
) -> list[tuple[Any, ...]]:
    """``rows_of`` a query, those for which ``column`` is one of ``wanted``, of which there may be any number."""
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(wanted), _LISTED):
        found += rows_of(connection, query.where(column.in_(wanted[start : start + _LISTED])))
    return found


def upsert_statement(connection: sa.Connection, table: sa.Table, key: str, columns: Sequence[str]) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    return statement.on_conflict_do_update(
        index_elements=[table.c[key]], set_={name: statement.excluded[name] for name in columns}
    )
