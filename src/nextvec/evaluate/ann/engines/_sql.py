"""Filters in the SQL that a user of each engine writes: sets of values as IN, list columns by its own operator."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from nextvec.search.filters import And, Compare, Contains, Filter, In, IsNull, IsTrue, Like, Not, Or, Value

__all__ = ["DUCKDB", "LANCE", "POSTGRES", "Dialect", "sql"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """quote: around names; contains: the text for a list column {0} that holds {1}; zone: behind a time in UTC;
    double: the name of float64."""

    quote: str
    contains: str
    zone: str = "Z"
    double: str = "DOUBLE"


DUCKDB = Dialect('"', "list_contains({0}, {1})", zone="")  # with time zones it needs an extension from the network
LANCE = Dialect("`", "array_has({0}, {1})")
POSTGRES = Dialect('"', "{0} @> ARRAY[{1}]", double="DOUBLE PRECISION")


def sql(tree: Filter, dialect: Dialect) -> str:
    """The filter as a condition."""

    def name(column: str) -> str:
        return dialect.quote + column.replace(dialect.quote, dialect.quote * 2) + dialect.quote

    def literal(value: Value) -> str:
        return _literal(value, dialect)

    match tree:
        case And(parts):
            return "(" + " AND ".join(sql(part, dialect) for part in parts) + ")"
        case Or(parts):
            return "(" + " OR ".join(sql(part, dialect) for part in parts) + ")"
        case Not(part):
            return f"(NOT {sql(part, dialect)})"
        case IsNull(column):
            return f"({name(column.name)} IS NULL)"
        case IsTrue(column):
            return f"({name(column.name)} = true)"
        case Compare(column, operator, value):
            return f"({name(column.name)} {operator} {literal(value)})"
        case In(column, values):
            return f"({name(column.name)} IN ({', '.join(map(literal, values))}))"
        case Like(column, pattern):
            escape = " ESCAPE '\\'" if "\\" in pattern else ""
            return f"({name(column.name)} LIKE {literal(pattern)}{escape})"
        case Contains(column, value):
            return "(" + dialect.contains.format(name(column.name), literal(value)) + ")"


def _literal(value: Value, dialect: Dialect) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case dt.datetime():
            return f"timestamp '{value.astimezone(dt.UTC).strftime('%Y-%m-%dT%H:%M:%S.%f')}{dialect.zone}'"
        case dt.date():
            return f"date '{value.isoformat()}'"
        case float():
            return f"CAST('{value!r}' AS {dialect.double})"
        case _:
            return str(value)
