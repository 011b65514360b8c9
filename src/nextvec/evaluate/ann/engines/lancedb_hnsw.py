"""LanceDB, IVF_HNSW_SQ index: a graph over int8 codes in each partition, the best re-ranked with full vectors."""

from __future__ import annotations

from typing import Any

from nextvec.evaluate.ann.engines._engine import Setting
from nextvec.evaluate.ann.engines._lancedb import LanceDb


class LanceDbHnsw(LanceDb):
    """See the module; one partition per million rows, m 20, ef_construction 150."""

    note = "IVF_HNSW_SQ, scalar indexes, prefilter, 3 k hits re-ranked; one query a call"

    def index(self, made: Any, rows: int) -> Any:
        parts = 1 + rows // 1_000_000
        return made.IvfHnswSq(distance_type="dot", num_partitions=parts, m=20, ef_construction=150)

    def settings(self, k: int) -> list[Setting]:
        return [Setting("lancedb HNSW", {"ef": max(ef, 3 * k), "refine_factor": 3}) for ef in (32, 96, 256, 1024)]
