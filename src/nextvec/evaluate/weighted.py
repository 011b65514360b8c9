"""Measures as functions of how often each example counts, so that resampling never touches the examples again.

A bootstrap sample of n examples is n counts that add up to n. A statistic is made once from the examples (what can be
sorted is sorted then) and gives its value for any such counts; ones give the measure itself. Legend: n examples, K
classes, w float64 [n] counts, not negative, with a sum above 0.

Sources: average precision and best thresholds as in sentence-transformers' BinaryClassificationEvaluator;
v-measure, Rosenberg and Hirschberg 2007; macro F1, the mean of the classes' F1 (Opitz and Burst, arXiv 1911.03347).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextvec.types import InputError

__all__ = [
    "Statistic",
    "class_statistics",
    "mean_statistic",
    "pair_statistics",
    "rank_statistic",
    "v_measure_statistic",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Callable[[Floats], float]
"""From the counts w [n] to the measure's value."""


def mean_statistic(values: ArrayLike) -> Statistic:
    """The mean of ``values`` [n]."""
    data = _finite(values)
    return lambda w: float(w @ data / w.sum())


def rank_statistic(first: ArrayLike, second: ArrayLike) -> Statistic:
    """Spearman's rank correlation of two lists [n]: equal values share the mean of their ranks.

    0 where a list, as counted, has no two different values: there is no order to agree with.
    """
    one, two = (np.unique(_finite(values), return_inverse=True)[1] for values in (first, second))
    if len(one) != len(two):
        raise InputError(f"a rank correlation needs two lists of one length, got {len(one)} and {len(two)}")

    def value(w: Floats) -> float:
        x, y = _ranks(one, w), _ranks(two, w)
        total = w.sum()
        x, y = x - w @ x / total, y - w @ y / total
        spread = np.sqrt((w @ (x * x)) * (w @ (y * y)))
        return float(w @ (x * y) / spread) if spread > 1e-9 * total else 0.0

    return value


def _ranks(which: NDArray[np.intp], w: Floats) -> Floats:
    """Rank of every example among the counted ones; ``which``: the number of its value in ascending order."""
    counts = np.bincount(which, weights=w)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return ranks


def class_statistics(predicted: ArrayLike, labels: ArrayLike) -> dict[str, Statistic]:
    """ "accuracy" and "f1" (macro) of predicted classes and true ones, both int [n], from 0.

    The mean of F1 is over the classes that are counted at all, as predicted or true ones.
    """
    table, size = _crossed(labels, predicted)
    right = (np.asarray(predicted) == np.asarray(labels)).astype(np.float64)

    def f1(w: Floats) -> float:
        counts = np.bincount(table, weights=w, minlength=size * size).reshape(size, size)
        both = counts.sum(0) + counts.sum(1)
        seen = both > 0
        return float((2 * np.diag(counts)[seen] / both[seen]).mean())

    return {"accuracy": mean_statistic(right), "f1": f1}


def v_measure_statistic(clusters: ArrayLike, labels: ArrayLike) -> Statistic:
    """The harmonic mean of homogeneity (a cluster holds one class) and completeness (a class lies in one cluster) of
    clusters and labels, both int [n], from 0."""
    table, size = _crossed(labels, clusters)

    def value(w: Floats) -> float:
        shares = np.bincount(table, weights=w, minlength=size * size).reshape(size, size) / w.sum()
        classes, groups, joint = (_entropy(part) for part in (shares.sum(1), shares.sum(0), shares))
        homogeneity = 1 - (joint - groups) / classes if classes > 1e-12 else 1.0
        completeness = 1 - (joint - classes) / groups if groups > 1e-12 else 1.0
        both = homogeneity + completeness
        return float(2 * homogeneity * completeness / both) if both > 1e-12 else 0.0

    return value


def _entropy(shares: Floats) -> float:
    held = shares[shares > 0]
    return float(-(held * np.log(held)).sum())


def pair_statistics(scores: ArrayLike, labels: ArrayLike) -> dict[str, Statistic]:
    """Of scores [n] (the higher, the more alike) and labels bool [n] (belong together or not): "ap", the average
    precision, and the "accuracy" and "f1" of the best threshold for each.

    A threshold stands between two different scores, so equal scores are decided alike. InputError where all labels
    are equal.
    """
    values, truth = _finite(scores), np.asarray(labels).astype(np.float64)
    if len(values) != len(truth) or not 0 < truth.sum() < len(truth):
        raise InputError(f"{len(values)} scores and {len(truth)} labels; expected one length, and labels of both kinds")
    order = np.argsort(-values, kind="stable")
    truth = truth[order]
    last = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)  # of each run of equal scores

    def counted(w: Floats) -> tuple[Floats, Floats]:
        """At every threshold: pairs above it that belong together, and all pairs above it."""
        own = w[order]
        return np.cumsum(own * truth)[last], np.cumsum(own)[last]

    def precision(w: Floats) -> float:
        hits, above = counted(w)
        gained = np.diff(hits, prepend=0.0)
        held = gained > 0
        return float((gained[held] * hits[held] / above[held]).sum() / hits[-1]) if hits[-1] > 0 else 0.0

    def accuracy(w: Floats) -> float:
        hits, above = counted(w)
        right = hits + (above[-1] - hits[-1]) - (above - hits)
        return float(_between(right, above).max() / above[-1])

    def f1(w: Floats) -> float:
        hits, above = counted(w)
        return float(_between(2 * hits / np.maximum(above + hits[-1], 1e-300), above).max())

    return {"ap": precision, "accuracy": accuracy, "f1": f1}


def _between(values: Floats, above: Floats) -> Floats:
    """The values at thresholds that leave something on both sides; at the last one where there is none such."""
    inner = values[(above > 0) & (above < above[-1])]
    return inner if len(inner) else values[-1:]


def _crossed(labels: ArrayLike, others: ArrayLike) -> tuple[Ints, int]:
    """Per example label * size + other, and size, one more than the greatest number in either."""
    one, two = np.asarray(labels, dtype=np.int64), np.asarray(others, dtype=np.int64)
    if one.ndim != 1 or one.shape != two.shape or not len(one) or min(one.min(), two.min()) < 0:
        raise InputError(f"classes of shapes {one.shape} and {two.shape}; expected two lists of one length, from 0")
    size = int(max(one.max(), two.max())) + 1
    return one * size + two, size


def _finite(values: ArrayLike) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data) or not np.isfinite(data).all():
        raise InputError(f"a measure needs a list of finite numbers, got shape {data.shape} (NaN, infinity or nothing)")
    return data
