"""What the two processes run: each takes its share of one batch and returns what it found."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from small_models import Towers, batch, mixed
from torch import Tensor, nn

from nextvec.engine import dist
from nextvec.engine.accumulate import backward, divide
from nextvec.engine.ema import update
from nextvec.engine.parallel import Parallel
from nextvec.objectives.base import Objective
from nextvec.types import Batch, Ragged


def share(whole: Batch) -> Batch:
    """This process's contiguous part; sizes differ by at most one."""
    count, rank, world = whole.size, dist.rank(), dist.world()
    return whole.take(rank * count // world, (rank + 1) * count // world)


def full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[no-any-return]


def grads(*modules: nn.Module) -> dict[str, Tensor]:
    found = {}
    for i, module in enumerate(modules):
        for name, parameter in module.named_parameters():
            if parameter.grad is not None:
                found[f"{i}.{name.removeprefix('module.')}"] = full(parameter.grad).clone()
    return found


def gathered() -> Any:
    """Uneven rows: rank 0 brings two, rank 1 three."""
    own = torch.arange(2.0 + dist.rank())[:, None] + 10 * dist.rank()
    rows, start = dist.gather_rows(own)
    return rows[:, 0].tolist(), start, dist.sum_floats([1.0, dist.rank()]), dist.every(dist.rank() + 5)


class Leaves(nn.Module):
    """A model whose outputs are columns of the batch times a parameter: isolates the objective."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.scale = nn.Parameter(torch.ones(8, dtype=torch.float64))

    def forward(self, whole: Batch) -> dict[str, Tensor]:
        found = {}
        for name in self.names:
            column = whole[f"out.{name}"]
            rows = column.values if isinstance(column, Ragged) else column
            found[name] = rows * self.scale.mean() if rows.is_floating_point() else rows
        return found


def objective_case(module: str, name: str, rows: int) -> tuple[Leaves, Objective, Batch]:
    """The objective's own example as a batch; outputs that lie end to end are divided as the ragged column that
    has as many values."""
    cls = getattr(importlib.import_module(module), name)
    objective, outputs, columns = cls.example(rows, 5)
    lengths = {len(column.values): column.lengths for column in columns.values() if isinstance(column, Ragged)}
    outs = {
        f"out.{key}": value.detach() if len(value) == rows else Ragged(value.detach(), lengths[len(value)])
        for key, value in outputs.items()
    }
    return Leaves(tuple(outputs)), objective.double(), Batch(outs | columns)


def objective_gradient(module: str, name: str, rows: int, micro: int | None) -> dict[str, Tensor]:
    model, objective, whole = objective_case(module, name, rows)
    parallel = Parallel(model)
    losses = backward(parallel, objective, divide(share(whole), micro))
    return grads(model, objective) | {"loss": torch.tensor(losses.loss)}


def towers_gradient(strategy: str, micro: int | None) -> dict[str, Tensor]:
    torch.manual_seed(4)
    model, objective = Towers(dropout=0.0).double(), mixed().double()
    parallel = Parallel(model, strategy=strategy)
    losses = backward(parallel, objective, divide(share(batch(7)), micro))
    return grads(model, objective) | {"loss": torch.tensor(losses.loss)}


class Student(nn.Module):
    """Towers with an EMA copy of themselves as the target: the riskiest combination, when sharded."""

    def __init__(self) -> None:
        super().__init__()
        self.online, self.target = Towers(dropout=0.0), Towers(dropout=0.0)
        self.target.load_state_dict(self.online.state_dict())
        self.target.requires_grad_(False)

    def forward(self, whole: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.target(whole)
        return self.online(whole) | {"document": target["document"]}


def student_steps(strategy: str, micro: int | None, steps: int) -> dict[str, Tensor]:
    """Some SGD steps with two-pass batch terms, an EMA target and (with "fsdp") sharded parameters."""
    torch.manual_seed(4)
    model, objective = Student().double(), mixed().double()
    parallel = Parallel(model, strategy=strategy)
    parameters = [p for p in [*model.parameters(), *objective.parameters()] if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=0.5)
    for step in range(steps):
        optimiser.zero_grad()
        whole = batch(7, seed=step)
        backward(parallel, objective, divide(share(whole), micro))
        optimiser.step()
        update(model.target, model.online, 0.9)
    return {name: full(p.detach()).clone() for name, p in model.named_parameters()}


def method_gradient(package: str, name: str, micro: int | None) -> dict[str, Any]:
    """Loss and gradients of the method's toy batch, of which this process has its share."""
    from contracts import toy
    from nextvec import catalog

    method, whole = toy(catalog.find(package, name), double=True)
    objective = method.objective().double()
    losses = backward(Parallel(method), objective, divide(share(whole), micro))
    return {key.partition(".")[2]: value for key, value in grads(method).items()} | {"loss": losses.loss}


def fit_small(path: str, out: str, settings: list[str]) -> int:
    """``fit`` of the small method in the package "dropped_methods" below ``path``; the last step."""
    import sys

    from nextvec.training import fit

    sys.path.insert(0, path)
    try:
        return fit("small", path, out=out, set=settings, package="dropped_methods", device="cpu").report.step
    finally:  # the test's own process calls this, too
        sys.path.remove(path)
        for name in [name for name in sys.modules if name.startswith("dropped_methods")]:
            del sys.modules[name]
