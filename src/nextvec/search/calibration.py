"""What approximate ways need for a recall, and what each way costs, measured on one collection and machine.

The queries are rows of the collection with noise (cosine 0.7 to the row they come from): a little harder than titles
are for the abstracts that they belong to, and much harder than the rows themselves.
Shapes: N rows, C cells, D dimensions, M matching rows, S calibration queries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.cells import Cells, alone, look, prepare, search_cells, seen_by
from nextvec.search.indexes.exact import SEVERAL, ExactIndex
from nextvec.search.indexes.graph import Graph, search_graph

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

TARGETS = (0.9, 0.95, 0.97, 0.99)
SHARES = (1.0, 0.3, 0.1, 0.03, 0.01)
DEPTHS = (10, 100)  # k
WIDTHS = (12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 384, 512)
KEEPS = (40, 60, 80, 120, 160, 240, 320, 480)
QUERIES = 192
FEWEST, MOST = 32, 512  # real queries
_SIGNAL = 0.7
_SPARE = 0.5  # of what a target leaves open, asked for besides: other queries may be harder
_LOSS = 0.2  # of what a target leaves open, lost to signs
_USUAL = 0.95  # the target at which costs are measured
_REPEATS = 15
_LAYING = 1.0, 1e-4  # milliseconds, and per row: where an earlier version did not measure it
_SOME, MANY = 16, 64  # queries of a batch; more cost each of them the same


@dataclass(frozen=True)
class Calibration:
    """rows: target -> k -> matching rows to see at each of ``SHARES``; widths: target -> width of the walk at k=10 at
    each of ``SHARES``, None where the graph did not reach it; keeps: target -> rows that a scan of cells chooses by
    their signs at k=10 (0: signs tell too little), wholes: the same of all rows; costs: name -> (milliseconds,
    milliseconds per unit); queries: how many real ones it was measured on (0: rows with noise)."""

    total: int
    rows: dict[float, dict[int, list[float]]]
    widths: dict[float, list[int | None]]
    keeps: dict[float, int]
    costs: dict[str, tuple[float, float]]
    queries: int = 0
    wholes: dict[float, int] = field(default_factory=dict)

    def target(self, recall: float) -> float | None:
        """The lowest measured target that is at least ``recall``; None where only the exact index will do."""
        return next((target for target in TARGETS if target >= recall and target in self.rows), None)

    def rows_needed(self, target: float, k: int, share: float) -> float:
        """Matching rows that the cells must give, for a share of rows that match near the query."""
        few, many = (self._at(self.rows[target][depth], share) for depth in DEPTHS)
        if k <= DEPTHS[0]:
            return few
        if k >= DEPTHS[1]:
            return many * k / DEPTHS[1]
        part = math.log(k / DEPTHS[0]) / math.log(DEPTHS[1] / DEPTHS[0])
        return math.exp((1 - part) * math.log(few) + part * math.log(many))

    def keep(self, target: float, k: int, *, whole: bool = False) -> int:
        """Rows that a scan of cells, near ones or the ``whole``, chooses by signs; 0 where it had better look at the
        codes of all."""
        return math.ceil((self.wholes if whole else self.keeps).get(target, 0) * max(k / DEPTHS[0], 1))

    @staticmethod
    def may_lose(target: float) -> float:
        """The share of the hits that signs may leave out."""
        return _LOSS * (1 - target)

    @staticmethod
    def _at(values: list[float], share: float) -> float:
        places, logs = np.log(SHARES[::-1]), np.log(values[::-1])
        return float(np.exp(np.interp(math.log(max(share, SHARES[-1])), places, logs)))

    def width(self, target: float, share: float) -> float | None:
        """Width of the walk at k=10, for a share of rows that match near the query; None where none was enough."""
        widths = self.widths.get(target, [None] * len(SHARES))
        after = next((i for i, known in enumerate(SHARES) if known <= share * (1 + 1e-9)), None)
        if after is None or widths[after] is None:
            return None
        before = widths[after - 1] if after else None
        high, low = widths[after], before if before is not None else widths[after]
        assert high is not None and low is not None
        if after == 0 or SHARES[after] == share:
            return float(high)
        part = math.log(SHARES[after - 1] / share) / math.log(SHARES[after - 1] / SHARES[after])
        return math.exp((1 - part) * math.log(low) + part * math.log(high))

    def exact(self, rows: int, gathered: bool, queries: int) -> float:
        """Predicted milliseconds per query of the exact index, of ``queries`` at once. rows: that it looks at."""
        kind = "gather" if gathered else "scan"
        if queries < SEVERAL:
            return self.line(kind, rows)
        some, many = self.line(f"some {kind}", rows), self.line(f"many {kind}", rows)
        # Part of the time is the same for any number of queries.
        shared = max(some - many, 0.0) / (1 / _SOME - 1 / MANY)
        return many + shared * (1 / min(queries, MANY) - 1 / MANY)

    def line(self, name: str, amount: float) -> float:
        """Predicted milliseconds."""
        start, slope = self.costs[name]
        return start + slope * amount

    def laying(self, matches: int) -> float:
        """Predicted milliseconds to lay the rows of a filter out alone."""
        start, slope = self.costs.get("lay", _LAYING)
        return start + slope * matches

    def at_share(self, name: str, share: float, amount: float, queries: int = 1) -> float:
        """Predicted milliseconds per query of a way that looks for matches, between the shares that were measured, of
        ``queries`` at once by one thread."""
        kind = name if queries < SEVERAL else f"some {name}"
        share = min(max(share, SHARES[-1]), SHARES[0])
        after = next(i for i, known in enumerate(SHARES) if known <= share)
        own = self.line(f"{kind} {SHARES[after]}", amount)
        if SHARES[after] == share:
            return own
        part = math.log(share / SHARES[after]) / math.log(SHARES[after - 1] / SHARES[after])
        return own + part * (self.line(f"{kind} {SHARES[after - 1]}", amount) - own)

    def scanning(self, share: float, rows: float, queries: int = 1) -> float:
        """Predicted milliseconds per query of a scan of cells. Of many rows the later ones cost less: the rows that are
        kept already are hard to beat."""
        tenth = self.total / 10
        if rows <= tenth:
            return self.at_share("cells", share, rows, queries)
        part = (rows - tenth) / (self.total - tenth)
        own, whole = self.at_share("cells", share, tenth, queries), self.at_share("whole", share, self.total, queries)
        return own + part * (whole - own)

    def to_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Calibration:
        """From what ``to_json`` gave, through JSON. Raises KeyError, TypeError, ValueError where it is not that."""
        rows = {
            float(target): {int(k): [float(value) for value in values] for k, values in depths.items()}
            for target, depths in document["rows"].items()
        }
        if any(
            len(values) != len(SHARES) or min(values) <= 0 for depths in rows.values() for values in depths.values()
        ):
            raise ValueError("rows of another shape")
        widths = {
            float(target): [None if width is None else int(width) for width in own]
            for target, own in document["widths"].items()
        }
        if any(len(own) != len(SHARES) for own in widths.values()):
            raise ValueError("widths of another shape")
        keeps, wholes = (
            {float(target): int(keep) for target, keep in own.items()}
            for own in (document["keeps"], document.get("wholes", {}))
        )
        if min([*keeps.values(), *wholes.values()], default=0) < 0:
            raise ValueError("negative numbers of rows")
        costs = {str(name): (float(pair[0]), float(pair[1])) for name, pair in document["costs"].items()}
        total = int(document["total"])
        return cls(total, rows, widths, keeps, _with_wholes(costs, total), int(document.get("queries", 0)), wholes)


def calibrate(
    exact: ExactIndex,
    cells: Cells,
    graph: Graph | None,
    *,
    seed: int = 0,
    queries: Float32 | None = None,
    progress: Callable[[str], None] | None = None,
) -> Calibration:
    """Measure all of it: some seconds for 100,000 rows. queries: real ones, float32 [S, D], of which ``MOST`` are
    used."""
    say = progress or (lambda _: None)
    rng = np.random.default_rng(seed)
    real = 0 if queries is None else min(len(queries), MOST)
    if queries is None:
        queries = calibration_queries(exact.rows.vectors, rng)
    elif len(queries) > MOST:
        queries = queries[np.sort(rng.choice(len(queries), MOST, replace=False))]
    say("how many rows the cells must give")
    filters = [_random(len(exact.rows), share, rng) for share in SHARES]
    needed = {k: [_needed(exact, cells, queries, k, allowed) for allowed in filters] for k in DEPTHS}
    rows = {
        target: {k: [_enough(seen, target) for seen in needed[k]] for k in DEPTHS}
        for target in TARGETS
        if len(exact.rows) >= 4 * DEPTHS[1]
    }
    say("how many rows signs must choose")
    keeps = _keeps(exact, cells, queries, max(needed[DEPTHS[0]][0], default=1))
    wholes = _keeps(exact, cells, queries, len(exact.rows))
    say("how wide the walk through the graph must be")
    widths = {target: [] for target in TARGETS}  # type: dict[float, list[int | None]]
    for allowed in filters:
        for target, width in _widths(exact, graph, queries, allowed).items():
            widths[target].append(width)
    say("what each way takes")
    costs = _costs(exact, cells, graph, queries, filters, (keeps[_USUAL], wholes[_USUAL]), rng)
    return Calibration(len(exact.rows), rows, widths, keeps, costs, real, wholes)


def calibration_queries(vectors: Float32, rng: np.random.Generator) -> Float32:
    """float32 [S, D]: rows with noise, of the rows' lengths."""
    chosen = vectors[np.sort(rng.choice(len(vectors), min(QUERIES, len(vectors)), replace=False))]
    lengths = np.linalg.norm(chosen, axis=1, keepdims=True)
    noise = rng.standard_normal(chosen.shape).astype(np.float32)
    noise *= lengths / np.linalg.norm(noise, axis=1, keepdims=True)
    mixed = _SIGNAL * chosen + math.sqrt(1 - _SIGNAL**2) * noise
    scaled: Float32 = (mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12) * lengths).astype(
        np.float32
    )
    return scaled


def _random(total: int, share: float, rng: np.random.Generator) -> Allowed | None:
    return None if share == 1 else Allowed(total, rows=np.flatnonzero(rng.random(total) < share))


def _needed(exact: ExactIndex, cells: Cells, queries: Float32, k: int, allowed: Allowed | None) -> Int64:
    """For each query and each of its true k best: how many matching rows the cells give until it is among them."""
    filter_ = prepare(cells, allowed)
    cell_of = np.searchsorted(cells.starts, cells.places, side="right") - 1
    found = []
    best_of = exact.search(queries, k, None if allowed is None else allowed.rows)
    for order, best in zip(look(cells, queries)[0], best_of, strict=True):
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(rank))
        inside = best.rows[best.rows < len(cells)]
        found.append(seen_by(filter_, order)[rank[cell_of[inside]]])
    return np.concatenate(found)


def _asked_for(target: float) -> float:
    """The recall that queries of the calibration must reach."""
    return target + _SPARE * (1 - target)


def _enough(seen: Int64, target: float) -> float:
    """Rows that give what is asked for."""
    return float(max(np.quantile(seen, _asked_for(target)), 1)) if len(seen) else 1.0


def _keeps(exact: ExactIndex, cells: Cells, queries: Float32, rows: float) -> dict[float, int]:
    """By target, the fewest rows that signs must choose for a loss of recall that is small beside what the target
    leaves open; 0 where none of ``KEEPS`` is enough. rows: that a scan sees."""
    keeps = dict.fromkeys(TARGETS, 0)
    if exact.native is None:
        return keeps
    k, order = DEPTHS[0], look(cells, queries)[0]
    seen = np.full(len(queries), float(rows))
    best = search_cells(cells, exact, queries, k, None, order, rows=seen)
    for keep in KEEPS:
        found = search_cells(cells, exact, queries, k, None, order, rows=seen, keep=keep)
        kept = np.mean([np.isin(true.rows, one.rows).mean() for one, true in zip(found, best, strict=True)])
        for target in TARGETS:
            if not keeps[target] and kept >= 1 - Calibration.may_lose(target):
                keeps[target] = keep
    return keeps


def _widths(
    exact: ExactIndex, graph: Graph | None, queries: Float32, allowed: Allowed | None
) -> dict[float, int | None]:
    widths: dict[float, int | None] = dict.fromkeys(TARGETS)
    if graph is None:
        return widths
    best = exact.search(queries, DEPTHS[0], None if allowed is None else allowed.rows)
    for width in WIDTHS:
        found = search_graph(graph, exact, queries, DEPTHS[0], allowed, width=width)
        # Over the hits that there are, so that a walk that met few of them counts as what it is.
        reached = [
            np.sum(one.scores >= true.scores[-1]) / len(true.scores) for one, true in zip(found, best, strict=True)
        ]
        for target in TARGETS:
            if widths[target] is None and np.mean(reached) >= _asked_for(target):
                widths[target] = width
        if None not in widths.values():
            break
    return widths


def _costs(
    exact: ExactIndex,
    cells: Cells,
    graph: Graph | None,
    queries: Float32,
    filters: list[Allowed | None],
    keeps: tuple[int, int],
    rng: np.random.Generator,
) -> dict[str, tuple[float, float]]:
    total, k = len(exact.rows), DEPTHS[0]

    def at_amount(run: Callable[[Float32, float], object], amount: float, batch: int, times: int = _REPEATS) -> float:
        turns = len(queries) // batch

        def once(turn: int) -> object:
            # Others each time: what the last ones read lies in caches, which makes a walk half as slow as it is.
            first = turn % turns * batch
            return run(queries[first : first + batch], amount)

        return timed(once, times) / batch

    def line(run: Callable[[Float32, float], object], low: float, high: float, batch: int = 1) -> tuple[float, float]:
        at = at_amount(run, low, batch), at_amount(run, high, batch)
        slope = max((at[1] - at[0]) / (high - low), 0.0)
        return max(at[0] - slope * low, 0.0), slope

    parts = {size: np.sort(rng.choice(total, size, replace=False)) for size in (total // 100, total // 10)}
    sure = exact.likely

    def gather(queries: Float32, amount: float) -> object:
        return exact.search(queries, k, parts[int(amount)], sure=sure)

    def every(queries: Float32, _: float) -> object:
        return exact.search(queries, k, sure=sure)

    costs = {} if exact.native is None else {"lay": _laying(cells, filters)}
    batches = {"": 1, "some ": min(_SOME, len(queries)), "many ": min(MANY, len(queries))}
    for name, size in batches.items():
        costs[f"{name}gather"] = line(gather, total // 100, total // 10, size)
        costs[f"{name}scan"] = (0.0, timed(lambda _, size=size: every(queries[:size], 0), _REPEATS // 2) / size / total)  # type: ignore[misc]

    for share, allowed in zip(SHARES, filters, strict=True):

        def scan(query: Float32, amount: float, allowed: Allowed | None = allowed) -> object:
            order, keep = look(cells, query, allowed)[0], keeps[amount == total]
            return search_cells(cells, exact, query, k, allowed, order, rows=np.full(len(query), amount), keep=keep)

        def walk(query: Float32, amount: float, allowed: Allowed | None = allowed) -> object:
            return search_graph(cast(Graph, graph), exact, query, k, allowed, width=int(amount))

        for name in ("", "some "):
            costs[f"{name}cells {share}"] = line(scan, total / 100, total / 10, batches[name])
            if keeps[1]:
                costs[f"{name}whole {share}"] = (at_amount(scan, float(total), batches[name], _REPEATS // 2), 0.0)
            if graph is not None:
                costs[f"{name}graph {share}"] = line(walk, 16, 128, batches[name])
    return _with_wholes(costs, total)


def _laying(cells: Cells, filters: list[Allowed | None]) -> tuple[float, float]:
    """What it takes to lay out the rows of the narrowest filter and of the widest, as a line in rows."""
    some = [allowed for allowed in filters if allowed is not None]
    times = [timed(lambda _, of=of: alone(cells, of).native, _REPEATS // 2) for of in (some[-1], some[0])]  # type: ignore[misc]
    slope = max(times[1] - times[0], 0.0) / max(some[0].count - some[-1].count, 1)
    return max(times[0] - slope * some[-1].count, 0.0), slope


def _with_wholes(costs: dict[str, tuple[float, float]], total: int) -> dict[str, tuple[float, float]]:
    """Scans of all cells, where they were not measured (signs tell too little, or an earlier version did): as the line
    has it, which is too much."""
    lines = {name: line for name, line in costs.items() if "cells " in name}
    return {
        name.replace("cells", "whole"): (start + slope * total, 0.0) for name, (start, slope) in lines.items()
    } | costs


def timed(run: Callable[[int], object], times: int) -> float:
    """The lower quartile of ``times`` runs in milliseconds, after one that does not count: other programs only add."""
    run(0)
    taken = []
    for number in range(times):
        began = time.perf_counter()
        run(number)
        taken.append((time.perf_counter() - began) * 1000)
    return float(np.quantile(taken, 0.25))
