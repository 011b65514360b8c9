"""A trainable token table: texts as bags of token ids, their vectors as weighted means of rows.

Legend: N texts, B texts of a batch, V vocabulary, D width, H teacher width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Bags", "TokenTable", "initial_table", "principal_axes", "quantise"]


@dataclass(frozen=True, slots=True)
class Bags:
    """N texts as bags: the different token ids of text i are ``ids[offsets[i]:offsets[i + 1]]``, ``share``
    says which part of the text each makes up (the shares of a text sum to 1; a text without tokens is an
    empty bag)."""

    ids: NDArray[np.int32]
    share: NDArray[np.float32]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, tokenizer: Any, texts: Sequence[str], *, chunk: int = 4096) -> Bags:
        """Tokenise ``texts`` and count."""
        ids: list[NDArray[np.int32]] = []
        shares: list[NDArray[np.float32]] = []
        for start in range(0, len(texts), chunk):
            piece = list(texts[start : start + chunk])
            for encoding in tokenizer.encode_batch_fast(piece, add_special_tokens=False):
                unique, counts = np.unique(np.array(encoding.ids, dtype=np.int32), return_counts=True)
                ids.append(unique)
                shares.append((counts / max(counts.sum(), 1)).astype(np.float32))
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in ids])]).astype(np.int64)
        empty = (np.zeros(0, np.int32), np.zeros(0, np.float32))
        return cls(np.concatenate([*ids, empty[0]]), np.concatenate([*shares, empty[1]]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: NDArray[np.int64]) -> Bags:
        """The bags of ``rows``, in that order."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        where = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Bags(self.ids[where], self.share[where], offsets)


class TokenTable(nn.Module):
    """Rows [V, D]; the vector of a bag is the mean of its rows, not normalised."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(rows.copy()))

    def forward(self, bags: Bags) -> Tensor:
        """float32 [B, D]"""
        return functional.embedding_bag(
            torch.from_numpy(bags.ids),
            self.weight,
            torch.from_numpy(bags.offsets[:-1].astype(np.int32)),
            mode="sum",
            per_sample_weights=torch.from_numpy(bags.share),
        )

    def encode(self, bags: Bags, *, batch: int = 8192) -> NDArray[np.float32]:
        """float32 [N, D] without gradient."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(bags), batch):
                rows = np.arange(start, min(start + batch, len(bags)))
                parts.append(self(bags.take(rows)).numpy())
        return np.concatenate(parts) if parts else np.zeros((0, self.weight.shape[1]), np.float32)


def principal_axes(vectors: NDArray[Any], dim: int) -> NDArray[np.float32]:
    """Rotation to the ``dim`` strongest axes of ``vectors`` [N, H] (rows normalised, not centred), strongest
    first: float32 [H, dim], orthonormal columns. A prefix of the result keeps as much of all inner products
    as any axes can."""
    moment = np.zeros((vectors.shape[1], vectors.shape[1]))
    for start in range(0, len(vectors), 16384):
        block = unit(vectors[start : start + 16384]).astype(np.float64)
        moment += block.T @ block
    _, axes = np.linalg.eigh(moment)
    # The sign of an axis is arbitrary: fix it, so that equal input gives equal output everywhere.
    axes = axes[:, ::-1][:, :dim]
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    return np.ascontiguousarray(axes * signs, dtype=np.float32)


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Rows scaled to length 1 (zero rows stay zero), float32."""
    dense = np.asarray(vectors, dtype=np.float32)
    scaled: NDArray[np.float32] = dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    return scaled


def initial_table(
    tokens: NDArray[Any], counts: NDArray[np.int64], axes: NDArray[np.float32], *, smoothing: float = 1e-3
) -> NDArray[np.float32]:
    """Rows [V, D] from the teacher's vectors of single tokens [V, H]: centred, turned onto ``axes`` [H, D],
    and weighted by ``smoothing / (smoothing + p)`` where p is the token's share of the corpus.

    Source of the weight: Arora et al. 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings".
    """
    vectors = unit(tokens)
    share = (counts + 1) / (counts.sum() + len(counts))
    weight = (smoothing / (smoothing + share)).astype(np.float32)
    turned: NDArray[np.float32] = ((vectors - vectors.mean(0)) @ axes * weight[:, None]).astype(np.float32)
    return turned


def quantise(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 [V, D] and one scale per row [V]: ``rows ~ int8 * scale``, the largest value of a row at 127."""
    scale = np.maximum(np.abs(rows).max(axis=1), 1e-12) / 127.0
    return np.rint(rows / scale[:, None]).astype(np.int8), scale.astype(np.float32)
