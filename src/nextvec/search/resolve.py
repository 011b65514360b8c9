"""Which rows a filter takes, from the indexes of its columns: by one of them alone, listed, or as a bit per row.

Listed: the rows of the condition that few satisfy, of which the other columns are asked. As bits: what each condition
takes, put together eight rows at a time; negations are passed on to the conditions, where a row without a value is
left out, since NOT of NULL is NULL. What no index tells (LIKE, columns without one) is asked of the column itself.
Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.search import filters
from nextvec.search.column_index import ColumnIndex, Postings, Sorted
from nextvec.search.filters import Filter
from nextvec.search.indexes.allowed import FEW, Allowed, packed

__all__ = ["resolve"]

Int64 = NDArray[np.int64]
Bits = NDArray[np.uint8]
"""[(N + 7) // 8], the lowest bit first; those beyond N are 0."""
Indexes = Callable[[str], ColumnIndex | None]
"""Gives the index of a column, if there is one."""

_SORTED, _MARKED = 2_048, 16_384  # rows of several conditions, listed: up to so many are sorted, or marked one by one
_PASS, _EACH = 160_000, 40  # rows whose bits are made in the time that asking for values takes, in any case and per row


def resolve(tree: Filter, rows: int, index: Indexes, columns: filters.Columns) -> Allowed:
    """The rows that satisfy ``tree``.

    rows: N. index: the index of a column, if there is one. columns: the values of a column.
    """
    name = _only_column(tree)
    known = None if name is None else index(name)
    if known is not None and (alone := known.alone(tree)) is not None:
        return alone
    if isinstance(tree, filters.Or) and (runs := _all_runs(tree.parts, index, _SORTED)) is not None:
        return Allowed(rows, rows=_union(runs))
    tree = _with_ranges(tree, index)
    if _one_run(tree, index) or _listed_faster(tree, rows, index):
        return Allowed(rows, rows=_rows(tree, index, columns))
    return Allowed(rows, bits=_Bitmaps(rows, index, columns).of(tree))


def _listed_faster(tree: Filter, rows: int, index: Indexes) -> bool:
    """Whether to list rows by one condition and ask for their values takes less time than a pass over bits of all N."""
    told = _told(tree, index)
    most = None if told and rows <= _PASS else _most(tree, index)
    if most is None:
        return False
    return rows > _PASS + _EACH * most if told else most <= FEW * rows


def _told(tree: Filter, index: Indexes) -> bool:
    """Whether the indexes tell all of it."""
    match tree:
        case filters.Not(part):
            return _told(part, index)
        case filters.And(parts) | filters.Or(parts) if not _is_range(tree, index):
            return all(_told(part, index) for part in parts)
        case filters.Compare(column, "!=", value):
            return _told(filters.Compare(column, "=", value), index)
    return _runs(tree, index) is not None


def _only_column(tree: Filter) -> str | None:
    """The column of one condition, or of some comparisons that bound one; None for anything else."""
    if isinstance(tree, filters.And):
        names = {part.column.name if isinstance(part, filters.Compare) else None for part in tree.parts}
        return names.pop() if len(names) == 1 else None
    return None if isinstance(tree, (filters.Or, filters.Not)) else tree.column.name


def _with_ranges(tree: Filter, index: Indexes) -> Filter:
    """The filter with the bounds of one sorted column put together, since one bound alone tells little."""
    if isinstance(tree, filters.Or):
        return filters.Or(tuple(_with_ranges(part, index) for part in tree.parts))
    if not isinstance(tree, filters.And):
        return tree
    bounds: dict[str, list[Filter]] = {}
    rest: list[Filter] = []
    for part in tree.parts:
        bound = isinstance(part, filters.Compare) and isinstance(index(part.column.name), Sorted)
        if isinstance(part, filters.Compare) and bound and part.operator != "!=":
            bounds.setdefault(part.column.name, []).append(part)
        else:
            rest.append(_with_ranges(part, index))
    ranges = [parts[0] if len(parts) == 1 else filters.And(tuple(parts)) for parts in bounds.values()]
    return filters.And((*ranges, *rest)) if len(ranges) + len(rest) > 1 else ranges[0]


def _is_range(tree: Filter, index: Indexes) -> bool:
    """Whether this is what ``_with_ranges`` puts together."""
    if not isinstance(tree, filters.And):
        return False
    names = {part.column.name for part in tree.parts if isinstance(part, filters.Compare) and part.operator != "!="}
    whole = all(isinstance(part, filters.Compare) and part.operator != "!=" for part in tree.parts)
    return whole and len(names) == 1 and isinstance(index(next(iter(names))), Sorted)


def _most(tree: Filter, index: Indexes) -> int | None:
    """No more rows than this satisfy the filter; None where the indexes cannot tell."""
    match tree:
        case filters.And(parts) if not _is_range(tree, index):
            known = [most for most in (_most(part, index) for part in parts) if most is not None]
            return min(known, default=None)
        case filters.Or(parts):
            all_parts = [_most(part, index) for part in parts]
            return None if None in all_parts else sum(most for most in all_parts if most is not None)
        case filters.Not():
            return None
    runs = _runs(tree, index)
    return None if runs is None else sum(map(len, runs))


def _runs(leaf: Filter, index: Indexes) -> list[Int64] | None:
    if isinstance(leaf, (filters.Or, filters.Not)) or (isinstance(leaf, filters.And) and not _is_range(leaf, index)):
        return None
    first = leaf.parts[0] if isinstance(leaf, filters.And) else leaf
    assert not isinstance(first, (filters.And, filters.Or, filters.Not))  # a range is of comparisons
    known = index(first.column.name)
    return None if known is None else known.slices(leaf)


def _all_runs(parts: tuple[Filter, ...], index: Indexes, most: int) -> list[Int64] | None:
    """The runs of several conditions, where their indexes list the rows of each and these are ``most`` at most."""
    found: list[Int64] = []
    for part in parts:
        runs = _runs(part, index)
        if runs is None:
            return None
        found += runs
    return found if sum(map(len, found)) <= most else None


def _one_run(tree: Filter, index: Indexes) -> bool:
    """Whether the rows lie ready in ascending order."""
    runs = _runs(tree, index)
    return runs is not None and len(runs) == 1 and isinstance(index(next(iter(filters.columns_used(tree)))), Postings)


def _rows(tree: Filter, index: Indexes, columns: filters.Columns) -> Int64:
    match tree:
        case filters.And(parts) if not _is_range(tree, index):
            size = [most if (most := _most(part, index)) is not None else np.inf for part in parts]
            first = int(np.argmin(size))
            base = _rows(parts[first], index, columns)
            rest = tuple(part for i, part in enumerate(parts) if i != first)
            chosen = pa.array(base)
            keep = filters.mask(filters.And(rest), lambda name: columns(name).take(chosen))
            return base[keep]
        case filters.Or(parts):
            return _union([_rows(part, index, columns) for part in parts])
    runs = _runs(tree, index) or []
    return runs[0] if _one_run(tree, index) else _union(runs)


def _union(runs: list[Int64]) -> Int64:
    rows = np.sort(np.concatenate([*runs, np.zeros(0, np.int64)]))
    if len(runs) < 2:
        return rows
    fresh = np.ones(len(rows), np.bool_)  # numpy's own unique takes five times as long
    np.not_equal(rows[1:], rows[:-1], out=fresh[1:])
    return rows[fresh]


@dataclass(frozen=True, slots=True)
class _Bitmaps:
    """rows: N; columns: the values of a column."""

    rows: int
    index: Indexes
    columns: filters.Columns

    def of(self, tree: Filter, *, negated: bool = False) -> Bits:
        """The rows for which ``tree`` is true or, ``negated``, false."""
        match tree:
            case filters.Not(part):
                return self.of(part, negated=not negated)
            case filters.Compare(column, "!=", value):
                return self.of(filters.Compare(column, "=", value), negated=not negated)
            case filters.Or(parts) if not negated and (runs := _all_runs(parts, self.index, _MARKED)) is not None:
                return self._scattered(runs)
            case filters.And(parts) | filters.Or(parts) if not _is_range(tree, self.index):
                together = np.bitwise_and if isinstance(tree, filters.And) != negated else np.bitwise_or
                made = self.of(parts[0], negated=negated)
                for part in parts[1:]:
                    made = together(made, self.of(part, negated=negated))
                return made
        return self._condition(tree, negated)

    def _condition(self, leaf: Filter, negated: bool) -> Bits:
        (name,) = filters.columns_used(leaf)
        known = self.index(name)
        yes = None if known is None else self._told(known, leaf)
        if known is None or yes is None:
            return packed(filters.mask(filters.Not(leaf) if negated else leaf, self.columns))
        if not negated:
            return yes
        if not isinstance(leaf, filters.IsNull):
            nulls = self._told(known, filters.IsNull(filters.Column(name, "")))
            assert nulls is not None
            yes = yes | nulls
        left = np.invert(yes)
        if self.rows % 8:
            left[-1] &= (1 << self.rows % 8) - 1
        return left

    def _told(self, known: ColumnIndex, leaf: Filter) -> Bits | None:
        allowed = known.alone(leaf)
        if allowed is not None:
            return allowed.bits
        runs = known.slices(leaf)
        return None if runs is None else self._scattered(runs)

    def _scattered(self, runs: list[Int64]) -> Bits:
        mask = np.zeros(self.rows, np.bool_)
        for run in runs:
            mask[run] = True
        return packed(mask)
