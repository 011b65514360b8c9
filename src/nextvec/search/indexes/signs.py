"""A bit per dimension: what a scan of cells looks at before the codes.

A row x of a cell with mean m is m + r. With a fixed rotation T, b the signs (+1, -1) of T r, and q' = T q,

    q.x ~ q.m + <q', b> |r|^2 / <T r, b>

without bias over rotations, off by about |q| |r| / sqrt(D) (RaBitQ, Gao and Long 2024, arXiv 2405.12497, with another
rotation: signs flipped and Hadamard's transform, twice). The kernel looks <q', b> up in tables of a query, four bits of
32 rows at a time (native/signs.h), so that rows lie in blocks of 32.

Shapes: n rows, D dimensions, S = 8 * ceil(D / 64) bytes of bits per row, B = ceil(n / 32) blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "flips_of", "signs_of", "turned"]

Float32 = NDArray[np.float32]

BLOCK = 32  # rows
_FACTORS = 8  # bytes per row beside the bits


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


def signs_of(rests: Float32, flips: NDArray[np.int8]) -> NDArray[np.uint8]:
    """For the rests r of float32 [n, D], uint8 [B, 32 (S + 8)]. Of each block the bits of T r > 0, as [S, 32] bytes of
    eight dimensions each, the lowest bit first; then two float32 [32]: |r|^2 / <T r, b> (0 where r is 0, and for rows
    beyond n), and that times twice the number of bits that are set."""
    count, dim = rests.shape
    moved = turned(rests, flips)
    positive = moved > 0
    total = np.abs(moved).sum(axis=1, dtype=np.float64)
    square = np.einsum("ij,ij->i", moved, moved, dtype=np.float64)
    slope = np.divide(square, total, out=np.zeros(count), where=total > 0)
    bits = np.zeros((count, 8 * -(-dim // 64)), np.uint8)
    bits[:, : -(-dim // 8)] = np.packbits(positive, axis=1, bitorder="little")
    return _laid(bits, np.stack([slope, 2 * slope * positive.sum(axis=1)], axis=1))


def _laid(bits: NDArray[np.uint8], factors: NDArray[Any]) -> NDArray[np.uint8]:
    """Blocks of the bits uint8 [n, S] and the two numbers [n, 2] of each row."""
    (count, wide), blocks = bits.shape, -(-len(bits) // BLOCK)
    whole = np.zeros((blocks * BLOCK, wide), np.uint8)
    whole[:count] = bits
    pairs = np.zeros((blocks * BLOCK, 2), "<f4")
    pairs[:count] = factors
    laid = np.empty((blocks, BLOCK * (wide + _FACTORS)), np.uint8)
    laid[:, : BLOCK * wide] = whole.reshape(blocks, BLOCK, wide).transpose(0, 2, 1).reshape(blocks, BLOCK * wide)
    by_block = pairs.reshape(blocks, BLOCK, 2).transpose(0, 2, 1)
    laid[:, BLOCK * wide :] = np.ascontiguousarray(by_block).reshape(blocks, 2 * BLOCK).view(np.uint8)
    return laid
