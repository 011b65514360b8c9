"""Pairs of sentences that say the same or not: the Microsoft Research Paraphrase Corpus, from the set "mrpc".

Source: Dolan and Brockett 2005, "Automatically Constructing a Corpus of Sentential Paraphrases". Legend: n pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextvec.data.catalog import locate
from nextvec.data.lines import read_lines
from nextvec.types import InputError, did_you_mean

__all__ = ["LabelledPairs", "mrpc"]

_FILES = {"train": "msr-para-train.tsv", "dev": "msr-para-val.tsv", "test": "msr-para-test.tsv"}
_HEADER = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]


@dataclass(frozen=True, slots=True)
class LabelledPairs:
    """n texts, n others, and bool [n] labels: whether the two belong together."""

    first: list[str]
    second: list[str]
    labels: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)


def mrpc(split: str = "test", *, folder: Path | None = None) -> LabelledPairs:
    """The "train" (3,576 pairs), "dev" (500) or "test" (1,725) part, in the file's order.

    folder: where msr-para-*.tsv lie (None: the catalogued set). NotFoundError, with what to do, where it is not on
    this machine; InputError for a line that is no labelled pair.
    """
    if split not in _FILES:
        raise InputError(f"split is {split!r}; expected one of {', '.join(_FILES)}{did_you_mean(split, _FILES)}")
    (place, header), *lines = read_lines((folder or locate("mrpc")) / _FILES[split])
    if header.split("\t") != _HEADER:
        raise InputError(f"{place}: expected the header {' '.join(_HEADER)}, divided by tabs")
    first, second, labels = [], [], []
    for place, line in lines:
        fields = line.split("\t")
        if len(fields) != len(_HEADER) or fields[0] not in ("0", "1"):
            raise InputError(f"{place}: expected 0 or 1, two numbers and two sentences, divided by tabs")
        first.append(fields[3].strip())
        second.append(fields[4].strip())
        labels.append(fields[0] == "1")
    if not labels:
        raise InputError(f"{_FILES[split]} holds no pair: the file is damaged or truncated")
    return LabelledPairs(first, second, np.array(labels, dtype=np.bool_))
