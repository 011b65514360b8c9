"""Which papers changed since a state of the database: so that what is made of all papers can follow a few of them.

Every transaction that changes papers gives the database a new **generation**: a random word, so that a database made
anew does not repeat one, with a number that counts up. Beside each paper that came, changed or went stands the number
of the last generation that it did so in. What was made of an older generation asks for the papers with a higher number;
those of them that are not among the papers any more are gone.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from nextvec.papers.tables import FACTS

__all__ = ["CHANGES", "GENERATIONS", "STATEMENTS", "Changed", "changed", "generation", "note"]

_METADATA = sa.MetaData()
GENERATIONS = sa.Table(
    "generations",
    _METADATA,
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("word", sa.String(24)),
)
CHANGES = sa.Table(
    "changes",
    _METADATA,
    sa.Column("paper", sa.String(64), primary_key=True),
    sa.Column("number", sa.BigInteger),
)
STATEMENTS = (
    "CREATE TABLE generations (number INTEGER PRIMARY KEY, word VARCHAR(24) NOT NULL)",
    "CREATE INDEX generations_by_word ON generations (word)",
    "CREATE TABLE changes (paper VARCHAR(64) PRIMARY KEY, number INTEGER NOT NULL)",
    "CREATE INDEX changes_by_number ON changes (number)",
    # What was made of the papers that are there is followed from here on.
    "INSERT INTO generations (number, word) SELECT 1, value FROM facts WHERE name = 'generation'",
)
"""The step of the database's shape that makes them."""

_REMEMBERED = 10_000
"""Generations: what was made of one before these is made anew."""
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Changed:
    """``stamp``: the generation of the papers as they are; ``papers``: ids of those that came, changed or went since
    another one, in order; None where that is not known, and everything may have changed."""

    stamp: str
    papers: list[str] | None

    def few(self, of: int) -> bool:
        """Whether following them is less work than making everything anew; ``of``: how many papers there are."""
        return self.papers is not None and len(self.papers) <= max(100, of // 4)


def note(connection: sa.Connection, statement: sa.Executable, papers: Sequence[str]) -> None:
    """Begin a new generation in which these papers came, changed or went, within the caller's transaction, of which
    there is one at a time. ``statement``: what sets a fact."""
    word = secrets.token_hex(8)
    connection.execute(statement, {"name": "generation", "value": word})
    last = connection.execute(sa.select(sa.func.max(GENERATIONS.c.number))).scalar() or 0
    connection.execute(GENERATIONS.insert(), {"number": last + 1, "word": word})
    connection.execute(GENERATIONS.delete().where(GENERATIONS.c.number <= last + 1 - _REMEMBERED))
    for start in range(0, len(papers), _AT_ONCE):
        some = papers[start : start + _AT_ONCE]
        connection.execute(CHANGES.delete().where(CHANGES.c.paper.in_(some)))
        connection.execute(CHANGES.insert(), [{"paper": paper, "number": last + 1} for paper in some])


def generation(connection: sa.Connection) -> str:
    """The generation of the papers as they are; "0" before the first."""
    return connection.execute(sa.select(FACTS.c.value).where(FACTS.c.name == "generation")).scalar() or "0"


def changed(connection: sa.Connection, stamp: str | None) -> Changed:
    """What changed since the generation ``stamp``, as the snapshot of ``connection`` has it. Of a database that has no
    such tables nothing is known: the caller has asked."""
    now = generation(connection)
    if stamp == now:
        return Changed(now, [])
    if stamp is None:
        return Changed(now, None)
    wanted = sa.select(GENERATIONS.c.word, GENERATIONS.c.number).where(GENERATIONS.c.word.in_([now, stamp]))
    numbers = {row.word: row.number for row in connection.execute(wanted)}
    if now not in numbers or stamp not in numbers:
        return Changed(now, None)
    query = sa.select(CHANGES.c.paper).where(CHANGES.c.number > numbers[stamp]).order_by(CHANGES.c.paper)
    return Changed(now, list(connection.execute(query).scalars()))
