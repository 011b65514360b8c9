"""What a model gave on a task, example by example, and what follows: measures, intervals, a comparison of two models.

Everything is a bootstrap over the examples (queries, pairs, texts that are classified or clustered): how sure a figure
is, given that other examples of the same kind might have been asked. What was fitted (a classifier, clusters) is held
fixed, and what training seeds would change is not seen. Two models are resampled together, which takes what is hard
about an example for both out of their difference. Source: Efron 1979; paired over queries, Sakai 2006. Legend: n
examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.evaluate.retrieval import Interval
from nextvec.evaluate.weighted import (
    Statistic,
    class_statistics,
    mean_statistic,
    pair_statistics,
    rank_statistic,
    v_measure_statistic,
)
from nextvec.types import InputError

__all__ = ["KINDS", "SAMPLES", "Difference", "Outcome", "differences", "intervals"]

SAMPLES = 1000
Columns = Mapping[str, NDArray[Any]]

KINDS: dict[str, Callable[[Columns], dict[str, Statistic]]] = {
    "means": lambda columns: {name: mean_statistic(values) for name, values in columns.items()},
    "spearman": lambda columns: {"spearman": rank_statistic(columns["score"], columns["gold"])},
    "classes": lambda columns: class_statistics(columns["predicted"], columns["label"]),
    "clusters": lambda columns: {"v_measure": v_measure_statistic(columns["cluster"], columns["label"])},
    "binary": lambda columns: pair_statistics(columns["score"], columns["label"]),
}
"""From what was kept of each example to the measures: "means" of values per query; "spearman" of score and gold;
"classes" predicted and true; "clusters" and true classes; "binary", a score and whether the two belong together."""
_TRUTH = ("gold", "label")
_CENTRED = ("clusters",)
"""Kinds whose resampled values are shifted to lie around the measure: an example that counts twice makes clusters and
classes look more alike than they are, so resampled v-measures are too high."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """columns: by name [n] each, what was kept of every example; kind: a key of ``KINDS``."""

    kind: str
    columns: Columns

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"no kind of outcome {self.kind!r}; there are {', '.join(KINDS)}")
        sizes = {name: len(values) for name, values in self.columns.items()}
        if len(set(sizes.values())) != 1 or not len(self):
            raise InputError(f"an outcome needs columns of one length, not empty; got {sizes or 'none'}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def statistics(self) -> dict[str, Statistic]:
        """The measures by name, as functions of how often each example counts."""
        return KINDS[self.kind](self.columns)

    def measures(self) -> dict[str, float]:
        """The measures by name."""
        ones = np.ones(len(self))
        return {name: statistic(ones) for name, statistic in self.statistics().items()}


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second with its percentile interval. p: two-sided, twice the share of resamples in which the
    difference is 0 or has the other sign, never 0 since resamples are finite."""

    mean: float
    low: float
    high: float
    p: float

    def as_dict(self) -> dict[str, float]:
        """For JSON, rounded to five digits."""
        return {name: round(getattr(self, name), 5) for name in ("mean", "low", "high", "p")}


def intervals(outcome: Outcome, *, samples: int = SAMPLES, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
    """Every measure with its percentile interval over ``samples`` resamplings of the examples."""
    statistics = outcome.statistics()
    values: dict[str, list[float]] = {name: [] for name in statistics}
    for counts in _resamples(len(outcome), samples, seed):
        for name, statistic in statistics.items():
            values[name].append(statistic(counts))
    found = {}
    for name, mean in outcome.measures().items():
        low, high = _ends(_around(values[name], mean, outcome.kind), level)
        found[name] = Interval(mean, low, high, level)
    return found


def differences(
    first: Outcome, second: Outcome, *, samples: int = SAMPLES, level: float = 0.95, seed: int = 0
) -> dict[str, Difference]:
    """Every measure of ``first`` minus the same of ``second``, both resampled together.

    InputError where they are not outcomes on the same examples: another kind, length, measure or truth.
    """
    if first.kind != second.kind or len(first) != len(second) or set(first.columns) != set(second.columns):
        raise InputError(
            f"{first.kind} of {len(first)} examples and {second.kind} of {len(second)}: compare on the same task"
        )
    for name in _TRUTH:
        if name in first.columns and not np.array_equal(first.columns[name], second.columns[name]):
            raise InputError(f"the two outcomes differ in {name!r}: a comparison needs the same examples")
    ours, theirs = first.statistics(), second.statistics()
    values: dict[str, list[float]] = {name: [] for name in ours}
    for counts in _resamples(len(first), samples, seed):
        for name in ours:
            values[name].append(ours[name](counts) - theirs[name](counts))
    ones = np.ones(len(first))
    found = {}
    for name, resampled in values.items():
        mean = ours[name](ones) - theirs[name](ones)
        drawn = _around(resampled, mean, first.kind)
        tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
        p = min(1.0, 2 * (tail + 1) / (samples + 1))
        found[name] = Difference(mean, *_ends(drawn, level), float(p))
    return found


def _resamples(n: int, samples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    if samples < 1:
        raise InputError(f"samples is {samples}; expected at least 1")
    generator = np.random.default_rng(seed)
    for _ in range(samples):
        yield np.bincount(generator.integers(0, n, n), minlength=n).astype(np.float64)


def _around(values: list[float], mean: float, kind: str) -> NDArray[np.float64]:
    drawn = np.array(values)
    return drawn - (drawn.mean() - mean) if kind in _CENTRED else drawn


def _ends(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
