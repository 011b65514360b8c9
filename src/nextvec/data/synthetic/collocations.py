"""A made language of collocations: pairs and triples of tokens that stand together, chosen by a text's topic, and free
tokens between them.

Legend: n texts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextvec.types import InputError

__all__ = ["collocated"]


def collocated(
    rng: np.random.Generator, count: int, *, tokens: int, collocations: int, topics: int, units: int
) -> tuple[list[list[int]], NDArray[np.int64]]:
    """``count`` texts of ``units`` units and their topics int64 [n]: a unit is one of the topic's collocations (as
    often as not), or a free token, of 1 to ``tokens`` - 1. Which collocations there are does not depend on ``rng``."""
    if tokens < 2 or topics < 1 or collocations < topics:
        raise InputError(
            f"{tokens} tokens, {collocations} collocations, {topics} topics; expected a collocation a topic"
        )
    fixed = np.random.default_rng(2010)
    grams = [fixed.integers(1, tokens, size=int(fixed.integers(2, 4))).tolist() for _ in range(collocations)]
    texts, labels = [], rng.integers(0, topics, size=count)
    for topic in labels.tolist():
        text: list[int] = []
        for _ in range(units):
            if rng.random() < 0.5:
                text += grams[topic + topics * int(rng.integers(collocations // topics))]
            else:
                text.append(int(rng.integers(1, tokens)))
        texts.append(text)
    return texts, labels
