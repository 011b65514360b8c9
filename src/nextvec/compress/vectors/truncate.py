"""truncate: the first d values of vectors that were trained to be cut (nested, "Matryoshka" vectors).

With "cosine" what is left is brought to length 1 again, as ``Encoder.encode(dim=d)`` does. The vector that a code
stands for has zeros after the d-th value.
Source of nested vectors: Kusupati et al., Matryoshka Representation Learning, arXiv:2205.13147.
"""

from __future__ import annotations

import numpy as np

from nextvec.compress.vectors._part import Float32, Metric, Stage, Transform
from nextvec.types import InputError


class Truncate(Transform):
    """[n, D] to the first d values of each row."""

    number = "values kept"

    @classmethod
    def check(cls, stage: Stage, dim: int) -> None:
        if (stage.number or 0) > dim:
            raise InputError(f"{str(stage)!r} keeps more values than the {dim} that the vectors have here")

    @property
    def width(self) -> int:
        return self.stage.number or self.dim

    @property
    def metric_after(self) -> Metric:
        return self.metric

    def forward(self, vectors: Float32, start: int) -> Float32:
        cut = np.ascontiguousarray(vectors[:, : self.width])
        if self.metric == "dot":
            return cut
        lengths = np.sqrt(np.einsum("ij,ij->i", cut, cut, dtype=np.float64))
        zero = np.flatnonzero(lengths == 0)
        if len(zero):
            raise InputError(
                f"vector {start + zero[0]} has nothing but zeros in its first {self.width} values: no direction is "
                "left for cosine (keep more, or use metric 'dot')"
            )
        unit: Float32 = (cut / lengths[:, None]).astype(np.float32)
        return unit

    def backward(self, values: Float32) -> Float32:
        vectors = np.zeros((len(values), self.dim), np.float32)
        vectors[:, : self.width] = values
        return vectors

    def query(self, queries: Float32) -> tuple[Float32, Float32 | None]:
        return np.ascontiguousarray(queries[:, : self.width]), None
