"""LIMIT's counter-test: vectors of width 2 k that return every k-subset of any number of documents, built, not learned.

    document t:   v_t = (t, t^2, ..., t^{2k})                                     a point of the moment curve
    query S:      -prod_{a in S} (t - a)^2  =  c_0 + <c, v_t>                      a polynomial of degree 2 k in t

The polynomial is 0 at the members of S and negative everywhere else, and its constant does not change an order: with
query c the members of S tie for the first place and all others follow. That is the whole proof, for every n; it says
that the cyclic polytope is neighbourly. ``moment_realised`` checks it in whole numbers, without rounding.

On the unit sphere the same is done by documents (cos t, sin t, ..., cos k t, sin k t) / sqrt(k), t = 2 pi i / n, and
-prod_{a in S} (1 - cos(t - a)), a trigonometric polynomial of degree k: ``circle_embeddings``, for cosines.

So no limit on the number of documents follows from the width alone once d >= 2 k. What shrinks is the margin, like
n^{-2k}: gradient descent at a temperature of 0.1 does not find such vectors, and float32 does not hold them for long.

Below 2 k the limit is real. Any d + 2 documents fall into two sets whose convex hulls meet (Radon), the smaller with k
members at most; filled up with other documents it is a k-subset that no query returns. So n <= d + k, and n <= d + 1
for unit vectors and k = 2, where the smaller set has two members.

Source: the curve of Caratheodory 1911 and Gale 1963; as an argument on sign rank, Alon, Frankl and Roedl 1985, taken up
by the second version of Weller et al. (arXiv 2508.21038). Legend: n documents, k relevant per query, Q queries.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextvec.types import InputError

__all__ = [
    "Realised",
    "all_subsets",
    "circle_embeddings",
    "margins",
    "moment_documents",
    "moment_query",
    "moment_realised",
    "realised",
]


@dataclass(frozen=True, slots=True)
class Realised:
    """Of the C(n, k) queries over ``documents`` at width ``dim``: how many are right in exact arithmetic on the moment
    curve, and the share right, with the least margin, of unit vectors in float64 and in float32."""

    documents: int
    dim: int
    queries: int
    exact: int
    share_float64: float
    share_float32: float
    margin: float


def all_subsets(documents: int, k: int = 2) -> NDArray[np.int64]:
    """Every k-subset of ``documents`` documents in lexicographic order: int64 [C(n, k), k]."""
    if not 1 <= k <= documents:
        raise InputError(f"subsets of {k} of {documents} documents; expected 1 <= k <= documents")
    return np.array(list(itertools.combinations(range(documents), k)), dtype=np.int64)


def margins(queries: ArrayLike, documents: ArrayLike, relevant: ArrayLike) -> NDArray[np.float64]:
    """Per query the least score of its relevant documents minus the greatest of the others: float64 [Q].

    queries [Q, d], documents [n, d], relevant int [Q, k] with k < n. Positive: these documents and no others are its
    top k. A tie gives 0.
    """
    left, right = np.asarray(queries, dtype=np.float64), np.asarray(documents, dtype=np.float64)
    wanted = np.asarray(relevant, dtype=np.int64)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1] or len(wanted) != len(left):
        raise InputError(
            f"queries {list(left.shape)}, documents {list(right.shape)}, relevant {list(wanted.shape)}; expected "
            "[Q, d], [n, d] and [Q, k]"
        )
    if wanted.ndim != 2 or not 1 <= wanted.shape[1] < len(right):
        raise InputError(f"{wanted.shape[1:]} relevant documents of {len(right)}: fewer than all, and at least one")
    scores = left @ right.T
    inner = np.take_along_axis(scores, wanted, axis=1).min(1)
    np.put_along_axis(scores, wanted, -np.inf, axis=1)
    return np.asarray(inner - scores.max(1), dtype=np.float64)


def moment_documents(documents: int, k: int) -> list[tuple[int, ...]]:
    """The points (t, t^2, ..., t^{2k}) for t = 0 .. documents - 1, as whole numbers."""
    _check(documents, k)
    return [tuple(t**power for power in range(1, 2 * k + 1)) for t in range(documents)]


def moment_query(subset: Sequence[int]) -> tuple[int, ...]:
    """The coefficients of t, t^2, ..., t^{2k} in -prod (t - a)^2 over a in ``subset``, as whole numbers."""
    polynomial = [-1]
    for root in (*subset, *subset):
        shifted = [0, *polynomial]
        polynomial = [high - root * low for high, low in zip(shifted, [*polynomial, 0], strict=True)]
    return tuple(polynomial[1:])


def moment_realised(documents: int, k: int, *, dim: int | None = None) -> int:
    """How many of the C(n, k) subsets score strictly above all other documents, in exact whole numbers.

    ``dim``: use only the first ``dim`` of the 2 k coordinates (default all); with fewer it fails, as it must.
    """
    _check(documents, k)
    kept = 2 * k if dim is None else dim
    if not 1 <= kept <= 2 * k:
        raise InputError(f"dim is {dim}; the moment curve for k={k} has 1 to {2 * k} coordinates")
    points = np.array(moment_documents(documents, k), dtype=object)[:, :kept]
    right = 0
    for subset in itertools.combinations(range(documents), k):
        scores = points @ np.array(moment_query(subset), dtype=object)[:kept]
        others = np.delete(scores, subset)
        right += bool(min(scores[list(subset)]) > max(others))
    return right


def circle_embeddings(documents: int, relevant: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit queries [Q, 2k] and unit documents [n, 2k] whose cosines put each query's ``relevant`` [Q, k] first.

    float64; the coefficients of a query are read off 2 k + 1 values of its polynomial by a Fourier transform.
    """
    wanted = np.asarray(relevant, dtype=np.int64)
    if wanted.ndim != 2 or (wanted.size and not 0 <= wanted.min() <= wanted.max() < documents):
        raise InputError(f"relevant {list(wanted.shape)}; expected [Q, k] of document numbers below {documents}")
    k = wanted.shape[1]
    _check(documents, k)
    angles = 2 * np.pi * np.arange(documents) / documents
    points = np.stack([f(j * angles) for j in range(1, k + 1) for f in (np.cos, np.sin)], axis=1) / math.sqrt(k)
    sampled = 2 * np.pi * np.arange(2 * k + 1) / (2 * k + 1)
    values = -(1 - np.cos(sampled[None, :, None] - angles[wanted][:, None, :])).prod(2)
    waves = np.fft.rfft(values, axis=1)[:, 1:]
    queries = np.stack([waves.real, -waves.imag], axis=2).reshape(len(wanted), 2 * k)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return queries, points


def realised(documents: int, k: int) -> Realised:
    """Build and check: exactly on the moment curve, and on the sphere in float64 and float32."""
    wanted = all_subsets(documents, k)
    queries, points = circle_embeddings(documents, wanted)
    own = margins(queries, points, wanted)
    scores = queries.astype(np.float32) @ points.astype(np.float32).T
    inner = np.take_along_axis(scores, wanted, axis=1).min(1)
    np.put_along_axis(scores, wanted, -np.inf, axis=1)
    return Realised(
        documents=documents,
        dim=2 * k,
        queries=len(wanted),
        exact=moment_realised(documents, k),
        share_float64=float((own > 0).mean()),
        share_float32=float((inner > scores.max(1)).mean()),
        margin=float(own.min()),
    )


def _check(documents: int, k: int) -> None:
    if not 1 <= k < documents:
        raise InputError(f"{k} relevant of {documents} documents; expected 1 <= k < documents")
