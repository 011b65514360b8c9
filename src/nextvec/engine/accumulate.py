"""Gradients of one optimiser step, exact for any division into micro-batches and processes.

    loss = sum over example terms  w * (sum over all micro-batches and processes) / (count over all of them)
         + sum over batch terms    w * mean over the gathered global batch

Batch terms (every example depends on all others) run in two passes: embed without graph, differentiate the objective
once with respect to the gathered embeddings, then run each micro-batch again, with the random numbers it had, and
send those gradients through it. Memory is that of one micro-batch plus the embeddings, the gradient that of the whole
batch. The idea is that of Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
(arXiv 2101.06983). Legend: M micro-batches of this process, W processes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nextvec.engine import dist
from nextvec.engine.parallel import Parallel
from nextvec.objectives.base import Objective
from nextvec.types import Batch, InputError, Outputs, Ragged, Term

__all__ = ["Losses", "backward", "divide", "tokens"]

Part = tuple[float, Objective]


@dataclass(slots=True)
class Losses:
    """What one step cost: the whole loss, and the objectives' logs averaged over micro-batches and processes."""

    loss: float
    logs: dict[str, float] = field(default_factory=dict)


def backward(
    model: Parallel,
    objective: Objective,
    micros: Sequence[Batch],
    *,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Losses:
    """Add the gradient of the whole step to ``.grad`` of the model's and the objective's parameters.

    micros: this process's micro-batches; every process must bring the same number of them.
    """
    parts = list(objective.parts())
    examples = [part for part in parts if part[1].scope == "example"]
    batches = [part for part in parts if part[1].scope == "batch"]
    step = _Step(model, examples, batches, autocast)
    counts = [_known_count(part[1], micros) for part in examples]
    states: list[_Random | None] = [None] * len(micros)
    kept: Outputs | None = None
    if len(micros) == 1:
        with model.accumulating(last=True):
            kept = step.forward(micros[0])
        seen = [step.look(kept, micros[0], counts)]
    elif batches or any(count is None for count in counts):
        seen = []
        for i, micro in enumerate(micros):
            states[i] = _Random()
            with torch.no_grad():
                seen.append(step.look(step.forward(micro), micro, counts))
    else:
        seen = []
    totals = dist.sum_floats([_total(count, i, seen) for i, count in enumerate(counts)])
    if not batches and not any(totals):
        raise InputError(
            "nothing in this step counts towards the loss (every target is masked, or every sequence too short): give "
            "longer sequences or shorter prompts"
        )
    gradients, losses = step.batch_stage(seen, micros)
    for i, micro in enumerate(micros):
        state, last = states[i], i == len(micros) - 1
        if state is not None:
            state.restore()
        with model.accumulating(last=last):
            out = kept if kept is not None else step.forward(micro)
            surrogate = step.surrogate(out, micro, totals, gradients[i] if gradients else {}, losses)
            torch.autograd.backward(surrogate)
        kept = None
    dist.average_(p.grad for p in objective.parameters() if p.grad is not None)
    return losses.finish(totals, [weight for weight, _ in examples])


@dataclass(slots=True)
class _Seen:
    """What the first look at a micro-batch kept: the counts of example terms, and what batch terms read."""

    counts: list[float]
    reads: dict[str, Tensor]


class _Running:
    """Sums of the example terms and logs of this process, until ``finish`` adds them over all processes."""

    def __init__(self, examples: int, batch_loss: float, batch_logs: dict[str, float]) -> None:
        self.sums = [0.0] * examples
        self.batch_loss, self.batch_logs = batch_loss, batch_logs
        self.logs: dict[str, list[float]] = {}

    def add(self, i: int, term: Term) -> None:
        self.sums[i] += float(term.sum.detach())
        for key, value in term.logs.items():
            pair = self.logs.setdefault(key, [0.0, 0.0])
            pair[0] += value * term.count
            pair[1] += term.count

    def finish(self, totals: Sequence[float], weights: Sequence[float]) -> Losses:
        names = sorted(self.logs)
        flat = dist.sum_floats([*self.sums, *(value for name in names for value in self.logs[name])])
        sums, rest = flat[: len(self.sums)], flat[len(self.sums) :]
        loss = self.batch_loss + sum(w * s / max(t, 1.0) for w, s, t in zip(weights, sums, totals, strict=True))
        logs = {name: rest[2 * i] / max(rest[2 * i + 1], 1.0) for i, name in enumerate(names)}
        return Losses(loss, {**logs, **self.batch_logs})


class _Step:
    """The pieces of one step that share the model and the terms."""

    def __init__(
        self,
        model: Parallel,
        examples: Sequence[Part],
        batches: Sequence[Part],
        autocast: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        self.model, self.examples, self.batches, self.autocast = model, examples, batches, autocast
        self.reads = list(dict.fromkeys(name for _, objective in batches for name in objective.reads))

    def forward(self, micro: Batch) -> Outputs:
        with self.autocast():
            out = self.model(micro)
        # Objectives work in float32 whatever the model's arithmetic: sums over many items lose bits in bfloat16.
        return {name: _at_least_float32(tensor) for name, tensor in out.items()}

    def look(self, out: Outputs, micro: Batch, counts: Sequence[float | None]) -> _Seen:
        missing = [name for name in self.reads if name not in out]
        if missing:
            raise InputError(
                f"the objective reads {missing[0]!r}, which the outputs lack (found: {', '.join(sorted(out))})"
            )
        with torch.no_grad():
            found = [
                0.0 if count is not None else objective(out, micro).count
                for count, (_, objective) in zip(counts, self.examples, strict=True)
            ]
        return _Seen(found, {name: out[name].detach() for name in self.reads})

    def batch_stage(self, seen: Sequence[_Seen], micros: Sequence[Batch]) -> tuple[list[dict[str, Tensor]], _Running]:
        """Per micro-batch the gradients of the batch terms with respect to what they read; and the running sums."""
        if not self.batches:
            return [], _Running(len(self.examples), 0.0, {})
        gathered, offsets = {}, {}
        for name in self.reads:
            rows, offsets[name] = dist.gather_rows(torch.cat([one.reads[name] for one in seen]))
            gathered[name] = rows.requires_grad_(rows.is_floating_point())
        columns = self._columns(micros)
        total: Tensor | None = None
        logs: dict[str, float] = {}
        for weight, objective in self.batches:
            term = objective(gathered, columns)
            total = weight * term.mean if total is None else total + weight * term.mean
            logs.update(term.logs)
        assert total is not None
        torch.autograd.backward(total)
        gradients: list[dict[str, Tensor]] = [{} for _ in seen]
        for name in self.reads:
            gradient, start = gathered[name].grad, offsets[name]
            for own, one in zip(gradients, seen, strict=True):
                stop = start + len(one.reads[name])
                if gradient is not None:
                    own[name] = gradient[start:stop]
                start = stop
        return gradients, _Running(len(self.examples), float(total.detach()), logs)

    def _columns(self, micros: Sequence[Batch]) -> dict[str, Tensor]:
        """The columns that batch terms use, of the whole batch of all processes."""
        found: dict[str, Tensor] = {}
        for name in dict.fromkeys(name for _, objective in self.batches for name in objective.columns):
            if name in micros[0]:
                found[name], _ = dist.gather_rows(torch.cat([micro.tensor(name) for micro in micros]))
        return found

    def surrogate(
        self,
        out: Outputs,
        micro: Batch,
        totals: Sequence[float],
        gradients: Mapping[str, Tensor],
        losses: _Running,
    ) -> Tensor:
        """A scalar whose gradient is this micro-batch's share of the step's; times W, because gradients of the
        processes are averaged."""
        scalar: Tensor | None = None
        for i, (weight, objective) in enumerate(self.examples):
            term = objective(out, micro)
            losses.add(i, term)
            share = term.sum * (weight / max(totals[i], 1.0))
            scalar = share if scalar is None else scalar + share
        for name, gradient in gradients.items():
            share = (out[name] * gradient.to(out[name].dtype)).sum()
            scalar = share if scalar is None else scalar + share
        if scalar is None or not scalar.requires_grad:
            raise InputError("the loss does not depend on any trainable parameter: nothing to train")
        return scalar * dist.world()


class _Random:
    """The state of the random generators (CPU, and the current GPU), to run a forward pass again as it was."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu)


def _known_count(objective: Objective, micros: Sequence[Batch]) -> float | None:
    counts = [objective.count(micro) for micro in micros]
    return None if any(count is None for count in counts) else math.fsum(count or 0.0 for count in counts)


def _total(count: float | None, i: int, seen: Sequence[_Seen]) -> float:
    return count if count is not None else math.fsum(one.counts[i] for one in seen)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def tokens(batch: Batch) -> int:
    """Items of the batch: values of its ragged columns, or its examples where it has none."""
    ragged = [len(column.values) for column in batch.values() if isinstance(column, Ragged)]
    return sum(ragged) or batch.size


def divide(batch: Batch, micro: int | None) -> list[Batch]:
    """The micro-batches of this process's share: at most ``micro`` examples each (about; see below), None: one.

    All processes must make the same number, so that collectives meet: it follows from the largest share, and a
    process with a smaller one divides it more finely.
    """
    if micro is None:
        return [batch]
    if micro < 1:
        raise InputError(f"micro is {micro}; expected at least 1 example")
    sizes = dist.every(batch.size)
    number = min(min(sizes), math.ceil(max(sizes) / micro))
    each, more = divmod(batch.size, number)
    return batch.split([each + (i < more) for i in range(number)])
