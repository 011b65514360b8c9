"""faiss ``IVF,Flat``: rows in about 4 sqrt(N) lists, of which the nearest ``nprobe`` are scanned."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.evaluate.ann.engines._engine import Setting
from nextvec.evaluate.ann.engines._faiss import Faiss


class FaissIvf(Faiss):
    """See the module. The last setting looks into every list, which makes it exact."""

    series = "faiss IVF"

    def make(self, faiss: Any, vectors: NDArray[np.float32]) -> Any:
        lists = max(1, min(int(4 * math.sqrt(len(vectors))), len(vectors) // 39))
        index = faiss.index_factory(vectors.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        return index

    def sweep(self, k: int) -> list[dict[str, Any]]:
        lists = int(self._index.nlist)
        probes = [n for n in (1, 4, 12, 32, 96, 256, 768, 2048) if n < lists]
        return [{"nprobe": n} for n in [*probes, lists]]

    def parameters(self, faiss: Any, selector: Any, setting: Setting) -> Any:
        options = {} if selector is None else {"sel": selector}
        return faiss.SearchParametersIVF(nprobe=setting.values["nprobe"], **options)
