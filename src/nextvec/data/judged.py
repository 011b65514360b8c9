"""Pairs of sentences that people judged: a class, yes or no, or a score, from a user's file.

Legend: n pairs, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.data.readers import read_located
from nextvec.types import InputError

__all__ = ["JudgedPairs", "read_judged"]

_FIRST = ("first", "sentence1", "text1")
_SECOND = ("second", "sentence2", "text2")


@dataclass(frozen=True, slots=True)
class JudgedPairs:
    """n texts and n others; kind: "classes" (label: int64 [n], numbers of ``names``), "binary" (label: 0 or 1) or
    "score" (label: float [n])."""

    first: list[str]
    second: list[str]
    label: NDArray[Any]
    kind: str
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.first)

    @property
    def outputs(self) -> int:
        """Logits that a model of them has: C, or 1."""
        return len(self.names) if self.kind == "classes" else 1


def read_judged(path: Path) -> JudgedPairs:
    """Records with two texts ("first" and "second", or "sentence1" and "sentence2") and, in all of them, a "score" (a
    number) or a "label" (0 and 1, true and false, or names of classes, two or more).

    Raises InputError with file and line for a record without them, and where all labels are the same.
    """
    first: list[str] = []
    second: list[str] = []
    scores: list[float] = []
    labels: list[str] = []
    field = None
    for place, record in read_located(path):
        found = next((name for name in ("score", "label") if record.get(name) is not None), None)
        field = field or found
        if found is None or found != field:
            raise InputError(f"{place}: expected {repr(field) if field else 'a score or a label'} in every record")
        first.append(_text(record, _FIRST, place))
        second.append(_text(record, _SECOND, place))
        if field == "score":
            scores.append(_number(record["score"], place))
        else:
            labels.append(str(record["label"]).strip())
    different = len(set(scores)) + len(set(labels))
    if different < 2:
        raise InputError(f"{str(path)!r} holds {len(first)} pairs with {different} different labels; 2 are needed")
    if field == "score":
        return JudgedPairs(first, second, np.array(scores, np.float32), "score")
    truth = {"0": 0, "1": 1, "false": 0, "true": 1}
    if {label.lower() for label in labels} <= truth.keys():
        return JudgedPairs(first, second, np.array([truth[label.lower()] for label in labels], np.int64), "binary")
    names = tuple(sorted(set(labels)))
    return JudgedPairs(first, second, np.array([names.index(label) for label in labels], np.int64), "classes", names)


def _text(record: dict[str, Any], names: tuple[str, ...], place: str) -> str:
    text = next((record[name] for name in names if record.get(name) is not None), None)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{place}: expected a text in {' or '.join(map(repr, names))}; got {text!r:.40}")
    return " ".join(text.split())


def _number(value: Any, place: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise InputError(f"{place}: score is {value!r:.40}; expected a number")
    return number
