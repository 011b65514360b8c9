"""Which tokens take part in a pooling: masks over texts laid end to end, and the states that a mask keeps.

A mask is bool [N]. Masks combine with ``&``, ``|`` and ``~``; what is kept is again texts laid end to end, for ``pool``
or any module here. A text of which nothing is kept gives what an empty text gives: zeros.

    instruction      span(lengths, instruction_lengths, lengths)        pooled without its instruction (NV-Embed,
                                                                        arXiv 2405.17428)
    special tokens   ~is_special(ids, special)                          without [CLS], [SEP] and the like
    echo             second_copy(lengths, copied, after=1)              the text stands in the prompt twice, and only
                                                                        the second time each token has seen all of it
                                                                        (Springer et al., arXiv 2402.15449)
    tail             tail(lengths, 8)                                   the last tokens only ("partial mean")

Legend: N tokens, B texts, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from nextvec.nn.pooling.modes import pool
from nextvec.types import InputError

__all__ = ["is_special", "keep", "pool_kept", "second_copy", "span", "tail"]


def keep(hidden: Tensor, lengths: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The states whose mask is true, and how many of each text there are: [M, D] and int64 [B].

    hidden [N, D], lengths int64 [B], mask bool [N]. InputError where the shapes do not fit.
    """
    if mask.dtype != torch.bool or mask.shape != hidden.shape[:1]:
        raise InputError(
            f"mask is {mask.dtype} {list(mask.shape)}; expected bool, one for each of {len(hidden)} states"
        )
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    if owner.shape != mask.shape:
        raise InputError(f"lengths add up to {len(owner)}, but there are {len(hidden)} states")
    return hidden[mask], torch.zeros_like(lengths).index_add(0, owner, mask.to(lengths.dtype))


def pool_kept(hidden: Tensor, lengths: Tensor, mask: Tensor, *, modes: Sequence[str] = ("mean",)) -> Tensor:
    """``pool`` of what ``mask`` keeps: [B, D * len(modes)]. "cls" and "lasttoken" are the first and last kept state."""
    return pool(*keep(hidden, lengths, mask), modes=modes)


def span(lengths: Tensor, begin: int | Tensor, end: int | Tensor) -> Tensor:
    """The tokens ``begin`` to ``end`` - 1 of each text (from 0), each a number or int64 [B]: bool [N]."""
    starts = torch.repeat_interleave(torch.cumsum(lengths, 0) - lengths, lengths)
    offset = torch.arange(len(starts), device=lengths.device) - starts
    return (offset >= _spread(begin, lengths, "begin")) & (offset < _spread(end, lengths, "end"))


def tail(lengths: Tensor, count: int) -> Tensor:
    """The last ``count`` tokens of each text, all of a shorter one: bool [N]."""
    if count < 1:
        raise InputError(f"a tail of {count} tokens; expected at least 1")
    return span(lengths, lengths - count, lengths)


def is_special(ids: Tensor, special: Iterable[int]) -> Tensor:
    """Where ``ids`` int64 [N] is one of ``special`` (a tokenizer's ``all_special_ids``): bool [N]."""
    return torch.isin(ids, torch.tensor(sorted(set(special)), dtype=ids.dtype, device=ids.device))


def second_copy(lengths: Tensor, copied: Tensor, *, after: int = 0) -> Tensor:
    """The second time that a text stands in its prompt: bool [N].

    copied: int64 [B], tokens of the second copy (counted apart: the first may be cut into tokens differently); after:
    tokens that follow it in every prompt. InputError where a prompt is too short to hold its copy twice.
    """
    if copied.shape != lengths.shape:
        raise InputError(
            f"copied has shape {list(copied.shape)} for {len(lengths)} texts; expected one number for each"
        )
    short = (copied < 0) | (2 * copied + after > lengths)
    if bool(short.any()):
        at = int(short.int().argmax())
        raise InputError(
            f"text {at}: a prompt of {int(lengths[at])} tokens cannot hold {int(copied[at])} tokens twice and {after} "
            "after them; was it cut to the longest length?"
        )
    return span(lengths, lengths - after - copied, lengths - after)


def _spread(value: int | Tensor, lengths: Tensor, name: str) -> int | Tensor:
    if not isinstance(value, Tensor):
        return value
    if value.shape != lengths.shape:
        raise InputError(f"{name} has shape {list(value.shape)} for {len(lengths)} texts; expected one number for each")
    return torch.repeat_interleave(value, lengths)
