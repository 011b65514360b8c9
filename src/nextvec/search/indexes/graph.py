"""A navigable graph (HNSW, arXiv 1603.09320) over 8-bit codes, on faiss's kernels, with a bitmap for the filter.

The walk goes through all rows and keeps those that match, so that a filter never cuts the graph apart; it stops when
``width`` rows (efSearch) that it has seen are nearer than the ones kept. Of matches that are spread evenly it must
see width / share rows, which pays while the share is large; the planner chooses something else where it is not.

Shapes: N rows of the exact index, n <= N of them in the graph, D dimensions, M rows allowed by a filter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.search.indexes.exact import ExactIndex, Found
from nextvec.search.indexes.rows import Rows

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

LINKS = 16  # per row and layer (M of the paper; 2 M at the lowest layer)
BUILD_WIDTH = 80  # efConstruction
SPARE = 2  # rows scored again per hit asked for
_CHUNK = 4_096
_SAMPLE = 50_000  # rows from which the ranges of the 8-bit codes are learned


def start_graph(rows: Rows) -> Any:
    """An empty graph for these rows."""
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


def search_graph(
    graph: Any,
    exact: ExactIndex,
    query: Float32,
    k: int,
    bits: NDArray[np.uint8] | None,
    tail: Int64,
    *,
    width: int,
) -> Found:
    """The best rows found for float32 [D], at most k: fewer where the walk met fewer that match. ``tail``: allowed
    rows that are not in the graph; they are all scored. Scores are those of the exact index."""
    faiss = require("faiss", why="an approximate index")

    parameters = faiss.SearchParametersHNSW(efSearch=width)
    if bits is not None:
        # faiss keeps bare pointers: ``bits`` and the selector must outlive the call.
        selector = faiss.IDSelectorBitmap(graph.ntotal, faiss.swig_ptr(bits))
        parameters.sel = selector
    wanted = min(SPARE * k + 4, max(width, k), graph.ntotal)
    rows = graph.search(query[None], wanted, params=parameters)[1][0]
    rows = np.concatenate([rows[rows >= 0], tail])
    return exact.score(query, np.sort(rows), k, f"graph, width {width}")
