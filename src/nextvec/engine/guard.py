"""Where NaN or infinity first appeared: the module, parameter or gradient to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from nextvec.types import Batch, NextvecError, Ragged

__all__ = ["NonFiniteError", "first_bad"]


class NonFiniteError(NextvecError):
    """A loss or gradient is NaN or infinite. The message names the step and the first module that went wrong."""


def first_bad(method: nn.Module, batch: Batch) -> str:
    """One line on the first thing that is not finite, in this order: the batch, the output of a module in the order in
    which they finish (the forward is run again, without gradients), a parameter, a gradient; else the objective.

    Random generators are left as they were; gradients too. With dropout the second run may draw other numbers.
    """
    for name, column in batch.items():
        bad = _count(column)
        if bad:
            return f"column {name!r} of the batch: {bad}"
    found = _run(method, batch)
    if found is not None:
        return found
    for name, parameter in method.named_parameters():
        bad = _count(parameter)
        if bad:
            return f"parameter {name}: {bad}"
    for name, parameter in method.named_parameters():
        bad = _count(parameter.grad) if parameter.grad is not None else None
        if bad:
            return f"the gradient of {name}: {bad}"
    return "the objective (all outputs, parameters and gradients of the method are finite)"


def _run(method: nn.Module, batch: Batch) -> str | None:
    found: list[str] = []
    names = {module: name for name, module in method.named_modules()}

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if not found:
            bad = _count(output)
            if bad:
                own = [n for n, p in module.named_parameters(recurse=False) if _count(p)]
                because = f"; its parameter {own[0]} is not finite" if own else ""
                label = names[module] or "the method"
                found.append(f"{label} ({type(module).__name__}): output has {bad}{because}")

    handles = [module.register_forward_hook(look) for module in method.modules()]
    on_gpu = any(parameter.is_cuda for parameter in method.parameters())
    devices = [torch.cuda.current_device()] if on_gpu else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            method(batch)
    except Exception as error:
        # What is not finite may make a later part fail (a decomposition, an index): the first finding says more.
        if not found:
            found.append(f"the forward pass fails: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _count(value: Any) -> str | None:
    """``"4 NaN and 0 inf of 1024 values"`` over all floating-point tensors in ``value``; None where all are finite."""
    nans = infinities = total = 0
    for tensor in _tensors(value):
        total += tensor.numel()
        if not bool(torch.isfinite(tensor).all()):
            nans += int(torch.isnan(tensor).sum())
            infinities += int(torch.isinf(tensor).sum())
    return f"{nans} NaN and {infinities} inf of {total} values" if nans or infinities else None


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, DTensor):
        value = value.to_local()
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value.detach()
    elif isinstance(value, Ragged):
        yield from _tensors(value.values)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))
