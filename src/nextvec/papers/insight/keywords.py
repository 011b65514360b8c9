"""Keywords of a paper: phrases of its own text, scored by a few features and chosen so that none repeats another.

    score = 1.10 cosine(phrase, paper) + 0.90 ln(times) + 0.74 share + 1.16 alone - 0.85 title - 0.57 only
            + length(words) + 0.75 capitals + 0.053 characters

``share``: in how many of the papers that have the phrase it stands alone between two breaks; ``alone``: here it does;
``only``: no other paper has it; ``capitals``: a capital after its first letter. The weights are those of a logistic
regression on half of the Daily Papers that have keywords by a language model, with those as what to find;
``benchmarks/papers_keywords.py`` measures on the other half. No model but the site's own encoder is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nextvec.papers.insight.candidates import Candidate, Counts, bucket

__all__ = ["KEPT", "choose", "prior", "shortlist"]

KEPT = 10
"""Keywords of a paper at most."""
_COSINE = 1.10
_WORDS = {1: -1.16, 2: -0.12, 3: -0.79, 4: -2.05}
_SHORTLIST = 40
_SAME = 0.92  # cosine of two phrases that say the same


def prior(one: Candidate, counts: Counts) -> float:
    """The score of a phrase without its embedding."""
    place = bucket(one.key)
    having = max(int(counts.having[place]), 1)
    score = 0.90 * float(np.log(one.times)) + 0.74 * float(counts.alone[place]) / having + 1.16 * one.alone
    score += -0.85 * one.in_title - 0.57 * (having == 1) + _WORDS[one.words]
    return score + 0.75 * any(char.isupper() for char in one.text[1:]) + 0.053 * len(one.text)


def shortlist(found: Sequence[Candidate], counts: Counts) -> list[tuple[float, Candidate]]:
    """The 40 best by ``prior``, with it: only these are embedded."""
    scored = sorted(((prior(one, counts), one) for one in found), key=lambda pair: (-pair[0], pair[1].key))
    return scored[:_SHORTLIST]


def choose(
    listed: Sequence[tuple[float, Candidate]], phrases: NDArray[np.float32], paper: NDArray[np.float32]
) -> list[str]:
    """At most ten keywords, the best first, as the paper writes them.

    ``phrases`` float32 [n, D] of ``listed``, ``paper`` float32 [D], all of unit length. A phrase that is part of a
    better one, holds one, or says nearly the same is passed over.
    """
    scores = np.array([score for score, _ in listed]) + _COSINE * (phrases @ paper)
    kept: list[int] = []
    for place in np.lexsort((np.arange(len(scores)), -scores)):
        key = f" {listed[place][1].key} "
        others = [f" {listed[one][1].key} " for one in kept]
        if any(key in other or other in key for other in others):
            continue
        if kept and float((phrases[kept] @ phrases[place]).max()) > _SAME:
            continue
        kept.append(int(place))
        if len(kept) == KEPT:
            break
    return [listed[place][1].text for place in kept]
