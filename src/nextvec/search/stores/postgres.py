"""``PostgresCollection``: a collection as a table of PostgreSQL with pgvector.

    address = "postgresql://user@host/database?collection=papers"
    with PostgresCollection.create(address, dim=384, schema={"year": "int"}) as papers:
        papers.add(["a"], vectors, [{"year": 2024}])

The columns are ``_seq`` (insertion order), ``id``, one for each attribute, and ``vector``; dim, metric and schema are
the table's comment, as JSON. Search is exact unless ``open`` was called with ``approximate=True``. Writers of one
collection take turns, readers wait for nobody. Shapes: N rows, D dimensions, Q queries.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.search import filters
from nextvec.search.inputs import refuse_existing
from nextvec.search.schema import Kept, Schema, check_schema
from nextvec.search.stores.postgres_place import LOCK_TIMEOUT, WHY, Place, register
from nextvec.search.stores.postgres_sql import (
    COPY_TYPES,
    SEQUENCE,
    column_names,
    quoted,
    table_ddl,
    to_sql,
)
from nextvec.search.stores.remote import RemoteCollection, check_same
from nextvec.types import ConflictError, Hits, InputError, NotFoundError, StorageError

MAX_DIM = 16_000  # pgvector's limit for a column
MAX_ID_BYTES = 2_600  # a row of an index of PostgreSQL holds no more
_VECTOR_TYPES: dict[Kept, str] = {"float32": "vector", "float16": "halfvec"}
_MAX_INDEXED = {"vector": 2_000, "halfvec": 4_000}  # dimensions that pgvector can index
_MAX_EF = 1_000


class PostgresCollection(RemoteCollection):
    """See the module."""

    engine: ClassVar[str] = "postgresql"

    def __init__(self, place: Place, link: Any, approximate: bool) -> None:
        """Use ``PostgresCollection.open`` or ``PostgresCollection.create``."""
        schema, self.precision = _described(place, link)
        super().__init__(place.shown, schema)
        self._place, self._link, self._approximate = place, link, approximate
        self._names = column_names(schema)

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
        precision: Kept = "float32",
    ) -> PostgresCollection:
        """Make an empty collection, and open it. Arguments as for ``Collection.create``; ``precision="float16"``
        keeps vectors as ``halfvec``, at half the size.

        Makes pgvector's extension where the database lacks it, which needs the right to do so. Raises InputError,
        ConflictError, StorageError.
        """
        if precision not in _VECTOR_TYPES:
            raise InputError(f"precision is {precision!r}: expected 'float32' or 'float16'")
        place, wanted = Place(address), check_schema(dim, metric, schema, keep=precision, nested=nested)
        if dim > MAX_DIM:
            raise InputError(f"dim is {dim}: pgvector keeps at most {MAX_DIM} dimensions")
        link = place.connect()
        try:
            made = _make(place, link, wanted, precision)
            collection = cls(place, link, False)
            if not made and not exist_ok:
                raise ConflictError(f"collection {place.shown!r} exists: open it, or pass exist_ok=True")
            if collection.precision != precision:
                raise ConflictError(f"collection {place.shown!r} exists with precision {collection.precision}")
            check_same(place.shown, collection._schema, wanted)
        except BaseException:
            link.close()
            raise
        return collection

    @classmethod
    def open(cls, address: str, *, approximate: bool = False) -> PostgresCollection:
        """Open a collection; ``approximate`` lets searches use the index that ``create_index`` made.

        Raises NotFoundError, StorageError, InputError.
        """
        place = Place(address)
        link = place.connect()
        try:
            return cls(place, link, approximate)
        except BaseException:
            link.close()
            raise

    def create_index(self, *, m: int = 16, ef_construction: int = 64) -> None:
        """Make an HNSW index over the vectors, in place of one that is there; handles opened with ``approximate``
        use it. m: neighbours per node; ef_construction: candidates looked at when a row is placed. Raises InputError.
        """
        self._use()
        kind = _VECTOR_TYPES[self.precision]
        if self.dim > _MAX_INDEXED[kind]:
            raise InputError(
                f"the collection has {self.dim} dimensions: pgvector indexes at most {_MAX_INDEXED[kind]} of {kind}"
            )
        if not (2 <= m <= 100 and max(4, 2 * m) <= ef_construction <= 1000):
            raise InputError(f"m is {m} and ef_construction {ef_construction}: expected 2 to 100, and 2 m to 1000")
        with self._writing() as cursor:
            cursor.execute(f"DROP INDEX IF EXISTS {self._index}")
            cursor.execute(
                f"CREATE INDEX {self._index} ON {self._table} USING hnsw (vector {kind}_ip_ops) "
                f"WITH (m = {int(m)}, ef_construction = {int(ef_construction)})"
            )

    def drop_index(self) -> None:
        """Remove the HNSW index, if there is one."""
        self._use()
        with self._writing() as cursor:
            cursor.execute(f"DROP INDEX IF EXISTS {self._index}")

    # Parts

    @property
    def _table(self) -> str:
        return quoted(self._place.name)

    @property
    def _index(self) -> str:
        return quoted(f"{self._place.name}_hnsw")

    def _disconnect(self) -> None:
        self._link.close()

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        """A cursor outside a transaction: one statement sees one version of the table. A connection that broke
        between two calls is made anew.
        """
        with self._lock, self._place.told():
            if self._link.closed:
                self._link = self._place.connect()
            with self._link.cursor(binary=True) as cursor:
                yield cursor

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        """A cursor whose statements all see the same version of the table."""
        with self._cursor() as cursor, self._link.transaction():
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield cursor

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Any]:
        with self._cursor() as cursor, self._link.transaction():
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")
            cursor.execute(f"LOCK TABLE {self._table} IN SHARE ROW EXCLUSIVE MODE")
            yield cursor

    def _write(self, columns: dict[str, pa.Array], rows: NDArray[np.float32], *, replace: bool) -> None:
        _refuse_unstorable(columns)
        values = [columns[name].to_pylist() for name in self._names]
        kinds = [COPY_TYPES[kind] for kind in self._schema.columns.values()]
        targets = ", ".join([*self._names.values(), "vector"])
        with self._writing() as cursor:
            if replace:
                cursor.execute(f"DELETE FROM {self._table} WHERE id = ANY(%s::text[])", [values[0]])
            else:
                cursor.execute(f"SELECT id FROM {self._table} WHERE id = ANY(%s::text[])", [values[0]])
                there = {identifier for (identifier,) in cursor.fetchall()}
                refuse_existing([identifier for identifier in values[0] if identifier in there], len(rows))
            with cursor.copy(f"COPY {self._table} ({targets}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types([*kinds, _VECTOR_TYPES[self.precision]])
                for *row, vector in zip(*values, rows, strict=True):
                    copy.write_row([*row, self._bound(vector)])

    def _bound(self, vector: NDArray[np.float32]) -> Any:
        """A vector as psycopg takes it: the type that the column has."""
        pgvector = require("pgvector", why=WHY)
        return pgvector.Vector(vector) if self.precision == "float32" else pgvector.HalfVector(vector)

    def _delete_ids(self, ids: list[str]) -> int:
        with self._writing() as cursor:
            cursor.execute(f"DELETE FROM {self._table} WHERE id = ANY(%s::text[])", [ids])
            return int(cursor.rowcount)

    def _delete_where(self, tree: filters.Filter) -> int:
        condition, values = to_sql(tree, self._names)
        with self._writing() as cursor:
            cursor.execute(f"DELETE FROM {self._table} WHERE {condition}", values)
            return int(cursor.rowcount)

    def _rows(self, ids: list[str], vectors: bool) -> dict[str, dict[str, Any]]:
        names = list(self._names)
        chosen = ", ".join([*self._names.values(), *(["vector"] if vectors else [])])
        with self._cursor() as cursor:
            cursor.execute(f"SELECT {chosen} FROM {self._table} WHERE id = ANY(%s::text[])", [ids])
            found = cursor.fetchall()
        records = {}
        for row in found:
            record = dict(zip(names, row, strict=False))
            if vectors:
                record["vector"] = row[-1].to_numpy().astype(np.float32)
            records[record["id"]] = record
        return records

    def _ids(self, tree: filters.Filter | None) -> list[str]:
        condition, values = self._condition(tree)
        with self._cursor() as cursor:
            cursor.execute(f"SELECT id FROM {self._table} WHERE {condition} ORDER BY {SEQUENCE}", values)
            return [identifier for (identifier,) in cursor.fetchall()]

    def _count(self, tree: filters.Filter | None) -> int:
        with self._cursor() as cursor:
            return self._counted(cursor, tree)

    def _counted(self, cursor: Any, tree: filters.Filter | None) -> int:
        condition, values = self._condition(tree)
        cursor.execute(f"SELECT count(*) FROM {self._table} WHERE {condition}", values)
        return int(cursor.fetchone()[0])

    def _condition(self, tree: filters.Filter | None) -> tuple[str, list[Any]]:
        return ("true", []) if tree is None else to_sql(tree, self._names)

    def _found(
        self, queries: NDArray[np.float32], k: int, tree: filters.Filter | None, names: list[str]
    ) -> tuple[list[Hits], str]:
        k = min(k, 2**62)
        several = len(queries) > 1 or self._approximate
        with self._reading() if several else self._cursor() as cursor:
            indexed = self._approximate and _exists(cursor, self._index)
            if indexed:
                # Without iterative scans a selective filter would leave fewer than k rows.
                cursor.execute("SET LOCAL hnsw.iterative_scan = 'strict_order'")
                cursor.execute(f"SET LOCAL hnsw.ef_search = {min(max(40, 2 * k), _MAX_EF)}")
            results, missed = [], False
            for query in queries:
                rows = self._ranked(cursor, query, k, tree, names, indexed)
                if indexed and len(rows) < k and len(rows) < self._counted(cursor, tree):
                    rows, missed = self._ranked(cursor, query, k, tree, names, False), True
                scores = np.array([score for _, score, *_ in rows], np.float32)
                attributes: list[Mapping[str, Any]] = []
                if names:
                    attributes = [dict(zip(names, values, strict=True)) for _, _, *values in rows]
                results.append(Hits([row[0] for row in rows], scores, attributes))
        plan = "hnsw, then exact" if missed else "hnsw" if indexed else "exact"
        return results, plan

    def _ranked(
        self,
        cursor: Any,
        query: NDArray[np.float32],
        k: int,
        tree: filters.Filter | None,
        names: list[str],
        indexed: bool,
    ) -> list[tuple[Any, ...]]:
        """(id, score, attributes ...) of the best rows."""
        condition, values = self._condition(tree)
        distance = f"vector <#> %s::{_VECTOR_TYPES[self.precision]}"
        # An index answers only the bare operator: a sum keeps the planner from using it.
        order = "_distance" if indexed else f"0 + _distance, {SEQUENCE}"
        source = f"SELECT *, {distance} AS _distance FROM {self._table} WHERE {condition}"
        if not indexed:
            source += " OFFSET 0"  # the distance is computed once per row
        chosen = ", ".join(["id", "-_distance", *(self._names[name] for name in names)])
        best = f"SELECT * FROM ({source}) AS matches ORDER BY {order} LIMIT {k}"
        cursor.execute(
            f"SELECT {chosen} FROM ({best}) AS best ORDER BY _distance, {SEQUENCE}", [self._bound(query), *values]
        )
        return list(cursor.fetchall())

    def _facts(self) -> dict[str, Any]:
        with self._cursor() as cursor:
            cursor.execute("SELECT pg_total_relation_size(to_regclass(%s::text))", [self._table])
            size = cursor.fetchone()[0]
            return {"bytes": size, "index": "hnsw" if _exists(cursor, self._index) else "none"}


def _exists(cursor: Any, name: str) -> bool:
    cursor.execute("SELECT to_regclass(%s::text) IS NOT NULL", [name])
    return bool(cursor.fetchone()[0])


def _make(place: Place, link: Any, schema: Schema, precision: Kept) -> bool:
    """Make the extension and the table in one transaction; False where there is a table of that name."""
    psycopg = require("psycopg", why=WHY)
    table = quoted(place.name)
    # As it always was: the precision is beside the schema here, so that an older nextvec reads it.
    document = json.dumps({**replace(schema, keep="float32").document(), "precision": precision}, ensure_ascii=False)
    with place.told():
        try:
            with link.transaction(), link.cursor() as cursor:
                cursor.execute("SELECT current_setting('server_encoding')")
                encoding = cursor.fetchone()[0]
                if encoding != "UTF8":
                    raise StorageError(f"the database of {place.shown!r} is in {encoding}: a UTF8 one is needed")
                if _exists(cursor, table):
                    return False
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
                cursor.execute(table_ddl(table, schema, _VECTOR_TYPES[precision]))
                comment = psycopg.sql.Literal(document).as_string(link)
                cursor.execute(f"COMMENT ON TABLE {table} IS {comment}")
        except (psycopg.errors.DuplicateTable, psycopg.errors.UniqueViolation):
            return False  # another client made it at the same time
        register(link)
    return True


def _described(place: Place, link: Any) -> tuple[Schema, Kept]:
    """What the table's comment says."""
    with place.told():
        row = link.execute(
            "SELECT oid, obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass(%s::text)",
            [quoted(place.name)],
        ).fetchone()
    if row is None:
        raise NotFoundError(f"{place.shown!r} is not a collection (no such table): create it first")
    if not (row[1] or "").startswith('{"format"'):
        raise NotFoundError(f"{place.shown!r} is not a collection (the table was not made by nextvec): choose another")
    schema = Schema.from_document(row[1], place.shown)
    precision: Kept = "float16" if json.loads(row[1]).get("precision") == "float16" else "float32"
    return replace(schema, keep=precision), precision


def _refuse_unstorable(columns: dict[str, pa.Array]) -> None:
    """InputError for what nextvec allows and PostgreSQL does not."""
    long = pc.index(pc.greater(pc.binary_length(columns["id"]), MAX_ID_BYTES), True).as_py()
    if long >= 0:
        raise InputError(f"id at position {long} has over {MAX_ID_BYTES} bytes: PostgreSQL cannot index it")
    for name, array in columns.items():
        texts = pc.list_flatten(array) if pa.types.is_list(array.type) else array
        if pa.types.is_string(texts.type) and pc.any(pc.match_substring(texts, "\x00")).as_py():
            raise InputError(f"attribute {name!r} holds the character U+0000, which PostgreSQL cannot store")
