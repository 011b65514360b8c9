"""The rows that a filter takes, in the form that each way to search wants them: counted at once, the rest when asked.

Shapes: N rows in all, M of them allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.search.native import BITS, CODES, FLOATS, INTS, RANKS, kernels

__all__ = ["Allowed", "Condition", "packed"]

Int64 = NDArray[np.int64]

_SEVERAL = 4  # queries
_SPANS = 8
_ONCE = 2  # calls that one search makes
FEW = 0.125  # share of all rows; for more than this, a pass over a column is as fast as sorting its rows


@dataclass(slots=True)  # not frozen: every search with a new filter makes one
class Condition:
    """Whether a row is allowed, by its value: kind INTS or FLOATS with low <= values[row] <= high and, where ``extra``
    is there, a bit for rows that are not NULL; kind CODES with values[row] == low or, where low < 0, extra[values[row]]
    (-1, which finds the last of it, 0, where there is none); kind RANKS with low <= values[row] <= high, uint16, and,
    where ``extra`` is there, extra[values[row] - low]. spans: the same as (low, high) of each run of ranks, where these
    are few."""

    kind: int
    values: NDArray[Any]
    extra: NDArray[np.uint8] | None = None
    low: float = 0
    high: float = 0
    spans: Sequence[tuple[int, int]] = ()

    def rows(self) -> NDArray[np.bool_]:
        """All rows' answers, bool [N]."""
        if self.kind == CODES and self.low >= 0:
            same: NDArray[np.bool_] = self.values == self.low
            return same
        if self.kind == CODES:
            assert self.extra is not None
            chosen: NDArray[np.bool_] = self.extra[self.values].view(np.bool_)
            return chosen
        mask: NDArray[np.bool_] = (self.values >= self.low) & (self.values <= self.high)
        if self.extra is not None and self.kind == RANKS:
            mask[mask] = self.extra[self.values[mask] - np.uint16(self.low)].view(np.bool_)
        elif self.extra is not None:
            mask &= np.unpackbits(self.extra, count=len(mask), bitorder="little").view(np.bool_)
        return mask


class Allowed:
    """M of N rows. They are known as ``rows``, ascending, as ``runs`` that have none in common, or as ``bits``; with,
    where there is one, a ``test``, which takes the same."""

    def __init__(
        self,
        total: int,
        *,
        rows: Int64 | None = None,
        runs: Sequence[Int64] = (),
        bits: NDArray[np.uint8] | None = None,
        test: Condition | None = None,
    ) -> None:
        self.total = total
        self.test = test
        self._runs = runs
        self._filter: Any = None
        self._asked = 0
        if bits is not None:
            self.count = int(np.bitwise_count(bits).sum(dtype=np.int64))
            self.__dict__["bits"] = bits
        elif runs:
            self.count = sum(map(len, runs))
            if len(runs) == 1:
                self.__dict__["listed"] = runs[0]
        else:
            known = self.__dict__  # at once, since asking for a cached property takes a lock
            known["rows"] = known["listed"] = rows = np.zeros(0, np.int64) if rows is None else rows
            self.count = len(rows)

    @cached_property
    def rows(self) -> Int64:
        """Ascending, int64 [M]."""
        if not self._runs or (self.test is not None and self.count > FEW * self.total):
            return np.flatnonzero(self.mask)
        return np.sort(self.listed)

    @cached_property
    def listed(self) -> Int64:
        """In any order, int64 [M]."""
        return np.concatenate(self._runs) if self._runs else self.rows

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """bool [N]."""
        if "bits" in self.__dict__:
            return np.unpackbits(self.bits, count=self.total, bitorder="little").view(np.bool_)
        if self.test is not None:
            return self.test.rows()
        mask = np.zeros(self.total, np.bool_)
        for run in self._runs or (self.rows,):
            mask[run] = True
        return mask

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """A bit for each row, lowest first: uint8 [(N + 7) // 8]."""
        if self.test is None or kernels is None:
            return packed(self.mask)
        # A few passes that compare take less time than one that looks up each row's rank in a table.
        parts = [rank_test(self.test.values, *span) for span in self.test.spans] or [self.test]
        made = np.empty((len(parts), (self.total + 7) // 8), np.uint8)
        for part, bits in zip(parts, made, strict=True):
            kernels.bits(self._tested(part), bits)
        either: NDArray[np.uint8] = made[0]
        for other in made[1:]:
            either |= other
        return either

    def native(self, queries: int) -> Any:
        """For the kernels, for a call with so many queries: the test itself, or a bit per row, which is faster to look
        up and takes a pass to make: for a run of ranks, for several queries, and from the second search on."""
        if self._filter is not None:
            return self._filter
        slow = self.test is not None and (self.test.kind != RANKS or self.test.extra is not None)
        if self.test is not None and slow and queries < _SEVERAL and "bits" not in self.__dict__:
            self._asked += 1
            if self._asked <= _ONCE:
                return self._tested(self.test)
        self._filter = kernels.filter(BITS, self.bits, None, 0, 0, self.total)
        return self._filter

    def _tested(self, test: Condition) -> Any:
        return kernels.filter(test.kind, test.values, test.extra, test.low, test.high, self.total)

    def from_(self, first: int) -> Int64:
        """The rows from number ``first`` on, ascending."""
        if first >= self.total:
            return np.zeros(0, np.int64)
        return self.rows[np.searchsorted(self.rows, first) :]


def packed(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A bit for each of bool [N], lowest first."""
    return np.packbits(mask, bitorder="little")


def bits_without(total: int, gone: Int64) -> NDArray[np.uint8] | None:
    """A bit for each of N rows, lowest first: all but those in ``gone``; None where none is gone."""
    if not len(gone):
        return None
    there = np.ones(total, np.bool_)
    there[gone] = False
    return packed(there)


def range_test(values: NDArray[Any], valid: NDArray[np.uint8] | None, low: Any, high: Any) -> Condition:
    """Rows whose value [N], int64 or float64, lies from ``low`` to ``high`` and whose bit is set (None: all are)."""
    whole = values.dtype == np.int64
    return Condition(
        INTS if whole else FLOATS, values, valid, *((int(low), int(high)) if whole else (float(low), float(high)))
    )


def rank_test(ranks: NDArray[np.uint16], low: int, high: int) -> Condition:
    """Rows whose rank [N] lies from ``low`` to ``high``."""
    return Condition(RANKS, ranks, None, low, high)


def ranks_test(ranks: NDArray[np.uint16], chosen: Sequence[int]) -> Condition:
    """Rows whose rank [N] is one of ``chosen``."""
    ordered = sorted(set(chosen))
    spans: list[tuple[int, int]] = []
    for rank in ordered:
        if spans and rank == spans[-1][1] + 1:
            spans[-1] = spans[-1][0], rank
        else:
            spans.append((rank, rank))
    low, high = ordered[0], ordered[-1]
    if len(spans) == 1:
        return rank_test(ranks, low, high)
    table = np.zeros(high - low + 1, np.uint8)
    table[np.array(ordered) - low] = 1
    return Condition(RANKS, ranks, table, low, high, spans if len(spans) <= _SPANS else ())


def code_test(codes: NDArray[np.int32], count: int, chosen: Sequence[int]) -> Condition:
    """Rows whose code [N] (-1: none) is one of ``chosen``, of ``count`` codes."""
    if len(chosen) == 1:
        return Condition(CODES, codes, None, chosen[0])
    table = np.zeros(count + 1, np.uint8)
    table[list(chosen)] = 1
    return Condition(CODES, codes, table, -1)
