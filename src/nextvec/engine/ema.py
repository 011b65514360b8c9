"""Moving averages of weights: of a target network that follows a trained one, and of the weights to evaluate.

    target <- decay * target + (1 - decay) * online

Both work on parameters sharded by ``fully_shard``: every process moves its own part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from nextvec.types import InputError

__all__ = ["WeightAverage", "update"]


@torch.no_grad()
def update(target: nn.Module, online: nn.Module, decay: float) -> None:
    """Move ``target``'s parameters towards ``online``'s and copy its buffers (those that are saved, not caches).

    decay: 0 copies, 1 changes nothing. InputError where names or shapes differ; then nothing has changed.
    """
    if not 0 <= decay <= 1:
        raise InputError(f"decay is {decay}; expected a number from 0 to 1")
    pairs = _pairs(dict(target.named_parameters()), dict(online.named_parameters()), "parameter")
    buffers = _pairs(_saved_buffers(target), _saved_buffers(online), "buffer")
    _move([own for own, _ in pairs], [other for _, other in pairs], decay)
    for own, other in buffers:
        own.copy_(other)


def _saved_buffers(module: nn.Module) -> dict[str, Tensor]:
    saved = module.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in module.named_buffers() if name in saved}


def _pairs(target: dict[str, Tensor], online: dict[str, Tensor], what: str) -> list[tuple[Tensor, Tensor]]:
    lone = sorted(target.keys() ^ online.keys())
    if lone:
        where = "the target" if lone[0] in target else "the online network"
        raise InputError(f"only {where} has the {what} {lone[0]!r}: target and online network must be built alike")
    for name, own in target.items():
        if own.shape != online[name].shape:
            raise InputError(
                f"the {what} {name!r} is {list(own.shape)} in the target and {list(online[name].shape)} in the online"
                " network: they must be built alike"
            )
    return [(_local(own), _local(online[name])) for name, own in target.items()]


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; any other tensor as it is. Without a graph."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _move(targets: list[Tensor], sources: list[Tensor], decay: float) -> None:
    floats = [(t, s.to(t.dtype)) for t, s in zip(targets, sources, strict=True) if t.is_floating_point()]
    if floats:
        torch._foreach_lerp_([t for t, _ in floats], [s for _, s in floats], 1 - decay)
    for t, s in zip(targets, sources, strict=True):
        if not t.is_floating_point():
            t.copy_(s)


class WeightAverage:
    """A running average of the weights of ``method`` that are trained, for evaluation and export.

    It begins as the weights themselves. The decay of the t-th update (from 1) is ``min(decay, (1 + t) / (10 + t))``, so
    that a short run is not held at its beginning (the warm-up of TensorFlow's ExponentialMovingAverage). Averages of
    half-precision weights are kept in float32, where small steps do not round away.
    """

    def __init__(self, method: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"the decay of a weight average is {decay}; expected a number from 0 to below 1")
        self.decay, self._method = decay, method
        self._weights = {name: p for name, p in method.named_parameters() if p.requires_grad}
        if not self._weights:
            raise InputError("no weights to average: none of the parameters needs a gradient")
        self._averages = {name: _start(parameter) for name, parameter in self._weights.items()}
        self._swapped = False

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after optimiser step ``step`` (from 1)."""
        if self._swapped:
            raise InputError("the weight average was asked to move while it stands in for the weights")
        decay = min(self.decay, (1 + step) / (10 + step))
        own = [_local(average) for average in self._averages.values()]
        _move(own, [_local(parameter) for parameter in self._weights.values()], decay)

    def state_tensors(self) -> dict[str, Tensor]:
        """The averages themselves (no copies), by the parameters' names."""
        return dict(self._averages)

    @torch.no_grad()
    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Copy ``tensors`` in. InputError naming the first that is missing or misshaped; then nothing has changed."""
        for name, own in self._averages.items():
            if name not in tensors:
                raise InputError(f"the weight average lacks {name!r}: it was saved for another model")
            if tensors[name].shape != own.shape:
                shape = list(tensors[name].shape)
                raise InputError(f"the weight average of {name!r} has the shape {shape}; expected {list(own.shape)}")
        for name, own in self._averages.items():
            own.copy_(tensors[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the method has the averaged weights; after, its own again, bit for bit."""
        if self._swapped:
            raise InputError("the weight average already stands in for the weights")
        kept = {name: _local(parameter).clone() for name, parameter in self._weights.items()}
        self._swapped = True
        try:
            self._write(self._averages)
            yield
        finally:
            self._write(kept)
            self._swapped = False

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        for module in self._method.modules():
            # A sharded module may still hold the gathered weights of its last forward, and would go on using them.
            if isinstance(module, FSDPModule):
                module.reshard()
        for name, parameter in self._weights.items():
            _local(parameter).copy_(_local(values[name]))


def _start(parameter: nn.Parameter) -> Tensor:
    copy = parameter.detach().clone()
    return copy.float() if copy.dtype in (torch.float16, torch.bfloat16) else copy
