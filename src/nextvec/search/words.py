"""Words: a tokenizer in a few documented rules, shared by every search by words.

Unicode is folded (NFKD, accents dropped, lower case); a word is a run of letters and digits that may hold
inner hyphens, dots or apostrophes. ``GPT-4o`` gives ``gpt``, ``4o`` and ``gpt4o``, so that GPT-4o, GPT 4o and gpt4o
find each other; ``v1.5`` stays whole, ``github.com`` is split; ``model's`` and ``models`` give ``model``
(plural endings only, no other stemming: meaning is the other half's work). Frequent function words are dropped.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import chain

__all__ = ["RULES", "STOP_WORDS", "WORD", "Numbering", "tokenize", "tokens_of"]

RULES = 1
"""Number of the rules above: what was indexed under other ones is made again."""

_STOP = """
a about also an and are as at be been but by can do does for from had has have how however i if in into
is it its many may more most no not of on only or other our over same such than that the their them then
there these they this those through to under until up use used using very via was we were what when where
which while who why will with within without would you your
"""
STOP_WORDS = frozenset(_STOP.split())

WORD = re.compile(r"[^\W_]+(?:[-.'’][^\W_]+)*\+*")


def tokenize(text: str) -> list[str]:
    """The tokens of ``text``, in order, by the rules above."""
    return [token for word in WORD.findall(text) for token in tokens_of(word)]


@lru_cache(maxsize=200_000)
def tokens_of(word: str) -> tuple[str, ...]:
    """The tokens of one match of ``WORD``."""
    folded = word.lower()
    if not folded.isascii():
        folded = unicodedata.normalize("NFKD", folded).replace("’", "'")
        folded = "".join(char for char in folded if not unicodedata.combining(char))
    if "'" in folded:
        folded = folded.removesuffix("'s").replace("'", "")
    if not folded or folded in STOP_WORDS:
        return ()
    if folded.isalpha():
        return (_singular(folded),)
    parts = []
    for piece in folded.split("-"):
        dotted = "." in piece and not any(char.isdigit() for char in piece)
        parts += piece.split(".") if dotted else [piece]
    tokens = [_singular(part) for part in parts if part and part not in STOP_WORDS]
    if "-" in folded:
        tokens.append(_singular(folded.replace("-", "")))
    return tuple(dict.fromkeys(tokens))


def _singular(word: str) -> str:
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")) or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses", "zzes")):
        return word[:-2]
    return word[:-1]


class Numbering(dict[str, list[int]]):
    """word -> token numbers, worked out at the first sight of a word: most words of a corpus are repeats."""

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}

    def __missing__(self, word: str) -> list[int]:
        vocabulary = self.vocabulary
        numbers = [vocabulary.setdefault(token, len(vocabulary)) for token in tokens_of(word)]
        self[word] = numbers
        return numbers

    def of(self, text: str) -> list[int]:
        """The token numbers of ``text``, in order."""
        return list(chain.from_iterable(map(self.__getitem__, WORD.findall(text))))
