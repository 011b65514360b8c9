"""Which way to answer a search: the exact index, cells or the graph, for the recall that was asked for.

Calibration, once per collection and machine, measures on queries of the collection's own kind
- how many matching rows the cells must give for a recall, by the share of rows that match (``Calibration.rows``),
- how wide the walk through the graph must be (``Calibration.widths``),
- what each way takes, as a line in rows or width (``Calibration.costs``).
For a query the share that counts is the one in its neighbourhood, not the one in all rows. Where the neighbourhood
holds hardly more matches than were asked for, the best ones lie outside, nothing tells how far to look, and all cells
are scanned by their signs, or the exact index answers.
A sample of the answers is checked against the exact index in the background; where recall falls short, the next
searches look further (``Watch``).

Shapes: N rows, M rows allowed by the filter, Q queries, D dimensions.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from nextvec.search.calibration import MANY
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.approximate import Approximate
from nextvec.search.indexes.cells import Cells, look, search_cells
from nextvec.search.indexes.exact import DIRECT, SEVERAL, ExactIndex, Found
from nextvec.search.indexes.graph import search_graph
from nextvec.search.indexes.signs import BLOCK
from nextvec.search.indexes.threads import parts_of, spread, workers
from nextvec.search.repeated import Repeated
from nextvec.search.watch import Watch

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Result = TypeVar("Result")

AMPLE = 4  # matches in the neighbourhood per hit asked for; where there are fewer, it tells nothing
WIDEST = 2_048  # of a walk through the graph
_STEP = 4  # of widths
_CHECKS = 0.05  # of the time of searches may go into checking some of them
_WAYS = 1_024  # weighings kept
_ROUGH = 0.1  # shares above it are rounded to a hundredth
_SURELY = (
    2.0  # what a batch must save for each millisecond that it takes to lay its filter's rows out: both are guesses
)
_SLOWLY = 0.7  # of what signs keep, the least that a correction leaves


@dataclass(frozen=True, slots=True)
class Way:
    """One way to answer a query. amount: rows to see (cells; infinite: all) or width (graph); keep: rows that cells
    choose by their signs; cost: predicted milliseconds."""

    name: str
    amount: float
    cost: float
    keep: int = 0

    @property
    def watched(self) -> str:
        """Under what name its recall is watched: scans of all cells lose nothing by where they look."""
        return "all cells" if self.name == "cells" and math.isinf(self.amount) else self.name


@dataclass(slots=True)  # not frozen: every search makes one
class _Asked:
    """What all queries of a search have in common. own: the filter's rows on their own, where they are laid out;
    together: the queries of all threads, up to ``MANY``."""

    near: Approximate
    k: int
    target: float
    allowed: Allowed | None
    own: Cells | None
    matches: int
    together: int


class Planner:
    """Answers searches over one exact index and what was built beside it. Safe to share between threads."""

    def __init__(self, exact: ExactIndex, approximate: Approximate | None, watch: Watch | None = None) -> None:
        self.exact = exact
        self.approximate = approximate
        self.watch = watch or Watch()
        self._lock = threading.Lock()
        self._ways_kept: dict[tuple[Any, ...], list[Way]] = {}
        self._targets: dict[float, float | None] = {}
        self._repeated = Repeated(None if approximate is None else approximate.cells)
        self._searching, self._checking = 0.0, 0.0  # seconds

    def search(
        self, queries: Float32, k: int, allowed: Allowed | None, recall: float | None, *, told: bool = True
    ) -> list[Found]:
        """For each of float32 [Q, D] the best rows found. recall None: the best there are. told: say what was
        considered."""
        near, total = self.approximate, len(self.exact.rows)
        matches = total if allowed is None else allowed.count
        sure = 1.0 if recall is None else self.exact.likely
        if recall is None or near is None or matches <= DIRECT or k * 4 >= matches:
            answers = self.exact.among(queries, k, allowed, sure=sure)
            if recall is None or not told:
                return answers
            return [replace(one, told={"why": self._why(matches, k)}) for one in answers]
        target = self._target(near, recall)
        if target is None:
            why = {"why": f"no approximate way reached a recall of {recall} when it was calibrated"}
            return [replace(one, told=why) for one in self.exact.among(queries, k, allowed)]
        began = time.perf_counter()
        own = None if allowed is None else self._repeated.own(allowed)
        asked = _Asked(near, k, target, allowed, own, matches, min(len(queries), MANY))
        ways = self._ways(asked, matches / total, alone=own is not None)
        plans = [ways] * len(queries)
        # No look at the neighbourhood: gathering a few is as fast, and many queries had better stay together.
        blind = ways[0].name == "exact" and (len(queries) >= SEVERAL or self.exact.lists(matches, len(queries)))
        if blind:
            answers = self.exact.among(queries, k, allowed, sure=sure)
            if allowed is not None and own is None and self.exact.native is not None:
                faster = self._ways(asked, matches / total, alone=True)
                self._lost(asked, len(queries) * (ways[0].cost - faster[0].cost))
        else:
            plans, found = self._tried(asked, ways, queries)
            want = k if allowed is None else min(k, matches)
            # Planned so, or fewer hits than there are matches: the exact index is never wrong.
            left = [i for i, one in enumerate(found) if one is None or len(one.rows) < want]
            if left:
                for i, one in zip(left, self.exact.among(queries[left], k, allowed, sure=sure), strict=True):
                    found[i] = one
            answers = cast(list[Found], found)
            self._searching += time.perf_counter() - began
            if self._checking <= _CHECKS * self._searching and answers[0].plan.startswith(plans[0][0].name):
                self._sample(queries[0], asked, plans[0][0].watched, answers[0])
        return [replace(one, told=_told(own)) for one, own in zip(answers, plans, strict=True)] if told else answers

    def _target(self, near: Approximate, recall: float) -> float | None:
        """The calibration's target for this recall."""
        if recall not in self._targets:
            if len(self._targets) >= _WAYS:
                self._targets.clear()
            self._targets[recall] = near.calibration.target(recall)
        return self._targets[recall]

    def told(self) -> dict[str, Any]:
        """For ``info``: of the filters that are asked for again and again, and the recall that was measured."""
        return {"repeated_filters": self._repeated.told(), "recall": self.watch.told()}

    def _why(self, matches: int, k: int) -> str:
        if self.approximate is None:
            return "no approximate index: Collection.index() makes one"
        return f"{matches} matches for k={k}: fewer than an approximate way pays for"

    def _tried(self, asked: _Asked, ways: list[Way], queries: Float32) -> tuple[list[list[Way]], list[Found | None]]:
        """For each query its ways, the cheapest first (``ways`` where there is no filter), and what that one found;
        None where it is the exact index."""
        near, allowed = asked.near, asked.allowed
        parts = parts_of(len(queries)) if len(queries) >= SEVERAL else [slice(0, len(queries))]
        if allowed is None:
            plans = [ways] * len(queries)
            found = _in_parts(lambda part: self._found(asked, plans[part], queries[part], None), parts)
        else:
            looked = _in_parts(lambda part: look(near.cells, queries[part], allowed, asked.own), parts)
            order = looked[0][0] if len(parts) == 1 else np.concatenate([one[0] for one in looked])
            # Rounded, so that queries have weighings in common.
            shares = [round(share, 2 if share > _ROUGH else 4) for one in looked for share in one[1]]
            plans = self._plans(asked, shares, alone=asked.own is not None)
            if asked.own is None and self.exact.native is not None:
                typical = shares[:1] if len(shares) == 1 else [round(sum(shares) / len(shares), 2)]
                slower, faster = (self._plans(asked, typical, alone=alone)[0][0] for alone in (False, True))
                self._lost(asked, len(queries) * (slower.cost - faster.cost))
            found = _in_parts(lambda part: self._found(asked, plans[part], queries[part], order[part]), parts)
        return plans, found[0] if len(found) == 1 else [one for part in found for one in part]

    def _lost(self, asked: _Asked, milliseconds: float) -> None:
        """So much longer do queries take, since the rows of their filter are not laid out alone."""
        assert asked.allowed is not None
        self._repeated.lost(asked.allowed, milliseconds, asked.near.calibration.laying(asked.matches), _background())

    def _found(
        self, asked: _Asked, plans: list[list[Way]], queries: Float32, order: Int32 | None
    ) -> list[Found | None]:
        """What the first of its ways finds for each query, by one thread; None where it is the exact index."""
        first = [one[0] for one in plans]
        names = {way.name for way in first}
        found: list[Found | None] = [None] * len(queries)
        if len(names) == 1:
            return self._by(asked, first, queries, order) or found
        assert order is not None
        for name in names:
            numbers = [i for i, way in enumerate(first) if way.name == name]
            some = self._by(asked, [first[i] for i in numbers], queries[numbers], order[numbers])
            for i, one in zip(numbers, some, strict=False):  # the exact index has nothing here
                found[i] = one
        return found

    def _by(self, asked: _Asked, ways: list[Way], queries: Float32, order: Int32 | None = None) -> list[Found | None]:
        """What these ways find, which have one name, for each query; nothing where it is that of the exact index."""
        near, k, allowed = asked.near, asked.k, asked.allowed
        amounts = np.array([way.amount for way in ways])
        if ways[0].name == "cells":
            keep, own = max(way.keep for way in ways), asked.own
            lost = near.calibration.may_lose(asked.target)
            return [
                *search_cells(
                    near.cells, self.exact, queries, k, allowed, order, rows=amounts, keep=keep, may_lose=lost, own=own
                )
            ]
        if ways[0].name == "graph" and near.graph is not None:
            return [*search_graph(near.graph, self.exact, queries, k, allowed, width=amounts.astype(np.int64))]
        return []

    def _plans(self, asked: _Asked, shares: list[float], *, alone: bool) -> list[list[Way]]:
        """For each query the ways where this share of its neighbours matches, the cheapest first."""
        known: dict[float, list[Way]] = {}
        for share in shares:
            if share not in known:
                tells = share * asked.near.cells.near >= AMPLE * asked.k
                known[share] = self._ways(asked, share if tells else 0.0, alone=alone)
        return [known[share] for share in shares]

    def _exact(self, asked: _Asked) -> Way:
        gathered = self.exact.lists(asked.matches, asked.together)
        rows = asked.matches if gathered else len(self.exact.rows)
        return Way("exact", asked.matches, asked.near.calibration.exact(rows, gathered, asked.together))

    def _ways(self, asked: _Asked, share: float, *, alone: bool) -> list[Way]:
        """The ways where ``share`` of the rows near the query match, the cheapest first. alone: the cells hold no other
        rows."""
        key = (asked.k, asked.target, asked.matches, share, asked.together, alone, self.watch.changes)
        ways = self._ways_kept.get(key)
        if ways is None:
            if len(self._ways_kept) >= _WAYS:
                self._ways_kept.clear()
            ways = self._ways_kept[key] = self._weighed(asked, share, alone)
        return ways

    def _weighed(self, asked: _Asked, share: float, alone: bool) -> list[Way]:
        near, k, target, matches, queries = asked.near, asked.k, asked.target, asked.matches, asked.together
        further = {way: self.watch.boost.get((target, way), 1.0) for way in ("cells", "all cells", "graph")}
        cost, threads = near.calibration, min(workers(), queries) if queries >= SEVERAL else 1
        total = len(self.exact.rows)
        needed = cost.rows_needed(target, k, share) * further["cells"] if share else math.inf
        every = matches if alone else total
        rows = needed if alone or not share else needed / share
        whole = rows >= every
        if alone:
            # As if all rows matched; but cells of few rows are read in blocks that hold others' rows too.
            read = min(rows, every) * _read(every / len(near.cells.means)) / _read(total / len(near.cells.means))
            scanning = cost.scanning(1.0, read, queries)
        else:
            scanning = cost.scanning(matches / total if whole else share, min(rows, every), queries)
        # No more than there are to choose from: k and the correction have no such bound, and the kernel makes room.
        more = max(further["all cells" if whole else "cells"], _SLOWLY)
        keep = math.ceil(min(cost.keep(target, k, whole=whole) * more, rows, every))
        ways = [self._exact(asked)]
        if keep or not whole:  # without signs a scan of all cells is a slower exact one
            ways.append(Way("cells", math.inf if whole else rows, scanning / threads, keep))
        width = cost.width(target, share)
        if width is not None and near.graph is not None:
            wide = max(width * further["graph"] * max(1.0, k / 10), k)
            if wide <= WIDEST:
                # In steps, so that the queries of a batch share them.
                wide = _STEP * math.ceil(wide / _STEP)
                ways.append(Way("graph", wide, cost.at_share("graph", share, wide, queries) / threads))
        return sorted(ways, key=lambda way: way.cost)

    def _sample(self, query: Float32, asked: _Asked, way: str, found: Found) -> None:
        """Have one answer checked in the background. Until it is, no other one is handed in."""
        with self._lock:
            if self._checking == np.inf:
                return
            spent, self._checking = self._checking, np.inf
        _background().submit(self._check, query[None].copy(), asked, way, found, spent)

    def _check(self, query: Float32, asked: _Asked, way: str, found: Found, spent: float) -> None:
        began = time.perf_counter()
        try:
            self.watch.saw(query)
            best = self.exact.among(query, asked.k, asked.allowed)[0]
            # By score, so that rows that tie with the last hit count as found.
            self.watch.note(asked.target, way, float(np.mean(found.scores >= best.scores[-1])))
        finally:
            self._checking = spent + time.perf_counter() - began


def _read(rows: float) -> float:
    """Rows that are read for each row of a cell of so many: it begins and ends within blocks of 32."""
    return (rows + BLOCK - 1) / rows


def _told(ways: list[Way]) -> dict[str, Any]:
    """For ``explain``."""
    return {
        "considered": {way.name: round(way.cost, 4) for way in ways},
        "predicted_ms": round(ways[0].cost, 4),
    }


def _in_parts(task: Callable[[slice], Result], parts: list[slice]) -> list[Result]:
    """``task`` of each part of the queries, by as many threads."""
    if len(parts) == 1:
        return [task(parts[0])]
    done = dict(spread(lambda i: (i, task(parts[i])), range(len(parts))))
    return [done[i] for i in range(len(parts))]


@functools.cache
def _background() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="nextvec-background")
