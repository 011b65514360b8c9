"""From a snapshot to its exact index: takes over, extends or remakes the derived files."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from nextvec.search.calibration import FEWEST
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.approximate import ApproximateFiles, Progress
from nextvec.search.indexes.exact import ExactIndex
from nextvec.search.indexes.rows import RowFiles, Rows, in_memory
from nextvec.search.planner import Planner
from nextvec.search.schema import Schema
from nextvec.search.snapshot import Snapshot
from nextvec.search.watch import Watch
from nextvec.types import InputError

_GARBAGE_SHARE = 0.5  # of dead rows, above which the files are made anew
_GARBAGE_ROWS = 10_000
_FILTERS = 32
_FRESH = 0.05  # seconds for which what is known of another process's index is new enough


class Placed:
    """An exact index and where a snapshot's rows lie in it (``places`` is None where they are the same)."""

    def __init__(self, index: ExactIndex, snapshot: Snapshot) -> None:
        self.index = index
        self.version = snapshot.version
        self.places: NDArray[np.int64] | None = None
        sequence = index.rows.sequence
        if not np.array_equal(sequence, snapshot.sequence):
            self.places = np.searchsorted(sequence, snapshot.sequence)
        self._moved: OrderedDict[int, tuple[Allowed, Allowed]] = OrderedDict()

    def to_index(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers of the snapshot as row numbers of the index."""
        return rows if self.places is None else self.places[rows]

    def allowed(self, allowed: Allowed | None) -> Allowed | None:
        """The rows of the snapshot that a filter takes (None: all) as rows of the index."""
        if self.places is None:
            return allowed
        if allowed is None:
            return self._everything
        kept = self._moved.get(id(allowed))
        if kept is None or kept[0] is not allowed:
            kept = (allowed, Allowed(len(self.index.rows), rows=self.places[allowed.rows]))
            self._moved[id(allowed)] = kept
            if len(self._moved) > _FILTERS:
                with contextlib.suppress(KeyError):  # another thread was as quick
                    self._moved.popitem(last=False)
        return kept[1]

    @cached_property
    def _everything(self) -> Allowed:
        assert self.places is not None
        return Allowed(len(self.index.rows), rows=self.places)

    def to_snapshot(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The way back."""
        return rows if self.places is None else np.searchsorted(self.places, rows)


class Derived:
    """Keeps the index of the last snapshot asked for. Safe to share between threads.

    ``shared``: whether the files may be changed; a handle pinned to an old version leaves them to the others.
    """

    def __init__(self, path: Path, schema: Schema, *, shared: bool) -> None:
        self._dim = schema.dim
        self._files = RowFiles(path / "derived", schema.dim)
        self._shared = shared
        self._lock = threading.Lock()
        self._last: Placed | None = None
        self._near_files = ApproximateFiles(path / "derived", schema.dim)
        self._metric = schema.metric
        self._planner: Planner | None = None
        self._stamp: tuple[int, int] | None = None
        self._look_again = 0.0  # time.monotonic()
        self.watch = Watch()

    def index(self, snapshot: Snapshot) -> Placed:
        """The exact index of ``snapshot``."""
        with self._lock:
            if self._last is None or self._last.version != snapshot.version:
                before = self._last.index if self._last else None
                rows = self._rows(snapshot, before.rows if before else None)
                index = before if before and rows is before.rows else ExactIndex(rows, before)
                self._last = Placed(index, snapshot)
            return self._last

    def planner(self, placed: Placed) -> Planner:
        """What answers searches over this index, with the approximate ways that were built for it."""
        with self._lock:
            now, planner = time.monotonic(), self._planner
            if planner is not None and planner.exact is placed.index and now < self._look_again:
                return planner
            self._look_again = now + _FRESH
            stamp = self._near_files.stamp()
            if planner is None or planner.exact is not placed.index or stamp != self._stamp:
                known = planner.approximate if planner else None
                near = None if stamp is None else self._near_files.open(placed.index.rows, known)
                planner = Planner(placed.index, near, self.watch)
                self._planner, self._stamp = planner, stamp
            return planner

    def build(
        self, snapshot: Snapshot, *, graph: bool, queries: NDArray[np.float32] | None, progress: Progress | None
    ) -> None:
        """Cells and graph over the rows of the snapshot's exact index; see ``ApproximateFiles.build``."""
        index = self.index(snapshot).index
        self._near_files.build(index, metric=self._metric, graph=graph, queries=queries, progress=progress)
        self._renewed()

    def calibrate(self, snapshot: Snapshot, queries: NDArray[np.float32] | None) -> None:
        """See ``ApproximateFiles.calibrate``; without queries, on those whose answers were checked. InputError where
        these are too few."""
        queries = self.watch.queries() if queries is None else queries
        if queries is None:
            raise InputError(
                f"fewer than {FEWEST} approximate searches of this process were checked: pass queries, or search more"
            )
        self._near_files.calibrate(self.index(snapshot).index, queries)
        self._renewed()

    def _renewed(self) -> None:
        self._look_again = 0.0
        self.watch.forget()

    def told(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """For ``info``: rows in the approximate index, its calibration and the recall measured; None without one."""
        if snapshot.rows == 0:
            return None
        planner = self.planner(self.index(snapshot))
        near = planner.approximate
        if near is None:
            return None
        return {
            "rows": len(near.cells),
            "rows_added_since": len(planner.exact.rows) - len(near.cells),
            "cells": len(near.cells.means),
            "graph": near.graph is not None,
            "calibrated_on": near.calibration.queries,
            "widths": {str(target): widths[0] for target, widths in near.calibration.widths.items()},
            **planner.told(),
        }

    def remake(self, snapshot: Snapshot) -> Placed:
        """Do without the present files, for they are damaged: make new ones from the table."""
        with self._lock:
            self._last = Placed(ExactIndex(self._rows(snapshot, None, damaged=True)), snapshot)
            return self._last

    def _rows(self, snapshot: Snapshot, known: Rows | None, *, damaged: bool = False) -> Rows:
        """Rows that hold the snapshot's: ``known`` ones if they do, else what the files hold or can be made to."""
        if known is not None and self._serves(known, snapshot):
            return known
        present = None if damaged else self._files.open(known)
        if present is not None and present is not known and self._serves(present, snapshot):
            return present
        if self._shared:
            # A read-only or full disk, or a lock that never comes free, keeps nobody from searching.
            with contextlib.suppress(OSError, Timeout), self._files.writing():
                rows = self._extended(snapshot, None if damaged else self._files.open(present))
                if rows is not None:
                    return rows
        return in_memory(snapshot.vectors_after(-1), self._dim)

    def _extended(self, snapshot: Snapshot, present: Rows | None) -> Rows | None:
        """The files with the snapshot's rows in them; None where it is older than rows they have left behind."""
        if present is None or wasteful(present, snapshot):
            return self._files.append(None, snapshot.vectors_after(-1))
        missing = missing_from(present, snapshot)
        if len(missing) == 0:
            return present
        last = int(present.sequence[-1]) if len(present) else -1
        return self._files.append(present, snapshot.vectors_after(last)) if missing[0] > last else None

    def _serves(self, rows: Rows, snapshot: Snapshot) -> bool:
        return not (self._shared and wasteful(rows, snapshot)) and len(missing_from(rows, snapshot)) == 0


def missing_from(rows: Rows, snapshot: Snapshot) -> NDArray[np.int64]:
    """The snapshot's sequence numbers that the rows lack, ascending."""
    if np.array_equal(rows.sequence, snapshot.sequence[: len(rows)]):
        return snapshot.sequence[len(rows) :]
    place = np.searchsorted(rows.sequence, snapshot.sequence)
    there = np.zeros(snapshot.rows, np.bool_)
    inside = place < len(rows)
    there[inside] = rows.sequence[place[inside]] == snapshot.sequence[inside]
    return snapshot.sequence[~there]


def wasteful(rows: Rows, snapshot: Snapshot) -> bool:
    dead = len(rows) - snapshot.rows
    return dead > _GARBAGE_ROWS and dead > _GARBAGE_SHARE * len(rows)
