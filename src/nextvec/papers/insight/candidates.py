"""Phrases of an abstract that may be keywords: runs of words between little words, verbs of reporting and punctuation.

A phrase is compared by its normal form (lower case, no accents, singular, hyphens as spaces), and shown as the abstract
writes it first. How many papers have a phrase, and in how many of them it stands alone between two breaks, is counted
over the collection in a fixed number of buckets: two phrases may share one, which makes a rare one look less rare.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextvec.search.words import STOP_WORDS, tokens_of

__all__ = ["BUCKETS", "Candidate", "Counts", "candidates", "count", "normal_form"]

BUCKETS = 1 << 21
LONGEST = 4
_WORD = re.compile(r"[^\W_]+(?:[-.'’/+][^\W_]+)*\+*")
_BREAK = """
ability able achieve achieved achieves achieving across additional address addressed addresses addressing adopt
adopting aim aiming aims al all allow allowing allows already although among analysis analyze analyzing any applied
apply applying approach approaches around art arxiv aspect author available based because become becomes becoming been
before being best better beyond both bring bringing broad build building builds called capable case cases challenge
challenges challenging code com common comparable compare compared comparing complex comprehensive comprise comprises
comprising conduct conducted consider considerable considering consist consistent consistently consists contain
containing contrast contribute contribution contributions could crucial current currently data dataset datasets
decrease decreases define demonstrate demonstrated demonstrates demonstrating depend deploy design designed designing
despite develop developed developing development difference different difficult directly discover diverse due during
each easily effect effective effectively effectiveness efficiency efficient efficiently eg either emerge emerged
emerging employ employing employs enable enabled enables enabling encourage enhance enhanced enhances enhancing ensure
ensures ensuring entire especially establish establishing et etc evaluate evaluated evaluating evaluation even every
evidence examine example excel execute executes exhibit exhibits existing experiment experimental experiments
explicitly explore explored exploring extend extends extensible extensive extract face faces facilitate facilitating
failing fails few fewer figure finally find finding findings finds first five focus focuses focusing following
formulate formulates four framework frameworks full fully fundamental further furthermore future gain gains gap gaps
generalize generally generate generated generates generating github give given gives goal good great greater greatly
hard help helps hence here high higher highlight highlighting highlights highly http https identified identify
identifying ie impact implement important impressive improve improved improvement improvements improves improving
include includes including incorporate incorporates incorporating increase increased increases increasing increasingly
indicate initial input inputs insight insights inspire inspired instead integrate integrated integrates integrating
introduce introduced introduces introducing investigate investigating involve involves involving issue issues itself
just keep key known lack lacks large-scale largely largest last later lead leading leads learn learned learning-based
less leverage leveraged leverages leveraging like limit limitation limitations limited limiting limits little long-
standing lower made main mainly mainstream maintain maintaining maintains make makes making many mean meaningful means
meanwhile measure method methods most much multiple must naive name named namely nearly necessary need needed needs
nevertheless new newly next notable notably novel number observe observed obtain obtained offer offering offers often
one open-source operate order original others outperform outperforming outperforms output outputs overall overcome
overcomes own paper part particular particularly perform performance performing performs play plays poor possible
potential practical present presented presents preserve preserving previous previously primarily prior problem
problems process produce produces producing promise promising prone propose proposed proposes proposing prove provide
provided provides providing publicly raise raises rather reach reaches real real-world recent recently reduce reduced
reduces reducing relies rely relying remain remains remarkable remarkably repair require required requires requiring
research result resulting results reveal revealing reveals review same scenario scenarios second seek seen serve
serves several severe show showing shown shows significant significantly similar simple simply since single six small
solution solutions solve solving some specific specifically standard state state-of-the-art still strategies strategy
strong struggle struggles studied studies study subsequent substantial substantially successfully suffer suffers
suggest suggesting suggests superior support supports surpass surpasses surpassing systematic systematically take
taking task task-specific tasks tend term terms test therefore think third three thus together toward towards train
trained training trains treat two type types typically unclear under understand unified unique unlike up used useful
user-friendly utilize utilizes utilizing validate validates validating valuable various verify versus via way ways
well what-if whether whose wide widely work works world-class www yet yield yielding yields
"""
_BREAKS = frozenset(_BREAK.split())
"""Words that end a phrase: what abstracts say about their own work rather than what it is about."""
_INSIDE = "code data efficiency efficient evaluation generated open-source state task tasks test training use world"
_KEPT_INSIDE = frozenset(_INSIDE.split())
"""Breaks that are part of a phrase where another word stands beside them (training data, world model)."""


@dataclass(slots=True)
class Candidate:
    """A phrase of one text. ``key``: its normal form; ``first``: how far in it begins (0 to 1); ``alone``: it stood
    between two breaks at least once."""

    key: str
    text: str
    words: int
    times: int = 0
    first: float = 1.0
    in_title: bool = False
    alone: bool = False


class _Traits(NamedTuple):
    """What a word may be. ``kind`` 0: ends a phrase, 1: is in one only beside others, 2: is a word of one."""

    kind: int
    normal: str
    alone: bool
    begins: bool
    ends: bool


@lru_cache(maxsize=200_000)
def _traits(word: str) -> _Traits:
    lower = word.lower()
    pieces = re.split(r"[-/]", word)
    normal = " ".join((tokens_of(piece) or (piece.lower(),))[0] for piece in pieces)
    kind = 2 if any(char.isalpha() for char in word) else 0
    if lower in STOP_WORDS or (len(word) == 1 and not word.isupper()) or ("." in word and "/" in word):
        kind = 0
    elif lower in _BREAKS:
        kind = 1 if lower in _KEPT_INSIDE else 0
    adverb = lower.endswith("ly")
    adjective = lower.endswith(("able", "ible", "ous", "ful", "less"))
    alone = kind == 2 and not adverb and (len(word) > 2 or (len(word) == 2 and word.isupper()))
    return _Traits(kind, normal, alone, not adverb, not adverb and not adjective)


def _runs(text: str) -> Iterator[list[tuple[str, _Traits, int]]]:
    """Runs of words without a break, each with its traits and its place in the text, in characters."""
    run: list[tuple[str, _Traits, int]] = []
    end = 0
    for match in _WORD.finditer(text):
        start = match.start()
        if run and (start - end != 1 or text[end] != " "):
            yield run
            run = []
        end = match.end()
        word = match.group()
        traits = _traits(word)
        if traits.kind:
            run.append((word, traits, start))
        elif run:
            yield run
            run = []
    if run:
        yield run


def candidates(title: str, abstract: str) -> list[Candidate]:
    """The phrases of one to four words of a paper, each once. Both texts are plain (no LaTeX)."""
    found: dict[str, Candidate] = {}
    for run in _runs(abstract):
        _add(run, found, in_title=False, total=len(abstract))
    for run in _runs(title):
        _add(run, found, in_title=True, total=1)
    return list(found.values())


def _add(run: list[tuple[str, _Traits, int]], found: dict[str, Candidate], *, in_title: bool, total: int) -> None:
    size = len(run)
    for start in range(size):
        first = run[start][1]
        if not first.begins:
            continue
        key, text, meant = "", "", False
        for end in range(start, min(start + LONGEST, size)):
            word, traits, _ = run[end]
            key = f"{key} {traits.normal}" if key else traits.normal
            text = f"{text} {word}" if text else word
            meant = meant or traits.kind == 2
            if not (traits.alone if end == start else traits.ends and meant):
                continue
            one = found.get(key)
            if one is None:
                one = found[key] = Candidate(key, text, end - start + 1)
                if not in_title:
                    one.first = run[start][2] / total
            one.times += 1
            if in_title:
                one.in_title = True
            if end - start + 1 == size:
                one.alone = True


def bucket(key: str) -> int:
    """The place of a phrase in the counts."""
    return zlib.crc32(key.encode()) & (BUCKETS - 1)


@dataclass(slots=True)
class Counts:
    """Over ``papers`` papers: int32 [BUCKETS] how many have a phrase, and in how many of them it stands alone."""

    papers: int
    having: NDArray[np.int32]
    alone: NDArray[np.int32]


def count(papers: Iterable[list[Candidate]]) -> Counts:
    """The counts of a collection, from the candidates of each of its papers."""
    counts = Counts(0, np.zeros(BUCKETS, np.int32), np.zeros(BUCKETS, np.int32))
    for found in papers:
        add(counts, found)
    return counts


def add(counts: Counts, found: list[Candidate]) -> None:
    """Count one more paper."""
    counts.papers += 1
    places = np.fromiter((bucket(one.key) for one in found), np.int64, len(found))
    alone = np.fromiter((one.alone for one in found), bool, len(found))
    np.add.at(counts.having, places, 1)
    np.add.at(counts.alone, places[alone], 1)


def normal_form(phrase: str) -> str:
    """How a phrase is compared."""
    return " ".join(_traits(word).normal for word in _WORD.findall(phrase))
