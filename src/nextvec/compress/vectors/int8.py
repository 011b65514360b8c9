"""int8: one byte a value, with a range learnt for each dimension, or a scale for each vector.

    value ~ centre + scale * code,   code = round((value - centre) / scale) in -127 .. 127

``int8``: centre and scale of each dimension span what the training vectors hold there; a value inside is at most half a
scale off, one outside is brought to the edge. ``int8:vector``: no training; centre 0, and each vector's own largest
element is 127; its scale stands in the last 4 bytes of its code. Nothing is ever cut, and the error is at most half of
1/127 of the largest element: the choice where vectors differ in length or the sample may not be like what comes.
"""

from __future__ import annotations

import numpy as np

from nextvec.compress.vectors._part import Codes, Float32, Levels, Stage
from nextvec.types import InputError

_TOP = 127


class Int8(Levels):
    """Codes int8 [n, D], with option "vector" [n, D + 4]."""

    dtype = np.int8
    options = {"vector": "a scale for each vector instead of a range for each dimension"}  # noqa: RUF012

    @property
    def width(self) -> int:
        return self.dim + (4 if self._own else 0)

    @property
    def _own(self) -> bool:
        return "vector" in self.stage.options

    @classmethod
    def shapes(cls, stage: Stage, dim: int) -> dict[str, tuple[int, ...]]:
        return {} if stage.options else super().shapes(stage, dim)

    @classmethod
    def learn(cls, stage: Stage, sample: Float32, rng: np.random.Generator) -> dict[str, Float32]:
        if stage.options:
            return {}
        if len(sample) < 2:
            raise InputError(
                "int8 learns a range for each dimension from at least 2 training vectors, got 1: "
                "give more, or use 'int8:vector', which needs none"
            )
        low, high = sample.min(axis=0).astype(np.float64), sample.max(axis=0).astype(np.float64)
        centre, scale = (low + high) / 2, (high - low) / (2 * _TOP)
        return {"centre": centre.astype(np.float32), "scale": scale.astype(np.float32)}

    def encode(self, vectors: Float32, start: int) -> Codes:
        if not self._own:
            return _rounded(vectors - self.arrays["centre"], self.arrays["scale"])
        scale = np.abs(vectors).max(axis=1, initial=0) / np.float32(_TOP)
        tail = scale.astype("<f4")[:, None].view(np.int8)
        return np.concatenate([_rounded(vectors, scale[:, None]), tail], axis=1)

    def levels(self, codes: Codes) -> Float32:
        if not self._own:
            return codes.astype(np.float32)
        scale = np.ascontiguousarray(codes[:, self.dim :]).view("<f4").astype(np.float32)
        values: Float32 = codes[:, : self.dim] * scale
        return values

    def decode(self, codes: Codes) -> Float32:
        return self.levels(codes) if self._own else super().decode(codes)

    def score(self, queries: Float32, codes: Codes) -> Float32:
        if not self._own:
            return super().score(queries, codes)
        scores: Float32 = queries @ self.levels(codes).T
        return scores


def _rounded(values: Float32, scale: Float32) -> Codes:
    # Where the scale is 0 (a constant dimension, a zero vector) every code is 0.
    with np.errstate(over="ignore"):  # far outside a narrow range: the edge is the edge
        whole = np.rint(values / np.where(scale > 0, scale, np.float32(np.inf)))
    return np.clip(whole, -_TOP, _TOP).astype(np.int8)
