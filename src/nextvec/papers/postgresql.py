"""PostgreSQL under the papers, so that every query means there what it means on SQLite.

One writer: a transaction that writes begins with a lock that is the same for all of them, and waits for it as long as
SQLite would. Reads see one snapshot and may not write. Texts compare by their characters' numbers, and know no length,
as on SQLite; whole numbers have 64 bits.
"""

from __future__ import annotations

import re

import sqlalchemy as sa

from nextvec.extras import require
from nextvec.types import InputError

__all__ = ["WHY", "even_out", "make_engine", "read_address", "shown"]

WHY = "the paper-discovery site on PostgreSQL"
_EXPECTED = "expected postgresql://user@host/database"
_SECRETS = ("password", "sslpassword")
_WAIT = "30s"
_WRITERS = 0x6E657874766563  # the lock of all who write: any number that others do not use
_CONNECT = 10  # seconds
_OURS = "SELECT table_name, column_name, data_type, collation_name FROM information_schema.columns WHERE "
_OURS += "table_schema = current_schema() AND table_name IN "


def read_address(text: str) -> sa.URL:
    """``postgresql://user@host/database`` taken apart. InputError, which never repeats it: it may hold a password."""
    scheme, found, _ = text.strip().partition("://")
    if not found or scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise InputError(f"the database's address begins with {scheme[:20] if found else 'no scheme'!r}; {_EXPECTED}")
    try:
        url = sa.make_url("postgresql+psycopg://" + text.strip().partition("://")[2])
    except (sa.exc.ArgumentError, ValueError):
        raise InputError(f"the database's address cannot be read; {_EXPECTED}") from None
    if re.search(r"[@\s]", f"{url.username or ''}{url.host or ''}{url.database or ''}") or "/" in (url.database or ""):
        raise InputError(
            "the database's address has an @, / or space too many: in user and password they are written as %40, %2F "
            f"and %20; {_EXPECTED}"
        )
    if not url.database:
        raise InputError(f"the database's address names no database; {_EXPECTED}")
    return url


def shown(url: sa.URL) -> str:
    """The address without any password, for people."""
    query = {name: value for name, value in url.query.items() if name not in _SECRETS}
    # Not "***" in its place: what is shown can be used again where the password comes from a file.
    return sa.URL.create("postgresql", url.username, None, url.host, url.port, url.database, query).render_as_string(
        hide_password=True
    )


def make_engine(url: sa.URL) -> sa.Engine:
    """What connects to ``url``. MissingExtraError without the driver."""
    require("psycopg", why=WHY)
    given = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT}
    engine = sa.create_engine(
        url,
        # Parameters are titles, addresses, comments: an error in the log must not repeat them.
        hide_parameters=True,
        # A server that was restarted has ended the connections that wait here.
        pool_pre_ping=True,
        # A server answers with 40 threads, none of which takes two: no reader waits for another one's connection.
        pool_size=10,
        max_overflow=30,
        connect_args={"application_name": "nextvec papers", **given},
    )

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("nextvec_write", False):
            connection.exec_driver_sql(
                f"SELECT set_config('lock_timeout', '{_WAIT}', true), pg_advisory_xact_lock({_WRITERS})"
            )

    @sa.event.listens_for(engine, "handle_error")
    def first_line(context: sa.ExceptionContext) -> None:
        # The lines after the first repeat the row that was refused.
        for error in (context.original_exception, context.sqlalchemy_exception):
            if error is not None and error.args:
                error.args = (str(error.args[0]).partition("\n")[0], *error.args[1:])

    return engine


def even_out(connection: sa.Connection, tables: list[str]) -> None:
    """Give the columns of ``tables`` types that behave as SQLite's do: text in the order of its characters' numbers and
    of any length, whole numbers of 64 bits. Does nothing the second time."""
    names = ", ".join(f"'{name}'" for name in tables)
    for row in connection.exec_driver_sql(f"{_OURS}({names})").all():
        kind = None
        if row.data_type == "character varying" or (row.data_type == "text" and row.collation_name != "C"):
            kind = 'TEXT COLLATE "C"'
        elif row.data_type == "integer":
            kind = "BIGINT"
        if kind:
            connection.exec_driver_sql(f'ALTER TABLE "{row.table_name}" ALTER COLUMN "{row.column_name}" TYPE {kind}')
