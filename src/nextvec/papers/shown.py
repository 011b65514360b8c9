"""Days and numbers as templates write them: in the reader's language as a piece of HTML that says which language that
is, or, where only text can stand (attributes, titles), in English.

The language is the one of ``languages.speaking``; without one everything is as it was written here first.
"""

from __future__ import annotations

from datetime import date, datetime
from functools import lru_cache
from typing import Any

from markupsafe import Markup

from nextvec.papers import languages
from nextvec.papers.feed import Period
from nextvec.papers.languages import Shape

__all__ = ["FILTERS", "compact", "dayname", "plural", "weekdays"]

_GROUPED = 1_000
"""Below it a number is the same in every language, and most are."""
_SHAPES: dict[tuple[str, bool], Shape] = {
    ("day", False): "full", ("day", True): "short", ("month", False): "month", ("month", True): "short month",
}  # fmt: skip


# -- text, the same for everybody ----------------------------------------------------------------------------------
def compact(value: int) -> str:
    """12345 -> 12.3k."""
    if value < 1_000:
        return str(value)
    return f"{value / 1000:.1f}k".replace(".0k", "k") if value < 999_500 else f"{value / 1e6:.1f}M"


def plural(count: int, one: str, many: str | None = None) -> str:
    """(1, "paper") -> 1 paper; (2, "paper") -> 2 papers."""
    return f"{count:,} {_noun(count, one, many)}"


def dayname(value: date | datetime) -> str:
    """28 Feb 2025."""
    return languages.written("", _day_of(value), "day")


# -- text, in the reader's own English -----------------------------------------------------------------------------
def _plural_said(count: int, one: str, many: str | None = None) -> str:
    return f"{_number_said(count)} {_noun(count, one, many)}" if count >= _GROUPED else plural(count, one, many)


def _number_said(value: int) -> str:
    return languages.grouped(languages.current(english=True), value) if value >= _GROUPED else f"{value}"


def _day_said(value: date | datetime) -> str:
    return languages.written(languages.current(english=True), _day_of(value), "day")


def _period_said(period: Period) -> str:
    return _period_text(languages.current(english=True), period, short=False)


# -- HTML, in the reader's language --------------------------------------------------------------------------------
def _plural(count: int, one: str, many: str | None = None) -> str:
    if count < _GROUPED:
        return plural(count, one, many)
    return Markup("{} {}").format(_number(count), _noun(count, one, many))


def _number(value: int) -> str:
    """9,877."""
    tag = languages.current()
    return _numeral(tag, languages.grouped(tag, value), f"{value:,}") if tag and value >= _GROUPED else f"{value:,}"


def _compact(value: int) -> str:
    return _figure(compact(value))


def _figure(text: str) -> str:
    """A number that is written with a point."""
    tag = languages.current()
    return _numeral(tag, languages.decimal(tag, text), text) if tag and "." in text else text


@lru_cache(maxsize=20_000)
def _numeral(tag: str, text: str, plain: str) -> str:
    return text if text == plain else Markup("<bdi{}>{}</bdi>").format(_attributes(tag), text)


def _day(value: date | datetime) -> Markup:
    """28 Feb 2025, as an element."""
    return _time(languages.current(), _day_of(value), "day")


@lru_cache(maxsize=20_000)
def _time(tag: str, value: date, shape: Shape) -> Markup:
    text = languages.written(tag, value, shape)
    own = _attributes(tag) if text != languages.written("", value, shape) else ""
    return Markup('<time datetime="{}"{}>{}</time>').format(value.isoformat(), own, text)


def _moment(value: datetime) -> Markup:
    """28 Feb 2025, 14:05 UTC, of a naive UTC ``value``; a script puts it into the reader's zone, in this language."""
    tag = languages.current()
    return Markup('<time datetime="{}Z" data-moment{}>{}, {:%H:%M} UTC</time>').format(
        value.isoformat(timespec="seconds"),
        Markup(languages.attributes(tag)),
        languages.written(tag, value.date(), "day"),
        value,
    )


def _period(period: Period) -> Markup:
    """Friday, 28 February 2025; Week 9, 2025; February 2025: as an element."""
    return _period_time(languages.current(), period, False)


def _short(period: Period) -> Markup:
    """28 Feb; Week 9; Feb 2025: as an element."""
    return _period_time(languages.current(), period, True)


@lru_cache(maxsize=5_000)
def _period_time(tag: str, period: Period, short: bool) -> Markup:
    text = _period_text(tag, period, short=short)
    own = _attributes(tag) if text != _period_text("", period, short=short) else ""
    return Markup('<time datetime="{}"{}>{}</time>').format(period.key, own, text)


def _period_text(tag: str, period: Period, *, short: bool) -> str:
    if period.kind == "week":
        return period.short if short else period.title
    return languages.written(tag, period.start, _SHAPES[period.kind, short])


def _weekday(value: date) -> str:
    """Fri."""
    tag = languages.current()
    name = languages.weekdays(tag)[value.weekday()][1]
    return _numeral(tag, name, languages.weekdays("")[value.weekday()][1])


def weekdays() -> list[tuple[str, str, Markup]]:
    """(narrow name, long name, attributes of an element that holds both) of the days from Monday on."""
    tag = languages.current()
    return [(narrow, long, _attributes(tag)) for narrow, _, long in languages.weekdays(tag)]


def _attributes(tag: str) -> Markup:
    """None for a form of English: the page is English."""
    return Markup("" if tag.startswith("en-") else languages.attributes(tag))


def _day_of(value: date | datetime) -> date:
    return value.date() if isinstance(value, datetime) else value


def _noun(count: int, one: str, many: str | None) -> str:
    return one if count == 1 else many or one + "s"


FILTERS: dict[str, Any] = {
    "number": _number,
    "compact": _compact,
    "figure": _figure,
    "plural": _plural,
    "day": _day,
    "moment": _moment,
    "period": _period,
    "short": _short,
    "weekday": _weekday,
    "number_said": _number_said,
    "plural_said": _plural_said,
    "day_said": _day_said,
    "period_said": _period_said,
}
"""Of the templates; those ending in ``_said`` are text, for attributes and titles."""
