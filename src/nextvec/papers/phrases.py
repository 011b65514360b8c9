"""Exact phrases: words that have to stand side by side, as they are written.

``"chain of thought"`` in a query, or a whole query in the mode ``phrase``. Case, accents and what stands between the
words (spaces, hyphens) do not matter; everything else does, plural endings and little words too. The word index gives
the papers that have the words at all, their text decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from nextvec.papers.site import Site
from nextvec.papers.tables import fold

__all__ = ["holding", "matcher", "quoted"]

_QUOTED = re.compile(r"[\"“”„«]\s*([^\"“”„«»]+?)\s*[\"“”»]")
_RUN = re.compile(r"[^\W_]+")


def quoted(query: str) -> tuple[str, ...]:
    """What stands between quotation marks in ``query``, each once; only what has a letter or a digit."""
    return tuple(dict.fromkeys(text for text in _QUOTED.findall(query) if _RUN.search(text)))


def matcher(phrase: str) -> Callable[[str], bool]:
    """Whether a text, folded by ``fold``, has ``phrase``."""
    runs = _RUN.findall(fold(phrase))
    pattern = re.compile(r"(?<![^\W_])" + r"[\W_]+".join(map(re.escape, runs)) + r"(?![^\W_])")
    longest = max(runs, key=len)
    return lambda text: longest in text and pattern.search(text) is not None


def holding(site: Site, phrases: Iterable[str]) -> frozenset[str] | None:
    """The ids of the papers that have every one of ``phrases`` in title, abstract, a name or the organisation; None
    without phrases."""
    found: frozenset[str] | None = None
    for phrase in phrases:
        key = (site.stamp, "phrase", fold(phrase))
        having: frozenset[str] | None = site.kept.get(key)
        if having is None:
            having = _holding(site, phrase)
            site.kept.put(key, having, weight=len(having) + 1)
        found = having if found is None else found & having
    return found


def _holding(site: Site, phrase: str) -> frozenset[str]:
    # A word with a dot or an apostrophe is one token of the index but several runs of a phrase.
    plain = " ".join(run for run in _RUN.findall(phrase) if run.isalpha())
    candidates = site.words().sharing(plain)
    fits = matcher(phrase)
    return frozenset(
        identifier
        for identifier, title, summary, authors, organization in site.db.texts(candidates)
        if any(fits(fold(text)) for text in (title, summary, *authors, organization or ""))
    )
