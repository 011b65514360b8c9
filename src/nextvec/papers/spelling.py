"""Did you mean: for a query that looks like a name that no paper has, or has a word that no paper has.

Names are compared as ``authors.close`` and ``Database.close_organization`` do, words with those of the titles that
begin alike and are about as long (``difflib``, a ratio of 0.8 and more).
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import sqlalchemy as sa

from nextvec.papers.connection import rows_of
from nextvec.papers.site import Site
from nextvec.papers.tables import AUTHORS, PAPERS, fold
from nextvec.search.words import WORD, tokens_of
from nextvec.types import StorageError

__all__ = ["Meant", "meant", "title_words"]

_MOST_WORDS = 6
_FOLLOWED = 50
_CLOSE = 0.8


@dataclass(frozen=True, slots=True)
class Meant:
    """``kind``: author, organisation or words; ``address``: the search for it."""

    kind: str
    text: str
    address: str


def meant(site: Site, query: str) -> list[Meant]:
    """What ``query`` may have been meant to be, at most one of each kind; nothing for one that is spelt right."""
    words = WORD.findall(query)
    if not words or len(words) > _MOST_WORDS or '"' in query:
        return []
    strange = [word for word in words if word.isalpha() and len(word) > 3 and not _known(site, word)]
    found: list[Meant] = []
    with contextlib.suppress(StorageError):  # an older database on a read-only disk has no table of authors
        found = _names(site, query, words, strange)
    if strange:
        corrected = _corrected(site, query, strange)
        if corrected and all(fold(one.text) != fold(corrected) for one in found):
            found.append(Meant("words", corrected, "/search?" + urlencode({"q": corrected})))
    return found


def _names(site: Site, query: str, words: Sequence[str], strange: Sequence[str]) -> list[Meant]:
    """The author and the organisation that ``query`` may mean."""
    found = []
    if strange or _like_a_name(site, words):
        author = site.db.close_author(query)
        if author and fold(author) != fold(query) and _alike(author, query):
            found.append(Meant("author", author, "/search?" + urlencode({"author": author})))
    if strange:
        organization = site.db.close_organization(query)
        if organization and _alike(organization, query):
            found.append(Meant("organisation", organization, "/search?" + urlencode({"org": organization})))
    return found


def _known(site: Site, word: str) -> bool:
    index = site.words()
    tokens = tokens_of(word)
    return not tokens or any(index.knows(token) for token in tokens)


def _alike(name: str, query: str) -> bool:
    one, two = fold(name), fold(query)
    turned = " ".join([*two.split()[1:], *two.split()[:1]])
    return max(difflib.SequenceMatcher(None, one, other).ratio() for other in (two, turned)) >= 0.75


def _like_a_name(site: Site, words: Sequence[str]) -> bool:
    """Two or three words that end in an author's last name, but are no author's name."""
    if not 2 <= len(words) <= 3 or not all(word.isalpha() for word in words):
        return False
    last = sa.select(AUTHORS.c.paper).where(AUTHORS.c.last == fold(words[-1])).limit(1)
    with site.db.read() as connection:
        there = connection.execute(last).scalar() is not None
    return there and site.db.find_author(" ".join(words)) is None


def _corrected(site: Site, query: str, strange: Sequence[str]) -> str | None:
    """``query`` with the nearest word of the titles in place of each strange one; None where one has none near."""
    words = title_words(site)
    text = query
    for word in strange:
        near = _nearest_word(words, word.lower())
        if near is None:
            return None
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", near, text)
    return text


def _nearest_word(words: Mapping[str, Mapping[str, int]], wrong: str) -> str | None:
    around = [word for word in words.get(wrong[0], {}) if abs(len(word) - len(wrong)) <= 2]
    close = difflib.get_close_matches(wrong, around, n=3, cutoff=_CLOSE)
    if not close:
        return None
    best = difflib.SequenceMatcher(None, close[0], wrong).ratio()
    level = [word for word in close if difflib.SequenceMatcher(None, word, wrong).ratio() > best - 0.02]
    return max(level, key=lambda word: words[wrong[0]][word])


def title_words(site: Site, *, fresh: bool = False) -> Mapping[str, Mapping[str, int]]:
    """How often each word is in titles, by its first letter; words of one title only may be slips themselves.

    Counted anew when one in fifty papers changed: a few more titles make no word more or less right.
    """
    made: _Counted = site.steady("title words", lambda: _title_words(site), weight=lambda made: 1_000, fresh=fresh)
    return made.words


@dataclass(frozen=True, slots=True)
class _Counted:
    """The words of the titles of the generation ``stamp``, of which there were ``papers``."""

    stamp: str
    papers: int
    words: dict[str, Counter[str]]


def _title_words(site: Site) -> _Counted:
    held: _Counted | None = site.kept.get("title words counted")
    counts: Counter[str] = Counter()
    papers = 0
    stamp = site.stamp  # papers that change from here on are counted as changed, even if their new titles are in
    with site.db.read() as connection:
        changed = site.db.changed(connection, held.stamp).papers if held else None
        if held and changed is not None and len(changed) * _FOLLOWED <= held.papers:
            return held
        for (title,) in rows_of(connection, sa.select(PAPERS.c.title)):
            papers += 1
            counts.update({word.lower() for word in WORD.findall(title) if word.isalpha()})
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for word, count in counts.items():
        if count > 1:
            found[word[0]][word] = count
    made = _Counted(stamp, papers, dict(found))
    site.kept.put("title words counted", made, weight=1_000)
    return made
