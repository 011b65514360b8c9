"""``Collection``: everything a caller pays for, from the text of the filter to the ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.evaluate.ann.engines._engine import Engine, Found, Setting
from nextvec.search.collection import Collection
from nextvec.search.indexes.approximate import MIN_ROWS
from nextvec.types import Hits

_BATCH = 50_000
_RECALLS = (0.95, 0.97, 0.99)


class Nextvec(Engine):
    """The series differ in whether the collection has met the filter before: it remembers the matches of the last
    few filters, and for "nextvec" they are forgotten before every call."""

    modules = ("lance", "faiss")
    package = "nextvec"
    note = "the filter as text, new in every call; 'filter known': repeated, its matches remembered"

    def build(self, vectors: NDArray[np.float32], attributes: pa.Table) -> None:
        with Collection.create(self.folder / "c", dim=vectors.shape[1], schema=self.schema) as collection:
            for start in range(0, len(vectors), _BATCH):
                part = vectors[start : start + _BATCH]
                ids = [str(i) for i in range(start, start + len(part))]
                collection.add(ids, part, attributes.slice(start, len(part)))
            collection.search(vectors[0], 1)  # makes the derived files
            if len(vectors) >= MIN_ROWS:
                collection.index()

    def open(self, attributes: pa.Table) -> None:
        self._collection = Collection.open(self.folder / "c")
        # What the first searches do once, checking files, belongs to opening, as it does for the other engines.
        first = np.ones(self._collection.dim, np.float32)
        self._collection.search(first, 1)
        self._collection.search(first, 1, recall=_RECALLS[0])
        # No public way: users have no reason to forget. A change of the name must fail here, not go unnoticed.
        self._known = self._collection._current()._masks

    def settings(self, k: int) -> list[Setting]:
        swept: list[dict[str, Any]] = [*({"recall": recall} for recall in _RECALLS), {"recall": "exact"}]
        known = [Setting("nextvec, filter known", values, ready=True) for values in swept]
        return [Setting("nextvec", values) for values in swept] + known

    def prepare(self, text: str | None, setting: Setting) -> str | None:
        return text

    def search(self, queries: NDArray[np.float32], k: int, prepared: Any, setting: Setting) -> Found:
        if not setting.ready:
            self._known.clear()
        vector: Any = queries[0] if len(queries) == 1 else queries
        found: Any = self._collection.search(vector, k, where=prepared, **setting.values)
        return [hits.ids for hits in ([found] if isinstance(found, Hits) else found)]

    def close(self) -> None:
        self._collection.close()
