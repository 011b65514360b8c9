"""An objective on several layers at once, so that a model may stop early.

    loss = mean over the layers l of inner(pooled output of layer l)

Legend: B items, L layers, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nextvec.objectives.base import Columns, Objective, Outputs
from nextvec.objectives.info_nce import InfoNCE
from nextvec.types import Column, InputError, Term

__all__ = ["Layers"]


class Layers(Objective):
    """``inner`` on layers ``layers`` (from 1) of every ``NAME_layers`` [B, L, D], for each NAME that it reads.

    Logs the inner ones with ``/l`` and the layer's number added.
    """

    def __init__(self, inner: Objective, *, layers: Sequence[int]) -> None:
        super().__init__()
        if not layers or min(layers) < 1 or len(set(layers)) != len(layers):
            raise InputError(f"layers must be different numbers from 1, got {list(layers)}")
        self.inner, self.layers = inner, tuple(layers)
        self.reads = tuple(f"{name}_layers" for name in inner.reads)
        self.columns, self.scope = inner.columns, inner.scope

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Layers, dict[str, Tensor], dict[str, Column]]:
        inner, out, columns = InfoNCE.example(rows, seed)
        random = torch.Generator().manual_seed(seed + 1)
        made = {f"{n}_layers": torch.randn(len(x), 3, x.shape[1], generator=random).to(x.dtype) for n, x in out.items()}
        return cls(inner, layers=(1, 3)), {name: tensor.requires_grad_() for name, tensor in made.items()}, columns

    def count(self, batch: Columns) -> float | None:
        return self.inner.count(batch)

    def forward(self, out: Outputs, batch: Columns) -> Term:
        most = min(int(out[name].shape[1]) for name in self.reads)
        if max(self.layers) > most:
            raise InputError(f"layer {max(self.layers)} is asked for of {most} layers")
        total: Tensor | None = None
        count = 0.0
        logs: dict[str, float] = {}
        for layer in self.layers:
            cut = {name: out[f"{name}_layers"][:, layer - 1] for name in self.inner.reads}
            term = self.inner({**out, **cut}, batch)
            total = term.sum / len(self.layers) if total is None else total + term.sum / len(self.layers)
            count = term.count
            logs.update({f"{key}/l{layer}": value for key, value in term.logs.items()})
        assert total is not None  # layers is not empty
        return Term(total, count, logs)

    def commit(self) -> None:
        self.inner.commit()
