"""Semantic textual similarity: do cosines order pairs of sentences as people do?

    rho = Pearson correlation of the ranks; equal values share the mean of their ranks

Source: Spearman 1904, "The proof and measurement of association between two things"; as the measure of STS since
Reimers et al. 2016, "Task-Oriented Intrinsic Evaluation of Semantic Textual Similarity". Legend: n pairs, D width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextvec.types import InputError

__all__ = ["average_ranks", "cosine_spearman", "spearman"]


def average_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1 of ``values`` [n], ascending; equal values share the mean of the ranks that they take: [n]."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not np.isfinite(data).all():
        raise InputError(f"ranks need a list of finite numbers, got shape {data.shape} with NaN or infinity in it")
    _, which, counts = np.unique(data, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[which]
    return ranks


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two lists of n >= 2 numbers, from -1 to 1.

    InputError where the lengths differ, or where a list is constant and so has no order.
    """
    one, two = average_ranks(first), average_ranks(second)
    if len(one) != len(two) or len(one) < 2:
        raise InputError(f"a rank correlation needs two lists of one length, at least 2; got {len(one)} and {len(two)}")
    one, two = one - one.mean(), two - two.mean()
    spread = float(np.sqrt((one @ one) * (two @ two)))
    if spread == 0:
        raise InputError("a rank correlation with a list whose values are all equal is not defined")
    return float(one @ two) / spread


def cosine_spearman(first: NDArray[np.float32], second: NDArray[np.float32], scores: ArrayLike) -> float:
    """Spearman's correlation between the cosines of rows i of ``first`` and ``second`` [n, D] and ``scores`` [n].

    A row of zeros has cosine 0 with everything.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise InputError(f"pairs need two matrices of one shape [n, D], got {first.shape} and {second.shape}")
    one, two = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (first, second))
    return spearman((one * two).sum(1), scores)
