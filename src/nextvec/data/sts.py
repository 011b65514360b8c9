"""Pairs of sentences with people's scores of how alike they mean: STS Benchmark, SemEval STS 2012 to 2016, SICK.

Sources: STS Benchmark, Cer et al. 2017, "SemEval-2017 Task 1" (arXiv 1708.00055); SemEval STS, Agirre et al. 2012 to
2016; SICK, Marelli et al. 2014, "A SICK cure for the evaluation of compositional distributional semantic models". The
copies of STS at hand are tokenised (spaces around punctuation) and lower-case in parts, so figures on them are not to
the digit those of other copies. Legend: n pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextvec.data.catalog import locate
from nextvec.data.lines import number, read_lines
from nextvec.files import storage_error
from nextvec.types import InputError, did_you_mean

__all__ = ["SPLITS", "YEARS", "ScoredPairs", "sick", "sts_benchmark", "sts_year"]

SPLITS = ("train", "dev", "test")
YEARS = (2012, 2013, 2014, 2015, 2016)
_SICK = {"train": "SICK_train.txt", "dev": "SICK_trial.txt", "test": "SICK_test_annotated.txt"}
_HEADER = ["pair_ID", "sentence_A", "sentence_B", "relatedness_score", "entailment_judgment"]


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """n texts, n others, and float64 [n] scores: the higher, the more alike (0 to 5 for sentences)."""

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
    path = (folder or locate("sts")) / "STSBenchmark" / f"sts-{_split(split)}.csv"
    return _pairs([_benchmark_row(line, place) for place, line in _lines(path)])


def sts_year(year: int, *, folder: Path | None = None) -> ScoredPairs:
    """The test pairs of SemEval STS in ``year``, all of its parts one after the other by name: 3,108 (2012), 1,500
    (2013: without SMT, which is not free), 3,750 (2014), 3,000 (2015) or 1,186 (2016). Pairs that were never scored
    are left out.

    folder: where STS12-en-test and so on lie (None: the catalogued set). InputError for another year, a part without
    scores, or a file with more or fewer lines than its scores.
    """
    if year not in YEARS:
        raise InputError(f"no STS of {year}; expected one of {', '.join(map(str, YEARS))}")
    place = (folder or locate("sts")) / f"STS{year - 2000}-en-test"
    rows = []
    for path in sorted(place.glob("STS.input.*.txt")):
        scores = place / path.name.replace("STS.input.", "STS.gs.")
        rows += _year_rows(path, scores)
    if not rows:
        raise InputError(f"{str(place)!r} holds no scored pair (STS.input.*.txt with STS.gs.*.txt)")
    return _pairs(rows)


def sick(split: str = "test", *, folder: Path | None = None) -> ScoredPairs:
    """SICK's relatedness (1 to 5): "train" (4,500 pairs), "dev" (500) or "test" (4,927).

    folder: where sick2014/SICK_*.txt lie (None: the catalogued set "sts_tsv"). Errors as ``sts_benchmark``.
    """
    path = (folder or locate("sts_tsv")) / "sick2014" / _SICK[_split(split)]
    (place, header), *lines = _lines(path)
    if header.split("\t") != _HEADER:
        raise InputError(f"{place}: expected the header {' '.join(_HEADER)}, divided by tabs")
    rows = []
    for place, line in lines:
        fields = line.split("\t")
        if len(fields) != len(_HEADER):
            raise InputError(f"{place}: {len(fields)} fields divided by tabs; expected {len(_HEADER)}")
        rows.append((fields[1].strip(), fields[2].strip(), number(fields[3], place, "score", 1, 5)))
    if not rows:
        raise InputError(f"{str(path)!r} holds no pair: the file is damaged or truncated")
    return _pairs(rows)


def _split(split: str) -> str:
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; expected one of {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}")
    return split


def _lines(path: Path) -> list[tuple[str, str]]:
    try:
        return read_lines(path)
    except InputError as error:
        if "holds no line" in str(error):
            raise InputError(f"{str(path)!r} holds no pair: the file is damaged or truncated") from error
        raise


def _pairs(rows: list[tuple[str, str, float]]) -> ScoredPairs:
    first, second, scores = zip(*rows, strict=True)
    return ScoredPairs(list(first), list(second), np.array(scores, dtype=np.float64))


def _benchmark_row(line: str, place: str) -> tuple[str, str, float]:
    """Genre, file, year, number, score and two sentences, divided by tabs; quotation marks mean themselves, and some
    lines go on with their sources."""
    fields = line.split("\t")
    try:
        float(fields[4])
        first, second = (fields[i].strip() for i in (5, 6))
    except (IndexError, ValueError) as error:
        raise InputError(
            f"{place}: expected a score and two sentences as the 5th to 7th of fields divided by tabs"
        ) from error
    return first, second, number(fields[4], place, "score", 0, 5)


def _year_rows(path: Path, scored: Path) -> list[tuple[str, str, float]]:
    """The pairs of one part that have a score; line i of both files belongs together, and an empty score is none."""
    try:
        # Not read_lines: here empty lines count.
        inputs, scores = (
            file.read_bytes().decode().removesuffix("\n").replace("\r\n", "\n").split("\n") for file in (path, scored)
        )
    except OSError as error:
        raise storage_error(error, error.filename or path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} or {scored.name} is not UTF-8: the file is damaged") from error
    if len(scores) != len(inputs):
        raise InputError(f"{path.name} has {len(inputs)} lines and {scored.name} {len(scores)}: a file is damaged")
    rows = []
    for i, (line, score) in enumerate(zip(inputs, scores, strict=True), 1):
        if not score.strip():
            continue
        fields = line.split("\t")
        if len(fields) < 2:
            raise InputError(f"{path.name}:{i}: expected two sentences divided by a tab")
        rows.append((fields[0].strip(), fields[1].strip(), number(score.strip(), f"{scored.name}:{i}", "score", 0, 5)))
    return rows
