"""Readers: who they are, what they are called, what they may do."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

import sqlalchemy as sa

from nextvec.papers.accounts.tables import READERS, as_reader, insert_once, new_id, now
from nextvec.papers.authors import fold
from nextvec.papers.db import Database
from nextvec.papers.records import check_text, clean
from nextvec.types import InputError, NotFoundError

__all__ = ["LOCAL", "MAX_NAME", "ROLES", "Reader", "Role", "enter", "find", "local_reader", "rename", "set_role"]

Role = Literal["reader", "moderator"]
ROLES: tuple[Role, ...] = ("reader", "moderator")
MAX_NAME = 50
LOCAL = "local"
"""The id of the one reader of a site that serves its own machine only."""
_TAKEN = ("deleted", "moderator", "hidden", "you", "local reader")
_R = READERS.c


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody with an account. ``email`` is None for the local reader."""

    id: str
    email: str | None
    name: str
    role: Role
    created_at: datetime

    @property
    def moderates(self) -> bool:
        """Moderators do, and the local reader, whose machine it is."""
        return self.role == "moderator" or self.id == LOCAL


def read(row: sa.Row[Any]) -> Reader:
    """A row of READERS."""
    return Reader(row.id, row.email, row.name, cast(Role, row.role), row.created_at)


def find(db: Database, identifier: str) -> Reader | None:
    """A reader by id."""
    with db.read() as connection:
        row = connection.execute(sa.select(READERS).where(_R.id == identifier)).first()
    return read(row) if row else None


def enter(connection: sa.Connection, email: str) -> Reader:
    """The reader with this address, made now where there is none; within the caller's transaction."""
    query = sa.select(READERS).where(_R.email == email)
    row = connection.execute(query).first()
    return read(row) if row else _make(connection, new_id(), email, f"reader-{secrets.token_hex(4)}")


def local_reader(db: Database) -> Reader:
    """The reader of a site without mail that serves its own machine only."""
    with db.write() as connection:
        row = connection.execute(sa.select(READERS).where(_R.id == LOCAL)).first()
        return read(row) if row else _make(connection, LOCAL, None, "Local reader")


def _make(connection: sa.Connection, identifier: str, email: str | None, name: str) -> Reader:
    reader = Reader(identifier, email, name, "reader", now())
    values = {"id": reader.id, "email": email, "name": name, "name_key": fold(name), "role": reader.role}
    insert_once(connection, READERS, values | {"created_at": reader.created_at})
    return reader


def rename(db: Database, reader: str, text: str) -> str:
    """Give ``reader`` another name; the name as it is kept. InputError where it is none, or somebody has it."""
    check_text(text, "the name")
    name = clean(text)
    key = fold(name)
    if not 1 <= len(name) <= MAX_NAME or not any(letter.isalnum() for letter in name):
        raise InputError(f"the name has {len(name)} characters; expected 1 to {MAX_NAME}, with a letter or a digit")
    if key in _TAKEN:
        raise InputError(f"the name {name!r} would be taken for something else: choose another")
    with as_reader(db, reader) as connection:
        if connection.execute(sa.select(_R.id).where(_R.name_key == key, _R.id != reader)).first():
            raise InputError(f"somebody here is called {name!r} already: choose another name")
        connection.execute(READERS.update().where(_R.id == reader).values(name=name, name_key=key))
    return name


def set_role(db: Database, email: str, role: str) -> Reader:
    """Make the reader with this address a reader or a moderator. InputError, NotFoundError."""
    if role not in ROLES:
        raise InputError(f"role {role[:40]!r} is not known; expected one of {', '.join(ROLES)}")
    address = email.strip().lower()
    with db.write() as connection:
        done = connection.execute(READERS.update().where(_R.email == address).values(role=role))
        if done.rowcount != 1:
            raise NotFoundError(f"nobody with the address {address[:80]!r} has signed in yet: they do that first")
        return read(connection.execute(sa.select(READERS).where(_R.email == address)).one())
