"""binary: the sign of each value, one bit; the crudest code, for a first stage that something truer re-ranks.

The bits are those of ``Encoder.encode(dtype="binary")``: 1 for values above 0, the first value in the highest bit of
the first byte. Between two codes the dot product of signs is D - 2 * Hamming distance. Here the query stays float32,
and a bit stands for what training vectors hold on that side of 0 on average, dimension by dimension (the values that
make the squared error least), which ranks better than counting bits.
"""

from __future__ import annotations

import numpy as np

from nextvec.compress.vectors._part import Codes, Float32, Levels, Stage
from nextvec.types import InputError


class Binary(Levels):
    """Codes uint8 [n, ceil(D / 8)]; bits after the D-th are 0."""

    dtype = np.uint8

    @property
    def width(self) -> int:
        return -(-self.dim // 8)

    @classmethod
    def learn(cls, stage: Stage, sample: Float32, rng: np.random.Generator) -> dict[str, Float32]:
        if len(sample) < 2:
            raise InputError("binary learns what a bit stands for from at least 2 training vectors, got 1")
        wide, above = sample.astype(np.float64), sample > 0
        count = above.sum(axis=0)
        # A side that no training vector is on stands for 0, its edge.
        high = np.where(above, wide, 0).sum(axis=0) / np.maximum(count, 1)
        low = np.where(above, 0, wide).sum(axis=0) / np.maximum(len(sample) - count, 1)
        return {"centre": ((high + low) / 2).astype(np.float32), "scale": ((high - low) / 2).astype(np.float32)}

    def encode(self, vectors: Float32, start: int) -> Codes:
        return np.packbits(vectors > 0, axis=1)

    def levels(self, codes: Codes) -> Float32:
        signs = np.unpackbits(codes, axis=1, count=self.dim).astype(np.float32)
        signs *= 2
        signs -= 1
        return signs
