"""``QdrantCollection``: a collection on a Qdrant server, or in qdrant-client's own local mode.

    with QdrantCollection.create("qdrant://localhost:6333/papers", dim=384, schema={"year": "int"}) as papers:
        papers.add(["a"], vectors, [{"year": 2024}])

Addresses: ``qdrant://host:port/name`` (http), ``qdrant+https://host:port/name`` (both send $QDRANT_API_KEY where it is
set), ``qdrant+file:///folder/name`` (local mode, one process at a time) and ``qdrant+memory:///name`` (local mode,
shared by the handles of this process, gone with the last of them). A point is named after its id
(``qdrant_filters``); its payload holds "id", the attributes, ``_null`` (names of those that are NULL) and ``_seq``
(insertion order). dim, metric and schema are the collection's metadata. Shapes: N rows, D dimensions, Q queries.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.search import filters
from nextvec.search.inputs import refuse_existing
from nextvec.search.schema import ARROW_TYPES, Schema, check_schema
from nextvec.search.stores.qdrant_filters import NULLS, from_payload, only, path, point_id, to_native, to_payload
from nextvec.search.stores.qdrant_server import WHY, Place, Server, no_collection
from nextvec.search.stores.remote import RemoteCollection, check_same
from nextvec.types import ConflictError, Hits, InputError, NotFoundError

SEQUENCE = "_seq"
METADATA = "nextvec"
PAGE = 1_000  # points asked for at once
REQUEST = 2_000_000  # numbers sent in one request: about 20 MB of JSON, a server takes 32
POINTS = 20_000  # point ids named in one filter


class QdrantCollection(RemoteCollection):
    """See the module."""

    engine: ClassVar[str] = "qdrant"

    def __init__(self, place: Place, server: Server) -> None:
        """Use ``QdrantCollection.open`` or ``QdrantCollection.create``."""
        super().__init__(place.address, _described(place, server))
        self._place, self._name, self._server = place, place.name, server
        self._last = 0

    @classmethod
    def create(
        cls,
        address: str,
        *,
        dim: int,
        schema: Mapping[str, str] | None = None,
        metric: Literal["cosine", "dot"] = "cosine",
        nested: bool = False,
        exist_ok: bool = False,
    ) -> QdrantCollection:
        """Make an empty collection, and open it. Arguments and errors as for ``Collection.create``."""
        place, wanted = Place(address), check_schema(dim, metric, schema, nested=nested)
        server = Server.of(place)
        try:
            models = require("qdrant_client", why=WHY).models
            with server.told(place):
                exists = server.client.collection_exists(place.name)
                if not exists:
                    # Vectors are scaled here; Qdrant's own cosine would scale them again and change their bits.
                    server.client.create_collection(
                        place.name,
                        vectors_config=models.VectorParams(size=dim, distance=models.Distance.DOT),
                        metadata={METADATA: json.dumps(wanted.document(), ensure_ascii=False)},
                    )
            collection = cls(place, server)
            if exists and not exist_ok:
                raise ConflictError(f"collection {address!r} exists: open it, or pass exist_ok=True")
            check_same(address, collection._schema, wanted)
        except BaseException:
            server.release()
            raise
        return collection

    @classmethod
    def open(cls, address: str) -> QdrantCollection:
        """Open a collection. Raises NotFoundError, StorageError, InputError."""
        place = Place(address)
        server = Server.of(place)
        try:
            return cls(place, server)
        except BaseException:
            server.release()
            raise

    # Parts

    def _disconnect(self) -> None:
        self._server.release()

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        with self._server.told(self._place):
            yield self._server.client

    def _write(self, columns: dict[str, pa.Array], rows: NDArray[np.float32], *, replace: bool) -> None:
        _refuse_unstorable(columns)
        models = require("qdrant_client", why=WHY).models
        ids = columns["id"].to_pylist()
        with self._lock, self._client() as client:
            if not replace:
                there = self._rows(ids, False, columns=["id"])
                refuse_existing([identifier for identifier in ids if identifier in there], len(ids))
            # No counter on the server: the clock gives the order, and never twice the same in this handle.
            first = max(time.time_ns(), self._last + 1)
            self._last = first + len(ids)
            payloads = self._payloads(columns, first)
            step = max(1, REQUEST // (self.dim + 10 * len(columns)))
            for start in range(0, len(ids), step):
                points = [
                    models.PointStruct(id=point_id(ids[i]), vector=rows[i].tolist(), payload=payloads[i])
                    for i in range(start, min(start + step, len(ids)))
                ]
                client.upsert(self._name, points, wait=True)

    def _payloads(self, columns: dict[str, pa.Array], first: int) -> list[dict[str, Any]]:
        kinds = self._schema.columns
        values = {name: to_payload(array, kinds[name]) for name, array in columns.items()}
        payloads = []
        for i in range(len(columns["id"])):
            row = {name: column[i] for name, column in values.items() if column[i] is not None}
            nulls = [name for name, column in values.items() if column[i] is None]
            payloads.append({**row, NULLS: nulls, SEQUENCE: first + i})
        return payloads

    def _delete_ids(self, ids: list[str]) -> int:
        with self._lock, self._client():
            return self._delete_points([point_id(name) for name in self._rows(ids, False, columns=["id"])])

    def _delete_where(self, tree: filters.Filter) -> int:
        with self._lock, self._client():
            return self._delete_points([point for point, _ in self._matching(tree, ["id"])])

    def _delete_points(self, points: list[str]) -> int:
        models = require("qdrant_client", why=WHY).models
        with self._client() as client:
            for start in range(0, len(points), POINTS):
                some = models.PointIdsList(points=points[start : start + POINTS])
                client.delete(self._name, points_selector=some, wait=True)
        return len(points)

    def _rows(self, ids: list[str], vectors: bool, columns: list[str] | None = None) -> dict[str, dict[str, Any]]:
        names = list(self._schema.columns) if columns is None else columns
        records = {}
        step = max(1, min(PAGE, REQUEST // self.dim)) if vectors else PAGE
        with self._client() as client:
            for start in range(0, len(ids), step):
                points = client.retrieve(
                    self._name,
                    [point_id(identifier) for identifier in ids[start : start + step]],
                    with_payload=[path(name) for name in names],
                    with_vectors=vectors,
                )
                for point in points:
                    record = self._values(point.payload, names)
                    if vectors:
                        record["vector"] = np.array(point.vector, np.float32)
                    records[record["id"]] = record
        return records

    def _values(self, payload: Mapping[str, Any] | None, names: list[str]) -> dict[str, Any]:
        kinds = self._schema.columns
        return {name: from_payload((payload or {}).get(name), kinds[name]) for name in names}

    def _scroll(self, native: Any, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(point id, payload) of all points that pass, in the order of point ids."""
        offset = None
        while True:
            with self._client() as client:
                points, offset = client.scroll(
                    self._name,
                    scroll_filter=native,
                    limit=PAGE,
                    offset=offset,
                    with_payload=[path(name) for name in names],
                )
            for point in points:
                yield str(point.id), point.payload
            if offset is None:
                return

    def _matching(self, tree: filters.Filter | None, names: list[str]) -> list[tuple[str, dict[str, Any]]]:
        """(point id, payload with at least ``names``) of the rows that match, whatever the filter."""
        if tree is None:
            return list(self._scroll(None, names))
        native = to_native(tree)
        if native.exact:
            return list(self._scroll(native.filter, names))
        used = sorted(filters.columns_used(tree))
        found = list(self._scroll(native.filter, sorted({*names, *used})))
        kinds = self._schema.columns
        columns = {
            name: pa.array(
                [from_payload(payload.get(name), kinds[name]) for _, payload in found], ARROW_TYPES[kinds[name]]
            )
            for name in used
        }
        mask = filters.mask(tree, columns.__getitem__)
        return [one for one, matches in zip(found, mask, strict=True) if matches]

    def _scopes(self, tree: filters.Filter | None) -> tuple[list[Any], str]:
        """Filters of Qdrant that pass the matching rows between them, and how they came about."""
        native = None if tree is None else to_native(tree)
        if native is None or native.exact:
            return [None if native is None else native.filter], "exact"
        assert tree is not None
        points = [point for point, _ in self._matching(tree, ["id"])]
        return [only(points[i : i + POINTS]) for i in range(0, len(points), POINTS)], "exact, filter resolved by client"

    def _ids(self, tree: filters.Filter | None) -> list[str]:
        found = self._matching(tree, ["id", SEQUENCE])
        return [payload["id"] for _, payload in sorted(found, key=lambda one: int(one[1][SEQUENCE]))]

    def _count(self, tree: filters.Filter | None) -> int:
        if tree is not None:
            native = to_native(tree)
            if not native.exact:
                return len(self._matching(tree, ["id"]))
        with self._client() as client:
            return int(client.count(self._name, None if tree is None else native.filter, exact=True).count)

    def _found(
        self, queries: NDArray[np.float32], k: int, tree: filters.Filter | None, names: list[str]
    ) -> tuple[list[Hits], str]:
        scopes, plan = self._scopes(tree)
        k = min(k, self._count(None))
        results = []
        for query in queries:
            points = [point for scope in scopes for point in self._ranked(query, k, scope, names)]
            points.sort(key=lambda point: (-np.float32(point.score), int(point.payload[SEQUENCE])))
            best = points[:k]
            scores = np.array([point.score for point in best], np.float32)
            attributes: list[Mapping[str, Any]] = (
                [self._values(point.payload, names) for point in best] if names else []
            )
            results.append(Hits([point.payload["id"] for point in best], scores, attributes))
        return results, plan

    def _ranked(self, query: NDArray[np.float32], k: int, scope: Any, names: list[str]) -> list[Any]:
        """At least the k best points that pass ``scope``, with all that tie with the last of them."""
        models = require("qdrant_client", why=WHY).models
        limit = k + 1
        exact = None if self._server.place.local else models.SearchParams(exact=True)  # local mode is always exact
        while k:
            with self._client() as client:
                points = client.query_points(
                    self._name,
                    query=query.tolist(),
                    query_filter=scope,
                    limit=limit,
                    search_params=exact,
                    with_payload=[path(name) for name in ["id", SEQUENCE, *names]],
                ).points
            # Qdrant orders ties as it likes: take all of them, and insertion order decides.
            if len(points) < limit or points[-1].score < points[k - 1].score:
                return list(points)
            limit *= 2
        return []

    def _facts(self) -> dict[str, Any]:
        with self._client() as client:
            found = client.get_collection(self._name)
        return {"status": str(getattr(found.status, "value", found.status)), "segments": found.segments_count}


def _described(place: Place, server: Server) -> Schema:
    """What the collection's metadata say."""
    with server.told(place):
        if not server.client.collection_exists(place.name):
            raise no_collection(place)
        metadata = server.client.get_collection(place.name).config.metadata or {}
    if METADATA not in metadata:
        raise NotFoundError(f"{place.address!r} is not a collection (it was not made by nextvec): choose another")
    return Schema.from_document(metadata[METADATA], place.address)


def _refuse_unstorable(columns: dict[str, pa.Array]) -> None:
    """InputError for what nextvec allows and JSON does not."""
    for name, array in columns.items():
        if pa.types.is_floating(array.type) and pc.any(pc.is_inf(array)).as_py():
            raise InputError(f"attribute {name!r} holds an infinite number, which Qdrant cannot store")
