"""What facets count and filters ask for, of all papers of one state, as arrays: organisation, source, year, code, day,
votes, authors, categories.

To count 400 papers out of them takes a millisecond; asked of the database it is three thousand rows, and the papers
under a filter are a walk through all of them. They take seconds
to make in a large collection, so they are made beside the answers (``warmth``) and used for the state that they are of
and no other: until they are there, the database is asked. When some papers change they follow those (``follow``), until
so many have that they are made anew.

Shapes: N rows (of a paper that is gone, one that nothing leads to); R rows of those counted, P pairs of row and name.
"""

from __future__ import annotations

import bisect
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from nextvec.papers.changes import Changed
from nextvec.papers.connection import rows_among, rows_of
from nextvec.papers.db import Database, Filters
from nextvec.papers.tables import AUTHORS, CATEGORIES, FACTS, PAPERS, YEAR, alternatives, fold

__all__ = ["Columns", "Named", "Names", "places_in_order"]

Codes = NDArray[np.int32]
Mask = NDArray[np.bool_]
_P = PAPERS.c
_COLUMNS = (
    _P.id,
    _P.organization,
    _P.source,
    YEAR,
    _P.github_repo.is_not(None),
    _P.daily_date,
    _P.upvotes - _P.site_votes,
)
_FOLLOWED = 0.1
"""Share of the papers that may change before everything is made anew."""


def _itself(name: str) -> str:
    return name


@dataclass(frozen=True)
class Names:
    """Different names, each with its number. ``shown``: as they are written; the first ``ordered`` of them in the order
    of what they are compared by (``key``), the numbers of the others in ``later``, by that."""

    shown: list[str]
    ordered: int
    key: Callable[[str], str] = _itself
    later: dict[str, int] = field(default_factory=dict)

    def number(self, compared: str) -> int | None:
        """The number of the name that is compared by this."""
        place = bisect.bisect_left(range(self.ordered), compared, key=lambda i: self.key(self.shown[i]))
        if place < self.ordered and self.key(self.shown[place]) == compared:
            return place
        return self.later.get(compared)

    def spelt(self, names: Mapping[str, str]) -> Names:
        """With these names (what it is compared by -> as it is written), new ones too."""
        shown, later = list(self.shown), dict(self.later)
        for compared, name in names.items():
            number = self.number(compared)
            if number is None:
                later[compared] = len(shown)
                shown.append(name)
            else:
                shown[number] = name
        return replace(self, shown=shown, later=later)

    def most(self, codes: Codes, most: int) -> list[tuple[str, int]]:
        """(name, how often) of the ``most`` frequent numbers from 0 on; of level ones the first in order."""
        values, counts = np.unique(codes[codes >= 0], return_counts=True)
        order = np.lexsort((values, -counts))
        if self.later and len(order):
            least = counts[order[min(most, len(order)) - 1]]
            order = order[counts[order] >= least]
            if values[order].max(initial=-1) >= self.ordered:
                places = {int(i): (-int(counts[i]), self.key(self.shown[values[i]])) for i in order}
                order = np.array(sorted(places, key=places.__getitem__))
        return [(self.shown[values[i]], int(counts[i])) for i in order[:most]]


@dataclass(frozen=True)
class Named:
    """Several names of each paper: of a row, ``sizes`` of ``codes`` (int32 [P], each once) from ``begins`` (int64 [N]
    both). ``whole``: every code is that of a paper that is there."""

    names: Names
    begins: NDArray[np.int64]
    sizes: NDArray[np.int64]
    codes: Codes
    whole: bool = True

    def count(self, rows: NDArray[np.int64], most: int) -> list[tuple[str, int]]:
        """The ``most`` frequent names of these papers with their papers; level ones in order."""
        if self.whole and len(rows) == len(self.begins):
            found = self.codes
        else:
            begins, sizes = self.begins[rows], self.sizes[rows]
            ends = np.cumsum(sizes)
            found = self.codes[np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - ends + sizes, sizes)]
        return self.names.most(found, most)

    def having(self, compared: Iterable[str]) -> Mask:
        """bool [N]: which papers have one of these names, as they are compared."""
        found = np.zeros(len(self.begins), np.bool_)
        numbers = [number for one in compared if (number := self.names.number(one)) is not None]
        if numbers:
            at = np.flatnonzero(np.isin(self.codes, numbers))
            begins, rows = self._in_order
            near = np.searchsorted(begins, at, side="right") - 1
            own = rows[near]
            found[own[at < begins[near] + self.sizes[own]]] = True  # others are of what a row held before
        return found

    @cached_property
    def _in_order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(where the names of rows begin, ascending; the row of each: of several the one that has names last)."""
        rows = np.lexsort((self.sizes, self.begins))
        return self.begins[rows], rows

    def follow(self, rows: int, held: Mapping[int, set[str]], spelt: Mapping[str, str]) -> Named:
        """With ``rows`` rows, of which those in ``held`` have these names, as they are compared; ``spelt``: how each of
        them is written."""
        names = self.names.spelt(spelt)
        begins = np.concatenate([self.begins, np.zeros(rows - len(self.begins), np.int64)])
        sizes = np.concatenate([self.sizes, np.zeros(rows - len(self.sizes), np.int64)])
        more: list[int] = []
        for row, those in held.items():
            begins[row], sizes[row] = len(self.codes) + len(more), len(those)
            more += [number for one in those if (number := names.number(one)) is not None]
        return Named(names, begins, sizes, np.concatenate([self.codes, np.array(more, np.int32)]), whole=False)


@dataclass(frozen=True)
class Columns:
    """``stamp``: the state of the database that they are of, ``moderated`` the last act of a moderator in it;
    ``places``: id -> row. Codes count from 0, -1: none. ``day``: the feed day counted from 1 January of the year 1,
    0: none; ``votes``: those that came with the papers. ``followed``: how many changes since all of it was read."""

    stamp: str
    moderated: str
    places: dict[str, int]
    organizations: Names
    organization: Codes
    sources: Names
    source: Codes
    year: Codes
    code: Mask
    day: Codes
    votes: NDArray[np.int64]
    authors: Named
    categories: Named
    followed: int = 0

    def rows(self, identifiers: Sequence[str]) -> NDArray[np.int64]:
        """int64 [R]: the rows of those of these papers that there are."""
        found = np.fromiter(map(self.places.get, identifiers, repeat(-1)), np.int64, len(identifiers))
        return found[found >= 0]

    def count(self, identifiers: Sequence[str], most: int) -> dict[str, list[tuple[str, Any, int]]]:
        """By facet: (what is shown, the value, how many of these papers), the most papers first, years the latest."""
        rows = self.rows(identifiers)
        code = int(np.count_nonzero(self.code[rows]))
        years = sorted(_most(self.year[rows], most), reverse=True)
        return {
            "org": [(name, name, n) for name, n in self.organizations.most(self.organization[rows], most)],
            "source": [(name, name, n) for name, n in self.sources.most(self.source[rows], most)],
            "year": [(str(year), year, count) for year, count in years],
            "author": [(name, name, count) for name, count in self.authors.count(rows, most)],
            "category": [(name, name, count) for name, count in self.categories.count(rows, most)],
            "code": [("has code", True, code)] if code else [],
        }

    def satisfying(self, filters: Filters) -> frozenset[str]:
        """The ids of the papers that satisfy all of a filter but its topic, votes given on this site not counted."""
        there = np.ones(len(self.year), np.bool_)
        if filters.start is not None:
            there &= self.day >= filters.start.toordinal()
        if filters.end is not None:
            there &= (self.day > 0) & (self.day <= filters.end.toordinal())
        for name, names, codes in (
            (filters.organization, self.organizations, self.organization),
            (filters.source, self.sources, self.source),
        ):
            if name is not None:
                number = names.number(name)
                there &= codes == (-2 if number is None else number)
        if filters.votes is not None:
            there &= self.votes >= filters.votes
        if filters.code:
            there &= self.code
        if filters.year is not None:
            there &= self.year == filters.year
        if filters.author is not None:
            there &= self.authors.having([fold(filters.author)])
        if filters.category is not None:
            there &= self.categories.having(fold(name) for name in alternatives(filters.category))
        names_of_rows = self._ids
        return frozenset(filter(None, map(names_of_rows.__getitem__, np.flatnonzero(there).tolist())))

    @cached_property
    def _ids(self) -> list[str | None]:
        """The id of each row, None for one whose paper is gone."""
        found: list[str | None] = [None] * len(self.year)
        for name, row in self.places.items():
            found[row] = name
        return found

    @classmethod
    def read(cls, db: Database) -> Columns:
        """Those of the database as it is now. StorageError where it has no table of authors or categories."""
        with db.read() as connection:
            return cls._read(connection)

    @classmethod
    def _read(cls, connection: sa.Connection) -> Columns:
        facts = _facts(connection)
        papers = rows_of(connection, sa.select(*_COLUMNS).order_by(_P.id))
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
            np.array([_day(row[5]) for row in papers], np.int32),
            np.array([row[6] for row in papers], np.int64),
            _names(connection, AUTHORS, places),
            _names(connection, CATEGORIES, places),
        )

    def follow(self, db: Database) -> Columns:
        """Those of the database as it is now, out of these, or of nothing where much has changed."""
        with db.read() as connection:
            change = db.changed(connection, self.stamp)
            if change.papers is None or self.followed + len(change.papers) > max(100, _FOLLOWED * len(self.places)):
                return self._read(connection)
            return self._followed(connection, change, change.papers)

    def _followed(self, connection: sa.Connection, change: Changed, changed: Sequence[str]) -> Columns:
        papers = {row[0]: row for row in rows_among(connection, sa.select(*_COLUMNS), _P.id, changed)}
        places = dict(self.places)
        for name in changed:
            if name not in papers:
                places.pop(name, None)
        count = len(self.year)
        for name in papers:
            if name not in places:
                places[sys.intern(name)] = count
                count += 1
        rows = np.array([places[name] for name in papers], np.int64)
        there = list(papers.values())
        organizations = self.organizations.spelt({row[1]: row[1] for row in there if row[1] is not None})
        sources = self.sources.spelt({row[2]: row[2] for row in there if row[2] is not None})
        return Columns(
            change.stamp,
            _facts(connection).get("moderated", ""),
            places,
            organizations,
            _set(
                self.organization,
                count,
                rows,
                [-1 if row[1] is None else organizations.number(row[1]) for row in there],
            ),
            sources,
            _set(self.source, count, rows, [-1 if row[2] is None else sources.number(row[2]) for row in there]),
            _set(self.year, count, rows, [-1 if row[3] is None else int(row[3]) for row in there]),
            _set(self.code, count, rows, [bool(row[4]) for row in there]),
            _set(self.day, count, rows, [_day(row[5]) for row in there]),
            _set(self.votes, count, rows, [row[6] for row in there]),
            _names_of(connection, AUTHORS, self.authors, count, {name: places[name] for name in papers}),
            _names_of(connection, CATEGORIES, self.categories, count, {name: places[name] for name in papers}),
            self.followed + len(changed),
        )


def places_in_order(keys: Sequence[str]) -> list[int]:
    """The places of ``keys`` in the order of the keys, level ones as they came.

    Sorted in parts: while one thread sorts a million strings in one go, no other one runs for a second.
    """
    parts: defaultdict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        parts[key[:3]].append(place)
    return [place for start in sorted(parts) for place in sorted(parts[start], key=keys.__getitem__)]


def _facts(connection: sa.Connection) -> dict[str, str]:
    return {row.name: row.value for row in connection.execute(sa.select(FACTS.c.name, FACTS.c.value))}


def _set(old: NDArray[Any], count: int, rows: NDArray[np.int64], values: Sequence[Any]) -> NDArray[Any]:
    """``old`` with ``count`` rows, of which ``rows`` have these values."""
    new = np.concatenate([old, np.zeros(count - len(old), old.dtype)])
    new[rows] = values
    return new


def _day(value: date | str | None) -> int:
    """Of what a driver gives for a day: SQLite's gives its text."""
    if value is None:
        return 0
    return (date.fromisoformat(value) if isinstance(value, str) else value).toordinal()


def _numbered(values: Iterable[str | None]) -> tuple[Names, Codes]:
    """(the different values, the number of each; -1 for None)."""
    listed = list(values)
    names = sorted({value for value in listed if value is not None})
    number: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    number[None] = -1
    return Names(names, len(names)), np.fromiter(map(number.__getitem__, listed), np.int32, len(listed))


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
    begins = np.cumsum(sizes, dtype=np.int64) - sizes
    numbered = Names([row[1] for row in names], len(names), fold)
    return Named(numbered, begins, sizes.astype(np.int64), (pairs % max(len(names), 1)).astype(np.int32))


def _names_of(connection: sa.Connection, table: sa.Table, old: Named, count: int, rows: Mapping[str, int]) -> Named:
    """``old``, with what ``table`` has now of some papers (id -> row)."""
    held: dict[int, set[str]] = {row: set() for row in rows.values()}
    for paper, folded in rows_among(connection, sa.select(table.c.paper, table.c.folded), table.c.paper, list(rows)):
        held[rows[paper]].add(folded)
    query = sa.select(table.c.folded, sa.func.max(table.c.name)).group_by(table.c.folded)
    every = sorted(set().union(*held.values()))
    return old.follow(count, held, dict(rows_among(connection, query, table.c.folded, every)))


def _most(codes: Codes, most: int) -> list[tuple[int, int]]:
    """(code, how often) of the ``most`` frequent codes from 0 on; of level ones the lower code first."""
    values, counts = np.unique(codes[codes >= 0], return_counts=True)
    order = np.lexsort((values, -counts))[:most]
    return [(int(values[i]), int(counts[i])) for i in order]
