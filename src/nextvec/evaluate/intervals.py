"""Student's t intervals of a mean over few runs (seeds), and the signed-rank test. Pure Python: what is measured n
times, n small.

Legend: n values, df = n - 1 degrees of freedom. For measures over many queries see ``retrieval.bootstrap``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nextvec.evaluate.retrieval import Interval
from nextvec.types import InputError

__all__ = ["holm", "paired_t_interval", "signed_rank_p", "t_interval", "t_quantile"]

_DECIMALS = 12
"""Differences are rounded to so many decimals: 0.3 - 0.2 and 0.2 - 0.1 are the same to everyone but the processor."""


def t_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """The mean of n values with its t interval: mean +- t * s / sqrt(n), s with n - 1 in the denominator.

    One value has no interval: the ends are minus and plus infinity. Equal values have one of width 0.
    """
    n = len(values)
    if not n or not all(math.isfinite(value) for value in values):
        raise InputError(f"an interval needs one or more finite numbers, got {list(values)}")
    if n == 1:
        return Interval(float(values[0]), -math.inf, math.inf, level)
    if min(values) == max(values):
        # Summing equal numbers may leave a last digit that would pass for a spread.
        return Interval(float(values[0]), float(values[0]), float(values[0]), level)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = t_quantile((1 + level) / 2, n - 1) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half, level)


def paired_t_interval(first: Sequence[float], second: Sequence[float], *, level: float = 0.95) -> Interval:
    """The t interval of ``mean(first - second)`` where both were measured with the same seeds, in the same order."""
    if len(first) != len(second):
        raise InputError(f"paired values need one length, got {len(first)} and {len(second)}")
    return t_interval([round(one - two, _DECIMALS) for one, two in zip(first, second, strict=True)], level=level)


def t_quantile(p: float, df: int) -> float:
    """The t for which P(T <= t) = p, T of Student's distribution with ``df`` degrees of freedom (an integer)."""
    if not 0 < p < 1 or df < 1:
        raise InputError(f"t_quantile needs 0 < p < 1 and df >= 1, got p={p}, df={df}")
    if p < 0.5:
        return -t_quantile(1 - p, df)
    inside = 2 * p - 1
    low, high = 0.0, 1.0
    while _probability_within(high, df) < inside:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        if _probability_within(middle, df) < inside:
            low = middle
        else:
            high = middle
    return high


def _probability_within(t: float, df: int) -> float:
    """P(|T| <= t) as the finite sum that integer degrees of freedom allow (Abramowitz & Stegun 26.7.3, 26.7.4)."""
    angle = math.atan2(t, math.sqrt(df))
    cosine_squared = df / (df + t * t)
    odd = df % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(odd, df - 1, 2):
        total += term
        term *= cosine_squared * (k + 1) / (k + 2)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def signed_rank_p(differences: Sequence[float]) -> float:
    """The two-sided p of Wilcoxon's signed-rank test that ``differences`` lie about 0, exact for any ties.

    Zeros are left out; where nothing else is there, 1. The smallest p of n differences is 2 / 2**n.
    """
    if not all(math.isfinite(value) for value in differences):
        raise InputError(f"a test needs finite numbers, got {list(differences)}")
    values = sorted((round(value, _DECIMALS) for value in differences if round(value, _DECIMALS)), key=abs)
    sizes = [abs(value) for value in values]
    # Twice the rank, a whole number where equal sizes share the mean of their ranks.
    ranks = [sizes.index(size) + 1 + len(sizes) - sizes[::-1].index(size) for size in sizes]
    total = sum(ranks)
    ways = [1] + [0] * total  # of the sums of ranks that random signs give
    for rank in ranks:
        ways = [count + (ways[i - rank] if i >= rank else 0) for i, count in enumerate(ways)]
    positive = sum(rank for rank, value in zip(ranks, values, strict=True) if value > 0)
    least = min(positive, total - positive)
    return min(1.0, 2.0 * sum(ways[: least + 1]) / float(2 ** len(ranks)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p of a family of tests, in the order given: reject where it is at most the level."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = highest
    return adjusted
