"""The views of the collection as data: which papers, in which order, at which address; each is a page and three feeds.

=============  ==============================================  ===========================================
view           papers                                          order
=============  ==============================================  ===========================================
day ... month  of these feed days                              votes, or newest first (``sort``)
daily          of the feed                                     newest day first, by votes within a day
trending       of the feed                                     votes that fade, by half-life (``half``)
rising         that gained votes in the last days (``last``)   votes gained
discussed      with comments, of the last days (``days``)      comments, then votes
new            that have any time                              listing, or without one publication, latest first
=============  ==============================================  ===========================================

A reader narrows each of them (``narrowing``). What an address says and what a page links to is the same text:
``View.address`` writes what ``read_view`` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlencode

from nextvec.papers import authors, feed, trending
from nextvec.papers.db import Order, Selection, Stored
from nextvec.papers.narrowing import Narrowing, Unknown, read_narrowing
from nextvec.papers.params import whole_number
from nextvec.papers.records import clean
from nextvec.papers.site import Site
from nextvec.papers.sources import snapshots
from nextvec.types import InputError

__all__ = [
    "DAYS",
    "DEEPEST",
    "LAST",
    "Kind",
    "Listing",
    "Named",
    "View",
    "clock",
    "daily",
    "listing",
    "members",
    "read_view",
    "selection",
    "ways",
]

Named = Literal["daily", "trending", "rising", "discussed", "new"]
"""Views of the whole collection, by the names that commands and programs call them."""
Kind = Literal["day", "week", "month"] | Named
DAYS = {"7": 7, "30": 30, "365": 365, "all": None}
"""How many days the most discussed papers are taken from, by the word in an address."""
DEEPEST = 200
"""Places of the trending ranking: what lies further down is not rising."""
LAST = ("1", "7", "30")
"""Shortcuts: in how many of the last days votes were gained."""
_OWN = {"sort": "votes", "half": "2", "last": "7", "days": "30"}
_HAS = {
    "day": ("sort",), "week": ("sort",), "month": ("sort",), "trending": ("half",), "rising": ("last",),
    "discussed": ("days",),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """``period`` of the day, week or month; ``own``: the value of the view's own parameter, if it has one."""

    kind: Kind
    path: str
    title: str
    period: feed.Period | None = None
    own: str = ""
    narrowing: Narrowing = field(default_factory=Narrowing)

    @property
    def parameter(self) -> str:
        """The name of its own parameter (sort, half, days), or nothing."""
        return next(iter(_HAS.get(self.kind, ())), "")

    def pairs(self) -> dict[str, str]:
        """The parameters of its address: what differs from the default."""
        mine = {self.parameter: self.own} if self.parameter and self.own != _OWN[self.parameter] else {}
        return mine | self.narrowing.pairs()

    def address(
        self, *, page: int = 1, ending: str = "", own: str | None = None, narrowing: Narrowing | None = None
    ) -> str:
        """Where it is: of another ``page``, as a feed (``ending``), or otherwise chosen or narrowed."""
        view = replace(
            self,
            own=self.own if own is None else own,
            narrowing=self.narrowing if narrowing is None else narrowing,
        )
        pairs = view.pairs() | ({"page": str(page)} if page > 1 else {})
        return f"{self.path}{'.' + ending if ending else ''}{'?' + urlencode(pairs) if pairs else ''}"

    def only(self, **parts: Any) -> str:
        """Its address with some parts of the narrowing changed."""
        return self.address(narrowing=replace(self.narrowing, **parts))

    @property
    def half_life(self) -> float:
        """Days, of the trending view."""
        return trending.read_half_life(self.own)


def read_view(kind: Kind, key: str, values: Mapping[str, str], site: Site) -> tuple[View, Unknown]:
    """The view of an address; ``key`` of the day, week or month. InputError for what it cannot be."""
    narrowing, unknown = read_narrowing(values, site.db)
    name = next(iter(_HAS.get(kind, ())), "")
    own = clean(values.get(name, "")) or _OWN[name] if name else ""
    if name == "sort" and own not in ("votes", "newest"):
        raise InputError(f"sort is {own[:40]!r}; expected votes or newest")
    if name == "days" and own not in DAYS:
        raise InputError(f"days is {own[:40]!r}; expected one of {', '.join(DAYS)}")
    if name == "half":
        own = f"{trending.read_half_life(own):g}"
    if name == "last":
        own = str(whole_number(own, "last", low=1, high=90))
    if kind in ("day", "week", "month"):
        period = feed.parse_period(kind, key)
        return View(
            kind=kind, path=period.path, title=period.title, period=period, own=own, narrowing=narrowing
        ), unknown
    if kind == "daily":
        return daily(narrowing), unknown
    titles = {"trending": "Trending", "rising": "Rising", "discussed": "Most discussed", "new": "New"}
    return View(kind=kind, path=f"/papers/{kind}", title=titles[kind], own=own, narrowing=narrowing), unknown


def daily(narrowing: Narrowing) -> View:
    """What the first page shows, day after day: the view that its feeds are of."""
    return View(kind="daily", path="/papers/daily", title="Daily papers", narrowing=narrowing)


@dataclass(frozen=True, slots=True)
class Listing:
    """Some papers of a view. ``total``: how many it has. ``trends``: of the trending view, one for each paper;
    ``gains``: of the rising view, the votes gained by each; ``best``: the highest score or gain."""

    papers: list[Stored]
    total: int
    trends: list[trending.Trend]
    best: float
    gains: Sequence[int] = ()


def clock(site: Site, now: datetime | None = None) -> tuple[datetime, bool]:
    """The moment that ages are counted from (naive UTC), and whether it is now.

    It is the end of the newest feed day at the latest: a collection that stopped growing shows what was going on in it
    when it stopped.
    """
    now = now or datetime.now(UTC).replace(tzinfo=None)
    newest = max(site.db.day_counts(), default=None)
    at = trending.reference(newest, now) if newest else now
    return at, at == now


def selection(view: View, at: datetime) -> Selection:
    """The papers of ``view`` at the moment ``at``, whatever their topic."""
    chosen = view.narrowing
    start = chosen.start
    if view.kind == "discussed" and (days := DAYS[view.own]):
        # At midnight the newest day is the one that ends.
        first = (at - timedelta(microseconds=1)).date() - timedelta(days=days - 1)
        start = max(start, first) if start else first
    period = (view.period.start, view.period.end) if view.period else None
    if view.kind == "daily":
        period = (date.min, date.max)
    if view.kind == "trending":
        period = (trending.horizon(at, view.half_life), date.max)
    return Selection(
        period=period,
        days=(start, chosen.end),
        dated=view.kind in ("new", "discussed"),
        discussed=view.kind == "discussed",
        organization=chosen.organization,
        author=authors.fold(chosen.author) if chosen.author else None,
        source=chosen.source,
        category=chosen.category,
        votes=chosen.votes,
        code=chosen.code,
    )


def members(site: Site, view: View, at: datetime) -> tuple[str, ...]:
    """The ids of the papers of ``view``, in its order; those of trending by votes."""
    if view.kind == "rising":
        return tuple(identifier for identifier, _ in _gained(site, view, at))
    orders: dict[str, Order] = {"daily": "days", "discussed": "comments", "new": "moment"}
    order: Order = orders.get(view.kind) or ("newest" if view.own == "newest" else "votes")
    return site.ordered(selection(view, at), order, view.narrowing.topic)


def listing(site: Site, view: View, at: datetime, *, limit: int, offset: int = 0) -> Listing:
    """``limit`` papers of ``view`` from the place ``offset`` on."""
    if view.kind == "rising":
        rising = _gained(site, view, at)
        some = dict(rising[offset : offset + limit])
        papers = site.db.get_many(list(some))
        gains = [some[stored.paper.id] for stored in papers]
        return Listing(papers, len(rising), [], rising[0][1] if rising else 0.0, gains)
    if view.kind != "trending":
        ids = members(site, view, at)
        return Listing(site.db.get_many(ids[offset : offset + limit]), len(ids), [], 0.0)
    rows = site.db.votes_since(trending.horizon(at, view.half_life), selection(view, at))
    if view.narrowing.topic:
        about = set(site.words().holding(view.narrowing.topic))
        rows = [row for row in rows if row[0] in about]
    ranked = trending.rank(rows, at=at, half_life=view.half_life, limit=DEEPEST)
    trends = ranked[offset : offset + limit]
    found = {stored.paper.id: stored for stored in site.db.get_many([trend.id for trend in trends])}
    trends = [trend for trend in trends if trend.id in found]
    best = ranked[0].score if ranked else 0.0
    return Listing([found[trend.id] for trend in trends], len(ranked), trends, best)


def _gained(site: Site, view: View, at: datetime) -> list[tuple[str, int]]:
    """(id, votes gained in the last days) of the rising view, the most first."""
    since = (at - timedelta(microseconds=1)).date() - timedelta(days=int(view.own))
    with site.db.read() as connection:
        rows = snapshots.gained(connection, since, selection(view, at))
    if view.narrowing.topic:
        about = set(site.words().holding(view.narrowing.topic))
        rows = [row for row in rows if row[0] in about]
    return rows[:DEEPEST]


def ways(site: Site, view: View, at: datetime) -> list[tuple[str, str, str, int]]:
    """For a view that its narrowing leaves empty: (the parameter to leave out, what it is called, the address then, how
    many papers it has)."""
    options = []
    for name, shown in view.narrowing.shown().items():
        loose = replace(view, narrowing=view.narrowing.without(name))
        count = len(members(site, loose, at))
        if count:
            options.append((name, shown, loose.address(), count))
    return options
