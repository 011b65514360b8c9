"""Which way to answer a search: the exact index, cells or the graph, for the recall that was asked for.

Calibration, once per collection and machine, measures on queries of the collection's own kind
- how many matching rows the cells must give for a recall, by the share of rows that match (``Calibration.rows``),
- how wide the walk through the graph must be (``Calibration.widths``),
- what each way takes, as a line in rows or width (``Calibration.costs``).
For a query the share that counts is the one in its neighbourhood, not the one in all rows. Where the neighbourhood
holds hardly more matches than were asked for, the best ones lie outside, approximate ways are neither good nor fast,
and the exact index answers.
A sample of the answers is checked against the exact index in the background; where recall falls short, the next
searches look further (``Watch``).

Shapes: N rows, M rows allowed by the filter, Q queries, D dimensions.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.approximate import Approximate
from nextvec.search.indexes.cells import nearest, search_cells, share_near
from nextvec.search.indexes.exact import DIRECT, GATHER_SHARE, ExactIndex, Found, spread, workers
from nextvec.search.indexes.graph import search_graph

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Item = TypeVar("Item")
Result = TypeVar("Result")

AMPLE = 4  # matches in the neighbourhood per hit asked for; where there are fewer, the exact index answers
WIDEST = 2_048  # of a walk through the graph
_STEP = 4  # of widths
_BATCH = 8  # queries from which the exact index scans them together and the others share the threads
_CHECKS = 0.05  # of the time of searches may go into checking some of them
_WAYS = 1_024  # weighings kept
_ENOUGH = 32  # checked answers before a correction
_LEAST, _MOST = 0.5, 64.0  # of the corrections


@dataclass(frozen=True, slots=True)
class Way:
    """One way to answer a query. amount: rows to see (cells) or width (graph); cost: predicted milliseconds."""

    name: str
    amount: float
    cost: float


@dataclass
class Watch:
    """Recall that was really reached, by target and way, and how much further to look because of it (1: as measured
    by the calibration)."""

    boost: dict[tuple[float, str], float] = field(default_factory=dict)
    _recent: dict[tuple[float, str], list[float]] = field(default_factory=dict)
    _total: dict[tuple[float, str], tuple[int, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, target: float, way: str, recall: float) -> None:
        """One checked answer. Looks further at once where recall is short; less far only where it is surely above."""
        key = target, way
        with self._lock:
            count, summed = self._total.get(key, (0, 0.0))
            self._total[key] = (count + 1, summed + recall)
            recent = self._recent.setdefault(key, [])
            recent.append(recall)
            if len(recent) < _ENOUGH:
                return
            mean, error = float(np.mean(recent)), float(np.std(recent)) / math.sqrt(len(recent))
            now = self.boost.get(key, 1.0)
            if mean < target:
                self.boost[key] = min(now * 1.5, _MOST)
            elif mean - 2 * error > target + 0.2 * (1 - target):
                self.boost[key] = max(now * 0.9, _LEAST)
            recent.clear()

    def told(self) -> dict[str, dict[str, dict[str, float]]]:
        """For ``info``: target, then way, to answers checked, their mean recall, and the factor."""
        told: dict[str, dict[str, dict[str, float]]] = {}
        with self._lock:
            for (target, way), (count, summed) in sorted(self._total.items()):
                boost = round(self.boost.get((target, way), 1.0), 3)
                told.setdefault(str(target), {})[way] = {
                    "checked": count,
                    "recall": round(summed / count, 4),
                    "looks_further": boost,
                }
        return told


class Planner:
    """Answers searches over one exact index and what was built beside it. Safe to share between threads."""

    def __init__(self, exact: ExactIndex, approximate: Approximate | None, watch: Watch | None = None) -> None:
        self.exact = exact
        self.approximate = approximate
        self.watch = watch or Watch()
        self._lock = threading.Lock()
        self._ways_kept: dict[tuple[Any, ...], list[Way]] = {}
        self._searching, self._checking = 0.0, 0.0  # seconds

    def search(
        self, queries: Float32, k: int, allowed: Allowed | None, recall: float | None, *, told: bool = True
    ) -> list[Found]:
        """For each of float32 [Q, D] the best rows found. recall None: the best there are. told: say what was
        considered."""
        near, total = self.approximate, len(self.exact.rows)
        matches = total if allowed is None else allowed.count
        if recall is None or near is None or matches <= DIRECT or k * 4 >= matches:
            found = self.exact.among(queries, k, allowed)
            if recall is None or not told:
                return found
            return [replace(one, told={"why": self._why(matches, k)}) for one in found]
        target = near.calibration.target(recall)
        if target is None:
            why = {"why": f"no approximate way reached a recall of {recall} when it was calibrated"}
            return [replace(one, told=why) for one in self.exact.among(queries, k, allowed)]
        began, alone = time.perf_counter(), len(queries) < _BATCH
        ways = self._ways(near, k, target, matches, matches / total, alone)
        if ways[0].name == "exact" and matches < GATHER_SHARE * total:
            # Not worth a look at the neighbourhood, where they are few: gathering them is as fast.
            found = self.exact.among(queries, k, allowed)
            return [replace(one, told=_told(ways)) for one in found] if told else found
        plans = [(ways, None)] * len(queries)  # type: list[tuple[list[Way], Int64 | None]]
        if allowed is not None:
            plan = functools.partial(self._plan, near, allowed, k, target, alone)
            plans = _each(plan, list(queries), alone)
        found = self._run(near, queries, k, allowed, plans, alone)
        self._searching += time.perf_counter() - began
        if self._checking <= _CHECKS * self._searching and found[0].plan.startswith(plans[0][0][0].name):
            self._sample(queries[0], k, allowed, target, plans[0][0][0].name, found[0])
        if not told:
            return found
        return [replace(one, told=_told(ways)) for one, (ways, _) in zip(found, plans, strict=True)]

    def _why(self, matches: int, k: int) -> str:
        if self.approximate is None:
            return "no approximate index: Collection.index() makes one"
        return f"{matches} matches for k={k}: fewer than an approximate way pays for"

    def _plan(
        self, near: Approximate, allowed: Allowed, k: int, target: float, alone: bool, query: Float32
    ) -> tuple[list[Way], Int64 | None]:
        """The ways for one query, the cheapest first, and the order of the cells."""
        order = nearest(near.cells, query)
        local = share_near(near.cells, order, allowed)
        if local * near.cells.near < AMPLE * k:
            cost = near.calibration.exact(allowed.count, len(self.exact.rows), alone)
            return [Way("exact", allowed.count, cost)], order
        return self._ways(near, k, target, allowed.count, local, alone), order

    def _ways(self, near: Approximate, k: int, target: float, matches: int, share: float, alone: bool) -> list[Way]:
        """The ways where ``share`` of the rows near the query match, the cheapest first."""
        further = {way: self.watch.boost.get((target, way), 1.0) for way in ("cells", "graph")}
        share = float(f"{share:.2g}")
        key = (k, target, matches, share, alone, *further.values())
        if key not in self._ways_kept:
            if len(self._ways_kept) >= _WAYS:
                self._ways_kept.clear()
            self._ways_kept[key] = self._weighed(near, k, target, matches, share, alone, further)
        return self._ways_kept[key]

    def _weighed(
        self,
        near: Approximate,
        k: int,
        target: float,
        matches: int,
        share: float,
        alone: bool,
        further: dict[str, float],
    ) -> list[Way]:
        cost, threads = near.calibration, 1 if alone else workers()
        rows = cost.rows_needed(target, k, share) * further["cells"]
        ways = [
            Way("exact", matches, cost.exact(matches, len(self.exact.rows), alone)),
            Way("cells", rows, cost.at_share("cells", share, min(rows, matches)) / threads),
        ]
        width = cost.width(target, share)
        if width is not None and near.graph is not None:
            wide = max(width * further["graph"] * max(1.0, k / 10), k)
            if wide <= WIDEST:
                # In steps, so that the queries of a batch share them.
                wide = _STEP * math.ceil(wide / _STEP)
                ways.append(Way("graph", wide, cost.at_share("graph", share, wide) / threads))
        return sorted(ways, key=lambda way: way.cost)

    def _run(
        self,
        near: Approximate,
        queries: Float32,
        k: int,
        allowed: Allowed | None,
        plans: list[tuple[list[Way], Int64 | None]],
        alone: bool,
    ) -> list[Found]:
        want = k if allowed is None else min(k, allowed.count)
        answers: dict[int, Found] = {}

        def answer(numbers: list[int]) -> list[tuple[int, Found]]:
            (way, *_), order = plans[numbers[0]]
            part = queries if len(numbers) == len(queries) else queries[numbers]
            if way.name == "graph" and near.graph is not None:
                found = search_graph(near.graph, self.exact, part, k, allowed, width=int(way.amount))
            else:
                order = nearest(near.cells, part[0]) if order is None else order
                found = [search_cells(near.cells, self.exact, part[0], k, allowed, order, rows=way.amount)]
            return list(zip(numbers, found, strict=True))

        for done in _each(answer, _tasks([ways[0] for ways, _ in plans], alone), alone):
            answers.update((number, found) for number, found in done if len(found.rows) >= want)
        left = [number for number in range(len(queries)) if number not in answers]
        if left:
            # Planned so, or fewer hits than there are matches: the exact index is never wrong.
            answers.update(zip(left, self.exact.among(queries[left], k, allowed), strict=True))
        return [answers[number] for number in range(len(queries))]

    def _sample(self, query: Float32, k: int, allowed: Allowed | None, target: float, way: str, found: Found) -> None:
        """Have one answer checked in the background. Until it is, no other one is handed in."""
        with self._lock:
            if self._checking == np.inf:
                return
            spent, self._checking = self._checking, np.inf
        _checker().submit(self._check, query[None].copy(), k, allowed, target, way, found, spent)

    def _check(
        self, query: Float32, k: int, allowed: Allowed | None, target: float, way: str, found: Found, spent: float
    ) -> None:
        began = time.perf_counter()
        try:
            best = self.exact.among(query, k, allowed)[0]
            # By score, so that rows that tie with the last hit count as found.
            self.watch.note(target, way, float(np.mean(found.scores >= best.scores[-1])))
        finally:
            self._checking = spent + time.perf_counter() - began


def _tasks(ways: list[Way], alone: bool) -> list[list[int]]:
    """Numbers of the queries that one call answers: one for cells, those of one width for the graph, in as many parts
    as there are threads. Those of the exact index are not among them."""
    if len(ways) == 1:
        return [] if ways[0].name == "exact" else [[0]]
    tasks = [[number] for number, way in enumerate(ways) if way.name == "cells"]
    walks: dict[float, list[int]] = {}
    for number, way in enumerate(ways):
        if way.name == "graph":
            walks.setdefault(way.amount, []).append(number)
    parts = 1 if alone else workers()
    for numbers in walks.values():
        tasks += [numbers[part::parts] for part in range(min(parts, len(numbers)))]
    return tasks


def _told(ways: list[Way]) -> dict[str, Any]:
    """For ``explain``."""
    return {
        "considered": {way.name: round(way.cost, 4) for way in ways},
        "predicted_ms": round(ways[0].cost, 4),
    }


def _each(task: Callable[[Item], Result], items: Sequence[Item], alone: bool) -> list[Result]:
    """``task`` of every item, in order, by all threads unless ``alone``."""
    if alone:
        return [task(item) for item in items]
    done = dict(spread(lambda place: (place, task(items[place])), range(len(items))))
    return [done[place] for place in range(len(items))]


@functools.cache
def _checker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="nextvec-recall")
