"""Qdrant Edge: a graph with extra links for filters, and an index on every attribute."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.evaluate.ann.engines._engine import Engine, Found, Setting, Unsupported
from nextvec.extras import require
from nextvec.search.filters import And, Column, Compare, Contains, Filter, In, IsNull, IsTrue, Or

_BATCH = 2_000
_INDEXES = {
    "int": "Integer", "float": "Float", "bool": "Keyword", "date": "Datetime", "timestamp": "Datetime",
    "string": "Keyword", "list[string]": "Keyword",
}  # fmt: skip
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class QdrantEdge(Engine):
    """See the module; m 16, ef_construct 100, one segment. Attribute indexes are made before the graph, which uses
    them for its extra links."""

    modules = ("qdrant_edge",)
    package = "qdrant-edge-py"
    batch = True
    note = "filterable HNSW with an index on every attribute"

    def _config(self, dim: int) -> Any:
        q = self._q = require("qdrant_edge", why="the Qdrant Edge engine")
        return q.EdgeConfig(
            vectors=q.EdgeVectorParams(size=dim, distance=q.Distance.Dot),
            hnsw_config=q.HnswIndexConfig(
                m=16, ef_construct=100, full_scan_threshold=10_000, max_indexing_threads=self.threads
            ),
            optimizers=q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
            max_search_threads=self.threads,
        )

    def build(self, vectors: NDArray[np.float32], attributes: pa.Table) -> None:
        config = self._config(vectors.shape[1])
        q, place = self._q, self.folder / "shard"
        place.mkdir()
        shard = q.EdgeShard.create(str(place), config)
        update = q.UpdateOperation
        for name, kind in self.schema.items():
            shard.update(update.create_field_index(_key(name), getattr(q.PayloadSchemaType, _INDEXES[kind])))
        for start in range(0, len(vectors), _BATCH):
            rows = attributes.slice(start, _BATCH).to_pylist()
            points = [
                q.Point(
                    start + i, vectors[start + i].tolist(), {n: _stored(v) for n, v in row.items() if v is not None}
                )
                for i, row in enumerate(rows)
            ]
            shard.update(update.upsert_points(points))
        while shard.optimize():
            pass
        shard.flush()
        shard.close()

    def open(self, attributes: pa.Table) -> None:
        self._q = require("qdrant_edge", why="the Qdrant Edge engine")
        self._shard = self._q.EdgeShard.load(str(self.folder / "shard"))

    def settings(self, k: int) -> list[Setting]:
        return [Setting("qdrant edge", {"hnsw_ef": ef}) for ef in (16, 64, 192, 512, 1024)]

    def prepare(self, text: str | None, setting: Setting) -> Any:
        if text is None:
            return None
        made = self._condition(self.parsed(text))
        return made if isinstance(made, self._q.Filter) else self._q.Filter(must=[made])

    def _condition(self, tree: Filter) -> Any:
        q = self._q
        match tree:
            case And(parts):
                return q.Filter(must=[self._condition(part) for part in parts])
            case Or(parts):
                return q.Filter(should=[self._condition(part) for part in parts])
            case IsNull(column):
                return q.IsEmptyCondition(_key(column.name))
            case IsTrue(column):
                return q.FieldCondition(_key(column.name), match=q.MatchValue(_stored(True)))
            case Contains(column, value):
                return q.FieldCondition(_key(column.name), match=q.MatchValue(value))
            case In(column, values) if column.kind in ("string", "int") and float not in map(type, values):
                return q.FieldCondition(_key(column.name), match=q.MatchAny(list(values)))
            case Compare(column, operator, value) if operator != "!=":
                return self._compare(column, operator, value)
        raise Unsupported(f"Qdrant Edge: no counterpart written for {type(tree).__name__}")

    def _compare(self, column: Column, operator: str, value: Any) -> Any:
        q, key = self._q, _key(column.name)
        if column.kind == "string" and operator != "=":
            raise Unsupported("Qdrant Edge has no ranges of texts")
        if operator == "=" and isinstance(value, (str, bool, int)) and column.kind in ("string", "bool", "int"):
            return q.FieldCondition(key, match=q.MatchValue(_stored(value)))
        names = ("gte", "lte") if operator == "=" else (_BOUNDS[operator],)
        bounds = {name: _stored(value) for name in names}
        of = q.RangeDateTime if column.kind in ("date", "timestamp") else q.RangeFloat
        return q.FieldCondition(key, range=of(**bounds))

    def search(self, queries: NDArray[np.float32], k: int, prepared: Any, setting: Setting) -> Found:
        q = self._q
        parameters = q.SearchParams(hnsw_ef=setting.values["hnsw_ef"])
        requests = [
            q.QueryRequest(
                limit=k, query=q.Query.Nearest(query.tolist()), filter=prepared, params=parameters, with_payload=False,
                with_vector=False,
            )
            for query in queries
        ]  # fmt: skip
        if len(requests) == 1:
            answers = [self._shard.query(requests[0])]
        else:
            answers = self._shard.query_batch(q.QueryBatchRequest(requests))
        return [[point.id for point in answer] for answer in answers]

    def close(self) -> None:
        self._shard.close()


def _key(name: str) -> str:
    """The attribute as a path into the payload: what is more than a word stands in quotes."""
    return name if name.isidentifier() else '"' + name + '"'


def _stored(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()  # its Python binding makes 1 of True, which matches no stored bool
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    return value.isoformat() if isinstance(value, dt.date) else value
