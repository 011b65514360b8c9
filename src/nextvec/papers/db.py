"""The site's database: every read and every write of papers goes through ``Database``; what readers write lies in
tables of their own (``accounts/``) and goes through its transactions.

SQLite (WAL: readers never wait for the writer) in a file, or PostgreSQL (``postgresql``).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from nextvec.papers import agreement, authors, categories, changes
from nextvec.papers.accounts.standing import given_here, voted_here
from nextvec.papers.connection import Connected, rows_of, upsert_statement
from nextvec.papers.db_errors import DamagedDatabaseError
from nextvec.papers.insight.tables import INSIGHTS
from nextvec.papers.records import Paper
from nextvec.papers.rows import (
    CONTENT,
    NO_VECTOR,
    Order,
    Pending,
    Stored,
    as_row,
    as_stored,
    ordering,
    same,
    stored_paper,
)
from nextvec.papers.sources import kept
from nextvec.papers.tables import AUTHORS, CATEGORIES, FACTS, MOMENT, PAPERS, REVISIONS, SITE, Filters, Selection

__all__ = [
    "NO_VECTOR",
    "DamagedDatabaseError",
    "Database",
    "Filters",
    "Order",
    "Pending",
    "Selection",
    "Stored",
    "stored_paper",
]

Filtered = Filters | Selection

_P = PAPERS.c
_I = INSIGHTS.c
_TEXTS = (_P.id, _P.title, _P.summary, _P.authors, _P.organization)
_BEHIND = sa.or_(_P.indexed_text.is_(None), _P.indexed_text != _P.text_hash, _P.indexed_facets != _P.facet_hash)


def _behind(among: Sequence[str] | None) -> list[sa.ColumnElement[bool]]:
    chosen = [] if among is None else Selection(ids=json.dumps(list(among))).conditions()
    return [_BEHIND, *chosen]


class Database(Connected):
    """Open with ``Database(path_or_address)``; close with ``close`` or use it as a context manager."""

    _tables: Mapping[str, bool] = MappingProxyType({})
    """Whether those that came later are there, as far as that was asked."""

    # -- papers ----------------------------------------------------------------------------------------------
    def upsert(self, papers: Sequence[Paper]) -> int:
        """Insert or replace by id, in one transaction; how many rows were new or changed.

        Votes and comments given on this site are added to those that the papers bring.
        """
        with self.write() as connection:
            return self.put(connection, papers)

    def put(self, connection: sa.Connection, papers: Sequence[Paper]) -> int:
        """``upsert`` within the caller's transaction."""
        given_papers = {paper.id: paper for paper in papers}
        rows = [as_row(paper) for paper in given_papers.values()]
        if not rows:
            return 0
        identifiers = list(given_papers)
        query = sa.select(*(_P[name] for name in (*CONTENT, *SITE))).where(_P.id.in_(identifiers))
        # Locked where the database has several writers: a vote given at this moment waits, or it would be lost.
        before = {row.id: row for row in connection.execute(query.with_for_update())}
        given = given_here(connection, identifiers)
        for row in rows:
            row["site_votes"], row["site_comments"] = given.get(row["id"], (0, 0))
            row["upvotes"] += row["site_votes"]
            row["num_comments"] += row["site_comments"]
        filed = categories.of(connection, identifiers)
        moved = {name for name, paper in given_papers.items() if paper.categories != filed.get(name, ())}
        changed = [
            row for row in rows if row["id"] in moved or row["id"] not in before or not same(row, before[row["id"]])
        ]
        if changed:
            categories.note(connection, ((name, given_papers[name].categories) for name in moved))
            connection.execute(upsert_statement(connection, PAPERS, "id", [*CONTENT[1:], *SITE]), changed)
            self._follow(connection, changed, before)
            self.renew(connection, [row["id"] for row in changed])
        return len(changed)

    def drop(self, connection: sa.Connection, identifiers: Sequence[str]) -> None:
        """Take papers out, with what is kept beside them, within the caller's transaction."""
        if not identifiers:
            return
        connection.execute(PAPERS.delete().where(_P.id.in_(identifiers)))
        for table in (AUTHORS, CATEGORIES, REVISIONS):
            connection.execute(table.delete().where(table.c.paper.in_(identifiers)))
        kept.forget(connection, identifiers)
        self.renew(connection, identifiers)
        now = datetime.now(UTC).replace(tzinfo=None)
        statement = upsert_statement(connection, FACTS, "name", ["value"])
        connection.execute(statement, {"name": "changed", "value": now.isoformat()})

    def renew(self, connection: sa.Connection, identifiers: Sequence[str]) -> None:
        """Begin a generation in which these papers came, changed or went, within the caller's transaction."""
        changes.note(connection, upsert_statement(connection, FACTS, "name", ["value"]), identifiers)

    def changed(self, connection: sa.Connection, stamp: str | None) -> changes.Changed:
        """Which papers changed since the generation ``stamp``, as the snapshot of ``connection`` has it."""
        if self._has(connection, changes.CHANGES):
            return changes.changed(connection, stamp)
        return changes.Changed(changes.generation(connection), None)  # an older database on a read-only disk

    def _follow(self, connection: sa.Connection, changed: Sequence[dict[str, Any]], before: Mapping[str, Any]) -> None:
        """What is kept beside changed papers: their authors, when a text was revised, the moment of this change."""
        now = datetime.now(UTC).replace(tzinfo=None)
        authors.note(connection, ((row["id"], row["authors"]) for row in changed))
        kept.note(connection, changed)
        texts = {identifier: row.text_hash for identifier, row in before.items()}
        revised = [row["id"] for row in changed if texts.get(row["id"], row["text_hash"]) != row["text_hash"]]
        if revised:
            statement = upsert_statement(connection, REVISIONS, "paper", ["at"])
            connection.execute(statement, [{"paper": identifier, "at": now} for identifier in revised])
        statement = upsert_statement(connection, FACTS, "name", ["value"])
        connection.execute(statement, {"name": "changed", "value": now.isoformat()})

    def get(self, identifier: str) -> Stored | None:
        """One paper, or None."""
        return next(iter(self.get_many([identifier])), None)

    def get_many(self, identifiers: Sequence[str]) -> list[Stored]:
        """The papers with these ids that exist, in the order of ``identifiers``."""
        if not identifiers:
            return []
        with self.read() as connection:
            found = {
                one.paper.id: one for one in self._read(connection, sa.select(PAPERS).where(_P.id.in_(identifiers)))
            }
        return [found[identifier] for identifier in identifiers if identifier in found]

    def select(self, filters: Filtered, *, order: Order = "votes", limit: int, offset: int = 0) -> list[Stored]:
        """Papers that satisfy the filter, in the given order."""
        query = sa.select(PAPERS).where(*filters.conditions()).order_by(*ordering(order)).limit(limit).offset(offset)
        with self.read() as connection:
            return self._read(connection, query)

    def _read(self, connection: sa.Connection, query: sa.Select[Any]) -> list[Stored]:
        """The papers of a query, with the lines that sum them up."""
        rows = connection.execute(query).all()
        lines: dict[tuple[str, str], str] = {}
        if self._has(connection, INSIGHTS):
            said = sa.select(_I.paper, _I.text_hash, _I.line).where(_I.paper.in_([row.id for row in rows]))
            lines = {(row.paper, row.text_hash): row.line for row in connection.execute(said)}
        filed = categories.of(connection, [row.id for row in rows]) if self._has(connection, CATEGORIES) else {}
        return [as_stored(row, lines.get((row.id, row.text_hash)) or None, filed.get(row.id, ())) for row in rows]

    @property
    def has_insights(self) -> bool:
        """Whether what is worked out about papers has its table: an older database on a read-only disk has none."""
        if INSIGHTS.name in self._tables:
            return self._tables[INSIGHTS.name]
        with self.read() as connection:
            return self._has(connection, INSIGHTS)

    def _has(self, connection: sa.Connection, table: sa.Table) -> bool:
        # On the connection that the caller has: who holds one and waits for another can wait for ever.
        if table.name not in self._tables:
            self._tables = {**self._tables, table.name: bool(sa.inspect(connection).has_table(table.name))}
        return self._tables[table.name]

    def ordered(self, filters: Filtered, order: Order) -> Sequence[str]:
        """The ids of all papers that satisfy the filter, in the given order."""
        with self.read() as connection:
            query = sa.select(_P.id).where(*filters.conditions()).order_by(*ordering(order))
            return [row[0] for row in rows_of(connection, query)]

    def titles(self, identifiers: Sequence[str]) -> dict[str, str]:
        """The titles of those of these papers that there are, by id."""
        query = sa.select(_P.id, _P.title).where(_P.id.in_(identifiers))
        with self.read() as connection:
            return {row.id: row.title for row in connection.execute(query)}

    def lifted(self, filters: Filters) -> set[str]:
        """Those that satisfy the filter only with the votes given on this site, which no index knows."""
        if filters.votes is None:
            return set()
        before = voted_here(_P.id), _P.upvotes - _P.site_votes < filters.votes
        with self.read() as connection:
            return set(connection.execute(sa.select(_P.id).where(*filters.conditions(), *before)).scalars().all())

    def ids(self, filters: Filters) -> set[str]:
        """The ids of all papers that satisfy the filter."""
        with self.read() as connection:
            return {row[0] for row in rows_of(connection, sa.select(_P.id).where(*filters.conditions()))}

    def count(self, filters: Filtered | None = None) -> int:
        """How many papers satisfy the filter."""
        query = sa.select(sa.func.count()).select_from(PAPERS).where(*(filters or Filters()).conditions())
        with self.read() as connection:
            return int(connection.execute(query).scalar_one())

    def summary(self, filters: Filtered) -> dict[str, int]:
        """Totals of a feed page: papers, votes, with_code, organizations."""
        query = sa.select(
            sa.func.count().label("papers"),
            sa.func.coalesce(sa.func.sum(_P.upvotes), 0).label("votes"),
            sa.func.count(_P.github_repo).label("with_code"),
            sa.func.count(sa.distinct(_P.organization)).label("organizations"),
        ).where(*filters.conditions())
        with self.read() as connection:
            return {name: int(value) for name, value in connection.execute(query).one()._mapping.items()}

    def day_counts(self) -> dict[date, int]:
        """How many papers each feed day has, oldest first."""
        query = sa.select(_P.daily_date, sa.func.count()).where(_P.daily_date.is_not(None))
        with self.read() as connection:
            rows = connection.execute(query.group_by(_P.daily_date).order_by(_P.daily_date)).all()
        return {day: int(count) for day, count in rows}

    def organizations(self, filters: Filtered | None = None, *, limit: int = 1000) -> list[tuple[str, int]]:
        """(organisation, papers), the most papers first."""
        query = sa.select(_P.organization, sa.func.count()).where(
            _P.organization.is_not(None), *(filters or Filters()).conditions()
        )
        query = query.group_by(_P.organization).order_by(sa.func.count().desc(), _P.organization).limit(limit)
        with self.read() as connection:
            return [(name, int(count)) for name, count in connection.execute(query)]

    def find_organization(self, name: str) -> str | None:
        """The organisation of this name as the papers spell it (case does not matter), or None."""
        found = sa.select(_P.organization).limit(1)
        with self.read() as connection:
            same = connection.execute(found.where(_P.organization == name)).scalar()  # by an index; the other walks
            return same or connection.execute(found.where(sa.func.lower(_P.organization) == name.lower())).scalar()

    def close_organization(self, name: str) -> str | None:
        """A known organisation whose name is close to ``name``, or None."""
        known = {organization.lower(): organization for organization, _ in self.organizations()}
        part = next((whole for folded, whole in known.items() if name.lower() in folded), None)
        close = difflib.get_close_matches(name.lower(), list(known), n=1)
        return part or (known[close[0]] if close else None)

    def find_author(self, name: str) -> str | None:
        """The author of this name as most papers spell it (case and accents do not matter), or None."""
        with self.read() as connection:
            return authors.find(connection, name)

    def close_author(self, name: str) -> str | None:
        """A known author whose name is close to ``name``, or None."""
        with self.read() as connection:
            return authors.close(connection, name)

    def find_categories(self, text: str) -> tuple[str, str | None, bool]:
        """(venues or categories as most papers spell them, where none is known a close one, whether any is known)."""
        with self.read() as connection:
            spelt, there = categories.known(connection, text)
            return spelt, None if there else categories.close(connection, text), there

    def categories(self, *, limit: int) -> list[tuple[str, int]]:
        """(venue or category as most papers spell it, papers), the most papers first."""
        with self.read() as connection:
            return categories.most(connection, limit) if self._has(connection, CATEGORIES) else []

    def sources(self) -> list[tuple[str, int]]:
        """(source, papers), the most papers first."""
        query = sa.select(_P.source, sa.func.count()).where(_P.source.is_not(None)).group_by(_P.source)
        with self.read() as connection:
            return [
                (name, int(count))
                for name, count in connection.execute(query.order_by(sa.func.count().desc(), _P.source))
            ]

    def revisions(self, identifiers: Sequence[str]) -> dict[str, datetime]:
        """When the title or abstract of these papers last changed (naive UTC); only of those where one did."""
        query = sa.select(REVISIONS.c.paper, REVISIONS.c.at).where(REVISIONS.c.paper.in_(identifiers))
        with self.read() as connection:
            return {row.paper: row.at for row in connection.execute(query)}

    def moments(self, identifiers: Sequence[str]) -> dict[str, datetime]:
        """When these papers came (naive UTC), for those that have a time."""
        query = sa.select(_P.id, MOMENT).where(*Selection(ids=json.dumps(list(identifiers)), dated=True).conditions())
        with self.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def votes_since(self, start: date, filters: Filtered | None = None) -> list[tuple[str, int, Any, date]]:
        """(id, votes, listed_at, daily_date) of the feed papers from ``start`` on, for ranking."""
        query = sa.select(_P.id, _P.upvotes, _P.listed_at, _P.daily_date).where(_P.daily_date >= start)
        query = query.where(*(filters or Filters()).conditions())
        with self.read() as connection:
            return [tuple(row) for row in connection.execute(query)]

    def neighbours(self, stored: Stored) -> tuple[Stored | None, Stored | None]:
        """The papers before and after this one in its day's feed, by votes."""
        day = stored.paper.daily_date
        if day is None:
            return None, None
        query = sa.select(_P.id).where(_P.daily_date == day).order_by(*ordering("votes"))
        with self.read() as connection:
            ids = list(connection.execute(query).scalars())
        place = ids.index(stored.paper.id)
        before = self.get(ids[place - 1]) if place > 0 else None
        after = self.get(ids[place + 1]) if place + 1 < len(ids) else None
        return before, after

    # -- what the search indexes hold --------------------------------------------------------------------------
    def pending(self, limit: int, after: str = "", among: Sequence[str] | None = None) -> list[Pending]:
        """Papers whose indexed state is behind (``among``: of these), ordered by id, from the one after ``after`` on,
        with the votes and comments that came with them: a vote given on this site is no reason to index a paper anew.
        """
        behind = sa.select(_P.id).where(*_behind(among), _P.id > after).order_by(_P.id).limit(limit)  # reads no texts
        with self.read() as connection:
            identifiers = list(connection.execute(behind).scalars())
            rows = connection.execute(sa.select(PAPERS).where(_P.id.in_(identifiers)).order_by(_P.id)).all()
        return [Pending(stored_paper(row), row.indexed_text != row.text_hash) for row in rows]

    def pending_count(self, among: Sequence[str] | None = None) -> int:
        """How many papers ``pending`` would give in all."""
        query = sa.select(sa.func.count()).select_from(PAPERS).where(*_behind(among))
        with self.read() as connection:
            return int(connection.execute(query).scalar_one())

    def mark_indexed(self, papers: Sequence[Paper], marks: Sequence[str | None]) -> None:
        """Record that the collection now holds these papers in this state (``marks`` None: keep the emblem)."""
        with self.write() as connection:
            self.note_indexed(connection, papers, marks)

    def note_indexed(self, connection: sa.Connection, papers: Sequence[Paper], marks: Sequence[str | None]) -> None:
        """``mark_indexed`` within the caller's transaction."""
        if not papers:
            return
        rows = [
            {"key": paper.id, "text": paper.text_hash(), "facets": paper.facet_hash(), "drawn": mark}
            for paper, mark in zip(papers, marks, strict=True)
        ]
        statement = PAPERS.update().where(_P.id == sa.bindparam("key"))
        statement = statement.values(
            indexed_text=sa.bindparam("text"),
            indexed_facets=sa.bindparam("facets"),
            mark=sa.func.coalesce(sa.bindparam("drawn", type_=sa.String), _P.mark),
        )
        connection.execute(statement, rows)

    def forget_indexed(self, identifiers: Sequence[str] | None = None) -> None:
        """These papers have to be indexed anew; None: everything (another encoder, a lost collection). What is noted of
        an agreement with the collection holds no more."""
        statement = PAPERS.update().values(indexed_text=None, indexed_facets=None)
        if identifiers is not None:
            statement = statement.where(_P.id.in_(identifiers), _P.indexed_text.is_not(None))
        if identifiers is None or identifiers:
            with self.write() as connection:
                connection.execute(statement)
                connection.execute(FACTS.delete().where(FACTS.c.name == agreement.NOTE))

    def indexed_ids(self) -> set[str]:
        """The papers the collection should hold (those without any embeddable token are not in it)."""
        noted = _P.indexed_text.is_not(None), sa.func.coalesce(_P.mark, "") != NO_VECTOR
        with self.read() as connection:
            return {row[0] for row in rows_of(connection, sa.select(_P.id).where(*noted))}

    def lexical_rows(
        self, connection: sa.Connection | None = None
    ) -> Iterator[tuple[str, str, str, list[str], str | None]]:
        """(id, title, summary, authors, organisation) of every paper, ordered by id, for the word index.
        ``connection``: whose snapshot it is; by itself a new one."""
        query = sa.select(*_TEXTS).order_by(_P.id).execution_options(yield_per=1_000)  # they may be a hundred thousand
        with nullcontext(connection) if connection is not None else self.read() as reading:
            for row in reading.execute(query):
                yield row.id, row.title, row.summary, row.authors, row.organization

    def texts(
        self, identifiers: Sequence[str], connection: sa.Connection | None = None
    ) -> Iterator[tuple[str, str, str, list[str], str | None]]:
        """``lexical_rows`` of these papers only."""
        query = sa.select(*_TEXTS).where(*Selection(ids=json.dumps(list(identifiers))).conditions())
        query = query.order_by(_P.id).execution_options(yield_per=1_000)
        with nullcontext(connection) if connection is not None else self.read() as reading:
            for row in reading.execute(query):
                yield row.id, row.title, row.summary, row.authors, row.organization
