"""What a part of a codec is: a transform (numbers to fewer or other numbers) or a coder (numbers to bytes).

Shapes: n vectors, q queries, D dimensions that come in, d that a transform passes on, w columns of the codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Codes = NDArray[Any]
Metric = Literal["cosine", "dot"]
METRICS = ("cosine", "dot")
BLOCK = 8192
"""Rows that are turned into float32 or float64 in one piece: bounds the memory that a call takes beside its result."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One part as a spec names it: "pq32:opq" is ``Stage("pq", 32, ("opq",))``."""

    name: str
    number: int | None = None
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ":".join([f"{self.name}{'' if self.number is None else self.number}", *self.options])


class Part:
    """A part that has learnt what it needs: ``arrays``, float32, by name."""

    number: ClassVar[str] = ""
    """What the number after the name means; "" where none is taken."""
    options: ClassVar[Mapping[str, str]] = {}
    """What may follow the name after a colon, with its meaning."""

    def __init__(self, stage: Stage, dim: int, metric: Metric, arrays: Mapping[str, Float32]) -> None:
        """metric: of the vectors that come in here ("cosine": they have length 1)."""
        self.stage = stage
        self.dim = dim
        self.metric = metric
        self.arrays = dict(arrays)

    @classmethod
    def check(cls, stage: Stage, dim: int) -> None:
        """InputError where the stage does not go with vectors of ``dim`` values."""

    @classmethod
    def shapes(cls, stage: Stage, dim: int) -> dict[str, tuple[int, ...]]:
        """The shapes of ``arrays``: what ``learn`` gives, and what a saved folder must hold."""
        return {}

    @classmethod
    def learn(cls, stage: Stage, sample: Float32, rng: np.random.Generator) -> dict[str, Float32]:
        """``arrays`` from float32 [n, D], n >= 1. InputError where n is too small."""
        return {}


class Transform(Part, ABC):
    """Float32 [n, D] to float32 [n, d], linear but for a shift and a scale, so that scores can be taken in d."""

    @property
    @abstractmethod
    def width(self) -> int:
        """d."""

    @property
    def metric_after(self) -> Metric:
        """Whether what comes out has length 1 again."""
        return "dot"

    @abstractmethod
    def forward(self, vectors: Float32, start: int) -> Float32:
        """[n, d] of [n, D]. ``start``: number of the first row, for messages."""

    @abstractmethod
    def backward(self, values: Float32) -> Float32:
        """[n, D] of [n, d]: the vectors that these values stand for."""

    @abstractmethod
    def query(self, queries: Float32) -> tuple[Float32, Float32 | None]:
        """(a [q, d], b [q]) such that ``queries @ backward(y).T == a @ y.T + b[:, None]``; b is None where it is 0."""


class Coder(Part, ABC):
    """Float32 [n, D] to codes [n, w] of ``dtype``."""

    dtype: ClassVar[Any]

    @property
    def width(self) -> int:
        """w."""
        return self.dim

    @abstractmethod
    def encode(self, vectors: Float32, start: int) -> Codes:
        """[n, w]. ``start``: number of the first row, for messages."""

    @abstractmethod
    def decode(self, codes: Codes) -> Float32:
        """[n, D]."""

    def score(self, queries: Float32, codes: Codes) -> Float32:
        """[q, n], ``queries @ decode(codes).T`` in float32; called with at most ``BLOCK`` codes."""
        scores: Float32 = queries @ self.decode(codes).T
        return scores


class Levels(Coder):
    """A coder that keeps each value by itself: ``centre + scale * level``, the level being what is stored."""

    @classmethod
    def shapes(cls, stage: Stage, dim: int) -> dict[str, tuple[int, ...]]:
        return {"centre": (dim,), "scale": (dim,)}

    @abstractmethod
    def levels(self, codes: Codes) -> Float32:
        """The levels as float32 [n, D]."""

    def decode(self, codes: Codes) -> Float32:
        values: Float32 = self.levels(codes) * self.arrays["scale"] + self.arrays["centre"]
        return values

    def score(self, queries: Float32, codes: Codes) -> Float32:
        # The scale goes to the few queries, not to the many codes; the centre adds one number for each query.
        scaled: Float32 = queries * self.arrays["scale"]
        scores: Float32 = scaled @ self.levels(codes).T
        offset: Float32 = queries @ self.arrays["centre"]
        return scores + offset[:, None]


def project(vectors: Float32, matrix: Float32, shift: NDArray[np.floating] | None = None) -> Float32:
    """``vectors @ matrix.T + shift`` rounded to float32 once, from float64.

    A float32 product depends in its last digit on how many rows are multiplied together, and a code may turn on that
    digit; in float64 the difference vanishes in the rounding (but for about one value in 1e8).
    """
    wide: NDArray[np.float64] = vectors.astype(np.float64) @ matrix.astype(np.float64).T
    if shift is not None:
        wide += shift.astype(np.float64)
    return wide.astype(np.float32)
