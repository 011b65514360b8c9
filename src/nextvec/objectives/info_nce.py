"""InfoNCE: each query finds its own document among all documents of the batch.

    loss_i = -log( exp(s_ii / t) / sum_j exp(s_ij / t) ),   s_ij = cos(q_i, d_j)

Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding" (arXiv 1807.03748); the
symmetric form as in CLIP (arXiv 2103.00020). What may stand in the sum, by switch: hard negatives of the query, alone
as in Llama-Embed-Nemotron (arXiv 2511.07025) or beside the batch; the texts of the own kind and the other queries of
the document, as in GTE (arXiv 2308.03281) or, with symmetric=True, in SimCLR (arXiv 2002.05709); and none that scores
too high to be wrong (Qwen3-Embedding, arXiv 2506.05176, by a margin; NV-Retriever, arXiv 2407.15831, by a share).

``ReweightedInfoNCE`` gives examples and negatives weights by how hard they are:

    loss_i = -(1 - p_i)^gamma log p_i,   p_i = exp(s_ii / t) / ( exp(s_ii / t) + sum_j w_ij exp(s_ij / t) )
    w_ij = K_i exp(beta s_ij) / sum_k exp(beta s_ik)      (over the K_i negatives of i)

Source: gamma, KaLM-Embedding-V2 (arXiv 2506.20923), the focal loss (arXiv 1708.02002) as a weight; beta growing from 0,
a reconstruction of PEG (arXiv 2311.11691), which names no formula, in the form of Robinson et al. (arXiv 2010.04592).
Legend: B queries, M further documents, H hard negatives of a query, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nextvec.objectives._softmax import Part, Rules, softmax_loss
from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.types import Column, InputError, Term

__all__ = ["InfoNCE", "ReweightedInfoNCE"]

_MAX_SCALE = 100.0
_TOWERS = (None, "query", "document", "both")


class InfoNCE(Objective):
    """Reads ``query`` [B, D] and ``document`` [B, D]: row i of both belongs together. Vectors are normalised here.

    Negatives of a query are the other documents of the batch (``in_batch=False``: none of them), the output
    ``negatives`` [M, D] of documents that belong to no query, and row i of every output that ``own_negatives`` names,
    each [B, D]: hard negatives, which count for query i alone. ``same_tower`` adds the other queries ("query"), the
    other documents against the own one ("document") or "both". ``margin`` leaves out every negative that scores
    (cosine) above the positive + margin, ``ratio`` every one above ratio * the positive (for a positive p < 0 above
    p + (ratio - 1) |p|): probably right answers.

    ``symmetric``: True averages with the loss of documents looking for queries, and then each side has its own tower's
    negatives; "joint" has one sum, in which the other queries of the own document stand too; False has neither.
    With ``learn_temperature`` the inverse temperature is a parameter, bounded by 100. ``block``: the scores are made
    that many rows at a time, so that memory grows with B and not with B * K.

    Columns, where the batch has them: ``group`` (int64 [B]), texts of the query's own group are no negatives:
    duplicates of a paper do not repel each other. ``weight`` (float [B], not negative) multiplies each example's loss;
    the count stays B, so that weights of mean 1 leave the size of the loss as it is. ``temperature`` (float [B]) is
    the example's own, say its task's, with the same bound; 0: the objective's. Logs ``info_nce`` (mean loss) and
    ``info_nce_accuracy``: how often the own document scores highest of all candidates that are left.
    """

    scope: Scope = "batch"
    columns = ("group", "weight", "temperature")

    def __init__(
        self,
        *,
        query: str = "query",
        document: str = "document",
        negatives: str | None = None,
        own_negatives: Sequence[str] = (),
        in_batch: bool = True,
        same_tower: Literal["query", "document", "both"] | None = None,
        margin: float | None = None,
        ratio: float | None = None,
        temperature: float = 0.05,
        symmetric: bool | Literal["joint"] = True,
        learn_temperature: bool = False,
        block: int = 4096,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature must be positive, got {temperature}")
        if block < 1:
            raise InputError(f"block is {block}; expected at least 1 row")
        if isinstance(own_negatives, str):
            raise InputError(f"own_negatives is {own_negatives!r}; expected a sequence of names, such as ('neg0',)")
        if same_tower not in _TOWERS or symmetric not in (True, False, "joint"):
            raise InputError(
                f"same_tower is {same_tower!r} and symmetric {symmetric!r}; expected None, 'query', 'document' or "
                "'both', and True, False or 'joint'"
            )
        if not in_batch and symmetric:
            raise InputError("in_batch=False leaves a document no queries to look among: give symmetric=False with it")
        if not (in_batch or negatives or own_negatives or same_tower):
            raise InputError("InfoNCE without in-batch documents needs negatives, own_negatives or same_tower")
        if margin is not None and ratio is not None:
            raise InputError(f"margin is {margin} and ratio {ratio}; expected at most one of them")
        self.query, self.document, self.negatives = query, document, negatives
        self.own_negatives = tuple(own_negatives)
        self.reads = (query, document, *(() if negatives is None else (negatives,)), *self.own_negatives)
        self.in_batch, self.same_tower = in_batch, same_tower
        self.symmetric: bool | Literal["joint"] = "joint" if symmetric == "joint" else bool(symmetric)
        self.margin, self.ratio, self.block = margin, ratio, block
        scale = torch.tensor(-math.log(temperature), dtype=torch.float32)
        self.log_scale = nn.Parameter(scale, requires_grad=learn_temperature)

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        names = ("query", "document", "negative", "neg0", "neg1")
        out = {name: torch.randn(rows, 8, generator=random, dtype=torch.float64) for name in names}
        columns: dict[str, Column] = {
            "group": torch.arange(rows) // 2,
            "weight": 0.5 + torch.rand(rows, generator=random, dtype=torch.float64),
            "temperature": 0.3 * (torch.arange(rows) % 3),
        }
        return cls(**cls._example_options()), {name: x.requires_grad_() for name, x in out.items()}, columns

    @classmethod
    def _example_options(cls) -> dict[str, Any]:
        """Every switch that goes with the others."""
        own = {"negatives": "negative", "own_negatives": ("neg0", "neg1"), "same_tower": "both", "margin": 0.2}
        return {**own, "learn_temperature": True, "temperature": 0.5, "block": 3}

    def forward(self, out: Outputs, batch: Columns) -> Term:
        query, document, pool, own = self._texts(out)
        scale = self._scale(batch, query)
        rules = self._rules(batch, query, scale.detach())
        queries, documents = query * scale[:, None], document * scale[:, None]
        towers = (self.same_tower in ("query", "both"), self.same_tower in ("document", "both"))
        if self.in_batch:
            parts = [Part("batch", queries, document)]
            if own is not None:
                parts.append(Part("own", queries, own))
        else:
            positive = document[:, None]
            parts = [Part("own", queries, positive if own is None else torch.cat([positive, own], dim=1))]
        if pool is not None:
            parts.append(Part("pool", queries, pool))
        if towers[0]:
            parts.append(Part("batch", queries, query))
        # The other way round: documents look for queries, and stay apart from other documents.
        back = [Part("batch", documents, query)] if self.symmetric else []
        if towers[1]:
            back.append(Part("batch", documents, document))
        loss, hits = softmax_loss(parts if self.symmetric is True else parts + back, rules)
        if self.symmetric is True:
            loss = (loss + softmax_loss(back, rules)[0]) / 2
        count = len(query)
        logs = {"info_nce": float(loss.detach()) / count, "info_nce_accuracy": float(hits) / count}
        return Term(loss, float(count), logs)

    def _texts(self, out: Outputs) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Normalised queries and documents [B, D], the pool [M, D] and the queries' own negatives [B, H, D]."""
        query, document = (functional.normalize(out[name], dim=-1) for name in (self.query, self.document))
        if document.shape != query.shape or query.ndim != 2:
            raise InputError(
                f"InfoNCE needs one document per query, of one width; got {list(query.shape)} and "
                f"{list(document.shape)}: name further documents with negatives="
            )
        for name in self.own_negatives:
            if out[name].shape != query.shape:
                raise InputError(
                    f"InfoNCE: {name!r} is {list(out[name].shape)}; expected {list(query.shape)}, row i a hard "
                    "negative of query i"
                )
        own = torch.stack([out[name] for name in self.own_negatives], dim=1) if self.own_negatives else None
        pool = None if self.negatives is None else functional.normalize(out[self.negatives], dim=-1)
        if pool is not None and (pool.ndim != 2 or pool.shape[1] != query.shape[1]):
            raise InputError(
                f"InfoNCE: {self.negatives!r} is {list(pool.shape)}; expected documents of width {query.shape[1]}"
            )
        return query, document, pool, None if own is None else functional.normalize(own, dim=-1)

    def _scale(self, batch: Columns, query: Tensor) -> Tensor:
        """The inverse temperature of every example, [B], in the queries' precision."""
        scale = self.log_scale.exp().clamp(max=_MAX_SCALE).to(query.dtype).expand(len(query))
        given = _numbers(batch, "temperature", query)
        if given is None:
            return scale
        return torch.where(given > 0, (1 / given).clamp(max=_MAX_SCALE), scale)

    def _rules(self, batch: Columns, query: Tensor, scale: Tensor) -> Rules:
        group = cast("Tensor | None", batch.get("group"))
        if group is not None and len(group) != len(query):
            raise InputError(f"InfoNCE: {len(group)} groups for {len(query)} queries")
        weight = _numbers(batch, "weight", query)
        return Rules(self.block, scale, weight, group, margin=self.margin, ratio=self.ratio)


class ReweightedInfoNCE(InfoNCE):
    """InfoNCE in which hard examples and hard negatives weigh more; both weights are constants to the gradient.

    ``focal``: gamma of (1 - p_i)^gamma, by which each example's loss is multiplied; 0: not at all. The papers do not
    say whether the gradient goes through the weight. Here it does not: only so does what an example adds to the
    gradient fall as p_i rises, which is what the weight is for.

    ``hardness``: beta of the negatives' weights w_ij, after ``ramp`` optimiser steps over which it rises from 0 in
    equal steps (0: at once); with 0 all weigh 1. The weights are part of the objective's state through the number of
    steps, so that a resumed run goes on where it was. Everything else is InfoNCE's. Logs ``hardness`` beside its own.
    """

    steps: Tensor

    def __init__(self, *, focal: float = 0.0, hardness: float = 0.0, ramp: int = 0, **options: Any) -> None:
        super().__init__(**options)
        if not (0 <= focal < math.inf and 0 <= hardness < math.inf) or ramp < 0:
            raise InputError(f"focal {focal}, hardness {hardness} and ramp {ramp} must be finite and not negative")
        self.focal, self.hardness, self.ramp = focal, hardness, ramp
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @classmethod
    def _example_options(cls) -> dict[str, Any]:
        return {**super()._example_options(), "focal": 0.5, "hardness": 1.5}

    def beta(self) -> float:
        """The hardness of this step."""
        return self.hardness * (min(int(self.steps) / self.ramp, 1.0) if self.ramp else 1.0)

    def forward(self, out: Outputs, batch: Columns) -> Term:
        term = super().forward(out, batch)
        return Term(term.sum, term.count, {**term.logs, "hardness": self.beta()})

    def _rules(self, batch: Columns, query: Tensor, scale: Tensor) -> Rules:
        own = super()._rules(batch, query, scale)
        return Rules(
            own.block, own.scale, own.weight, own.group, own.margin, own.ratio, focal=self.focal, hardness=self.beta()
        )

    def commit(self) -> None:
        self.steps += 1
        super().commit()


def _numbers(batch: Columns, name: str, query: Tensor) -> Tensor | None:
    """The column ``name``, [B], in the queries' precision; None where the batch lacks it."""
    given = cast("Tensor | None", batch.get(name))
    if given is None:
        return None
    if given.shape != (len(query),):
        raise InputError(f"InfoNCE: column {name!r} is {list(given.shape)}; expected a number for each example")
    numbers = given.to(query)
    if not bool(((numbers >= 0) & numbers.isfinite()).all()):
        raise InputError(f"InfoNCE: column {name!r} holds {given.min()} to {given.max()}; expected finite numbers >= 0")
    return numbers
