"""One line that says what a paper does: a sentence of its abstract, shortened where a clause ends.

    score(sentence) = cosine(sentence, abstract) + 0.12 announces - 0.10 opening - 0.10 |place - 0.4|

``place`` runs from 0 (the first sentence) to 1 (the last); ``announces``: it says "we propose", "this paper introduces"
and the like; ``opening``: it is the first of several, which tells the background. The cosine is the centrality: how
much of the whole abstract the sentence carries.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["LONGEST", "choose", "shorten"]

LONGEST = 190
_SHORTEST = 70
_ANNOUNCES = re.compile(
    r"\b(?:we|this (?:paper|work|study|report|survey)|our (?:paper|work|approach|method))\s+(?:also\s+|then\s+|"
    r"first\s+|further\s+|thus\s+|therefore\s+)?(?:propose|introduce|present|develop|design|describe|build|release|study|"
    r"investigate|explore|show|demonstrate|argue|construct|create|revisit|unveil|formulate|establish|examine)s?\b",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"\b(?:propose|introduce|present|develop|release|unveil)s?\b[^,.;]{0,60}?\b[A-Z][\w-]*[A-Z0-9][\w-]*"
)
_LEAD = re.compile(
    r"^(?:(?:In (?:this|our) (?:paper|work|study|report|survey)|In response|To [a-z]+|Therefore|Thus|Hence|However|"
    r"Moreover|Furthermore|Additionally|Specifically|Here|Finally|Accordingly|Consequently|First|Motivated|Inspired|"
    r"Building on|Based on|Given|Drawing)\b.{0,240}?,\s+(?=(?:we|this (?:paper|work|study)|our [a-z]+)\s))"
)
_ADVERB = re.compile(r"^(We|This (?:paper|work|study)) (?:then|thus|therefore|also|first|further|hence|next|finally) ")
_CLAUSE = re.compile(
    r"(?:;|\s[—–-]\s|:|,)\s+(?=which|where|while|whereas|that|thereby|thus|enabling|allowing|achieving|leading|making|"
    r"without|and |but |by |with |using |outperforming|demonstrating|showing|providing|improving|reducing|including|"
    r"such as)"
    r"|;\s+|\s[—–]\s|:\s+|,\s+"
)


def choose(found: Sequence[str], vectors: NDArray[np.float32], abstract: NDArray[np.float32]) -> int:
    """Which of n sentences says it best. ``vectors`` float32 [n, D], ``abstract`` float32 [D], unit length."""
    count = len(found)
    place = np.arange(count) / max(count - 1, 1)
    announces = np.array([_announces(sentence) for sentence in found])
    scores = vectors @ abstract + 0.12 * announces - 0.10 * np.abs(place - 0.4)
    if count > 2:
        scores[0] -= 0.10 * (announces[0] == 0)
    # What is much too short or too long for a line says too little, or has to be cut too much.
    lengths = np.array([len(sentence) for sentence in found])
    scores -= 0.2 * (lengths < 45) + 0.05 * (lengths > 2 * LONGEST)
    return int(np.argmax(scores))


def _announces(sentence: str) -> float:
    return 1.0 * bool(_ANNOUNCES.search(sentence)) + 0.5 * bool(_NAMED.search(sentence))


def shorten(sentence: str, longest: int = LONGEST) -> str:
    """At most ``longest`` characters: without the clause that leads in, cut where a clause ends, else between words."""
    text = _LEAD.sub("", sentence)
    text = _ADVERB.sub(r"\1 ", text[:1].upper() + text[1:])
    if len(text) <= longest:
        return text
    ends = [match.start() for match in _CLAUSE.finditer(text) if _SHORTEST <= match.start() < longest]
    if ends:
        cut = text[: ends[-1]]
        if cut.count("(") == cut.count(")"):
            return cut.rstrip(" ,;:—–-") + " …"
    return text[: longest - 2].rsplit(" ", 1)[0].rstrip(" ,;:—–-(") + " …"
