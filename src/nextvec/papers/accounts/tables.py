"""The tables of readers as the queries see them, and what every part that writes to them needs.

``schema`` makes these tables. A column ``reader`` holds a reader's id; ``personal`` exports and deletes by it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from nextvec.papers.db import Database
from nextvec.papers.tables import FACTS, PAPERS
from nextvec.types import NotFoundError

__all__ = [
    "COMMENTS",
    "INTERESTS",
    "LISTS",
    "LIST_PAPERS",
    "METADATA",
    "READERS",
    "SESSIONS",
    "SIGN_INS",
    "TOKENS",
    "VOTES",
    "as_reader",
    "count",
    "insert_once",
    "new_id",
    "now",
]

METADATA = sa.MetaData()
READERS = sa.Table(
    "readers",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("email", sa.String(254)),
    sa.Column("name", sa.String(60)),
    sa.Column("name_key", sa.String(120)),
    sa.Column("role", sa.String(16)),
    sa.Column("created_at", sa.DateTime),
)
SIGN_INS = sa.Table(
    "sign_ins",
    METADATA,
    sa.Column("selector", sa.String(32), primary_key=True),
    sa.Column("token_hash", sa.String(64)),
    sa.Column("email", sa.String(254)),
    sa.Column("leads_to", sa.Text),
    sa.Column("created_at", sa.DateTime),
    sa.Column("expires_at", sa.DateTime),
)
SESSIONS = sa.Table(
    "sessions",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("reader", sa.String(32)),
    sa.Column("created_at", sa.DateTime),
    sa.Column("expires_at", sa.DateTime),
)
VOTES = sa.Table(
    "votes",
    METADATA,
    sa.Column("reader", sa.String(32), primary_key=True),
    sa.Column("paper", sa.String(64), primary_key=True),
    sa.Column("created_at", sa.DateTime),
)
COMMENTS = sa.Table(
    "comments",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("paper", sa.String(64)),
    sa.Column("parent", sa.String(32)),
    sa.Column("reader", sa.String(32)),
    sa.Column("text", sa.Text),
    sa.Column("state", sa.String(16)),
    sa.Column("hidden_by", sa.String(32)),
    sa.Column("created_at", sa.DateTime),
    sa.Column("edited_at", sa.DateTime),
)
LISTS = sa.Table(
    "lists",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("reader", sa.String(32)),
    sa.Column("name", sa.String(80)),
    sa.Column("address", sa.String(64)),
    sa.Column("created_at", sa.DateTime),
)
LIST_PAPERS = sa.Table(
    "list_papers",
    METADATA,
    sa.Column("list", sa.String(32), primary_key=True),
    sa.Column("paper", sa.String(64), primary_key=True),
    sa.Column("note", sa.Text),
    sa.Column("created_at", sa.DateTime),
)
INTERESTS = sa.Table(
    "interests",
    METADATA,
    sa.Column("reader", sa.String(32), primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("folded", sa.String(600), primary_key=True),
    sa.Column("said", sa.Text),
    sa.Column("stance", sa.String(8)),
    sa.Column("created_at", sa.DateTime),
)
TOKENS = sa.Table(
    "tokens",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("token_hash", sa.String(64)),
    sa.Column("reader", sa.String(32)),
    sa.Column("name", sa.String(60)),
    sa.Column("scopes", sa.String(60)),
    sa.Column("created_at", sa.DateTime),
    sa.Column("ends_on", sa.Date),
    sa.Column("used_on", sa.Date),
)


def now() -> datetime:
    """Naive UTC, as all times are kept."""
    return datetime.now(UTC).replace(tzinfo=None)


def new_id() -> str:
    """128 random bits, nearly, as 22 characters that an address can hold; none looks like a command's option."""
    while (made := secrets.token_urlsafe(16)).startswith("-"):
        pass
    return made


@contextmanager
def as_reader(db: Database, reader: str) -> Iterator[sa.Connection]:
    """One transaction on behalf of ``reader``; NotFoundError where the account was deleted in the meantime."""
    with db.write() as connection:
        # With a lock where the database knows one: a deletion that runs beside this waits, and then finds its rows.
        query = sa.select(READERS.c.id).where(READERS.c.id == reader).with_for_update(read=True)
        if connection.execute(query).first() is None:
            raise NotFoundError("this account was deleted: sign in again to begin a new one")
        yield connection


def insert_once(connection: sa.Connection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert a row unless its primary key is there; whether it was new."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    keys = [column.name for column in table.primary_key]
    statement = dialect.insert(table).values(values).on_conflict_do_nothing(index_elements=keys)
    return connection.execute(statement.returning(table.c[keys[0]])).first() is not None


def count(connection: sa.Connection, paper: str, *, votes: int = 0, comments: int = 0) -> None:
    """Add to what the site has given ``paper``, and tell the orders that are kept in memory.

    ``upvotes`` and ``num_comments`` are columns that every list, filter and ranking reads; this keeps them, and the
    site's share of them, in step within the caller's transaction. NotFoundError where there is no such paper.
    """
    c = PAPERS.c
    done = connection.execute(
        PAPERS.update()
        .where(c.id == paper)
        .values(
            upvotes=c.upvotes + votes,
            site_votes=c.site_votes + votes,
            num_comments=c.num_comments + comments,
            site_comments=c.site_comments + comments,
        )
    )
    if done.rowcount != 1:
        raise NotFoundError(f"there is no paper {paper[:80]!r} in this collection")
    moment = f"{now().isoformat()} {secrets.token_hex(4)}"
    connection.execute(FACTS.update().where(FACTS.c.name == "activity").values(value=moment))
