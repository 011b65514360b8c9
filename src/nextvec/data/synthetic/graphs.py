"""Graphs told in sentences: which of two things follows from what was said, in how many steps?

    question   ba is du. le is ko. ba is ri. du is fe. ko is ga. is ba fe or ga?
    steps      ba is du. du is fe.
    answer     fe

An edge says that one noun is another; both candidates are nouns that something leads to, one of them is reached from
the noun that is asked about and the other is not. No word of the question gives the answer away: sentences stand in
random order, nouns are drawn anew for every question, and the graph of the other candidate has a chain of the same
length from a noun of its own. The shape is that of ProsQA ("Training Large Language Models to Reason in a Continuous
Latent Space", arXiv 2412.06769), with fewer and shorter sentences, and one way to everything. Legend: n questions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np

from nextvec.data.reasoning import Chain
from nextvec.data.synthetic.splits import split
from nextvec.types import InputError

__all__ = ["NOUNS", "fresh_split", "graphs"]

NOUNS = tuple(consonant + vowel for consonant in "bdfgklmnprt" for vowel in "aeiou")
"""Invented nouns, as short as can be told apart: models here read bytes."""


def graphs(rng: np.random.Generator, count: int, *, least: int = 2, hops: int = 3, extra: int = 2) -> list[Chain]:
    """``count`` questions whose answer is ``least`` to ``hops`` edges away, with ``extra`` more edges that lead to
    nouns of neither chain. InputError for a path of no edge, or more nouns than there are."""
    if not 1 <= least <= hops or extra < 0 or 2 * (hops + 1) + extra > len(NOUNS):
        raise InputError(
            f"{least} to {hops} hops and {extra} more edges; expected at least 1 hop, no fewer at most than at least, "
            f"and at most {len(NOUNS)} nouns in all"
        )
    return [_question(rng, int(rng.integers(least, hops + 1)), extra) for _ in range(count)]


def _question(rng: np.random.Generator, length: int, extra: int) -> Chain:
    names = [NOUNS[i] for i in rng.choice(len(NOUNS), size=2 * (length + 1) + extra, replace=False)]
    # Two chains that share nothing: from the noun that is asked about to the answer, and one to the other candidate.
    own, other, leaves = names[: length + 1], names[length + 1 : 2 * (length + 1)], names[2 * (length + 1) :]
    edges = [*itertools.pairwise(own), *itertools.pairwise(other)]
    # Branches leave from any noun but the candidates, so that these are never told apart by what follows them.
    begins = [*own[:-1], *other[:-1]]
    edges += [(begins[int(rng.integers(len(begins)))], leaf) for leaf in leaves]
    told = [f"{edges[i][0]} is {edges[i][1]}." for i in rng.permutation(len(edges))]
    first, second = (own[-1], other[-1]) if rng.random() < 0.5 else (other[-1], own[-1])
    steps = tuple(f"{a} is {b}." for a, b in itertools.pairwise(own))
    return Chain(f"{' '.join(told)} is {own[0]} {first} or {second}?", steps, own[-1])


def fresh_split(
    seed: int, count: int, tests: int, *, least: int, hops: int, extra: int, before: Sequence[int] = ()
) -> tuple[list[Chain], list[Chain]]:
    """``count`` questions to learn from, and ``tests`` others, none of which is among the former, nor among those of
    the seeds ``before`` (see ``splits.split``)."""
    return split(partial(graphs, least=least, hops=hops, extra=extra), seed, count, tests, before=before)
