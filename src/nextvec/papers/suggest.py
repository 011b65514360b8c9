"""What a reader who has typed the beginning of something may mean: titles, authors, organisations, keywords by prefix.

Every name is in a sorted list once for each of its first words, so that ``lec`` finds Yann LeCun: a look-up is two
binary searches and a choice among what lies between. Compared is without case and accents.
"""

from __future__ import annotations

import bisect
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import urlencode

import numpy as np
import sqlalchemy as sa

from nextvec.papers import markup
from nextvec.papers.columns import places_in_order
from nextvec.papers.connection import rows_of
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


class _Entry(NamedTuple):
    text: str
    target: str
    weight: int


class Suggester:
    """Names of one kind by the beginnings of their words.

    Held as a few lists and arrays: as objects, 300,000 names would be walked through by every collection of garbage.
    """

    def __init__(self, kind: Kind, entries: Iterable[tuple[str, str, int]]) -> None:
        """``entries``: (text, what it leads to, weight)."""
        self.kind = kind
        self._texts: list[str] = []
        self._targets: list[str] = []
        self._weights = array("q")
        keys: list[str] = []
        numbers, first = array("q"), array("b")
        for number, (text, target, weight) in enumerate(entries):
            self._texts.append(text)
            self._targets.append(target)
            self._weights.append(weight)
            folded = fold(text)
            for at in _starts(folded, _STARTS[kind]):
                keys.append(folded[at : at + _LONGEST])
                numbers.append(number)
                first.append(at == 0)
        order = places_in_order(keys)
        self._keys = [keys[place] for place in order]
        self._numbers = np.array(numbers, np.int64)[order] if order else np.zeros(0, np.int64)
        weights = np.array(self._weights, np.float64)
        # The beginning of a name before a later word of it; within each, the more papers the better.
        self._scores = np.log1p(weights[self._numbers]) + 3.0 * np.array(first, bool)[order] if order else np.zeros(0)

    def entry(self, number: int) -> _Entry:
        """The entry of this number."""
        return _Entry(self._texts[number], self._targets[number], self._weights[number])

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
        return [self.entry(number) for number in list(numbers)[:k]]


def _starts(folded: str, most: int) -> list[int]:
    """Where the first words of a name begin; little words are passed over after the first."""
    found: list[int] = []
    for match in _WORD.finditer(folded):
        if not found or match.group() not in STOP_WORDS:
            found.append(match.start())
        if len(found) == most:
            break
    return found


def suggester(site: Site, *, fresh: bool = False) -> Sequence[Suggester]:
    """The lists of ``site``, made at the first use, when papers have changed and when topics were made, which is when
    there are keywords. Votes only weigh: lists of 120,000 papers take seconds, and every vote would cost them."""
    try:
        topics = topics_path(site).stat().st_mtime_ns
    except OSError:
        topics = 0
    made: Sequence[Suggester] = site.steady(
        "suggest", lambda: _made(site.db), also=topics, weight=lambda made: 1_000, fresh=fresh
    )
    return made


def _made(db: Database) -> Sequence[Suggester]:
    papers = sa.func.count(sa.distinct(AUTHORS.c.paper))
    with db.read() as connection:
        titles = rows_of(connection, sa.select(PAPERS.c.title, PAPERS.c.id, PAPERS.c.upvotes))
        names = rows_of(connection, sa.select(sa.func.max(AUTHORS.c.name), papers).group_by(AUTHORS.c.folded))
    keywords: dict[str, tuple[str, int]] = {}
    for _, words in keyword_rows(db):
        for word in words:
            key = normal_form(word)
            shown, count = keywords.get(key, (word, 0))
            keywords[key] = (shown, count + 1)
    return (
        Suggester("author", ((name, name, count) for name, count in names)),
        Suggester("organisation", ((name, name, count) for name, count in db.organizations(limit=100_000))),
        Suggester("keyword", ((word, word, count) for word, count in keywords.values() if count > 1)),
        Suggester("title", ((title, identifier, votes) for title, identifier, votes in titles)),
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
