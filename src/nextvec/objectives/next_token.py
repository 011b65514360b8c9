"""Next-token prediction: the cross entropy of the token that follows, over sequences laid end to end.

    loss = mean over predicted tokens of  -log softmax(logits_t)[x_{t+a}]        a = 1: the next token

Which positions count is a function of the batch alone (``predicted``), so that a method computes logits for these rows
and no others: not for the last ``a`` tokens of a sequence, nor for a prompt, which is given and not to be learned.

Legend: B sequences, N tokens (sum of lengths), V vocabulary, M positions that predict a token.
"""

from __future__ import annotations

from typing import Self, cast

import torch
from torch import Tensor
from torch.nn import functional

from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.types import Column, InputError, Ragged, Term

__all__ = ["NextToken", "predicted", "text_of"]


def predicted(text: Ragged, prompt: Tensor | None = None, *, ahead: int = 1) -> Tensor:
    """The positions that predict the token ``ahead`` places on: rows int64 [M] of ``text.values``, in order.

    Position t of a sequence of L tokens counts where t + ahead < L and, with ``prompt`` int64 [B] (tokens that are
    given, at least 1), where t is the prompt's last position or comes after it. InputError for a prompt that is
    longer than its text.
    """
    lengths = text.lengths
    if ahead < 1:
        raise InputError(f"ahead is {ahead}; expected at least 1 place")
    begin = torch.zeros_like(lengths) if prompt is None else _prompt(prompt, lengths) - 1
    starts = lengths.cumsum(0) - lengths
    places = torch.arange(len(text.values)) - torch.repeat_interleave(starts, lengths)
    end = torch.repeat_interleave(lengths - ahead, lengths)
    rows = ((places < end) & (places >= torch.repeat_interleave(begin, lengths))).nonzero().squeeze(1)
    return rows.to(text.values.device, non_blocking=True)


def count_predicted(text: Ragged, prompt: Tensor | None = None, *, ahead: int = 1) -> int:
    """M of ``predicted``, from the lengths."""
    begin = 0 if prompt is None else _prompt(prompt, text.lengths) - 1
    return int((text.lengths - ahead - begin).clamp(min=0).sum())


def _prompt(prompt: Tensor, lengths: Tensor) -> Tensor:
    given = prompt.to("cpu", torch.long)
    if given.shape != lengths.shape or prompt.is_floating_point():
        raise InputError(f"prompt: {prompt.dtype} {list(prompt.shape)}; expected int64 [{len(lengths)}], tokens each")
    if bool(((given < 1) | (given > lengths)).any()):
        worst = int(((given < 1) | (given > lengths)).nonzero()[0])
        raise InputError(
            f"example {worst} has a prompt of {int(given[worst])} tokens and a text of {int(lengths[worst])}; "
            "expected 1 up to the whole text, which begins with its prompt"
        )
    return given


def text_of(batch: Columns) -> tuple[Ragged, Tensor | None]:
    """The columns "text" (Ragged ids int64 [N]) and "prompt" (int64 [B], None where absent) of a batch."""
    text, prompt = batch.get("text"), batch.get("prompt")
    if not isinstance(text, Ragged) or text.values.is_floating_point() or text.values.ndim != 1:
        raise InputError("next-token objectives need a batch column 'text' of token ids: Ragged, int64 [N]")
    return text, cast("Tensor | None", prompt)


class NextToken(Objective):
    """Reads ``logits`` [M, V], a row for each of ``predicted(text, prompt, ahead=ahead)``. Logs its mean as ``name``.

    The batch has "text" (Ragged ids) and may have "prompt" int64 [B]. The reduction is the mean over predicted tokens
    of the whole step, so a long text weighs as much as its tokens. ``ahead`` > 1 scores a head that predicts further
    on.
    """

    scope: Scope = "example"
    columns = ("text", "prompt")

    def __init__(self, *, logits: str = "logits", ahead: int = 1, name: str = "next_token") -> None:
        super().__init__()
        if ahead < 1:
            raise InputError(f"ahead is {ahead}; expected at least 1 place")
        self.reads = (logits,)
        self.ahead, self.name = ahead, name

    def count(self, batch: Columns) -> float:
        text, prompt = text_of(batch)
        return float(count_predicted(text, prompt, ahead=self.ahead))

    def forward(self, out: Outputs, batch: Columns) -> Term:
        text, prompt = text_of(batch)
        rows = predicted(text, prompt, ahead=self.ahead)
        logits = out[self.reads[0]]
        if logits.ndim != 2 or len(logits) != len(rows):
            raise InputError(
                f"{self.reads[0]!r} is {list(logits.shape)}; expected [{len(rows)}, vocabulary], a row for each "
                f"position that predicts a token {self.ahead} on"
            )
        loss = functional.cross_entropy(logits, text.values[rows + self.ahead], reduction="sum")
        count = len(rows)
        return Term(loss, float(count), {self.name: float(loss.detach()) / max(count, 1)})

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        columns = example_columns(rows, random, vocab=7, length=5)
        logits = torch.randn(rows * 3, 7, generator=random, dtype=torch.float64)
        return cls(), {"logits": logits.requires_grad_()}, columns


def example_columns(rows: int, random: torch.Generator, *, vocab: int, length: int) -> dict[str, Column]:
    """Columns of texts for ``Objective.example``: ``length`` tokens each, 2 of them the prompt. The further columns
    "of_1", "of_2", ... say how outputs with that many rows for each text are divided."""
    ids = torch.randint(0, vocab, (rows * length,), generator=random)
    columns: dict[str, Column] = {"text": Ragged(ids, torch.full((rows,), length)), "prompt": torch.full((rows,), 2)}
    for each in range(2, length):
        columns[f"of_{each}"] = Ragged(torch.zeros(rows * each, dtype=torch.int64), torch.full((rows,), each))
    return columns
