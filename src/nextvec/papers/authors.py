"""Authors by name: how names are compared, and the table that finds an author's papers.

Two names are the same where they agree up to case, accents and spaces. Nothing else is guessed: ``Y. Bengio`` and
``Yoshua Bengio`` are two names, and the second is what a search for the first is told about.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from nextvec.papers.tables import AUTHORS, fold

__all__ = ["close", "find", "fold", "note"]

_BATCH = 1_000
_CANDIDATES = 2_000
_A = AUTHORS.c


def note(connection: sa.Connection, papers: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Replace what the table holds of these papers, (id, names), within the caller's transaction."""
    batch: list[tuple[str, Sequence[str]]] = []
    for paper in papers:
        batch.append(paper)
        if len(batch) == _BATCH:
            _replace(connection, batch)
            batch = []
    _replace(connection, batch)


def _replace(connection: sa.Connection, batch: Sequence[tuple[str, Sequence[str]]]) -> None:
    if not batch:
        return
    gone = AUTHORS.delete().where(_A.paper == sa.bindparam("key"))
    connection.execute(gone, [{"key": paper} for paper, _ in batch])
    rows = [row for paper, names in batch for row in _rows(paper, names)]
    if rows:
        connection.execute(AUTHORS.insert(), rows)


def _rows(paper: str, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for place, name in enumerate(names):
        folded = fold(name)
        yield {"paper": paper, "place": place, "name": name, "folded": folded, "last": folded.rpartition(" ")[2]}


def find(connection: sa.Connection, name: str) -> str | None:
    """The author of this name as most papers spell it, or None."""
    query = sa.select(_A.name).where(_A.folded == fold(name))
    return connection.execute(query.group_by(_A.name).order_by(sa.func.count().desc(), _A.name).limit(1)).scalar()


def close(connection: sa.Connection, name: str) -> str | None:
    """A known author whose name is close to ``name``, or None.

    Compared are those who share its first or last word as last name, and those whose name begins with the same three
    letters: a scan of every name would take seconds in a large collection.
    """
    folded = fold(name)
    words = folded.split()
    if not words:
        return None
    start = folded[:3]
    beginning = (_A.folded >= start) & (_A.folded < start + "\U0010ffff")
    known: dict[str, None] = {}
    for condition in (_A.last.in_({words[0], words[-1]}), beginning):
        query = sa.select(_A.folded).distinct().where(condition).limit(_CANDIDATES)
        known |= dict.fromkeys(connection.execute(query).scalars())
    turned = " ".join([*words[1:], words[0]])
    found = difflib.get_close_matches(folded, list(known), n=1, cutoff=0.7)
    found = found or [other for other in (turned,) if other in known]
    return find(connection, found[0]) if found else None
