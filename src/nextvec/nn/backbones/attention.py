"""Attention over sequences laid end to end, without padding: who attends to whom is decided by lengths alone.

Two paths give the same numbers: ``Grouped`` (one call per group of equal lengths; any mask; the CPU's path) and
``Jagged`` (one call on PyTorch's jagged nested tensors; the GPU's path, where it runs the variable-length kernels).
``Cached`` attends from new tokens to a ``KVCache``; ``Recording`` fills one while it reads prompts.

Legend: B sequences, N tokens (sum of lengths), L tokens of one sequence, S new tokens per row, H query heads,
Hkv key/value heads, d head width. Every path is called with q [N, H, d], k and v [N, Hkv, d]; it returns [N, H * d].
"""

from __future__ import annotations

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

__all__ = ["Attend", "Cached", "Grouped", "Jagged", "Layout", "Recording", "places_of"]


class Attend(Protocol):
    """Attention with its masks and shapes already decided."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """The order in which a batch is computed. runs: (L, how many sequences in a row have it); order and inverse:
    int64 [N], the tokens' way there and back, or None where they already stand as they should."""

    lengths: list[int]
    runs: list[tuple[int, int]]
    order: Tensor | None = None
    inverse: Tensor | None = None

    @classmethod
    def of(cls, lengths: Tensor, *, device: torch.device, group: bool = True) -> Layout:
        """Lay out sequences of ``lengths`` int64 [B]; with ``group``, equal lengths become neighbours."""
        sizes = lengths.tolist()
        if not sizes or min(sizes) < 1:
            raise InputError(f"sequences of lengths {sizes[:8]}: one sequence, and one token in each, is the least")
        runs = [(length, len(list(same))) for length, same in groupby(sizes)]
        if not group or len(runs) == len(Counter(sizes)):
            return cls(sizes, runs)
        ranked, ranks = torch.sort(lengths, stable=True)
        starts = lengths.cumsum(0) - lengths
        # Token t of the sequence that comes r-th stands at starts[ranks[r]] + t in what was given.
        order = torch.repeat_interleave(starts[ranks], ranked) + places_of(ranked)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order))
        runs = [(length, len(list(same))) for length, same in groupby(ranked.tolist())]
        return cls(ranked.tolist(), runs, order.to(device), inverse.to(device))


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
