"""One ranking of two: rows by meaning and rows by words.

Each side brings its ``DEPTH`` best rows, and what it says of other rows does not count. Both rules give a row that
only one side knows what that side says of it. Shapes: n rows of a side, U rows of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEPTH", "RRF_K", "Ranked", "rrf", "weighted"]

DEPTH = 500
RRF_K = 60

Ranked = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Different rows [n] and their scores [n], best first."""


def rrf(sides: Sequence[Ranked]) -> Ranked:
    """Reciprocal rank fusion: score(row) = sum over sides of 1 / (60 + rank), ranks from 1, rows with equal scores
    sharing the best of their ranks (Cormack, Clarke and Buettcher 2009). Rows [U] ascending, float32 scores [U]."""
    return _joined([(rows, 1.0 / (RRF_K + _ranks(scores))) for rows, scores in sides])


def weighted(vector: Ranked, words: Ranked, alpha: float) -> Ranked:
    """score(row) = alpha * v + (1 - alpha) * w, where v puts the vector side's scores between 0 (its last row) and 1
    (its first), and w divides the word side's by its best one. Rows [U] ascending, float32 scores [U]."""
    rows, scores = vector[0], vector[1].astype(np.float64)
    if len(scores):
        width = scores[0] - scores[-1]
        scores = (scores - scores[-1]) / width if width > 0 else np.ones(len(scores))
    other = words[1].astype(np.float64)
    if len(other):
        other = other / other[0]
    return _joined([(rows, alpha * scores), (words[0], (1 - alpha) * other)])


def _ranks(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    falling = -scores
    return 1 + np.searchsorted(falling, falling, side="left")


def _joined(sides: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> Ranked:
    rows = np.unique(np.concatenate([rows for rows, _ in sides]))
    total = np.zeros(len(rows))
    for side, scores in sides:
        total[np.searchsorted(rows, side)] += scores
    return rows, total.astype(np.float32)
