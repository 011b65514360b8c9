"""Days, ISO weeks and months of the feed, and how one walks between them. Pure functions over the day counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from nextvec.papers.languages import written
from nextvec.types import InputError

__all__ = ["CalendarDay", "Period", "calendar", "day", "month", "parse_period", "period_of", "walk", "week"]

Kind = Literal["day", "week", "month"]


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of feed days; ``start`` and ``end`` are both included."""

    kind: Kind
    key: str
    start: date
    end: date

    @property
    def path(self) -> str:
        """Its address on the site."""
        return f"/papers/{'date' if self.kind == 'day' else self.kind}/{self.key}"

    @property
    def title(self) -> str:
        """``Friday, 28 February 2025``, ``Week 9, 2025``, ``February 2025``."""
        if self.kind == "week":
            return f"Week {int(self.key[6:])}, {self.key[:4]}"
        return written("", self.start, "full" if self.kind == "day" else "month")

    @property
    def short(self) -> str:
        """``28 Feb``, ``Week 9``, ``Feb 2025``."""
        if self.kind == "week":
            return f"Week {int(self.key[6:])}"
        return written("", self.start, "short" if self.kind == "day" else "short month")


@dataclass(frozen=True, slots=True)
class CalendarDay:
    """A square of the month view. ``level`` 0 (no papers) to 4 (as many as the busiest day)."""

    day: date
    count: int
    level: int


def day(value: date) -> Period:
    """The period of one day."""
    return Period("day", value.isoformat(), value, value)


def week(value: date) -> Period:
    """The ISO week that holds ``value`` (30 December 2024 lies in 2025-W01)."""
    year, number, weekday = value.isocalendar()
    start = value - timedelta(days=weekday - 1)
    return Period("week", f"{year:04d}-W{number:02d}", start, start + timedelta(days=6))


def month(value: date) -> Period:
    """The calendar month that holds ``value``."""
    start = value.replace(day=1)
    following = (start + timedelta(days=31)).replace(day=1)
    return Period("month", f"{start:%Y-%m}", start, following - timedelta(days=1))


def period_of(kind: Kind, value: date) -> Period:
    """The day, week or month that holds ``value``."""
    return {"day": day, "week": week, "month": month}[kind](value)


def parse_period(kind: Kind, text: str) -> Period:
    """``2025-02-28``, ``2025-W09`` or ``2025-02`` -> Period. Raises InputError that shows what is expected."""
    pattern, example = {
        "day": (r"\d{4}-\d{2}-\d{2}", "2025-02-28"),
        "week": (r"\d{4}-W\d{2}", "2025-W09"),
        "month": (r"\d{4}-\d{2}", "2025-02"),
    }[kind]
    if re.fullmatch(pattern, text, re.ASCII) and "1900" <= text[:4] < "9999":
        try:
            if kind == "week":
                return week(date.fromisocalendar(int(text[:4]), int(text[6:]), 1))
            return period_of(kind, date.fromisoformat(text if kind == "day" else f"{text}-01"))
        except ValueError:
            pass
    raise InputError(f"{text[:40]!r} is not a {kind}; expected the form {example}")


def walk(period: Period, counts: Mapping[date, int]) -> tuple[Period | None, Period | None]:
    """The nearest periods of the same kind before and after that have papers."""
    earlier = max((value for value in counts if value < period.start), default=None)
    later = min((value for value in counts if value > period.end), default=None)
    return (
        period_of(period.kind, earlier) if earlier else None,
        period_of(period.kind, later) if later else None,
    )


def calendar(around: date, counts: Mapping[date, int]) -> list[list[CalendarDay | None]]:
    """The month of ``around`` as weeks from Monday to Sunday; None pads the first and the last week."""
    span = month(around)
    busiest = max(counts.values(), default=0)
    cells: list[CalendarDay | None] = [None] * span.start.weekday()
    value = span.start
    while value <= span.end:
        count = counts.get(value, 0)
        level = 0 if not count else max(1, -(-4 * count // busiest))
        cells.append(CalendarDay(value, count, level))
        value += timedelta(days=1)
    cells += [None] * (-len(cells) % 7)
    return [cells[i : i + 7] for i in range(0, len(cells), 7)]
