"""Reading lists: papers with notes, for oneself or for whoever has the list's address.

A name is one list's of its reader, up to case and accents: commands and programs name lists by it. Lists that shared
one before that was so keep it until one of them is renamed.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nextvec.papers.accounts.tables import LIST_PAPERS, LISTS, READERS, as_reader, insert_once, new_id, now
from nextvec.papers.bibtex import bibtex
from nextvec.papers.db import Database, Stored
from nextvec.papers.records import check_text, clean, read_name
from nextvec.papers.tables import PAPERS, fold
from nextvec.types import InputError, NotFoundError

__all__ = [
    "MAX_NAME",
    "MAX_NOTE",
    "Entry",
    "ReadingList",
    "add",
    "as_bibtex",
    "as_json",
    "create",
    "delete",
    "entries",
    "holding",
    "of_reader",
    "own",
    "remove",
    "rename",
    "share",
    "shared",
]

MAX_NAME, MAX_NOTE = 80, 1_000
MAX_LISTS, MAX_PAPERS = 100, 1_000
_L, _E = LISTS.c, LIST_PAPERS.c


@dataclass(frozen=True, slots=True)
class ReadingList:
    """A list of ``size`` papers. ``address``: the word that opens it for others, or None; ``owner``: a name."""

    id: str
    reader: str
    owner: str
    name: str
    address: str | None
    size: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A paper of a list, with its reader's note."""

    stored: Stored
    note: str
    created_at: datetime


def create(db: Database, reader: str, name: str) -> str:
    """The id of a new, private list. InputError above 100 lists, and where one of them is called so."""
    kept = read_name(name, "the name of the list", most=MAX_NAME)
    with as_reader(db, reader) as connection:
        return _create(connection, reader, kept)


def _create(connection: sa.Connection, reader: str, name: str) -> str:
    held = connection.execute(sa.select(sa.func.count()).select_from(LISTS).where(_L.reader == reader)).scalar_one()
    if held >= MAX_LISTS:
        raise InputError(f"you have {held} lists, the most there can be: delete one first")
    _check_free(connection, reader, name)
    identifier = new_id()
    values = {"id": identifier, "reader": reader, "name": name, "created_at": now()}
    connection.execute(LISTS.insert().values(values))
    return identifier


def rename(db: Database, reader: str, identifier: str, name: str) -> None:
    """InputError where another one is called so; NotFoundError where it is no list of ``reader``, as in all below."""
    kept = read_name(name, "the name of the list", most=MAX_NAME)
    with as_reader(db, reader) as connection:
        if _own(connection, reader, identifier).name == kept:
            return  # also one that shares its name since before names were one list's
        _check_free(connection, reader, kept, but=identifier)
        connection.execute(LISTS.update().where(_L.id == identifier).values(name=kept))


def _check_free(connection: sa.Connection, reader: str, name: str, *, but: str = "") -> None:
    """InputError where a list of ``reader`` other than ``but`` has this name. Those who write take turns."""
    for row in connection.execute(sa.select(_L.name).where(_L.reader == reader, _L.id != but)):
        if fold(row.name) == fold(name):
            raise InputError(f"you have a list called {row.name!r} already: use that one, or choose another name")


def share(db: Database, reader: str, identifier: str, *, on: bool) -> str | None:
    """Open a list to whoever has its address, or close it; the address. One that was closed gets another next time."""
    with as_reader(db, reader) as connection:
        address: str | None = _own(connection, reader, identifier).address
        if on != bool(address):
            address = secrets.token_urlsafe(24) if on else None
            connection.execute(LISTS.update().where(_L.id == identifier).values(address=address))
    return address


def delete(db: Database, reader: str, identifier: str) -> None:
    """The list and its notes; the papers stay."""
    with as_reader(db, reader) as connection:
        _own(connection, reader, identifier)
        connection.execute(LIST_PAPERS.delete().where(_E.list == identifier))
        connection.execute(LISTS.delete().where(_L.id == identifier))


def add(db: Database, reader: str, identifier: str | None, paper: str, *, name: str = "", note: str = "") -> str:
    """Put ``paper`` into a list (None: a new one called ``name``), or change its note; the list's id."""
    kept_name = read_name(name, "the name of the list", most=MAX_NAME) if identifier is None else ""
    kept = _note(note)
    with as_reader(db, reader) as connection:
        if connection.execute(sa.select(PAPERS.c.id).where(PAPERS.c.id == paper)).first() is None:
            raise NotFoundError(f"there is no paper {paper[:80]!r} in this collection")
        if identifier is None:
            identifier = _create(connection, reader, kept_name)
        else:
            _own(connection, reader, identifier)
        row = {"list": identifier, "paper": paper, "note": kept, "created_at": now()}
        if not insert_once(connection, LIST_PAPERS, row):
            there = (_E.list == identifier) & (_E.paper == paper)
            connection.execute(LIST_PAPERS.update().where(there).values(note=kept))
        size = sa.select(sa.func.count()).select_from(LIST_PAPERS).where(_E.list == identifier)
        if connection.execute(size).scalar_one() > MAX_PAPERS:
            raise InputError(f"a list holds at most {MAX_PAPERS:,} papers: begin another one")
    return identifier


def remove(db: Database, reader: str, identifier: str, paper: str) -> None:
    """Take a paper out of a list."""
    with as_reader(db, reader) as connection:
        _own(connection, reader, identifier)
        connection.execute(LIST_PAPERS.delete().where(_E.list == identifier, _E.paper == paper))


def of_reader(db: Database, reader: str) -> list[ReadingList]:
    """Somebody's lists, the newest first."""
    return _found(db, _L.reader == reader)


def own(db: Database, reader: str, identifier: str) -> ReadingList:
    """A list of ``reader``. NotFoundError for somebody else's: whether there is one is nobody's business."""
    found = _found(db, sa.and_(_L.id == identifier, _L.reader == reader))
    if not found:
        raise NotFoundError("there is no such list of yours")
    return found[0]


def shared(db: Database, address: str) -> ReadingList:
    """The list that is shared at ``address``. NotFoundError."""
    found = _found(db, _L.address == address)
    if not found:
        raise NotFoundError("no list is shared at this address: it may have been closed")
    return found[0]


def entries(db: Database, identifier: str) -> list[Entry]:
    """The papers of a list that the collection has, the last one put in first."""
    with db.read() as connection:
        query = sa.select(LIST_PAPERS).where(_E.list == identifier).order_by(_E.created_at.desc(), _E.paper)
        rows = {row.paper: row for row in connection.execute(query)}
    return [
        Entry(stored, rows[stored.paper.id].note, rows[stored.paper.id].created_at)
        for stored in db.get_many(list(rows))
    ]


def holding(db: Database, reader: str, paper: str) -> set[str]:
    """The ids of those of somebody's lists that hold ``paper``."""
    query = sa.select(_E.list).join(LISTS, _L.id == _E.list).where(_L.reader == reader, _E.paper == paper)
    with db.read() as connection:
        return set(connection.execute(query).scalars())


def as_bibtex(found: list[Entry]) -> str:
    """Every paper's entry; where two have the same key, the later ones get a letter."""
    seen: dict[str, int] = {}
    parts = []
    for entry in found:
        text = bibtex(entry.stored.paper)
        key = text[len("@misc{") : text.index(",")]
        place = seen[key] = seen.get(key, -1) + 1
        parts.append(text.replace(key, f"{key}-{place + 1}", 1) if place else text)
    return "\n".join(parts)


def as_json(chosen: ReadingList, found: list[Entry]) -> dict[str, Any]:
    """The list for programs."""
    return {
        "name": chosen.name,
        "by": chosen.owner,
        "created_at": chosen.created_at.isoformat() + "Z",
        "papers": [
            {
                "id": entry.stored.paper.id,
                "title": entry.stored.paper.title,
                "authors": list(entry.stored.paper.authors),
                "year": entry.stored.paper.year,
                "note": entry.note,
                "added_at": entry.created_at.isoformat() + "Z",
            }
            for entry in found
        ],
    }


def _found(db: Database, condition: sa.ColumnElement[bool]) -> list[ReadingList]:
    size = sa.select(sa.func.count()).select_from(LIST_PAPERS).where(_E.list == _L.id).scalar_subquery()
    query = sa.select(LISTS, READERS.c.name.label("owner"), size.label("size"))
    query = query.join(READERS, READERS.c.id == _L.reader).where(condition).order_by(_L.created_at.desc(), _L.id)
    with db.read() as connection:
        return [
            ReadingList(row.id, row.reader, row.owner, row.name, row.address, row.size, row.created_at)
            for row in connection.execute(query)
        ]


def _own(connection: sa.Connection, reader: str, identifier: str) -> sa.Row[Any]:
    row = connection.execute(sa.select(LISTS).where(_L.id == identifier, _L.reader == reader)).first()
    if row is None:
        raise NotFoundError("there is no such list of yours")
    return row


def _note(text: str) -> str:
    check_text(text, "the note")
    note = clean(text)
    if len(note) > MAX_NOTE:
        raise InputError(f"the note has {len(note):,} characters; at most {MAX_NOTE:,} are accepted")
    return note
