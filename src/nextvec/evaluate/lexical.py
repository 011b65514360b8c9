"""BM25 as the baseline that any encoder has to be compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextvec.extras import require
from nextvec.types import InputError

__all__ = ["bm25_ranks"]


def bm25_ranks(
    queries: Sequence[str], documents: Sequence[str], targets: ArrayLike, *, k: int = 10
) -> NDArray[np.int64]:
    """Rank (from 1) of document ``targets[i]`` among the best ``k`` for query i, or len(documents) where it is not
    among them: int64 [Q]. BM25 (Lucene's form, k1 1.5, b 0.75) over lower-case words without English stop words."""
    bm25s = require("bm25s", why="the BM25 baseline")
    wanted = np.asarray(targets, dtype=np.int64)
    if len(wanted) != len(queries):
        raise InputError(f"{len(queries)} queries and {len(wanted)} targets: one target per query is needed")
    retriever = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    retriever.index(bm25s.tokenize(list(documents), stopwords="en", show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(list(queries), stopwords="en", show_progress=False, return_ids=False)
    found, _ = retriever.retrieve(tokens, k=min(k, len(documents)), show_progress=False)
    hit = np.asarray(found) == wanted[:, None]
    return np.where(hit.any(1), hit.argmax(1) + 1, max(len(documents), k + 1)).astype(np.int64)
