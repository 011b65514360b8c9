"""LanceDB, IVF_FLAT index."""

from __future__ import annotations

import math
from typing import Any

from nextvec.evaluate.ann.engines._engine import Setting
from nextvec.evaluate.ann.engines._lancedb import LanceDb


class LanceDbIvf(LanceDb):
    """See the module; about sqrt(N) partitions."""

    note = "IVF_FLAT, scalar indexes, prefilter; one query a call"

    def index(self, made: Any, rows: int) -> Any:
        return made.IvfFlat(distance_type="dot", num_partitions=max(1, int(math.sqrt(rows))))

    def settings(self, k: int) -> list[Setting]:
        parts = max(1, int(math.sqrt(self._table.count_rows())))
        return [Setting("lancedb IVF", {"nprobes": n}) for n in (1, 4, 16, 64, 256) if n < parts] + [
            Setting("lancedb IVF", {"nprobes": parts})
        ]
