"""How well frozen vectors order people by how long something takes to happen, where it has not happened to all yet.

    hazard of i at time t = h(t) exp(x_i w)                    proportional hazards; h drops out
    w = argmin  mean over events i of  log sum over j still at risk of exp(x_j w) - x_i w   +  alpha/2 |w|^2
    concordance = of pairs of which it is known who came first, the share whose risks are in that order (ties: half)

Columns are standardised before; people with events at one time are at risk together (Breslow). Source: Cox 1972;
Harrell 1982. Legend: n people, D width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextvec.types import InputError

__all__ = ["CoxProbe", "concordance", "fit_cox"]


class CoxProbe:
    """A fitted model: ``risk`` of vectors [n, D], higher for sooner."""

    def __init__(self, mean: NDArray[np.float64], scale: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        self.mean, self.scale, self.weights = mean, scale, weights

    def risk(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """float64 [n]."""
        found: NDArray[np.float64] = (np.asarray(vectors, dtype=np.float64) - self.mean) / self.scale @ self.weights
        return found


def fit_cox(
    vectors: ArrayLike, times: ArrayLike, events: ArrayLike, *, alpha: float = 0.1, steps: int = 25
) -> CoxProbe:
    """Fit on vectors [n, D], times [n] of the event or of the last sight, and whether it was the event, bool [n].

    Newton's method, each step halved until the loss falls. InputError for shapes that do not fit, and where nothing
    happened.
    """
    x, time, event = _checked(vectors, times, events)
    mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    x = (x - mean) / scale
    order = np.argsort(-time, kind="stable")  # those at risk at an event stand before it, the event itself included
    x, time, event = x[order], time[order], event[order]
    last = np.searchsorted(-time, -time, side="right") - 1  # ties are at risk together
    weights = np.zeros(x.shape[1])
    loss = _loss(x, event, last, weights, alpha)
    for _ in range(steps):
        gradient, curvature = _slopes(x, event, last, weights, alpha)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while size > 1e-4 and (new := _loss(x, event, last, weights - size * step, alpha)) > loss:
            size /= 2
        weights = weights - size * step
        done, loss = loss - new < 1e-9, new
        if done:
            break
    return CoxProbe(mean, scale, weights)


def _loss(
    x: NDArray[np.float64],
    event: NDArray[np.bool_],
    last: NDArray[np.int64],
    weights: NDArray[np.float64],
    alpha: float,
) -> float:
    score = x @ weights
    top = score.max()
    risk = np.log(np.cumsum(np.exp(score - top)))[last] + top
    return float((risk - score)[event].mean() + alpha / 2 * weights @ weights)


def _slopes(
    x: NDArray[np.float64],
    event: NDArray[np.bool_],
    last: NDArray[np.int64],
    weights: NDArray[np.float64],
    alpha: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    share = np.exp(x @ weights - (x @ weights).max())
    total = np.cumsum(share)[last]
    mean = np.cumsum(share[:, None] * x, axis=0)[last] / total[:, None]
    gradient = (mean - x)[event].mean(axis=0) + alpha * weights
    # Of every person, how much all events at which it was at risk weigh it.
    per_event = np.zeros(len(x))
    np.add.at(per_event, last[event], 1 / total[event])
    weight = share * np.cumsum(per_event[::-1])[::-1]
    second = (x * weight[:, None]).T @ x - mean[event].T @ mean[event]
    return gradient, second / event.sum() + alpha * np.eye(x.shape[1])


def concordance(times: ArrayLike, events: ArrayLike, risks: ArrayLike) -> float:
    """Harrell's C of risks [n]: 1 perfect, 0.5 by chance. InputError where no pair can be told apart."""
    risk, time, event = _checked(np.asarray(risks, dtype=np.float64)[:, None], times, events)
    right, pairs = 0.0, 0
    for i in np.flatnonzero(event):
        later = (time > time[i]) | ((time == time[i]) & ~event)
        pairs += int(later.sum())
        right += float((risk[i, 0] > risk[later, 0]).sum() + 0.5 * (risk[i, 0] == risk[later, 0]).sum())
    if not pairs:
        raise InputError("no two people of whom it is known who came first: a concordance does not exist")
    return right / pairs


def _checked(
    vectors: ArrayLike, times: ArrayLike, events: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    x, time, event = np.asarray(vectors, np.float64), np.asarray(times, np.float64), np.asarray(events, bool)
    if x.ndim != 2 or time.shape != x.shape[:1] or event.shape != time.shape or not np.isfinite(x).all():
        shapes = f"vectors {list(x.shape)}, times {list(time.shape)}, events {list(event.shape)}"
        raise InputError(f"{shapes}; expected one of each per person, all finite")
    if not event.any():
        raise InputError("nothing happened to anybody: there is nothing to fit to")
    return x, time, event
