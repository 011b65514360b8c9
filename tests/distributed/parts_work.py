"""What the two processes of ``test_parts.py`` run."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from nextvec.engine import checkpoint, dist
from nextvec.engine.ema import WeightAverage, update
from nextvec.engine.optim import OptimConfig, Optimizers, make_optimizer
from nextvec.types import NextvecError

INFO = {"method": "small"}


class Small(nn.Module):
    """Sizes that two processes cannot divide evenly, one of them smaller than two; a target beside the online part."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 5)
        self.blocks = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5)])
        self.out = nn.Linear(5, 1)
        self.target = nn.Linear(5, 5).requires_grad_(False)
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.out(x) + self.target(x.detach()).sum(-1, keepdim=True)


def full(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def built(*, shard: bool, seed: int = 0) -> tuple[Small, Optimizers, WeightAverage]:
    torch.manual_seed(seed)
    model = Small()
    if shard:
        for block in model.blocks:
            fully_shard(block)
        fully_shard(model)
    return model, make_optimizer(model.named_parameters(), OptimConfig(name="muon", lr=0.02)), WeightAverage(model, 0.9)


def train(model: Small, optimizers: Optimizers, average: WeightAverage, steps: range) -> None:
    """Every process brings its half of the eight ids: the average of the gradients is that of the whole."""
    share = 8 // dist.world()
    for step in steps:
        ids = (torch.arange(8) * (step + 1)) % 7
        optimizers.zero_grad()
        model(ids[dist.rank() * share :][:share]).square().mean().backward()
        optimizers.step()
        model.seen += 1
        update(model.target, model.blocks[0], 0.9)
        average.update(step + 1)


def tensors(model: Small, optimizers: Optimizers, average: WeightAverage) -> dict[str, Tensor]:
    weights = {f"method.{name}": value for name, value in model.state_dict().items()}
    averages = {f"average.{name}": value for name, value in average.state_tensors().items()}
    return {**weights, **optimizers.state_tensors(), **averages, **checkpoint.rng_tensors()}


def comparable(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: full(value) for name, value in state.items() if not name.startswith("rng.")}


def trained(*, shard: bool, steps: int) -> dict[str, Tensor]:
    parts = built(shard=shard)
    train(*parts, range(steps))
    return comparable(tensors(*parts))


def trained_sharded(steps: int) -> dict[str, Tensor]:
    return trained(shard=True, steps=steps)


def averaged_output(*, shard: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs with averaged weights, before and after."""
    model, optimizers, average = built(shard=shard)
    train(model, optimizers, average, range(3))
    with torch.no_grad():
        before = model(torch.arange(7))
        with average.applied():
            within = model(torch.arange(7))
        return before, within, model(torch.arange(7))


def averaged_sharded() -> tuple[Tensor, Tensor, Tensor]:
    return averaged_output(shard=True)


def loaded_sharded(path: str) -> dict[str, Tensor]:
    """A checkpoint of one process, opened in two."""
    parts = built(shard=True, seed=6)
    state = {name: value for name, value in tensors(*parts).items() if not name.startswith("rng.")}
    checkpoint.load(Path(path), state)
    return comparable(tensors(*parts))


def interrupted(folder: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Six sharded steps at once, and three, saved, loaded into another seed's model, and three more."""
    torch.manual_seed(dist.rank())
    whole = trained(shard=True, steps=6)
    parts = built(shard=True)
    train(*parts, range(3))
    path = checkpoint.save(Path(folder), 3, tensors(*parts), INFO)
    parts = built(shard=True, seed=9)
    state = tensors(*parts)
    checkpoint.load(path, state)
    checkpoint.set_rng(state)
    assert checkpoint.latest(Path(folder)) == path
    train(*parts, range(3, 6))
    return whole, comparable(tensors(*parts))


def plain_saved(folder: str) -> str:
    """A checkpoint of replicas, as data-parallel training has them."""
    parts = built(shard=False)
    return str(checkpoint.save(Path(folder), 1, tensors(*parts), INFO))


def refusals(folder: str) -> list[Any]:
    """What each process is told when one of them fails: a missing random state in process 1, a full disk there."""
    base, told = Path(folder), []
    path = checkpoint.save(base, 1, {"w": torch.ones(3), "rng.cpu.0": torch.zeros(2)}, INFO)
    own = {"w": torch.zeros(3), f"rng.cpu.{dist.rank()}": torch.zeros(2)}
    try:
        checkpoint.load(path, own)
    except NextvecError as error:
        told.append((type(error).__name__, str(error), float(own["w"].sum())))
    real = checkpoint.HuggingFaceStorageWriter.write_data

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if dist.rank() == 1:
        checkpoint.HuggingFaceStorageWriter.write_data = refuse  # type: ignore[assignment]
    try:
        checkpoint.save(base, 2, {f"rng.cpu.{dist.rank()}": torch.zeros(2)}, INFO)
    except NextvecError as error:
        told.append((type(error).__name__, str(error), 0.0))
    finally:
        checkpoint.HuggingFaceStorageWriter.write_data = real  # type: ignore[method-assign]
    dist.barrier()
    return [told, sorted(file.name for file in base.iterdir())]
