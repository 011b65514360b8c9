"""When two titles belong to one paper, although no id says so.

Two papers are one where their authors agree and their titles are equal up to case, accents, punctuation and mark-up,
or nearly equal (one or two words changed between a preprint and its publication). Titles alone are never enough where
both sides name authors: "Introduction" and "Overview of the shared task" are titles of many papers.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher

from nextvec.papers.authors import fold as fold_name
from nextvec.papers.markup import plain

__all__ = ["CLOSE", "Known", "fold", "likeness", "people", "same"]

CLOSE = 0.8
"""The likeness from which on titles are nearly equal. Measured by ``benchmarks/papers_merging.py``."""
YEARS_APART = 3
_LONGEST = 300
_TWIN = 0.7  # two spellings of a word share most of their letters
_WORDS = 3  # a shorter title says too little to be nearly equal to another, or to be equal without authors


def fold(title: str) -> str:
    """A title as its words in lower case without accents, punctuation and mark-up, at most 300 characters."""
    text = title if title.isascii() and not re.search(r"[\\$^_{}*`~]", title) else plain(title)
    letters = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(char for char in letters if not unicodedata.combining(char))
    return " ".join(re.findall(r"[^\W_]+", kept))[:_LONGEST].rstrip()


def people(authors: tuple[str, ...] | list[str]) -> frozenset[tuple[str, str]]:
    """(last name, first letter) of each author: what ``Y. Bengio`` and ``Yoshua Bengio`` have in common."""
    found = set()
    for name in authors:
        if "," in name:
            last, _, first = name.partition(",")
            name = f"{first} {last}"
        words = re.findall(r"[^\W_]+", fold_name(name))
        if words:
            found.add((words[-1], words[0][0]))
    return frozenset(found)


def likeness(one: str, other: str) -> float:
    """The words that two folded titles share, of all that they have (Jaccard over words with their counts): 0 to 1."""
    first, second = Counter(one.split()), Counter(other.split())
    whole = (first | second).total()
    return (first & second).total() / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class Known:
    """What is compared of a paper. ``title``: folded; ``year``: None where it is not known."""

    title: str
    people: frozenset[tuple[str, str]]
    year: int | None


def same(one: Known, other: Known, *, close: float = CLOSE) -> bool:
    """Whether two descriptions are of one paper."""
    if one.year and other.year and abs(one.year - other.year) > YEARS_APART:
        return False
    long = min(len(one.title.split()), len(other.title.split())) >= _WORDS
    if not one.people or not other.people:
        return one.title == other.title and long
    shared = len(one.people & other.people)
    if one.title == other.title:
        return shared >= 1
    # Part two, and version two with one digit changed, share everything but that digit.
    if _numbers(one.title) != _numbers(other.title) or not long:
        return False
    fewest = min(len(one.people), len(other.people))
    return 2 * shared >= fewest and likeness(one.title, other.title) >= close and not _swapped(one.title, other.title)


def _swapped(one: str, other: str) -> bool:
    """Whether a word stands in place of quite another one: ``Nemotron Nano`` is not ``Nemotron Super``, though a word
    that was added, or written otherwise (model, models), changes nothing."""
    first, second = Counter(one.split()), Counter(other.split())
    mine, theirs = first - second, second - first
    if not mine or not theirs:
        return False
    few, many = sorted((mine, theirs), key=len)
    return not all(any(SequenceMatcher(None, word, twin).ratio() >= _TWIN for twin in many) for word in few)


def _numbers(title: str) -> list[str]:
    return sorted(word for word in title.split() if any(char.isdigit() for char in word))
