"""Votes: at most one for each reader and paper, however often and from wherever it is sent."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from nextvec.papers.accounts.tables import VOTES, as_reader, count, insert_once, now
from nextvec.papers.db import Database

__all__ = ["give", "take_back", "voted"]

_V = VOTES.c


def give(db: Database, reader: str, paper: str) -> bool:
    """Vote for ``paper``; whether the vote is new. NotFoundError where there is no such paper or reader."""
    with as_reader(db, reader) as connection:
        new = insert_once(connection, VOTES, {"reader": reader, "paper": paper, "created_at": now()})
        if new:
            count(connection, paper, votes=1)
    return new


def take_back(db: Database, reader: str, paper: str) -> bool:
    """Undo a vote; whether there was one."""
    with as_reader(db, reader) as connection:
        gone = connection.execute(VOTES.delete().where(_V.reader == reader, _V.paper == paper)).rowcount == 1
        if gone:
            count(connection, paper, votes=-1)
    return gone


def voted(db: Database, reader: str, papers: Sequence[str]) -> set[str]:
    """Those of ``papers`` that ``reader`` voted for."""
    with db.read() as connection:
        query = sa.select(_V.paper).where(_V.reader == reader, _V.paper.in_(papers))
        return set(connection.execute(query).scalars())
