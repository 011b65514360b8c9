"""Questions with the steps to their answers.

A file has a record per line: {"question": ..., "steps": [...] or "...", "answer": ...}; a .json file is a list of such
records, as ProsQA is published. A text file has the form of iCoT, ``question||<<3*2=6>> <<6+1=7>> #### 7``, or with
sentences for steps. The steps of GSM8K's own records, whose answer holds them as ``<<...>>`` before ``####``, are taken
out of it. Legend: n questions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextvec.data.lines import read_lines
from nextvec.data.readers import read_located
from nextvec.files import storage_error
from nextvec.types import InputError

__all__ = ["Chain", "read_chains"]

_STEP = re.compile(r"<<[^<>]*>>")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Chain:
    """A question, the steps to its answer, and the answer."""

    question: str
    steps: tuple[str, ...]
    answer: str


def read_chains(path: Path) -> list[Chain]:
    """The chains of a file (see above). InputError, naming the place, for a record without a question or an answer,
    and for an empty step."""
    if path.suffix == ".txt":
        found = [_icot(line, place) for place, line in read_lines(path)]
    else:
        found = list(_records(path))
    if not found:
        raise InputError(f"{str(path)!r} holds no questions")
    return found


def _located(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records with their places."""
    if path.suffix != ".json":
        yield from read_located(path, fields=("question", "answer"))
        return
    try:
        records = json.loads(path.read_bytes())
    except OSError as error:
        raise storage_error(error, path) from error
    except ValueError as error:
        raise InputError(f"{path.name}: no valid JSON ({error})") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError(f"{path.name}: expected a list of records; one record per line belongs in a .jsonl file")
    yield from ((f"{path.name}: record {number}", record) for number, record in enumerate(records, 1))


def _records(path: Path) -> Iterator[Chain]:
    for place, record in _located(path):
        question, answer, steps = (record.get(name) for name in ("question", "answer", "steps"))
        if steps is None and isinstance(answer, str) and "####" in answer:
            before, _, answer = answer.rpartition("####")
            steps = _STEP.findall(before)
        yield _checked(question, [] if steps is None else steps, answer, place)


def _icot(line: str, place: str) -> Chain:
    question, bar, rest = line.partition("||")
    steps, mark, answer = rest.rpartition("####")
    if not bar or not mark:
        raise InputError(f"{place}: {line[:60]!r} is not 'question||steps #### answer'")
    found = _STEP.findall(steps) or (_SENTENCE_END.split(steps.strip()) if steps.strip() else [])
    return _checked(question, found, answer, place)


def _checked(question: Any, steps: Any, answer: Any, place: str) -> Chain:
    if isinstance(steps, str):
        steps = [steps] if steps.strip() else []  # an empty text in place of a list says that there are no steps
    answer = str(answer) if isinstance(answer, int | float) and not isinstance(answer, bool) else answer
    texts = [question, answer, *steps] if isinstance(steps, list | tuple) else [None]
    if not all(isinstance(text, str) for text in texts) or not question.strip() or not answer.strip():
        raise InputError(f"{place}: a question, its steps (a list of texts, or one text) and an answer are needed")
    empty = next((number for number, step in enumerate(steps, 1) if not step.strip()), None)
    if empty is not None:
        raise InputError(f"{place}: step {empty} of {len(steps)} is empty: take it out, or write what it says")
    return Chain(question.strip(), tuple(step.strip() for step in steps), answer.strip())
