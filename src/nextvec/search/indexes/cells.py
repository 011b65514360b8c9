"""Cells (an inverted file): rows grouped by their nearest centroid, int8 codes lying cell by cell.

A query scans the matching rows of the cells whose means are nearest to it, until it has seen a given number of
matching rows; the best of them are scored again by the exact index. How many rows that must be for a recall depends
on the share of rows that match near the query, and is measured (planner.py).

Shapes: N rows of the exact index, n <= N of them in cells, C cells, D dimensions, M rows allowed by a filter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.search.indexes import codes
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.codes import Codes
from nextvec.search.indexes.exact import SEVERAL, ExactIndex, Found, found_of
from nextvec.search.indexes.graph import late_rows, with_late
from nextvec.search.indexes.rows import Damaged, Rows
from nextvec.search.indexes.signs import BLOCK, flips_of, signs_of
from nextvec.search.native import kernels, outputs

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

CLOSE = 256  # rows
_TELLING = 16  # matches expected among these: fewer say nothing
_LOWER, _AGAINST = 0.7, 0.25  # of what is expected: the filter makes the best rows rarer, or shuts out what is near
SPARE = 2  # candidates re-scored per hit asked for: int8 scores order near ties wrongly
_NEAR_SHARE, _NEAR_ROWS = 0.02, 4_096
_FINE = 15  # of a mean's code: `SMALL` of the kernels
_POINTS = 64  # rows per centroid that k-means sees
_ROUNDS = 6
_CHUNK = 16_384  # a multiple of the rows of a block of signs


@dataclass(frozen=True)
class Cells:
    """means float32 [C, D]; order [n]: row numbers cell by cell, ascending in each; starts [C + 1]; places [n]: where a
    row lies in ``order``; codes int8 [n, D] and scale [n] in that order; signs uint8 [B, ...], in
    that order too, and flips: see ``signs``; at [m]: where starts and signs are of some of the rows, their places."""

    means: Float32
    order: Int32
    starts: Int64
    places: Int32
    codes: NDArray[np.int8]
    scale: Float32
    signs: NDArray[np.uint8]
    flips: NDArray[np.int8]
    at: Int32 | None = None

    def __len__(self) -> int:
        return len(self.order if self.at is None else self.at)

    @cached_property
    def native(self) -> Any:
        """For the kernels. ValueError where they hold rows that are not there."""
        means, laid = self.coarse, (self.order, self.starts, self.codes, self.scale)
        return kernels.cells(*laid, means.codes, means.scale, self.signs, self.flips, self.at, self.codes.shape[1])

    @cached_property
    def coarse(self) -> Codes:
        """Codes of the means."""
        return codes.quantise(self.means, _FINE)

    @cached_property
    def near(self) -> int:
        """How many rows count as the neighbourhood of a query."""
        return max(min(int(_NEAR_SHARE * len(self)), _NEAR_ROWS), 1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A filter as the cells see it. places: of the allowed rows, ascending (None: all rows); starts [C + 1]: where
    each cell begins in them."""

    places: Int32 | None
    starts: Int64


def cell_count(rows: int) -> int:
    """C for n rows: about 3 sqrt(n), so that ranking the means and scanning the cells cost alike."""
    return max(1, min(int(3 * np.sqrt(rows)), rows // 8))


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
    means, flips = _means(rows, order, starts), flips_of(dim, rng)
    signs = _signs(rows, order, starts, means, flips)
    return Cells(means, order, starts, places, rows.codes[order], rows.scale[order], signs, flips)


def _means(rows: Rows, order: Int32, starts: Int64) -> Float32:
    """The mean of each cell: what q.x is around for its rows."""
    means = np.zeros((len(starts) - 1, rows.vectors.shape[1]), np.float32)
    for cell in range(len(means)):
        members = order[starts[cell] : starts[cell + 1]]
        if len(members):
            means[cell] = rows.vectors[members].mean(axis=0)
    return means


def _signs(rows: Rows, order: Int32, starts: Int64, means: Float32, flips: NDArray[np.int8]) -> NDArray[np.uint8]:
    """What ``signs_of`` gives for each row's difference from the mean of its cell, cell by cell."""
    parts = []
    for start in range(0, len(order), _CHUNK):
        places = np.arange(start, min(start + _CHUNK, len(order)))
        cell = np.searchsorted(starts, places, side="right") - 1
        parts.append(signs_of(rows.vectors[order[places]] - means[cell], flips))
    return np.concatenate(parts)


def prepare(cells: Cells, allowed: Allowed | None) -> Prepared:
    """The filter that allows these rows (None: all)."""
    inside = len(cells)
    if allowed is None:
        return Prepared(None, cells.starts)
    cut = allowed.count if inside >= allowed.total else int(np.searchsorted(allowed.rows, inside))
    if cut > inside // 8:
        places = np.flatnonzero(allowed.mask[:inside][cells.order]).astype(np.int32)
    else:
        places = np.sort(cells.places[allowed.rows[:cut]])
    return Prepared(places, np.searchsorted(places, cells.starts))


def alone(cells: Cells, allowed: Allowed) -> Cells:
    """The same cells with the rows that a filter takes and no others, by the compiled kernels."""
    starts, at = np.empty_like(cells.starts), np.empty(allowed.count, np.int32)
    signs = np.empty((-(-len(at) // BLOCK), cells.signs.shape[1]), np.uint8)
    count = kernels.lay(cells.native, allowed.native(SEVERAL), starts, at, signs)
    own = replace(cells, starts=starts, at=at[:count], signs=signs[: -(-count // BLOCK)])
    own.__dict__["coarse"] = cells.coarse  # means are the same
    return own


def look(
    cells: Cells, queries: Float32, allowed: Allowed | None = None, own: Cells | None = None
) -> tuple[Int32, list[float]]:
    """For each of float32 [Q, D]: the cells, nearest first, int32 [Q, C]; the share of the rows near it that match [Q]:
    of the nearest 2 %, or of the ``CLOSE`` nearest where it is lower there; 0 where so few of these match that the
    filter works against the query, and its best rows lie where no calibration has looked. own: the allowed rows
    ``alone``, where they are known."""
    order, counts = np.empty((len(queries), len(cells.means)), np.int32), np.empty((len(queries), 4), np.int64)
    if kernels is not None:
        filter_ = own.native if own is not None else None if allowed is None else allowed.native(len(queries))
        kernels.near(cells.native, filter_, queries, CLOSE, cells.near, order, counts)
    else:
        order[:] = np.argsort(-(queries @ cells.means.T), axis=1, kind="stable")
        for ranked, count in zip(order, counts, strict=True):
            ends = np.cumsum(cells.starts[ranked + 1] - cells.starts[ranked])
            for place, enough in ((0, min(CLOSE, cells.near)), (2, cells.near)):
                some = ranked[: int(np.searchsorted(ends, enough)) + 1]
                near = np.concatenate([cells.order[cells.starts[cell] : cells.starts[cell + 1]] for cell in some])
                matching = len(near) if allowed is None else np.count_nonzero(allowed.mask[near])
                count[place : place + 2] = len(near), matching
    if allowed is None:
        return order, [1.0] * len(queries)
    return order, [_share(*one) for one in counts.tolist()]


def _share(close: int, close_matching: int, near: int, near_matching: int) -> float:
    """The share of the rows near a query that match, for ``look``."""
    share = (near_matching + 1) / (near + 1)
    if close * share < _TELLING:
        return share
    closer = (close_matching + 1) / (close + 1)
    if closer < _AGAINST * share:
        return 0.0
    return closer if closer < _LOWER * share else share


def seen_by(filter_: Prepared, order: Int32) -> Int64:
    """Matching rows in the nearest 1, 2, ... C cells: [C]."""
    return np.cumsum(np.diff(filter_.starts)[order])


def search_cells(
    cells: Cells,
    exact: ExactIndex,
    queries: Float32,
    k: int,
    allowed: Allowed | None,
    order: Int32 | None = None,
    *,
    rows: Float64,
    keep: int = 0,
    may_lose: float = 1.0,
    own: Cells | None = None,
) -> list[Found]:
    """For each of float32 [Q, D] the best k among the matching ones of the ``rows`` [Q] rows (infinite: all) that are
    nearest to it by cell, and of all that came later. order [Q, C]: the cells, nearest first, where that is known.
    keep: so many rows are chosen by their signs before the codes are looked at (0: all are). may_lose: where all rows
    are looked at, the share of the hits that this may leave out. own: the allowed rows ``alone``, where they are known;
    ``rows`` are of these.

    Scores are those of the exact index. There may be fewer hits than matches: none where more than ``may_lose`` of them
    was probably lost.
    """
    if exact.native is not None:
        out = outputs(len(queries), k)
        filter_ = None if allowed is None or own is not None else allowed.native(len(queries))
        native = (cells if own is None else own).native
        if not kernels.scan(exact.native, native, filter_, queries, order, rows, keep, may_lose, k, SPARE * k + 4, out):
            raise Damaged("rows differ from what was written")
        found = found_of(out, k, itertools.repeat("cells"))
        lost = [i for i, one in enumerate(found) if one.reranked < 0] if keep and math.inf in rows.tolist() else []
    else:
        each = zip(queries, look(cells, queries)[0] if order is None else order, rows.tolist(), strict=True)
        found, lost = [_scan_by_numpy(cells, exact, query, k, allowed, own, enough) for query, own, enough in each], []
    if len(cells) < len(exact.rows):
        found = with_late(exact, queries, k, found, late_rows(allowed, len(cells), len(exact.rows)))
    for i in lost:
        found[i] = replace(found[i], rows=found[i].rows[:0], scores=found[i].scores[:0], reranked=0)
    return found


def _scan_by_numpy(
    cells: Cells, exact: ExactIndex, query: Float32, k: int, allowed: Allowed | None, order: Int32, rows: float
) -> Found:
    filter_ = prepare(cells, allowed)
    ends = np.cumsum(np.diff(cells.starts)[order])
    last = min(int(np.searchsorted(ends, rows)) + 1, len(ends))
    found, scores = _matching_rows(cells, codes.quantise(query[None]), filter_, np.sort(order[:last]))
    keep = min(len(found), SPARE * k + 4)
    if keep < len(found):
        found = found[np.argpartition(-scores, keep - 1)[:keep]]
    return replace(exact.score(query, np.sort(found), k, "cells"), reranked=int(ends[last - 1]))


def _matching_rows(cells: Cells, code: Any, filter_: Prepared, chosen: Int32) -> tuple[Int64, Float32]:
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
    products = codes.dots(code.codes, np.take(cells.codes, at, axis=0))[0]
    return cells.order[at].astype(np.int64), (products * cells.scale[at]).astype(np.float32)
