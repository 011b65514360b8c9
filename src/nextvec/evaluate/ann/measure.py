"""One engine, measured: recall against the exact answers, queries per second one by one and in batches.

A point's calls go through the filters of its cell in turn, each with another query, for a given time. Before that every
case is asked once, which gives the recall and warms the caches. Legend: k hits asked for, C cases.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.evaluate.ann.engines._engine import Engine, Setting, Unsupported
from nextvec.evaluate.ann.workload import Cell, Workload, matching
from nextvec.types import Progress

__all__ = ["Judge", "Memory", "measure"]

_ENOUGH = 0.999  # of recall: what is slower still need not be measured
_LEAST_CALLS = 3
_TIE = 1e-6  # scores that differ by less are equal to an engine that computes in float32


class Judge:
    """Compares answers with the truth. Rows are read from the file one by one, so that judging takes no memory that
    would be counted as the engine's."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        self._workload = workload
        self._stream = (folder / "vectors.npy").open("rb")
        np.lib.format.read_magic(self._stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(self._stream)
        self._start, self._rows, self._dim, self._dtype = self._stream.tell(), shape[0], shape[1], dtype
        self._allowed: dict[str | None, NDArray[np.bool_]] = {}

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def judge(self, number: int, case: int, query: int, found: NDArray[np.int64]) -> tuple[float, float, int]:
        """(recall, share of the min(k, matches) hits that came, wrong hits) of one answer in group ``number``.

        A hit counts if its float64 score is at least that of the last true one (up to 1e-6: ties and rounding). Wrong
        are rows that do not match, do not exist, come twice, or are more than k.
        """
        work = self._workload
        text = work.groups[number].where
        if text not in self._allowed:
            self._allowed[text] = matching(work.attributes, work.schema, text)
        truth = work.truth[case][work.truth[case] >= 0]
        there = found[(found >= 0) & (found < self._rows)]
        right = np.unique(there[self._allowed[text][there]])
        wrong = len(found) - len(right) + max(len(right) - work.k, 0)
        if not len(truth):
            return 1.0, 1.0, wrong
        wide = work.queries[query].astype(np.float64)
        floor = float(self._score(int(truth[-1]), wide)) - _TIE
        hits = sum(self._score(int(row), wide) >= floor for row in right)
        return min(hits, len(truth)) / len(truth), min(len(right), len(truth)) / len(truth), wrong

    def _score(self, row: int, query: NDArray[np.float64]) -> float:
        self._stream.seek(self._start + row * self._dim * self._dtype.itemsize)
        raw = self._stream.read(self._dim * self._dtype.itemsize)
        return float(np.frombuffer(raw, self._dtype).astype(np.float64) @ query)


class Memory:
    """The resident memory of this process in bytes: now, and its peak since ``restart`` (Linux; elsewhere its peak)."""

    @staticmethod
    def restart() -> None:
        """Count the peak from now on, where the system can."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    @staticmethod
    def now() -> int:
        """Resident now."""
        return Memory._of("VmRSS")

    @staticmethod
    def peak() -> int:
        """The most since ``restart``."""
        return Memory._of("VmHWM")

    @staticmethod
    def _of(field: str) -> int:
        try:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
        except (OSError, StopIteration, ValueError):
            unit = 1 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(
    engine: Engine,
    workload: Workload,
    judge: Judge,
    *,
    seconds: float,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """All points of an opened engine: one mapping per cell and setting, as ``_point`` makes them.

    A sweep ends where the recall of a cell has reached 0.999. A filter that the engine cannot express gives one
    mapping with "unsupported".
    """
    cells = workload.cells()
    points: list[dict[str, Any]] = []
    for done, cell in enumerate(cells, 1):
        numbers = [i for i, group in enumerate(workload.groups) if group.cell == cell]
        finished: set[str] = set()
        for setting in engine.settings(workload.k):
            if setting.series in finished or (setting.ready and cell.kind == "none"):
                continue  # without a filter there is nothing to have ready
            try:
                point = _point(engine, workload, judge, cell, numbers, setting, seconds)
            except Unsupported as error:
                point = {**_named(cell, setting), "unsupported": str(error)}
            points.append(point)
            if "unsupported" in point or point["recall"] >= _ENOUGH:
                finished.add(setting.series)
        if progress:
            progress(done, len(cells))
    return points


def _named(cell: Cell, setting: Setting) -> dict[str, Any]:
    return {
        "kind": cell.kind,
        "bucket": cell.bucket,
        "correlation": cell.correlation,
        "series": setting.series,
        "setting": str(setting),
        "ready": setting.ready,
    }


def _point(
    engine: Engine,
    workload: Workload,
    judge: Judge,
    cell: Cell,
    numbers: Sequence[int],
    setting: Setting,
    seconds: float,
) -> dict[str, Any]:
    """recall and fill: means over the judged cases; wrong: their wrong hits; single and batch: see ``_rates``."""
    prepared = {number: engine.prepare(workload.groups[number].where, setting) for number in numbers}
    cases = list(_in_turn(workload, numbers))
    judged = []
    began = time.perf_counter()
    for number, case, query in cases:
        found = engine.search(workload.queries[query : query + 1], workload.k, prepared[number], setting)[0]
        judged.append(judge.judge(number, case, query, np.array(found, np.int64)))
        # A slow engine is judged on a part of the cases, at least on one of each filter.
        if len(judged) >= len(numbers) and time.perf_counter() - began > 2 * seconds:
            break
    recall, fill, wrong = (np.array(column, np.float64) for column in zip(*judged, strict=True))

    def one(i: int) -> int:
        number, _, query = cases[i % len(cases)]
        engine.search(workload.queries[query : query + 1], workload.k, prepared[number], setting)
        return 1

    blocks = {number: workload.queries[list(workload.groups[number].queries)] for number in numbers}

    def many(i: int) -> int:
        number = numbers[i % len(numbers)]
        engine.search(blocks[number], workload.k, prepared[number], setting)
        return len(blocks[number])

    several = engine.batch and min(map(len, blocks.values())) > 1
    return {
        **_named(cell, setting),
        "recall": float(recall.mean()),
        "least_recall": float(recall.min()),
        "fill": float(fill.mean()),
        "wrong": int(wrong.sum()),
        "judged": len(judged),
        "single": _rates(one, seconds),
        "batch": _rates(many, seconds) if several else None,
    }


def _in_turn(workload: Workload, numbers: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(group, case, query), the groups in turn."""
    longest = max(len(workload.groups[number].queries) for number in numbers)
    spans = {number: workload.cases(number) for number in numbers}
    for i in range(longest):
        for number in numbers:
            if i < len(spans[number]):
                yield number, spans[number][i], workload.groups[number].queries[i]


def _rates(call: Callable[[int], int], seconds: float) -> dict[str, float]:
    """Queries per second, the median and 99th percentile of milliseconds per call, and the milliseconds of processor
    time per query in this process, all threads together. ``call(i)`` gives how many queries it answered."""
    times: list[float] = []
    queries = 0
    began, processor = time.perf_counter(), time.process_time()
    while len(times) < _LEAST_CALLS or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        queries += call(len(times))
        times.append(time.perf_counter() - start)
    processor = time.process_time() - processor
    return {
        "qps": queries / sum(times),
        "median_ms": float(np.median(times)) * 1000,
        "p99_ms": float(np.percentile(times, 99)) * 1000,
        "cpu_ms": processor * 1000 / queries,
        "calls": len(times),
    }
