"""The scan of the exact index without compiled kernels: which rows could be among the k best, block by block.

Shapes: Q queries, D dimensions, N rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nextvec.search.indexes import codes as kernels
from nextvec.search.indexes.rows import Rows

__all__ = ["BLOCK", "CodeScorer", "FloatScorer", "Scorer", "Survey"]

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

BLOCK = 16_384  # rows scanned or gathered in one piece
_UNIT = 2.0**-24  # float32 rounding


class Scorer(Protocol):
    """Scan scores of Q queries, in a unit of its own for each query, and how far they may be off."""

    name: str
    widest: Float32  # [Q] the largest error of any row

    def scan(self, start: int, stop: int) -> Float32: ...  # [Q, stop - start]
    def gather(self, rows: Int64) -> Float32: ...  # [Q, len(rows)]
    def errors(self, query: int, rows: Int64) -> Float32: ...  # [len(rows)]


class Survey:
    """Which rows could be among the k best: keeps a threshold per query that rises from block to block."""

    def __init__(self, scorer: Scorer, k: int, queries: int) -> None:
        self.scorer = scorer
        self.k = k
        self.best = np.full(queries, -np.inf, np.float32)  # the k-th best scan score so far

    def scan(self, bitmap: NDArray[np.bool_] | None, start: int) -> tuple[Int64, Int64, Float32]:
        """(query, row, scan score) of what the block that starts at ``start`` leaves."""
        stop = start + BLOCK
        scores = self.scorer.scan(start, stop)
        mask = None if bitmap is None else bitmap[start:stop]
        query, place, kept = self._keep(scores, mask)
        return query, place + start, kept

    def gather(self, rows: Int64) -> tuple[Int64, Int64, Float32]:
        """The same for chosen rows."""
        query, place, kept = self._keep(self.scorer.gather(rows), None)
        return query, rows[place], kept

    def _keep(self, scores: Float32, mask: NDArray[np.bool_] | None) -> tuple[Int64, Int64, Float32]:
        if np.isneginf(self.best).any():
            self._start(scores if mask is None else scores[:, mask])
        keep = scores >= (self.best - 2 * self.scorer.widest)[:, None]
        if mask is not None:
            keep &= mask
        flat = np.flatnonzero(keep)  # nonzero of the matrix itself takes ten times as long
        query, place = np.divmod(flat, scores.shape[1])
        kept = scores.ravel()[flat]
        if len(kept) > 8 * self.k * len(scores):
            bounds = np.searchsorted(query, np.arange(len(scores) + 1))
            for i in range(len(scores)):
                self._raise(i, kept[bounds[i] : bounds[i + 1]])
            sure = kept >= (self.best - 2 * self.scorer.widest)[query]
            query, place, kept = query[sure], place[sure], kept[sure]
        return query, place, kept

    def _start(self, scores: Float32) -> None:
        # Of many queries a part of the rows gives a threshold that is nearly as high, in a quarter of the time.
        if len(scores) > 8 and scores.shape[1] >= 1024 * self.k:
            scores = scores[:, ::4]
        if scores.shape[1] >= self.k:
            kth = np.partition(scores, -self.k, axis=1)[:, -self.k]
            np.maximum(self.best, kth, out=self.best)

    def _raise(self, query: int, scores: Float32) -> None:
        if len(scores) >= self.k:
            self.best[query] = max(self.best[query], np.partition(scores, -self.k)[-self.k])

    def left(self, parts: list[tuple[Int64, Int64, Float32]]) -> list[Int64]:
        """For each query the rows, ascending, whose upper bound reaches the k-th best lower bound."""
        query = np.concatenate([part[0] for part in parts])
        rows = np.concatenate([part[1] for part in parts])
        scores = np.concatenate([part[2] for part in parts])
        if len(self.best) > 1:
            order = np.argsort(query, kind="stable")
            query, rows, scores = query[order], rows[order], scores[order]
        bounds = np.searchsorted(query, np.arange(len(self.best) + 1))
        return [self._sure(i, rows[a:b], scores[a:b]) for i, (a, b) in enumerate(itertools.pairwise(bounds))]

    def _sure(self, query: int, rows: Int64, scores: Float32) -> Int64:
        if len(rows) <= self.k:
            return np.sort(rows)
        self._raise(query, scores)
        near = scores >= self.best[query] - 2 * self.scorer.widest[query]
        rows, scores = rows[near], scores[near]
        errors = self.scorer.errors(query, rows)
        lower = scores - errors
        kth = np.partition(lower, -self.k)[-self.k]
        return np.sort(rows[scores + errors >= kth])


class CodeScorer:
    """Integer dot products of int8 codes. The unit of query i is ``query.scale[i]``."""

    name = "int8"

    def __init__(self, rows: Rows, pack: Callable[[int], Any], queries: Float32) -> None:
        self.rows = rows
        self.pack = pack
        self.query = kernels.quantise(queries)
        unit = np.maximum(self.query.scale, np.finfo(np.float32).tiny)
        # |q~| <= |q| + |dq|; the last term covers float32 rounding of the scan score, of the bounds and of the result.
        reach = self.query.norm + self.query.error
        self._row_error = (reach / unit).astype(np.float32)
        self._row_norm = ((self.query.error + reach * np.float32(16 * _UNIT)) / unit).astype(np.float32)
        self.widest = self._row_error * rows.widest_error + self._row_norm * rows.widest_norm

    def scan(self, start: int, stop: int) -> Float32:
        if len(self.query.codes) < kernels.PACK_FROM:
            return _times(kernels.dots(self.query.codes, self.rows.codes[start:stop]), self.rows.scale[start:stop])
        return _times(kernels.packed_dots(self.query.codes, self.pack(start // BLOCK)), self.rows.scale[start:stop])

    def gather(self, rows: Int64) -> Float32:
        return _times(kernels.dots(self.query.codes, np.take(self.rows.codes, rows, axis=0)), self.rows.scale[rows])

    def errors(self, query: int, rows: Int64) -> Float32:
        errors: Float32 = self._row_error[query] * self.rows.error[rows] + self._row_norm[query] * self.rows.norm[rows]
        return errors


class FloatScorer:
    """Float32 dot products by BLAS; the error is that of summing D products in float32."""

    name = "float32"

    def __init__(self, rows: Rows, queries: Float32) -> None:
        self.rows = rows
        self.queries = queries
        norms = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64, casting="safe"))
        self._row_norm = (norms * ((queries.shape[1] + 16) * _UNIT * 1.01)).astype(np.float32)
        self.widest = self._row_norm * rows.widest_norm

    def scan(self, start: int, stop: int) -> Float32:
        scores: Float32 = np.matmul(self.queries, self.rows.vectors[start:stop].T)
        return scores

    def gather(self, rows: Int64) -> Float32:
        scores: Float32 = np.matmul(self.queries, np.take(self.rows.vectors, rows, axis=0).T)
        return scores

    def errors(self, query: int, rows: Int64) -> Float32:
        errors: Float32 = self._row_norm[query] * self.rows.norm[rows]
        return errors


def _times(whole: NDArray[Any], scale: Float32) -> Float32:
    result: Float32 = np.multiply(whole, scale, dtype=np.float32, casting="unsafe")
    return result
