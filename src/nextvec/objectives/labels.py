"""Labels known to people or to a dictionary: classes, yes or no, or a score, from logits.

    classes   loss_i = -log softmax(z_i)[y_i]
    binary    loss_i = log(1 + exp(-z_i)) where y_i = 1,  log(1 + exp(z_i)) where y_i = 0
    score     loss_i = (z_i - y_i)^2

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

KINDS = ("classes", "binary", "score")


class Labels(Objective):
    """Reads ``logits``: [B, C], or [B, 1] for "binary" and "score". The column ``label``: int64 [B] from 0 to C - 1, or
    float [B]. Logs its mean as ``name`` and, unless it is a score, the share of right answers as ``NAME_accuracy``."""

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
        return None if label is None else float(len(label))

    def forward(self, out: Outputs, batch: Columns) -> Term:
        logits = out[self.reads[0]]
        label = self._label(batch, logits)
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

    def _label(self, batch: Columns, logits: Tensor) -> Tensor:
        label, name = batch.get(self.columns[0]), self.columns[0]
        wide = logits.shape[1] if logits.ndim == 2 else 0
        if wide < 1 or (self.kind != "classes" and wide != 1):
            wanted = "[B, C]" if self.kind == "classes" else "[B, 1]"
            raise InputError(f"{self.reads[0]!r} is {list(logits.shape)}; expected {wanted}")
        if label is None or isinstance(label, Ragged) or label.shape != (len(logits),):
            raise InputError(f"labels of kind {self.kind!r} need a column {name!r} [{len(logits)}]")
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
