"""STS Benchmark: pairs of sentences with people's scores of how alike they mean, from the catalogued set "sts".

Source: Cer et al. 2017, "SemEval-2017 Task 1" (arXiv 1708.00055). The copy at hand is tokenised (spaces around
punctuation) and lower-case in parts, so figures on it are not to the digit those of other copies. Legend: n pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextvec.data.catalog import locate
from nextvec.files import storage_error
from nextvec.types import InputError, did_you_mean

__all__ = ["SPLITS", "ScoredPairs", "sts_benchmark"]

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """n sentences, n others, and float64 [n] scores: 0 (nothing in common) to 5 (the same meaning)."""

    first: list[str]
    second: list[str]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)


def sts_benchmark(split: str = "test", *, folder: Path | None = None) -> ScoredPairs:
    """The "train" (5,749 pairs), "dev" (1,500) or "test" (1,379) part, in the file's order.

    folder: where STSBenchmark/sts-*.csv lie (None: the catalogued set). NotFoundError, with what to do, where it is not
    on this machine; InputError for a line that is no scored pair.
    """
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; expected one of {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}")
    path = (folder or locate("sts")) / "STSBenchmark" / f"sts-{split}.csv"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise storage_error(error, path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not UTF-8: the file is damaged") from error
    rows = [_row(line, f"{path.name}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise InputError(f"{str(path)!r} holds no pair: the file is damaged or truncated")
    first, second, scores = zip(*rows, strict=True)
    return ScoredPairs(list(first), list(second), np.array(scores, dtype=np.float64))


def _row(line: str, place: str) -> tuple[str, str, float]:
    """Genre, file, year, number, score and two sentences, divided by tabs; quotation marks mean themselves, and some
    lines go on with their sources."""
    fields = line.rstrip("\r").split("\t")
    try:
        score = float(fields[4])
        first, second = (fields[i].strip() for i in (5, 6))
    except (IndexError, ValueError) as error:
        raise InputError(
            f"{place}: expected a score and two sentences as the 5th to 7th of fields divided by tabs"
        ) from error
    if not 0 <= score <= 5:
        raise InputError(f"{place}: the score is {score}; expected 0 to 5")
    return first, second, score
