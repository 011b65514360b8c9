"""``Collection``: a durable, filterable store of embeddings.

    with Collection.create("papers", dim=384, schema={"year": "int", "venue": "string"}) as papers:
        papers.add(["a", "b"], vectors, [{"year": 2024}, {"year": 2025, "venue": "ACL"}])
        hits = papers.search(query, k=10, where="year >= 2024 AND venue IN ('ACL', 'EMNLP')")

``search`` returns exactly min(k, matches) hits, all satisfying the filter, the truly best ones; by vector, by words,
or by both; in groups, ranges and pages if asked. A write that returned
is there after the process is killed. Readers in other processes see whole versions only.
Shapes: N rows, D dimensions, Q queries.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from nextvec.files import folder_bytes
from nextvec.search.indexes.approximate import Progress
from nextvec.search.inputs import (
    Attributes,
    calibration_queries,
    check_ids,
    check_rows,
    plain_vectors,
    refuse_existing,
)
from nextvec.search.memory import held
from nextvec.search.requests import Options, check_request, text_weights
from nextvec.search.schema import Kept, check_schema
from nextvec.search.searching import Searching
from nextvec.search.store import Store
from nextvec.types import ConflictError, Hits, InputError

__all__ = ["Collection"]


class Collection(Searching):
    """See the module. A handle may be shared between threads."""

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        dim: int,
        schema: Mapping[str, str] | None = None,
        metric: Literal["cosine", "dot"] = "cosine",
        keep: Kept = "float32",
        nested: bool = False,
        exist_ok: bool = False,
    ) -> Collection:
        """Make an empty collection in a new or empty folder, and open it.

        schema maps attributes to "string", "int", "float", "bool", "date", "timestamp" or "list[string]". With
        metric "cosine" the vectors are stored at length 1, with "dot" as they come. keep: how the table keeps them,
        "float32", "float16" or (with "cosine") "int8": what a row is then is what is left of it, and searches rank
        that exactly. nested: vectors and queries of more than ``dim`` values are cut to the first ones. ``exist_ok``
        opens a collection that is there, if all of this agrees. Raises InputError, ConflictError, StorageError.
        """
        folder = Path(path).expanduser()
        wanted = check_schema(dim, metric, schema, keep=keep, nested=nested)
        Store.create(folder, wanted, exist_ok=exist_ok)
        collection = cls(folder)
        if collection._schema != wanted:
            told = collection._schema.told()
            raise ConflictError(f"collection {str(folder)!r} exists with {told}: they differ from what was asked for")
        return collection

    def __len__(self) -> int:
        return self.count()

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
        if len(rows):
            self._store.tidy()
        return len(rows)

    def compact(self) -> None:
        """Merge small pieces and drop deleted rows and versions older than an hour. Done in the background when needed,
        while searches go on; a write that comes meanwhile waits for it."""
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
        return snapshot.rows if tree is None else snapshot.allowed(tree).count

    def index(
        self, *, graph: bool = True, queries: ArrayLike | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Build what searches with a ``recall`` below 1 use: cells, and a graph unless ``graph`` is False. queries: see
        ``calibrate``.

        Takes about a minute per 200,000 rows with the graph, seconds without; writes and searches go on meanwhile.
        An interrupted call goes on where it was. Rows that come later are found as well, by a scan that slows searches
        down as they become many: call again then. progress: (what is done, units done, units in all). Gives
        ``info()["index"]``. Raises InputError (fewer than 4,096 rows), ConflictError, MissingExtraError, StorageError.
        """
        self._refuse_pinned()
        snapshot = self._current()
        real = None if queries is None else calibration_queries(queries, self._schema)
        self._derived.build(snapshot, graph=graph, queries=real, progress=progress)
        told: dict[str, Any] = self.info()["index"]
        return told

    def calibrate(self, queries: ArrayLike | None = None) -> dict[str, Any]:
        """Measure anew how far searches with a ``recall`` below 1 must look, on real queries [Q, D] (at least 32; 512
        of them are used), or on those of this process whose answers were checked. ``index`` measures on rows with
        noise, which may be easier or harder. Takes some seconds per 100,000 rows; all processes use the outcome. Gives
        ``info()["index"]``. Raises InputError, NotFoundError (no index), ConflictError, StorageError.
        """
        self._refuse_pinned()
        real = None if queries is None else calibration_queries(queries, self._schema)
        self._derived.calibrate(self._current(), real)
        told: dict[str, Any] = self.info()["index"]
        return told

    def index_text(self, columns: Sequence[str]) -> None:
        """Make ready to search these string attributes by words. The first such search does it as well."""
        snapshot = self._current()
        for name in text_weights(columns, self._schema):
            self._words.index(snapshot, name)

    @overload
    def search(
        self,
        vector: Sequence[float] | NDArray[Any] | None = None,
        k: int | None = 10,
        *,
        text: str | None = None,
        cursor: str | None = None,
        **options: Unpack[Options],
    ) -> Hits: ...
    @overload
    def search(
        self,
        vector: Sequence[Sequence[float]] | NDArray[Any] | None = None,
        k: int | None = 10,
        *,
        text: Sequence[str] | None = None,
        cursor: Sequence[str] | None = None,
        **options: Unpack[Options],
    ) -> list[Hits]: ...
    def search(
        self,
        vector: Any = None,
        k: int | None = 10,
        *,
        text: Any = None,
        text_columns: Sequence[str] | Mapping[str, float] | None = None,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        fusion: Literal["rrf", "weighted"] = "rrf",
        alpha: float | None = None,
        group_by: str | None = None,
        group_size: int | None = None,
        diversity: float | None = None,
        min_score: float | None = None,
        cursor: Any = None,
        recall: float | Literal["exact"] = "exact",
        explain: bool = False,
    ) -> Any:
        """The k best rows among those that satisfy ``where``: exactly min(k, matches), best first.

        vector [D] or text gives Hits, vectors [Q, D] or Q texts a list of Q Hits. Equal scores are in insertion order.

        - vector alone: scores are float32 cosines or dot products;
        - text alone: BM25 over the string attributes ``text_columns`` (names, or names with weights); only rows that
          share a word with it match;
        - both: the 500 best of either side, joined by reciprocal rank fusion, or with ``fusion="weighted"`` by
          alpha * vector + (1 - alpha) * text of scores between 0 and 1 (alpha 0.5 unless given).

        columns: the attributes to return (None: none, which is fastest). min_score: only hits of at least this score;
        with k=None all of them. diversity (0 to 1): the 256 best in the order of maximal marginal relevance.
        group_by: the k best values of an attribute, each with its ``group_size`` (1) best hits. cursor: go on after
        the page whose ``Hits.cursor`` this is, in the version that it came from. recall: the share of the true k best
        by vector that is enough on average, such as 0.95: faster where ``index`` was called; still min(k, matches)
        hits that match. explain fills ``Hits.explain``.

        Raises InputError, NotFoundError where a cursor's version is no longer kept.
        """
        plain = text is None and text_columns is None and cursor is None and group_by is None and diversity is None
        if plain and min_score is None and alpha is None and group_size is None and fusion == "rrf" and not explain:
            vectors = plain_vectors(vector, self._schema)
            if vectors is not None and k is not None:
                hits = self._plain(vectors, k, where, columns, recall)
                if hits is not None:
                    return hits[0] if vector.ndim == 1 else hits
        began = time.perf_counter()
        request = check_request(
            self._schema,
            vector=vector,
            k=k,
            text=text,
            text_columns=text_columns,
            where=where,
            columns=columns,
            fusion=fusion,
            alpha=alpha,
            group_by=group_by,
            group_size=group_size,
            diversity=diversity,
            min_score=min_score,
            cursor=cursor,
            recall=recall,
            explain=explain,
        )
        results = self._answered(request, None if where is None else self._parsed(where), began)
        return results[0] if request.single else results

    def info(self) -> dict[str, Any]:
        """Path, dim, metric, schema, rows, version, fragments, bytes on disk and in memory, and of the index what it
        holds and the recall measured."""
        snapshot = self._current()
        return {
            "path": str(self.path),
            "dim": self.dim,
            "metric": self.metric,
            "schema": self.schema,
            "keep": self.keep,
            "nested": self.nested,
            "rows": snapshot.rows,
            "version": snapshot.version,
            "fragments": len(snapshot.fragments),
            "bytes": folder_bytes(self.path / "data.lance"),
            "derived_bytes": folder_bytes(self.path / "derived"),
            "index": self._derived.told(snapshot),
            "memory": held(snapshot, self._derived, self._words),
        }
