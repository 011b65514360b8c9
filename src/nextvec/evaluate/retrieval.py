"""Retrieval measures from ranks, with bootstrap confidence intervals.

Every query has one or several relevant documents. ``recall@k`` is the share of a query's relevant documents
among the first k; ``mrr@k`` is 1 / rank of the first relevant one (0 beyond k); ``ndcg@k`` uses gains 0 or 1.
Ties in scores are broken by document position. Legend: Q queries, N documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextvec.types import InputError

__all__ = [
    "Interval",
    "bootstrap",
    "dense_ranks",
    "mrr",
    "ndcg",
    "paired_bootstrap",
    "ranks_from_lists",
    "recall",
    "single_relevant",
    "summarise",
]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its percentile interval ``[low, high]`` at ``level``."""

    mean: float
    low: float
    high: float
    level: float = 0.95

    def as_dict(self) -> dict[str, float]:
        """For JSON, rounded to five digits."""
        return {"mean": round(self.mean, 5), "low": round(self.low, 5), "high": round(self.high, 5)}


def dense_ranks(
    queries: NDArray[np.float32], documents: NDArray[np.float32], targets: ArrayLike, *, block: int = 512
) -> NDArray[np.int64]:
    """Rank (from 1) of document ``targets[i]`` for query i by inner product: int64 [Q].

    queries [Q, D], documents [N, D]; scored in blocks of ``block`` queries, so that Q x N is never held
    whole. A document that scores as high and stands earlier counts as ranked before.
    """
    wanted = np.asarray(targets, dtype=np.int64)
    if len(wanted) != len(queries) or queries.shape[1:] != documents.shape[1:]:
        raise InputError(
            f"queries {queries.shape}, documents {documents.shape}, {len(wanted)} targets: one target per query and "
            "one width are needed"
        )
    ranks = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ documents.T
        column = wanted[start : start + block, None]
        own = np.take_along_axis(scores, column, axis=1)
        earlier = np.arange(len(documents))[None, :] < column
        ranks[start : start + block] = 1 + ((scores > own) | ((scores == own) & earlier)).sum(1)
    return ranks


def ranks_from_lists(ranked: Sequence[Sequence[str]], relevant: Sequence[Collection[str]]) -> list[list[int]]:
    """The ranks (from 1, ascending) at which each query's relevant documents stand in its ranked list; those
    that the list lacks are left out."""
    if len(ranked) != len(relevant):
        raise InputError(f"{len(ranked)} ranked lists for {len(relevant)} sets of relevant documents")
    return [
        [place for place, identifier in enumerate(order, 1) if identifier in wanted]
        for order, wanted in zip(ranked, relevant, strict=True)
    ]


def recall(ranks: Sequence[Sequence[int]], counts: ArrayLike, k: int) -> NDArray[np.float64]:
    """Per query, the share of its ``counts[i]`` relevant documents that stand among the first k: [Q]."""
    found = np.array([sum(rank <= k for rank in own) for own in ranks], dtype=np.float64)
    return found / np.maximum(np.asarray(counts, dtype=np.float64), 1)


def mrr(ranks: Sequence[Sequence[int]], k: int) -> NDArray[np.float64]:
    """Per query, 1 / rank of the first relevant document, 0 where none stands among the first k: [Q]."""
    best = [min(own, default=0) for own in ranks]
    return np.array([1 / rank if 0 < rank <= k else 0.0 for rank in best], dtype=np.float64)


def ndcg(ranks: Sequence[Sequence[int]], counts: ArrayLike, k: int) -> NDArray[np.float64]:
    """Per query, discounted cumulative gain over the first k divided by the best possible: [Q]."""
    totals = np.asarray(counts, dtype=np.int64)
    result = np.zeros(len(ranks))
    for i, own in enumerate(ranks):
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(int(totals[i]), k) + 1))
        if ideal:
            result[i] = sum(1 / math.log2(rank + 1) for rank in own if rank <= k) / ideal
    return result


def bootstrap(values: ArrayLike, *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """Mean of ``values`` [Q] and its percentile interval over ``samples`` resamplings of the queries."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data):
        raise InputError(f"bootstrap needs a non-empty list of numbers, got shape {data.shape}")
    generator = np.random.default_rng(seed)
    means = np.array([data[generator.integers(0, len(data), len(data))].mean() for _ in range(samples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(data.mean()), float(low), float(high), level)


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, *, samples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of ``mean(first - second)`` where both were measured on the same queries, in the same order.
    The difference is clear where the interval does not hold 0."""
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise InputError(f"paired values need one shape, got {one.shape} and {two.shape}")
    return bootstrap(one - two, samples=samples, level=level, seed=seed)


def single_relevant(ranks: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Per query recall@1, recall@10, mrr@10 and ndcg@10 where each query has exactly one relevant document,
    at ``ranks`` [Q] (from 1)."""
    place = np.asarray(ranks, dtype=np.float64)
    top = place <= 10
    return {
        "recall@1": (place <= 1).astype(np.float64),
        "recall@10": top.astype(np.float64),
        "mrr@10": np.where(top, 1 / place, 0.0),
        "ndcg@10": np.where(top, 1 / np.log2(place + 1), 0.0),
    }


def summarise(
    values: dict[str, NDArray[np.float64]], *, interval: Callable[[NDArray[np.float64]], Interval] = bootstrap
) -> dict[str, dict[str, float]]:
    """Mean and interval of every measure, for JSON."""
    return {name: interval(data).as_dict() for name, data in values.items()}
