"""DuckDB: exact search in SQL, ``ORDER BY array_inner_product(...)`` under a WHERE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.evaluate.ann.engines._engine import Engine, Found, Setting
from nextvec.evaluate.ann.engines._sql import DUCKDB, sql
from nextvec.extras import require


class DuckDb(Engine):
    """See the module. No index: its vector extension has to be fetched from the network."""

    modules = ("duckdb",)
    package = "duckdb"
    exact = True
    batch = False
    note = "exact SQL without an index"

    def build(self, vectors: NDArray[np.float32], attributes: pa.Table) -> None:
        columns = [_plain(attributes.column(name)) for name in attributes.column_names]
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        names = ["_row", *attributes.column_names, "_vector"]
        data = pa.table([pa.array(np.arange(len(vectors))), *columns, flat], names=names)
        with self._connected() as connection:
            connection.register("data", data)
            connection.execute("CREATE TABLE t AS SELECT * FROM data")

    def open(self, attributes: pa.Table) -> None:
        self._connection = self._connected()

    def _connected(self) -> Any:
        duckdb = require("duckdb", why="the DuckDB engine")
        return duckdb.connect(str(self.folder / "d.duckdb"), config={"threads": self.threads})

    def settings(self, k: int) -> list[Setting]:
        return [Setting("duckdb")]

    def prepare(self, text: str | None, setting: Setting) -> str:
        return "" if text is None else f"WHERE {sql(self.parsed(text), DUCKDB)}"

    def search(self, queries: NDArray[np.float32], k: int, prepared: Any, setting: Setting) -> Found:
        statement = (
            f"SELECT _row FROM t {prepared} ORDER BY array_inner_product(_vector, ?::FLOAT[{queries.shape[1]}]) DESC "
            f"LIMIT {k}"
        )
        found = []
        for query in queries:
            rows = self._connection.execute(statement, [query.tolist()]).fetchnumpy()["_row"]
            found.append(rows)
        return found

    def close(self) -> None:
        self._connection.close()


def _plain(column: Any) -> Any:
    """Times in UTC without saying so: see the dialect."""
    return column.cast(pa.timestamp("us")) if pa.types.is_timestamp(column.type) else column
