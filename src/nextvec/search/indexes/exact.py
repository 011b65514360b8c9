"""Exact search: a scan in low precision rules rows out, what is left is scored in float64.

1. Scan int8 codes (float32 rows where there are no integer kernels). Every scan score is within a known error of the
   true one; with L the k-th best lower bound, a row whose upper bound is under L cannot be among the k best.
2. Too many rows left (near ties): the same again in float32.
3. Score the rest in float64, round to float32, order by score, then by insertion.

Shapes: Q queries, D dimensions, N rows, M rows allowed by the filter.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.search.indexes import codes as kernels
from nextvec.search.indexes import threads
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.rows import Damaged, Rows, row_check
from nextvec.search.indexes.survey import BLOCK, CodeScorer, FloatScorer, Scorer, Survey
from nextvec.search.native import Out, outputs
from nextvec.search.native import kernels as native

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

DIRECT = 2_048  # rows; so many matches or fewer are looked at one by one: nothing else takes less time
_SCORED = 256  # rows; so many are scored in float64 at once where there are no kernels
SEVERAL = 4  # queries from which the kernels multiply them together (TILE_FROM in native/tile.h)
# Matching rows are gathered up to such a share of all rows; above it all are scanned, which reads them in order.
_GATHERED = 0.6  # for one query or a few
_GATHERED_TOGETHER = 0.45  # for several, which share the reading
_GATHERED_SLOWLY = 0.25  # where the kernels multiply codes no faster than anything else
_LISTED, _BATCHED = 65_536, 2_048  # there: rows that the kernels look at for one query, and for each of several
_SHARED = 50_000  # products of codes that are worth a second thread
_APART = 8_192  # rows for each thread: from here on threads share the rows, below it the queries
RERANK = 4_096  # rows left after the codes; above it a float32 pass comes between
_QUERIES = 64  # queries scanned together
_CHUNK = 8_192  # rows turned into float64 in one piece
_CERTAIN = 24  # rows that a kernel scores in float64 at once


@dataclass(slots=True)  # not frozen: that takes three times as long to make, and a batch makes one per query
class Found:
    """The best rows of one query, best first; ``reranked`` rows were scored in float64, or scanned where the plan is
    "cells"; ``told``: what else ``explain`` says of the way it was found."""

    rows: Int64
    scores: Float32
    plan: str
    reranked: int
    told: Mapping[str, Any] | None = None


class ExactIndex:
    """Exact top k over ``rows``. Safe to share between threads; ``previous`` lends its packed blocks."""

    def __init__(self, rows: Rows, previous: ExactIndex | None = None) -> None:
        self.rows = rows
        self._packs: dict[int, Any] = {}
        self._verified = 0  # rows whose codes were found to be what was written
        if previous is not None and previous.rows.name == rows.name:
            full = len(previous.rows) // BLOCK
            self._packs = {block: pack for block, pack in previous._packs.items() if block < full}
            self._verified = previous._verified

    def search(self, queries: Float32, k: int, allowed: Int64 | None = None, *, sure: float = 1.0) -> list[Found]:
        """The min(k, M) best rows for each of float32 [Q, D]. ``allowed``: ascending row numbers (None: all).

        Scores are float32 dot products, computed in float64; equal scores are in row order. ``sure``: the share of the
        largest possible error of codes that is allowed for, where kernels look at them: under 1 a row may be missed
        (``likely``). Raises ``Damaged`` where the derived rows are not what was written.
        """
        matches = len(self.rows) if allowed is None else len(allowed)
        if allowed is not None and self.lists(matches, len(queries)):
            return self.listed(queries, k, allowed, sure=sure)
        if matches <= _SCORED or k * 4 >= matches:
            every = np.arange(len(self.rows)) if allowed is None else allowed
            return [self.score(query, every, k, "direct") for query in queries]
        if self._fast:
            bits = None if allowed is None else Allowed(len(self.rows), rows=allowed).native(len(queries))
            return self._by_kernel(queries, k, None, bits, "scan int8", sure=sure)
        found: list[Found] = []
        for start in range(0, len(queries), _QUERIES):
            found += self._pruned(queries[start : start + _QUERIES], k, allowed, matches)
        return found

    def among(self, queries: Float32, k: int, allowed: Allowed | None, *, sure: float = 1.0) -> list[Found]:
        """``search`` among the rows that a filter takes (None: all)."""
        if allowed is not None and self.lists(allowed.count, len(queries)):
            return self.listed(queries, k, allowed.listed, sure=sure)
        if allowed is not None and self._fast and max(DIRECT, k * 4) < allowed.count:
            return self._by_kernel(queries, k, None, allowed.native(len(queries)), "scan int8", sure=sure)
        return self.search(queries, k, None if allowed is None else allowed.rows, sure=sure)

    def _pruned(self, queries: Float32, k: int, allowed: Int64 | None, matches: int) -> list[Found]:
        scorer: Scorer
        if kernels.available():
            self._verify_codes()
            scorer = CodeScorer(self.rows, self._pack, queries)
        else:
            scorer = FloatScorer(self.rows, queries)
        survey = Survey(scorer, k, len(queries))
        if allowed is not None and matches < _GATHERED_SLOWLY * len(self.rows):
            plan = f"gather {scorer.name}"
            pieces = [allowed[start : start + BLOCK // 2] for start in range(0, matches, BLOCK // 2)]
            parts = threads.spread(survey.gather, pieces)
        else:
            plan = f"scan {scorer.name}"
            bitmap = None
            if allowed is not None and matches < len(self.rows):
                bitmap = np.zeros(len(self.rows), np.bool_)
                bitmap[allowed] = True
            parts = threads.spread(functools.partial(survey.scan, bitmap), range(0, len(self.rows), BLOCK))
        left = survey.left(parts)
        return [self._finish(query, k, plan, rows) for query, rows in zip(queries, left, strict=True)]

    def _finish(self, query: Float32, k: int, plan: str, left: Int64) -> Found:
        if len(left) > RERANK:
            survey = Survey(FloatScorer(self.rows, query[None]), k, 1)
            parts = [survey.gather(left[start : start + _CHUNK]) for start in range(0, len(left), _CHUNK)]
            left = survey.left(parts)[0]
            plan += ", near ties in float32"
        return self.score(query, left, k, plan)

    @functools.cached_property
    def native(self) -> Any:
        """The rows as the compiled kernels take them; None where there are none."""
        rows = self.rows
        if native is None or len(rows) >= 2**31:
            return None
        dim = rows.vectors.shape[1]
        off = self.likely * float(rows.widest_error), self.likely * float(rows.widest_norm)
        return native.rows(rows.vectors, rows.codes, rows.scale, rows.error, rows.norm, rows.check, *off, dim)

    @functools.cached_property
    def likely(self) -> float:
        """``sure`` for searches that need not be certain."""
        return likely(self.rows.vectors.shape[1])

    @functools.cached_property
    def _fast(self) -> bool:
        """Whether the compiled kernels multiply codes as fast as anything."""
        return self.native is not None and bool(native.fast)

    def lists(self, matches: int, queries: int) -> bool:
        """Whether ``listed`` is the way to look at so many rows."""
        if self.native is None:
            return False
        if self._fast:
            share = _GATHERED if queries < SEVERAL else _GATHERED_TOGETHER
            return matches <= max(DIRECT, share * len(self.rows))
        most = _LISTED if queries == 1 else _BATCHED
        return matches <= most and matches <= max(DIRECT, _GATHERED_SLOWLY * len(self.rows))

    def listed(
        self,
        queries: Float32,
        k: int,
        rows: Int64,
        *,
        plan: str = "",
        certain: int = _CERTAIN,
        sure: float = 1.0,
    ) -> list[Found]:
        """``search`` among these rows, in any order, by a compiled kernel: rows that their codes do not rule out are
        scored in float64 (all of them, where there are no more than ``certain``)."""
        k = min(k, len(rows))
        if k == 0:
            return [Found(rows[:0], np.zeros(0, np.float32), plan or "direct", 0)] * len(queries)
        plan = plan or ("direct" if len(rows) <= certain else "gather int8")
        return self._by_kernel(queries, k, np.ascontiguousarray(rows, np.int64), None, plan, certain, sure)

    def few(
        self, vectors: Float32, k: int, rows: Int64, ids: tuple[Any, Any], *, sure: float
    ) -> tuple[list[list[str]], Float32, Float32] | None:
        """``listed`` in one call, for float32 [D] or [Q, D] of any length: for each the ids of its min(k, M) hits,
        their scores [Q, min(k, M)], and the vectors at length 1. ids: where each row's begins, and their text.

        None where it is not done so: without kernels, for many products, which threads share, for a vector that has no
        direction, or rows that are not what was written. Raises ``Damaged`` where codes are not.
        """
        if self.native is None:
            return None
        if len(rows) > _CERTAIN and self._verified < len(self.rows):
            self._verify_codes()
        dim = self.rows.vectors.shape[1]
        queries, k = vectors.size // dim, min(k, len(rows))
        if queries * len(rows) >= _SHARED:
            return None
        out, units = outputs(queries, k), np.empty((queries, dim), np.float32)
        found = native.few(self.native, vectors, units, rows, k, _CERTAIN, sure, out, *ids)
        return None if found is None else (found, out[1], units)

    def _by_kernel(
        self,
        queries: Float32,
        k: int,
        rows: Int64 | None,
        filter_: Any,
        plan: str,
        certain: int = 0,
        sure: float = 1.0,
    ) -> list[Found]:
        """Among these rows (None: all) that the kernels' filter takes, by as many threads as pay."""
        count = len(self.rows) if rows is None else len(rows)
        if count > certain and self._verified < len(self.rows):
            self._verify_codes()
        queries = np.ascontiguousarray(queries)
        out = outputs(len(queries), k)
        if len(queries) * count < _SHARED or threads.workers() == 1:
            whole = native.exact(self.native, queries, rows, filter_, 0, count, k, certain, sure, out)
        else:
            out, whole = self._by_threads(queries, rows, filter_, count, k, certain, sure, out)
        if not whole:
            raise Damaged("rows differ from what was written")
        return found_of(out, k, itertools.repeat(plan))

    def _by_threads(
        self,
        queries: Float32,
        rows: Int64 | None,
        filter_: Any,
        count: int,
        k: int,
        certain: int,
        sure: float,
        out: Out,
    ) -> tuple[Out, bool]:
        """The answers and whether the rows are whole; each thread has all queries and a part of the rows where these
        are many, else a part of the queries."""

        def run(queries: Float32, part: slice, out: Out) -> bool:
            own = None if rows is None else rows[part]
            done = native.exact(self.native, queries, own, filter_, part.start, part.stop, k, certain, sure, out)
            return bool(done)

        if count >= _APART * threads.workers():
            parts = [(part, outputs(len(queries), k)) for part in threads.parts_of(count)]
            whole = all(threads.spread(lambda one: run(queries, *one), parts))
            return _best_of([own for _, own in parts], k), whole
        shares = threads.parts_of(len(queries))
        return out, all(threads.spread(lambda own: run(queries[own], slice(0, count), _part(out, own)), shares))

    def score(self, query: Float32, rows: Int64, k: int, plan: str) -> Found:
        """The k best of these rows, by float64 scores rounded to float32, ties in row order."""
        if self.native is not None:
            return self.listed(query[None], k, rows, plan=plan, certain=len(rows))[0]
        wide = query.astype(np.float64)
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            vectors = self.rows.vectors[part]
            if not np.array_equal(row_check(vectors), self.rows.check[part]):
                raise Damaged("rows differ from what was written")
            # Not BLAS: each row is summed in the same order wherever it stands, so that equal rows tie exactly.
            scores[start : start + len(part)] = np.einsum("ij,j->i", vectors.astype(np.float64), wide)
        if k < len(rows):
            threshold = np.partition(scores, -k)[-k]
            keep = np.flatnonzero(scores >= threshold)
        else:
            keep = np.arange(len(rows))
        best = keep[np.argsort(-scores[keep], kind="stable")[:k]]
        return Found(rows[best], scores[best], plan, len(rows))

    def _pack(self, block: int) -> Any:
        if block not in self._packs:
            self._packs[block] = kernels.pack(self.rows.codes[block * BLOCK : (block + 1) * BLOCK])
        return self._packs[block]

    def _verify_codes(self) -> None:
        for start in range(self._verified, len(self.rows), BLOCK):
            part = slice(start, start + BLOCK)
            if not np.array_equal(row_check(self.rows.codes[part]), self.rows.codes_check[part]):
                raise Damaged("codes differ from what was written")
        self._verified = len(self.rows)


def likely(dim: int) -> float:
    """``sure`` for a search that need not be certain: five standard deviations of the error of codes, were the rounding
    of each value independent of all others. What can be proven is sqrt(D) of them."""
    return min(1.0, 5 / math.sqrt(dim))


def found_of(out: Out, k: int, plans: Iterable[str]) -> list[Found]:
    """What the kernels wrote; plans: of each query."""
    hits, scores, counts = out
    own = zip(hits, scores, plans, counts.tolist(), strict=False)
    # Nearly always all k were found, and to cut nothing off takes time.
    return [
        Found(rows, all_, plan, m) if n == k else Found(rows[:n], all_[:n], plan, m) for rows, all_, plan, (n, m) in own
    ]


def _part(out: Out, queries: slice) -> Out:
    hits, scores, counts = out
    return hits[queries], scores[queries], counts[queries]


def _best_of(parts: Sequence[Out], k: int) -> Out:
    """The k best of what was found in parts of the rows, the first part's rows before those of the next."""
    hits = np.concatenate([part[0] for part in parts], axis=1)
    scores = np.concatenate([part[1] for part in parts], axis=1)
    counts = np.stack([part[2] for part in parts])  # [P, Q, 2]
    missing = np.arange(k) >= counts[:, :, :1]  # [P, Q, k]
    scores[np.concatenate(list(missing), axis=1)] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    total = counts.sum(axis=0)
    total[:, 0] = np.minimum(total[:, 0], k)
    return np.take_along_axis(hits, order, axis=1), np.take_along_axis(scores, order, axis=1), total
