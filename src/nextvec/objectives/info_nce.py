"""InfoNCE: each query finds its own document among all documents of the batch.

    loss_i = -log( exp(s_ii / t) / sum_j exp(s_ij / t) ),   s_ij = cos(q_i, d_j)

Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding" (arXiv 1807.03748); the
symmetric form as in CLIP (arXiv 2103.00020). Legend: B queries, K >= B documents, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nextvec.objectives.base import Batch, Objective, Outputs, Scope
from nextvec.types import InputError, Term

__all__ = ["InfoNCE"]

_MAX_SCALE = 100.0


class InfoNCE(Objective):
    """Reads ``query`` [B, D] and ``document`` [K, D]: row i of both belongs together, rows B..K-1 are further
    negatives. Vectors are normalised here.

    ``symmetric`` averages with the loss of documents looking for queries (first B documents). With
    ``learn_temperature`` the inverse temperature is a parameter, bounded by 100. Where the batch holds ``group``
    (int64 [K], or [B] where K = B), documents of the query's own group are no negatives: duplicates of a paper do
    not repel each other. Logs ``info_nce`` (mean loss) and ``info_nce_accuracy``.
    """

    scope: Scope = "batch"

    def __init__(
        self,
        *,
        query: str = "query",
        document: str = "document",
        temperature: float = 0.05,
        symmetric: bool = True,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature must be positive, got {temperature}")
        self.reads = (query, document)
        self.symmetric = symmetric
        scale = torch.tensor(-math.log(temperature), dtype=torch.float32)
        self.log_scale = nn.Parameter(scale, requires_grad=learn_temperature)

    def forward(self, out: Outputs, batch: Batch) -> Term:
        query, document = (functional.normalize(out[name], dim=-1) for name in self.reads)
        count = len(query)
        if len(document) < count or document.shape[1:] != query.shape[1:]:
            raise InputError(
                f"InfoNCE needs at least as many documents as queries, of one width; got {list(query.shape)} and "
                f"{list(document.shape)}"
            )
        logits = query @ document.T * self.log_scale.exp().clamp(max=_MAX_SCALE).to(query.dtype)
        group = batch.get("group")
        if group is not None:
            same = group[:count, None] == group[None, :]
            same.fill_diagonal_(False)
            logits = logits.masked_fill(same, -torch.inf)
        target = torch.arange(count, device=logits.device)
        loss = functional.cross_entropy(logits, target, reduction="sum")
        if self.symmetric:
            backward = functional.cross_entropy(logits[:, :count].T, target, reduction="sum")
            loss = (loss + backward) / 2
        return Term(loss, float(count), self._logs(loss, logits, target))

    @staticmethod
    def _logs(loss: Tensor, logits: Tensor, target: Tensor) -> dict[str, float]:
        with torch.no_grad():
            hits = float((logits.argmax(1) == target).double().mean())
            return {"info_nce": float(loss) / len(target), "info_nce_accuracy": hits}
