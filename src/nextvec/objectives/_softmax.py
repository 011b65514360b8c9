"""Cross entropy over scores that are never held whole: what the contrastive objectives stand on.

    loss = sum_i a_i f_i nll_i,   nll_i = log( e^{l_i+} + sum_j w_ij e^{l_ij} ) - l_i+

The candidates of row i come in parts: its own document, documents of the batch, a shared pool, hard negatives of its
own, texts of its own kind. l_ij are scores times the row's inverse temperature. Loss and all gradients are made in one
walk over blocks of rows, so that memory grows with B and not with B * K, and no score is made twice.

Legend: B rows, K candidates of a part, H candidates of one row alone, D width, t block rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Part", "Rules", "softmax_loss"]

Kind = Literal["batch", "pool", "own"]


@dataclass(frozen=True, slots=True)
class Part:
    """Candidates. rows: [B, D], scaled by the inverse temperature. columns: [B, D] of the examples ("batch"), [M, D] of
    no example ("pool"), or [B, H, D], row i's alone ("own").

    The first part holds the positives: in a "batch" part row i's is column i, in an "own" part it is column 0. In later
    "batch" parts column i is the row's own text, or its positive again, and is left out.
    """

    kind: Kind
    rows: Tensor
    columns: Tensor

    @property
    def width(self) -> int:
        """How many scores a row has here."""
        return int(self.columns.shape[1] if self.kind == "own" else len(self.columns))


@dataclass(frozen=True, slots=True)
class Rules:
    """How the scores become a loss. None of it gets a gradient.

    scale: [B], the inverse temperatures that the parts' rows hold. weight: [B], a_i (None: ones). group: int64 [B],
    columns of the row's group are left out. margin, ratio: a negative counts only where its score is at most the
    positive's plus margin, or at most the positive's p plus (ratio - 1) |p|, which is ratio * p for a positive p.
    focal: gamma of f_i = (1 - exp(-nll_i))^gamma. hardness: beta of w_ij, proportional to exp(beta * score) with mean 1
    over the row's negatives.
    """

    block: int
    scale: Tensor
    weight: Tensor | None = None
    group: Tensor | None = None
    margin: float | None = None
    ratio: float | None = None
    focal: float = 0.0
    hardness: float = 0.0


def softmax_loss(parts: Sequence[Part], rules: Rules) -> tuple[Tensor, Tensor]:
    """(the summed loss, how many positives score highest of all candidates that are left)."""
    kinds = tuple(part.kind for part in parts)
    tensors = [tensor for part in parts for tensor in (part.rows, part.columns)]
    result: tuple[Tensor, Tensor] = _Softmax.apply(kinds, rules, *tensors)  # type: ignore[no-untyped-call]
    return result


class _Softmax(torch.autograd.Function):
    """Gradients are made with the loss: every row's share in it is known once the row's scores are."""

    @staticmethod
    def forward(ctx: Any, kinds: tuple[Kind, ...], rules: Rules, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[2:]
        grads = [torch.zeros_like(t) if want else None for t, want in zip(tensors, wanted, strict=True)]
        parts = [Part(kind, *tensors[2 * i : 2 * i + 2]) for i, kind in enumerate(kinds)]
        total, hits = tensors[0].new_zeros(()), tensors[0].new_zeros(())
        for start in range(0, len(tensors[0]), rules.block):
            stop = min(start + rules.block, len(tensors[0]))
            logits, target = _scores(parts, rules.group, start, stop)
            loss, hit, share = _loss(logits, target, rules, start, stop)
            total += loss
            hits += hit
            if any(wanted):
                _spread(share, parts, grads, start, stop)
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(hits)
        return total, hits

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(None if grad is None else upstream[0] * grad for grad in ctx.saved_tensors)


def _scores(parts: Sequence[Part], group: Tensor | None, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Logits [t, all candidates] of rows start to stop, -inf where left out, and each row's positive, int64 [t]."""
    first = parts[0]
    at = torch.arange(stop - start, device=first.rows.device)
    found = []
    for i, part in enumerate(parts):
        rows = part.rows[start:stop]
        if part.kind == "own":
            found.append(torch.einsum("td,thd->th", rows, part.columns[start:stop]))
            continue
        logits = rows @ part.columns.T
        if part.kind == "batch":
            if group is not None:
                same = group[start:stop, None] == group[None, :]
                if i == 0:
                    same[at, start + at] = False
                logits.masked_fill_(same, -torch.inf)
            if i > 0:
                logits[at, start + at] = -torch.inf
        found.append(logits)
    target = start + at if first.kind == "batch" else torch.zeros_like(at)
    return found[0] if len(found) == 1 else torch.cat(found, dim=1), target


def _loss(logits: Tensor, target: Tensor, rules: Rules, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
    """(summed loss, hits, its gradient with respect to the logits [t, K]); writes over ``logits``."""
    at = torch.arange(len(logits), device=logits.device)
    own, scale = logits[at, target], rules.scale[start:stop]
    limit = None
    if rules.margin is not None:
        limit = own + rules.margin * scale
    elif rules.ratio is not None:
        limit = own + (rules.ratio - 1) * own.abs()
    if limit is not None:
        logits.masked_fill_(logits > limit[:, None], -torch.inf)
        logits[at, target] = own
    hits = (logits.argmax(1) == target).sum()
    if rules.hardness:
        logits += _log_weights(logits, target, rules.hardness / scale)
        logits[at, target] = own
    lse = torch.logsumexp(logits, dim=1)
    losses = lse - own
    weight = None if rules.weight is None else rules.weight[start:stop]
    if rules.focal:
        focal = (-torch.expm1(-losses)).clamp(min=0) ** rules.focal
        weight = focal if weight is None else focal * weight
    share = logits.sub_(lse[:, None]).exp_()
    share[at, target] -= 1
    if weight is not None:
        share *= weight[:, None]
        losses = losses * weight
    return losses.sum(), hits, share


def _log_weights(logits: Tensor, target: Tensor, beta: Tensor) -> Tensor:
    """log w [t, K] with w proportional to exp(beta * logits), of mean 1 over the negatives that are left; 0 in rows
    that have none, and -inf where one was left out."""
    # A hardness below what the type can hold would be 0 here, and 0 times the -inf of what was left out no number.
    hard = logits * beta.clamp(min=torch.finfo(beta.dtype).tiny)[:, None]
    hard.scatter_(1, target[:, None], -torch.inf)
    left = (hard > -torch.inf).sum(1)
    mean = torch.logsumexp(hard, dim=1) - left.clamp(min=1).to(hard.dtype).log()
    return hard.sub_(torch.where(left > 0, mean, 0.0)[:, None])


def _spread(share: Tensor, parts: Sequence[Part], grads: Sequence[Tensor | None], start: int, stop: int) -> None:
    """Add what rows start to stop give to the gradients of all parts' rows and columns."""
    begin = 0
    for i, part in enumerate(parts):
        own = share[:, begin : begin + part.width]
        begin += part.width
        d_rows, d_columns = grads[2 * i], grads[2 * i + 1]
        if part.kind == "own":
            if d_rows is not None:
                d_rows[start:stop] = torch.einsum("th,thd->td", own, part.columns[start:stop])
            if d_columns is not None:
                d_columns[start:stop] = own[:, :, None] * part.rows[start:stop, None, :]
            continue
        if d_rows is not None:
            torch.mm(own, part.columns, out=d_rows[start:stop])
        if d_columns is not None:
            d_columns.addmm_(own.T, part.rows[start:stop])
