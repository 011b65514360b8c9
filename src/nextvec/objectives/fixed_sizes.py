"""One loss on a fixed list of sizes, each a number of layers and a width, all of them at every step.

    loss = L(N, D) + sum over the smaller (n, d) of  L(n, d) + w KL(n, d)

    KL "coordinates"   0.3 KL( softmax(z_N[:d]) || softmax(z_n[:d]) )   over the values of a vector, mean of vectors
    KL "candidates"    KL( softmax_j(full scores) || softmax_j(scores of (n, d)) )   over the documents, mean of queries

Nothing is averaged over sizes. The full model is not detached in the first form and is in the second.
Source: Zhuang et al. 2024, Starbucks (arXiv 2410.13230): its code for sentence similarity, and for retrieval.
Legend: B items, R items of all kinds, N layers, D width, d a smaller width, z pooled vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nextvec.objectives.base import Columns, Objective, Outputs
from nextvec.objectives.distill import DistillSimilarities
from nextvec.objectives.layers import Layered
from nextvec.types import Column, InputError, Term

__all__ = ["FORMS", "FixedSizes"]

FORMS = ("coordinates", "candidates", "none")
_SCALE = 0.3  # a factor only: the logits are not divided by it


class FixedSizes(Layered):
    """``inner`` on ``sizes``, (layers, width) from 1, the last one the whole model. Logs those of ``inner`` with
    ``/LxD`` added, and ``kl``, the mean over the smaller sizes."""

    def __init__(
        self,
        inner: Objective,
        *,
        sizes: Sequence[tuple[int, int]],
        form: str = "coordinates",
        weight: float = 1.0,
        temperature: float = 0.05,
    ) -> None:
        super().__init__(inner)
        if not sizes or min(min(size) for size in sizes) < 1 or len(set(sizes)) != len(sizes):
            raise InputError(f"sizes must be different pairs of layers and width, got {list(sizes)}")
        if any(n > sizes[-1][0] or d > sizes[-1][1] for n, d in sizes):
            raise InputError(f"the last of the sizes must be the whole model's, got {list(sizes)}")
        if form not in FORMS or not 0 <= weight < math.inf:
            raise InputError(f"form is {form!r}, weight {weight}; expected one of {', '.join(FORMS)}, and 0 or more")
        self.sizes, self.form, self.weight = tuple(sizes), form, weight
        self.taught = None
        if form == "candidates":
            query, document, *negatives = inner.reads
            self.taught = DistillSimilarities(
                query=query, document=document, negatives=negatives, live=True, temperature=temperature
            )

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[FixedSizes, dict[str, Tensor], dict[str, Column]]:
        inner, out, columns = cls.inner_example(rows, seed)
        width = next(iter(out.values())).shape[2]
        return cls(inner, sizes=((1, 2), (2, 3), (3, width))), out, columns

    def forward(self, out: Outputs, batch: Columns) -> Term:
        layers, width = self.sizes[-1]
        rows = self.rows(out, layers=layers, narrow=0)
        if rows.shape[2] < width:
            raise InputError(f"the whole model is said to be {width} wide; its vectors are {rows.shape[2]} wide")
        terms = [self.at(out, batch, n, d) for n, d in self.sizes]
        kls = [self._kl(out, batch, rows, n, d) for n, d in self.sizes[:-1]] if self.form != "none" else []
        total = sum((term.sum for term in terms[1:]), start=terms[0].sum)
        if kls:
            total = total + self.weight * terms[-1].count * torch.stack(kls).sum()
        logs = {
            f"{name}/{n}x{d}": value
            for (n, d), term in zip(self.sizes, terms, strict=True)
            for name, value in term.logs.items()
        }
        if kls:
            logs["kl"] = float(torch.stack(kls).detach().mean())
        return Term(total, terms[-1].count, logs)

    def _kl(self, out: Outputs, batch: Columns, rows: Tensor, n: int, d: int) -> Tensor:
        """The mean KL of the size (n, d) to the whole model."""
        if self.taught is None:
            target = functional.softmax(rows[:, self.sizes[-1][0] - 1, :d], dim=-1)
            guess = functional.log_softmax(rows[:, n - 1, :d], dim=-1)
            return _SCALE * functional.kl_div(guess, target, reduction="batchmean")
        layers, width = self.sizes[-1]
        small = {name: out[f"{name}_layers"][:, n - 1, :d] for name in self.inner.reads}
        whole = {f"teacher_{name}": out[f"{name}_layers"][:, layers - 1, :width] for name in self.inner.reads}
        return self.taught({**small, **whole}, batch).mean
