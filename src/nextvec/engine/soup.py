"""Soups: averages of the weights of several models that share an origin (Wortsman et al. 2022, arXiv 2203.05482)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor

from nextvec.types import InputError, NotFoundError, StorageError

__all__ = ["greedy_soup", "soup"]

Weights: TypeAlias = "Mapping[str, Tensor] | Path"
"""A state dict, or a folder with the model in one or more .safetensors files."""


def soup(models: Sequence[Weights], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """The average of ``models``, tensor by tensor: uniform, or with ``weights`` (not negative; their sum becomes 1).

    Floating-point tensors are averaged in float64 and returned in the dtype of the first model; all others must agree.
    InputError naming the first key that is missing, superfluous, of another shape or dtype, or does not agree.
    """
    if not models:
        raise InputError("a soup needs at least one model")
    shares = _shares(len(models), weights)
    loaded = [_tensors(model) for model in models]
    first = loaded[0]
    for i, other in enumerate(loaded[1:], start=1):
        _match(first, other, i)
    return {key: _average([model[key] for model in loaded], shares) for key in first}


def greedy_soup(
    candidates: Sequence[Weights], score: Callable[[dict[str, Tensor]], float]
) -> tuple[dict[str, Tensor], list[int]]:
    """Start from the best candidate by ``score`` (higher is better); add the others, best first, each where the uniform
    average with it scores no lower. Returns the average and the numbers of the candidates in it, in order of addition.

    ``score`` should look at held-out data that the final figure is not measured on. Ties go to the earlier candidate.
    """
    if not candidates:
        raise InputError("a greedy soup needs at least one candidate")
    scores = [_scored(score, soup([candidate])) for candidate in candidates]
    order = sorted(range(len(candidates)), key=lambda i: -scores[i])
    chosen, best = order[:1], scores[order[0]]
    mixture = soup([candidates[chosen[0]]])
    for i in order[1:]:
        trial = soup([candidates[j] for j in [*chosen, i]])
        value = _scored(score, trial)
        if value >= best:
            chosen, best, mixture = [*chosen, i], value, trial
    return mixture, chosen


def _scored(score: Callable[[dict[str, Tensor]], float], model: dict[str, Tensor]) -> float:
    value = float(score(model))
    if math.isnan(value):
        raise InputError("the score of a soup is NaN; expected a number, higher for better")
    return value


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    if weights is None:
        return [1 / count] * count
    total = sum(weights)
    if len(weights) != count or not math.isfinite(total) or total <= 0 or min(weights) < 0:
        raise InputError(f"weights {list(weights)} for {count} models: expected one each, none negative, not all zero")
    return [weight / total for weight in weights]


def _tensors(model: Weights) -> Mapping[str, Tensor]:
    if isinstance(model, Mapping):
        return model
    files = sorted(model.glob("*.safetensors"))
    if not files:
        raise NotFoundError(f"{str(model)!r} holds no .safetensors file to average")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            part = load_file(file)
        except Exception as error:  # safetensors raises its own error type, outside the OSError family
            raise StorageError(f"cannot read {str(file)!r}: {error}") from error
        twice = tensors.keys() & part.keys()
        if twice:
            raise InputError(f"{str(model)!r} holds {min(twice)!r} in two files: a shard of a checkpoint is no model")
        tensors |= part
    return tensors


def _match(first: Mapping[str, Tensor], other: Mapping[str, Tensor], number: int) -> None:
    for key, tensor in first.items():
        if key not in other:
            raise InputError(f"model {number} lacks {key!r}, which model 0 has")
        found = other[key]
        if found.shape != tensor.shape or found.is_floating_point() != tensor.is_floating_point():
            raise InputError(
                f"{key!r} is {tensor.dtype} {list(tensor.shape)} in model 0 and {found.dtype} {list(found.shape)} in "
                f"model {number}"
            )
        if not tensor.is_floating_point() and not torch.equal(tensor, found):
            raise InputError(f"{key!r} ({tensor.dtype}) differs between models 0 and {number} and cannot be averaged")
    for key in other:
        if key not in first:
            raise InputError(f"model {number} has {key!r}, which model 0 lacks")


def _average(tensors: list[Tensor], shares: list[float]) -> Tensor:
    if not tensors[0].is_floating_point():
        return tensors[0].clone()
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor, share in zip(tensors, shares, strict=True):
        total.add_(tensor.to(torch.float64), alpha=share)
    return total.to(tensors[0].dtype)
