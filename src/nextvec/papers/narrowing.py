"""What a reader narrows any view to, as an address says it: topic, organisation, author, source, votes, days, code.

A topic is words of title or abstract, compared as the search compares them: all of them must be there; commas separate
alternatives (``robot learning, world models``). The word index answers it, so that it costs the same for any topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from nextvec.papers.db import Database
from nextvec.papers.pages import dayname
from nextvec.papers.params import flag, read_day, read_name, whole_number
from nextvec.papers.search import check_query
from nextvec.search.words import tokenize
from nextvec.types import InputError

__all__ = ["PARTS", "Narrowing", "Unknown", "read_narrowing"]

PARTS = {
    "topic": "topic",
    "org": "organization",
    "author": "author",
    "source": "source",
    "votes": "votes",
    "code": "code",
    "from": "start",
    "to": "end",
}
"""The parameter of an address -> the part of a Narrowing."""

Unknown = dict[str, str | None]
"""Parameters (org, author, source) whose value no paper has -> a known value close to it, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """Everything must hold. ``start`` and ``end`` are days, both included."""

    topic: str | None = None
    organization: str | None = None
    author: str | None = None
    source: str | None = None
    votes: int | None = None
    code: bool = False
    start: date | None = None
    end: date | None = None

    def __bool__(self) -> bool:
        return self != Narrowing()

    def pairs(self) -> dict[str, str]:
        """The parameters of an address that say this; none for what is not set."""
        found = {}
        for name, part in PARTS.items():
            value = getattr(self, part)
            if value not in (None, False):
                found[name] = "1" if value is True else str(value)
        return found

    def without(self, name: str) -> Narrowing:
        """The same without one part, by its parameter."""
        part = PARTS[name]
        changes: dict[str, Any] = {part: getattr(Narrowing(), part)}
        return replace(self, **changes)

    def shown(self) -> dict[str, str]:
        """What people call each part that is set, by its parameter."""
        said = {
            "topic": f"about {self.topic}",
            "org": self.organization or "",
            "author": f"by {self.author}",
            "source": f"from the source {self.source}",
            "votes": f"{self.votes or 0:,}+ votes",
            "code": "has code",
            "from": f"from {dayname(self.start)}" if self.start else "",
            "to": f"to {dayname(self.end)}" if self.end else "",
        }
        return {name: said[name] for name in self.pairs()}


def read_narrowing(values: Mapping[str, str], db: Database) -> tuple[Narrowing, Unknown]:
    """The narrowing in an address, with known names as the papers spell them. InputError for what cannot be one."""
    start, end = read_day(values.get("from"), "from"), read_day(values.get("to"), "to")
    if start and end and start > end:
        raise InputError(f"from is {start}, after to, {end}: exchange them")
    topic = check_query(values.get("topic", "")).strip(" ,") or None
    if topic and not tokenize(topic):
        raise InputError(f"topic is {topic[:40]!r}, which has no word to look for; expected words such as world models")
    names = {name: read_name(values.get(name), name) for name in ("org", "author", "source")}
    unknown: Unknown = {}
    if wanted := names["org"]:
        known = db.find_organization(wanted)
        names["org"] = known or wanted
        if known is None:
            unknown["org"] = db.close_organization(wanted)
    if wanted := names["author"]:
        known = db.find_author(wanted)
        names["author"] = known or wanted
        if known is None:
            unknown["author"] = db.close_author(wanted)
    if (wanted := names["source"]) and wanted not in (sources := [name for name, _ in db.sources()]):
        unknown["source"] = next((name for name in sources if name.lower() == wanted.lower()), None)
    narrowing = Narrowing(
        topic=topic,
        organization=names["org"],
        author=names["author"],
        source=names["source"],
        votes=whole_number(values.get("votes"), "votes", low=0, high=10**9) or None,
        code=flag(values.get("code"), "code"),
        start=start,
        end=end,
    )
    return narrowing, unknown
