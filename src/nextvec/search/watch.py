"""Recall that searches really reach, and how much further to look because of it.

Shapes: n checked answers, D dimensions.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nextvec.search.calibration import FEWEST, MOST

__all__ = ["Watch"]

Float32 = NDArray[np.float32]

# Checked answers before a correction: of 32 with a recall of 0.965 one mean in seven is under 0.95. Less,
_ENOUGH = 128
_SOME = 8  # where they are surely short of the target
_AMPLE_FROM = 32  # where they are surely above it
_LEAST, _MOST = 0.5, 64.0  # of the corrections


@dataclass
class Watch:
    """Recall that was really reached, by target and way, and how much further to look because of it (1: as measured
    by the calibration). ``changes``: how often that was."""

    boost: dict[tuple[float, str], float] = field(default_factory=dict)
    changes: int = 0
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
            self.changes += 1

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
            self.changes += 1

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
