"""Groups: the best hits of each value of an attribute. NULL is a value like others.

Groups are in the order of their best hit, and the hits of a group follow one another. Shapes: N rows.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nextvec.search.fusion import Ranked
from nextvec.search.ranking import Ranking, everything
from nextvec.search.snapshot import Snapshot

__all__ = ["Grouping", "codes_of"]

_FIRST = 64
_CODES: weakref.WeakKeyDictionary[Snapshot, dict[str, NDArray[np.int64]]] = weakref.WeakKeyDictionary()


def codes_of(snapshot: Snapshot, column: str) -> NDArray[np.int64]:
    """int64 [N]: a number for each value of the column, from 0. Kept as long as the snapshot is."""
    kept = _CODES.setdefault(snapshot, {})
    if column not in kept:
        values = snapshot.column(column)
        if pa.types.is_floating(values.type):
            values = pc.add(values, 0.0)  # -0.0 and 0.0 are one value
        kept[column] = pc.dictionary_encode(values, null_encoding="encode").indices.to_numpy().astype(np.int64)
    return kept[column]


@dataclass(frozen=True, slots=True)
class Grouping:
    """``codes``: the group of each row, int64 [N]; ``sizes``: how many rows of each group can be hits; ``most``: hits
    of a group at most."""

    codes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    most: int

    def page(self, ranking: Ranking, start: int, k: int | None) -> tuple[Ranked, bool]:
        """The hits of the groups start .. start + k (all that follow where k is None), and whether more groups come."""
        if k is None:
            chosen, _ = self._chosen(everything(ranking), start, None)
            return chosen, False
        groups = int(np.count_nonzero(self.sizes))
        n = max(_FIRST, 2 * (start + k) * self.most)
        while True:
            ranked = ranking.first(n)
            chosen, found = self._chosen(ranked, start, k)
            if (found >= min(start + k + 1, groups) and self._filled(chosen[0])) or not ranking.more_than(n):
                return chosen, found > start + k
            n *= 4

    def _chosen(self, ranked: Ranked, start: int, k: int | None) -> tuple[Ranked, int]:
        """The hits of the groups asked for as far as ``ranked`` tells, and how many groups it has."""
        rows, scores = ranked
        code = self.codes[rows]
        values, first, inverse = np.unique(code, return_index=True, return_inverse=True)
        rank = np.empty(len(values), np.int64)
        rank[np.argsort(first)] = np.arange(len(values))  # groups by their best hit
        group = rank[inverse]
        order = np.argsort(group, kind="stable")
        ends = np.searchsorted(group[order], np.arange(len(values)))
        within = np.arange(len(order)) - ends[group[order]]
        stop = len(values) if k is None else start + k
        order = order[(within < self.most) & (group[order] >= start) & (group[order] < stop)]
        return (rows[order], scores[order]), len(values)

    def _filled(self, rows: NDArray[np.int64]) -> bool:
        """Whether no group among these hits can have more."""
        values, counts = np.unique(self.codes[rows], return_counts=True)
        return bool(np.all(counts >= np.minimum(self.sizes[values], self.most)))
