"""Indexes of attribute columns: which rows a filter takes, without looking at every row.

Numbers, dates and times are kept sorted, so that a range is a slice; texts, flags and lists of texts have a list of
rows for each value. Shapes: N rows, V values, n non-NULL values.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nextvec.search import filters
from nextvec.search.filters import Filter, Value
from nextvec.search.indexes.allowed import (
    Allowed,
    Condition,
    bits_without,
    code_test,
    range_test,
    rank_test,
    ranks_test,
)
from nextvec.search.indexes.exact import DIRECT
from nextvec.search.schema import ARROW_TYPES

Int64 = NDArray[np.int64]

_DISTINCT = 0.5  # values per row above which a list of rows for each is not worth its memory
_STEPS = 16_384  # values of a sorted column that are known one by one
_NO_RANK = 65_535  # of rows without a value

_EPOCH = dt.date(1970, 1, 1).toordinal()


class ColumnIndex(Protocol):
    """What is known of one column."""

    def slices(self, leaf: Filter) -> list[Int64] | None:
        """The rows of ``leaf`` as disjoint or overlapping runs; None where this index cannot tell."""

    def alone(self, leaf: Filter) -> Allowed | None:
        """The rows of ``leaf`` where they lie side by side and a row is tested by one number; else None."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """values [n] ascending, as int64 or float64, rows [n] in that order, nulls: rows without a value; total: N.

    Where there are few values, ``steps`` has them without repeats and where each begins in ``values``, the last one's
    end behind them, and ``ranks`` [N] which of them a row has (``_NO_RANK``: NULL). Else ``dense`` [N] has the values
    as they lie in the column, 0 for NULL, and ``valid`` a bit for each row that has one (None: all have)."""

    kind: str
    values: NDArray[np.int64] | NDArray[np.float64]
    rows: Int64
    nulls: Int64
    total: int
    steps: tuple[list[Any], list[int]] | None
    ranks: NDArray[np.uint16] | None
    dense: NDArray[np.int64] | NDArray[np.float64] | None
    valid: NDArray[np.uint8] | None

    @classmethod
    def of(cls, column: pa.Array, kind: str) -> Sorted:
        """From an Arrow array [N] of numbers, dates or times."""
        total = len(column)
        nulls = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        valid = column.drop_null()
        if kind == "date":
            valid = valid.cast(pa.int32()).cast(pa.int64())
        elif kind == "timestamp":
            valid = valid.cast(pa.int64())
        values = valid.to_numpy(zero_copy_only=False)
        order = np.argsort(values, kind="stable")
        steps = _steps(values[order])
        if steps is None:
            dense = np.zeros(total, values.dtype)
            dense[rows] = values
            return cls(kind, values[order], rows[order], nulls, total, None, None, dense, bits_without(total, nulls))
        ranks = np.full(total, _NO_RANK, np.uint16)
        ranks[rows[order]] = np.repeat(np.arange(len(steps[0]), dtype=np.uint16), np.diff(steps[1]))
        return cls(kind, values[order], rows[order], nulls, total, steps, ranks, None, None)

    def alone(self, leaf: Filter) -> Allowed | None:
        """A range, one of some values where these are known one by one, or no value."""
        if isinstance(leaf, filters.IsNull):
            return _without_value(self)
        if isinstance(leaf, filters.In):
            return self._one_of(leaf.values)
        bounds = self._range(leaf)
        if bounds is None:
            return None
        start, stop = bounds
        listed = self.rows[start : max(start, stop)]
        return Allowed(self.total, runs=[listed], test=self._test(start, stop) if len(listed) > DIRECT else None)

    def _one_of(self, values: tuple[Value, ...]) -> Allowed | None:
        if self.steps is None or self.ranks is None:
            return None
        numbers = {self._number(value) for value in values}
        if None in numbers:
            return None
        known, begins = self.steps
        places = {number: bisect_left(known, number) for number in numbers}
        ranks = sorted(at for number, at in places.items() if at < len(known) and known[at] == number)
        runs = [self.rows[begins[rank] : begins[rank + 1]] for rank in ranks]
        few = sum(map(len, runs)) <= DIRECT
        return Allowed(self.total, runs=runs, test=None if few else ranks_test(self.ranks, ranks))

    def _test(self, start: int, stop: int) -> Condition:
        """What the rows ``rows[start:stop]``, which are all of some values, have in common."""
        if self.steps is not None and self.ranks is not None:
            begins = self.steps[1]
            return rank_test(self.ranks, bisect_left(begins, start), bisect_left(begins, stop) - 1)
        assert self.dense is not None
        return range_test(self.dense, self.valid, self.values[start], self.values[stop - 1])

    def _range(self, leaf: Filter) -> tuple[int, int] | None:
        """Where the values of a comparison, or of several, lie in ``values``."""
        if isinstance(leaf, filters.Compare):
            return self._bounds(leaf.operator, leaf.value)
        parts = leaf.parts if isinstance(leaf, filters.And) else (leaf,)
        found = [self._bounds(part.operator, part.value) for part in parts if isinstance(part, filters.Compare)]
        known = [pair for pair in found if pair is not None]
        if len(known) < len(parts):
            return None
        return max(start for start, _ in known), min(stop for _, stop in known)

    def slices(self, leaf: Filter) -> list[Int64] | None:
        match leaf:
            case filters.IsNull():
                return [self.nulls]
            case filters.In(_, values):
                bounds = [self._bounds("=", value) for value in values]
            case filters.Compare() | filters.And():  # of comparisons with this column: BETWEEN
                bounds = [self._range(leaf)]
            case _:
                return None
        runs = [None if pair is None else self.rows[pair[0] : max(pair)] for pair in bounds]
        return None if any(run is None for run in runs) else [run for run in runs if run is not None]

    def _bounds(self, operator: str, value: Value) -> tuple[int, int] | None:
        number = self._number(value)
        if number is None or operator == "!=":
            return None
        match operator:
            case "=":
                return self._below(number), self._up_to(number)
            case "<":
                return 0, self._below(number)
            case "<=":
                return 0, self._up_to(number)
            case ">":
                return self._up_to(number), len(self.rows)
        return self._below(number), len(self.rows)

    def _below(self, number: float) -> int:
        """How many values are less."""
        if self.steps is None:
            return int(self.values.searchsorted(number, "left"))
        values, begins = self.steps  # Python's own search in a list takes a fifth of the time
        return begins[bisect_left(values, number)]

    def _up_to(self, number: float) -> int:
        """How many values are less or equal."""
        if self.steps is None:
            return int(self.values.searchsorted(number, "right"))
        values, begins = self.steps
        return begins[bisect_right(values, number)]

    def _number(self, value: Value) -> int | float | None:
        """``value`` in the unit of the column; None where comparing needs a wider type than the column's."""
        if self.kind == "int":
            return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None
        if self.kind == "float":
            return float(value) if isinstance(value, (int, float)) else None
        if self.kind == "date" and type(value) is dt.date:
            return value.toordinal() - _EPOCH  # at every search, and Arrow takes ten times as long
        if isinstance(value, (dt.date, dt.datetime)):
            return int(pa.scalar(value, ARROW_TYPES[self.kind]).value)
        return None


def _steps(values: NDArray[Any]) -> tuple[list[Any], list[int]] | None:
    """``Sorted.steps``. NaN, which is not equal to itself, has no place in such a list."""
    fresh = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=fresh[1:])
    begins = np.flatnonzero(fresh)
    if len(begins) > _STEPS or (len(values) and values[-1] != values[-1]):
        return None
    return values[begins].tolist(), [*begins.tolist(), len(values)]


@dataclass(frozen=True, slots=True)
class Postings:
    """For value v the rows ``rows[starts[v]:starts[v + 1]]``, ascending; codes: value to v; nulls: rows without a
    value; total: N; dense int32 [N]: the v of each row, -1 for NULL, where a row has one value at most, and ranks
    uint16 [N] the same where they fit, ``_NO_RANK`` for NULL."""

    codes: dict[Value, int]
    starts: Int64
    rows: Int64
    nulls: Int64
    total: int
    dense: NDArray[np.int32] | None
    ranks: NDArray[np.uint16] | None

    @classmethod
    def of(cls, column: pa.Array, kind: str) -> Postings | None:
        """From an Arrow array [N] of strings, bools or lists of strings; None where nearly every row has its own."""
        nulls = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        if kind == "list[string]":
            rows, values = pc.list_parent_indices(column).to_numpy(), column.flatten()
        else:
            rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            values = column.drop_null()
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        rows, values = rows[valid].astype(np.int64), values.drop_null()
        encoded = values.dictionary_encode()
        if len(encoded.dictionary) > max(_DISTINCT * len(rows), 1024):
            return None
        code = encoded.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(code, kind="stable")
        code, rows = code[order], rows[order]
        # A list may name one value twice.
        fresh = np.ones(len(rows), np.bool_)
        fresh[1:] = (code[1:] != code[:-1]) | (rows[1:] != rows[:-1])
        code, rows = code[fresh], rows[fresh]
        names = encoded.dictionary.to_pylist()
        starts = np.searchsorted(code, np.arange(len(names) + 1))
        dense, ranks = None, None
        if kind != "list[string]":
            dense = np.full(len(column), -1, np.int32)
            dense[rows] = code
            ranks = dense.astype(np.uint16) if len(names) <= _NO_RANK else None
        codes = {name: number for number, name in enumerate(names)}
        return cls(codes, starts, rows, nulls, len(column), dense, ranks)

    def alone(self, leaf: Filter) -> Allowed | None:
        """One of some values, of rows that have one each: no row comes twice. Or no value."""
        if isinstance(leaf, filters.IsNull):
            return _without_value(self)
        runs = None if self.dense is None else self.slices(leaf)
        if runs is None or self.dense is None:
            return None
        if len(runs) == 1 and len(runs[0]) <= DIRECT:
            return Allowed(self.total, rows=runs[0])
        if sum(map(len, runs)) <= DIRECT:
            return Allowed(self.total, runs=runs)
        codes = [int(self.dense[run[0]]) for run in runs if len(run)]
        test = code_test(self.dense, len(self.codes), codes) if self.ranks is None else ranks_test(self.ranks, codes)
        return Allowed(self.total, runs=runs, test=test)

    def slices(self, leaf: Filter) -> list[Int64] | None:
        match leaf:
            case filters.Contains(_, value) | filters.Compare(_, "=", value):
                return [self._of(value)]
            case filters.In(_, values):
                return [self._of(value) for value in set(values)]
            case filters.IsTrue():
                return [self._of(True)]
            case filters.IsNull():
                return [self.nulls]
        return None

    def _of(self, value: Value) -> Int64:
        code = self.codes.get(value)
        return self.rows[:0] if code is None else self.rows[self.starts[code] : self.starts[code + 1]]


def _without_value(index: Sorted | Postings) -> Allowed:
    """The rows that are NULL."""
    test = None if index.ranks is None else rank_test(index.ranks, _NO_RANK, _NO_RANK)
    return Allowed(index.total, rows=index.nulls, test=test)


def index_of(column: pa.Array, kind: str) -> ColumnIndex | None:
    """An index of the column, of the kind that suits its type; None where none pays."""
    if kind in ("int", "float", "date", "timestamp"):
        return Sorted.of(column, kind)
    return Postings.of(column, kind)
