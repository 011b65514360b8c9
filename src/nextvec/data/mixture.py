"""Several tasks in one training: batches of one task each, or of all tasks together.

Batches of one task (``ByTask``) keep in-batch negatives to texts of the same kind: answers of another task are told
apart by their style alone, and teach little. Mixed batches (``Mixed``) give every step a gradient of every task, as in
NV-Embed (arXiv 2405.17428). Legend: B examples of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec.data.sources import Source, cut, generator
from nextvec.types import Batch, Column, InputError, Ragged

__all__ = ["ByTask", "Mixed"]

_BLOCK = 4096  # tasks drawn at a time
_GROUPS = 1 << 40  # groups of one task are numbered below this


class ByTask:
    """Each step's batch is one of ``sources``' next, by name; ``task`` of the batch says whose.

    ``weights``: how often each is drawn, in proportion (None: all alike). Which one a step draws, and how many of its
    batches came before, depends on ``seed`` and the step alone.
    """

    def __init__(
        self, sources: Mapping[str, Source], *, weights: Mapping[str, float] | None = None, seed: int = 0
    ) -> None:
        self._sources, self._names, self._seed = dict(sources), list(sources), seed
        if not self._names:
            raise InputError("no source to draw from: name at least one")
        shares = dict.fromkeys(self._names, 1.0) if weights is None else dict(weights)
        if set(shares) != set(self._names) or not all(0 < share < math.inf for share in shares.values()):
            raise InputError(f"weights are {shares}; expected a positive number for each of {', '.join(self._names)}")
        drawn = np.array([shares[name] for name in self._names])
        self._odds = drawn / drawn.sum()
        self._blocks: list[NDArray[np.int64]] = []
        self._before = np.zeros((1, len(self._names)), dtype=np.int64)

    def place(self, step: int) -> tuple[str, int]:
        """The task of ``step``, and how many of its batches came before."""
        if step < 0:
            raise InputError(f"step {step}: must be 0 or more")
        block, i = divmod(step, _BLOCK)
        while len(self._blocks) <= block:
            made = generator(self._seed, len(self._blocks)).choice(len(self._names), _BLOCK, p=self._odds)
            self._blocks.append(made)
            counts = self._before[-1] + np.bincount(made, minlength=len(self._names))
            self._before = np.vstack([self._before, counts])
        drawn = self._blocks[block]
        which = int(drawn[i])
        return self._names[which], int(self._before[block, which] + (drawn[:i] == which).sum())

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        name, number = self.place(step)
        return Batch(self._sources[name].batch(number, part=part, parts=parts).columns, task=name)


class Mixed:
    """Each step's batch is one of every source, end to end: B is the sum of their batch sizes, which are the shares.

    All must have the same columns. Added are "task" (int64 [B], the place of the name in ``sources``) and, where
    ``temperatures`` are given by name, "temperature" (float32 [B]), which ``InfoNCE`` reads. Groups of different tasks
    are kept apart.
    """

    def __init__(self, sources: Mapping[str, Source], *, temperatures: Mapping[str, float] | None = None) -> None:
        self._sources, self._temperatures = dict(sources), dict(temperatures or {})
        if not self._sources:
            raise InputError("no source to mix: name at least one")
        if temperatures is not None and set(temperatures) != set(self._sources):
            raise InputError(
                f"temperatures are given for {sorted(temperatures)}; the tasks are {sorted(self._sources)}"
            )

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        made = []
        for number, (name, source) in enumerate(self._sources.items()):
            batch = source.batch(step)
            own: dict[str, Any] = dict(batch.columns)
            if "group" in own:
                own["group"] = batch.tensor("group") + number * _GROUPS
            own["task"] = torch.full((batch.size,), number)
            if self._temperatures:
                own["temperature"] = torch.full((batch.size,), self._temperatures[name])
            made.append(own)
        names = set(made[0])
        for name, own in zip(self._sources, made, strict=True):
            if set(own) != names:
                raise InputError(f"task {name!r} has the columns {sorted(own)}; the first has {sorted(names)}")
        return cut(Batch({name: _joined([own[name] for own in made]) for name in made[0]}), part, parts)


def _joined(columns: list[Column]) -> Column:
    ragged = [column for column in columns if isinstance(column, Ragged)]
    if not ragged:
        return torch.cat([column for column in columns if not isinstance(column, Ragged)])
    if len(ragged) < len(columns):
        raise InputError("a column is ragged in one task and a plain tensor in another")
    return Ragged(torch.cat([column.values for column in ragged]), torch.cat([column.lengths for column in ragged]))
