"""What a reader narrows any view to, as an address says it: topic, organisation, author, source, venue or category,
votes, days, code.

A topic is words of title or abstract, compared as the search compares them: all of them must be there; commas separate
alternatives (``robot learning, world models``). The word index answers it, so that it costs the same for any topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from nextvec.papers.db import Database
from nextvec.papers.params import Unknown, flag, known_names, read_days, read_topic, whole_number
from nextvec.papers.shown import dayname

__all__ = ["PARTS", "Narrowing", "Unknown", "read_narrowing"]

PARTS = {
    "topic": "topic",
    "org": "organization",
    "author": "author",
    "source": "source",
    "category": "category",
    "votes": "votes",
    "code": "code",
    "from": "start",
    "to": "end",
}
"""The parameter of an address -> the part of a Narrowing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """Everything must hold. ``start`` and ``end`` are days, both included."""

    topic: str | None = None
    organization: str | None = None
    author: str | None = None
    source: str | None = None
    category: str | None = None
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
            "category": f"in {' or '.join((self.category or '').split(','))}",
            "votes": f"{self.votes or 0:,}+ votes",
            "code": "has code",
            "from": f"from {dayname(self.start)}" if self.start else "",
            "to": f"to {dayname(self.end)}" if self.end else "",
        }
        return {name: said[name] for name in self.pairs()}


def read_narrowing(values: Mapping[str, str], db: Database) -> tuple[Narrowing, Unknown]:
    """The narrowing in an address, with known names as the papers spell them. InputError for what cannot be one."""
    start, end = read_days(values)
    names, unknown = known_names(values, db)
    narrowing = Narrowing(
        topic=read_topic(values.get("topic", "")),
        organization=names["org"],
        author=names["author"],
        source=names["source"],
        category=names["category"],
        votes=whole_number(values.get("votes"), "votes", low=0, high=10**9) or None,
        code=flag(values.get("code"), "code"),
        start=start,
        end=end,
    )
    return narrowing, unknown
