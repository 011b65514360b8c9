"""Filters drawn for a wanted selectivity, from the values that the attributes really have.

Kinds: "match" (``venue = 'ACL'``), "set" (``venue IN (...)``, ``'cs.CL' IN categories``), "range" (``year BETWEEN``),
"and" and "or" of two of them on different attributes. Every filter is checked on the data before it is used.
Legend: N rows; a code numbers the distinct values of an attribute in ascending order, -1 is NULL.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nextvec.evaluate.ann.workload import matching
from nextvec.types import InputError

__all__ = ["BOUNDS", "BUCKETS", "CORRELATIONS", "KINDS", "Drawer", "bucket_of"]

KINDS = ("match", "set", "range", "and", "or")
CORRELATIONS = ("independent", "near", "far")
BUCKETS = (0.1, 1.0, 10.0, 50.0, 100.0)
"""Per cent of the rows that match."""
BOUNDS = {0.1: (0.05, 0.2), 1.0: (0.5, 2.0), 10.0: (5.0, 20.0), 50.0: (35.0, 65.0), 100.0: (95.0, 100.0)}
"""The least and greatest per cent that count as a bucket."""

_ATTEMPTS = 60
_MOST_VALUES = 50  # in a set
_USABLE = {
    "match": ("string", "int", "bool", "date"),
    "set": ("string", "int", "list[string]"),
    "range": ("int", "float", "date", "timestamp"),
}


def bucket_of(share: float) -> float | None:
    """The bucket of a share of rows (0 to 1), or None between two of them."""
    return next((b for b, (low, high) in BOUNDS.items() if low <= share * 100 <= high), None)


class Drawer:
    """Draws filters on ``attributes`` (N rows). The same generator gives the same filters."""

    def __init__(self, attributes: pa.Table, schema: Mapping[str, str], generator: np.random.Generator) -> None:
        self._table, self._schema, self._random = attributes, schema, generator
        self._coded = {name: _codes(attributes.column(name), kind) for name, kind in schema.items()}

    def draw(
        self, kind: str, bucket: float, own: Mapping[str, Any] | None = None
    ) -> tuple[str, NDArray[np.int64]] | None:
        """A filter of the kind whose matches are in the bucket, with its rows; None where the data have none.

        own: the attributes of a query, which then satisfies the filter.
        """
        low, high = BOUNDS[bucket]
        for _ in range(_ATTEMPTS):
            target = min(bucket / 100, 1.0)
            if kind in ("and", "or"):
                text = self._compound(kind, target, own)
            else:
                text = self._simple(kind, None, target, own)[1]
            if text is None or len(text) > 9_000:
                continue
            rows = np.flatnonzero(matching(self._table, self._schema, text))
            if low <= len(rows) * 100 / max(len(self._table), 1) <= high:
                return text, rows
        return None

    def _simple(
        self,
        kind: str,
        inside: NDArray[np.bool_] | None,
        target: float,
        own: Mapping[str, Any] | None,
        besides: str = "",
    ) -> tuple[str, str | None]:
        """The attribute, and a filter on it that about ``target`` of the rows inside satisfy."""
        names = [n for n, of in self._schema.items() if of in _USABLE[kind] and n != besides]
        made = {"match": self._match, "set": self._set, "range": self._range}[kind]
        for name in self._random.permutation(names).tolist():
            if own is not None and own.get(name) in (None, []):
                continue
            text = made(name, self._counts(name, inside), target, None if own is None else own[name])
            if text is not None:
                return name, text
        return "", None

    def _compound(self, kind: str, target: float, own: Mapping[str, Any] | None) -> str | None:
        """``and``: the second part is drawn among the rows of the first; ``or``: among all others."""
        first_kind, second_kind = self._random.choice(["match", "set", "range"], 2)
        share = target ** self._random.uniform(0.1, 0.8) if kind == "and" else target * self._random.uniform(0.2, 0.8)
        name, first = self._simple(str(first_kind), None, share, own)
        if first is None:
            return None
        rows = matching(self._table, self._schema, first)
        have = float(rows.mean())
        if kind == "and":
            inside, rest = rows, target / max(have, 1e-9)
        else:
            inside, rest = ~rows, (target - have) / max(1 - have, 1e-9)
        if not 0 < rest <= 1.05 or not inside.any():
            return None
        # One true part is enough for an "or".
        _, second = self._simple(str(second_kind), inside, min(rest, 1.0), own if kind == "and" else None, name)
        return None if second is None else f"{first} {kind.upper()} {second}"

    def _counts(self, name: str, inside: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """The share of the rows (of those inside) that have each value: float64 [values]."""
        values, rows, codes = self._coded[name]
        if inside is not None:
            codes = codes[inside[rows]]
        total = len(self._table) if inside is None else int(inside.sum())
        counts = np.bincount(codes[codes >= 0], minlength=len(values)) / max(total, 1)
        return np.asarray(counts, np.float64)

    def _match(self, name: str, shares: NDArray[np.float64], target: float, own: Any) -> str | None:
        values = self._coded[name][0]
        fits = [
            i for i in np.flatnonzero((shares >= target / 2) & (shares <= target * 2)).tolist() if _plain(values[i])
        ]
        if own is not None:
            fits = [i for i in fits if values[i] == own]
        if not fits:
            return None
        chosen = values[int(self._random.choice(fits))]
        if isinstance(chosen, bool):
            return f"{_name(name)} = {'true' if chosen else 'false'}"
        return f"{_name(name)} = {_literal(chosen)}"

    def _set(self, name: str, shares: NDArray[np.float64], target: float, own: Any) -> str | None:
        values, many = self._coded[name][0], self._schema[name] == "list[string]"
        chosen: list[int] = []
        have = 0.0
        order = self._random.permutation(np.flatnonzero(shares)).tolist()
        if own is not None:
            held = set(own) if many else {own}
            mine = [i for i in order if values[i] in held]
            order = mine[:1] + [i for i in order if i not in mine[:1]] if mine else []
            if not mine or shares[mine[0]] > target * 1.5:
                return None
        for i in order:
            if len(chosen) == _MOST_VALUES or have >= target * 0.9:
                break
            if _plain(values[i]) and have + shares[i] <= target * 1.3 + 1e-9:
                chosen.append(i)
                have += float(shares[i])
        if have < target * 0.5 or (len(chosen) < 2 and not many):
            return None
        if many:
            parts = " OR ".join(f"{_literal(values[i])} IN {_name(name)}" for i in chosen)
            return parts if len(chosen) == 1 else f"({parts})"
        return f"{_name(name)} IN ({', '.join(_literal(values[i]) for i in chosen)})"

    def _range(self, name: str, shares: NDArray[np.float64], target: float, own: Any) -> str | None:
        values = self._coded[name][0]
        if len(values) < 2:
            return None
        ends = np.cumsum(shares)
        starts = ends - shares
        low = self._random.uniform(0, max(float(ends[-1]) - target, 0.0))
        if own is not None:
            at = next((i for i, value in enumerate(values) if value >= own), len(values) - 1)
            low = float(np.clip(starts[at] - self._random.uniform(0, 1) * target, 0, max(float(ends[-1]) - target, 0)))
        first = min(int(np.searchsorted(ends, low, side="right")), len(values) - 1)
        last = min(max(int(np.searchsorted(ends, starts[first] + target - 1e-12)), first), len(values) - 1)
        lowest, highest = values[first], values[last]
        if own is not None:
            lowest, highest = min(lowest, own), max(highest, own)
        return f"{_name(name)} BETWEEN {_literal(lowest)} AND {_literal(highest)}"


def _codes(column: pa.ChunkedArray, kind: str) -> tuple[list[Any], NDArray[np.int64], NDArray[np.int64]]:
    """(distinct values ascending, the row of each occurrence, its code)."""
    array = column.combine_chunks()
    rows = np.arange(len(array))
    if kind == "list[string]":
        rows = pc.list_parent_indices(array).to_numpy()
        array = array.flatten()
    distinct = pc.unique(array.drop_null())
    distinct = distinct.take(pc.sort_indices(distinct))
    codes = pc.fill_null(pc.index_in(array, value_set=distinct), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    if kind == "list[string]" and len(rows):
        kept = np.unique(np.stack([rows, codes]), axis=1)  # a value twice in one list counts once
        rows, codes = kept[0], kept[1]
    return distinct.to_pylist(), rows, codes


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _plain(value: Any) -> bool:
    return not isinstance(value, str) or (value.isprintable() and len(value) <= 120)


def _literal(value: Any) -> str:
    match value:
        case str():
            return "'" + value.replace("'", "''") + "'"
        case bool():
            return "true" if value else "false"
        case dt.datetime():
            return f"timestamp '{value.astimezone(dt.UTC).isoformat()}'"
        case dt.date():
            return f"date '{value.isoformat()}'"
        case int() | float():
            return repr(value)
    raise InputError(f"a filter cannot name the value {value!r:.60}")
