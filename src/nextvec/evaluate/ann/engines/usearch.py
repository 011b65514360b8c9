"""usearch: a graph whose Python API has no filter, so hits are dropped afterwards ("post-filter")."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.evaluate.ann.engines._engine import Engine, Found, Setting
from nextvec.extras import require
from nextvec.search import filters


class Usearch(Engine):
    """See the module. ``fetch`` is how many hits are asked for, as a multiple of k; connectivity 16, float32."""

    modules = ("usearch",)
    package = "usearch"
    note = "no filter in its Python API: more hits are asked for and those that do not match dropped"

    def build(self, vectors: NDArray[np.float32], attributes: pa.Table) -> None:
        index = self._new(vectors.shape[1])
        index.add(np.arange(len(vectors)), vectors, threads=self.threads)
        index.save(str(self.folder / "index.usearch"))
        np.save(self.folder / "dim.npy", np.array([vectors.shape[1]]))

    def open(self, attributes: pa.Table) -> None:
        self._index = self._new(int(np.load(self.folder / "dim.npy", allow_pickle=False)[0]))
        self._index.load(str(self.folder / "index.usearch"))
        self._columns = {name: attributes.column(name).combine_chunks() for name in self.schema}

    def _new(self, dim: int) -> Any:
        index = require("usearch.index", why="the usearch engine")
        return index.Index(ndim=dim, metric="ip", dtype="f32", connectivity=16, expansion_add=100)

    def settings(self, k: int) -> list[Setting]:
        return [
            Setting("usearch, post-filter", {"fetch": times, "expansion": max(64, times * k)})
            for times in (1, 4, 16, 64)
        ]

    def search(self, queries: NDArray[np.float32], k: int, prepared: Any, setting: Setting) -> Found:
        allowed = None if prepared is None else filters.mask(prepared, self._columns.__getitem__)
        self._index.expansion_search = setting.values["expansion"]
        count = min(k * setting.values["fetch"], len(self._index))
        found = self._index.search(queries, count, threads=self.threads)
        # One query gives an object without counts, several one with a row each.
        single = len(queries) == 1 or found.keys.ndim == 1
        rows = [np.atleast_1d(found.keys).ravel()] if single else [
            keys[:n] for keys, n in zip(found.keys, found.counts, strict=True)
        ]  # fmt: skip
        return [row[:k] if allowed is None else row[allowed[row]][:k] for row in rows]
