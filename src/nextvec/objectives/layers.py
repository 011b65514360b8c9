"""Objectives that see every layer, so that a model may stop early: what they share, and the plainest of them.

    Layers   loss = mean over the layers l of inner(pooled output of layer l)

Legend: B items, R items of all kinds, L layers, D width, d a width of at most D.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nextvec.objectives.base import Columns, Objective, Outputs
from nextvec.objectives.info_nce import InfoNCE
from nextvec.types import Column, InputError, Term

__all__ = ["Layered", "Layers"]


class Layered(Objective):
    """Base class: reads ``NAME_layers`` [B, L, D] for every NAME that ``inner`` reads, and hands it slices [B, d]."""

    def __init__(self, inner: Objective) -> None:
        super().__init__()
        self.inner = inner
        self.reads = tuple(f"{name}_layers" for name in inner.reads)
        self.columns, self.scope = inner.columns, inner.scope

    @staticmethod
    def inner_example(rows: int, seed: int) -> tuple[InfoNCE, dict[str, Tensor], dict[str, Column]]:
        """InfoNCE's own example with three layers of everything that it reads: for ``example``."""
        inner, out, columns = InfoNCE.example(rows, seed)
        random = torch.Generator().manual_seed(seed + 1)
        made = {f"{n}_layers": torch.randn(len(x), 3, x.shape[1], generator=random).to(x.dtype) for n, x in out.items()}
        return inner, {name: tensor.requires_grad_() for name, tensor in made.items()}, columns

    def count(self, batch: Columns) -> float | None:
        return self.inner.count(batch)

    def rows(self, out: Outputs, *, layers: int, narrow: int) -> Tensor:
        """All that is read, [R, L, D]; InputError where L is below ``layers``, or D not above the width ``narrow``."""
        shapes = {tuple(out[name].shape[1:]) for name in self.reads}
        depth, width = next(iter(shapes)) if len(shapes) == 1 and len(max(shapes)) == 2 else (0, 0)
        if depth < layers or width <= narrow:
            wanted = f"[B, L, D] of one L >= {layers} and one D > {narrow}"
            raise InputError(f"{type(self).__name__} needs {wanted}; got {sorted(shapes)}")
        return torch.cat([out[name] for name in self.reads])

    def at(self, out: Outputs, batch: Columns, layer: int, dim: int | None = None) -> Term:
        """``inner`` on the first ``dim`` values (None: all) of layer ``layer`` (from 1)."""
        cut = {name: out[f"{name}_layers"][:, layer - 1, :dim] for name in self.inner.reads}
        return self.inner({**out, **cut}, batch)

    def commit(self) -> None:
        self.inner.commit()


class Layers(Layered):
    """``inner`` on the layers ``layers`` (from 1). Logs the inner ones with ``/l`` and the layer's number added."""

    def __init__(self, inner: Objective, *, layers: Sequence[int]) -> None:
        super().__init__(inner)
        if not layers or min(layers) < 1 or len(set(layers)) != len(layers):
            raise InputError(f"layers must be different numbers from 1, got {list(layers)}")
        self.layers = tuple(layers)

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Layers, dict[str, Tensor], dict[str, Column]]:
        inner, out, columns = cls.inner_example(rows, seed)
        return cls(inner, layers=(1, 3)), out, columns

    def forward(self, out: Outputs, batch: Columns) -> Term:
        self.rows(out, layers=max(self.layers), narrow=0)
        terms = [self.at(out, batch, layer) for layer in self.layers]
        total = terms[0].sum
        for term in terms[1:]:
            total = total + term.sum
        logs = {f"{k}/l{n}": v for n, term in zip(self.layers, terms, strict=True) for k, v in term.logs.items()}
        return Term(total / len(terms), terms[0].count, logs)
