"""What the two LanceDB engines share: a table with a vector index and an index on every attribute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nextvec.evaluate.ann.engines._engine import Engine, Found, Setting
from nextvec.evaluate.ann.engines._sql import LANCE, sql
from nextvec.extras import require

__all__ = ["LanceDb"]

_FEW = 1_000  # distinct values that a bitmap index is meant for


class LanceDb(Engine):
    """Filters first (prefilter), by BTREE, BITMAP or LABEL_LIST indexes; one query a call."""

    modules = ("lancedb",)
    package = "lancedb"
    batch = False

    def index(self, made: Any, rows: int) -> Any:
        """The vector index, a configuration of the module ``made`` (lancedb.index)."""
        raise NotImplementedError

    def build(self, vectors: NDArray[np.float32], attributes: pa.Table) -> None:
        lancedb = require("lancedb", why="the LanceDB engines")
        made = require("lancedb.index", why="the LanceDB engines")
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        columns = [attributes.column(name) for name in attributes.column_names]
        names = ["_row", *attributes.column_names, "vector"]
        data = pa.table([pa.array(np.arange(len(vectors))), *columns, flat], names=names)
        table = lancedb.connect(str(self.folder)).create_table("t", data)
        for name, kind in self.schema.items():
            few = kind in ("string", "bool") and len(pc.unique(attributes.column(name))) <= _FEW
            of = made.LabelList if kind == "list[string]" else made.Bitmap if few else made.BTree
            table.create_index(name, config=of())
        table.create_index("vector", config=self.index(made, len(vectors)))

    def open(self, attributes: pa.Table) -> None:
        lancedb = require("lancedb", why="the LanceDB engines")
        self._table = lancedb.connect(str(self.folder)).open_table("t")

    def prepare(self, text: str | None, setting: Setting) -> str | None:
        return None if text is None else sql(self.parsed(text), LANCE)

    def search(self, queries: NDArray[np.float32], k: int, prepared: Any, setting: Setting) -> Found:
        found = []
        for query in queries:
            asked = self._table.search(query).distance_type("dot").select(["_row", "_distance"]).limit(k)
            if prepared is not None:
                asked = asked.where(prepared, prefilter=True)
            for knob, value in setting.values.items():
                asked = getattr(asked, knob)(value)
            found.append(asked.to_arrow().column("_row").to_numpy())
        return found
