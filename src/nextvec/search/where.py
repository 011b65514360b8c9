"""``where`` texts: tokens, grammar and types. The result is a typed tree (``filters``), never a string.

expression := conjunction (OR conjunction)*
conjunction := negation (AND negation)*
negation := NOT negation | "(" expression ")" | predicate
predicate := column (= | == | != | <> | < | <= | > | >=) literal      (also literal operator column)
           | column [NOT] IN "(" literal ("," literal)* ")"
           | column [NOT] BETWEEN literal AND literal
           | column [NOT] LIKE text [ESCAPE character]
           | column IS [NOT] NULL
           | text [NOT] IN list-column
           | bool-column
literal := text in single quotes | number | TRUE | FALSE | DATE text | TIMESTAMP text
column := word | "any name in double quotes"
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, cast

from nextvec.search.filters import (
    And,
    Column,
    Compare,
    Contains,
    Filter,
    In,
    IsNull,
    IsTrue,
    Like,
    Not,
    Operator,
    Or,
    Value,
)
from nextvec.search.inputs import to_date, to_timestamp
from nextvec.types import InputError, did_you_mean

MAX_LENGTH = 10_000
MAX_DEPTH = 50

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*')
      | (?P<name>"(?:[^"]|"")*")
      | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<word>[^\W\d]\w*)
      | (?P<symbol><=|>=|<>|!=|==|[=<>(),+-])
    )""",
    re.VERBOSE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_WORDS = {"AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "BETWEEN", "ESCAPE", "TRUE", "FALSE"}
_SAME: dict[str, Operator] = {
    "=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
}  # fmt: skip
_FLIPPED: dict[Operator, Operator] = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # text, name, number, word, symbol, end; keywords and symbols are matched by ``upper``
    value: str
    position: int

    @property
    def upper(self) -> str:
        return self.value.upper() if self.kind in ("word", "symbol") else ""


@dataclass(frozen=True, slots=True)
class _Literal:
    value: Value
    position: int
    shown: str


def parse(text: str, columns: Mapping[str, str]) -> Filter:
    """The typed tree of a filter. ``columns`` maps each name that may be used to its type in the schema.

    Raises InputError with the place of the fault. Length is limited to 10,000 characters, nesting to 50 levels.
    """
    if not isinstance(text, str):
        raise InputError(f'where is a {type(text).__name__}: expected text such as "year >= 2024"')
    if len(text) > MAX_LENGTH:
        raise InputError(f"where has {len(text)} characters: at most {MAX_LENGTH} are allowed")
    control = _CONTROL.search(text)
    if control:
        raise InputError(f"where holds the control character {control[0]!r} at position {control.start() + 1}")
    return _Parser(text, columns).whole()


class _Parser:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, text: str, columns: Mapping[str, str]) -> None:
        self.text = text
        self.columns = columns
        self.tokens = self._tokens()
        self.at = 0
        self.depth = 0

    def fail(self, message: str, position: int) -> NoReturn:
        """One line: what is wrong, where, and the text around with a mark before the place."""
        start, end = max(0, position - 30), position + 30
        before, after = self.text[start:position], self.text[position:end]
        around = ("..." if start else "") + before + ">>>" + after + ("..." if end < len(self.text) else "")
        around = " ".join(around.split())
        raise InputError(f"where, position {position + 1}: {message} (at >>> in: {around})")

    def _tokens(self) -> list[_Token]:
        tokens, position = [], 0
        while position < len(self.text):
            found = _TOKEN.match(self.text, position)
            if not found:
                rest = self.text[position:].lstrip()
                if not rest:
                    break
                start = len(self.text) - len(rest)
                if rest[0] in "'\"":
                    self.fail(f"the quote {rest[0]} is not closed", start)
                if rest[0].isdigit() or rest[0] == ".":
                    self.fail("this is not a number", start)
                self.fail(f"unexpected character {rest[0]!r}", start)
            kind = str(found.lastgroup)
            tokens.append(_Token(kind, found[kind], found.start(kind)))
            position = found.end()
        tokens.append(_Token("end", "the end", len(self.text)))
        return tokens

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        token = self.next
        self.at += token.kind != "end"
        return token

    def accept(self, *uppers: str) -> bool:
        """Step over these keywords or symbols if they come next, all of them or none."""
        following = self.tokens[self.at : self.at + len(uppers)]
        if tuple(token.upper for token in following) != uppers:
            return False
        self.at += len(uppers)
        return True

    def expect(self, upper: str, why: str) -> None:
        if not self.accept(upper):
            self.fail(f"expected {upper} {why}, found {self.next.value!r}", self.next.position)

    def whole(self) -> Filter:
        if self.next.kind == "end":
            raise InputError("where is empty: leave it out (None) to match every row")
        tree = self.expression()
        if self.next.kind != "end":
            self.fail(f"expected AND, OR or the end, found {self.next.value!r}", self.next.position)
        return tree

    def expression(self) -> Filter:
        parts = [self.conjunction()]
        while self.accept("OR"):
            parts.append(self.conjunction())
        return Or(tuple(parts)) if len(parts) > 1 else parts[0]

    def conjunction(self) -> Filter:
        parts = [self.negation()]
        while self.accept("AND"):
            parts.append(self.negation())
        return And(tuple(parts)) if len(parts) > 1 else parts[0]

    def negation(self) -> Filter:
        start = self.next.position
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested more than {MAX_DEPTH} levels deep", start)
        if self.accept("NOT"):
            tree: Filter = Not(self.negation())
        elif self.accept("("):
            tree = self.expression()
            self.expect(")", f"to close the parenthesis at position {start + 1}")
        else:
            tree = self.predicate()
        self.depth -= 1
        return tree

    def predicate(self) -> Filter:
        token = self.next
        if self._starts_literal():
            return self._literal_first()
        if token.kind not in ("word", "name") or token.upper in _WORDS:
            self.fail(f"expected an attribute or a value, found {token.value!r}", token.position)
        column = self.column()
        negated = self.accept("NOT")
        if self.accept("IN"):
            tree: Filter = self._in(column, token)
        elif self.accept("BETWEEN"):
            low = self._ordered(column, ">=", self.literal(column), token)
            self.expect("AND", "between the two bounds")
            tree = And((Compare(column, ">=", low), Compare(column, "<=", self.literal(column))))
        elif self.accept("LIKE"):
            tree = self._like(column, token)
        elif negated:
            self.fail(f"expected IN, BETWEEN or LIKE after NOT, found {self.next.value!r}", self.next.position)
        elif self.accept("IS"):
            negated = self.accept("NOT")
            self.expect("NULL", "after IS")
            tree = IsNull(column)
        elif self.next.upper in _SAME:
            operator = _SAME[self.take().upper]
            tree = Compare(column, operator, self._ordered(column, operator, self.literal(column), token))
        elif column.kind == "bool":
            tree = IsTrue(column)
        else:
            self.fail(
                f"expected a comparison after {column.name!r} ({column.kind}), found {self.next.value!r}",
                self.next.position,
            )
        return Not(tree) if negated else tree

    def column(self) -> Column:
        token = self.take()
        name = token.value[1:-1].replace('""', '"') if token.kind == "name" else token.value
        if name not in self.columns:
            known = ", ".join(self.columns)
            hint = did_you_mean(name, self.columns)
            quotes = "; text goes in single quotes" if token.kind == "name" and not hint else ""
            self.fail(f"unknown attribute {name!r} (known: {known}){hint}{quotes}", token.position)
        return Column(name, self.columns[name])

    def _starts_literal(self) -> bool:
        token = self.next
        if token.kind in ("text", "number") or token.upper in ("TRUE", "FALSE", "NULL", "+", "-"):
            return True
        # DATE and TIMESTAMP are ordinary names unless a text follows.
        return token.upper in ("DATE", "TIMESTAMP") and self.tokens[self.at + 1].kind == "text"

    def _literal_first(self) -> Filter:
        literal = self._raw()
        negated = self.accept("NOT")
        if self.accept("IN"):
            token = self.next
            if token.kind not in ("word", "name"):
                self.fail(f"expected a list attribute after IN, found {token.value!r}", token.position)
            column = self.column()
            if column.kind != "list[string]":
                self.fail(f"{column.name!r} is {column.kind}, not a list: write {column.name} = ...", token.position)
            if not isinstance(literal.value, str):
                self.fail(f"{column.name!r} holds strings: expected a text in quotes", literal.position)
            found = Contains(column, literal.value)
            return Not(found) if negated else found
        if negated or self.next.upper not in _SAME:
            self.fail(f"expected a comparison after a value, found {self.next.value!r}", self.next.position)
        operator = _FLIPPED[_SAME[self.take().upper]]
        token = self.next
        if token.kind not in ("word", "name") or token.upper in _WORDS:
            self.fail(f"expected an attribute, found {token.value!r}", token.position)
        column = self.column()
        return Compare(column, operator, self._ordered(column, operator, self._typed(column, literal), token))

    def _in(self, column: Column, token: _Token) -> Filter:
        if self.next.kind in ("word", "name"):
            self.fail("expected a value before IN and a list attribute after it, or IN (...)", token.position)
        self.expect("(", "after IN")
        values = [self.literal(column)]
        while self.accept(","):
            values.append(self.literal(column))
        self.expect(")", "after the values of IN")
        return In(column, tuple(values))

    def _like(self, column: Column, token: _Token) -> Filter:
        if column.kind != "string":
            self.fail(f"LIKE needs a string attribute, {column.name!r} is {column.kind}", token.position)
        start = self.next.position
        pattern = self._text("a pattern after LIKE")
        escape = "\\"
        if self.accept("ESCAPE"):
            place = self.next.position
            escape = self._text("a character after ESCAPE")
            if len(escape) != 1:
                self.fail("ESCAPE takes exactly one character", place)
        canonical, characters = "", iter(pattern)
        for character in characters:
            if character == escape:
                following = next(characters, None)
                if following is None:
                    self.fail(f"the pattern ends with the escape character {escape!r}", start)
                canonical += "\\" + following if following in "%_\\" else following
            else:
                canonical += "\\\\" if character == "\\" else character
        return Like(column, canonical)

    def _text(self, what: str) -> str:
        if self.next.kind != "text":
            self.fail(f"expected {what}, found {self.next.value!r}", self.next.position)
        return self.take().value[1:-1].replace("''", "'")

    def literal(self, column: Column) -> Value:
        """The next literal, as a value of the column's type."""
        if not self._starts_literal():
            hint = ""
            if self.next.kind == "name":
                hint = ": text goes in single quotes"
            elif self.next.kind == "word" and column.kind in ("string", "date", "timestamp", "list[string]"):
                hint = f": put text in quotes, '{self.next.value}'"
            self.fail(
                f"expected a value to compare {column.name!r} with, found {self.next.value!r}{hint}",
                self.next.position,
            )
        return self._typed(column, self._raw())

    def _raw(self) -> _Literal:
        token = self.take()
        if token.kind == "text":
            return _Literal(token.value[1:-1].replace("''", "'"), token.position, token.value)
        if token.upper in ("TRUE", "FALSE"):
            return _Literal(token.upper == "TRUE", token.position, token.value)
        if token.upper == "NULL":
            self.fail("nothing is equal to NULL: write IS NULL or IS NOT NULL", token.position)
        if token.upper in ("DATE", "TIMESTAMP"):
            text = self._text("a text")
            convert = to_date if token.upper == "DATE" else to_timestamp
            try:
                return _Literal(convert(text), token.position, f"{token.value} {text!r}")
            except ValueError:
                self.fail(f"{text!r} is not a {token.value.lower()} (expected ISO 8601)", token.position)
        sign = ""
        if token.kind == "symbol":
            sign = "-" if token.value == "-" else ""
            start, token = token.position, self.take()
            if token.kind != "number":
                self.fail(f"expected a number after the sign, found {token.value!r}", start)
        return _Literal(self._number(sign + token.value, token), token.position, sign + token.value)

    def _number(self, text: str, token: _Token) -> int | float:
        if text.lstrip("-").isdigit():
            if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
                self.fail("a whole number must fit 64 bits", token.position)
            return int(text)
        value = float(text)
        if math.isinf(value):
            self.fail("the number is too large", token.position)
        return value

    def _typed(self, column: Column, literal: _Literal) -> Value:
        value, kind = literal.value, column.kind
        if kind == "list[string]":
            self.fail(f"{column.name!r} is a list: write 'value' IN {column.name}, or IS NULL", literal.position)
        if kind in ("date", "timestamp") and isinstance(value, str):
            try:
                return to_date(value) if kind == "date" else to_timestamp(value)
            except ValueError:
                example = "'2024-01-31'" if kind == "date" else "'2024-01-31T12:00:00'"
                self.fail(f"{literal.shown} is not a {kind} (expected ISO 8601, as {example})", literal.position)
        if kind == "timestamp" and isinstance(value, dt.date):
            return to_timestamp(value)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits = {
            "string": isinstance(value, str),
            "bool": isinstance(value, bool),
            "int": is_number,
            "float": is_number,
            "date": isinstance(value, dt.date) and not isinstance(value, dt.datetime),
            "timestamp": isinstance(value, dt.datetime),
        }[kind]
        if not fits:
            self.fail(f"{column.name!r} is {kind}, so it cannot be compared with {literal.shown}", literal.position)
        return float(cast(float, value)) + 0.0 if kind == "float" else value

    def _ordered(self, column: Column, operator: Operator, value: Value, token: _Token) -> Value:
        if column.kind == "bool" and operator not in ("=", "!="):
            self.fail(f"{column.name!r} is bool: only = and != apply to it", token.position)
        return value
