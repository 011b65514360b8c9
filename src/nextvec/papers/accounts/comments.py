"""Comments: threads below a paper, written, edited and deleted by their authors, hidden by moderators.

``num_comments`` of a paper counts those that everybody can read: state "shown". One that is deleted or hidden keeps
its place while it has replies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nextvec.papers.accounts.tables import COMMENTS, READERS, as_reader, count, new_id, now
from nextvec.papers.db import Database
from nextvec.papers.records import check_text
from nextvec.types import InputError, NotFoundError

__all__ = ["MAX_TEXT", "Comment", "check", "delete", "edit", "find", "hide", "thread", "write"]

MAX_TEXT = 5_000
_C = COMMENTS.c


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment with what a page shows of it. ``state``: shown, hidden or deleted; ``depth`` counts from 0.

    ``reader`` and ``author`` (the name) are None where the account or the comment was deleted.
    """

    id: str
    paper: str
    parent: str | None
    reader: str | None
    author: str | None
    moderates: bool
    text: str
    state: str
    created_at: datetime
    edited_at: datetime | None
    depth: int = 0


def check(text: str) -> str:
    """The text of a comment as it is kept. InputError where it is empty or too long."""
    check_text(text, "the comment")
    kept = "".join(letter for letter in text.replace("\r\n", "\n") if letter in "\n\t" or letter.isprintable()).strip()
    if not 1 <= len(kept) <= MAX_TEXT:
        raise InputError(f"the comment has {len(kept):,} characters; expected 1 to {MAX_TEXT:,}")
    return kept


def write(db: Database, reader: str, paper: str, text: str, parent: str | None = None) -> str:
    """The id of a new comment on ``paper``, or of a reply to ``parent``. InputError, NotFoundError."""
    kept = check(text)
    identifier = new_id()
    with as_reader(db, reader) as connection:
        if parent is not None:
            above = _row(connection, parent)
            if above.paper != paper:
                raise InputError("a reply stands below the same paper as what it replies to")
            if above.state != "shown":
                raise InputError(f"the comment that this replies to was {above.state} in the meantime")
        values = {"id": identifier, "paper": paper, "parent": parent, "reader": reader, "text": kept}
        connection.execute(COMMENTS.insert().values(values | {"state": "shown", "created_at": now()}))
        count(connection, paper, comments=1)
    return identifier


def edit(db: Database, reader: str, identifier: str, text: str) -> None:
    """Replace the text of a comment; only its author can. NotFoundError, InputError."""
    kept = check(text)
    with as_reader(db, reader) as connection:
        row = _row(connection, identifier)
        if row.reader != reader or row.state == "deleted":
            raise NotFoundError("there is no such comment of yours")
        if row.text != kept:
            connection.execute(COMMENTS.update().where(_C.id == identifier).values(text=kept, edited_at=now()))


def delete(db: Database, reader: str, identifier: str) -> None:
    """Delete a comment of ``reader``: with replies its place stays, without them nothing does."""
    with as_reader(db, reader) as connection:
        row = _row(connection, identifier)
        if row.reader != reader or row.state == "deleted":
            raise NotFoundError("there is no such comment of yours")
        blank(connection, row)
        _prune(connection, identifier)


def blank(connection: sa.Connection, row: sa.Row[Any]) -> None:
    """Take everything but its place from a comment, within the caller's transaction."""
    values = {"state": "deleted", "text": "", "reader": None, "hidden_by": None, "edited_at": None}
    connection.execute(COMMENTS.update().where(_C.id == row.id).values(values))
    if row.state == "shown":
        count(connection, row.paper, comments=-1)


def _prune(connection: sa.Connection, identifier: str | None) -> None:
    """Remove a deleted comment that nobody replied to, then its parent if the same is true of it, and so on."""
    while identifier is not None:
        row = connection.execute(sa.select(COMMENTS).where(_C.id == identifier)).first()
        if row is None or row.state != "deleted":
            return
        if connection.execute(sa.select(_C.id).where(_C.parent == identifier).limit(1)).first():
            return
        connection.execute(COMMENTS.delete().where(_C.id == identifier))
        identifier = row.parent


def hide(db: Database, moderator: str, identifier: str, *, hidden: bool = True) -> str:
    """Hide a comment from readers, or show it again; the id of its paper. Twice is once. NotFoundError."""
    before, after = ("shown", "hidden") if hidden else ("hidden", "shown")
    with as_reader(db, moderator) as connection:
        row = _row(connection, identifier)
        changed = COMMENTS.update().where(_C.id == identifier, _C.state == before)
        done = connection.execute(changed.values(state=after, hidden_by=moderator if hidden else None))
        if done.rowcount == 1:
            count(connection, row.paper, comments=-1 if hidden else 1)
    return str(row.paper)


def find(db: Database, identifier: str) -> Comment:
    """One comment. NotFoundError."""
    with db.read() as connection:
        row = connection.execute(_joined().where(_C.id == identifier)).first()
    if row is None:
        raise NotFoundError("there is no such comment: it may have been deleted")
    return _read(row)


def thread(db: Database, paper: str) -> list[Comment]:
    """The comments on ``paper`` as they are read: each before its replies, the oldest first."""
    with db.read() as connection:
        rows = connection.execute(_joined().where(_C.paper == paper).order_by(_C.created_at, _C.id)).all()
    there = {row.id for row in rows}
    below: dict[str | None, list[sa.Row[Any]]] = defaultdict(list)
    for row in rows:
        below[row.parent if row.parent in there else None].append(row)
    return list(_walk(below))


def _walk(below: dict[str | None, list[sa.Row[Any]]]) -> Iterator[Comment]:
    """Without recursion: a chain of replies can be as long as people have patience."""
    waiting = [(row, 0) for row in reversed(below[None])]
    while waiting:
        row, depth = waiting.pop()
        yield _read(row, depth)
        waiting += [(reply, depth + 1) for reply in reversed(below.get(row.id, []))]


def _joined() -> sa.Select[Any]:
    reader = READERS.c
    return sa.select(COMMENTS, reader.name, reader.role).outerjoin(READERS, reader.id == _C.reader)


def _row(connection: sa.Connection, identifier: str) -> sa.Row[Any]:
    row = connection.execute(sa.select(COMMENTS).where(_C.id == identifier).with_for_update()).first()
    if row is None:
        raise NotFoundError("there is no such comment: it may have been deleted")
    return row


def _read(row: sa.Row[Any], depth: int = 0) -> Comment:
    return Comment(
        id=row.id,
        paper=row.paper,
        parent=row.parent,
        reader=row.reader,
        author=row.name,
        moderates=row.role == "moderator",
        text=row.text,
        state=row.state,
        created_at=row.created_at,
        edited_at=row.edited_at,
        depth=depth,
    )
