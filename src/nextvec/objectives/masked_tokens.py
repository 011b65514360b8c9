"""Masked-token prediction: the cross entropy of the tokens that were hidden, over texts laid end to end.

    loss = mean over hidden tokens of  -log softmax(logits_t)[x_t]

Source: Devlin et al. 2019, BERT (arXiv 1810.04805).
Legend: B texts, N tokens end to end, M hidden tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.types import Column, InputError, Ragged, Term

__all__ = ["MaskedTokens", "hidden_rows"]


def hidden_rows(labels: Ragged) -> Tensor:
    """The places of the hidden tokens, int64 [M]: where the label is not negative (-100 marks the others)."""
    rows: Tensor = (labels.values >= 0).nonzero().squeeze(1)
    return rows


class MaskedTokens(Objective):
    """Reads ``logits`` [M, V], a row for each of ``hidden_rows(labels)``. Logs its mean as ``name``.

    ``labels``: a Ragged column of int64 ids [N], as ``data.masking.Masking`` makes it. A batch in which nothing is
    hidden has a loss of 0 over a count of 0.
    """

    scope: Scope = "example"

    def __init__(self, *, logits: str = "logits", labels: str = "labels", name: str = "masked_tokens") -> None:
        super().__init__()
        self.reads, self.columns, self.name = (logits,), (labels,), name

    def count(self, batch: Columns) -> float:
        return float((self._labels(batch).values >= 0).sum())

    def forward(self, out: Outputs, batch: Columns) -> Term:
        labels, logits = self._labels(batch), out[self.reads[0]]
        rows = hidden_rows(labels)
        if logits.ndim != 2 or len(logits) != len(rows):
            raise InputError(
                f"{self.reads[0]!r} is {list(logits.shape)}; expected [{len(rows)}, vocabulary], a row for each hidden "
                "token"
            )
        loss = functional.cross_entropy(logits, labels.values[rows], reduction="sum")
        return Term(loss, float(len(rows)), {self.name: float(loss.detach()) / max(len(rows), 1)})

    def _labels(self, batch: Columns) -> Ragged:
        labels = batch.get(self.columns[0])
        if not isinstance(labels, Ragged) or labels.values.is_floating_point() or labels.values.ndim != 1:
            raise InputError(f"masked tokens need a batch column {self.columns[0]!r}: Ragged, int64 [N]")
        return labels

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 7, (rows, 5), generator=random)
        labels[:, 2:] = -100  # two hidden tokens in every text
        logits = torch.randn(rows * 2, 7, generator=random, dtype=torch.float64)
        each = Ragged(torch.zeros(rows * 2, dtype=torch.int64), torch.full((rows,), 2))
        columns: dict[str, Column] = {"labels": Ragged(labels.flatten(), torch.full((rows,), 5)), "of_2": each}
        return cls(), {"logits": logits.requires_grad_()}, columns
