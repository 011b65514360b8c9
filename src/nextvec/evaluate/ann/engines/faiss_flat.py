"""faiss ``IndexFlatIP``: every allowed row is scored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.evaluate.ann.engines._engine import Setting
from nextvec.evaluate.ann.engines._faiss import Faiss


class FaissFlat(Faiss):
    """See the module."""

    exact = True
    series = "faiss flat"

    def make(self, faiss: Any, vectors: NDArray[np.float32]) -> Any:
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return index

    def parameters(self, faiss: Any, selector: Any, setting: Setting) -> Any:
        return None if selector is None else faiss.SearchParameters(sel=selector)
