"""Random rows, random filters, and a reference for both in plain Python (NULL is None, three-valued logic)."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

SCHEMA = {
    "year": "int",
    "score": "float",
    "open": "bool",
    "venue": "string",
    "day": "date",
    "seen at": "timestamp",
    "tags": "list[string]",
}
Row = dict[str, Any]
Truth = Callable[[Row], bool | None]

WORDS = ["", "a", "ab", "A%", "a_b", "it's", 'q"q', "back\\slash", "é", "cs.CL", "\n"]
DAYS = [dt.date(2024, 1, day) for day in (1, 2, 15, 31)]
TIMES = [dt.datetime(2024, 1, day, hour, tzinfo=dt.UTC) for day in (1, 2) for hour in (0, 12)]


def quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


rows = st.fixed_dictionaries(
    {
        "year": st.none() | st.integers(2018, 2024),
        "score": st.none() | st.sampled_from([-1.5, -0.0, 0.0, 0.5, 2.0, 1e300]),
        "open": st.none() | st.booleans(),
        "venue": st.none() | st.sampled_from(WORDS),
        "day": st.none() | st.sampled_from(DAYS),
        "seen at": st.none() | st.sampled_from(TIMES),
        "tags": st.none() | st.lists(st.sampled_from(WORDS), max_size=3),
    }
)

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_FLIPPED = {"=": "=", "==": "==", "!=": "!=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NUMBERS = st.sampled_from(
    [(2019, "2019"), (2020, "+2020"), (2020.5, "2020.5"), (2e3, "2e3"), (0, "0"), (-1.5, "-1.5")]
)
_LITERALS: dict[str, st.SearchStrategy[tuple[Any, str]]] = {
    "year": _NUMBERS,
    "score": _NUMBERS,
    "venue": st.sampled_from([(word, quote(word)) for word in WORDS if "\n" not in word]),
    "day": st.sampled_from(DAYS).flatmap(
        lambda day: st.sampled_from([(day, f"'{day}'"), (day, f"date '{day}'"), (day, f"DATE'{day}'")])
    ),
    "seen at": st.sampled_from(TIMES).flatmap(
        lambda time: st.sampled_from(
            [(time, f"'{time.isoformat()}'"), (time, f"timestamp '{time.strftime('%Y-%m-%dT%H:%M:%S')}'")]
        )
    ),
}


def name_text(name: str) -> str:
    return name if name.isidentifier() else f'"{name}"'


def _null_or(row: Row, name: str, test: Callable[[Any], bool]) -> bool | None:
    return None if row[name] is None else test(row[name])


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.DOTALL) is not None


@st.composite
def _compare(draw: st.DrawFn) -> tuple[str, Truth]:
    name = draw(st.sampled_from(sorted(_LITERALS)))
    value, text = draw(_LITERALS[name])
    operator = draw(st.sampled_from(sorted(_OPERATORS)))
    shown = f"{name_text(name)} {operator} {text}"
    if draw(st.booleans()):
        shown = f"{text}{_FLIPPED[operator]}{name_text(name)}"
    return shown, lambda row: _null_or(row, name, lambda have: _OPERATORS[operator](have, value))


@st.composite
def _in(draw: st.DrawFn) -> tuple[str, Truth]:
    name = draw(st.sampled_from(sorted(_LITERALS)))
    chosen = draw(st.lists(_LITERALS[name], min_size=1, max_size=3))
    values = [value for value, _ in chosen]
    return (
        f"{name_text(name)} in ({', '.join(text for _, text in chosen)})",
        lambda row: _null_or(row, name, lambda have: have in values),
    )


@st.composite
def _between(draw: st.DrawFn) -> tuple[str, Truth]:
    name = draw(st.sampled_from(sorted(_LITERALS)))
    (low, low_text), (high, high_text) = draw(_LITERALS[name]), draw(_LITERALS[name])
    negated = draw(st.booleans())
    shown = f"{name_text(name)} {'NOT ' if negated else ''}BETWEEN {low_text} AND {high_text}"
    return shown, lambda row: _null_or(row, name, lambda have: (low <= have <= high) != negated)


_others: list[tuple[str, Truth]] = [
    ("venue LIKE 'a%'", lambda row: _null_or(row, "venue", lambda v: _like("a.*", v))),
    ("venue LIKE 'a_b'", lambda row: _null_or(row, "venue", lambda v: _like("a.b", v))),
    ("venue LIKE '_'", lambda row: _null_or(row, "venue", lambda v: _like(".", v))),
    ("venue NOT LIKE 'A\\%'", lambda row: _null_or(row, "venue", lambda v: v != "A%")),
    ("venue LIKE '%\\\\%'", lambda row: _null_or(row, "venue", lambda v: "\\" in v)),
    ("venue LIKE 'A!%' ESCAPE '!'", lambda row: _null_or(row, "venue", lambda v: v == "A%")),
    ("venue LIKE '%\\s%' ESCAPE '!'", lambda row: _null_or(row, "venue", lambda v: "\\s" in v)),
    ("'a' IN tags", lambda row: _null_or(row, "tags", lambda v: "a" in v)),
    ("'it''s' NOT IN tags", lambda row: _null_or(row, "tags", lambda v: "it's" not in v)),
    ("tags IS NULL", lambda row: row["tags"] is None),
    ("year is not null", lambda row: row["year"] is not None),
    ("open", lambda row: row["open"]),
    ("open = false", lambda row: _null_or(row, "open", lambda v: v is False)),
    ("TRUE <> open", lambda row: _null_or(row, "open", lambda v: v is not True)),
]


def _not(part: tuple[str, Truth]) -> tuple[str, Truth]:
    def truth(row: Row) -> bool | None:
        value = part[1](row)
        return None if value is None else not value

    return f"NOT ({part[0]})", truth


def _join(parts: list[tuple[str, Truth]], word: str) -> tuple[str, Truth]:
    decisive = word == "OR"

    def truth(row: Row) -> bool | None:
        values = [part(row) for _, part in parts]
        if decisive in values:
            return decisive
        return None if None in values else not decisive

    return f" {word} ".join(f"({text})" for text, _ in parts), truth


filters: st.SearchStrategy[tuple[str, Truth]] = st.recursive(
    _compare() | _in() | _between() | st.sampled_from(_others),
    lambda inner: (
        inner.map(_not)
        | st.tuples(st.lists(inner, min_size=2, max_size=3), st.sampled_from(["AND", "OR"])).map(lambda p: _join(*p))
    ),
    max_leaves=5,
)
"""(where text, the same as a function of a row)."""
