"""Which papers a digest has: those that came since the last one, by the site's own trending score, none of them twice.

A digest at the moment ``at`` covers what came after ``start``, the moment of the one before it. Papers may be taken in
late, or rise late: what came up to ``LATE`` before ``start`` is looked at again, and what the reader was sent is left
out. How papers are ordered does not depend on when that is done: at any moment all scores have faded alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from nextvec.papers import trending, views
from nextvec.papers.db import Filters
from nextvec.papers.mail.schedule import Schedule
from nextvec.papers.mail.subscriptions import About
from nextvec.papers.records import Paper
from nextvec.papers.search import search
from nextvec.papers.site import Site

__all__ = ["FIRST", "LATE", "LONGEST", "Candidate", "Chooser"]

LATE = timedelta(days=2)
FIRST = {"day": timedelta(days=1), "week": timedelta(days=7)}
"""What the first digest of a subscription covers."""
LONGEST = timedelta(days=35)
"""What a digest covers at most, after a long pause."""
HALF_LIFE = {"day": 2.0, "week": 7.0}
"""Of the trending score, in days."""
_BEST = 100  # results of a saved search that count


@dataclass(frozen=True, slots=True)
class Candidate:
    """``why`` it is there, as a phrase after "because"; nothing in a digest of what is trending."""

    id: str
    why: str


class Chooser:
    """Chooses for many readers; what they have in common is looked up once. Use a new one for each run."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._papers: dict[tuple[About, datetime], list[Paper]] = {}
        self._reasons: dict[About, dict[str, str]] = {}
        self._ranked: dict[tuple[About, str, datetime, datetime, str], list[Candidate]] = {}

    def candidates(self, about: About, schedule: Schedule, start: datetime, at: datetime) -> list[Candidate]:
        """The papers from ``start`` to ``at`` (naive UTC), best first. Raises StorageError without a search index."""
        start = max(start, at - LONGEST)
        skipped = schedule.zone if schedule.every == "day" and schedule.weekend == "skip" else ""
        key = (about, schedule.every, start, at, skipped)
        known = self._ranked.get(key)
        if known is None:
            known = self._ranked[key] = self._rank(about, schedule, start, at)
        return known

    def _rank(self, about: About, schedule: Schedule, start: datetime, at: datetime) -> list[Candidate]:
        first = datetime.combine((start - LATE).date() - timedelta(days=1), datetime.min.time())
        skip = schedule.every == "day" and schedule.weekend == "skip"
        rows = []
        for paper in self._since(about, first):
            moment = _came(paper)
            if moment is None or not start - LATE < moment <= at:
                continue
            if skip and moment.replace(tzinfo=UTC).astimezone(schedule.info).weekday() > 4:
                continue
            rows.append((paper.id, paper.upvotes, moment, paper.daily_date or moment.date()))
        ranked = trending.rank(rows, at=at, half_life=HALF_LIFE[schedule.every])
        chosen = [trend.id for trend in ranked]
        reasons = self._why(about) if chosen else {}
        return [Candidate(name, reasons.get(name, reasons.get("", ""))) for name in chosen]

    def _since(self, about: About, first: datetime) -> list[Paper]:
        """The papers that satisfy the wish and came on this day or later."""
        key = (about, first)
        if key not in self._papers:
            narrowing = replace(about.narrowing, start=first.date())
            view = views.View(kind="daily" if about.kind == "digest" else "new", path="", title="", narrowing=narrowing)
            ids = views.members(self.site, view, first)
            if about.kind == "search":
                hits = self._why(about)
                ids = tuple(identifier for identifier in ids if identifier in hits)
            self._papers[key] = [stored.paper for stored in self.site.db.get_many(ids)]
        return self._papers[key]

    def _why(self, about: About) -> dict[str, str]:
        """Why a paper is there, by its id; under "" what holds for all others."""
        if about not in self._reasons:
            self._reasons[about] = self._made_reasons(about)
        return self._reasons[about]

    def _made_reasons(self, about: About) -> dict[str, str]:
        narrowing = about.narrowing
        if about.kind == "author":
            return {"": f"you follow {narrowing.author}"}
        if about.kind == "org":
            return {"": f"you follow {narrowing.organization}"}
        if about.kind == "search":
            return self._hits(about)
        if about.kind == "digest" or not narrowing.topic:
            return {}
        found: dict[str, list[str]] = {}
        for topic in filter(None, (part.strip() for part in narrowing.topic.split(","))):
            for identifier in self.site.words().holding(topic):
                found.setdefault(identifier, []).append(f"“{topic}”")
        return {
            identifier: f"you follow the {'topic' if len(topics) == 1 else 'topics'} {' and '.join(topics[:3])}"
            for identifier, topics in found.items()
        }

    def _hits(self, about: About) -> dict[str, str]:
        """What the search lists now, with why. Its filters are those that a search has."""
        narrowing = about.narrowing
        filters = Filters(
            organization=narrowing.organization,
            category=narrowing.category,
            votes=narrowing.votes,
            code=narrowing.code,
        )
        found = search(self.site, about.query, filters, size=_BEST)
        return {
            match.stored.paper.id: f"you saved the search “{about.query}”"
            + (f", whose words {', '.join(match.terms[:4])} it has" if match.terms else ", which it is close to")
            for match in found.matches
        }


def _came(paper: Paper) -> datetime | None:
    """When a paper came: its listing, else its publication, else the start of its feed day."""
    day = datetime.combine(paper.daily_date, datetime.min.time()) if paper.daily_date else None
    return paper.listed_at or paper.published_at or day
