"""What the claim of ERNIE-Gram measures on a trained model.

Legend: n texts, N' places of what is read, T places of one text, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.data.sources import ragged
from nextvec.methods._ernie_gram_parts import rows_of
from nextvec.methods.ernie_gram import ErnieGram
from nextvec.nn.backbones.transformer import Block
from nextvec.types import Batch, InputError, Ragged

__all__ = ["hidden_units", "mean_states"]

_AT_ONCE = 200
Span = tuple[int, int]


def mean_states(method: ErnieGram, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """The mean of every text's states, float32 [n, D]."""
    device = next(method.parameters()).device
    found = []
    for start in range(0, len(texts), _AT_ONCE):
        rows = ragged([list(text) for text in texts[start : start + _AT_ONCE]]).to(device)
        parts = torch.split(method.states(rows).float(), rows.lengths.tolist())
        found.append(torch.stack([part.mean(dim=0) for part in parts]).cpu().numpy())
    means: NDArray[np.float32] = np.concatenate(found)
    return means


@torch.no_grad()
def hidden_units(method: ErnieGram, texts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Of the n-grams of several tokens that are hidden in these texts, in percent: how many are restored whole; and of
    the attention that their places pay, over layers and heads, the share that goes outside them, relative to that of
    attention that is uniform: 100 is uniform, less is a look at one's own places. InputError where none was hidden.

    The share alone would depend on how many places an n-gram has: side by side two or three, and whole one.
    """
    device = str(next(method.parameters()).device)
    masker = method.masker()
    right: list[bool] = []
    shares: list[float] = []
    for start in range(0, len(texts), _AT_ONCE):
        rows = ragged([list(text) for text in texts[start : start + _AT_ONCE]])
        batch = masker(Batch({"text": rows}), np.random.default_rng(start))
        spans = _spans(method, batch)
        batch = batch.to(device)
        right += _restored(method, spans, batch, method(batch))
        shares += _outside(method, spans, batch)
    if not right:
        raise InputError("no n-gram was hidden: measure on more texts")
    return 100 * float(np.mean(right)), 100 * float(np.mean(shares))


def _spans(method: ErnieGram, batch: Batch) -> list[Span]:
    """Where the hidden units of several tokens begin and end in what is read, [start, stop)."""
    if method.config.kind != "contiguous":
        places = (batch.ragged("coarse").values >= method.config.vocab).nonzero().flatten().tolist()
        return [(place, place + 1) for place in places]
    # Side by side, hidden units may touch. A run of hidden places begins where a unit does, so the lexicon cuts it as
    # it cut the text.
    fine = batch.ragged("fine")
    spans, start = [], 0
    for length in fine.lengths.tolist():
        labels = fine.values[start : start + length].tolist()
        at = 0
        while at < length:
            stop = at
            while stop < length and labels[stop] >= 0:
                stop += 1
            for unit in method.lexicon.units(labels[at:stop]):
                if len(unit) > 1:
                    spans.append((start + at, start + at + len(unit)))
                at += len(unit)
            at = stop + 1
        start += length
    return spans


def _restored(method: ErnieGram, spans: Sequence[Span], batch: Batch, out: Mapping[str, Tensor]) -> list[bool]:
    """Whether each of ``spans`` is foretold as it was."""
    kind = "fine" if method.config.kind == "contiguous" else "coarse"
    labels = batch.ragged(kind).values
    rows = rows_of(batch.ragged(kind))
    right = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    right[rows] = out[f"{kind}_logits"].argmax(dim=1) == labels[rows]
    found = right.tolist()
    return [all(found[start:stop]) for start, stop in spans]


def _outside(method: ErnieGram, spans: Sequence[Span], batch: Batch) -> list[float]:
    """For every text with some of ``spans``, and every layer, the mean over their places and the heads of the share of
    attention that is paid outside the place's own span, over (T - the span's places) / T."""
    ids, at, query = (batch.ragged(name) for name in ("ids", "at", "query"))
    reader = method.reader
    states = reader.transformer(
        Ragged(reader.table(ids.values) + reader.place_table[at.values], ids.lengths),
        blocks=query.values,
        all_states=True,
    )
    number = torch.full((len(ids.values),), -1)
    for i, (start, stop) in enumerate(spans):
        number[start:stop] = i
    number = number.to(ids.values.device)
    found, start = [], 0
    for length in ids.lengths.tolist():
        part = slice(start, start + length)
        start += length
        text = int((query.values[part] == 0).sum())
        span = number[part][:text]
        rows = (span >= 0).nonzero().flatten()
        if not len(rows):
            continue
        out = span[rows][:, None] != span
        for block, state in zip(reader.transformer.blocks, states[:-1], strict=True):
            assert isinstance(block, Block)
            heads = block.qkv(block.attention_norm(state[part][:text])).view(text, -1, block.head_width)
            q, k, _ = heads.split((block.heads, block.key_heads, block.key_heads), dim=1)
            paid = torch.einsum("ihd,jhd->hij", q[rows], k).div(block.head_width**0.5).softmax(dim=-1).mean(dim=0)
            found.append(float(((paid * out).sum(dim=1) / out.float().mean(dim=1)).mean()))
    return found
