"""All that the site holds of one reader: as one document, and gone.

A table that holds a reader's id or address is named here; the tests walk through the whole database and fail for one
that is not.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from nextvec.papers.accounts.comments import blank
from nextvec.papers.accounts.readers import Reader
from nextvec.papers.accounts.tables import (
    COMMENTS,
    INTERESTS,
    LIST_PAPERS,
    LISTS,
    READERS,
    SESSIONS,
    SIGN_INS,
    TOKENS,
    VOTES,
    as_reader,
    count,
)
from nextvec.papers.db import Database
from nextvec.papers.mail import tables as mail
from nextvec.papers.mail.addresses import fold
from nextvec.papers.sources.tables import AUDIT

__all__ = ["HELD", "delete_account", "export"]

HELD: dict[str, tuple[sa.Table, str]] = {
    "account": (READERS, "id"),
    "sign_ins": (SIGN_INS, "email"),
    "sessions": (SESSIONS, "reader"),
    "tokens": (TOKENS, "reader"),
    "votes": (VOTES, "reader"),
    "comments": (COMMENTS, "reader"),
    "lists": (LISTS, "reader"),
    "list_papers": (LIST_PAPERS, "list"),
    "interests": (INTERESTS, "reader"),
    "moderated": (AUDIT, "actor"),
    "mail": (mail.READERS, "folded"),
    "mail_subscriptions": (mail.SUBSCRIPTIONS, "mailbox"),
    "mail_sent": (mail.OUTBOX, "mailbox"),
    "mail_papers": (mail.SEEN, "mailbox"),
}
"""Name in the export -> a table, and the column that leads to the reader: the id, the address, one of the lists, or the
mailbox with the address: whoever signs in by mail has shown that it is theirs."""
_UNTOLD = {"token_hash", "selector", "name_key", "folded", "hidden_by"}
"""What signs in, which is nobody's to keep in a file; what only repeats another column; which moderator it was."""


def export(db: Database, reader: Reader) -> dict[str, Any]:
    """Everything the site holds of ``reader``, as JSON holds it; one list of rows for each table."""
    with db.read() as connection:
        return {
            name: [
                {column: _told(value) for column, value in row._mapping.items() if column not in _UNTOLD}
                for row in connection.execute(sa.select(table).where(_mine(table, column, reader)))
            ]
            for name, (table, column) in HELD.items()
        }


def delete_account(db: Database, reader: Reader) -> None:
    """Take ``reader`` away with all that is theirs; comments lose text and author, not their place,
    and the log of moderators the name of one who acted."""
    with as_reader(db, reader.id) as connection:
        for (paper,) in connection.execute(sa.select(VOTES.c.paper).where(VOTES.c.reader == reader.id)).all():
            count(connection, paper, votes=-1)
        for row in connection.execute(sa.select(COMMENTS).where(COMMENTS.c.reader == reader.id)).all():
            blank(connection, row)
        hid = COMMENTS.update().where(COMMENTS.c.hidden_by == reader.id)
        connection.execute(hid.values(hidden_by="moderator"))
        acts = AUDIT.update().where(AUDIT.c.actor == reader.id)
        connection.execute(acts.values(actor="a former moderator"))
        kept = (COMMENTS, READERS, AUDIT)
        for table, column in reversed(HELD.values()):
            if table not in kept:
                connection.execute(table.delete().where(_mine(table, column, reader)))
        connection.execute(READERS.delete().where(READERS.c.id == reader.id))


def _mine(table: sa.Table, column: str, reader: Reader) -> sa.ColumnElement[bool]:
    if column == "email":
        return table.c.email == (reader.email or "")
    if column == "list":
        return table.c.list.in_(sa.select(LISTS.c.id).where(LISTS.c.reader == reader.id))
    if column == "folded":
        return table.c.folded == fold(reader.email or "")
    if column == "mailbox":
        mailbox = sa.select(mail.READERS.c.id).where(_mine(mail.READERS, "folded", reader))
        return table.c.reader.in_(mailbox)
    return table.c[column] == reader.id


def _told(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    return value.isoformat() if isinstance(value, date) else value
