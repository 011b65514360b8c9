"""Next-latent prediction: a state that foretells the states after it, given the tokens in between.

A latent dynamics model, which belongs to the method, rolls on from the state h_t of every position with the true
tokens: z_{t,1}, z_{t,2}, ... z_{t,d} are its forecasts of h_{t+1} ... h_{t+d} (z_{t,i} has seen x_{t+1} ... x_{t+i}).

    smooth     = mean over (t, i) of  mean over D of SmoothL1(sg[h_{t+i}], z_{t,i})       (``NextEmbedding``)
    LatentKL   = mean over (t, i) of  KL( softmax(W sg[h_{t+i}]) || softmax(W z_{t,i}) )      W the head, frozen here
    NextLatent = w_s * smooth + w_k * LatentKL

sg stops the gradient: without it the states could meet the forecasts by becoming constant. Both means are over all
pairs (t, i <= d) of the step for which the sequence reaches to t + i; the paper's mean over i of means over t differs
from that only where sequences are hardly longer than d. Prompts are masked for the KL and not for SmoothL1: a pair
counts for the KL where position t predicts a token after the prompt and t + i still predicts one.

Source: NextLat, arXiv 2511.05963. Legend: B sequences, N tokens, D width, V vocabulary, d horizon,
N_i positions with i tokens after them, K_i positions that predict a token and have i + 1 tokens after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from nextvec.objectives.base import Columns, Objective, Outputs, Scope, Sum
from nextvec.objectives.next_embedding import NextEmbedding
from nextvec.objectives.next_token import count_predicted, example_columns, predicted, text_of
from nextvec.types import Column, InputError, Term

__all__ = ["LatentKL", "NextLatent"]

_BLOCK = 1 << 20  # elements of a block of logits, which is read several times and so should stay in cache


class LatentKL(Objective):
    """KL divergence from the tokens that true states foretell to those that forecast states foretell.

    Reads ``logits`` [M, V] as ``NextToken`` does (no gradient flows into them) and ``draft_i`` [K_i, V] for
    i = 1 .. horizon, a row for each of ``predicted(text, prompt, ahead=i + 1)``: the logits of the forecast of the
    state i places on, made with a head that takes no gradient. In nats. Logs ``latent_kl``.
    """

    scope: Scope = "example"
    columns = ("text", "prompt")

    def __init__(self, *, horizon: int) -> None:
        super().__init__()
        self.horizon = _checked(horizon)
        self.reads = ("logits", *(f"draft_{i}" for i in range(1, horizon + 1)))

    def count(self, batch: Columns) -> float:
        text, prompt = text_of(batch)
        return float(sum(count_predicted(text, prompt, ahead=i + 1) for i in range(1, self.horizon + 1)))

    def forward(self, out: Outputs, batch: Columns) -> Term:
        text, prompt = text_of(batch)
        logits = out["logits"].detach()
        known = predicted(text, prompt)
        _same_rows("logits", logits, len(known), logits.shape[-1])
        total, count = logits.new_zeros(()), 0
        for i in range(1, self.horizon + 1):
            draft, rows = out[f"draft_{i}"], predicted(text, prompt, ahead=i + 1)
            _same_rows(f"draft_{i}", draft, len(rows), logits.shape[1])
            # t + i is a position that predicts, so that its logits are there: known is sorted and holds it.
            total = total + _kl(logits, torch.searchsorted(known, rows + i), draft)
            count += len(rows)
        return Term(total, float(count), {"latent_kl": float(total.detach()) / max(count, 1)})

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        objective = cls(horizon=2)
        return objective, *_example(objective.reads, rows, seed)


class NextLatent(Sum):
    """The smooth term and ``LatentKL``, a term of weight 0 left out.

    The former reads ``hidden`` [N, D] and ``latent_i`` [N_i, D], a row for each of ``predicted(text, ahead=i)``: the
    forecast of the state i places on. Logs ``smooth_latent``.

    Two objectives that are added, not one: their counts differ, and each is exact over micro-batches by itself.
    """

    def __init__(self, *, horizon: int = 1, smooth: float = 1.0, kl: float = 1.0) -> None:
        if min(smooth, kl) < 0 or not max(smooth, kl) > 0:
            raise InputError(f"weights smooth={smooth}, kl={kl}; expected neither below 0 and one above")
        terms: list[Objective] = []
        if smooth:
            ahead = range(1, _checked(horizon) + 1)
            smoothness = NextEmbedding(
                distance="smooth_l1", ahead=ahead, pred="latent", target="hidden", name="smooth_latent"
            )
            terms.append(smooth * smoothness)
        if kl:
            terms.append(kl * LatentKL(horizon=horizon))
        super().__init__(*terms)
        self.horizon, self.smooth, self.kl = horizon, smooth, kl

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        objective = cls(horizon=2)
        return objective, *_example(objective.reads, rows, seed)


def _checked(horizon: int) -> int:
    if horizon < 1:
        raise InputError(f"horizon is {horizon}; expected at least 1 state ahead")
    return horizon


def _same_rows(name: str, tensor: Tensor, rows: int, width: int) -> None:
    if tensor.ndim != 2 or tuple(tensor.shape) != (rows, width):
        raise InputError(f"{name!r} is {list(tensor.shape)}; expected [{rows}, {width}] for the texts of this batch")


def _kl(truth: Tensor, at: Tensor, draft: Tensor) -> Tensor:
    """Sum over k of KL(softmax(truth[at[k]]) || softmax(draft[k])); truth [M, V], at int64 [K], draft [K, V]."""
    result: Tensor = _BlockwiseKL.apply(truth, at, draft)  # type: ignore[no-untyped-call]
    return result


class _BlockwiseKL(torch.autograd.Function):
    """Loss and gradient with respect to ``draft`` in one walk over blocks of rows: besides the gradient nothing of
    size [K, V] is made, in particular no copy of the rows of ``truth``."""

    @staticmethod
    def forward(ctx: Any, truth: Tensor, at: Tensor, draft: Tensor) -> Tensor:
        total = draft.new_zeros(())
        gradient = torch.empty_like(draft) if ctx.needs_input_grad[2] else None
        for start, stop in _blocks(len(draft), draft.shape[1]):
            p_log = functional.log_softmax(truth[at[start:stop]], dim=1)
            q_log = functional.log_softmax(draft[start:stop], dim=1)
            p = p_log.exp()
            total += torch.dot((p_log - q_log).flatten(), p.flatten())
            if gradient is not None:
                torch.sub(q_log.exp_(), p, out=gradient[start:stop])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        (gradient,) = ctx.saved_tensors
        return None, None, gradient * grads[0]


def _blocks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    size = max(1, _BLOCK // max(width, 1))
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


def _example(reads: tuple[str, ...], rows: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Column]]:
    """Outputs and columns for texts of 6 tokens and a horizon of 2."""
    random = torch.Generator().manual_seed(seed)
    columns = example_columns(rows, random, vocab=5, length=6)
    shapes = {"hidden": (6, 4), "logits": (4, 5)}
    for i in (1, 2):
        shapes[f"latent_{i}"], shapes[f"draft_{i}"] = (6 - i, 4), (4 - i, 5)
    made = {}
    for name in reads:
        each, width = shapes[name]
        made[name] = torch.randn(rows * each, width, generator=random, dtype=torch.float64).requires_grad_()
    return made, columns
