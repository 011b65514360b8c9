"""A graph (HNSW): rows linked to near ones, walked from one near row to the next by a compiled kernel.

faiss builds it (Malkov and Yashunin 2016, arXiv 1603.09320) over 8-bit codes; what is kept are its links. The walk goes
through rows that match the filter alone, and where a neighbour does not match, on to the neighbours of that one
(two hops, after ACORN, Patel et al. 2024, arXiv 2403.04871), so that it stays connected while most rows do not match.
How wide it must be for a recall is measured (calibration.py).

Shapes: N rows, D dimensions, W links of a row at the lowest level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.exact import ExactIndex, Found, found_of
from nextvec.search.indexes.rows import Damaged, Rows
from nextvec.search.native import kernels, outputs

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

LINKS = 16  # per row and level (M of the paper; W = 2 M at the lowest level)
BUILD_WIDTH = 80  # efConstruction
SPARE = 2  # rows scored again per hit asked for
_CHUNK = 4_096
_SAMPLE = 50_000  # rows from which the ranges of the 8-bit codes are learned


@dataclass(frozen=True, eq=False)
class Graph:
    """links int32 [N, W]: of each row at the lowest level, -1 after the last one; upper int32: the other levels from
    the highest to the first, each as its number of rows, links per row, rows (ascending) and links; entry: where a
    walk begins."""

    links: Int32
    upper: Int32
    entry: int

    def __len__(self) -> int:
        return len(self.links)

    @cached_property
    def native(self) -> Any:
        """For the kernel. ValueError where links lead to rows that are not there."""
        return kernels.graph(self.links, self.upper, self.links.shape[1], self.entry)


def start_graph(rows: Rows) -> Any:
    """An empty graph of faiss for these rows."""
    faiss = require("faiss", why="an approximate index")

    graph = faiss.IndexHNSWSQ(rows.vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_WIDTH
    step = max(1, len(rows) // _SAMPLE)
    graph.train(np.ascontiguousarray(rows.vectors[::step]))
    return graph


def extend_graph(graph: Any, rows: Rows, after: Callable[[int], None]) -> None:
    """Add the rows that the graph lacks, in row order; ``after`` is told the count after every few thousand."""
    while graph.ntotal < len(rows):
        graph.add(np.ascontiguousarray(rows.vectors[graph.ntotal : graph.ntotal + _CHUNK]))
        after(graph.ntotal)


def links_of(graph: Any) -> Graph:
    """The links of a graph of faiss."""
    faiss = require("faiss", why="an approximate index")

    hnsw = graph.hnsw
    neighbours = faiss.vector_to_array(hnsw.neighbors)
    offsets = faiss.vector_to_array(hnsw.offsets).astype(np.int64)[:-1]
    levels = faiss.vector_to_array(hnsw.levels)
    begins = faiss.vector_to_array(hnsw.cum_nneighbor_per_level).astype(np.int64)

    def of(rows: Int64, level: int) -> Int32:
        places = np.arange(begins[level], begins[level + 1])
        return np.ascontiguousarray(neighbours[offsets[rows, None] + places], np.int32)

    links = np.concatenate([of(part, 0) for part in np.array_split(np.arange(len(levels)), len(levels) // _CHUNK + 1)])
    upper = [np.zeros(0, np.int32)]
    for level in range(int(hnsw.max_level), 0, -1):
        members = np.flatnonzero(levels > level)
        own = of(members, level)
        upper += [np.array(own.shape, np.int32), members.astype(np.int32), own.ravel()]
    return Graph(links, np.concatenate(upper), int(hnsw.entry_point))


def search_graph(
    graph: Graph, exact: ExactIndex, queries: Float32, k: int, allowed: Allowed | None, *, width: int | Int64
) -> list[Found]:
    """For each of float32 [Q, D] the best rows found that match, at most k: fewer where the walk met fewer. Allowed
    rows that came after the graph are all looked at. Scores are the exact index's. width: of all walks or of each, [Q].
    Needs the compiled kernels."""
    widths = np.maximum(np.broadcast_to(width, len(queries)), k).astype(np.int64)
    out = outputs(len(queries), k)
    filter_ = None if allowed is None else allowed.native(len(queries))
    if not kernels.walk(exact.native, graph.native, filter_, queries, widths, k, SPARE * k + 4, out):
        raise Damaged("rows differ from what was written")
    found = found_of(out, k, [f"graph, width {wide}" for wide in widths.tolist()])
    return with_late(exact, queries, k, found, late_rows(allowed, len(graph), len(exact.rows)))


def late_rows(allowed: Allowed | None, inside: int, total: int) -> Int64 | None:
    """The allowed rows (None: all) from number ``inside`` on, which came after an index was made, if any."""
    if inside >= total:
        return None
    return np.arange(inside, total) if allowed is None else allowed.from_(inside)


def with_late(exact: ExactIndex, queries: Float32, k: int, found: list[Found], late: Int64 | None) -> list[Found]:
    """What was found, with the best of ``late`` rows among it."""
    if late is None or not len(late):
        return found
    merged = []
    for query, one in zip(queries, found, strict=True):
        (more,) = exact.search(query[None], k, late)
        merged.append(exact.score(query, np.concatenate([one.rows, more.rows]), k, one.plan))
    return merged
