"""Attention over sequences laid end to end, without padding: who attends to whom is decided by lengths alone.

Two paths give the same numbers: ``Grouped`` (one call per group of equal lengths; any mask; the CPU's path) and
``Jagged`` (one call on PyTorch's jagged nested tensors; the GPU's path, where it runs the variable-length kernels).
``Cached`` attends from new tokens to a ``KVCache``; ``Recording`` fills one while it reads prompts.

Legend: B sequences, N tokens (sum of lengths), L tokens of one sequence, S new tokens per row, H query heads,
Hkv key/value heads, d head width. Every path is called with q [N, H, d], k and v [N, Hkv, d]; it returns [N, H * d].
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from nextvec.nn.backbones.cache import KVCache
from nextvec.types import InputError

__all__ = [
    "Attend",
    "Cached",
    "Grouped",
    "Jagged",
    "Layout",
    "Recording",
    "attention",
    "attention_masks",
    "cached_mask",
    "places_of",
]


class Attend(Protocol):
    """Attention with its masks and shapes already decided."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attention(attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``attend(q, k, v)``, where a compiled block breaks: the lengths differ in every batch, and a block compiled for
    them would be compiled again and again."""
    return attend(q, k, v)


@dataclass(frozen=True, slots=True)
class Layout:
    """The order in which a batch is computed. runs: (L, how many sequences in a row have it); order and inverse:
    int64 [N], the tokens' way there and back, or None where they already stand as they should; places: int64 [N], the
    index of every token in its own sequence, in computing order."""

    lengths: list[int]
    runs: list[tuple[int, int]]
    places: Tensor
    order: Tensor | None = None
    inverse: Tensor | None = None

    @classmethod
    def of(cls, lengths: Tensor, *, device: torch.device, group: bool = True) -> Layout:
        """Lay out sequences of ``lengths`` int64 [B]; with ``group``, equal lengths become neighbours."""
        sizes = lengths.tolist()
        if not sizes or min(sizes) < 1:
            which = f"sequence {sizes.index(min(sizes))} has no tokens" if sizes else "no sequences"
            raise InputError(f"{which}: at least one sequence, and one token in each, is needed")
        runs = [(length, len(list(same))) for length, same in groupby(sizes)]
        if not group or len(runs) == len(Counter(sizes)):
            return cls(sizes, runs, places_of(lengths).to(device, non_blocking=True))
        ranked, ranks = torch.sort(lengths, stable=True)
        starts = lengths.cumsum(0) - lengths
        # Token t of the sequence that comes r-th stands at starts[ranks[r]] + t in what was given.
        places = places_of(ranked)
        order = torch.repeat_interleave(starts[ranks], ranked) + places
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order))
        runs = [(length, len(list(same))) for length, same in groupby(ranked.tolist())]
        moved = [x.to(device, non_blocking=True) for x in (places, order, inverse)]
        return cls(ranked.tolist(), runs, *moved)

    def arrange(self, x: Tensor) -> Tensor:
        """Rows [N, ...] as given, in computing order."""
        return x if self.order is None else x.index_select(0, self.order)

    def restore(self, x: Tensor) -> Tensor:
        """Rows [N, ...] in computing order, as they were given."""
        return x if self.inverse is None else x.index_select(0, self.inverse)


def places_of(lengths: Tensor) -> Tensor:
    """The index of every token in its own sequence, int64 [N], for ``lengths`` int64 [B]."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) - torch.repeat_interleave(starts, lengths)


class Grouped:
    """One call of scaled dot-product attention per run of equal lengths."""

    def __init__(self, runs: Sequence[tuple[int, int]], *, causal: bool, masks: Sequence[Tensor] | None = None) -> None:
        """masks: one per run, bool (True: may look) or float (added to the scores), broadcast to [count, H, L, L]."""
        self.runs, self.masks = runs, masks
        self.sizes = [length * count for length, count in runs]
        self.causal = causal and masks is None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        width = q.shape[1] * q.shape[2]
        # split, not slices: the gradient of a slice is a zero-filled tensor of the whole, once per run.
        parts = zip(*(torch.split(x, self.sizes) for x in (q, k, v)), strict=True)
        outputs = []
        for i, (part, (length, count)) in enumerate(zip(parts, self.runs, strict=True)):
            heads = [x.view(count, length, *x.shape[1:]).transpose(1, 2) for x in part]
            mask = None if self.masks is None else self.masks[i]
            outputs.append(
                _attend(heads[0], heads[1], heads[2], mask=mask, causal=self.causal).transpose(1, 2).reshape(-1, width)
            )
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class Jagged:
    """One call on nested tensors. It takes no mask but the causal one.

    PyTorch's nested attention is causal on GPUs only; on the CPU, where this path serves to test the layout, the
    causal case goes through the padded form of the same nested tensors (padding comes last, where no token sees it).
    """

    def __init__(self, lengths: Sequence[int], *, causal: bool, device: torch.device) -> None:
        ends = torch.tensor([0, *lengths]).cumsum(0)
        self.offsets = ends.to(device, non_blocking=True)
        self.shortest, self.longest, self.causal = min(lengths), max(lengths), causal
        self.padded = causal and device.type == "cpu"
        if self.padded:
            sizes = torch.tensor(lengths)
            self.where = torch.repeat_interleave(torch.arange(len(sizes)), sizes), places_of(sizes)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        repeats = q.shape[1] // k.shape[1]
        if repeats > 1:
            # Nested tensors know no grouped heads: each key/value head is written out for its queries.
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        nested = [
            torch.nested.nested_tensor_from_jagged(
                x.contiguous(), self.offsets, min_seqlen=self.shortest, max_seqlen=self.longest
            )
            for x in (q, k, v)
        ]
        if self.padded:
            full = [torch.nested.to_padded_tensor(x, 0.0).transpose(1, 2) for x in nested]
            rows, places = self.where
            return _attend(full[0], full[1], full[2], causal=True).transpose(1, 2)[rows, places].flatten(1)
        q, k, v = (x.transpose(1, 2) for x in nested)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return attended.transpose(1, 2).values().flatten(1)


class Cached:
    """New tokens, S per row, attend to everything their row holds in the cache, themselves included."""

    def __init__(self, cache: KVCache, layer: int, rows: Tensor, places: Tensor, mask: Tensor | None) -> None:
        """rows and places: int64 [B * S], where the new tokens go; mask: broadcast to [B, H, S, T], or None."""
        self.cache, self.layer, self.rows, self.places, self.mask = cache, layer, rows, places, mask

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        cache, layer = self.cache, self.layer
        cache.write(layer, self.rows, self.places, k, v)
        steps = len(q) // cache.rows
        end = int(cache.lengths.max()) + steps
        queries = q.view(cache.rows, steps, *q.shape[1:]).transpose(1, 2)
        keys, values = cache.keys[layer][:, :, :end], cache.values[layer][:, :, :end]
        attended = _attend(queries, keys.to(q.dtype), values.to(q.dtype), mask=self.mask)
        return attended.transpose(1, 2).reshape(len(q), -1)


class Recording:
    """Another path that also writes the keys and values it is given into a cache."""

    def __init__(self, inner: Attend, cache: KVCache, layer: int, rows: Tensor, places: Tensor) -> None:
        self.inner, self.cache, self.layer, self.rows, self.places = inner, cache, layer, rows, places

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.cache.write(self.layer, self.rows, self.places, k, v)
        return self.inner(q, k, v)


def _attend(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Attention of [B, H, L, d] on [B, Hkv, T, d]."""
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(q.dtype)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
    )


def attention_masks(
    layout: Layout, *, kind: str, blocks: Tensor | None, slopes: Tensor | None, device: torch.device
) -> list[Tensor] | None:
    """One mask per run of equal lengths, or None where lengths and causality say it all.

    kind: "causal", "bidirectional" or "block_causal"; blocks: int64 [N] in computing order, for block-causal attention
    (token i sees token j where blocks[j] <= blocks[i]); slopes: float [H], ALiBi's penalty per token of distance.
    """
    if blocks is None and slopes is None:
        return None
    longest = torch.arange(max(layout.lengths), device=device)
    distance = longest[:, None] - longest[None, :]
    if blocks is None:
        # One mask serves all lengths: a shorter sequence takes its corner.
        whole = _mask((distance >= 0) if kind == "causal" else None, slopes, distance)
        return [whole[:, :, :length, :length] for length, _ in layout.runs]
    masks = []
    for own, (length, count) in zip(torch.split(blocks, [n * m for n, m in layout.runs]), layout.runs, strict=True):
        rows = own.view(count, 1, length)
        masks.append(_mask(rows[:, :, None, :] <= rows[:, :, :, None], slopes, distance[:length, :length]))
    return masks


def cached_mask(filled: Tensor, steps: int, *, slopes: Tensor | None, device: torch.device) -> Tensor | None:
    """What S = ``steps`` new tokens may see of caches that hold ``filled`` int64 [B] tokens and themselves: broadcast
    to [B, H, S, T], T the longest row; None where every new token may see everything."""
    where = filled[:, None, None, None] + torch.arange(steps)[:, None]
    distance = (where - torch.arange(int(filled.max()) + steps)).to(device, non_blocking=True)
    level = steps == 1 and bool((filled == filled[0]).all())
    return None if level and slopes is None else _mask(distance >= 0, slopes, distance)


def _mask(allowed: Tensor | None, slopes: Tensor | None, distance: Tensor) -> Tensor:
    """``allowed`` (bool) itself, or with ``slopes`` [H] a float mask: -slope * |distance|, -inf where not allowed.

    distance: [L, T] or [B, 1, L, T]; the mask has four dimensions, [count or 1, H or 1, L, T].
    """
    if slopes is None:
        assert allowed is not None
        return allowed
    bias = -slopes[:, None, None] * distance.abs()
    bias = bias if bias.ndim == 4 else bias[None]
    return bias if allowed is None else bias.masked_fill(~allowed, -math.inf)
