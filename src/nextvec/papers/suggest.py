"""What a reader who has typed the beginning of something may mean: titles, authors, organisations, keywords by prefix.

Every name is in a sorted list once for each of its first words, so that ``lec`` finds Yann LeCun: a look-up is two
binary searches and a choice among what lies between. Compared is without case and accents.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

import numpy as np
import sqlalchemy as sa

from nextvec.papers import markup
from nextvec.papers.db import Database
from nextvec.papers.insight.candidates import normal_form
from nextvec.papers.insight.store import keyword_rows
from nextvec.papers.insight.topics import topics_path
from nextvec.papers.site import Site
from nextvec.papers.tables import AUTHORS, PAPERS, fold
from nextvec.search.words import STOP_WORDS

__all__ = ["Suggester", "Suggestion", "suggester", "suggestions"]

Kind = Literal["author", "organisation", "keyword", "title"]
SHORTEST = 2
_EACH = 3
_STARTS = {"author": 4, "organisation": 4, "keyword": 3, "title": 4}
_LONGEST = 32  # characters that are compared
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """``address``: where choosing it leads; ``papers``: how many it is of (of a title, its votes)."""

    kind: Kind
    text: str
    address: str
    papers: int


@dataclass(frozen=True, slots=True)
class _Entry:
    text: str
    target: str
    weight: int


class Suggester:
    """Names of one kind by the beginnings of their words."""

    def __init__(self, kind: Kind, entries: Iterable[_Entry]) -> None:
        self.kind = kind
        self.entries = list(entries)
        keys = sorted(
            (folded[at : at + _LONGEST], number, at == 0)
            for number, entry in enumerate(self.entries)
            for folded in (fold(entry.text),)
            for at in _starts(folded, _STARTS[kind])
        )
        self._keys = [key for key, _, _ in keys]
        self._numbers = np.array([number for _, number, _ in keys], np.int64)
        first = np.array([whole for _, _, whole in keys], bool)
        weights = np.array([entry.weight for entry in self.entries], np.float64)
        # The beginning of a name before a later word of it; within each, the more papers the better.
        self._scores = np.log1p(weights[self._numbers]) + 3.0 * first if keys else np.zeros(0)

    def find(self, prefix: str, k: int) -> list[_Entry]:
        """The ``k`` best entries with a word that begins with ``prefix`` (folded), each once."""
        low = bisect.bisect_left(self._keys, prefix)
        high = bisect.bisect_left(self._keys, prefix + "\U0010ffff", low)
        scores = self._scores[low:high]
        most = min(len(scores), 4 * k)
        if not most:
            return []
        best = np.argpartition(-scores, most - 1)[:most]
        order = best[np.lexsort((best, -scores[best]))]
        numbers = dict.fromkeys(int(self._numbers[low + place]) for place in order)
        return [self.entries[number] for number in list(numbers)[:k]]


def _starts(folded: str, most: int) -> list[int]:
    """Where the first words of a name begin; little words are passed over after the first."""
    found: list[int] = []
    for match in _WORD.finditer(folded):
        if not found or match.group() not in STOP_WORDS:
            found.append(match.start())
        if len(found) == most:
            break
    return found


def suggester(site: Site) -> Sequence[Suggester]:
    """The lists of ``site``, made at the first use, when papers have changed and when topics were made, which is when
    there are keywords. Votes only weigh: lists of 120,000 papers take seconds, and every vote would cost them."""
    try:
        topics = topics_path(site).stat().st_mtime_ns
    except OSError:
        topics = 0
    key = ("suggest", site.stamp, topics)
    made: Sequence[Suggester] = site.kept.made(key, lambda: _made(site.db), weight=1_000)
    return made


def _made(db: Database) -> Sequence[Suggester]:
    papers = sa.func.count(sa.distinct(AUTHORS.c.paper))
    with db.read() as connection:
        titles = connection.execute(sa.select(PAPERS.c.id, PAPERS.c.title, PAPERS.c.upvotes)).all()
        names = connection.execute(sa.select(sa.func.max(AUTHORS.c.name), papers).group_by(AUTHORS.c.folded)).all()
    keywords: dict[str, tuple[str, int]] = {}
    for _, words in keyword_rows(db):
        for word in words:
            key = normal_form(word)
            shown, count = keywords.get(key, (word, 0))
            keywords[key] = (shown, count + 1)
    return (
        Suggester("author", (_Entry(name, name, count) for name, count in names)),
        Suggester("organisation", (_Entry(name, name, count) for name, count in db.organizations(limit=100_000))),
        Suggester("keyword", (_Entry(word, word, count) for word, count in keywords.values() if count > 1)),
        Suggester("title", (_Entry(title, identifier, votes) for identifier, title, votes in titles)),
    )


def suggestions(site: Site, text: str, *, most: int = 10) -> list[Suggestion]:
    """At most ``most``, at most three of a kind; none for fewer than two characters."""
    prefix = fold(text).strip()[:_LONGEST]
    if len(prefix) < SHORTEST:
        return []
    found = [(one.kind, entry) for one in suggester(site) for entry in one.find(prefix, _EACH)]
    return [_suggestion(kind, entry) for kind, entry in found[:most]]


def _suggestion(kind: Kind, entry: _Entry) -> Suggestion:
    if kind == "title":
        return Suggestion(kind, markup.plain(entry.text), f"/papers/{entry.target}", entry.weight)
    parameter = {"author": "author", "organisation": "org"}.get(kind, "q")
    return Suggestion(kind, entry.text, "/search?" + urlencode({parameter: entry.target}), entry.weight)
