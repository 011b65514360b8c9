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
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.search.calibration import FEWEST, MANY, MOST
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.approximate import Approximate
from nextvec.search.indexes.cells import look, search_cells
from nextvec.search.indexes.exact import DIRECT, SEVERAL, ExactIndex, Found, likely
from nextvec.search.indexes.graph import search_graph
from nextvec.search.indexes.threads import parts_of, spread, workers

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

AMPLE = 4  # matches in the neighbourhood per hit asked for; where there are fewer, the exact index answers
WIDEST = 2_048  # of a walk through the graph
_STEP = 4  # of widths
_CHECKS = 0.05  # of the time of searches may go into checking some of them
_WAYS = 1_024  # weighings kept
# Checked answers before a correction: of 32 with a recall of 0.965 one mean in seven is under 0.95. Less,
_ENOUGH = 128
_SOME = 8  # where they are surely short of the target
_AMPLE_FROM = 32  # where they are surely above it
_LEAST, _MOST = 0.5, 64.0  # of the corrections


@dataclass(frozen=True, slots=True)
class Way:
    """One way to answer a query. amount: rows to see (cells) or width (graph); keep: rows that cells choose by their
    signs; cost: predicted milliseconds."""

    name: str
    amount: float
    cost: float
    keep: int = 0


@dataclass
class Watch:
    """Recall that was really reached, by target and way, and how much further to look because of it (1: as measured
    by the calibration)."""

    boost: dict[tuple[float, str], float] = field(default_factory=dict)
    _recent: dict[tuple[float, str], list[float]] = field(default_factory=dict)
    _total: dict[tuple[float, str], tuple[int, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _queries: deque[Float32] = field(default_factory=lambda: deque(maxlen=MOST))

    def saw(self, query: Float32) -> None:
        """Remember the query [1, D] of a checked answer."""
        self._queries.append(query)

    def queries(self) -> Float32 | None:
        """The queries of the last answers that were checked, [n, D]; None where they are too few to calibrate with."""
        kept = list(self._queries)
        return np.concatenate(kept) if len(kept) >= FEWEST else None

    def forget(self) -> None:
        """Begin anew: what was measured before no longer holds. Queries stay."""
        with self._lock:
            for part in (self.boost, self._recent, self._total):
                part.clear()

    def note(self, target: float, way: str, recall: float) -> None:
        """One checked answer. Looks further at once where recall is short; less far only where it is surely above."""
        key = target, way
        with self._lock:
            count, summed = self._total.get(key, (0, 0.0))
            self._total[key] = (count + 1, summed + recall)
            recent = self._recent.setdefault(key, [])
            recent.append(recall)
            if len(recent) < _SOME:
                return
            mean, error = float(np.mean(recent)), float(np.std(recent)) / math.sqrt(len(recent))
            now = self.boost.get(key, 1.0)
            if mean + 2 * error < target:
                self.boost[key] = min(now * 2, _MOST)
            elif len(recent) >= _AMPLE_FROM and mean - 2 * error > target + 0.2 * (1 - target):
                self.boost[key] = max(now * 0.9, _LEAST)
            elif len(recent) < _ENOUGH:
                return
            elif mean < target:
                self.boost[key] = min(now * 1.5, _MOST)
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
        sure = 1.0 if recall is None else likely(queries.shape[1])
        if recall is None or near is None or matches <= DIRECT or k * 4 >= matches:
            answers = self.exact.among(queries, k, allowed, sure=sure)
            if recall is None or not told:
                return answers
            return [replace(one, told={"why": self._why(matches, k)}) for one in answers]
        target = near.calibration.target(recall)
        if target is None:
            why = {"why": f"no approximate way reached a recall of {recall} when it was calibrated"}
            return [replace(one, told=why) for one in self.exact.among(queries, k, allowed)]
        began = time.perf_counter()
        together = min(len(queries), MANY)
        ways = self._ways(near, k, target, matches, matches / total, together)
        several = together >= SEVERAL
        if ways[0].name == "exact" and (several or self.exact.lists(matches, len(queries))):
            # No look at the neighbourhood: gathering a few is as fast, and many queries had better stay together.
            answers = self.exact.among(queries, k, allowed, sure=sure)
            return [replace(one, told=_told(ways)) for one in answers] if told else answers
        answer = functools.partial(self._part, near, k, target, allowed, ways, together)
        plans, found = _in_parts(answer, queries) if several else answer(queries)
        want = k if allowed is None else min(k, matches)
        # Planned so, or fewer hits than there are matches: the exact index is never wrong.
        left = [i for i, one in enumerate(found) if one is None or len(one.rows) < want]
        if left:
            for i, one in zip(left, self.exact.among(queries[left], k, allowed, sure=sure), strict=True):
                found[i] = one
        answers = [one for one in found if one is not None]
        self._searching += time.perf_counter() - began
        if self._checking <= _CHECKS * self._searching and answers[0].plan.startswith(plans[0][0].name):
            self._sample(queries[0], k, allowed, target, plans[0][0].name, answers[0])
        if not told:
            return answers
        return [replace(one, told=_told(own)) for one, own in zip(answers, plans, strict=True)]

    def _why(self, matches: int, k: int) -> str:
        if self.approximate is None:
            return "no approximate index: Collection.index() makes one"
        return f"{matches} matches for k={k}: fewer than an approximate way pays for"

    def _part(
        self,
        near: Approximate,
        k: int,
        target: float,
        allowed: Allowed | None,
        ways: list[Way],
        together: int,
        queries: Float32,
    ) -> tuple[list[list[Way]], list[Found | None]]:
        """For each query, by one thread: its ways, the cheapest first (``ways`` where there is no filter), and what
        that one found; None where it is the exact index. together: the queries of all threads, up to ``MANY``."""
        order = None
        plans = [ways] * len(queries)
        if allowed is not None or ways[0].name == "cells":
            order, shares = look(near.cells, queries, allowed)
        if allowed is not None:
            plans = [self._plan(near, allowed, k, target, together, share) for share in shares.tolist()]
        found: list[Found | None] = [None] * len(queries)
        for name in ("graph", "cells"):
            numbers = [i for i, own in enumerate(plans) if own[0].name == name]
            if not numbers:
                continue
            every = len(numbers) == len(queries)
            part = queries if every else queries[numbers]
            amounts = np.array([plans[i][0].amount for i in numbers])
            if name == "graph" and near.graph is not None:
                results = search_graph(near.graph, self.exact, part, k, allowed, width=amounts.astype(np.int64))
            elif order is not None:
                own = order if every else order[numbers]
                keep = max(plans[i][0].keep for i in numbers)
                results = search_cells(near.cells, self.exact, part, k, allowed, own, rows=amounts, keep=keep)
            for i, one in zip(numbers, results, strict=True):
                found[i] = one
        return plans, found

    def _plan(
        self, near: Approximate, allowed: Allowed, k: int, target: float, queries: int, share: float
    ) -> list[Way]:
        """The ways for a query of whose neighbours this share matches, the cheapest first."""
        if share * near.cells.near < AMPLE * k:
            return [self._exact(near, allowed.count, queries)]
        return self._ways(near, k, target, allowed.count, share, queries)

    def _exact(self, near: Approximate, matches: int, queries: int) -> Way:
        gathered = self.exact.lists(matches, queries)
        rows = matches if gathered else len(self.exact.rows)
        return Way("exact", matches, near.calibration.exact(rows, gathered, queries))

    def _ways(self, near: Approximate, k: int, target: float, matches: int, share: float, queries: int) -> list[Way]:
        """The ways where ``share`` of the rows near the query match, the cheapest first."""
        further = {way: self.watch.boost.get((target, way), 1.0) for way in ("cells", "graph")}
        share = float(f"{share:.2g}")
        key = (k, target, matches, share, queries, *further.values())
        if key not in self._ways_kept:
            if len(self._ways_kept) >= _WAYS:
                self._ways_kept.clear()
            self._ways_kept[key] = self._weighed(near, k, target, matches, share, queries, further)
        return self._ways_kept[key]

    def _weighed(
        self,
        near: Approximate,
        k: int,
        target: float,
        matches: int,
        share: float,
        queries: int,
        further: dict[str, float],
    ) -> list[Way]:
        cost, threads = near.calibration, min(workers(), queries) if queries >= SEVERAL else 1
        total = len(self.exact.rows)
        rows = min(cost.rows_needed(target, k, share) * further["cells"] / share, total)
        # No more than there are to choose from: k and the correction have no such bound, and the kernel makes room.
        keep = math.ceil(min(cost.keep(target, k) * max(further["cells"], 1.0), rows))
        ways = [
            self._exact(near, matches, queries),
            Way("cells", rows, cost.at_share("cells", share, rows, queries) / threads, keep),
        ]
        width = cost.width(target, share)
        if width is not None and near.graph is not None:
            wide = max(width * further["graph"] * max(1.0, k / 10), k)
            if wide <= WIDEST:
                # In steps, so that the queries of a batch share them.
                wide = _STEP * math.ceil(wide / _STEP)
                ways.append(Way("graph", wide, cost.at_share("graph", share, wide, queries) / threads))
        return sorted(ways, key=lambda way: way.cost)

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
            self.watch.saw(query)
            best = self.exact.among(query, k, allowed)[0]
            # By score, so that rows that tie with the last hit count as found.
            self.watch.note(target, way, float(np.mean(found.scores >= best.scores[-1])))
        finally:
            self._checking = spent + time.perf_counter() - began


def _told(ways: list[Way]) -> dict[str, Any]:
    """For ``explain``."""
    return {
        "considered": {way.name: round(way.cost, 4) for way in ways},
        "predicted_ms": round(ways[0].cost, 4),
    }


def _in_parts(
    answer: Callable[[Float32], tuple[list[list[Way]], list[Found | None]]], queries: Float32
) -> tuple[list[list[Way]], list[Found | None]]:
    """``answer`` of all queries, by as many threads as there are."""
    parts = parts_of(len(queries))
    done = dict(spread(lambda i: (i, answer(queries[parts[i]])), range(len(parts))))
    plans, found = zip(*(done[i] for i in range(len(parts))), strict=True)
    return [own for part in plans for own in part], [own for part in found for own in part]


@functools.cache
def _checker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="nextvec-recall")
