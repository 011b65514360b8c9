"""A made language of collocations: pairs of tokens that stand together, chosen by a text's topic, and free tokens
between them.

All topics draw on one pool of tokens, which each of them pairs in its own way: every topic has every token as often as
any other, so that what a text is about is in which tokens stand together, and not in which there are. A text draws on
a few of its topic's pairs and repeats them, as texts repeat their terms: a hidden one can be told from the rest.

Legend: n texts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextvec.types import InputError

__all__ = ["collocated", "pairings"]

Pair = tuple[int, int]


def pairings(*, tokens: int, collocations: int, topics: int) -> list[list[Pair]]:
    """The pairs of every topic, ``collocations`` in all and no two the same: of 1 to ``tokens`` - 1, the pool is as
    many as a topic's pairs hold. Nothing here is drawn anew: the same numbers give the same language."""
    each = collocations // max(topics, 1)
    if topics < 1 or each < topics or each * topics != collocations or tokens - 1 < 2 * each:
        raise InputError(
            f"{tokens} tokens, {collocations} collocations, {topics} topics; expected as many collocations for every"
            " topic, at least as many as there are topics, and two tokens for each of a topic's"
        )
    fixed = np.random.default_rng(2010)
    pool = fixed.choice(np.arange(1, tokens), size=2 * each, replace=False)
    taken: set[Pair] = set()
    made: list[list[Pair]] = []
    for _ in range(topics):
        first, second = fixed.permutation(pool).reshape(2, each).tolist()
        while clash := [i for i, pair in enumerate(zip(first, second, strict=True)) if pair in taken]:
            i, j = clash[0], int(fixed.integers(each))
            second[i], second[j] = second[j], second[i]
        made.append(list(zip(first, second, strict=True)))
        taken.update(made[-1])
    return made


def collocated(
    rng: np.random.Generator, count: int, *, tokens: int, collocations: int, topics: int, units: int, terms: int
) -> tuple[list[list[int]], NDArray[np.int64]]:
    """``count`` texts of ``units`` units and their topics int64 [n]: a unit is one of the text's ``terms``, which are
    pairs of its topic (as often as not), or a free token, of 1 to ``tokens`` - 1. The pairs are those of ``pairings``,
    whatever ``rng`` is. InputError as there, and where a topic has fewer pairs than ``terms``."""
    pairs = pairings(tokens=tokens, collocations=collocations, topics=topics)
    if not 1 <= terms <= len(pairs[0]):
        raise InputError(f"terms is {terms}; expected 1 to the {len(pairs[0])} pairs of a topic")
    texts, labels = [], rng.integers(0, topics, size=count)
    for topic in labels.tolist():
        text: list[int] = []
        own = rng.choice(pairs[topic], size=terms, replace=False).tolist()
        for _ in range(units):
            if rng.random() < 0.5:
                text += own[int(rng.integers(terms))]
            else:
                text.append(int(rng.integers(1, tokens)))
        texts.append(text)
    return texts, labels
