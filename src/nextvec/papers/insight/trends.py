"""How the share of a topic among the papers changes from week to week or month to month, and whether it does.

A topic **rises** or **falls** where its share in the last quarter of a year differs from that in the three quarters
before by a two-proportion z-test, at the 5 % level after Holm's correction for as many topics as there are. That is a
test for a step, not for a slope: a topic that grew evenly for years shows in its line, and rises here only if the last
quarter stands out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import sqlalchemy as sa

from nextvec.evaluate.intervals import holm
from nextvec.papers import feed
from nextvec.papers.db import Database
from nextvec.papers.feed import Period
from nextvec.papers.insight.topics import Topic, Topics
from nextvec.papers.tables import DAY, PAPERS

__all__ = ["Step", "Trend", "paper_days", "trends"]

Step = Literal["week", "month"]
_LATE, _BEFORE = 91, 273  # days: a quarter, and the three before it
_LEVEL = 0.05
_FEWEST = 20  # papers of a step below which a share says nothing


@dataclass(frozen=True, slots=True)
class Trend:
    """``shares``: of the papers of each period, None where it has too few; ``before``, ``late``: what is compared;
    ``p``: after Holm's correction; ``way``: rises, falls, or holds."""

    topic: Topic
    periods: list[Period]
    counts: list[int]
    shares: list[float | None]
    before: float
    late: float
    p: float

    @property
    def way(self) -> str:
        if self.p >= _LEVEL:
            return "holds"
        return "rises" if self.late > self.before else "falls"

    @property
    def peak(self) -> float:
        """The highest share of a period."""
        return max((share for share in self.shares if share is not None), default=0.0)


def paper_days(db: Database) -> dict[str, date]:
    """The day of every paper that has one."""
    with db.read() as connection:
        rows = connection.execute(sa.select(PAPERS.c.id, DAY.label("day")).where(DAY.is_not(None)))
        return {row.id: row.day for row in rows}


def trends(topics: Topics, days: Mapping[str, date], step: Step) -> list[Trend]:
    """The trend of every topic, in the order of topics; none without days."""
    dated = [
        (days[identifier], int(number))
        for identifier, number in zip(topics.ids, topics.of, strict=True)
        if identifier in days
    ]
    if not dated:
        return []
    last = max(day for day, _ in dated)
    periods = _periods(min(day for day, _ in dated), last, step)
    index = {period.key: i for i, period in enumerate(periods)}
    totals = [0] * len(periods)
    counts = [[0] * len(periods) for _ in topics.topics]
    for day, number in dated:
        place = index[feed.period_of(step, day).key]
        totals[place] += 1
        counts[number][place] += 1
    late, before = _around(dated, last)
    p = holm([_z_test(late[one.number], late.total(), before[one.number], before.total()) for one in topics.topics])
    return [
        Trend(
            topic,
            periods,
            counts[topic.number],
            _shares(counts[topic.number], totals),
            _share(before[topic.number], before.total()),
            _share(late[topic.number], late.total()),
            p[topic.number],
        )
        for topic in topics.topics
    ]


def _periods(first: date, last: date, step: Step) -> list[Period]:
    periods = [feed.period_of(step, first)]
    while periods[-1].end < last:
        periods.append(feed.period_of(step, periods[-1].end + timedelta(days=1)))
    return periods


def _around(dated: Sequence[tuple[date, int]], last: date) -> tuple[Counter[int], Counter[int]]:
    """How many papers each topic has in the last quarter, and in the three before it."""
    turn = last - timedelta(days=_LATE)
    start = turn - timedelta(days=_BEFORE)
    return (
        Counter(number for day, number in dated if day > turn),
        Counter(number for day, number in dated if start < day <= turn),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _shares(counts: Sequence[int], totals: Sequence[int]) -> list[float | None]:
    return [count / total if total >= _FEWEST else None for count, total in zip(counts, totals, strict=True)]


def _z_test(a: int, n: int, b: int, m: int) -> float:
    """Two-sided p of the pooled two-proportion z-test, a of n against b of m; 1 where one side has no papers."""
    if not n or not m:
        return 1.0
    pooled = (a + b) / (n + m)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return math.erfc(abs(a / n - b / m) / spread / math.sqrt(2)) if spread else 1.0
