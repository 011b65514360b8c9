"""Matryoshka: an objective over nested prefixes of the embeddings, so that a shorter vector is a good one too.

    loss = sum_m w_m * inner(first m of D values)

Source: Kusupati et al. 2022, "Matryoshka Representation Learning" (arXiv 2205.13147). Legend: B items, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nextvec.objectives.base import Columns, Objective, Outputs
from nextvec.objectives.info_nce import InfoNCE
from nextvec.types import Column, InputError, Term

__all__ = ["Matryoshka"]


class Matryoshka(Objective):
    """``inner`` on the first ``m`` values of everything it reads (all [B, D]), for each ``m`` of ``dims``.

    ``weights`` default to 1 / len(dims), so that the size of the loss does not depend on how many widths there are.
    The inner objective sees prefixes that are not normalised; the objectives of this folder normalise. Logs are the
    inner ones with ``@m`` added.
    """

    def __init__(self, inner: Objective, *, dims: Sequence[int], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not dims or min(dims) < 1 or len(set(dims)) != len(dims):
            raise InputError(f"dims must be different positive widths, got {list(dims)}")
        if weights is not None and len(weights) != len(dims):
            raise InputError(f"{len(weights)} weights for {len(dims)} dims")
        self.inner = inner
        self.dims = tuple(dims)
        self.weights = tuple(weights) if weights is not None else (1.0 / len(dims),) * len(dims)
        self.reads, self.columns, self.scope = inner.reads, inner.columns, inner.scope

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Matryoshka, dict[str, Tensor], dict[str, Column]]:
        inner, out, columns = InfoNCE.example(rows, seed)
        return cls(inner, dims=(2, 5, 8), weights=(0.5, 1.0, 2.0)), out, columns

    def count(self, batch: Columns) -> float | None:
        return self.inner.count(batch)

    def forward(self, out: Outputs, batch: Columns) -> Term:
        narrowest = min(int(out[name].shape[-1]) for name in self.reads)
        if max(self.dims) > narrowest:
            raise InputError(f"Matryoshka width {max(self.dims)} is more than the embedding's {narrowest}")
        total: Tensor | None = None
        count = 0.0
        logs: dict[str, float] = {}
        for dim, weight in zip(self.dims, self.weights, strict=True):
            term = self.inner({**out, **{name: out[name][..., :dim] for name in self.reads}}, batch)
            total = weight * term.sum if total is None else total + weight * term.sum
            count = term.count
            logs.update({f"{key}@{dim}": value for key, value in term.logs.items()})
        assert total is not None  # dims is not empty
        return Term(total, count, logs)

    def commit(self) -> None:
        self.inner.commit()
