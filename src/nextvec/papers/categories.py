"""Venues and categories of papers: what arXiv files a paper under (``cs.CL``), where it appeared (``emnlp``).

Names are the same where they agree up to case, accents and spaces. Commas separate alternatives: ``cs.CL,emnlp`` is
what is in either.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from nextvec.papers.tables import CATEGORIES, alternatives, fold

__all__ = ["close", "known", "most", "note", "of", "toggled"]

_C = CATEGORIES.c
_CANDIDATES = 5_000
_MANY = 500


def note(connection: sa.Connection, papers: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Replace what the table holds of these papers, (id, names), within the caller's transaction."""
    given = dict(papers)
    if not given:
        return
    connection.execute(CATEGORIES.delete().where(_C.paper == sa.bindparam("key")), [{"key": paper} for paper in given])
    rows = [
        {"paper": paper, "place": place, "name": name, "folded": fold(name)}
        for paper, names in given.items()
        for place, name in enumerate(names)
    ]
    if rows:
        connection.execute(CATEGORIES.insert(), rows)


def of(connection: sa.Connection, identifiers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The names of these papers, of those that have any."""
    found: dict[str, tuple[str, ...]] = {}
    for i in range(0, len(identifiers), _MANY):
        query = sa.select(_C.paper, _C.name).where(_C.paper.in_(identifiers[i : i + _MANY]))
        for paper, name in connection.execute(query.order_by(_C.paper, _C.place)):
            found[paper] = (*found.get(paper, ()), name)
    return found


def known(connection: sa.Connection, text: str) -> tuple[str, bool]:
    """(the alternatives of ``text`` as most papers spell them, whether any paper is in one of them)."""
    wanted = {fold(name): name for name in alternatives(text)}
    query = sa.select(_C.folded, _C.name).where(_C.folded.in_(wanted)).group_by(_C.folded, _C.name)
    spelt = dict(map(tuple, connection.execute(query.order_by(sa.func.count(), _C.name))))
    return ",".join(spelt.get(folded, name) for folded, name in wanted.items()), bool(spelt)


def most(connection: sa.Connection, limit: int) -> list[tuple[str, int]]:
    """(name, papers) of those that most papers are in, the most papers first; of its spellings the most common one."""
    papers = sa.func.count().label("papers")
    every = sa.select(_C.folded, papers).group_by(_C.folded).order_by(papers.desc(), _C.folded).limit(limit)
    counts = {row.folded: int(row.papers) for row in connection.execute(every)}
    query = sa.select(_C.folded, _C.name).where(_C.folded.in_(counts)).group_by(_C.folded, _C.name)
    spelt = dict(map(tuple, connection.execute(query.order_by(sa.func.count(), _C.name))))
    return [(spelt[folded], count) for folded, count in counts.items()]


def close(connection: sa.Connection, text: str) -> str | None:
    """A known name close to the first alternative of ``text``, or None."""
    every = list(connection.execute(sa.select(_C.folded).distinct().limit(_CANDIDATES)).scalars())
    found = difflib.get_close_matches(fold(alternatives(text)[0]), every, n=1)
    return known(connection, found[0])[0] if found else None


def toggled(text: str | None, name: str) -> tuple[str | None, bool]:
    """(``text`` with one alternative more, or without it where it is there; whether it was there)."""
    names = alternatives(text or "")
    others = [one for one in names if fold(one) != fold(name)]
    there = len(others) < len(names)
    return ",".join(others if there else [*names, name]) or None, there
