"""Chained arithmetic with one digit: a start and some operations, one after the other, modulo 10.

    question   3+4*7-2          from left to right, whatever the operation
    steps      3+4=7; 7*7=9; 9-2=7;
    answer     7

Without its steps, the answer needs all of them at once; with them, each is a look-up. Legend: n questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from nextvec.data.reasoning import Chain
from nextvec.data.synthetic.splits import split
from nextvec.types import InputError

__all__ = ["arithmetic", "fresh_split"]


def arithmetic(rng: np.random.Generator, count: int, *, least: int = 3, most: int = 6) -> list[Chain]:
    """``count`` questions of ``least`` to ``most`` operations."""
    if not 1 <= least <= most:
        raise InputError(f"{least} to {most} operations; expected at least 1, and no fewer at most than at least")
    chains = []
    for _ in range(count):
        steps = int(rng.integers(least, most + 1))
        digits = rng.integers(0, 10, size=steps + 1).tolist()
        signs = [("+", "-", "*")[i] for i in rng.integers(0, 3, size=steps)]
        value, written, asked = digits[0], [], str(digits[0])
        for sign, digit in zip(signs, digits[1:], strict=True):
            result = {"+": value + digit, "-": value - digit, "*": value * digit}[sign] % 10
            written.append(f"{value}{sign}{digit}={result};")
            asked += f"{sign}{digit}"
            value = result
        chains.append(Chain(asked, tuple(written), str(value)))
    return chains


def fresh_split(
    seed: int, count: int, tests: int, *, least: int, most: int, before: Sequence[int] = ()
) -> tuple[list[Chain], list[Chain]]:
    """``count`` questions to learn from, and ``tests`` others, none of which is among the former, nor among those of
    the seeds ``before`` (see ``splits.split``)."""
    return split(partial(arithmetic, least=least, most=most), seed, count, tests, before=before)
