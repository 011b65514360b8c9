"""rotate: a random orthogonal matrix, which spreads what the vectors hold evenly over all values.

Dot products stay what they are; a coder that treats all values alike (``binary``, ``int8:vector``, ``pq``) loses less
where a few values were much larger than the rest. The matrix is drawn evenly from all rotations and reflections (QR of
Gaussian numbers with the signs of the diagonal made positive: Mezzadri, arXiv:math-ph/0609050).
"""

from __future__ import annotations

import numpy as np

from nextvec.compress.vectors._part import Float32, Metric, Stage, Transform, project


def random_rotation(dim: int, rng: np.random.Generator) -> Float32:
    """A random orthogonal matrix, float32 [D, D]."""
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    signs = np.where(np.diag(r) < 0, -1.0, 1.0)
    matrix: Float32 = (q * signs).astype(np.float32)
    return matrix


class Rotate(Transform):
    """[n, D] to [n, D]."""

    @classmethod
    def shapes(cls, stage: Stage, dim: int) -> dict[str, tuple[int, ...]]:
        return {"matrix": (dim, dim)}

    @classmethod
    def learn(cls, stage: Stage, sample: Float32, rng: np.random.Generator) -> dict[str, Float32]:
        return {"matrix": random_rotation(sample.shape[1], rng)}

    @property
    def width(self) -> int:
        return self.dim

    @property
    def metric_after(self) -> Metric:
        return self.metric

    def forward(self, vectors: Float32, start: int) -> Float32:
        return project(vectors, self.arrays["matrix"])

    def backward(self, values: Float32) -> Float32:
        return project(values, self.arrays["matrix"].T)

    def query(self, queries: Float32) -> tuple[Float32, Float32 | None]:
        return project(queries, self.arrays["matrix"]), None
