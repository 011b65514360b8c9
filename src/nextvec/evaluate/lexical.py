"""BM25 as the baseline that any encoder has to be compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextvec.extras import require
from nextvec.types import InputError

__all__ = ["Bm25", "bm25_ranks"]


def bm25_ranks(
    queries: Sequence[str], documents: Sequence[str], targets: ArrayLike, *, k: int = 10
) -> NDArray[np.int64]:
    """Rank (from 1) of document ``targets[i]`` among the best ``k`` for query i, or len(documents) where it is not
    among them: int64 [Q]. See ``Bm25``."""
    wanted = np.asarray(targets, dtype=np.int64)
    if len(wanted) != len(queries):
        raise InputError(f"{len(queries)} queries and {len(wanted)} targets: one target per query is needed")
    hit = Bm25().rank(queries, documents, k, own=[-1] * len(queries)) == wanted[:, None]
    return np.where(hit.any(1), hit.argmax(1) + 1, max(len(documents), k + 1)).astype(np.int64)


class Bm25:
    """BM25 as a model for retrieval tasks: Lucene's form, k1 1.5, b 0.75, lower-case words without English stop words.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond".
    """

    name = "bm25"

    def rank(
        self, queries: Sequence[str], documents: Sequence[str], k: int, *, own: Sequence[int]
    ) -> NDArray[np.int64]:
        """Positions of the k best documents per query, best first: int64 [Q, min(k, N)].

        own: per query the position of a document that is passed over (-1: none). A document that shares no word with
        the query is not found; the rest of its row is -1. MissingExtraError without bm25s.
        """
        bm25s = require("bm25s", why="the BM25 baseline")
        wide = min(k, len(documents))
        result = np.full((len(queries), wide), -1, dtype=np.int64)
        words = bm25s.tokenize(list(documents), stopwords="en", show_progress=False, return_ids=False)
        asked = bm25s.tokenize(list(queries), stopwords="en", show_progress=False, return_ids=False)
        if not any(words):
            return result
        retriever = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        retriever.index(words, show_progress=False)
        found, scores = retriever.retrieve(asked, k=min(k + 1, len(documents)), show_progress=False)
        for i, (places, values) in enumerate(zip(np.asarray(found), np.asarray(scores), strict=True)):
            places, values = places[values > 0], values[values > 0]
            # Equal scores in the order of the documents, as everywhere.
            best = places[np.lexsort((places, -values))]
            best = best[best != own[i]][:wide]
            result[i, : len(best)] = best
        return result
