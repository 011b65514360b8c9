"""Next-embedding prediction, in general: a state foretells the embedding that comes next.

    loss = mean over pairs (t, i)  of  d( p_{t,i},  sg[ e_{t+i} ] )          i in ``ahead``

p_{t,i} is what position t says of the place i further on, e the embedding there. What systems differ in:

    space     what e is: inputs (patches, tokens' rows), the model's own states, those of a moving average (EMA) of the
              model, or of an encoder that does not learn. The method makes e; here it is one of the outputs.
    ahead     how far on: (1,) for the next one, (1, ..., d) for a roll-out.
    distance  mse           mean over D of (p - e)^2
              smooth_l1     mean over D of SmoothL1, threshold 1
              cosine        1 - cos(p, e)
              gaussian      mean over D of log s + ((p - e) / s)^2 / 2,  s = exp(log_scale): negative log likelihood
                            but for log(2 pi) / 2
              soft_mse      mean over D of (p - e)^2 + s^2 - entropy * log s: what a sample p + s * noise is away from
                            e in expectation, and a reward for staying unsure
              contrastive   cross entropy of cos(p, e_{t+i}) / temperature among the e of the same sequence
    sg        no gradient into e (``stop``): else both may meet by becoming constant. An EMA needs none either.
    mask      which e are foretold at all: a column, true where they are (images in a text, visits of a patient).

Source: the family is described in docs/next_embedding.md with the papers. Legend: B sequences, N places laid end to
end, D width, N_i places that are foretold from i before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.objectives.next_token import predicted
from nextvec.types import Column, InputError, Ragged, Term, did_you_mean

__all__ = ["DISTANCES", "NextEmbedding", "foretelling"]

DISTANCES = ("mse", "smooth_l1", "cosine", "gaussian", "soft_mse", "contrastive")
_SCALED = ("gaussian", "soft_mse")


def foretelling(sequence: Ragged, mask: Ragged | None = None, *, ahead: int = 1) -> Tensor:
    """The places t that foretell t + ``ahead`` (0: themselves): rows int64 [N_i], in order. Those with so many places
    after them, and with ``mask`` (bool [N]) those of them where t + ahead is to be foretold."""
    rows = predicted(sequence, ahead=ahead) if ahead else torch.arange(len(sequence.values))
    if mask is None:
        return rows
    if mask.values.dtype != torch.bool or not torch.equal(mask.lengths, sequence.lengths):
        raise InputError(f"a mask of {mask.values.dtype} {list(mask.values.shape)}; expected bool, one per place")
    return rows[mask.values[rows + ahead]]


class NextEmbedding(Objective):
    """Reads ``target`` [N, D] and, for every i of ``ahead``, ``PRED_i`` [N_i, D] (also ``PRED_i_log_scale`` where the
    distance has a scale), a row for each of ``foretelling(sequence, mask, ahead=i)``.

    sequence, mask: the columns that hold the sequences and, Ragged bool, what is foretold (None: everything). each:
    where no column holds them (images), every example of the batch is a sequence of so many places. Counts pairs; logs
    ``name``.
    """

    scope: Scope = "example"

    def __init__(
        self,
        *,
        distance: str = "cosine",
        ahead: Sequence[int] = (1,),
        pred: str = "pred",
        target: str = "target",
        sequence: str = "text",
        mask: str | None = None,
        each: int | None = None,
        stop: bool = True,
        temperature: float = 0.1,
        entropy: float = 0.0,
        name: str = "next_embedding",
    ) -> None:
        super().__init__()
        if distance not in DISTANCES:
            raise InputError(
                f"distance is {distance!r}; expected one of {', '.join(DISTANCES)}{did_you_mean(distance, DISTANCES)}"
            )
        if not ahead or min(ahead) < 0 or len(set(ahead)) != len(ahead):
            raise InputError(f"ahead is {tuple(ahead)}; expected different numbers of places (0: itself, as a control)")
        if not 0 < temperature < math.inf or not math.isfinite(entropy):
            raise InputError(f"temperature {temperature}, entropy {entropy}; expected a positive and a finite number")
        self.distance, self.ahead, self.stop = distance, tuple(ahead), stop
        self.pred, self.target, self.sequence, self.mask = pred, target, sequence, mask
        self.temperature, self.entropy, self.name, self.each = temperature, entropy, name, each
        preds = [f"{pred}_{i}" for i in self.ahead]
        scales = [f"{one}_log_scale" for one in preds] if distance in _SCALED else []
        self.reads = (target, *preds, *scales)
        self.columns = () if each is not None else (sequence,) if mask is None else (sequence, mask)

    def count(self, batch: Columns) -> float:
        return float(sum(len(self._rows(batch, i)) for i in self.ahead))

    def forward(self, out: Outputs, batch: Columns) -> Term:
        target = out[self.target].detach() if self.stop else out[self.target]
        total, count = target.new_zeros(()), 0
        for i in self.ahead:
            name, rows = f"{self.pred}_{i}", self._rows(batch, i).to(target.device)
            pred = out[name]
            scale = out[f"{name}_log_scale"] if self.distance in _SCALED else None
            for what, tensor in ((name, pred), (f"{name}_log_scale", scale)):
                if tensor is not None and tuple(tensor.shape) != (len(rows), target.shape[-1]):
                    raise InputError(
                        f"{what!r} is {list(tensor.shape)}; expected [{len(rows)}, {target.shape[-1]}] for the "
                        "sequences of this batch"
                    )
            if self.distance == "contrastive":
                total = total + self._among(pred, target, rows + i, self._sequences(batch, target.device))
            else:
                total = total + self._distance(pred, target[rows + i], scale)
            count += len(rows)
        return Term(total, float(count), {self.name: float(total.detach()) / max(count, 1)})

    def _distance(self, pred: Tensor, target: Tensor, scale: Tensor | None) -> Tensor:
        """Sums over rows. A quotient of the sum, not a mean: the mean of no elements is not a number."""
        if self.distance == "cosine":
            return (1 - functional.cosine_similarity(pred, target, dim=-1)).sum()
        width = target.shape[-1]
        if self.distance == "smooth_l1":
            return functional.smooth_l1_loss(pred, target, reduction="sum") / width
        squared = (pred - target).square()
        if self.distance == "gaussian" and scale is not None:
            return (scale + squared * (-2 * scale).exp() / 2).sum() / width
        if scale is not None:
            return (squared + (2 * scale).exp() - self.entropy * scale).sum() / width
        return squared.sum() / width

    def _among(self, pred: Tensor, target: Tensor, at: Tensor, sequence: Ragged) -> Tensor:
        """Cross entropy of the right place ``at`` [K] among all places of its own sequence."""
        lengths = sequence.lengths.to(at.device)
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=at.device), lengths)
        logits = functional.normalize(pred, dim=-1) @ functional.normalize(target, dim=-1).T / self.temperature
        logits = logits.masked_fill(owner[at][:, None] != owner, -math.inf)
        return functional.cross_entropy(logits, at, reduction="sum")

    def _rows(self, batch: Columns, ahead: int) -> Tensor:
        mask = None if self.mask is None else self._ragged(batch, self.mask)
        return foretelling(self._sequences(batch), mask, ahead=ahead)

    def _sequences(self, batch: Columns, device: torch.device | None = None) -> Ragged:
        """The sequences; of ``each`` places, those of as many as the batch has examples."""
        if self.each is None:
            return self._ragged(batch, self.sequence)
        count = len(next(iter(batch.values())))
        ids = torch.zeros(count * self.each, dtype=torch.int64, device=device)
        return Ragged(ids, torch.full((count,), self.each))

    @staticmethod
    def _ragged(batch: Columns, name: str) -> Ragged:
        column = batch.get(name)
        if not isinstance(column, Ragged):
            raise InputError(f"NextEmbedding needs a batch column {name!r} of sequences laid end to end (Ragged)")
        return column

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)

        def drawn(each: int) -> Tensor:
            return torch.randn(rows * each, 4, generator=random, dtype=torch.float64).requires_grad_()

        out = {"target": drawn(5), "pred_1": drawn(4), "pred_2": drawn(3)}
        out |= {"pred_1_log_scale": drawn(4), "pred_2_log_scale": drawn(3)}
        columns: dict[str, Column] = {
            f"of_{each}": Ragged(torch.zeros(rows * each, dtype=torch.int64), torch.full((rows,), each))
            for each in (3, 4)
        }
        ids = torch.zeros(rows * 5, dtype=torch.int64)
        return (
            cls(distance="gaussian", ahead=(1, 2)),
            out,
            {"text": Ragged(ids, torch.full((rows,), 5)), **columns},
        )
