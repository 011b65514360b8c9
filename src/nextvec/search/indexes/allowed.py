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

__all__ = ["Allowed", "Condition"]

Int64 = NDArray[np.int64]

_SEVERAL = 4  # queries
_ONCE = 2  # calls that one search makes
FEW = 0.125  # share of all rows; for more than this, a pass over a column is as fast as sorting its rows


@dataclass(slots=True)  # not frozen: every search with a new filter makes one
class Condition:
    """Whether a row is allowed, by its value: kind INTS or FLOATS with low <= values[row] <= high and, where ``extra``
    is there, a bit for rows that are not NULL; kind CODES with values[row] == low or, where low < 0, extra[values[row]]
    (-1, which finds the last of it, 0, where there is none); kind RANKS with low <= values[row] <= high, uint16."""

    kind: int
    values: NDArray[Any]
    extra: NDArray[np.uint8] | None = None
    low: float = 0
    high: float = 0

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
        if self.extra is not None:
            mask &= np.unpackbits(self.extra, count=len(mask), bitorder="little").view(np.bool_)
        return mask


class Allowed:
    """M of N rows. They are known as ``rows``, or ``listed`` in any order with, where there is one, a ``test``."""

    def __init__(
        self, total: int, *, rows: Int64 | None = None, listed: Int64 | None = None, test: Condition | None = None
    ) -> None:
        known = rows if rows is not None else listed
        assert known is not None
        self.total = total
        self.count = len(known)
        self.listed: Int64 = known
        self.test = test
        self._bits: Any = None
        self._asked = 0
        if rows is not None:
            self.__dict__["rows"] = rows

    @cached_property
    def rows(self) -> Int64:
        """Ascending, int64 [M]."""
        if self.test is not None and self.count > FEW * self.total:
            return np.flatnonzero(self.test.rows())
        return np.sort(self.listed)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """bool [N]."""
        if self.test is not None:
            return self.test.rows()
        mask = np.zeros(self.total, np.bool_)
        mask[self.listed] = True
        return mask

    def native(self, queries: int) -> Any:
        """For the kernels, for a call with so many queries: the test itself, or a bit per row, which is faster to look
        up and takes a pass to make: for ranks, for several queries, and from the second search on."""
        if self._bits is not None:
            return self._bits
        if self.test is None:
            bits = np.packbits(self.mask, bitorder="little")
        else:
            test = self.test
            itself = kernels.filter(test.kind, test.values, test.extra, test.low, test.high, self.total)
            self._asked += 1
            if test.kind != RANKS and queries < _SEVERAL and self._asked <= _ONCE:
                return itself
            bits = np.empty((self.total + 7) // 8, np.uint8)
            kernels.bits(itself, bits)
        self._bits = kernels.filter(BITS, bits, None, 0, 0, self.total)
        return self._bits

    def from_(self, first: int) -> Int64:
        """The rows from number ``first`` on, ascending."""
        if first >= self.total:
            return self.listed[:0]
        return self.rows[np.searchsorted(self.rows, first) :]


def bits_without(total: int, gone: Int64) -> NDArray[np.uint8] | None:
    """A bit for each of N rows, lowest first: all but those in ``gone``; None where none is gone."""
    if not len(gone):
        return None
    there = np.ones(total, np.bool_)
    there[gone] = False
    return np.packbits(there, bitorder="little")


def range_test(values: NDArray[Any], valid: NDArray[np.uint8] | None, low: Any, high: Any) -> Condition:
    """Rows whose value [N], int64 or float64, lies from ``low`` to ``high`` and whose bit is set (None: all are)."""
    whole = values.dtype == np.int64
    return Condition(
        INTS if whole else FLOATS, values, valid, *((int(low), int(high)) if whole else (float(low), float(high)))
    )


def rank_test(ranks: NDArray[np.uint16], low: int, high: int) -> Condition:
    """Rows whose rank [N] lies from ``low`` to ``high``."""
    return Condition(RANKS, ranks, None, low, high)


def code_test(codes: NDArray[np.int32], count: int, chosen: Sequence[int]) -> Condition:
    """Rows whose code [N] (-1: none) is one of ``chosen``, of ``count`` codes."""
    if len(chosen) == 1:
        return Condition(CODES, codes, None, chosen[0])
    table = np.zeros(count + 1, np.uint8)
    table[list(chosen)] = 1
    return Condition(CODES, codes, table, -1)
