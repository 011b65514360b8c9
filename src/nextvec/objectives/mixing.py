"""Hard negatives made on the spot: mixtures of those that a query has, which lie between them and are as hard.

    pair   h = l n_j + (1 - l) n_k,    l ~ Beta(2, 2), j and k two of the query's H hard negatives
    list   h = sum_m a_m n_m,          a = softmax over m of cos(q, n_m) / t          (no gradient to a)

Both are scaled to length 1 and stand among the query's own negatives. Source: KaLM-Embedding-V2 (arXiv 2506.20923),
which does not say how many are made, nor whether a carries a gradient; pair mixing follows Kalantidis et al. 2020
(arXiv 2010.01028). Which j, k and l are drawn is one draw per mixture and step for all queries, from ``seed`` and the
number of optimiser steps: hard negatives have no order among themselves, all processes draw alike, and a resumed run
goes on. Legend: B queries, H hard negatives of a query, D width, t temperature.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.objectives.info_nce import InfoNCE
from nextvec.types import Column, InputError, Term

__all__ = ["MixedNegatives"]

_BETA = 2.0


class MixedNegatives(Objective):
    """``inner`` (an ``InfoNCE``) with ``pairs`` pair mixtures and, with ``whole``, the list mixture added to its own
    negatives. Reads what ``inner`` reads; logs what it logs. ``temperature``: t of the list mixture."""

    scope: Scope = "batch"
    steps: Tensor

    def __init__(
        self, inner: InfoNCE, *, pairs: int = 2, whole: bool = True, temperature: float = 0.05, seed: int = 0
    ) -> None:
        super().__init__()
        hard = inner.own_negatives
        if pairs < 0 or (pairs and len(hard) < 2) or (whole and not hard):
            raise InputError(
                f"{pairs} pair mixtures, whole={whole} of {len(hard)} own negatives: a pair needs two, a list one"
            )
        if not temperature > 0:
            raise InputError(f"temperature must be positive, got {temperature}")
        self.inner, self.pairs, self.whole, self.temperature, self.seed = inner, pairs, whole, temperature, seed
        self.hard = hard
        self.reads, self.columns = inner.reads, inner.columns
        mixed = tuple(f"mixed{p}" for p in range(pairs + whole))
        # The inner objective reads the mixtures beside what the method gives.
        inner.own_negatives = (*hard, *mixed)
        inner.reads = (*inner.reads, *mixed)
        self.mixed = mixed
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[MixedNegatives, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        names = ("query", "document", "neg0", "neg1", "neg2")
        out = {name: torch.randn(rows, 8, generator=random, dtype=torch.float64) for name in names}
        inner = InfoNCE(own_negatives=names[2:], temperature=0.3, symmetric=False)
        return cls(inner, temperature=0.3, seed=seed), {name: x.requires_grad_() for name, x in out.items()}, {}

    def draw(self) -> list[tuple[int, int, float]]:
        """This step's (j, k, l) of every pair mixture."""
        random = np.random.default_rng([self.seed, int(self.steps)])
        drawn = [random.choice(len(self.hard), 2, replace=False) for _ in range(self.pairs)]
        return [(int(j), int(k), float(random.beta(_BETA, _BETA))) for j, k in drawn]

    def mixtures(self, query: Tensor, hard: Sequence[Tensor]) -> list[Tensor]:
        """The mixtures [B, D] of ``hard`` (H of [B, D]) for ``query`` [B, D], of length 1."""
        near = [functional.normalize(rows, dim=-1) for rows in hard]
        made = [share * near[j] + (1 - share) * near[k] for j, k, share in self.draw()]
        if self.whole:
            stacked = torch.stack(near, dim=1)
            cosines = torch.einsum("bd,bhd->bh", functional.normalize(query, dim=-1), stacked)
            weights = torch.softmax(cosines.detach() / self.temperature, dim=1)
            made.append(torch.einsum("bh,bhd->bd", weights, stacked))
        return [functional.normalize(rows, dim=-1) for rows in made]

    def forward(self, out: Outputs, batch: Columns) -> Term:
        made = self.mixtures(out[self.inner.query], [out[name] for name in self.hard])
        return self.inner({**out, **dict(zip(self.mixed, made, strict=True))}, batch)

    def commit(self) -> None:
        self.steps += 1
        self.inner.commit()
