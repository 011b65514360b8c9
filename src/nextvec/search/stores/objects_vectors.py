"""The vectors of a collection on an object store, as a search wants them: in memory, or read past as they come.

In memory they are an exact index, to which a new version adds what it has more. Over the bound, each search reads the
matching vectors from the store once, for all of its queries. Both give float64 dot products rounded to float32, equal
ones in insertion order. Shapes: N rows, D dimensions, Q queries.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from nextvec.search import filters
from nextvec.search.derived import Placed, missing_from, wasteful
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.exact import ExactIndex, Found
from nextvec.search.indexes.rows import STATS, Rows, in_memory
from nextvec.search.schema import SEQUENCE
from nextvec.search.snapshot import Snapshot, matrix
from nextvec.search.stores.objects_place import memory_limit

_BATCH = 8_192  # rows read and scored in one piece
_SIMPLE = 1_000  # nodes of a filter that Lance is given


class Vectors:
    """Keeps the rows of the last version searched. Safe to share between threads."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._limit = memory_limit()
        self._lock = threading.Lock()
        self._last: Placed | None = None

    def fit(self, snapshot: Snapshot) -> bool:
        """Whether the rows of this version may be held in memory: float32, int8 codes, and what goes with them."""
        return snapshot.rows * (5 * self._dim + STATS.itemsize) <= self._limit

    def found(
        self, snapshot: Snapshot, queries: NDArray[np.float32], k: int, tree: filters.Filter | None
    ) -> list[Found]:
        """The min(k, matches) best rows for each of float32 [Q, D], in row numbers of the snapshot."""
        allowed = None if tree is None else snapshot.allowed(tree)
        matches = snapshot.rows if allowed is None else allowed.count
        if matches == 0:
            return [Found(np.zeros(0, np.int64), np.zeros(0, np.float32), "no matches", 0)] * len(queries)
        if matches == snapshot.rows:
            allowed = tree = None
        k = min(k, matches)
        if not self.fit(snapshot):
            self._last = None
            return _read_past(snapshot, queries, k, allowed, tree)
        placed = self._placed(snapshot)
        found = placed.index.among(queries, k, placed.allowed(allowed))
        return [Found(placed.to_snapshot(one.rows), one.scores, one.plan, one.reranked) for one in found]

    def _placed(self, snapshot: Snapshot) -> Placed:
        with self._lock:
            if self._last is None or self._last.version != snapshot.version:
                before = self._last.index if self._last else None
                rows = _rows(snapshot, before.rows if before else None, self._dim)
                index = before if before and rows is before.rows else ExactIndex(rows, before)
                self._last = Placed(index, snapshot)
            return self._last


def _rows(snapshot: Snapshot, known: Rows | None, dim: int) -> Rows:
    """Rows that hold the snapshot's; only those that ``known`` lacks are read."""
    if known is not None and wasteful(known, snapshot):
        alive = np.isin(known.sequence, snapshot.sequence)
        name = f"{known.name}-{snapshot.version}"
        known = Rows(name, known.vectors[alive], known.codes[alive], known.stats[alive])
    missing = np.zeros(0, np.int64) if known is None else missing_from(known, snapshot)
    last = -1 if known is None or not len(known) else int(known.sequence[-1])
    if known is None or (len(missing) and missing[0] <= last):
        return in_memory(snapshot.vectors_after(-1), dim)
    if not len(missing):
        return known
    new = in_memory(snapshot.vectors_after(last), dim)
    return Rows(
        known.name,
        np.concatenate([known.vectors, new.vectors]),
        np.concatenate([known.codes, new.codes]),
        np.concatenate([known.stats, new.stats]),
    )


def _read_past(
    snapshot: Snapshot,
    queries: NDArray[np.float32],
    k: int,
    allowed: Allowed | None,
    tree: filters.Filter | None,
) -> list[Found]:
    """The k best of the matching rows, by one pass over their vectors in the store."""
    wide = queries.astype(np.float64)
    best = [(np.zeros(0, np.float32), np.zeros(0, np.int64)) for _ in queries]
    # A very long filter is told by its rows: Lance goes down into it, and deep enough ends the process.
    told = None if tree is None or _nodes(tree) > _SIMPLE else filters.to_sql(tree)
    matching = None if allowed is None else snapshot.sequence[allowed.rows]
    with snapshot.told():
        scanner = snapshot.dataset.scanner(
            columns=[SEQUENCE, "vector"], filter=told, batch_size=_BATCH, scan_in_order=False
        )
        for batch in scanner.to_batches():
            sequence, vectors = batch.column(0).to_numpy(), matrix(batch.column(1)).astype(np.float64)
            if matching is not None and told is None:
                wanted = np.isin(sequence, matching)
                sequence, vectors = sequence[wanted], vectors[wanted]
            for i, query in enumerate(wide):
                # Not BLAS: each row is summed in the same order wherever it stands, so that equal rows tie exactly.
                scores = np.einsum("ij,j->i", vectors, query).astype(np.float32)
                scores, numbers = np.concatenate([best[i][0], scores]), np.concatenate([best[i][1], sequence])
                order = np.lexsort((numbers, -scores))[:k]
                best[i] = scores[order], numbers[order]
    plan = "scan in the store"
    return [Found(np.searchsorted(snapshot.sequence, numbers), scores, plan, len(numbers)) for scores, numbers in best]


def _nodes(tree: filters.Filter) -> int:
    if isinstance(tree, (filters.And, filters.Or)):
        return 1 + sum(_nodes(part) for part in tree.parts)
    if isinstance(tree, filters.Not):
        return 1 + _nodes(tree.part)
    return len(tree.values) if isinstance(tree, filters.In) else 1
