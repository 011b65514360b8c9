"""What the three faiss engines share: a saved index, and a bitmap of the rows that a filter allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.evaluate.ann.engines._engine import Engine, Found, Setting, lists
from nextvec.extras import require
from nextvec.search import filters

__all__ = ["Faiss"]


class Faiss(Engine):
    """faiss keeps no attributes: the user compares columns (here with Arrow) and hands the matches over as a bitmap.

    Two series: the bitmap is made on the clock, or is at hand before it starts.
    """

    modules = ("faiss",)
    package = "faiss-cpu"
    note = "attributes are the caller's: matches found with Arrow and packed on the clock; 'bitmap ready': before it"

    series: str

    def make(self, faiss: Any, vectors: NDArray[np.float32]) -> Any:
        """The trained and filled index."""
        raise NotImplementedError

    def parameters(self, faiss: Any, selector: Any, setting: Setting) -> Any:
        """Search parameters with the selector (None: no filter)."""
        raise NotImplementedError

    def sweep(self, k: int) -> list[dict[str, Any]]:
        """Values of the knobs, from fast to accurate."""
        return [{}]

    def build(self, vectors: NDArray[np.float32], attributes: pa.Table) -> None:
        faiss = require("faiss", why="the faiss engines")
        faiss.omp_set_num_threads(self.threads)
        faiss.write_index(self.make(faiss, vectors), str(self.folder / "index.faiss"))

    def open(self, attributes: pa.Table) -> None:
        self._faiss = require("faiss", why="the faiss engines")
        self._faiss.omp_set_num_threads(self.threads)
        self._index = self._faiss.read_index(str(self.folder / "index.faiss"))
        self._columns = {name: attributes.column(name).combine_chunks() for name in self.schema}

    def settings(self, k: int) -> list[Setting]:
        ready = [Setting(f"{self.series}, bitmap ready", values, ready=True) for values in self.sweep(k)]
        return [Setting(self.series, values) for values in self.sweep(k)] + ready

    def prepare(self, text: str | None, setting: Setting) -> Any:
        tree = None if text is None else self.parsed(text)
        return self._bitmap(tree) if tree is not None and setting.ready else tree

    def _bitmap(self, tree: filters.Filter) -> NDArray[np.uint8]:
        return np.packbits(filters.mask(tree, self._columns.__getitem__), bitorder="little")

    def search(self, queries: NDArray[np.float32], k: int, prepared: Any, setting: Setting) -> Found:
        selector = None
        if prepared is not None:
            bitmap = prepared if isinstance(prepared, np.ndarray) else self._bitmap(prepared)
            selector = self._faiss.IDSelectorBitmap(bitmap)
        parameters = self.parameters(self._faiss, selector, setting)
        _, rows = self._index.search(queries, k, params=parameters)
        return lists(rows)
