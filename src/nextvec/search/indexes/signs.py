"""A bit per dimension: what a scan of cells looks at before the codes.

A row x of a cell with mean m is m + r. With a fixed rotation T, b the signs (+1, -1) of T r, and q' = T q,

    q.x ~ q.m + <q', b> |r|^2 / <T r, b>

without bias over rotations, off by about |q| |r| / sqrt(D) (RaBitQ, Gao and Long 2024, arXiv 2405.12497, with another
rotation: signs flipped and Hadamard's transform, twice). The kernel takes <q', b> from counts of bits.

Shapes: n rows, D dimensions, W 64-bit words per row (a multiple of 4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["flips_of", "signs_of", "turned", "words"]

Float32 = NDArray[np.float32]


def words(dim: int) -> int:
    """W for D dimensions."""
    return -(-dim // 256) * 4


def flips_of(dim: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """What makes one rotation: 1 or -1, int8 [2, D]."""
    return (2 * rng.integers(0, 2, (2, dim)) - 1).astype(np.int8)


def turned(vectors: Float32, flips: NDArray[np.int8]) -> Float32:
    """T x for each row of float32 [n, D], of the same length: the transform of the first and of the last 2^i values
    (the largest power of 2 that fits), after the flips, two times."""
    values = vectors.astype(np.float32, copy=True)
    dim = values.shape[1]
    size = 1 << (dim.bit_length() - 1)
    for own in flips:
        values *= own
        _transform(values[:, :size])
        if size < dim:
            _transform(values[:, dim - size :])
    return values


def _transform(values: Float32) -> None:
    """Hadamard's transform of each row [n, 2^i], in place, keeping lengths."""
    size, half = values.shape[1], 1
    while half < size:
        for first in range(0, size, 2 * half):
            low, high = values[:, first : first + half], values[:, first + half : first + 2 * half]
            summed = low + high
            high[:] = low - high
            low[:] = summed
        half *= 2
    values *= np.float32(1 / np.sqrt(size))


def signs_of(rests: Float32, flips: NDArray[np.int8]) -> NDArray[np.uint64]:
    """For each rest r of float32 [n, D], uint64 [n, W + 1]: the bits of T r > 0, and in the last word two float32:
    |r|^2 / <T r, b> (0 where r is 0), and that times twice the number of bits that are set."""
    count, dim = rests.shape
    moved = turned(rests, flips)
    positive = moved > 0
    total = np.abs(moved).sum(axis=1, dtype=np.float64)
    square = np.einsum("ij,ij->i", moved, moved, dtype=np.float64)
    slope = np.divide(square, total, out=np.zeros(count), where=total > 0)
    signs = np.zeros((count, words(dim) + 1), np.uint64)
    packed = np.zeros((count, 8 * words(dim)), np.uint8)
    packed[:, : -(-dim // 8)] = np.packbits(positive, axis=1, bitorder="little")
    signs[:, :-1] = packed.view("<u8")
    factors = np.stack([slope, 2 * slope * positive.sum(axis=1)], axis=1).astype(np.float32)
    signs[:, -1:] = factors.view(np.uint64)
    return signs
