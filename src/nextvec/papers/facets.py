"""What the result set of a search is made of: how many of its papers are of which organisation, author, source, year,
venue or category, and have code.

Counted is the whole result set (``ranking``), not the page. A search by words and meaning takes the best of each side,
so its result set is cut; under a further filter the search is made anew, and what was in the set under that value is
in it again. A filter therefore finds at least as many papers as its count says.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from nextvec.papers.categories import toggled
from nextvec.papers.db import Filters, Selection
from nextvec.papers.ranking import Ranking, Request, state_of
from nextvec.papers.site import MANY, Site
from nextvec.papers.tables import AUTHORS, CATEGORIES, PAPERS, YEAR
from nextvec.types import StorageError

__all__ = ["Count", "Facet", "facets"]

MOST = 8
_P = PAPERS.c


@dataclass(frozen=True, slots=True)
class Count:
    """``papers`` have ``value``. ``filters``: with it, or where it is set already (``chosen``) without it."""

    value: str
    papers: int
    filters: Filters
    chosen: bool


@dataclass(frozen=True, slots=True)
class Facet:
    """``name``: the parameter of an address."""

    name: str
    title: str
    counts: list[Count]


def facets(site: Site, request: Request, ranking: Ranking, *, most: int = MOST) -> list[Facet]:
    """The facets that distinguish anything, each with its ``most`` frequent values, the most papers first."""
    # Of all papers under filters that ask for no votes, a vote changes no count.
    listed = not request.asks and request.where is None and request.filters.votes is None
    state = site.stamp if listed else state_of(site)
    key = ("facets", state, ranking.name, replace(request, sort="relevance"), most)
    found: list[Facet] = site.kept.made(key, lambda: _facets(site, request, ranking, most), weight=5 * most)
    return found


def _facets(site: Site, request: Request, ranking: Ranking, most: int) -> list[Facet]:
    if not ranking.ids:
        return []
    filters = request.filters
    columns = site.columns(len(ranking.ids))
    if columns is not None:
        counted = columns.count(ranking.ids, most)
    else:
        plain = not request.asks and request.where is None and filters.topic is None
        chosen: Filters | Selection = filters if plain else Selection(ids=json.dumps(ranking.ids))
        counted = _counted(site, chosen, len(ranking.ids), most)
    found = []
    for name, part, title in (
        ("org", "organization", "Organisation"),
        ("author", "author", "Author"),
        ("year", "year", "Year"),
        ("source", "source", "Source"),
        ("category", "category", "Venue or category"),
        ("code", "code", "Code"),
    ):
        counts = [_count(filters, part, *one) for one in counted[name]]
        useful = len(counts) > 1 or (counts and (counts[0].chosen or counts[0].papers < len(ranking.ids)))
        if useful:
            found.append(Facet(name, title, counts))
    return found


def _count(filters: Filters, part: str, value: str, typed: Any, papers: int) -> Count:
    now = getattr(filters, part)
    then: Any
    if part == "category":  # of several, any will do
        then, there = toggled(now, typed)
    else:
        there = now == typed and now not in (None, False)
        then = getattr(Filters(), part) if there else typed
    return Count(value, papers, replace(filters, **{part: then}), there)


def _counted(site: Site, chosen: Filters | Selection, total: int, most: int) -> dict[str, list[tuple[str, Any, int]]]:
    """By facet: (what is shown, the value, how many papers): the database's answer, while there are no ``columns``."""
    conditions = chosen.conditions()
    columns = (_P.organization, _P.source, YEAR.label("year"), _P.github_repo.is_not(None).label("code"))
    with site.db.read() as connection:
        rows = connection.execute(sa.select(*columns).where(*conditions)).all()
    names: list[tuple[str, int]] = []
    with contextlib.suppress(StorageError), site.db.read() as connection:  # an older database has no table of authors
        names = _named(connection, AUTHORS, sa.select(_P.id).where(*conditions), total, most)
    filed: list[tuple[str, int]] = []
    with contextlib.suppress(StorageError), site.db.read() as connection:  # nor one of categories
        filed = _named(connection, CATEGORIES, sa.select(_P.id).where(*conditions), total, most)
    code = sum(bool(row.code) for row in rows)
    return {
        "org": _top((row.organization for row in rows), most),
        "source": _top((row.source for row in rows), most),
        "year": sorted(_top((row.year for row in rows), most), key=lambda one: -one[1]),
        "author": [(name, name, count) for name, count in names],
        "category": [(name, name, count) for name, count in filed],
        "code": [("has code", True, code)] if code else [],
    }


def _named(
    connection: sa.Connection, table: sa.Table, within: sa.Select[Any], total: int, most: int
) -> list[tuple[str, int]]:
    """(author or category, papers), the most papers first.

    Of few papers the rows are read and counted here: asked to group, the database would walk through all names.
    """
    column = table.c
    if total > MANY:
        papers = sa.func.count(sa.distinct(column.paper))
        query = sa.select(sa.func.max(column.name), papers).where(column.paper.in_(within)).group_by(column.folded)
        found = connection.execute(query.order_by(papers.desc(), column.folded).limit(most))
        return [(name, int(count)) for name, count in found]
    rows = connection.execute(sa.select(column.paper, column.folded).where(column.paper.in_(within)))
    counts = Counter(folded for _, folded in {tuple(row) for row in rows})
    best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    spelt = sa.select(column.folded, sa.func.max(column.name)).where(column.folded.in_([folded for folded, _ in best]))
    shown = {row[0]: str(row[1]) for row in connection.execute(spelt.group_by(column.folded))}
    return [(shown[folded], count) for folded, count in best]


def _top(values: Iterable[Any], most: int) -> list[tuple[str, Any, int]]:
    counts = Counter(value for value in values if value is not None)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))[:most]
    return [(str(value), int(value) if not isinstance(value, str) else value, count) for value, count in ordered]
