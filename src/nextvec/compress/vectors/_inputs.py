"""Vectors and codes at the door of a codec: what cannot be used is refused, with the row named.

The rules are those of a collection (``search/``): finite numbers; with "cosine" every vector is brought to length 1
and zero has no direction; with "dot" lengths are 0 or 1e-15 to 1e15. Shapes: n rows, D dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.compress.vectors._part import METRICS, Float32, Metric
from nextvec.types import InputError, did_you_mean


def check_metric(metric: Any) -> Metric:
    """``metric``; InputError where there is none of that name."""
    if metric == "cosine":
        return "cosine"
    if metric == "dot":
        return "dot"
    raise InputError(f"metric is {metric!r}: expected 'cosine' or 'dot'{did_you_mean(str(metric), METRICS)}")


def check_matrix(vectors: Any, dim: int | None, what: str) -> NDArray[Any]:
    """``vectors`` as a numeric [n, D] array, its values not looked at yet. ``dim`` None: any width from 1."""
    try:
        array = np.asarray(vectors)
    except ValueError as error:
        raise InputError(f"the {what}s do not form one array (rows of different length?): {error}") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"the {what}s have type {array.dtype}: expected numbers (float32)")
    wanted = "D" if dim is None else dim
    if array.ndim == 1 and array.size:
        raise InputError(f"the {what}s have shape {list(array.shape)}: expected [n, {wanted}]; one alone: x[None]")
    if array.ndim != 2 or array.shape[1] != (dim or max(array.shape[1], 1)):
        raise InputError(f"the {what}s have shape {list(array.shape)}: expected [n, {wanted}]")
    return array


def prepare(block: NDArray[Any], metric: Metric, what: str, rows: NDArray[np.int64] | int = 0) -> Float32:
    """Float32 [n, D], of length 1 with "cosine". ``rows``: the rows' numbers, or that of the first, for messages."""

    def number(place: int) -> int:
        return rows + place if isinstance(rows, int) else int(rows[place])

    with np.errstate(over="ignore", invalid="ignore"):
        vectors = np.ascontiguousarray(block, dtype=np.float32)
        # In float64 the squares of finite float32 numbers neither overflow nor vanish.
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(lengths))
    if len(bad):
        raise InputError(f"{what} {number(bad[0])} holds NaN or an infinite number: expected finite float32 numbers")
    if metric == "dot":
        bad = np.flatnonzero((lengths > 1e15) | ((lengths < 1e-15) & (lengths > 0)))
        if len(bad):
            length = lengths[bad[0]]
            raise InputError(
                f"{what} {number(bad[0])} has length {length:.3g}: expected 0 or 1e-15 to 1e15, rescale it"
            )
        return vectors
    zero = np.flatnonzero(lengths == 0)
    if len(zero):
        raise InputError(
            f"{what} {number(zero[0])} is all zeros and has no direction: cosine needs a non-zero vector "
            "(or use metric 'dot')"
        )
    unit: Float32 = (vectors / lengths[:, None]).astype(np.float32)
    return unit


def check_codes(codes: Any, dtype: Any, width: int, spec: str) -> NDArray[Any]:
    """``codes`` as they are, where they can be codes of ``spec``."""
    array = np.asarray(codes)
    if array.dtype != np.dtype(dtype) or array.ndim != 2 or array.shape[1] != width:
        raise InputError(
            f"the codes are {array.dtype} {list(array.shape)}: {spec!r} makes {np.dtype(dtype)} [n, {width}]; "
            "were they made by another codec?"
        )
    return array
