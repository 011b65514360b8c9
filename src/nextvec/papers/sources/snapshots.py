"""Votes and comments by day: what rises, and the line on a paper's page.

A row is written on a day when the numbers differ from the last row of the paper, so that a paper that nobody votes for
costs one row; what is older than a month is thinned to the last row of each week.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from markupsafe import Markup

from nextvec.papers.shown import dayname
from nextvec.papers.sources.tables import SNAPSHOTS
from nextvec.papers.tables import DAY, PAPERS, Filters, Selection

__all__ = ["Point", "gained", "history", "note", "spark", "thin"]

FEWEST = 3
"""Points that a line needs."""
_KEPT_DAYS = 30
_S = SNAPSHOTS.c
_P = PAPERS.c


@dataclass(frozen=True, slots=True)
class Point:
    """The numbers of one paper from ``day`` on."""

    day: date
    votes: int
    comments: int


def note(connection: sa.Connection, rows: Iterable[Mapping[str, Any]], *, day: date | None = None) -> None:
    """Write the numbers of these papers (id, upvotes, num_comments) as those of ``day`` (default: today, UTC)."""
    today = day or datetime.now(UTC).date()
    wanted = {row["id"]: (row["upvotes"], row["num_comments"]) for row in rows}
    if not wanted:
        return
    last = dict.fromkeys(wanted, (0, 0))
    newest = (
        sa.select(_S.paper, sa.func.max(_S.day).label("day")).where(_S.paper.in_(wanted)).group_by(_S.paper).subquery()
    )
    query = sa.select(_S.paper, _S.votes, _S.comments).join(
        newest, sa.and_(newest.c.paper == _S.paper, newest.c.day == _S.day)
    )
    for row in connection.execute(query):
        last[row.paper] = (row.votes, row.comments)
    changed = [identifier for identifier, numbers in wanted.items() if numbers != last[identifier]]
    if not changed:
        return
    connection.execute(SNAPSHOTS.delete().where(_S.day == today, _S.paper.in_(changed)))
    values = [
        {"paper": identifier, "day": today, "votes": wanted[identifier][0], "comments": wanted[identifier][1]}
        for identifier in changed
    ]
    connection.execute(SNAPSHOTS.insert(), values)


def thin(connection: sa.Connection, *, today: date | None = None) -> int:
    """Keep of what is older than a month the last row of each week; how many rows went."""
    before = (today or datetime.now(UTC).date()) - timedelta(days=_KEPT_DAYS)
    query = sa.select(_S.paper, _S.day).where(_S.day < before).order_by(_S.paper, _S.day)
    last: dict[tuple[str, int, int], date] = {}
    gone = []
    for paper, day in connection.execute(query).all():
        week = (paper, *day.isocalendar()[:2])
        if week in last:
            gone.append({"gone": paper, "of": last[week]})
        last[week] = day
    if gone:
        statement = SNAPSHOTS.delete().where(_S.paper == sa.bindparam("gone"), _S.day == sa.bindparam("of"))
        connection.execute(statement, gone)
    return len(gone)


def history(connection: sa.Connection, identifier: str) -> list[Point]:
    """The points of one paper, oldest first."""
    query = sa.select(_S.day, _S.votes, _S.comments).where(_S.paper == identifier).order_by(_S.day)
    return [Point(row.day, row.votes, row.comments) for row in connection.execute(query)]


def gained(
    connection: sa.Connection, since: date, filters: Filters | Selection | None = None, *, limit: int | None = None
) -> list[tuple[str, int]]:
    """(id, votes gained after the day ``since``), the most first, of papers that gained any.

    Counted from the last row up to that day. A paper without one counts from nothing if its own day is later, else
    from its first row: what was there when the site first saw it was not gained.
    """
    moved = sa.select(_S.paper).where(_S.day > since).distinct()
    before = (
        sa.select(_S.votes).where(_S.paper == _P.id, _S.day <= since).order_by(_S.day.desc()).limit(1)
    ).scalar_subquery()
    first = sa.select(_S.votes).where(_S.paper == _P.id).order_by(_S.day).limit(1).scalar_subquery()
    base = sa.func.coalesce(before, sa.case((since < DAY, 0), else_=first), 0)
    gain = (_P.upvotes - base).label("gain")
    query = sa.select(_P.id, gain).where(_P.id.in_(moved), gain > 0, *(filters.conditions() if filters else []))
    query = query.order_by(gain.desc(), _P.upvotes.desc(), _P.id)
    return [(row.id, int(row.gain)) for row in connection.execute(query.limit(limit) if limit else query)]


def spark(points: list[Point]) -> Markup:
    """A small line of the votes, as SVG without style attributes; nothing for fewer than three points."""
    if len(points) < FEWEST:
        return Markup("")
    first, last = points[0], points[-1]
    days = max((last.day - first.day).days, 1)
    low, high = min(point.votes for point in points), max(point.votes for point in points)
    places = " ".join(
        f"{2 + 116 * (point.day - first.day).days / days:.1f},{28 - 24 * (point.votes - low) / max(high - low, 1):.1f}"
        for point in points
    )
    end = places.rpartition(" ")[2].split(",")
    told = f"Votes: {first.votes:,} on {dayname(first.day)}, {last.votes:,} on {dayname(last.day)}"
    return Markup(
        '<svg class="spark" viewBox="0 0 120 32" preserveAspectRatio="xMinYMid" role="img" aria-label="{}">'
        "<title>{}</title>"
        '<polyline points="{}"/><circle cx="{}" cy="{}" r="2.5"/></svg>'
    ).format(told, told, places, *end)
