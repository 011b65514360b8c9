"""Optimisers: AdamW for everything, or Muon for hidden matrices with AdamW for the rest.

Which parameter goes where, by name and number of dimensions alone:

- *Tables* (a part of the dotted name contains "embed", ends in "_table", or is one of ``TABLES``) and *heads* (a part
  is "head" or "classifier", or ends in "_head") are never given to Muon; nor is what has not exactly two dimensions, or
  has one of size 1 (a vector in disguise). A token table that is also the output head counts as a table.
- Weight decay spares vectors (fewer than two dimensions: biases, gains) and tables: the rows of a table that a batch
  does not touch have no gradient, and decay alone would pull rare tokens to zero.
- Parameters that need no gradient are left out.

Legend: A x B a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from nextvec.types import InputError, did_you_mean

__all__ = ["Muon", "OptimConfig", "Optimizers", "is_table", "make_optimizer", "orthogonalise", "uses_muon"]

NAMES = ("adamw", "muon")
TABLES = frozenset({"table", "wte", "wpe", "shared", "tokens", "types", "positions"})
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


@dataclass(kw_only=True)
class OptimConfig:
    """name: "adamw" or "muon". lr: the highest learning rate; ``muon_lr``: that of Muon's matrices (None: ``lr``, which
    its updates, scaled to AdamW's size, can share). weight_decay is decoupled: ``w -= lr * weight_decay * w``."""

    name: str = "adamw"
    lr: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    muon_lr: float | None = None
    momentum: float = 0.95

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise InputError(
                f"optimiser {self.name!r} is unknown; expected {' or '.join(NAMES)}{did_you_mean(self.name, NAMES)}"
            )
        rates = {"lr": self.lr, "eps": self.eps, "weight_decay": self.weight_decay, "muon_lr": self.muon_lr or 0.0}
        for key, value in rates.items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{key} is {value}; expected a finite number, not negative")
        shares = {"momentum": self.momentum, **{f"betas[{i}]": beta for i, beta in enumerate(self.betas)}}
        for key, value in shares.items():
            if not 0 <= value < 1:
                raise InputError(f"{key} is {value}; expected a number from 0 to below 1")
        if len(self.betas) != 2:
            raise InputError(f"betas has {len(self.betas)} values; expected two")


def is_table(name: str) -> bool:
    """Whether the parameter ``name`` is a table of tokens or positions (see the rule above)."""
    return any("embed" in part or part.endswith("_table") or part in TABLES for part in name.lower().split("."))


def uses_muon(name: str, parameter: Tensor) -> bool:
    """Whether ``parameter`` is a hidden matrix, one that Muon takes (see the rule above)."""
    parts = name.lower().split(".")
    is_head = any(part in ("head", "classifier") or part.endswith("_head") for part in parts)
    return parameter.ndim == 2 and min(parameter.shape) > 1 and not is_head and not is_table(name)


def make_optimizer(named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> Optimizers:
    """The optimiser(s) of ``config`` over the parameters that need a gradient.

    InputError for a name or a parameter that comes twice, and where there is nothing to train.
    """
    chosen: dict[str, nn.Parameter] = {}
    names: dict[int, str] = {}
    for name, parameter in named_parameters:
        if name in chosen:
            raise InputError(
                f"two parameters are named {name!r}: names must differ, the optimiser's state goes by them"
            )
        if id(parameter) in names:
            raise InputError(f"{name!r} and {names[id(parameter)]!r} are one parameter: pass it once")
        names[id(parameter)] = name
        if parameter.requires_grad:
            chosen[name] = parameter
    if not chosen:
        raise InputError(f"nothing to train: none of {len(names)} parameters needs a gradient")
    matrices = {n: p for n, p in chosen.items() if config.name == "muon" and uses_muon(n, p)}
    optimisers: list[torch.optim.Optimizer] = []
    rest = {n: p for n, p in chosen.items() if n not in matrices}
    if rest:
        optimisers.append(_adamw(rest, config))
    if matrices:
        rate = config.lr if config.muon_lr is None else config.muon_lr
        optimisers.append(
            Muon(list(matrices.values()), lr=rate, momentum=config.momentum, weight_decay=config.weight_decay)
        )
    return Optimizers(chosen, optimisers)


def _adamw(parameters: dict[str, nn.Parameter], config: OptimConfig) -> torch.optim.AdamW:
    decayed = [p for n, p in parameters.items() if p.ndim >= 2 and not is_table(n)]
    spared = [p for n, p in parameters.items() if p.ndim < 2 or is_table(n)]
    groups = [
        {"params": members, "weight_decay": decay}
        for members, decay in ((decayed, config.weight_decay), (spared, 0.0))
        if members
    ]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters.values())
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), eps=config.eps, fused=fused
    )


class Optimizers:
    """One or two torch optimisers that step together; their state goes by the parameters' names."""

    def __init__(self, parameters: dict[str, nn.Parameter], optimisers: list[torch.optim.Optimizer]) -> None:
        self.optimisers = optimisers
        self._names = {parameter: name for name, parameter in parameters.items()}
        for group in self._groups():
            group["base_lr"] = group["lr"]

    def _groups(self) -> Iterable[dict[str, Any]]:
        for optimiser in self.optimisers:
            yield from optimiser.param_groups

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for optimiser in self.optimisers:
            optimiser.step()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)

    def set_lr(self, factor: float) -> None:
        """Set each group's learning rate to ``factor`` times the one it was made with."""
        for group in self._groups():
            group["lr"] = group["base_lr"] * factor

    def initialise(self) -> None:
        """Make the state that the first step would make, where it is missing: zeros, which change nothing."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                for parameter in group["params"]:
                    state = optimiser.state[parameter]
                    if state:
                        continue
                    if isinstance(optimiser, Muon):
                        state["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
                        continue
                    on = parameter.device if group["fused"] else torch.device("cpu")
                    state["step"] = torch.zeros((), dtype=torch.float32, device=on)
                    state["exp_avg"] = torch.zeros_like(parameter, requires_grad=False)
                    state["exp_avg_sq"] = torch.zeros_like(parameter, requires_grad=False)

    def state_tensors(self) -> dict[str, Tensor]:
        """The state itself (no copies) as ``optim.<parameter>.<what>``, complete even before the first step."""
        self.initialise()
        tensors: dict[str, Tensor] = {}
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                for parameter in group["params"]:
                    for key, value in optimiser.state[parameter].items():
                        tensors[f"optim.{self._names[parameter]}.{key}"] = value
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Copy ``tensors`` (as ``state_tensors`` gave them) into the state.

        InputError naming the first key that is missing, has another shape, or belongs to no parameter here; then
        nothing has changed.
        """
        own = self.state_tensors()
        for key, value in own.items():
            if key not in tensors:
                raise InputError(f"the optimiser's state lacks {key!r}: it was saved for another model or optimiser")
            if tensors[key].shape != value.shape:
                raise InputError(f"{key!r} has the shape {list(tensors[key].shape)}; expected {list(value.shape)}")
        for key in tensors:
            if key not in own:
                raise InputError(
                    f"the optimiser's state has {key!r}, which no parameter here has{did_you_mean(key, own)}"
                )
        with torch.no_grad():
            for key, value in own.items():
                value.copy_(tensors[key])


class Muon(torch.optim.Optimizer):
    """Muon (K. Jordan 2024, kellerjordan.github.io/posts/muon): momentum whose singular values are all set near 1.

    The update is scaled by ``0.2 * sqrt(max(A, B))``, which gives it the root mean square of AdamW's, so that learning
    rate and weight decay can be shared (Liu et al. 2025, "Muon is Scalable for LLM Training", arXiv 2502.16982).
    ``torch.optim.Muon`` is the same but always iterates in bfloat16, which took 25 to 90 times as long as float32 on a
    CPU without bfloat16 arithmetic; here the iteration is in float32 but on a GPU.
    """

    def __init__(self, params: list[nn.Parameter], *, lr: float, momentum: float, weight_decay: float) -> None:
        for parameter in params:
            if parameter.ndim != 2:
                raise InputError(f"Muon takes matrices; got a parameter of shape {list(parameter.shape)}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient (Nesterov momentum, decoupled weight decay)."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer = state["momentum_buffer"]
                buffer.lerp_(parameter.grad, 1 - momentum)
                update = orthogonalise(parameter.grad.lerp(buffer, momentum))
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.add_(update, alpha=-rate * 0.2 * math.sqrt(max(parameter.shape)))


def orthogonalise(matrix: Tensor) -> Tensor:
    """``matrix`` [A, B] with its singular vectors kept and its non-zero singular values brought near 1 (0.7 to 1.2).

    Five Newton-Schulz steps ``X <- a X + (b S + c S S) X`` with S = X X^T; the coefficients are Jordan's. A sharded
    matrix is gathered whole, so that the result does not depend on the number of processes; each keeps its own part.
    """
    if isinstance(matrix, DTensor):
        mesh = matrix.device_mesh
        whole = DTensor.from_local(
            orthogonalise(matrix.full_tensor()), mesh, [Replicate()] * mesh.ndim, run_check=False
        )
        return cast(Tensor, whole.redistribute(placements=matrix.placements))
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x.to(torch.bfloat16 if x.is_cuda else torch.float32)
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrix.dtype)
