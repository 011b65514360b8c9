"""Geometry of a set of vectors. Legend: n vectors, D width."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nextvec.types import InputError

__all__ = ["effective_rank"]


def effective_rank(vectors: ArrayLike) -> float:
    """How many directions the rows of ``vectors`` [n, D] use: from 1 (all on one line) to min(n, D) (all alike strong).

    With s the singular values and p = s / sum(s), the exponential of the entropy of p. The vectors are not centred.
    A value depends on n, so compare sets of equal size only. Source: Roy and Vetterli 2007, "The effective rank: a
    measure of effective dimensionality"; NextLat (arXiv 2511.05963) reports it for 256 states.

    Raises InputError for anything but a matrix of finite numbers that are not all zero.
    """
    matrix = np.asarray(vectors, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"the effective rank of an array of shape {list(matrix.shape)}; expected vectors [n, D]")
    if not np.isfinite(matrix).all() or not matrix.any():
        raise InputError("the effective rank of vectors that are all zero or not finite is not defined")
    values = np.linalg.svd(matrix, compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
