"""Labels known to people or to a dictionary: a class, several, yes or no, or a score, from logits.

    classes   loss_i = -log softmax(z_i)[y_i]
    binary    loss_i = log(1 + exp(-z_i)) where y_i = 1,  log(1 + exp(z_i)) where y_i = 0
    score     loss_i = (z_i - y_i)^2
    several   loss_i = mean over the classes c that i has of  log(1 + exp(-z_ic))
                     + mean over those that it has not of  log(1 + exp(z_ic))

Legend: B items, C classes.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.types import Column, InputError, Ragged, Term

__all__ = ["KINDS", "Labels"]

KINDS = ("classes", "binary", "score", "several")


def known(label: Tensor) -> Tensor:
    """Which rows of ``label`` [B, C] are known, bool [B]: -1 marks the others."""
    return (label >= 0).all(dim=1)


class Labels(Objective):
    """Reads ``logits``: [B, C], or [B, 1] for "binary" and "score". The column ``label``: int64 [B] from 0 to C - 1;
    for "binary" and "score" any numbers [B]; for "several" [B, C] of 0 and 1, where a row of -1 is not known and is
    left out. Logs its mean as ``name`` and, of classes and yes or no, the share of right answers as
    ``NAME_accuracy``."""

    scope: Scope = "example"

    def __init__(
        self, kind: str = "classes", *, logits: str = "logits", label: str = "label", name: str = "labels"
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")
        self.kind, self.name = kind, name
        self.reads, self.columns = (logits,), (label,)

    def count(self, batch: Columns) -> float | None:
        label = batch.get(self.columns[0])
        if label is None or isinstance(label, Ragged):
            return None
        return float(known(label).sum()) if self.kind == "several" else float(len(label))

    def forward(self, out: Outputs, batch: Columns) -> Term:
        logits = out[self.reads[0]]
        label = self._label(batch, logits)
        if self.kind == "several":
            return self._several(logits, label)
        if self.kind == "classes":
            loss = functional.cross_entropy(logits, label, reduction="sum")
            right = logits.argmax(1) == label
        elif self.kind == "binary":
            loss = functional.binary_cross_entropy_with_logits(logits[:, 0], label.to(logits.dtype), reduction="sum")
            right = (logits[:, 0] > 0) == (label > 0.5)
        else:
            loss = (logits[:, 0] - label.to(logits.dtype)).square().sum()
            right = None
        count = max(len(label), 1)
        logs = {self.name: float(loss.detach()) / count}
        if right is not None:
            logs[f"{self.name}_accuracy"] = float(right.sum()) / count
        return Term(loss, float(len(label)), logs)

    def _several(self, logits: Tensor, label: Tensor) -> Term:
        rows = known(label)
        z, y = logits[rows], label[rows].to(logits.dtype)
        has = (functional.softplus(-z) * y).sum(1) / y.sum(1).clamp(min=1)
        has_not = (functional.softplus(z) * (1 - y)).sum(1) / (1 - y).sum(1).clamp(min=1)
        loss = (has + has_not).sum()
        return Term(loss, float(len(z)), {self.name: float(loss.detach()) / max(len(z), 1)})

    def _label(self, batch: Columns, logits: Tensor) -> Tensor:
        label, name = batch.get(self.columns[0]), self.columns[0]
        wide = logits.shape[1] if logits.ndim == 2 else 0
        one = self.kind in ("binary", "score")
        if wide < 1 or (one and wide != 1):
            wanted = "[B, 1]" if one else "[B, C]"
            raise InputError(f"{self.reads[0]!r} is {list(logits.shape)}; expected {wanted}")
        shape = tuple(logits.shape) if self.kind == "several" else (len(logits),)
        if label is None or isinstance(label, Ragged) or label.shape != shape:
            raise InputError(f"labels of kind {self.kind!r} need a column {name!r} {list(shape)}")
        if self.kind == "classes" and len(label):
            low, high = int(label.min()), int(label.max())
            if label.is_floating_point() or low < 0 or high >= wide:
                raise InputError(f"{name!r} goes from {low} to {high}; expected whole numbers from 0 to {wide - 1}")
        return label

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        logits = torch.randn(rows, 4, generator=random, dtype=torch.float64)
        return cls(), {"logits": logits.requires_grad_()}, {"label": torch.randint(0, 4, (rows,), generator=random)}
