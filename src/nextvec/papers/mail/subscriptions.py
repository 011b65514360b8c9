"""What somebody asks for by mail: a digest of what is trending, or an alert; from a form, and as the database has it.

============  =======================================  ============================================
kind          papers                                   needs
============  =======================================  ============================================
``digest``    of the feed                              nothing
``topic``     whose title or abstract has these words  ``topic``
``search``    that a search lists among its first 100  ``q``
``author``    by an author                             ``author``
``org``       of an organisation                       ``org``
============  =======================================  ============================================

Each of them is narrowed further by the filters of the views (``narrowing``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal
from urllib.parse import parse_qsl, urlencode

from nextvec.papers import languages
from nextvec.papers.db import Database
from nextvec.papers.mail.schedule import Schedule, read_schedule
from nextvec.papers.narrowing import Narrowing, Unknown, read_narrowing
from nextvec.papers.params import whole_number
from nextvec.papers.records import clean
from nextvec.papers.search import check_query
from nextvec.types import InputError

__all__ = ["KINDS", "MOST", "About", "Kind", "Subscription", "read_about", "read_wanted"]

Kind = Literal["digest", "topic", "search", "author", "org"]
KINDS: dict[Kind, str] = {
    "digest": "Trending papers",
    "topic": "Papers about a topic",
    "search": "New results of a search",
    "author": "Papers by an author",
    "org": "Papers of an organisation",
}
_NEEDS: dict[Kind, tuple[str, str]] = {
    "topic": ("topic", "a topic, such as world models"),
    "search": ("q", "what to search for"),
    "author": ("author", "the author's name"),
    "org": ("org", "the organisation's name"),
}
USUAL, MOST = 12, 40
"""How many papers a mail has at most: where nothing was chosen, and as the largest choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Which papers. ``query``: the words of a saved search."""

    kind: Kind = "digest"
    query: str = ""
    narrowing: Narrowing = field(default_factory=Narrowing)

    def pairs(self) -> dict[str, str]:
        """The parameters that say this, in one order."""
        return ({"q": self.query} if self.query else {}) | self.narrowing.pairs()

    def address(self) -> str:
        """``pairs`` as the database keeps them: one text for one wish."""
        return urlencode(self.pairs())

    def stream(self, every: str) -> str:
        """What a reader can have one subscription to. Two that differ in hour or zone only are the same."""
        name = f"{self.kind} {every}"
        text = self.address()
        return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:24]}" if text else name

    def subject(self) -> str:
        """What the papers have in common, after "papers": ``about world models``; nothing for all papers."""
        shown = self.narrowing.shown()
        first = f"for the search “{self.query}”" if self.query else ""
        order = {"topic": shown.pop("topic", ""), "author": shown.pop("author", "")}
        if organization := shown.pop("org", ""):
            order["org"] = f"from {organization}"
        parts = [first, *order.values()]
        rest = list(shown.values())
        said = " ".join(part for part in parts if part)
        return f"{said} ({', '.join(rest)})".strip() if rest else said


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One row of what readers asked for. Times are naive UTC; ``language``: how its mails write days and numbers, as
    ``languages.known`` gives it."""

    id: str
    reader: str
    about: About
    schedule: Schedule
    most: int = USUAL
    language: str = ""
    state: str = "pending"
    since: datetime | None = None
    covered: datetime | None = None

    @property
    def stream(self) -> str:
        return self.about.stream(self.schedule.every)

    def title(self) -> str:
        """``Daily papers about world models``."""
        often = "Daily" if self.schedule.every == "day" else "Weekly"
        if self.about.kind == "digest":
            subject = self.about.subject()
            return f"{often} trending papers {subject}".strip()
        return f"{often} papers {self.about.subject()}"


def read_about(values: Mapping[str, str], db: Database) -> tuple[About, Unknown]:
    """Which papers an address or a form asks for, and its names that no paper has. InputError for what cannot be.

    Without a kind it is the one that the filters suggest; days (``from``, ``to``) play no part in what is to come.
    """
    given = {name: value for name, value in values.items() if name not in ("from", "to", "page", "sort", "half")}
    kind = clean(given.get("kind", ""))
    if not kind:
        kind = next((name for name, (needed, _) in _NEEDS.items() if clean(given.get(needed, ""))), "digest")
    if kind not in KINDS:
        raise InputError(f"the kind of mail is {kind[:40]!r}; expected one of {', '.join(KINDS)}")
    needed, expected = _NEEDS.get(kind, ("", ""))
    if needed and not clean(given.get(needed, "")):
        raise InputError(f"{needed} is empty; expected {expected}")
    query = check_query(given.get("q", "")) if kind == "search" else ""
    narrowing, unknown = read_narrowing(given, db)
    return About(kind=kind, query=query, narrowing=narrowing), unknown


def restored(kind: str, query: str, db: Database) -> About:
    """What ``About.address`` wrote. Names are looked up anew: papers may spell them otherwise by now."""
    values = dict(parse_qsl(query))
    about, _ = read_about(values | {"kind": kind}, db)
    return about


def read_wanted(values: Mapping[str, str], days: Sequence[str], db: Database) -> tuple[Subscription, Unknown]:
    """A subscription as a form asks for it, without an id and a reader. InputError that names the field."""
    about, unknown = read_about(values, db)
    return _timed(Subscription(id="", reader="", about=about, schedule=Schedule()), values, days), unknown


def rescheduled(subscription: Subscription, values: Mapping[str, str], days: Sequence[str]) -> Subscription:
    """The same papers at other times, in another form: what the settings page changes."""
    return _timed(subscription, values, days)


def _timed(subscription: Subscription, values: Mapping[str, str], days: Sequence[str]) -> Subscription:
    most = whole_number(values.get("most"), "the number of papers", low=1, high=MOST) or USUAL
    schedule = read_schedule(values, list(days))
    # A form of before the question was asked changes nothing about it.
    language = _read_language(values["language"]) if values.get("language") else subscription.language
    return replace(subscription, schedule=schedule, most=most, language=language)


def _read_language(text: str) -> str:
    tag = clean(text)
    found = languages.known(tag)
    if not found and tag != "en":  # which is what the form calls the site's own
        raise InputError(f"the language is {tag[:40]!r}; expected a tag such as en, en-US or de")
    return found
