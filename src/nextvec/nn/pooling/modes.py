"""The standard poolings, on texts laid end to end: hidden [N, D] and lengths [B] (sum N) to [B, D].

Working on packed states means that no padding can leak into a mean and that it does not matter on which side a
tokenizer pads. Names are those of sentence-transformers, so its configurations can be read as they are. Which tokens
take part is chosen in ``spans``, which layers in ``layers``; poolings with weights of their own are in ``attention``,
``latent`` and ``multi_layer``.

    mean                  sum h_i / n                    mean_sqrt_len_tokens  sum h_i / sqrt(n)
    weightedmean          sum i h_i / sum i, i = 1 .. n  (SGPT, arXiv 2202.08904)
    max, cls, lasttoken   the greatest of each value; the first state; the last state

Legend: N tokens, B texts, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nextvec.types import InputError, did_you_mean

MODES = ("mean", "cls", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean")


def check_modes(modes: Sequence[str]) -> tuple[str, ...]:
    """The modes as a tuple; InputError for an unknown one."""
    for mode in modes:
        if mode not in MODES:
            raise InputError(f"unknown pooling {mode!r}; known: {', '.join(MODES)}{did_you_mean(mode, MODES)}")
    return tuple(modes)


def pool(hidden: Tensor, lengths: Tensor, *, modes: Sequence[str] = ("mean",), skip: int | Tensor = 0) -> Tensor:
    """Pool each text; several modes are concatenated to [B, D * len(modes)]. Computed in float32 (float64 stays).

    hidden: [N, D]; lengths: int64 [B]; skip: leading tokens of each text (its prompt or instruction) that means, sums
    and maxima leave out, one number or int64 [B]. A text without (remaining) tokens gives zeros.
    """
    hidden = hidden if hidden.dtype == torch.float64 else hidden.float()
    starts = torch.cumsum(lengths, 0) - lengths
    trimmed, left = _without_prompt(hidden, lengths, starts, skip)
    return torch.cat([_pool_one(mode, hidden, lengths, starts, trimmed, left) for mode in modes], dim=1)


def _without_prompt(hidden: Tensor, lengths: Tensor, starts: Tensor, skip: int | Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(skip, Tensor):
        if skip.shape != lengths.shape:
            raise InputError(
                f"skip has shape {list(skip.shape)} for {len(lengths)} texts; expected one number for each"
            )
        kept = torch.repeat_interleave(skip, lengths)
    elif not skip:
        return hidden, lengths
    else:
        kept = torch.full((len(hidden),), skip, device=hidden.device)
    offset = torch.arange(len(hidden), device=hidden.device) - torch.repeat_interleave(starts, lengths)
    return hidden[offset >= kept], (lengths - skip).clamp(min=0)


def _pool_one(mode: str, hidden: Tensor, lengths: Tensor, starts: Tensor, trimmed: Tensor, left: Tensor) -> Tensor:
    if mode in ("cls", "lasttoken"):
        at = starts if mode == "cls" else starts + lengths - 1
        if not len(hidden):
            return hidden.new_zeros(len(lengths), hidden.shape[1])
        return hidden[at.clamp(0, len(hidden) - 1)].masked_fill((lengths == 0)[:, None], 0.0)
    if mode == "max":
        return torch.segment_reduce(trimmed, "max", lengths=left, initial=None).masked_fill((left == 0)[:, None], 0)
    if mode == "weightedmean":
        begins = torch.cumsum(left, 0) - left
        weights = torch.arange(len(trimmed), device=hidden.device) - torch.repeat_interleave(begins, left) + 1.0
        total = (left * (left + 1) / 2).clamp(min=1)[:, None]
        return torch.segment_reduce(trimmed * weights[:, None], "sum", lengths=left, initial=0.0) / total
    summed = torch.segment_reduce(trimmed, "sum", lengths=left, initial=0.0)
    count = left.clamp(min=1)[:, None].float()
    return summed / (count if mode == "mean" else count.sqrt())
