"""Pairs of sentences that people judged: a class, yes or no, or a score, from a user's file.

Legend: n pairs, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.data.pairs import field_text
from nextvec.data.readers import Record, read_located
from nextvec.types import InputError

__all__ = ["FIRST", "SECOND", "JudgedPairs", "read_judged", "read_score"]

FIRST = ("first", "sentence1", "text1")
SECOND = ("second", "sentence2", "text2")


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
        first.append(field_text(record, FIRST, place))
        second.append(field_text(record, SECOND, place))
        if field == "score":
            scores.append(read_score(record, place))
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


def read_score(record: Record, place: str) -> float:
    """The number in the field "score". InputError with ``place`` for what is none."""
    value: Any = record.get("score")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if isinstance(value, bool) or not np.isfinite(number):
        raise InputError(f"{place}: field 'score' is {value!r:.40}; expected a finite number")
    return number
