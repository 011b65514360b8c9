"""Keys and values of tokens already read, so that decoding reads each token once. Rows may differ in length.

Legend: B rows, T places per row, S new tokens per row, N tokens laid end to end, Hkv key/value heads, d head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nextvec.types import InputError

__all__ = ["KVCache"]


class KVCache:
    """Per layer keys and values [B, Hkv, T, d]; ``lengths`` int64 [B], on the CPU: how many places each row has filled.

    Places beyond a row's length hold rubbish that no query sees, so rolling back is a change of ``lengths`` alone.
    """

    def __init__(
        self,
        *,
        layers: int,
        rows: int,
        heads: int,
        head_width: int,
        capacity: int = 64,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """heads: key/value heads; capacity: places per row to begin with (it grows by doubling)."""
        shape = (rows, heads, max(capacity, 1), head_width)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]
        self.turns: Tensor | None = None
        """Angles float64 [B, T, H, d/2] of every place, where positions depend on the text (see ``turn``)."""
        self.lengths = torch.zeros(rows, dtype=torch.long)

    @property
    def rows(self) -> int:
        """The number of rows B."""
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        """Places T per row for which there is room now."""
        return self.keys[0].shape[2]

    def reserve(self, places: int) -> None:
        """Make room for ``places`` per row; what is stored is kept."""
        if places <= self.capacity:
            return
        capacity = max(places, 2 * self.capacity)
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                new = old.new_zeros(*old.shape[:2], capacity, old.shape[3])
                new[:, :, : old.shape[2]] = old
                store[layer] = new
        if self.turns is not None:
            wider = self.turns.new_zeros(self.rows, capacity, *self.turns.shape[2:])
            wider[:, : self.turns.shape[1]] = self.turns
            self.turns = wider

    def write(self, layer: int, rows: Tensor, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [N, Hkv, d] of tokens at ``places`` int64 [N] of ``rows`` int64 [N]."""
        self.keys[layer][rows, :, places] = keys.to(self.keys[layer].dtype)
        self.values[layer][rows, :, places] = values.to(self.values[layer].dtype)

    def turn(self, rows: Tensor, places: Tensor, steps: Tensor) -> Tensor:
        """Angles [N, H, d/2] after new tokens at ``places`` of ``rows``, int64 [N], that turn by ``steps``: each goes
        on from what its row has turned so far. New tokens of a row lie end to end, in order."""
        before = self.lengths.to(rows.device)[rows]
        total = steps.cumsum(0)
        start = torch.arange(len(rows), device=rows.device) - (places - before)
        if self.turns is None:
            self.turns = steps.new_zeros(self.rows, self.capacity, *steps.shape[1:])
        carried = self.turns[rows, (before - 1).clamp(min=0)] * (before > 0)[:, None, None]
        angles = total - (total - steps)[start] + carried
        self.turns[rows, places] = angles
        return angles

    def truncate(self, lengths: Tensor) -> None:
        """Roll back to ``lengths`` int64 [B], none above the present one (rejected drafts, speculative decoding)."""
        lengths = lengths.to("cpu", torch.long)
        if lengths.shape != self.lengths.shape or bool((lengths < 0).any() or (lengths > self.lengths).any()):
            raise InputError(
                f"truncate({lengths.tolist()}): expected one length per row between 0 and {self.lengths.tolist()}"
            )
        self.lengths = lengths.clone()

    def select(self, rows: Tensor) -> None:
        """Keep ``rows`` int64 [B'] in that order: drop finished rows, or repeat one to fan a prompt out."""
        index = rows.to(self.keys[0].device)
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                store[layer] = old.index_select(0, index)
        if self.turns is not None:
            self.turns = self.turns.index_select(0, index)
        self.lengths = self.lengths[rows.cpu()]
