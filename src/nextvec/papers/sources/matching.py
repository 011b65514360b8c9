"""Which paper a record that nobody has seen belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import sqlalchemy as sa

from nextvec.papers import authors
from nextvec.papers.sources.base import Record
from nextvec.papers.sources.combine import EARLIER
from nextvec.papers.sources.tables import NAMES, SOURCE_RECORDS, TITLES, WITHDRAWN
from nextvec.papers.sources.titles import Known, fold, likeness, people, same
from nextvec.papers.tables import AUTHORS, PAPERS

__all__ = ["Matcher"]

_AT_ONCE = 500
_MOST = 20_000  # candidates of one batch: a name that thousands share must not slow everything down


class Matcher:
    """Places the records of one batch, which it looks up together. ``place`` knows those that it placed before."""

    def __init__(self, connection: sa.Connection, source: str, records: Sequence[Record]) -> None:
        self._connection = connection
        self._source = source
        self._names = dict(self._pairs(NAMES.c.name, NAMES.c.paper, {name for one in records for name in one.names}))
        ids = {record.paper.id for record in records}
        self._ids = {identifier for identifier, _ in self._pairs(PAPERS.c.id, PAPERS.c.id, ids)}
        self._gone = {
            row.paper: row
            for row in connection.execute(
                sa.select(WITHDRAWN).where(WITHDRAWN.c.paper.in_(ids | set(self._names.values())))
            )
        }
        loose = [record for record in records if self._by_name(record) is None]
        self._titles = {record.key: fold(record.paper.title) for record in loose}
        self._known = self._candidates(loose)
        self._places: dict[str, set[str]] = {}
        for identifier, known in self._known.items():
            self._places.setdefault(known.title, set()).add(identifier)
        self._own = {paper for paper, _ in self._mine(self._known)}

    def place(self, record: Record) -> tuple[str, bool]:
        """(the paper that ``record`` belongs to, whether only title and authors say so)."""
        found = self._by_name(record)
        by_title = False
        if found is None:
            found = self._by_title(record)
            by_title = found is not None
        found = found or record.paper.id
        self._names |= {name: found for name in record.names if name not in self._names}
        self._ids.add(found)
        if by_title:
            self._own.add(found)
        return found, by_title

    def _by_name(self, record: Record) -> str | None:
        named = next((self._names[name] for name in record.names if name in self._names), None)
        if named is None and record.paper.id in self._ids:
            named = record.paper.id
        if named is None and record.paper.id in self._gone:
            named = record.paper.id
        while named in self._gone and self._gone[named].state == "merged":
            named = self._gone[named].target
        return named

    def _by_title(self, record: Record) -> str | None:
        """The one paper that is the same; None where there is none, or several that are equally likely."""
        title = self._titles.get(record.key) or fold(record.paper.title)
        mine = Known(title, people(record.paper.authors), record.paper.year)
        near = set(self._places.get(title, ())) | {
            identifier
            for name in record.paper.authors[:1]
            for identifier in self._by_author.get(authors.fold(name), ())
        }
        found = [
            (likeness(title, self._known[identifier].title), identifier)
            for identifier in near
            if identifier not in self._own and same(mine, self._known[identifier])
        ]
        found.sort(reverse=True)
        if not found or (len(found) > 1 and found[1][0] == found[0][0]):
            return None
        return found[0][1]

    def _candidates(self, records: Sequence[Record]) -> dict[str, Known]:
        """Papers with an equal title, or with the same first author: id -> what is compared of it."""
        ids = {paper for _, paper in self._pairs(TITLES.c.folded, TITLES.c.paper, set(self._titles.values()))}
        first = {authors.fold(record.paper.authors[0]) for record in records if record.paper.authors}
        self._by_author: dict[str, set[str]] = {}
        for name, paper in self._pairs(AUTHORS.c.folded, AUTHORS.c.paper, first, AUTHORS.c.place == 0):
            if len(ids) >= _MOST:
                break
            self._by_author.setdefault(name, set()).add(paper)
            ids.add(paper)
        found = {}
        columns = PAPERS.c.id, PAPERS.c.authors, PAPERS.c.published_at, PAPERS.c.daily_date, TITLES.c.folded
        for part in _parts(ids):
            query = sa.select(*columns).join(TITLES, TITLES.c.paper == PAPERS.c.id).where(PAPERS.c.id.in_(part))
            for row in self._connection.execute(query):
                moment = row.published_at or row.daily_date
                found[row.id] = Known(row.folded, people(row.authors), moment.year if moment else None)
        return found

    def _mine(self, papers: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Those of ``papers`` that have a record of this source already, or were there before sources were noted."""
        columns = SOURCE_RECORDS.c
        condition = columns.source == (self._source if self._source != EARLIER else "")
        yield from self._pairs(columns.paper, columns.source, set(papers), condition)

    def _pairs(
        self, key: sa.Column[str], value: sa.Column[str], wanted: set[str], *conditions: sa.ColumnElement[bool]
    ) -> Iterator[tuple[str, str]]:
        for part in _parts(wanted):
            for row in self._connection.execute(sa.select(key, value).where(key.in_(part), *conditions)):
                yield row[0], row[1]


def _parts(values: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(values)
    for i in range(0, len(ordered), _AT_ONCE):
        yield ordered[i : i + _AT_ONCE]
