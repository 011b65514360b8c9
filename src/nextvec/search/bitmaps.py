"""Filters as a bit per row: what each condition takes, by the index of its column, put together eight rows at a time.

Negations are passed on to the conditions, where a row without a value is left out: NOT of NULL is NULL. What no index
tells (LIKE, columns without one) is asked of the column itself.
Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nextvec.search import filters
from nextvec.search.filters import Filter
from nextvec.search.indexes.allowed import Allowed, packed

__all__ = ["Bits", "Known", "Maker"]

Int64 = NDArray[np.int64]
Bits = NDArray[np.uint8]
"""[(N + 7) // 8], the lowest bit first; those beyond N are 0."""


class Known(Protocol):
    """What an index of a column tells of a condition on it."""

    def alone(self, leaf: Filter) -> Allowed | None: ...

    def slices(self, leaf: Filter) -> list[Int64] | None: ...


@dataclass(frozen=True, slots=True)
class Maker:
    """rows: N; index: of a column, if there is one; columns: the values of a column; whole: whether a conjunction is of
    bounds of one column, which its index answers as one condition."""

    rows: int
    index: Callable[[str], Known | None]
    columns: filters.Columns
    whole: Callable[[Filter], bool]

    def of(self, tree: Filter, *, negated: bool = False) -> Bits:
        """The rows for which ``tree`` is true or, ``negated``, false."""
        match tree:
            case filters.Not(part):
                return self.of(part, negated=not negated)
            case filters.Compare(column, "!=", value):
                return self.of(filters.Compare(column, "=", value), negated=not negated)
            case filters.And(parts) | filters.Or(parts) if not self.whole(tree):
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

    def _told(self, known: Known, leaf: Filter) -> Bits | None:
        allowed = known.alone(leaf)
        if allowed is not None:
            return allowed.bits
        runs = known.slices(leaf)
        if runs is None:
            return None
        mask = np.zeros(self.rows, np.bool_)
        for run in runs:
            mask[run] = True
        return packed(mask)
