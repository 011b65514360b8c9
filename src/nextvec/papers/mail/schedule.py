"""When a digest is due: wall-clock times of the reader's zone. A day has one moment, whatever the clocks do.

A *slot* is a local day with its moment. In the night when 02:30 does not exist, its moment is 02:30 by the clock before
the change (03:30 after it); in the night when it comes twice, the first of the two (PEP 495, fold 0). The *period* is
the name of a slot, the local day or the ISO week: one digest has one period, so a reader who moves to another zone or
hour gets none twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Literal, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from nextvec.papers.records import clean
from nextvec.types import InputError, did_you_mean

__all__ = ["WEEKDAYS", "WEEKENDS", "Every", "Schedule", "Slot", "Weekend", "latest", "next_slot", "zones"]

Every = Literal["day", "week"]
Weekend = Literal["join", "skip", "send"]
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WEEKENDS: dict[Weekend, str] = {
    "join": "No mail; Monday's has their papers",
    "skip": "No mail; their papers are left out",
    "send": "A mail like on other days",
}
"""What becomes of Saturday and Sunday in a daily digest."""
_HALF_WEEK = "01234"


@lru_cache(maxsize=1)
def zones() -> tuple[str, ...]:
    """The names of the time zones that a form offers: places, and UTC."""
    places = (
        name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "SystemV/", "US/"))
    )
    return ("UTC", *sorted(name for name in places if not name.startswith(("Brazil/", "Canada/", "Chile/", "Mexico/"))))


@lru_cache(maxsize=1_000)
def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):  # a name that the database has no more: one reader's, not everybody's
        return UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """``days``: digits of weekdays (0 Monday), of Monday to Friday for a daily digest, exactly one for a weekly one.

    ``at``: ``HH:MM``; ``zone``: a name of the time-zone database.
    """

    every: Every = "day"
    days: str = _HALF_WEEK
    at: str = "08:00"
    zone: str = "UTC"
    weekend: Weekend = "join"

    @property
    def clock(self) -> time:
        return time.fromisoformat(self.at)

    @property
    def info(self) -> tzinfo:
        return _zone(self.zone)

    def chosen(self, day: date) -> bool:
        """Whether a digest is due on this local day."""
        weekday = day.weekday()
        if self.every == "day" and weekday > 4:
            return self.weekend == "send"
        return str(weekday) in self.days

    def said(self) -> str:
        """One line for people."""
        if self.every == "week":
            return f"every {WEEKDAYS[int(self.days)]} at {self.at} ({self.zone})"
        names = [WEEKDAYS[int(day)] for day in self.days]
        when = "on weekdays" if self.days == _HALF_WEEK else "on " + ", ".join(names)
        if self.weekend == "send":
            when = "every day" if self.days == _HALF_WEEK else f"{when} and at weekends"
        return f"{when} at {self.at} ({self.zone})"


@dataclass(frozen=True, slots=True)
class Slot:
    """A local day on which a digest is due, and its moment (naive UTC)."""

    day: date
    moment: datetime
    period: str


def slot(schedule: Schedule, day: date) -> Slot:
    """The slot of a local day."""
    local = datetime.combine(day, schedule.clock, tzinfo=schedule.info)
    year, week, _ = day.isocalendar()
    period = f"{year:04d}-W{week:02d}" if schedule.every == "week" else day.isoformat()
    return Slot(day, local.astimezone(UTC).replace(tzinfo=None), period)


def _today(schedule: Schedule, now: datetime) -> date:
    return now.replace(tzinfo=UTC).astimezone(schedule.info).date()


def latest(schedule: Schedule, now: datetime) -> Slot:
    """The last slot at or before ``now`` (naive UTC)."""
    day = _today(schedule, now) + timedelta(days=1)
    for _ in range(10):
        if schedule.chosen(day) and (found := slot(schedule, day)).moment <= now:
            return found
        day -= timedelta(days=1)
    raise AssertionError(f"a week without a day in {schedule}")


def next_slot(schedule: Schedule, now: datetime) -> Slot:
    """The first slot after ``now`` (naive UTC)."""
    day = _today(schedule, now) - timedelta(days=1)
    for _ in range(12):
        if schedule.chosen(day) and (found := slot(schedule, day)).moment > now:
            return found
        day += timedelta(days=1)
    raise AssertionError(f"a week without a day in {schedule}")


def read_schedule(values: Mapping[str, str], days: list[str]) -> Schedule:
    """What a form says; ``days``: its ticked weekdays. InputError that names the field."""
    every = clean(values.get("every", "")) or "day"
    if every not in ("day", "week"):
        raise InputError(f"how often is {every[:40]!r}; expected day or week")
    weekend = clean(values.get("weekend", "")) or "join"
    if weekend not in WEEKENDS:
        raise InputError(f"the rule for weekends is {weekend[:40]!r}; expected one of {', '.join(WEEKENDS)}")
    at = clean(values.get("at", "")) or "08:00"
    if not re.fullmatch(r"(?:[01]\d|2[0-3]):[0-5]\d", at, re.ASCII):
        raise InputError(f"the time is {at[:40]!r}; expected hours and minutes such as 08:00")
    zone = clean(values.get("zone", "")) or "UTC"
    if zone not in available_timezones():
        raise InputError(
            f"there is no time zone {zone[:60]!r}{did_you_mean(zone, zones())}; expected Europe/Berlin, say"
        )
    chosen = "".join(sorted({day for day in days if day in "01234" and len(day) == 1})) or _HALF_WEEK
    if every == "week":
        day = clean(values.get("weekday", "")) or "0"
        if not re.fullmatch(r"[0-6]", day, re.ASCII):
            raise InputError(f"the day of the week is {day[:40]!r}; expected 0 (Monday) to 6 (Sunday)")
        chosen = day
    return Schedule(every=cast(Every, every), days=chosen, at=at, zone=zone, weekend=weekend)
