"""k-means (Lloyd's algorithm) in NumPy.

Shapes: n points, k centroids, s dimensions of a point.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextvec.compress.vectors._part import Float32

Int64 = NDArray[np.int64]
_ROWS = 2048  # points whose distances are held at once: 2 MB for 256 centroids, which a core's cache can keep


def nearest(points: NDArray[np.floating], centroids: NDArray[np.floating]) -> tuple[Int64, NDArray[np.floating]]:
    """For each of [n, s] the nearest of centroids [k, s] (the first of equal ones) and half the squared distance less
    half the point's squared length. Computed in the type of the points."""
    centroids = centroids.astype(points.dtype)
    half = np.einsum("ij,ij->i", centroids, centroids) / 2
    best, least = np.empty(len(points), np.int64), np.empty(len(points), points.dtype)
    for start in range(0, len(points), _ROWS):
        distances = half - points[start : start + _ROWS] @ centroids.T
        own = distances.argmin(axis=1)
        best[start : start + _ROWS] = own
        least[start : start + _ROWS] = np.take_along_axis(distances, own[:, None], axis=1)[:, 0]
    return best, least


def step(points: Float32, centroids: Float32) -> tuple[Float32, Int64]:
    """Centroids moved to the mean of their points, and which centroid each point had. One without points goes to the
    point that is farthest from its own."""
    best, least = nearest(points, centroids)
    count = np.bincount(best, minlength=len(centroids))
    sums = np.stack([np.bincount(best, weights=column, minlength=len(centroids)) for column in points.T], axis=1)
    moved: Float32 = (sums / np.maximum(count, 1)[:, None]).astype(np.float32)
    empty = np.flatnonzero(count == 0)
    if len(empty):
        distance = least + np.einsum("ij,ij->i", points, points) / 2
        moved[empty] = points[np.argsort(-distance, kind="stable")[: len(empty)]]
    return moved, best


def kmeans(points: Float32, k: int, rng: np.random.Generator, *, steps: int) -> Float32:
    """k centroids of [n, s], n >= k, float32 [k, s]: begins with k of the points, drawn without repetition."""
    centroids: Float32 = points[rng.choice(len(points), k, replace=False)].copy()
    for _ in range(steps):
        moved, _best = step(points, centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids
