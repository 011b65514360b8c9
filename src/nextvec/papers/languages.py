"""Days and numbers as the reader's language writes them, in pages whose words are English.

A browser says which languages its reader prefers (``Accept-Language``, RFC 9110, 12.5.4). The first of them that is
known here decides how dates and numbers look; without one they have the site's own form: 28 Feb 2025, 9,877. Digits
are Latin and the calendar is the Gregorian one everywhere, as in the addresses. A week is ISO's.

What is written in another language says so (``lang``, ``dir``), for screen readers and for the order of its letters.
Where markup cannot say it (attributes, titles) only the forms of English itself are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from babel import Locale

__all__ = [
    "LANGUAGES",
    "Shape",
    "attributes",
    "current",
    "decimal",
    "grouped",
    "known",
    "names",
    "negotiated",
    "speaking",
    "weekdays",
    "written",
]

LANGUAGES = frozenset(
    [
        "ar",
        "bg",
        "bn",
        "ca",
        "cs",
        "da",
        "de",
        "el",
        "en",
        "es",
        "et",
        "fa",
        "fi",
        "fr",
        "he",
        "hi",
        "hr",
        "hu",
        "id",
        "it",
        "ja",
        "ko",
        "lt",
        "lv",
        "ms",
        "nb",
        "nl",
        "no",
        "pl",
        "pt",
        "ro",
        "ru",
        "sk",
        "sl",
        "sr",
        "sv",
        "sw",
        "ta",
        "te",
        "th",
        "tr",
        "uk",
        "ur",
        "vi",
        "zh",
    ]
)
"""Those that are known. Each takes about a megabyte once somebody asks for it; all that there are would take 200."""
_COUNTRIES = (
    *("de-AT", "de-CH", "en-AU", "en-CA", "en-GB", "en-IN", "en-US", "es-MX"),
    *("fr-CA", "fr-CH", "it-CH", "nl-BE", "pt-PT", "zh-Hant"),
)  # where days or numbers look unlike those of the language alone, as far as a form offers it
Shape = Literal["day", "full", "short", "month", "short month"]
"""28 Feb 2025; Friday, 28 February 2025; 28 Feb; February 2025; Feb 2025."""
_SKELETONS: dict[Shape, str] = {"day": "yMMMd", "short": "MMMd", "month": "yMMMM", "short month": "yMMM"}
_LONGEST = 400  # characters of a header: browsers send some 20 to 80
_RANGE = re.compile(
    r"([a-z]{2,8}(?:-[a-z0-9]{1,8}){0,3})[ \t]*(?:;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?",
    re.ASCII | re.IGNORECASE,
)
_WEEKDAYS = tuple(
    (name[0], name[:3], name) for name in ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
)
_current: ContextVar[str] = ContextVar("language", default="")


def negotiated(header: str | None) -> str:
    """The language of the first range in an ``Accept-Language`` that is known (a BCP 47 tag), or "": the site's own
    form. What cannot be read is passed over; English of no country is the site's own."""
    return _negotiated(header) if header and len(header) <= _LONGEST else ""


@lru_cache(maxsize=500)
def _negotiated(header: str) -> str:
    wanted: list[tuple[float, str]] = []
    for part in header.split(","):
        if part.partition(";")[0].strip() == "*":
            part = part.replace("*", "en", 1)  # any will do
        if match := _RANGE.fullmatch(part.strip()):
            wanted.append((float(match[2] or 1), match[1].lower()))
    for quality, tag in sorted(wanted, key=lambda one: -one[0]):
        if quality and tag.partition("-")[0] in LANGUAGES:
            return known(tag)
    return ""


@lru_cache(maxsize=1_000)
def known(tag: str) -> str:
    """The tag of the locale that is meant, at least of its language; "" for the site's own form: English of no country,
    and what is not known here."""
    if tag == "en" or tag.partition("-")[0].lower() not in LANGUAGES or not _RANGE.fullmatch(tag):
        return ""
    from babel import Locale, UnknownLocaleError

    for name in (tag, tag.partition("-")[0]):
        try:
            found = str(Locale.parse(name, sep="-")).replace("_", "-")
        except (UnknownLocaleError, ValueError):
            continue
        return "" if found == "en" else found
    return ""


@lru_cache(maxsize=100)
def names(own: str = "") -> tuple[tuple[str, str], ...]:
    """(tag, name in English) of what a form offers, by name; ``own``: one more, where it is not among them."""
    from babel import Locale

    tags = {*LANGUAGES - {"no"}, *_COUNTRIES, own or "en"}  # "no" is the older tag of "nb"
    found = [(tag, str(Locale.parse(tag, sep="-").get_display_name("en"))) for tag in tags]
    return tuple(sorted(found, key=lambda pair: pair[1]))


@contextmanager
def speaking(tag: str) -> Iterator[None]:
    """What is written inside of this is for readers of ``tag``, which ``negotiated`` gave."""
    token = _current.set(tag)
    try:
        yield
    finally:
        _current.reset(token)


def current(*, english: bool = False) -> str:
    """The language that is written for; ``english``: "" in place of one that is not a form of English."""
    tag = _current.get()
    return "" if english and not tag.startswith("en-") else tag


@dataclass(frozen=True, slots=True)
class _Spoken:
    """What is needed of one language. ``names``: of the days from Monday on, (narrow, short, long)."""

    locale: Locale
    attributes: str
    point: str
    names: tuple[tuple[str, str, str], ...]


@lru_cache(maxsize=1_000)
def _spoken(tag: str) -> _Spoken:
    from babel import Locale

    locale = Locale.parse(tag, sep="-")
    days = [locale.days["stand-alone"][width] for width in ("narrow", "abbreviated", "wide")]
    direction = ' dir="rtl"' if locale.text_direction == "rtl" else ""
    return _Spoken(
        locale,
        f' lang="{tag}"{direction}',
        str(locale.number_symbols["latn"]["decimal"]),
        tuple((days[0][i], days[1][i], days[2][i]) for i in range(7)),
    )


def attributes(tag: str) -> str:
    """The attributes of an element in this language, each after a space."""
    return _spoken(tag).attributes if tag else ""


@lru_cache(maxsize=20_000)
def written(tag: str, day: date, shape: Shape) -> str:
    """``day`` in a language ("": the site's own form)."""
    if tag:
        from babel.dates import format_date, format_skeleton

        locale = _spoken(tag).locale
        if shape == "full":
            return str(format_date(day, "full", locale=locale))
        return str(format_skeleton(_SKELETONS[shape], day, locale=locale))
    if shape == "full":
        return f"{day:%A}, {day.day} {day:%B %Y}"
    if shape == "day":
        return f"{day.day} {day:%b %Y}"
    return f"{day.day} {day:%b}" if shape == "short" else day.strftime("%B %Y" if shape == "month" else "%b %Y")


@lru_cache(maxsize=20_000)
def grouped(tag: str, value: int) -> str:
    """9877 -> 9,877 in a language."""
    if not tag:
        return f"{value:,}"
    from babel.numbers import format_decimal

    return str(format_decimal(value, locale=_spoken(tag).locale, numbering_system="latn"))


def decimal(tag: str, text: str) -> str:
    """``text``, a number with a point, with the sign of a language in its place."""
    return text.replace(".", _spoken(tag).point) if tag else text


def weekdays(tag: str) -> tuple[tuple[str, str, str], ...]:
    """(narrow, short, long) name of the days from Monday on."""
    return _spoken(tag).names if tag else _WEEKDAYS
