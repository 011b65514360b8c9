"""Cells (an inverted file): rows grouped by their nearest centroid, int8 codes lying cell by cell.

A query scans the matching rows of the cells whose means are nearest to it, until it has seen a given number of
matching rows; the best of them are scored again by the exact index. How many rows that must be for a recall depends
on the share of rows that match near the query, and is measured (planner.py).

Shapes: N rows of the exact index, n <= N of them in cells, C cells, D dimensions, M rows allowed by a filter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.search.indexes import codes as kernels
from nextvec.search.indexes.exact import ExactIndex, Found
from nextvec.search.indexes.rows import Rows

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

SPARE = 3  # candidates re-scored per hit asked for: int8 scores order near ties wrongly
_MANY_NEAR = 512  # cells looked at, at most, to find that many rows
NEAR = 0.02  # share of all rows that counts as the neighbourhood of a query
_POINTS = 64  # rows per centroid that k-means sees
_ROUNDS = 10
_CHUNK = 16_384


@dataclass(frozen=True)
class Cells:
    """means float32 [C, D]; order [n]: row numbers cell by cell, ascending in each; starts [C + 1]; places [n]: where a
    row lies in ``order``; codes int8 [n, D] and scale [n] in that order."""

    means: Float32
    order: Int32
    starts: Int64
    places: Int32
    codes: NDArray[np.int8]
    scale: Float32

    def __len__(self) -> int:
        return len(self.order)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A filter as the cells see it. places: of the allowed rows, ascending (None: all rows); starts [C + 1]: where
    each cell begins in them; tail: allowed rows that came after the cells were made."""

    places: Int32 | None
    starts: Int64
    tail: Int64
    matches: int


def cell_count(rows: int) -> int:
    """C for n rows: about 1.5 sqrt(n), so that scoring the centroids and scanning the cells cost alike."""
    return max(1, min(int(1.5 * np.sqrt(rows)), rows // 8))


def build_cells(
    rows: Rows, *, seed: int = 0, metric: str = "cosine", progress: Callable[[int, int], None] | None = None
) -> Cells:
    """Cells of all ``rows``: k-means on a sample, then every row to its best centroid. progress: (rows done, of)."""
    faiss = require("faiss", why="an approximate index")

    total, dim = rows.vectors.shape
    count = cell_count(total)
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(total, min(total, count * _POINTS), replace=False))
    kmeans = faiss.Kmeans(dim, count, niter=_ROUNDS, seed=seed, spherical=metric == "cosine", verbose=False)
    # All of the sample is meant to be used; the library warns below 39 rows per centroid.
    kmeans.cp.min_points_per_centroid, kmeans.cp.max_points_per_centroid = 1, _POINTS
    kmeans.train(rows.vectors[sample])
    centroids = np.ascontiguousarray(kmeans.centroids, np.float32)
    nearest = faiss.IndexFlatIP(dim) if metric == "cosine" else faiss.IndexFlatL2(dim)
    nearest.add(centroids)
    cell = np.empty(total, np.int32)
    for start in range(0, total, _CHUNK):
        part = rows.vectors[start : start + _CHUNK]
        found = nearest.search(part, 1)[1][:, 0]
        cell[start : start + len(part)] = found
        if progress:
            progress(start + len(part), total)
    order = np.argsort(cell, kind="stable").astype(np.int32)
    starts = np.searchsorted(cell[order], np.arange(count + 1)).astype(np.int64)
    places = np.empty(total, np.int32)
    places[order] = np.arange(total, dtype=np.int32)
    return Cells(_means(rows, order, starts), order, starts, places, rows.codes[order], rows.scale[order])


def _means(rows: Rows, order: Int32, starts: Int64) -> Float32:
    """The mean of each cell: what q.x is around for its rows."""
    means = np.zeros((len(starts) - 1, rows.vectors.shape[1]), np.float32)
    for cell in range(len(means)):
        members = order[starts[cell] : starts[cell + 1]]
        if len(members):
            means[cell] = rows.vectors[members].mean(axis=0)
    return means


def prepare(cells: Cells, allowed: Int64 | None, total: int) -> Prepared:
    """The filter that allows these rows (ascending; None: all ``total`` rows of the exact index)."""
    inside = len(cells)
    if allowed is None:
        return Prepared(None, cells.starts, np.arange(inside, total), total)
    cut = int(np.searchsorted(allowed, inside))
    if cut > inside // 8:
        mask = np.zeros(inside, np.bool_)
        mask[allowed[:cut]] = True
        places = np.flatnonzero(mask[cells.order]).astype(np.int32)
    else:
        places = np.sort(cells.places[allowed[:cut]])
    starts = np.searchsorted(places, cells.starts)
    return Prepared(places, starts, allowed[cut:], len(allowed))


def nearest(cells: Cells, query: Float32) -> Int64:
    """The cells, nearest to float32 [D] first: [C]."""
    order: Int64 = np.argsort(-(cells.means @ query))
    return order


def share_near(cells: Cells, order: Int64, mask: NDArray[np.bool_]) -> float:
    """The share of the rows in the neighbourhood that match. order: the cells, nearest first; mask [n]: the matches."""
    ends = np.cumsum((cells.starts[order + 1] - cells.starts[order])[:_MANY_NEAR])
    count = int(np.searchsorted(ends, NEAR * len(cells))) + 1
    rows = np.concatenate([cells.order[cells.starts[cell] : cells.starts[cell + 1]] for cell in order[:count]])
    return float(np.count_nonzero(mask[rows]) + 1) / (len(rows) + 1)


def seen_by(filter_: Prepared, order: Int64) -> Int64:
    """Matching rows in the nearest 1, 2, ... C cells: [C]."""
    return np.cumsum(np.diff(filter_.starts)[order])


def search_cells(
    cells: Cells, exact: ExactIndex, query: Float32, k: int, filter_: Prepared, order: Int64, *, rows: float
) -> Found:
    """The best min(k, M) among the ``rows`` matching rows that are nearest by cell, and all that came later.
    order [C]: the cells, nearest first.

    Scores are those of the exact index. There may be fewer hits than that where ``rows`` < k.
    """
    code = kernels.quantise(query[None])
    last = int(np.searchsorted(seen_by(filter_, order), rows)) + 1
    found, scores = _scan(cells, code, filter_, np.sort(order[:last]))
    if len(filter_.tail):
        late = exact.rows
        more = kernels.dots(code.codes, np.take(late.codes, filter_.tail, axis=0))[0] * late.scale[filter_.tail]
        found, scores = np.concatenate([found, filter_.tail]), np.concatenate([scores, more.astype(np.float32)])
    scanned, keep = len(found), min(len(found), SPARE * k + 8)
    if keep < scanned:
        found = found[np.argpartition(-scores, keep - 1)[:keep]]
    return exact.score(query, np.sort(found), k, f"cells, {scanned:,} rows scanned")


def _scan(cells: Cells, code: Any, filter_: Prepared, chosen: Int64) -> tuple[Int64, Float32]:
    """The matching rows of these cells, and their scores in the unit of the query's code."""
    starts = filter_.starts[chosen]
    sizes = filter_.starts[chosen + 1] - starts
    total = int(sizes.sum())
    if total == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    ends = np.cumsum(sizes)
    at = np.arange(total) + np.repeat(starts - (ends - sizes), sizes)
    if filter_.places is not None:
        at = filter_.places[at]
    products = kernels.dots(code.codes, np.take(cells.codes, at, axis=0))[0]
    return cells.order[at].astype(np.int64), (products * cells.scale[at]).astype(np.float32)
