"""pq: product quantisation. The values are cut into M parts, each part is replaced by the nearest of 256 centroids.

    x ~ R' [c_1(x), ..., c_M(x)],   q . x ~ sum over m of table[m, code_m],   table[m, j] = (R q)_m . centroid[m, j]

M bytes a vector. ``pq32`` has no R; ``pq32:opq`` learns a rotation R that makes the parts easier to quantise: begun by
dealing principal components to the parts so that the products of their variances are alike, then the rotation and the
centroids are improved in turns.
Sources: Jegou, Douze, Schmid, Product Quantization for Nearest Neighbor Search, 2011; Ge, He, Ke, Sun, Optimized
Product Quantization, 2013 (the parametric solution as start, the non-parametric one after it). Differences: at most
32,768 training vectors are used; 20 steps of k-means for each part, 20 turns for the rotation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextvec.compress.vectors._kmeans import kmeans, nearest, step
from nextvec.compress.vectors._part import Coder, Codes, Float32, Stage, project
from nextvec.compress.vectors.pca import covariance
from nextvec.types import InputError

CENTROIDS = 256
_SAMPLE = 32_768  # training vectors
_STEPS = 20
_TURNS = 20
_TABLES = 4  # queries; up to so many are scored by tables, more of them by a product with what the codes stand for


class ProductQuantiser(Coder):
    """Codes uint8 [n, M]."""

    dtype = np.uint8
    number = "parts, one byte each"
    options = {"opq": "learn a rotation first"}  # noqa: RUF012

    @classmethod
    def check(cls, stage: Stage, dim: int) -> None:
        parts = stage.number or 0
        if parts > dim or dim % parts:
            fitting = [m for m in range(1, dim + 1) if dim % m == 0]
            near = sorted(sorted(fitting, key=lambda m: abs(m - parts))[:3])
            down = dim - dim % parts
            instead = f", or put 'pca{down},' before it" if down else ""
            raise InputError(
                f"{str(stage)!r} cannot cut {dim} values into {parts} equal parts: use "
                f"{', '.join(f'pq{m}' for m in near)}{instead}"
            )

    @classmethod
    def shapes(cls, stage: Stage, dim: int) -> dict[str, tuple[int, ...]]:
        parts = stage.number or 1
        shapes: dict[str, tuple[int, ...]] = {"centroids": (parts, CENTROIDS, dim // parts)}
        return {**shapes, "rotation": (dim, dim)} if stage.options else shapes

    @classmethod
    def learn(cls, stage: Stage, sample: Float32, rng: np.random.Generator) -> dict[str, Float32]:
        if len(sample) < CENTROIDS:
            raise InputError(
                f"{str(stage)!r} learns {CENTROIDS} centroids for each part and needs at least as many training "
                f"vectors, got {len(sample)}: give more, or use int8 or binary"
            )
        if len(sample) > _SAMPLE:
            sample = sample[np.sort(rng.choice(len(sample), _SAMPLE, replace=False))]
        parts = stage.number or 1
        learnt = {}
        if stage.options:
            learnt["rotation"] = learn_rotation(sample, parts, rng)
            sample = project(sample, learnt["rotation"])
        learnt["centroids"] = np.stack([kmeans(own, CENTROIDS, rng, steps=_STEPS) for own in _cut(sample, parts)])
        return learnt

    @property
    def width(self) -> int:
        return self.stage.number or 1

    def _rotated(self, vectors: Float32) -> Float32:
        return project(vectors, self.arrays["rotation"]) if self.stage.options else vectors

    def encode(self, vectors: Float32, start: int) -> Codes:
        # In float64, so that the choice between two centroids does not turn on how many vectors are encoded together.
        parts = _cut(self._rotated(vectors).astype(np.float64), self.width)
        chosen = [nearest(own, centroids)[0] for own, centroids in zip(parts, self.arrays["centroids"], strict=True)]
        return np.stack(chosen, axis=1).astype(np.uint8)

    def decode(self, codes: Codes) -> Float32:
        values = self._values(codes)
        return project(values, self.arrays["rotation"].T) if self.stage.options else values

    def _values(self, codes: Codes) -> Float32:
        """[n, D], still rotated."""
        chosen = self.arrays["centroids"][np.arange(self.width), codes]  # [n, M, D / M]
        return chosen.reshape(len(codes), self.dim)

    def score(self, queries: Float32, codes: Codes) -> Float32:
        rotated = self._rotated(queries)
        if len(queries) > _TABLES:
            scores: Float32 = rotated @ self._values(codes).T
            return scores
        parts = rotated.reshape(len(queries), self.width, self.dim // self.width)
        tables = np.einsum("qms,mjs->mqj", parts, self.arrays["centroids"])
        total = np.zeros((len(queries), len(codes)), np.float32)
        for table, column in zip(tables, codes.T, strict=True):
            total += table[:, column]
        return total


def _cut(values: NDArray[np.floating], parts: int) -> list[NDArray[np.floating]]:
    return [np.ascontiguousarray(own) for own in np.split(values, parts, axis=1)]


def learn_rotation(sample: Float32, parts: int, rng: np.random.Generator) -> Float32:
    """OPQ's rotation, float32 [D, D], y = R x, from [n, D]."""
    rotation = balanced_axes(sample, parts)
    centroids = None
    for _ in range(_TURNS):
        cut = _cut(project(sample, rotation), parts)
        if centroids is None:
            centroids = [kmeans(own, CENTROIDS, rng, steps=1) for own in cut]
        moved = [step(own, old) for own, old in zip(cut, centroids, strict=True)]
        centroids = [new for new, _ in moved]
        quantised = np.concatenate([new[best] for new, best in moved], axis=1)
        # The rotation that brings the sample nearest to its quantised form (orthogonal Procrustes).
        left, _, right = np.linalg.svd(quantised.T.astype(np.float64) @ sample.astype(np.float64))
        rotation = (left @ right).astype(np.float32)
    return rotation


def balanced_axes(sample: Float32, parts: int) -> Float32:
    """Principal axes, [D, D], dealt so that the products of the variances in each of the parts are alike."""
    variances, axes = np.linalg.eigh(covariance(sample)[1])
    room = len(variances) // parts
    logs = np.log(np.maximum(variances, np.finfo(np.float32).tiny))
    # Shifted above 0, so that a part that has received an axis is always fuller than it was.
    logs -= logs.min() - 1
    buckets: list[list[int]] = [[] for _ in range(parts)]
    for axis in range(len(variances) - 1, -1, -1):
        open_ones = [bucket for bucket in buckets if len(bucket) < room]
        min(open_ones, key=lambda bucket: sum(logs[i] for i in bucket)).append(axis)
    order = [axis for bucket in buckets for axis in bucket]
    return axes[:, order].T.astype(np.float32)
