"""The tables as the queries see them, and the one filter that feed and search share.

``migrations`` makes these tables; a column here needs a step there.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

__all__ = [
    "AUTHORS",
    "CATEGORIES",
    "DAY",
    "FACTS",
    "MOMENT",
    "PAPERS",
    "REVISIONS",
    "SITE",
    "YEAR",
    "Filters",
    "Selection",
    "alternatives",
    "fold",
]

_METADATA = sa.MetaData()
PAPERS = sa.Table(
    "papers",
    _METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("title", sa.Text),
    sa.Column("summary", sa.Text),
    sa.Column("authors", sa.JSON),
    sa.Column("upvotes", sa.BigInteger),
    sa.Column("num_comments", sa.BigInteger),
    sa.Column("published_at", sa.DateTime),
    sa.Column("listed_at", sa.DateTime),
    sa.Column("daily_date", sa.Date),
    sa.Column("submitted_by", sa.Text),
    sa.Column("github_repo", sa.Text),
    sa.Column("github_stars", sa.BigInteger),
    sa.Column("project_page", sa.Text),
    sa.Column("organization", sa.Text),
    sa.Column("source", sa.Text),
    sa.Column("text_hash", sa.String(24)),
    sa.Column("facet_hash", sa.String(24)),
    sa.Column("indexed_text", sa.String(24)),
    sa.Column("indexed_facets", sa.String(24)),
    sa.Column("mark", sa.String(24)),
    sa.Column("site_votes", sa.BigInteger),
    sa.Column("site_comments", sa.BigInteger),
)
FACTS = sa.Table("facts", _METADATA, sa.Column("name", sa.String(64), primary_key=True), sa.Column("value", sa.Text))
AUTHORS = sa.Table(
    "authors",
    _METADATA,
    sa.Column("paper", sa.String(64), primary_key=True),
    sa.Column("place", sa.BigInteger, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("folded", sa.Text),
    sa.Column("last", sa.Text),
)
CATEGORIES = sa.Table(
    "categories",
    _METADATA,
    sa.Column("paper", sa.String(64), primary_key=True),
    sa.Column("place", sa.BigInteger, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("folded", sa.Text),
)
REVISIONS = sa.Table(
    "revisions",
    _METADATA,
    sa.Column("paper", sa.String(64), primary_key=True),
    sa.Column("at", sa.DateTime),
)
_P = PAPERS.c

SITE = ("site_votes", "site_comments")
"""How much of ``upvotes`` and ``num_comments`` was given on this site; the rest came with the papers."""

MOMENT = sa.func.coalesce(_P.listed_at, _P.published_at, sa.type_coerce(_P.daily_date, sa.DateTime), type_=sa.DateTime)
"""When a paper came: its listing, else its publication, else the start of its feed day. ``papers_by_moment`` is sorted
by it."""
DAY = sa.func.coalesce(
    _P.daily_date,
    sa.func.date(_P.listed_at, type_=sa.Date),
    sa.func.date(_P.published_at, type_=sa.Date),
    type_=sa.Date,
)
"""The day of a paper: its feed day, else the day of its listing, else of its publication."""
YEAR = sa.extract("year", sa.func.coalesce(_P.published_at, sa.type_coerce(_P.daily_date, sa.DateTime)))
"""The year of a paper, as ``Paper.year`` and the vector collection have it."""


def fold(name: str) -> str:
    """``name`` without case, accents and doubled spaces; letters that have no other form stay."""
    letters = name.casefold()
    if not letters.isascii():
        letters = "".join(c for c in unicodedata.normalize("NFKD", letters) if not unicodedata.combining(c))
    return " ".join(letters.split())


def alternatives(text: str) -> list[str]:
    """What commas separate, without what is empty or comes again."""
    found: dict[str, str] = {}
    for name in map(str.strip, text.split(",")):
        if name:
            found.setdefault(fold(name), name)
    return list(found.values())


def _in_categories(text: str) -> sa.ColumnElement[bool]:
    wanted = [fold(name) for name in alternatives(text)]
    return _P.id.in_(sa.select(CATEGORIES.c.paper).where(CATEGORIES.c.folded.in_(wanted)))


class _Each(sa.sql.functions.FunctionElement[Any]):
    """The strings of a JSON list as rows of one column, ``value``: a list of any length is one parameter."""

    name = "each"
    inherit_cache = True


@compiles(_Each)
def _each(element: _Each, compiler: Any, **kw: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **kw)})"


@compiles(_Each, "postgresql")
def _each_postgresql(element: _Each, compiler: Any, **kw: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **kw)} AS JSON)) AS each(value)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What narrows a feed or a search. ``start`` and ``end`` are feed days, both included.

    ``author``: a name, compared up to case, accents and spaces; ``category``: venues or categories, compared alike, any
    of those that commas separate. ``topic``: words of title or abstract, which only the
    word index knows (``LexicalIndex.holding``): neither ``conditions`` nor ``where`` holds it, ``Site.allowed`` does.
    """

    start: date | None = None
    end: date | None = None
    organization: str | None = None
    votes: int | None = None
    code: bool = False
    year: int | None = None
    author: str | None = None
    source: str | None = None
    topic: str | None = None
    category: str | None = None

    def __bool__(self) -> bool:
        return self != Filters()

    @property
    def in_collection(self) -> bool:
        """Whether ``where`` says all of it: the vector collection knows no authors, sources, categories and topics."""
        return self.author is None and self.source is None and self.topic is None and self.category is None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """The same filter as SQL, but for its topic."""
        found: list[sa.ColumnElement[bool]] = []
        if self.start is not None:
            found.append(_P.daily_date >= self.start)
        if self.end is not None:
            found.append(_P.daily_date <= self.end)
        if self.organization is not None:
            found.append(_P.organization == self.organization)
        if self.votes is not None:
            found.append(_P.upvotes >= self.votes)
        if self.code:
            found.append(_P.github_repo.is_not(None))
        if self.year is not None:
            found.append(sa.literal(self.year) == YEAR)
        if self.source is not None:
            found.append(_P.source == self.source)
        if self.author is not None:
            found.append(_P.id.in_(sa.select(AUTHORS.c.paper).where(AUTHORS.c.folded == fold(self.author))))
        if self.category is not None:
            found.append(_in_categories(self.category))
        return found

    def where(self) -> str | None:
        """What the language of ``Collection.search`` can say of it; None when that is nothing."""
        parts = []
        if self.start is not None:
            parts.append(f"daily_date >= date '{self.start.isoformat()}'")
        if self.end is not None:
            parts.append(f"daily_date <= date '{self.end.isoformat()}'")
        if self.organization is not None:
            parts.append("organization = '{}'".format(self.organization.replace("'", "''")))
        if self.votes is not None:
            parts.append(f"upvotes >= {self.votes}")
        if self.code:
            parts.append("has_code = true")
        if self.year is not None:
            parts.append(f"year = {self.year}")
        return " AND ".join(parts) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a page of papers selects: the bounds of the page itself, and what its reader narrows it to.

    ``period``: feed days, both included; only papers of the feed are in one. ``days``: the same by ``DAY``.
    ``dated``: only papers that have a ``MOMENT``; ``discussed``: only those with comments. ``author``: folded
    (``authors.fold``). ``ids``: a JSON list of the only ids that may be there.
    """

    period: tuple[date, date] | None = None
    days: tuple[date | None, date | None] = (None, None)
    dated: bool = False
    discussed: bool = False
    organization: str | None = None
    author: str | None = None
    source: str | None = None
    category: str | None = None
    votes: int | None = None
    code: bool = False
    ids: str | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """The selection as SQL."""
        start, end = self.days
        first, last = self.period or (None, None)
        shared = Filters(start=first, end=last, organization=self.organization, votes=self.votes, code=self.code)
        found = replace(shared, category=self.category).conditions()
        if start is not None:
            found.append(start <= DAY)
        if end is not None:
            found.append(end >= DAY)
        if self.dated:
            found.append(MOMENT.is_not(None))
        if self.discussed:
            found.append(_P.num_comments > 0)
        if self.source is not None:
            found.append(_P.source == self.source)
        if self.author is not None:
            found.append(_P.id.in_(sa.select(AUTHORS.c.paper).where(AUTHORS.c.folded == self.author)))
        if self.ids is not None:
            listed: sa.Select[Any] = sa.select(sa.column("value")).select_from(
                _Each(sa.bindparam(None, self.ids, sa.Text))
            )
            found.append(_P.id.in_(listed))
        return found
