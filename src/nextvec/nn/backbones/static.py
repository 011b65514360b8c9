"""Static embeddings: a table of token vectors; a text is the mean of its tokens' rows. NumPy only.

Reads nextvec's own form (int8 rows with a scale each: a quarter of the size), sentence-transformers'
StaticEmbedding and model2vec. Source of the idea: mean-of-vectors baselines (Arora et al. 2017, SIF) and distilled
token tables (model2vec). The table is kept in float32: 30,000 x 256 are 31 MB and gather at memory speed.

Legend: V vocabulary, D width, B texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.nn.layout import require_safetensors
from nextvec.types import InputError, NotFoundError

_MAX_VALUES = 2 << 30


class StaticBackbone:
    """Token table [V, D] and its tokenizer."""

    def __init__(self, table: NDArray[np.float32], tokenizer: Any, *, max_length: int | None = None) -> None:
        """table: float32 [V, D]; tokenizer: a ``tokenizers.Tokenizer``; max_length: tokens kept per text
        (None: as the tokenizer says)."""
        if tokenizer.get_vocab_size() > len(table):
            raise InputError(
                f"the tokenizer knows {tokenizer.get_vocab_size():,} tokens, the table has {len(table):,} rows"
            )
        self.table = np.ascontiguousarray(table, dtype=np.float32)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.tokenizer.no_padding()
        if max_length is not None:
            self.tokenizer.enable_truncation(max_length)

    @property
    def dim(self) -> int:
        """The width D of a row."""
        return int(self.table.shape[1])

    @classmethod
    def load(cls, folder: Path, *, max_length: int | None = None) -> StaticBackbone:
        """Read ``tokenizer.json`` and ``model.safetensors`` from ``folder``."""
        require_safetensors(folder)
        return cls(_read_table(folder / "model.safetensors"), read_tokenizer(folder), max_length=max_length)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def pool(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Mean rows [B, D] of token ids; zeros for a text without tokens."""
        lengths = np.fromiter((len(text) for text in ids), np.int64, count=len(ids))
        flat = np.fromiter(itertools.chain.from_iterable(ids), np.int64, count=int(lengths.sum()))
        ends = np.cumsum(lengths)
        pooled = np.zeros((len(ids), self.dim), np.float32)
        rows = np.empty((int(lengths.max(initial=0)), self.dim), np.float32)
        for i, (length, end) in enumerate(zip(lengths.tolist(), ends.tolist(), strict=True)):
            if length:
                # Gather into one buffer that stays in cache, then let BLAS take the mean.
                block = np.take(self.table, flat[end - length : end], axis=0, out=rows[:length], mode="clip")
                np.dot(np.full(length, 1.0 / length, np.float32), block, out=pooled[i])
        return pooled


def read_tokenizer(folder: Path) -> Any:
    """The ``tokenizers.Tokenizer`` in ``folder/tokenizer.json``."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NotFoundError(f"{str(path)!r} is missing: the folder does not hold a complete model")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises bare Exception for every malformed file
        raise InputError(f"{str(path)!r} is not a readable tokenizer ({error}): damaged or truncated") from error


def _read_table(path: Path) -> NDArray[np.float32]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{str(path)!r} is not a readable safetensors file ({error}): damaged or truncated") from error
    if "embedding.weight" in tensors:
        rows, scale, mapping = tensors["embedding.weight"], tensors.get("embedding.scale"), None
    elif "embeddings" in tensors:
        rows, scale, mapping = tensors["embeddings"], tensors.get("weights"), tensors.get("mapping")
    else:
        raise InputError(f"{str(path)!r} holds {sorted(tensors)}: expected 'embedding.weight' (a static model)")
    if rows.ndim != 2 or rows.size > _MAX_VALUES:
        raise InputError(
            f"{str(path)!r}: the token table has shape {rows.shape}, expected [V, D] of at most 2^31 values"
        )
    if mapping is not None:
        if mapping.min(initial=0) < 0 or mapping.max(initial=0) >= len(rows):
            raise InputError(f"{str(path)!r}: 'mapping' points outside the table's {len(rows)} rows")
        rows = rows[mapping]
    if rows.dtype == np.int8 and scale is None:
        raise InputError(f"{str(path)!r}: int8 rows need 'embedding.scale'")
    table: NDArray[np.float32] = rows.astype(np.float32)
    if scale is not None:
        if scale.reshape(-1).shape[0] != len(table):
            raise InputError(f"{str(path)!r}: {scale.size} row scales for {len(table)} rows")
        table *= scale.astype(np.float32).reshape(-1, 1)
    if not np.isfinite(table).all():
        raise InputError(f"{str(path)!r}: the token table holds NaN or infinite values")
    return table


def write_static(folder: Path, backbone: StaticBackbone) -> None:
    """Write the table as float32 and the tokenizer, in sentence-transformers' StaticEmbedding form."""
    from safetensors.numpy import save_file

    save_file({"embedding.weight": backbone.table}, folder / "model.safetensors")
    backbone.tokenizer.save(str(folder / "tokenizer.json"))
