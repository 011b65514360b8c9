"""Rankings: the rows that can be hits of one query, best first, worked out only as far as somebody asks.

A ranking never changes, so that what it gave for few rows is the beginning of what it gives for many: pages, ranges,
groups and diversity are all built on that. Safe to share between threads. Shapes: n rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nextvec.search.fusion import Ranked
from nextvec.search.indexes.exact import Found

__all__ = ["POOL", "Above", "Diverse", "Listed", "Ranking", "Searched", "everything", "mmr"]

POOL = 256
"""Rows that diversity reorders."""
_FIRST = 1_024


class Ranking(Protocol):
    """``plan``, ``reranked`` and ``told``: how it was found, as of ``Found``."""

    @property
    def plan(self) -> str: ...
    @property
    def reranked(self) -> int: ...
    @property
    def told(self) -> Mapping[str, Any] | None: ...
    def first(self, n: int) -> Ranked:
        """The n best rows, or all where there are fewer."""
        ...

    def more_than(self, n: int) -> bool:
        """Whether there are more than n rows."""
        ...


class Searched:
    """Rows by an index: ``find(n)`` searches for the n best of ``total``; ``found`` is what it gave already."""

    def __init__(self, find: Callable[[int], Found], total: int, found: Found) -> None:
        self._find = find
        self._total = total
        self._found = found
        self._lock = threading.Lock()

    @property
    def plan(self) -> str:
        return self._found.plan

    @property
    def reranked(self) -> int:
        return self._found.reranked

    @property
    def told(self) -> Mapping[str, Any] | None:
        return self._found.told

    def first(self, n: int) -> Ranked:
        with self._lock:
            have = len(self._found.rows)
            if have < min(n, self._total):
                # At least twice as far as before: pages that follow one another cost no more than one long search.
                self._found = self._find(min(max(n, 2 * have), self._total))
            return self._found.rows[:n], self._found.scores[:n]

    def more_than(self, n: int) -> bool:
        return self._total > n


class Listed:
    """Rows whose scores are all known: rows int64 [n], ascending, scores float32 [n]. Sorted as far as needed."""

    def __init__(self, rows: NDArray[np.int64], scores: NDArray[np.float32], plan: str, reranked: int = 0) -> None:
        self.plan = plan
        self.reranked = reranked
        self.told: Mapping[str, Any] | None = None
        self._rows = rows
        self._scores = scores
        self._best = np.zeros(0, np.int64)

    def first(self, n: int) -> Ranked:
        best = self._best
        if len(best) < min(n, len(self._rows)):
            self._best = best = self._sorted(max(n, 2 * len(best)))
        return self._rows[best[:n]], self._scores[best[:n]]

    def _sorted(self, n: int) -> NDArray[np.int64]:
        """Places of the n best: by score, then by row."""
        if n >= len(self._rows):
            return np.argsort(-self._scores, kind="stable")
        kth = np.partition(self._scores, -n)[-n]
        near = np.flatnonzero(self._scores >= kth)
        return near[np.argsort(-self._scores[near], kind="stable")][:n]

    def more_than(self, n: int) -> bool:
        return len(self._rows) > n


class Above:
    """The rows of ``inner`` with a score of at least ``least``."""

    def __init__(self, inner: Ranking, least: float) -> None:
        self._inner = inner
        self._least = np.float32(least)

    @property
    def plan(self) -> str:
        return self._inner.plan

    @property
    def reranked(self) -> int:
        return self._inner.reranked

    @property
    def told(self) -> Mapping[str, Any] | None:
        return self._inner.told

    def first(self, n: int) -> Ranked:
        rows, scores = self._inner.first(n)
        enough = int(np.count_nonzero(scores >= self._least))
        return rows[:enough], scores[:enough]

    def more_than(self, n: int) -> bool:
        return len(self.first(n + 1)[0]) > n


class Diverse:
    """The ``POOL`` best rows of ``inner`` in the order of maximal marginal relevance, then the others as they were.
    Scores stay those of ``inner``. ``vectors`` gives float32 [n, D] of length 1 (or 0) for rows [n]."""

    def __init__(
        self, inner: Ranking, diversity: float, vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    ) -> None:
        self._inner = inner
        self._diversity = diversity
        self._vectors = vectors
        self._pool: tuple[Ranked, NDArray[np.float32]] | None = None
        self._order = np.zeros(0, np.int64)

    @property
    def plan(self) -> str:
        return f"{self._inner.plan}, diversified"

    @property
    def reranked(self) -> int:
        return self._inner.reranked

    @property
    def told(self) -> Mapping[str, Any] | None:
        return self._inner.told

    def first(self, n: int) -> Ranked:
        if self._pool is None:
            best = self._inner.first(POOL)
            self._pool = best, self._vectors(best[0])
        (rows, scores), vectors = self._pool
        wanted = min(n, len(rows))
        order = self._order
        if len(order) < wanted:
            self._order = order = mmr(scores, vectors, self._diversity, min(max(wanted, 2 * len(order)), len(rows)))
        order = order[:wanted]
        if n <= POOL:
            return rows[order], scores[order]
        others, rest = self._inner.first(n)
        return np.concatenate([rows[order], others[POOL:]]), np.concatenate([scores[order], rest[POOL:]])

    def more_than(self, n: int) -> bool:
        return self._inner.more_than(n)


def mmr(scores: NDArray[np.float32], vectors: NDArray[np.float32], diversity: float, n: int) -> NDArray[np.int64]:
    """Maximal marginal relevance (Carbonell and Goldstein 1998): again and again, the row with the largest

        (1 - diversity) * relevance - diversity * largest cosine to a row chosen before

    Relevance is the score put between 0 (last row) and 1 (first row). scores: [N], falling; vectors: [N, D] of
    length 1 or 0. The first n places, int64 [n]; what is equal to six digits goes to the
    better score, so that the order does not hang on how a processor sums.
    """
    relevance = scores.astype(np.float64)
    if len(relevance):
        width = relevance[0] - relevance[-1]
        relevance = (relevance - relevance[-1]) / width if width > 0 else np.ones(len(relevance))
    gain = (1 - diversity) * relevance
    nearest = np.full(len(relevance), -np.inf)
    order = np.zeros(n, np.int64)
    left = np.ones(len(relevance), bool)
    for i in range(n):
        value = gain if i == 0 else gain - diversity * nearest
        order[i] = chosen = int(np.argmax(np.where(left, np.round(value, 6), -np.inf)))
        left[chosen] = False
        np.maximum(nearest, vectors @ vectors[chosen], out=nearest)
    return order


def everything(ranking: Ranking) -> Ranked:
    """All rows of a ranking."""
    n = _FIRST
    while ranking.more_than(n):
        n *= 4
    return ranking.first(n)
