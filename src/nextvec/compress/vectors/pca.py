"""pca: the d directions in which the training vectors differ most, about their mean.

    y = W (x - mean),   x ~ mean + W' y,   q . x ~ q . mean + (W q) . y          W [d, D] with orthonormal rows

The mean is part of the score, so that queries need no centring of their own and the score is still a dot product with
what is decoded. What comes out is not brought to length 1.
"""

from __future__ import annotations

import numpy as np

from nextvec.compress.vectors._part import BLOCK, Float32, Stage, Transform, project
from nextvec.types import InputError


def covariance(sample: Float32) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and covariance [D, D] of [n, D], float64, taken block by block."""
    mean = sample.mean(axis=0, dtype=np.float64)
    total = np.zeros((sample.shape[1], sample.shape[1]))
    for start in range(0, len(sample), BLOCK):
        block = sample[start : start + BLOCK] - mean
        total += block.T @ block
    return mean, total / len(sample)


class PCA(Transform):
    """[n, D] to the d first principal components."""

    number = "dimensions kept"

    @classmethod
    def check(cls, stage: Stage, dim: int) -> None:
        if (stage.number or 0) > dim:
            raise InputError(f"{str(stage)!r} keeps more dimensions than the {dim} that the vectors have here")

    @classmethod
    def shapes(cls, stage: Stage, dim: int) -> dict[str, tuple[int, ...]]:
        return {"mean": (dim,), "axes": (stage.number or dim, dim)}

    @classmethod
    def learn(cls, stage: Stage, sample: Float32, rng: np.random.Generator) -> dict[str, Float32]:
        kept = stage.number or sample.shape[1]
        if len(sample) <= kept:
            raise InputError(
                f"{str(stage)!r} needs more than {kept} training vectors, got {len(sample)}: give more or keep fewer "
                "dimensions"
            )
        mean, spread = covariance(sample)
        axes = np.linalg.eigh(spread)[1][:, ::-1][:, :kept].T
        # An eigenvector is one up to its sign: the largest element is made positive.
        largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
        axes = axes * np.where(largest < 0, -1.0, 1.0)
        return {"mean": mean.astype(np.float32), "axes": axes.astype(np.float32)}

    @property
    def width(self) -> int:
        return self.stage.number or self.dim

    def forward(self, vectors: Float32, start: int) -> Float32:
        mean, axes = self.arrays["mean"], self.arrays["axes"]
        return project(vectors, axes, -(axes.astype(np.float64) @ mean.astype(np.float64)))

    def backward(self, values: Float32) -> Float32:
        return project(values, self.arrays["axes"].T, self.arrays["mean"])

    def query(self, queries: Float32) -> tuple[Float32, Float32 | None]:
        offset: Float32 = (queries.astype(np.float64) @ self.arrays["mean"].astype(np.float64)).astype(np.float32)
        return project(queries, self.arrays["axes"]), offset
