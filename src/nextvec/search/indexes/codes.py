"""Int8 codes of vectors, with what is needed to bound the error they make.

A row x is stored as x ~ scale * code, code in -127 .. 127. With the residuals dx = x - scale * code and dq = q - q~
of row and query, |q.x - q~.x~| <= |q~| |dx| + |dq| |x| (Cauchy-Schwarz), so that a scan over codes can rule rows out
with certainty. Shapes: N rows, D dimensions, Q queries.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    numkong: Any = importlib.import_module("numkong")
except ImportError:  # a processor or platform without a wheel: the float32 scan takes over
    numkong = None

Int8 = NDArray[np.int8]
Float32 = NDArray[np.float32]

_SLACK = np.float32(1 + 1e-5)  # covers the rounding of the norms themselves
PACK_FROM = 2  # queries; one query is fastest on the codes as they lie in the file


@dataclass(frozen=True, slots=True)
class Codes:
    """codes int8 [N, D]; scale, error (|dx|) and norm (|x|), the last two rounded up, float32 [N]."""

    codes: Int8
    scale: Float32
    error: Float32
    norm: Float32


def quantise(vectors: Float32, most: int = 127) -> Codes:
    """The codes, of -most to most, of float32 [N, D] rows, each scaled by its own largest element."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    scale = (largest / np.float32(most)).astype(np.float32)
    # A row that is all zeros, or so small that its scale vanishes, has codes of zero and is all residual.
    divisor = np.where(scale > 0, scale, np.float32(np.inf))
    codes = np.clip(np.rint(vectors / divisor[:, None]), -most, most).astype(np.int8)
    residual = vectors - codes.astype(np.float32) * scale[:, None]
    # The subtraction rounds: at most one unit in the last place of the product for each element.
    rounding = largest * np.float32(2.0**-23 * np.sqrt(vectors.shape[1]))
    error = _norms(residual) + rounding
    return Codes(codes, scale, (error * _SLACK).astype(np.float32), (_norms(vectors) * _SLACK).astype(np.float32))


def _norms(vectors: Float32) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return lengths


def available() -> bool:
    """Whether this machine has the kernels for integer dot products."""
    return numkong is not None


def dots(queries: Int8, codes: Int8) -> NDArray[np.float32] | NDArray[np.int32]:
    """Integer dot products [Q, N] of C-contiguous int8 [Q, D] and [N, D]. Releases the GIL."""
    if numkong is None:
        # Sums of 24 bits or fewer are whole in float32; the approximate ways, who alone come here, bear the rest.
        return np.asarray(np.matmul(queries.astype(np.float32), codes.astype(np.float32).T))
    if len(queries) < PACK_FROM:
        # Summed as integers, told as float32; asking for int32 takes a kernel that is 13 times slower.
        return np.asarray(numkong.cdist(_view(queries), _view(codes), metric="dot", out_dtype="float32"))
    return packed_dots(queries, pack(codes))


def pack(codes: Int8) -> Any:
    """The codes in the order that the matrix units want, for ``packed_dots``."""
    return numkong.dots_pack(_view(codes), dtype="int8")


def packed_dots(queries: Int8, packed: Any) -> NDArray[np.int32]:
    """Integer dot products [Q, N] of int8 [Q, D] with packed rows. Releases the GIL."""
    return np.asarray(numkong.dots_packed(_view(queries), packed))


def _view(array: Int8) -> Any:
    return numkong.from_pointer(array.ctypes.data, array.shape, "int8", owner=array)
