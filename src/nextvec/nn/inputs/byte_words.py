"""Words as their bytes: a vector per word without a table of words.

A word's UTF-8 bytes, at most ``longest`` of them, are looked up in a table of 256 rows, with their places; learned
queries attend to them, and what they read is one vector. A longer word is cut, at a byte.

Source of the idea: Byte2Word, arXiv 2211.12677, of which we know the abstract alone: the design is ours.
Legend: N words, W bytes of a word at most, d width of a byte's vector, Q queries, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nextvec.nn.linear import Linear
from nextvec.types import InputError

__all__ = ["ByteWords", "word_bytes"]


def word_bytes(words: Sequence[str], *, longest: int = 16) -> NDArray[np.uint8]:
    """uint8 [N, W]: every byte plus 1 (UTF-8 has none above 244), then 0s. A lone surrogate, which UTF-8 cannot write,
    becomes a question mark."""
    rows = np.zeros((len(words), longest), dtype=np.uint8)
    for row, word in zip(rows, words, strict=True):
        written = word.encode("utf-8", "replace")[:longest]
        row[: len(written)] = np.frombuffer(written, dtype=np.uint8) + 1
    return rows


class ByteWords(nn.Module):
    """Bytes of words uint8 [N, W] to vectors [N, D]. A row of 0s, no word at all, gets a vector of its own (``empty``):
    what stands where a word is hidden. kind: "attention", or "mean" of the bytes' vectors (the control)."""

    def __init__(
        self, dim: int, *, width: int = 64, longest: int = 16, queries: int = 1, heads: int = 4, kind: str = "attention"
    ) -> None:
        super().__init__()
        if kind not in ("attention", "mean") or width % heads or min(dim, longest, queries) < 1:
            raise InputError(
                f"kind {kind!r}, width {width} with {heads} heads, {queries} queries: expected 'attention' or 'mean', a"
                " width that the heads divide, and at least one query"
            )
        self.kind, self.heads, self.longest = kind, heads, longest
        self.byte_table, self.place_table = nn.Embedding(256, width), nn.Embedding(longest, width)
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.both = Linear(width, 2 * width, bias=False)
        self.out = Linear(queries * width if kind == "attention" else width, dim)
        self.empty = nn.Parameter(torch.empty(dim))
        for weight in (self.byte_table.weight, self.place_table.weight, self.queries):
            nn.init.normal_(weight, std=0.5)
        nn.init.normal_(self.empty, std=0.02)

    def forward(self, words: Tensor) -> Tensor:
        """[N, D]. Words that occur several times are computed once."""
        if words.ndim != 2 or words.shape[1] != self.longest or words.dtype != torch.uint8:
            raise InputError(f"words {list(words.shape)} ({words.dtype}); expected uint8 [N, {self.longest}]")
        different, where = torch.unique(words, dim=0, return_inverse=True)
        return self._vectors(different.long())[where]

    def _vectors(self, words: Tensor) -> Tensor:
        there = words > 0
        x = self.byte_table((words - 1).clamp(min=0)) + self.place_table.weight
        if self.kind == "mean":
            mean = (x * there[..., None]).sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1)
            found: Tensor = self.out(mean)
        else:
            keys, values = (
                part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in self.both(x).chunk(2, dim=-1)
            )
            asked = self.queries.view(len(self.queries), self.heads, -1).transpose(0, 1).expand(len(x), -1, -1, -1)
            # A row of 0s attends to all its places and is replaced below: a softmax over nothing is not a number.
            seen = (there | ~there.any(dim=1, keepdim=True))[:, None, None]
            read = functional.scaled_dot_product_attention(asked, keys, values, attn_mask=seen)
            found = self.out(read.transpose(1, 2).flatten(1))
        return torch.where(there.any(dim=1, keepdim=True), found, self.empty.to(found.dtype))
