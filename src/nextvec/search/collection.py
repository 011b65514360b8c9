"""``Collection``: a durable, filterable store of embeddings.

    with Collection.create("papers", dim=384, schema={"year": "int", "venue": "string"}) as papers:
        papers.add(["a", "b"], vectors, [{"year": 2024}, {"year": 2025, "venue": "ACL"}])
        hits = papers.search(query, k=10, where="year >= 2024 AND venue IN ('ACL', 'EMNLP')")

``search`` returns exactly min(k, matches) hits, all satisfying the filter, the truly best ones. A write that returned
is there after the process is killed. Readers in other processes see whole versions only.
Shapes: N rows, D dimensions, Q queries.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from nextvec.search import filters
from nextvec.search import where as grammar
from nextvec.search.derived import Derived, Placed
from nextvec.search.indexes.exact import Found
from nextvec.search.indexes.rows import Damaged
from nextvec.search.inputs import (
    Attributes,
    check_columns,
    check_ids,
    check_k,
    check_queries,
    check_rows,
    refuse_existing,
)
from nextvec.search.schema import HEADER, Schema, check_schema
from nextvec.search.snapshot import Snapshot
from nextvec.search.store import Store
from nextvec.types import ConflictError, Hits, InputError, NotFoundError

__all__ = ["Collection"]


class Collection:
    """See the module. A handle may be shared between threads."""

    def __init__(self, path: Path, *, version: int | None = None) -> None:
        """Use ``Collection.open`` or ``Collection.create``."""
        self.path = path
        self._schema = Schema.read(path)
        self._store = Store(path, self._schema)
        self._pinned = version is not None
        self._derived = Derived(path, self._schema, shared=not self._pinned)
        self._remembered = functools.lru_cache(maxsize=256)(
            functools.partial(grammar.parse, columns=self._schema.columns)
        )
        self._lock = threading.Lock()
        self._closed = False
        self._snapshot: Snapshot | None = Snapshot(self._store.dataset(version), self._schema, path)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        dim: int,
        schema: Mapping[str, str] | None = None,
        metric: Literal["cosine", "dot"] = "cosine",
        exist_ok: bool = False,
    ) -> Collection:
        """Make an empty collection in a new or empty folder, and open it.

        schema maps attributes to "string", "int", "float", "bool", "date", "timestamp" or "list[string]". With
        metric "cosine" the vectors are stored at length 1, with "dot" as they come. ``exist_ok`` opens a collection
        that is there, if dim, metric and schema agree. Raises InputError, ConflictError, StorageError.
        """
        folder = Path(path).expanduser()
        wanted = check_schema(dim, metric, schema)
        Store.create(folder, wanted, exist_ok=exist_ok)
        collection = cls(folder)
        if collection._schema != wanted:
            there = collection._schema
            raise ConflictError(
                f"collection {str(folder)!r} exists with dim {there.dim}, metric {there.metric!r} and schema "
                f"{dict(there.attributes)}: they differ from what was asked for"
            )
        return collection

    @classmethod
    def open(cls, path: str | Path, *, version: int | None = None) -> Collection:
        """Open a collection; with ``version``, a read-only view of that version, else it follows the newest one.

        Raises NotFoundError, StorageError (damaged), InputError.
        """
        folder = Path(path).expanduser()
        if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
            raise InputError(f"version is {version!r}: expected a whole number from 1")
        if not (folder / HEADER).is_file():
            what = f"no {HEADER} in it" if folder.is_dir() else "no such folder"
            raise NotFoundError(f"{str(folder)!r} is not a collection ({what}): create it first")
        return cls(folder, version=version)

    @property
    def dim(self) -> int:
        """Dimensions of every vector."""
        return self._schema.dim

    @property
    def metric(self) -> Literal["cosine", "dot"]:
        """What scores are."""
        return self._schema.metric

    @property
    def schema(self) -> dict[str, str]:
        """Attribute to type."""
        return dict(self._schema.attributes)

    @property
    def version(self) -> int:
        """The version that the next call would read."""
        return self._current().version

    def __len__(self) -> int:
        return self.count()

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of memory and files. Every write was durable before this."""
        with self._lock:
            self._closed = True
            self._snapshot = None
            self._derived = Derived(self.path, self._schema, shared=not self._pinned)

    # Writing

    def add(self, ids: Sequence[str], vectors: ArrayLike, attributes: Attributes | None = None) -> None:
        """Add N new rows in one commit. vectors: [N, D] numbers; attributes: N mappings, or a mapping (or Arrow
        table) of columns; what is missing is NULL.

        Raises ConflictError that names the first id that exists or comes twice, InputError, StorageError; nothing
        is written then.
        """
        columns, rows = check_rows(ids, vectors, attributes, self._schema)
        self._refuse_pinned()
        if len(rows) == 0:
            return
        with self._store.writing():
            taken = np.flatnonzero(self._current().rows_of(columns["id"]) >= 0)
            refuse_existing(columns["id"].take(pa.array(taken)).to_pylist(), len(rows))
            self._store.append(columns, rows)
            self._store.tidy()

    def upsert(self, ids: Sequence[str], vectors: ArrayLike, attributes: Attributes | None = None) -> None:
        """Add rows, and replace those whose id exists (whole rows: an attribute left out becomes NULL), in one
        commit. A replaced row counts as inserted now. Arguments and errors as for ``add``.
        """
        columns, rows = check_rows(ids, vectors, attributes, self._schema)
        self._refuse_pinned()
        if len(rows) == 0:
            return
        with self._store.writing():
            snapshot = self._current()
            old = snapshot.rows_of(columns["id"])
            self._store.replace(snapshot.sequence[old[old >= 0]], columns, rows)
            self._store.tidy()

    def delete(self, ids: Sequence[str] | None = None, *, where: str | None = None) -> int:
        """Delete rows by id (unknown ids are passed over) or by filter, in one commit; how many there were."""
        if (ids is None) == (where is None):
            raise InputError("delete needs either ids or where, one of the two")
        wanted = None if ids is None else check_ids(ids)
        tree = None if where is None else self._parsed(where)
        self._refuse_pinned()
        with self._store.writing():
            snapshot = self._current()
            if tree is not None:
                rows = snapshot.matching(tree)
            else:
                rows = snapshot.rows_of(wanted)
                rows = np.unique(rows[rows >= 0])
            if len(rows):
                self._store.delete(snapshot.sequence[rows])
                self._store.tidy()
        return len(rows)

    def compact(self) -> None:
        """Merge small pieces and drop deleted rows and versions older than an hour. Done by itself when needed."""
        self._refuse_pinned()
        with self._store.writing():
            self._store.compact()

    # Reading

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[dict[str, Any] | None]:
        """For each id, in the order asked, its row as {"id": ..., attribute: value, ...}, or None.

        With ``vectors`` also "vector": float32 [D] (of length 1 with metric "cosine").
        """
        wanted = check_ids(ids)
        if len(wanted) == 0:
            return []
        snapshot = self._current()
        rows = snapshot.rows_of(wanted)
        there = np.unique(rows[rows >= 0])
        if len(there) == 0:
            return [None] * len(wanted)
        names = ["id", *self._schema.attributes]
        table = snapshot.take(there, names)
        records = dict(zip(there.tolist(), table.to_pylist(), strict=True))
        if vectors:
            for row, vector in zip(there.tolist(), snapshot.take_vectors(there), strict=True):
                records[row]["vector"] = vector
        return [dict(records[row]) if row >= 0 else None for row in rows.tolist()]

    def ids(self, where: str | None = None) -> list[str]:
        """The ids of all rows, or of those that match, in insertion order."""
        tree = None if where is None else self._parsed(where)
        snapshot = self._current()
        column = snapshot.column("id")
        return list((column if tree is None else column.take(pa.array(snapshot.matching(tree)))).to_pylist())

    def count(self, where: str | None = None) -> int:
        """How many rows there are, or match."""
        tree = None if where is None else self._parsed(where)
        snapshot = self._current()
        return snapshot.rows if tree is None else len(snapshot.matching(tree))

    @overload
    def search(
        self,
        vector: Sequence[float] | NDArray[Any],
        k: int = 10,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        explain: bool = False,
    ) -> Hits: ...
    @overload
    def search(
        self,
        vector: Sequence[Sequence[float]],
        k: int = 10,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        explain: bool = False,
    ) -> list[Hits]: ...
    def search(
        self,
        vector: Any,
        k: int = 10,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        explain: bool = False,
    ) -> Any:
        """The k best rows among those that satisfy ``where``: exactly min(k, matches), best first.

        vector [D] gives Hits, [Q, D] a list of Q Hits. Scores are float32 cosines or dot products, equal ones in
        insertion order. ``columns``: the attributes to return (None: none, which is fastest). ``explain`` fills
        ``Hits.explain``. Raises InputError.
        """
        began = time.perf_counter()
        queries, single = check_queries(vector, self._schema)
        k, names = check_k(k), check_columns(columns, self._schema)
        tree = None if where is None else self._parsed(where)
        snapshot = self._current()
        allowed = None if tree is None else snapshot.matching(tree)
        filtered = time.perf_counter()
        matches = snapshot.rows if allowed is None else len(allowed)
        found, placed = self._found(snapshot, queries, min(k, max(matches, 1)), allowed)
        searched = time.perf_counter()
        results = []
        for one in found:
            rows = placed.to_snapshot(one.rows) if placed else one.rows
            ids = snapshot.column("id").take(pa.array(rows)).to_pylist()
            results.append(Hits(ids, one.scores, snapshot.values(rows, names)))
        if explain:
            times = {"filter_ms": filtered - began, "search_ms": searched - filtered}
            times["total_ms"] = time.perf_counter() - began
            told: dict[str, Any] = {"version": snapshot.version, "rows": snapshot.rows, "matches": matches}
            told |= {name: round(seconds * 1000, 3) for name, seconds in times.items()}
            results = [
                Hits(hits.ids, hits.scores, hits.attributes, {**told, "plan": one.plan, "reranked": one.reranked})
                for hits, one in zip(results, found, strict=True)
            ]
        return results[0] if single else results

    def info(self) -> dict[str, Any]:
        """Path, dim, metric, schema, rows, version, fragments and bytes on disk."""
        snapshot = self._current()
        return {
            "path": str(self.path),
            "dim": self.dim,
            "metric": self.metric,
            "schema": self.schema,
            "rows": snapshot.rows,
            "version": snapshot.version,
            "fragments": len(snapshot.fragments),
            "bytes": _size(self.path / "data.lance"),
            "derived_bytes": _size(self.path / "derived"),
        }

    # Parts

    def _current(self) -> Snapshot:
        """The snapshot to answer from: the pinned one, or the newest."""
        with self._lock:
            if self._closed or self._snapshot is None:
                raise InputError(f"collection {str(self.path)!r} is closed: open it again")
            if not self._pinned and self._store.newest_version() != self._snapshot.version:
                self._snapshot = Snapshot(self._store.dataset(), self._schema, self.path, self._snapshot)
            return self._snapshot

    def _refuse_pinned(self) -> None:
        if self._pinned:
            raise InputError(
                f"this handle is pinned to version {self.version} and read-only: open the collection without version"
            )

    def _parsed(self, where: Any) -> filters.Filter:
        return self._remembered(where) if isinstance(where, str) else grammar.parse(where, self._schema.columns)

    def _found(
        self, snapshot: Snapshot, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None
    ) -> tuple[Iterable[Found], Placed | None]:
        if snapshot.rows == 0 or (allowed is not None and len(allowed) == 0):
            nothing = Found(np.zeros(0, np.int64), np.zeros(0, np.float32), "no matches", 0)
            return [nothing] * len(queries), None
        placed = self._derived.index(snapshot)
        try:
            return placed.index.search(queries, k, placed.to_index(allowed)), placed
        except Damaged:
            placed = self._derived.remake(snapshot)
            return placed.index.search(queries, k, placed.to_index(allowed)), placed


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may be tidying up
            size += path.stat().st_size if path.is_file() else 0
    return size
