"""faiss ``HNSW``: a graph walk that returns allowed rows only, ``efSearch`` candidates wide."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.evaluate.ann.engines._engine import Setting
from nextvec.evaluate.ann.engines._faiss import Faiss


class FaissHnsw(Faiss):
    """See the module; M 16, efConstruction 100."""

    series = "faiss HNSW"

    def make(self, faiss: Any, vectors: NDArray[np.float32]) -> Any:
        index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 100
        index.add(vectors)
        return index

    def sweep(self, k: int) -> list[dict[str, Any]]:
        return [{"efSearch": ef} for ef in (16, 64, 192, 512, 2048) if ef >= k] or [{"efSearch": k}]

    def parameters(self, faiss: Any, selector: Any, setting: Setting) -> Any:
        options = {} if selector is None else {"sel": selector}
        return faiss.SearchParametersHNSW(efSearch=setting.values["efSearch"], **options)
