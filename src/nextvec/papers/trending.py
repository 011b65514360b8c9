"""What is rising now: votes that lose half their weight every few days.

    score = votes * 2 ** (-age / half_life)

with the age in days between the paper's listing and the reference moment. Against ``votes / (age + 2)^1.5`` this has
no cliff in the first hours (all papers of one day are listed within the same hour or two, and a difference of an
hour should not decide), and it can be said in one sentence. The reference moment is now, but no later than the end
of the newest day in the data: a collection that stopped growing shows what was rising when it stopped.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from nextvec.types import InputError

__all__ = ["HALF_LIVES", "Trend", "horizon", "rank", "read_half_life", "reference", "score"]

HALF_LIVES = {"2": 2.0, "7": 7.0, "30": 30.0}
"""Shortcuts: days, by the word that chooses them in an address."""
SHORTEST, LONGEST = 0.5, 365.0


@dataclass(frozen=True, slots=True)
class Trend:
    """``score`` = ``votes`` * ``weight``; ``age`` in days."""

    id: str
    score: float
    votes: int
    weight: float
    age: float

    @property
    def shown(self) -> str:
        """The score as people read it: of small ones, which lead a view under narrow filters, two digits that count."""
        return f"{self.score:.1f}" if self.score >= 0.95 else f"{self.score:.2g}"


def read_half_life(text: str) -> float:
    """Days, 0.5 to 365, as they stand in an address. InputError for anything else."""
    if re.fullmatch(r"\d{1,3}(?:\.\d{1,3})?", text, re.ASCII) and SHORTEST <= float(text) <= LONGEST:
        return float(text)
    raise InputError(f"half is {text[:40]!r}; expected a number of days from {SHORTEST:g} to {LONGEST:g}")


def score(votes: int, age: float, half_life: float) -> float:
    """``votes`` after ``age`` days; a negative age (a clock that is ahead) counts as 0."""
    return votes * math.exp2(-max(age, 0.0) / half_life)


def reference(newest: date, now: datetime) -> datetime:
    """The moment that ages are counted from: now, at most the end of the ``newest`` feed day (naive UTC)."""
    return min(now, datetime.combine(newest, time()) + timedelta(days=1))


def horizon(at: datetime, half_life: float) -> date:
    """The oldest day worth looking at: after 10 half-lives a vote counts less than a thousandth."""
    return (at - timedelta(days=10 * half_life)).date()


def rank(
    rows: Iterable[tuple[str, int, datetime | None, date]],
    *,
    at: datetime,
    half_life: float,
    limit: int | None = None,
) -> list[Trend]:
    """Rows (id, votes, listed_at, daily_date) -> best first, at most ``limit``; ties by votes, then smaller id.

    Papers without a listing time count from the start of their day.
    """
    if half_life <= 0:
        raise InputError(f"the half-life is {half_life} days; expected more than 0")
    begins: dict[date, tuple[datetime, datetime]] = {}
    scored = []
    for identifier, votes, listed_at, daily_date in rows:
        # A few papers are listed on the site days before or after their feed day: the feed day is what people saw.
        if daily_date not in begins:
            begin = datetime.combine(daily_date, time())
            begins[daily_date] = begin, begin + timedelta(days=1)
        begin, end = begins[daily_date]
        moment = min(max(listed_at, begin), end) if listed_at else begin
        age = max((at - moment).total_seconds() / 86_400, 0.0)
        weight = score(1, age, half_life)
        scored.append((-votes * weight, -votes, identifier, weight, age))
    best = sorted(scored) if limit is None else heapq.nsmallest(limit, scored)
    return [Trend(identifier, -value, -votes, weight, age) for value, votes, identifier, weight, age in best]
