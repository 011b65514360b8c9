"""Filters and schemas in PostgreSQL's SQL. Values are bound, never written into the text; names are quoted."""

from __future__ import annotations

from typing import Any, cast

from nextvec.search.filters import And, Column, Compare, Contains, Filter, In, IsNull, IsTrue, Like, Not, Or, Value
from nextvec.search.schema import Schema

TYPES = {
    "string": "text",
    "int": "bigint",
    "float": "double precision",
    "bool": "boolean",
    "date": "date",
    "timestamp": "timestamp with time zone",
    "list[string]": "text[]",
}
# What COPY calls them.
COPY_TYPES = {**TYPES, "int": "int8", "float": "float8", "bool": "bool", "timestamp": "timestamptz"}
SEQUENCE = "_seq"
_FLOAT = TYPES["float"]
_SYSTEM = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}
_LONGEST = 63  # bytes; PostgreSQL cuts longer names off


def quoted(name: str) -> str:
    """An identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def column_names(schema: Schema) -> dict[str, str]:
    """The column of "id" and of each attribute, quoted. Attributes keep their names where PostgreSQL allows them;
    the others are numbered (no attribute begins with "_").
    """
    names = {"id": "id"}
    for i, name in enumerate(schema.attributes):
        usable = name not in _SYSTEM and len(name.encode()) <= _LONGEST
        names[name] = name if usable else f"_a{i}"
    return {name: quoted(column) for name, column in names.items()}


def table_ddl(table: str, schema: Schema, vector: str) -> str:
    """CREATE TABLE; text is compared byte by byte (collation "C"), as everywhere in nextvec."""
    names = column_names(schema)
    columns = [f"{SEQUENCE} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", 'id text COLLATE "C" NOT NULL UNIQUE']
    for name, kind in schema.attributes.items():
        collation = ' COLLATE "C"' if kind == "string" else ""
        columns.append(f"{names[name]} {TYPES[kind]}{collation}")
    columns.append(f"vector {vector}({schema.dim}) NOT NULL")
    return f"CREATE TABLE {table} ({', '.join(columns)})"


def to_sql(tree: Filter, names: dict[str, str]) -> tuple[str, list[Any]]:
    """A condition with a placeholder (%s) for each of the values that come with it. NULL is SQL's own."""
    values: list[Any] = []
    return _text(tree, names, values), values


def _text(tree: Filter, names: dict[str, str], values: list[Any]) -> str:
    match tree:
        case And(parts):
            return "(" + " AND ".join([_text(part, names, values) for part in parts]) + ")"
        case Or(parts):
            return "(" + " OR ".join([_text(part, names, values) for part in parts]) + ")"
        case Not(part):
            return f"(NOT {_text(part, names, values)})"
        case IsNull(column):
            return f"({names[column.name]} IS NULL)"
        case IsTrue(column):
            return names[column.name]
        case Compare(column, operator, value):
            left, kind = _sides(column, (value,), names)
            values.append(value)
            return f"({left} {'<>' if operator == '!=' else operator} %s::{kind})"
        case In(column, choices):
            left, kind = _sides(column, choices, names)
            values.append([float(cast(float, value)) for value in choices] if kind == _FLOAT else list(choices))
            return f"({left} = ANY(%s::{kind}[]))"
        case Like(column, pattern):
            values.append(pattern)
            return f"({names[column.name]} LIKE %s::text)"
        case Contains(column, value):
            values.append(value)
            return f"(%s::text = ANY({names[column.name]}))"


def _sides(column: Column, values: tuple[Value, ...], names: dict[str, str]) -> tuple[str, str]:
    """The column as it is compared, and the type of the value: an int column meets a float as a float."""
    name, kind = names[column.name], TYPES[column.kind]
    if column.kind == "int" and any(isinstance(value, float) for value in values):
        return f"{name}::{_FLOAT}", _FLOAT
    return name, kind
