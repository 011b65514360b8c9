"""Classes read off frozen vectors: by logistic regression, and by clusters that know no class.

Needs scikit-learn. Legend: n texts, D width, K classes.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.types import InputError

__all__ = ["classify", "cluster"]

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]

STRENGTHS = (1.0, 10.0, 100.0)
"""Inverse weights of the penalty that are tried; vectors of length 1 need little of it."""
_HELD = 5  # one training text of so many decides between them
_ITERATIONS = 300
_MANY = 20_000  # texts; from here on clusters are found in small batches
_STARTS = 4


def classify(train: Vectors, labels: Ints, test: Vectors, *, seed: int = 0) -> Ints:
    """The class of each test vector [n, D] by logistic regression on ``train`` [m, D] with ``labels`` [m]: int64 [n].

    The strength of the penalty is chosen on a fifth of the training texts, then all of them are fitted to: encoders
    whose vectors lie close together are not put at a disadvantage by a strength that suits others. The test vectors
    decide nothing. InputError for shapes that do not fit, values that are not finite, or fewer than two classes.
    """
    linear = require("sklearn.linear_model", why="classification of vectors")
    _check(train, test)
    if len(labels) != len(train) or len(np.unique(labels)) < 2:
        raise InputError(f"{len(train)} training texts, {len(labels)} labels; expected as many, of two or more classes")
    order = np.random.default_rng(seed).permutation(len(train))
    held, kept = np.split(order, [len(order) // _HELD])
    strength = STRENGTHS[0]
    if len(held) and len(np.unique(labels[kept])) > 1:
        scores = [
            (_fit(linear, train[kept], labels[kept], one).predict(train[held]) == labels[held]).mean()
            for one in STRENGTHS
        ]
        strength = STRENGTHS[int(np.argmax(scores))]
    predicted: Ints = _fit(linear, train, labels, strength).predict(test).astype(np.int64)
    return predicted


def _fit(linear: Any, vectors: Vectors, labels: Ints, strength: float) -> Any:
    told = require("sklearn.exceptions", why="classification of vectors")
    with warnings.catch_warnings():  # a fit that stops at the limit is good enough to compare vectors with
        warnings.simplefilter("ignore", told.ConvergenceWarning)
        return linear.LogisticRegression(C=strength, max_iter=_ITERATIONS).fit(vectors, labels)


def cluster(vectors: Vectors, count: int, *, seed: int = 0) -> Ints:
    """The number of the cluster of each vector [n, D], of ``count`` found by k-means: int64 [n].

    The best of four starts; from 20,000 vectors on by mini-batch k-means (Sculley 2010). InputError for more clusters
    than vectors, or values that are not finite.
    """
    clusters = require("sklearn.cluster", why="clustering of vectors")
    _check(vectors, vectors)
    if not 1 <= count <= len(vectors):
        raise InputError(f"{count} clusters of {len(vectors)} vectors; expected 1 to as many as there are vectors")
    kind = clusters.MiniBatchKMeans if len(vectors) >= _MANY else clusters.KMeans
    told = require("sklearn.exceptions", why="clustering of vectors")
    with warnings.catch_warnings():  # fewer different vectors than clusters: the measure tells
        warnings.simplefilter("ignore", told.ConvergenceWarning)
        found: Ints = kind(n_clusters=count, n_init=_STARTS, random_state=seed).fit_predict(vectors).astype(np.int64)
    return found


def _check(one: Vectors, two: Vectors) -> None:
    if one.ndim != 2 or two.ndim != 2 or one.shape[1] != two.shape[1] or not len(one) or not len(two):
        raise InputError(f"vectors of shapes {one.shape} and {two.shape}; expected [n, width] of one width, not empty")
    if not np.isfinite(one).all() or not np.isfinite(two).all():
        raise InputError("the vectors hold a value that is not finite (NaN or infinite)")
