"""Probes: what can be read off frozen vectors by a linear map, measured on examples that the map was not fitted to.

    W, b = argmin  mean |x W + b - y|^2 + alpha s^2 |W|^2          (ridge regression; b is not penalised)
    R^2  = 1 - sum (y - y')^2 / sum (y - mean(y))^2                (per output, over the held-out examples)

s^2 is the mean variance of the values of x, so that ``alpha`` means the same whatever the vectors' scale. R^2 is 1
where the outputs are read exactly, 0 for a guess of their mean, negative for worse.

Source: ridge regression, Hoerl and Kennard 1970. Legend: n examples, D width of a vector, K outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextvec.types import InputError

__all__ = ["LinearProbe", "fit_ridge", "held_out_r2", "r_squared"]


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A fitted map: weights float64 [D, K], bias float64 [K]."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def predict(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """Outputs [n, K] of vectors [n, D]."""
        x = _matrix(vectors, "vectors")
        if x.shape[1] != len(self.weights):
            raise InputError(f"vectors of width {x.shape[1]} for a probe of width {len(self.weights)}")
        return x @ self.weights + self.bias


def fit_ridge(vectors: ArrayLike, outputs: ArrayLike, *, alpha: float = 1e-4) -> LinearProbe:
    """The ridge regression of outputs [n] or [n, K] on vectors [n, D]; ``alpha`` >= 0 (0: the least-squares solution of
    least norm). InputError for shapes that do not fit and for values that are not finite."""
    x, y = _pair(vectors, outputs)
    if not alpha >= 0:
        raise InputError(f"alpha is {alpha}; expected 0 or more")
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_mean, y - y_mean
    if alpha == 0 or not x.any():
        weights = np.linalg.lstsq(x, y, rcond=None)[0]
    else:
        gram = x.T @ x / len(x)
        gram[np.diag_indices_from(gram)] += alpha * np.trace(gram) / len(gram)
        weights = np.linalg.solve(gram, x.T @ y / len(x))
    return LinearProbe(weights, y_mean - x_mean @ weights)


def r_squared(outputs: ArrayLike, predicted: ArrayLike) -> float:
    """R^2 of predictions of outputs, both [n] or [n, K]; the mean over the K outputs, each of the same weight.

    InputError where an output is constant: then there is nothing to explain.
    """
    y, guess = _pair(outputs, predicted)
    if y.shape != guess.shape:
        raise InputError(f"{list(guess.shape)} predictions for outputs {list(y.shape)}")
    spread = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    if not (spread > 0).all():
        raise InputError(f"output {int(np.argmin(spread))} is constant over {len(y)} examples: R^2 does not exist")
    return float((1 - ((y - guess) ** 2).sum(axis=0) / spread).mean())


def held_out_r2(train: tuple[ArrayLike, ArrayLike], test: tuple[ArrayLike, ArrayLike], *, alpha: float = 1e-4) -> float:
    """R^2 on ``test`` of the ridge regression fitted to ``train``, each (vectors [n, D], outputs [n] or [n, K]).

    What belongs together (steps of one sequence, sentences of one text) must lie on one side of the split.
    """
    return r_squared(_matrix(test[1], "outputs"), fit_ridge(*train, alpha=alpha).predict(test[0]))


def _matrix(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array: NDArray[Any] = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not array.size:
        raise InputError(f"{name} of shape {list(array.shape)}; expected [n, width] with at least one row")
    if not np.isfinite(array).all():
        raise InputError(f"{name} hold a value that is not finite (NaN or infinite)")
    return array


def _pair(vectors: ArrayLike, outputs: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = _matrix(vectors, "vectors"), _matrix(outputs, "outputs")
    if len(x) != len(y) or len(x) < 2:
        raise InputError(f"{len(x)} vectors and {len(y)} outputs; expected the same number, at least 2")
    return x, y
