"""One module over many processes with PyTorch's own engines: DDP (a copy each) or ``fully_shard`` (FSDP2, a part each).

Both average gradients over the processes; the engine multiplies by their number where it means a sum.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from nextvec.engine import dist
from nextvec.types import Batch, InputError, Outputs, did_you_mean

__all__ = ["STRATEGIES", "Parallel"]

STRATEGIES = ("auto", "single", "ddp", "fsdp")


class Parallel:
    """The method's forward over all processes. ``strategy``: "auto" is "ddp" where there are several, else "single".

    ``compile``: the forward goes through torch.compile.
    """

    def __init__(self, method: nn.Module, *, strategy: str = "auto", bf16: bool = False, compile: bool = False) -> None:
        if strategy not in STRATEGIES:
            raise InputError(
                f"strategy is {strategy!r}; expected {', '.join(STRATEGIES)}{did_you_mean(strategy, STRATEGIES)}"
            )
        several = dist.world() > 1
        if strategy in ("ddp", "fsdp") and not several:
            raise InputError(f"strategy {strategy!r} needs several processes: start them with torchrun")
        self.sharded = strategy == "fsdp"
        self.module: nn.Module = method
        self._ddp: DistributedDataParallel | None = None
        if self.sharded:
            _shard(method, bf16=bf16)
        elif several and any(parameter.requires_grad for parameter in method.parameters()):
            # Some methods leave parameters out of some steps (a drawn layer, a curriculum).
            self._ddp = DistributedDataParallel(method, find_unused_parameters=True, broadcast_buffers=False)
        self._forward: Callable[[Batch], Any] = self._ddp or method
        if compile:
            self._forward = torch.compile(self._forward)

    def __call__(self, batch: Batch) -> Outputs:
        """The method's outputs for this process's part of the batch."""
        return cast(Outputs, self._forward(batch))

    @contextlib.contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Within, gradients stay in this process unless ``last``: they are averaged once per step."""
        if self._ddp is not None and not last:
            with self._ddp.no_sync():
                yield
            return
        if self.sharded:
            cast(FSDPModule, self.module).set_requires_gradient_sync(last)
        yield


def _shard(method: nn.Module, *, bf16: bool) -> None:
    """Shard each transformer block (the members of every ModuleList) by itself, then what is left at the root."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32)
    options: dict[str, Any] = {"mp_policy": policy}
    for module in list(method.modules()):
        if isinstance(module, nn.ModuleList):
            for block in module:
                if any(True for _ in block.parameters()):
                    fully_shard(block, **options)
    fully_shard(method, **options)
