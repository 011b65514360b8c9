"""What facets count, of all papers of one state, as arrays: organisation, source, year, code, authors, categories.

To count 400 papers out of them takes a millisecond; asked of the database it is three thousand rows. They take seconds
to make in a large collection, so they are made beside the answers (``warmth``) and used for the state that they are of
and no other: until they are there, the database is asked.

Shapes: N papers, R rows of those counted, P pairs of paper and name.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from nextvec.papers.connection import rows_of
from nextvec.papers.db import Database
from nextvec.papers.tables import AUTHORS, CATEGORIES, FACTS, PAPERS, YEAR

__all__ = ["Columns", "Named", "places_in_order"]

Codes = NDArray[np.int32]
_P = PAPERS.c


@dataclass(frozen=True)
class Named:
    """Several names of each paper. ``shown``: each name as it is written, in the order of what it is compared by;
    ``starts``: int64 [N + 1], where the names of a paper begin in ``codes`` (int32 [P], each once for a paper)."""

    shown: Sequence[str]
    starts: NDArray[np.int64]
    codes: Codes

    def count(self, rows: NDArray[np.int64], most: int) -> list[tuple[str, int]]:
        """The ``most`` frequent names of these papers with their papers; level ones in order."""
        if len(rows) == len(self.starts) - 1:
            found = self.codes
        else:
            begins, sizes = self.starts[rows], self.starts[rows + 1] - self.starts[rows]
            ends = np.cumsum(sizes)
            found = self.codes[np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - ends + sizes, sizes)]
        return [(self.shown[code], count) for code, count in _most(found, most)]


@dataclass(frozen=True)
class Columns:
    """``stamp``: the state of the database that they are of, ``moderated`` the last act of a moderator in it;
    ``places``: id -> row. Codes count from 0, -1: none."""

    stamp: str
    moderated: str
    places: dict[str, int]
    organizations: Sequence[str]
    organization: Codes
    sources: Sequence[str]
    source: Codes
    year: Codes
    code: NDArray[np.bool_]
    authors: Named
    categories: Named

    def rows(self, identifiers: Sequence[str]) -> NDArray[np.int64]:
        """int64 [R]: the rows of those of these papers that there are."""
        found = np.fromiter((self.places.get(one, -1) for one in identifiers), np.int64, len(identifiers))
        return found[found >= 0]

    def count(self, identifiers: Sequence[str], most: int) -> dict[str, list[tuple[str, Any, int]]]:
        """By facet: (what is shown, the value, how many of these papers), the most papers first, years the latest."""
        rows = self.rows(identifiers)
        code = int(np.count_nonzero(self.code[rows]))
        years = sorted(_most(self.year[rows], most), reverse=True)
        return {
            "org": [
                (self.organizations[one], self.organizations[one], n) for one, n in _most(self.organization[rows], most)
            ],
            "source": [(self.sources[one], self.sources[one], n) for one, n in _most(self.source[rows], most)],
            "year": [(str(year), year, count) for year, count in years],
            "author": [(name, name, count) for name, count in self.authors.count(rows, most)],
            "category": [(name, name, count) for name, count in self.categories.count(rows, most)],
            "code": [("has code", True, code)] if code else [],
        }

    @classmethod
    def read(cls, db: Database) -> Columns:
        """Those of the database as it is now. StorageError where it has no table of authors or categories."""
        with db.read() as connection:
            facts = {row.name: row.value for row in connection.execute(sa.select(FACTS.c.name, FACTS.c.value))}
            query = sa.select(_P.id, _P.organization, _P.source, YEAR, _P.github_repo.is_not(None)).order_by(_P.id)
            papers = rows_of(connection, query)
            places = {sys.intern(row[0]): i for i, row in enumerate(papers)}
            organizations, organization = _numbered(row[1] for row in papers)
            sources, source = _numbered(row[2] for row in papers)
            return cls(
                facts.get("generation", "0"),
                facts.get("moderated", ""),
                places,
                organizations,
                organization,
                sources,
                source,
                np.array([-1 if row[3] is None else int(row[3]) for row in papers], np.int32),
                np.array([bool(row[4]) for row in papers], np.bool_),
                _names(connection, AUTHORS, places),
                _names(connection, CATEGORIES, places),
            )


def places_in_order(keys: Sequence[str]) -> list[int]:
    """The places of ``keys`` in the order of the keys, level ones as they came.

    Sorted in parts: while one thread sorts a million strings in one go, no other one runs for a second.
    """
    parts: defaultdict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        parts[key[:3]].append(place)
    return [place for start in sorted(parts) for place in sorted(parts[start], key=keys.__getitem__)]


def _numbered(values: Iterable[str | None]) -> tuple[list[str], Codes]:
    """(the different values in order, the number of each; -1 for None)."""
    listed = list(values)
    names = sorted({value for value in listed if value is not None})
    number: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    number[None] = -1
    return names, np.fromiter(map(number.__getitem__, listed), np.int32, len(listed))


def _names(connection: sa.Connection, table: sa.Table, places: dict[str, int]) -> Named:
    spelt = sa.select(table.c.folded, sa.func.max(table.c.name)).group_by(table.c.folded)
    spellings = rows_of(connection, spelt)
    names = [spellings[place] for place in places_in_order([row[0] for row in spellings])]
    number = {row[0]: i for i, row in enumerate(names)}
    held = rows_of(connection, sa.select(table.c.paper, table.c.folded))
    rows = np.fromiter((places.get(row[0], -1) for row in held), np.int64, len(held))
    codes = np.fromiter((number[row[1]] for row in held), np.int64, len(held))
    pairs = np.unique((rows * len(names) + codes)[rows >= 0])  # a paper that names somebody twice is one paper
    sizes = np.bincount(pairs // len(names), minlength=len(places)) if len(pairs) else np.zeros(len(places), np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    return Named([row[1] for row in names], starts, (pairs % max(len(names), 1)).astype(np.int32))


def _most(codes: Codes, most: int) -> list[tuple[int, int]]:
    """(code, how often) of the ``most`` frequent codes from 0 on; of level ones the lower code first."""
    values, counts = np.unique(codes[codes >= 0], return_counts=True)
    order = np.lexsort((values, -counts))[:most]
    return [(int(values[i]), int(counts[i])) for i in order]
