"""What a reader who has typed the beginning of something may mean: titles, authors, organisations, keywords by prefix.

Every name is in a sorted list once for each of its first words, so that ``lec`` finds Yann LeCun: a look-up is two
binary searches and a choice among what lies between. Compared is without case and accents.
"""

from __future__ import annotations

import bisect
import re
from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from nextvec.papers import markup
from nextvec.papers.columns import places_in_order
from nextvec.papers.connection import rows_among, rows_of
from nextvec.papers.insight.candidates import normal_form
from nextvec.papers.insight.store import keyword_rows
from nextvec.papers.insight.topics import topics_path
from nextvec.papers.site import Site
from nextvec.papers.tables import AUTHORS, PAPERS, fold
from nextvec.search.words import STOP_WORDS

__all__ = ["Followed", "Suggester", "Suggestion", "suggester", "suggestions"]

Kind = Literal["author", "organisation", "keyword", "title"]
SHORTEST = 2
_EACH = 3
_STARTS = {"author": 4, "organisation": 4, "keyword": 3, "title": 4}
_LONGEST = 32  # characters that are compared
_WORD = re.compile(r"[^\W_]+")
_FOLLOWED = 50  # the lists are made anew when more than one in so many papers changed
_A, _P = AUTHORS.c, PAPERS.c
_NAMED: tuple[Any, ...] = (sa.func.max(_A.name), sa.func.count(sa.distinct(_A.paper)))
_NAMES = sa.select(*_NAMED).group_by(_A.folded)


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
        return [entry for _, _, entry in self.best(prefix, k)]

    def best(self, prefix: str, k: int, without: NDArray[np.bool_] | None = None) -> list[tuple[float, str, _Entry]]:
        """``find``, with what orders them: the less the better. ``without``: bool, entries that do not count."""
        low = bisect.bisect_left(self._keys, prefix)
        high = bisect.bisect_left(self._keys, prefix + "\U0010ffff", low)
        numbers = self._numbers[low:high]
        there = np.arange(len(numbers)) if without is None else np.flatnonzero(~without[numbers])
        scores = self._scores[low:high][there]
        most = min(len(scores), 4 * k)
        if not most:
            return []
        best = np.argpartition(-scores, most - 1)[:most]
        found: dict[int, tuple[float, str]] = {}
        for place in best[np.lexsort((best, -scores[best]))].tolist():
            found.setdefault(int(numbers[there[place]]), (-float(scores[place]), self._keys[low + int(there[place])]))
        return [(*found[number], self.entry(number)) for number in list(found)[:k]]

    def called(self, folded: str) -> list[int]:
        """The numbers of the entries with this text (folded)."""
        start = next(iter(_starts(folded, 1)), None)
        key = "" if start is None else folded[start : start + _LONGEST]
        places = range(bisect.bisect_left(self._keys, key), bisect.bisect_right(self._keys, key)) if key else range(0)
        numbers = dict.fromkeys(int(self._numbers[place]) for place in places)
        return [number for number in numbers if fold(self._texts[number]) == folded]

    def leading_to(self, targets: Collection[str]) -> list[int]:
        """The numbers of the entries that lead to one of these."""
        return [number for number, target in enumerate(self._targets) if target in targets]

    def __len__(self) -> int:
        return len(self._texts)


class Followed:
    """A list that was made of older papers, with those that changed since in another one before it."""

    def __init__(self, older: Suggester, replaced: Iterable[int], later: Suggester) -> None:
        """``replaced``: numbers in ``older`` that do not count any more."""
        self.kind = older.kind
        self._older, self._later = older, later
        self._without = np.zeros(len(older), np.bool_)
        self._without[list(replaced)] = True

    def find(self, prefix: str, k: int) -> list[_Entry]:
        """As ``Suggester.find``."""
        found = self._older.best(prefix, k, self._without) + self._later.best(prefix, k)
        return [entry for _, _, entry in sorted(found, key=lambda one: one[:2])[:k]]


def _starts(folded: str, most: int) -> list[int]:
    """Where the first words of a name begin; little words are passed over after the first."""
    found: list[int] = []
    for match in _WORD.finditer(folded):
        if not found or match.group() not in STOP_WORDS:
            found.append(match.start())
        if len(found) == most:
            break
    return found


@dataclass(frozen=True, slots=True)
class _Whole:
    """Lists of all papers of the generation ``stamp``; ``state``: what else they are of."""

    stamp: str
    state: tuple[int, str]
    lists: Sequence[Suggester]


def suggester(site: Site, *, fresh: bool = False) -> Sequence[Suggester | Followed]:
    """The lists of ``site``, which follow the papers that change; made anew when many have, when a moderator acted and
    when topics were made, which is when there are keywords. Votes only weigh: they change no list."""
    try:
        topics = topics_path(site).stat().st_mtime_ns
    except OSError:
        topics = 0
    made: Sequence[Suggester | Followed] = site.steady(
        "suggest", lambda: _made(site, topics), also=topics, weight=lambda made: 1_000, fresh=fresh
    )
    return made


def _made(site: Site, topics: int) -> Sequence[Suggester | Followed]:
    state = (topics, site.db.fact("moderated") or "")
    whole: _Whole | None = site.kept.get("suggest whole")
    with site.db.read() as connection:
        change = site.db.changed(connection, whole.stamp if whole else None)
        if whole is not None and whole.state == state and change.papers is not None:
            if not change.papers:
                return whole.lists
            if len(change.papers) <= max(100, len(whole.lists[-1]) // _FOLLOWED):
                return _followed(connection, whole.lists, change.papers)
        titles = rows_of(connection, sa.select(_P.title, _P.id, _P.upvotes))
        names = rows_of(connection, _NAMES)
        organizations = _organizations(connection)
    keywords: dict[str, tuple[str, int]] = {}
    for _, words in keyword_rows(site.db):
        for word in words:
            key = normal_form(word)
            shown, count = keywords.get(key, (word, 0))
            keywords[key] = (shown, count + 1)
    lists = (
        Suggester("author", ((name, name, count) for name, count in names)),
        organizations,
        Suggester("keyword", ((word, word, count) for word, count in keywords.values() if count > 1)),
        Suggester("title", ((title, identifier, votes) for title, identifier, votes in titles)),
    )
    site.kept.put("suggest whole", _Whole(change.stamp, state, lists), weight=1_000)
    return lists


def _organizations(connection: sa.Connection) -> Suggester:
    query = sa.select(_P.organization, sa.func.count()).where(_P.organization.is_not(None)).group_by(_P.organization)
    return Suggester("organisation", ((name, name, count) for name, count in rows_of(connection, query)))


def _followed(
    connection: sa.Connection, lists: Sequence[Suggester], changed: Sequence[str]
) -> Sequence[Suggester | Followed]:
    """The lists with these papers as they are now. An author whose papers all went is offered until they are made
    anew: whose they were is not known any more."""
    authors, _, keywords, titles = lists
    written = sorted({row[0] for row in rows_among(connection, sa.select(_A.folded), _A.paper, changed)})
    names = rows_among(connection, _NAMES, _A.folded, written)
    fresh = rows_among(connection, sa.select(_P.title, _P.id, _P.upvotes), _P.id, changed)
    older = (number for name in written for number in authors.called(name))
    return (
        Followed(authors, older, Suggester("author", ((name, name, count) for name, count in names))),
        _organizations(connection),
        keywords,
        Followed(titles, titles.leading_to(set(changed)), Suggester("title", fresh)),
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
