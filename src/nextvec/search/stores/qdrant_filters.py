"""Filters as Qdrant's filter objects.

Qdrant has two-valued logic, and a condition on a value that is missing is false. So a tree is written twice: as what
makes it true and as what makes it false (De Morgan); NOT goes from one to the other, and a leaf is false where its
condition fails and the value is there. Which attributes of a row are NULL is kept in the payload under ``_null``.

Not all can be said: LIKE, the order of texts, and whole numbers from 2**53 (Qdrant compares ranges in float64). Such a
leaf is left open, which gives a filter that lets too many rows through; ``Native.exact`` tells.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from nextvec.extras import require
from nextvec.search.filters import And, Column, Compare, Contains, Filter, In, IsNull, IsTrue, Like, Not, Or, Value

NULLS = "_null"
_SAFE = 2**53
_POINTS = uuid.UUID("6f3f6d5e-6f3b-4d2b-9a53-0f6f8f1d5c11")  # chosen once; points are named after ids within it
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


@dataclass(frozen=True, slots=True)
class Native:
    """A filter of Qdrant, None for one that all rows pass. Where not ``exact``, more rows pass than match."""

    filter: Any
    exact: bool


def point_id(identifier: str) -> str:
    """The UUID that stands for an id: Qdrant takes no texts (version 5, RFC 9562)."""
    return str(uuid.uuid5(_POINTS, identifier))


def path(name: str) -> str:
    """The key of an attribute in a payload, as Qdrant's paths want it."""
    simple = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if simple else f'"{name}"'


def to_payload(array: pa.Array, kind: str) -> list[Any]:
    """Values as a payload holds them: dates as days and timestamps as microseconds since 1970, the rest as it is."""
    if kind == "date":
        array = array.cast(pa.int32())
    elif kind == "timestamp":
        array = array.cast(pa.int64())
    return list(array.to_pylist())


def from_payload(value: Any, kind: str) -> Any:
    """The way back."""
    if value is None:
        return None
    if kind == "date":
        return dt.date(1970, 1, 1) + dt.timedelta(days=value)
    if kind == "timestamp":
        return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=value)
    return float(value) if kind == "float" else value


def to_native(tree: Filter) -> Native:
    """The filter that is true where ``tree`` is."""
    condition, exact = _Writer().true(tree)
    models = _models()
    if condition is not None and not isinstance(condition, models.Filter):
        condition = models.Filter(must=[condition])
    return Native(condition, exact)


def only(points: list[str]) -> Any:
    """The filter for these points."""
    models = _models()
    return models.Filter(must=[models.HasIdCondition(has_id=points)])


def _models() -> Any:
    return require("qdrant_client", why="a collection on Qdrant").models


_Written = tuple[Any, bool]
"""A condition (None: no row is kept out) and whether it is exact."""


class _Writer:
    def __init__(self) -> None:
        self.models = _models()

    def true(self, tree: Filter) -> _Written:
        match tree:
            case And(parts):
                return self._all([self.true(part) for part in parts])
            case Or(parts):
                return self._any([self.true(part) for part in parts])
            case Not(part):
                return self.false(part)
            case Compare(column, "!=", value):
                return self.false(Compare(column, "=", value))
            case _:
                condition = self._leaf(tree)
                return condition, condition is not None

    def false(self, tree: Filter) -> _Written:
        match tree:
            case And(parts):
                return self._any([self.false(part) for part in parts])
            case Or(parts):
                return self._all([self.false(part) for part in parts])
            case Not(part):
                return self.true(part)
            case IsNull(column):
                return self.models.Filter(must_not=[self._null(column)]), True
            case Compare(column, "!=", value):
                return self.true(Compare(column, "=", value))
            case _:
                condition = self._leaf(tree)
                if condition is None:
                    return None, False
                return self.models.Filter(must_not=[condition, self._null(tree.column)]), True

    def _all(self, parts: list[_Written]) -> _Written:
        conditions = [condition for condition, _ in parts if condition is not None]
        exact = all(exact for _, exact in parts)
        return (self.models.Filter(must=conditions) if conditions else None), exact

    def _any(self, parts: list[_Written]) -> _Written:
        exact = all(exact for _, exact in parts)
        if any(condition is None for condition, _ in parts):
            return None, exact
        return self.models.Filter(should=[condition for condition, _ in parts]), exact

    def _leaf(self, tree: Filter) -> Any:
        """The condition under which a leaf is true, None where Qdrant has none."""
        match tree:
            case IsNull(column):
                return self._null(column)
            case IsTrue(column):
                return self._match(column, True)
            case Contains(column, value):
                return self._match(column, value)
            case Compare(column, "=", value):
                return self._one_of(column, (value,))
            case In(column, values):
                return self._one_of(column, values)
            case Compare(column, operator, value):
                return self._range(column, **{_BOUNDS[operator]: value})
            case _:
                assert isinstance(tree, Like), tree
                return None

    def _null(self, column: Column) -> Any:
        return self.models.FieldCondition(key=NULLS, match=self.models.MatchValue(value=column.name))

    def _match(self, column: Column, value: Any) -> Any:
        return self.models.FieldCondition(key=path(column.name), match=self.models.MatchValue(value=value))

    def _one_of(self, column: Column, values: tuple[Value, ...]) -> Any:
        if column.name == "id":
            return self.models.HasIdCondition(has_id=[point_id(str(value)) for value in values])
        if column.kind in ("string", "bool") or (
            column.kind == "int" and not any(isinstance(value, float) for value in values)
        ):
            conditions = [self._match(column, value) for value in values]
        else:
            conditions = [self._range(column, gte=value, lte=value) for value in values]
        if any(condition is None for condition in conditions):
            return None
        return conditions[0] if len(conditions) == 1 else self.models.Filter(should=conditions)

    def _range(self, column: Column, **bounds: Value) -> Any:
        if column.kind == "string":
            return None
        numbers = {name: _number(value) for name, value in bounds.items()}
        if column.kind != "float" and any(abs(number) >= _SAFE for number in numbers.values()):
            return None
        return self.models.FieldCondition(key=path(column.name), range=self.models.Range(**numbers))


def _number(value: Value) -> int | float:
    if isinstance(value, dt.datetime):
        return (value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    if isinstance(value, dt.date):
        return (value - dt.date(1970, 1, 1)).days
    assert isinstance(value, (int, float)), value
    return value
