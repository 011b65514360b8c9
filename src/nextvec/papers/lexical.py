"""The words of a query in the texts of papers, to show people: what is marked, named and cut out of an abstract."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from markupsafe import Markup, escape

from nextvec.search.words import WORD, tokens_of

__all__ = ["highlighter", "matched_terms", "snippet"]

_WITHIN = "-.'’+"
_RUN = re.compile(rf"(?:[^\W_]|[{_WITHIN}])+")
_FOREIGN = re.compile(r"[^\W_a-zA-Z0-9]|’")
_BREAK = re.compile(r"[.!?]\s+(?=[A-Z0-9(])")


class _Sought:
    """The words of a query, to be found in texts."""

    def __init__(self, query: str) -> None:
        self.words = tuple(dict.fromkeys(WORD.findall(query)))
        self.tokens = frozenset(token for word in self.words for token in tokens_of(word))
        # A word of ASCII that has a token has this in it, up to case, unless something stands inside the word.
        self._stems = tuple({token.removesuffix("y") or token for token in self.tokens if token.isascii()})

    def places(self, text: str) -> list[tuple[int, int, frozenset[str]]]:
        """(begin, end, what it shares with the query) of each word of ``text`` that shares a token, in order."""
        found = []
        for begin, end in self._runs(text):
            for match in WORD.finditer(text, begin, end):
                tokens = tokens_of(match.group())
                if not self.tokens.isdisjoint(tokens):
                    found.append((match.start(), match.end(), self.tokens.intersection(tokens)))
        return found

    def _runs(self, text: str) -> list[tuple[int, int]]:
        """Where words can be that share a token: a few look-ups, as most words of a text share nothing."""
        lower = text.lower()
        if len(lower) != len(text):
            return [(0, len(text))]
        runs: dict[int, int] = {}
        if not text.isascii():
            self._add(text, (match.start() for match in _FOREIGN.finditer(text)), runs)
        bare = lower.replace("-", "").replace("'", "")
        # Few texts have a word of the query in two pieces, and nearly all have hyphens.
        split = len(bare) < len(lower) and any(bare.count(stem) > lower.count(stem) for stem in self._stems)
        for stem in (*self._stems, "-", "'") if split else self._stems:
            at = lower.find(stem)
            while at >= 0:
                end = self._add(text, (at,), runs)
                at = lower.find(stem, max(end, at + 1))
        return sorted(runs.items())

    def _add(self, text: str, places: Iterable[int], runs: dict[int, int]) -> int:
        """Note the runs around ``places``, which ascend; the end of the last."""
        end = -1
        for at in places:
            if at < end:
                continue
            begin = at
            while begin and ((char := text[begin - 1]).isalnum() or char in _WITHIN):
                begin -= 1
            match = _RUN.match(text, begin)
            runs[begin] = end = match.end() if match else at + 1
        return end


_sought = lru_cache(maxsize=256)(_Sought)


@lru_cache(maxsize=256)
def highlighter(query: str) -> Callable[[str], Markup] | None:
    """A function that escapes text and puts <mark> around the words the query has in common; None without any.

    The same one for the same query, so that what it marked can be kept.
    """
    sought = _sought(query)
    if not sought.tokens:
        return None

    def mark(text: str) -> Markup:
        out: list[str] = []
        at = 0
        for begin, end, _ in sought.places(text):
            out += [escape(text[at:begin]), "<mark>", escape(text[begin:end]), "</mark>"]
            at = end
        return Markup("".join([*out, escape(text[at:])]))

    return mark


def matched_terms(query: str, text: str) -> list[str]:
    """The query's words that occur in ``text``, as the query spells them."""
    sought = _sought(query)
    present = {token for _, _, tokens in sought.places(text) for token in tokens}
    return [word for word in sought.words if not present.isdisjoint(tokens_of(word))]


def snippet(query: str, text: str, *, length: int = 320) -> tuple[str, bool]:
    """The stretch of whole sentences of ``text`` with the most different query words, about ``length`` characters,
    and whether it starts at the beginning."""
    breaks = list(_BREAK.finditer(text))
    begins = [0, *(one.end() for one in breaks)]
    ends = [*(one.start() + 1 for one in breaks), len(text)]
    sentences = [text[begin:end] for begin, end in zip(begins, ends, strict=True)]
    found: list[set[str]] = [set() for _ in sentences]
    for begin, _, tokens in _sought(query).places(text):
        found[bisect.bisect_right(begins, begin) - 1] |= tokens
    best, best_value = 0, 0.0
    for start in range(len(sentences)):
        if not found[start]:
            continue
        seen: set[str] = set()
        size = 0
        for sentence, terms in zip(sentences[start:], found[start:], strict=True):
            if size and size + len(sentence) > length:
                break
            size += len(sentence) + 1
            seen |= terms
        value = len(seen) + 0.5 * len(found[start]) - 0.01 * start
        if value > best_value + 1e-9:
            best, best_value = start, value
    return " ".join(sentences[best:]), best == 0
