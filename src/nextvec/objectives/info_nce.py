"""InfoNCE: each query finds its own document among all documents of the batch.

    loss_i = -log( exp(s_ii / t) / sum_j exp(s_ij / t) ),   s_ij = cos(q_i, d_j)

Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding" (arXiv 1807.03748); the
symmetric form as in CLIP (arXiv 2103.00020). Legend: B queries, K >= B documents and negatives, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.types import Column, InputError, Term

__all__ = ["InfoNCE"]

_MAX_SCALE = 100.0


class InfoNCE(Objective):
    """Reads ``query`` [B, D] and ``document`` [B, D]: row i of both belongs together. ``negatives`` names an output
    [M, D] of further documents that belong to no query. Vectors are normalised here.

    ``symmetric`` averages with the loss of documents looking for queries. With ``learn_temperature`` the inverse
    temperature is a parameter, bounded by 100. Where the batch holds ``group`` (int64 [B]), documents of the query's
    own group are no negatives: duplicates of a paper do not repel each other. ``block``: the scores are made that
    many rows at a time, so that memory grows with B and not with B * K. Logs ``info_nce`` (mean loss) and
    ``info_nce_accuracy``.
    """

    scope: Scope = "batch"
    columns = ("group",)

    def __init__(
        self,
        *,
        query: str = "query",
        document: str = "document",
        negatives: str | None = None,
        temperature: float = 0.05,
        symmetric: bool = True,
        learn_temperature: bool = False,
        block: int = 4096,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature must be positive, got {temperature}")
        if block < 1:
            raise InputError(f"block is {block}; expected at least 1 row")
        self.reads = (query, document) if negatives is None else (query, document, negatives)
        self.symmetric, self.block = symmetric, block
        scale = torch.tensor(-math.log(temperature), dtype=torch.float32)
        self.log_scale = nn.Parameter(scale, requires_grad=learn_temperature)

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[InfoNCE, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        names = ("query", "document", "negative")
        out = {name: torch.randn(rows, 8, generator=random, dtype=torch.float64) for name in names}
        group = torch.arange(rows) // 2
        objective = cls(negatives="negative", learn_temperature=True, temperature=0.5, block=3)
        return objective, {name: tensor.requires_grad_() for name, tensor in out.items()}, {"group": group}

    def forward(self, out: Outputs, batch: Columns) -> Term:
        query, document, *rest = (functional.normalize(out[name], dim=-1) for name in self.reads)
        if document.shape != query.shape or query.ndim != 2:
            raise InputError(
                f"InfoNCE needs one document per query, of one width; got {list(query.shape)} and "
                f"{list(document.shape)}: name further documents with negatives="
            )
        group = cast("Tensor | None", batch.get("group"))
        if group is not None and len(group) != len(query):
            raise InputError(f"InfoNCE: {len(group)} groups for {len(query)} queries")
        scale = self.log_scale.exp().clamp(max=_MAX_SCALE).to(query.dtype)
        documents = torch.cat([document, *rest]) if rest else document
        loss, hits = _softmax_loss(query * scale, documents, group, self.block)
        if self.symmetric:
            backward, _ = _softmax_loss(document * scale, query, group, self.block)
            loss = (loss + backward) / 2
        count = len(query)
        return Term(
            loss, float(count), {"info_nce": float(loss.detach()) / count, "info_nce_accuracy": float(hits) / count}
        )


def _softmax_loss(rows: Tensor, columns: Tensor, group: Tensor | None, block: int) -> tuple[Tensor, Tensor]:
    """Sum over rows [B, D] of the cross entropy of ``rows @ columns.T`` [B, K] with target i in row i; and hits."""
    result: tuple[Tensor, Tensor] = _BlockwiseSoftmax.apply(rows, columns, group, block)  # type: ignore[no-untyped-call]
    return result


class _BlockwiseSoftmax(torch.autograd.Function):
    """Loss and both gradients in one walk over blocks of rows: the [B, K] scores are never held whole, and are not
    made a second time for the backward pass."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, group: Tensor | None, block: int) -> tuple[Tensor, Tensor]:
        needed = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        total, hits = rows.new_zeros(()), rows.new_zeros(())
        d_rows = torch.empty_like(rows) if needed else None
        d_columns = torch.zeros_like(columns) if needed else None
        for start, logits in _blocks(rows, columns, group, block):
            at = torch.arange(len(logits), device=logits.device)
            own = logits[at, start + at]
            lse = torch.logsumexp(logits, dim=1)
            total += (lse - own).sum()
            hits += (logits.argmax(1) == start + at).sum()
            if d_rows is not None and d_columns is not None:
                share = logits.sub_(lse[:, None]).exp_()
                share[at, start + at] -= 1
                stop = start + len(share)
                torch.mm(share, columns, out=d_rows[start:stop])
                d_columns.addmm_(share.T, rows[start:stop])
        if needed:
            ctx.save_for_backward(d_rows, d_columns)
        ctx.mark_non_differentiable(hits)
        return total, hits

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_rows, d_columns = ctx.saved_tensors
        return grads[0] * d_rows, grads[0] * d_columns, None, None


def _blocks(rows: Tensor, columns: Tensor, group: Tensor | None, block: int) -> Iterator[tuple[int, Tensor]]:
    """(first row, logits [block, K]) with documents of the row's own group, its own document apart, set to -inf."""
    for start in range(0, len(rows), block):
        logits = rows[start : start + block] @ columns.T
        if group is not None:
            same = group[start : start + block, None] == group[None, :]
            at = torch.arange(len(logits), device=logits.device)
            same[at, start + at] = False
            logits[:, : len(group)].masked_fill_(same, -torch.inf)
        yield start, logits
