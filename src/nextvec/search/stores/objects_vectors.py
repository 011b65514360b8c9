"""The vectors of a collection on an object store, as a search wants them: in memory, or read past as they come.

In memory they are an exact index, to which a new version adds what it has more. Over the bound, each search reads the
matching vectors from the store once, for all of its queries. Both give float64 dot products rounded to float32, equal
ones in insertion order. Shapes: N rows, D dimensions, Q queries.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nextvec.search import filters
from nextvec.search.derived import Placed, missing_from, wasteful
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.exact import ExactIndex, Found
from nextvec.search.indexes.rows import STATS, Rows, in_memory
from nextvec.search.snapshot import Snapshot
from nextvec.search.stores.objects_place import memory_limit

Piece = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Row numbers [n] of a snapshot and their vectors [n, D]."""

_BATCH = 8_192  # rows gathered in one piece
_APART = 256  # to ask for one row by itself takes as long as to read about so many in a run


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
            allowed = None
        k = min(k, matches)
        if not self.fit(snapshot):
            self._last = None
            return _read_past(snapshot, queries, k, allowed)
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


def _read_past(snapshot: Snapshot, queries: NDArray[np.float32], k: int, allowed: Allowed | None) -> list[Found]:
    """The k best of the matching rows, by one pass over their vectors in the store."""
    wide = queries.astype(np.float64)
    best = [(np.zeros(0, np.float32), np.zeros(0, np.int64)) for _ in queries]
    gathered = allowed is not None and allowed.count * _APART <= snapshot.rows
    for rows, vectors in _gathered(snapshot, allowed) if gathered and allowed else _scanned(snapshot, allowed):
        pieces = vectors.astype(np.float64)
        for i, query in enumerate(wide):
            # Not BLAS: each row is summed in the same order wherever it stands, so that equal rows tie exactly.
            scores = np.einsum("ij,j->i", pieces, query).astype(np.float32)
            scores, numbers = np.concatenate([best[i][0], scores]), np.concatenate([best[i][1], rows])
            order = np.lexsort((numbers, -scores))[:k]
            best[i] = scores[order], numbers[order]
    plan = f"{'gather' if gathered else 'scan'} in the store"
    return [Found(numbers, scores, plan, len(numbers)) for scores, numbers in best]


def _gathered(snapshot: Snapshot, allowed: Allowed) -> Iterator[Piece]:
    for start in range(0, allowed.count, _BATCH):
        rows = allowed.rows[start : start + _BATCH]
        yield rows, snapshot.take_vectors(rows)


def _scanned(snapshot: Snapshot, allowed: Allowed | None) -> Iterator[Piece]:
    for sequence, vectors in snapshot.vectors_after(-1):
        rows = np.searchsorted(snapshot.sequence, sequence)
        if allowed is not None:
            wanted = allowed.mask[rows]
            rows, vectors = rows[wanted], vectors[wanted]
        yield rows, vectors
