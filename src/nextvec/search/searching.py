"""From a search to rows: the short way of what most searches are, and the way of all others.

Shapes: Q queries, D dimensions, N rows.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nextvec.search import filters
from nextvec.search.answer import Source, respond
from nextvec.search.derived import Placed
from nextvec.search.handle import Handle
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.exact import DIRECT, Found
from nextvec.search.indexes.rows import Damaged, row_check
from nextvec.search.inputs import check_columns, check_k, check_recall, plain_queries
from nextvec.search.paging import Cursor
from nextvec.search.requests import Request
from nextvec.search.snapshot import Snapshot
from nextvec.types import Hits, InputError, NotFoundError, StorageError

__all__ = ["Searching"]


class Searching(Handle):
    """The inner part of ``Collection.search``."""

    _older: Self | None = None

    def close(self) -> None:
        """Let go of memory and files, after what runs in the background. Every write was durable before this."""
        super().close()
        self._older = None

    def _plain(
        self, vectors: NDArray[np.float32], k: int, where: str | None, columns: Any, recall: Any
    ) -> list[Hits] | None:
        """The answers to what most searches are, vectors and perhaps a filter, without what the others need; None where
        a vector has no direction."""
        names = check_columns(columns, self._schema) if columns is not None else []
        k, wanted = check_k(k), check_recall(recall)
        snapshot = self._current()
        allowed = None if where is None else snapshot.allowed(self._parsed(where))
        matches = snapshot.rows if allowed is None else allowed.count
        if matches == snapshot.rows:
            allowed = None
        if allowed is not None and 0 < matches <= DIRECT and not names:
            few = self._few(snapshot, vectors, k, where, allowed, wanted)
            if few is not None:
                return few
        queries = plain_queries(vectors)
        if queries is None:
            return None
        found, placed = self._found(snapshot, queries, min(k, max(matches, 1)), allowed, wanted, told=False)
        rows = [one.rows for one in found]
        if placed is not None and placed.places is not None:
            rows = [placed.to_snapshot(own) for own in rows]
        more = wanted is None and matches > k
        hits = []
        for i, (ids, one) in enumerate(zip(snapshot.ids_of_each(rows), found, strict=True)):
            next_page = partial(self._after, snapshot, queries[i : i + 1], k, where) if more else None
            hits.append(Hits(ids, one.scores, snapshot.values(rows[i], names) if names else [], None, next_page))
        return hits

    def _few(
        self,
        snapshot: Snapshot,
        vectors: NDArray[np.float32],
        k: int,
        where: str | None,
        allowed: Allowed,
        recall: float | None,
    ) -> list[Hits] | None:
        """The same where few rows match, by one call from vectors to ids; None where it takes more than that."""
        placed, ids = self._derived.index(snapshot), snapshot.id_buffers
        if placed.places is not None or ids is None:
            return None
        sure = 1.0 if recall is None else placed.index.likely
        try:
            found = placed.index.few(vectors, k, allowed.listed, ids, sure=sure)
        except Damaged:  # the long way has them made again
            return None
        if found is None:
            return None
        if recall is None and allowed.count > k:
            units = found[2]
            return [
                Hits(own, scores, [], None, partial(self._after, snapshot, units[i : i + 1], k, where))
                for i, (own, scores) in enumerate(zip(found[0], found[1], strict=True))
            ]
        return [Hits(own, scores) for own, scores in zip(found[0], found[1], strict=True)]

    def _after(self, snapshot: Snapshot, query: NDArray[np.float32], k: int, where: str | None) -> str:
        """The cursor after the first page of a plain search."""
        request = Request.of_vector(query, k, where)
        return Cursor(snapshot.version, k, request.fingerprints(snapshot.identity)[0]).text()

    def _answered(self, request: Request, tree: filters.Filter | None, began: float) -> list[Hits]:
        snapshot = self._current()
        if request.cursors and request.cursors[0].version != snapshot.version:
            return self._continued(request.cursors[0].version, request, tree, began)
        allowed = None if tree is None else snapshot.allowed(tree)
        if allowed is not None and allowed.count == snapshot.rows:
            allowed = None
        source = Source(
            snapshot,
            allowed,
            find=partial(self._located, snapshot, allowed, request.recall, request.explain),
            words=partial(self._words.index, snapshot),
            vectors=partial(self._vectors, snapshot),
        )
        return respond(request, source, self._paged, began)

    def _continued(self, version: int, request: Request, tree: filters.Filter | None, began: float) -> list[Hits]:
        """The answer from the version that a cursor came from, which is not the present one."""
        if self._pinned:
            raise InputError(f"the cursor comes from version {version}, this handle is pinned to {self.version}")
        try:
            return self._at(version)._answered(request, tree, began)
        except (NotFoundError, StorageError) as error:
            raise NotFoundError(
                f"the cursor continues a search in version {version}, which is no longer kept (the newest is "
                f"{self.version}): search again without cursor"
            ) from error

    def _at(self, version: int) -> Self:
        """This collection at an earlier version; the last one asked for is kept open."""
        older = self._older
        if older is None or older.version != version:
            self._older = older = type(self)(self.path, version=version)
        return older

    def _located(
        self,
        snapshot: Snapshot,
        allowed: Allowed | None,
        recall: float | None,
        told: bool,
        queries: NDArray[np.float32],
        k: int,
    ) -> list[Found]:
        """``_found``, in row numbers of the snapshot."""
        found, placed = self._found(snapshot, queries, k, allowed, recall, told=told)
        if placed is None or placed.places is None:
            return found
        return [replace(one, rows=placed.to_snapshot(one.rows)) for one in found]

    def _vectors(self, snapshot: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 [len(rows), D] from the index, in a tenth of the time that the table takes, if they are whole."""
        placed = self._derived.index(snapshot)
        held, at = placed.index.rows, placed.to_index(rows)
        vectors: NDArray[np.float32] = held.vectors[at]
        whole = np.array_equal(row_check(vectors), held.check[at])
        return vectors if whole else snapshot.take_vectors(rows)

    def _found(
        self,
        snapshot: Snapshot,
        queries: NDArray[np.float32],
        k: int,
        allowed: Allowed | None,
        recall: float | None,
        *,
        told: bool,
    ) -> tuple[list[Found], Placed | None]:
        if snapshot.rows == 0 or (allowed is not None and allowed.count == 0):
            nothing = Found(np.zeros(0, np.int64), np.zeros(0, np.float32), "no matches", 0)
            return [nothing] * len(queries), None

        def search(placed: Placed) -> tuple[list[Found], Placed]:
            rows = placed.allowed(allowed)
            if recall is None or (rows is not None and rows.count <= DIRECT and not told):
                sure = 1.0 if recall is None else placed.index.likely
                return placed.index.among(queries, k, rows, sure=sure), placed
            return self._derived.planner(placed).search(queries, k, rows, recall, told=told), placed

        try:
            return search(self._derived.index(snapshot))
        except Damaged:
            return search(self._derived.remake(snapshot))
