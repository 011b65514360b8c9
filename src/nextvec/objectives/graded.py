"""Graded pairs: pairs of texts with a higher score are to be more similar than those with a lower one.

    loss = log( 1 + sum over (i, j) with score_i > score_j of exp( scale (s_j - s_i) ) )

``CoSENT``: s_i is the cosine of pair i. Source: Su 2022, kexue.fm/archives/8847. ``AnglE``: s_i is taken in complex
numbers, the first half of a vector being the real and the second the imaginary parts,

    s_i = | Re sum_k z_k conj(w_k)  +  Im sum_k z_k conj(w_k) | / (|z| |w|),

which keeps a gradient where the cosine is flat. Source: Li and Li 2023, "AnglE-optimized Text Embeddings" (arXiv
2309.12871). The paper speaks of a difference of angles; but s is 1 for equal texts, so that it has to rise with the
score, as it does in the authors' code.

Sorted by score, the inner sums over j are running sums: time grows with B log B and memory with B, although B^2
comparisons count. Legend: B pairs, D width.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.types import Column, InputError, Ragged, Term

__all__ = ["AnglE", "CoSENT"]


class CoSENT(Objective):
    """Reads ``one`` [B, D] and ``other`` [B, D], the two texts of each pair; the column ``score`` (float [B], any
    scale: only its order matters; equal scores are not compared). The loss is one number for the whole batch.

    ``scale``: the inverse temperature. Logs ``cosent``, or ``angle`` (the loss).
    """

    scope: Scope = "batch"
    columns = ("score",)
    name = "cosent"

    def __init__(self, *, one: str = "one", other: str = "other", scale: float = 20.0) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise InputError(f"scale is {scale}; expected a positive number, such as 20")
        self.reads, self.scale = (one, other), scale

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        out = {name: torch.randn(rows, 8, generator=random, dtype=torch.float64) for name in ("one", "other")}
        score = torch.randint(0, 4, (rows,), generator=random) / 4
        return cls(scale=5.0), {name: rows.requires_grad_() for name, rows in out.items()}, {"score": score}

    def similarity(self, one: Tensor, other: Tensor) -> Tensor:
        """Similarities [B] of the pairs' vectors [B, D]."""
        return (functional.normalize(one, dim=-1) * functional.normalize(other, dim=-1)).sum(-1)

    def forward(self, out: Outputs, batch: Columns) -> Term:
        one, other = (out[name] for name in self.reads)
        kind = type(self).__name__
        if one.shape != other.shape or one.ndim != 2:
            raise InputError(f"{kind} compares pairs [B, D]; got {list(one.shape)} and {list(other.shape)}")
        score = batch.get("score")
        if score is None or isinstance(score, Ragged) or score.shape != (len(one),):
            found = "none" if score is None else "ragged" if isinstance(score, Ragged) else list(score.shape)
            raise InputError(f"{kind} needs a column 'score', a number for each of {len(one)} pairs; got {found}")
        if bool(score.isnan().any()):
            raise InputError(f"{kind}: score {int(score.isnan().nonzero()[0])} is NaN; expected numbers")
        loss = _ranked(self.scale * self.similarity(one, other), score)
        return Term(loss * len(one), float(len(one)), {self.name: float(loss.detach())})


class AnglE(CoSENT):
    """CoSENT with the similarity of the vectors as complex numbers, see above; D must be even.

    The paper's whole loss is a sum: ``CoSENT() + AnglE() + InfoNCE(query="one", document="other", ...)``, with weights.
    Its scale for angles was 1 first and 20 in later recipes.
    """

    name = "angle"

    def similarity(self, one: Tensor, other: Tensor) -> Tensor:
        if one.shape[1] % 2:
            raise InputError(f"AnglE reads vectors as complex numbers, halves of an even width; got {one.shape[1]}")
        (a, b), (c, d) = (functional.normalize(rows, dim=-1).chunk(2, dim=-1) for rows in (one, other))
        found: Tensor = (a * c + b * d + b * c - a * d).sum(-1).abs()
        return found


def _ranked(logits: Tensor, score: Tensor) -> Tensor:
    """log(1 + sum over score_i > score_j of exp(logits_j - logits_i)); both [B]."""
    score, order = torch.sort(score.to(logits.device))
    logits = logits[order]
    lower = torch.searchsorted(score, score, side="left")  # how many pairs score less
    above = lower > 0
    if not bool(above.any()):
        return 0 * logits.sum()
    below = torch.logcumsumexp(logits, dim=0)
    return functional.softplus(torch.logsumexp(below[lower[above] - 1] - logits[above], dim=0))
