"""Questions to learn from and others to measure on, both drawn at random, of which none is among the former."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nextvec.data.reasoning import Chain
from nextvec.types import InputError

__all__ = ["Draw", "split"]

Draw = Callable[[np.random.Generator, int], list[Chain]]
"""A generator of random numbers and a count, to so many questions."""


def split(
    draw: Draw, seed: int, count: int, tests: int, *, before: Sequence[int] = ()
) -> tuple[list[Chain], list[Chain]]:
    """``count`` questions to learn from, and ``tests`` others, none of which is among the former.

    before: other seeds whose ``count`` questions are not among the tests either, because the model that is measured
    began with weights that have learned from those. InputError where so many new ones are not found.
    """
    learned = draw(np.random.default_rng([seed, 0]), count)
    known = {chain.question for chain in learned}
    for other in set(before) - {seed}:
        known |= {chain.question for chain in draw(np.random.default_rng([other, 0]), count)}
    drawn = draw(np.random.default_rng([seed, 1]), 20 * tests)
    fresh = [chain for chain in drawn if chain.question not in known][:tests]
    if len(fresh) < tests:
        raise InputError(f"only {len(fresh)} of {tests} questions are new: ask longer ones")
    return learned, fresh
