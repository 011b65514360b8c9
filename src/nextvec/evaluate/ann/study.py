"""Readers of the files that studies of vector search publish: fvecs, bvecs, ivecs, and attributes as JSON lines.

A row of an ``.fvecs`` file is an int32 with the number of dimensions, then so many float32; ``.ivecs`` holds int32 and
``.bvecs`` bytes in their place; all little-endian. The filtered-search study (arXiv 2507.21989) keeps in one folder

    database_vectors.fvecs  query_vectors.fvecs  database_attributes.jsonl
    {em,emis,r}_query_attributes.jsonl  ground_truth{,_em,_emis,_r}.ivecs

with the filters em (``number_of_sub_categories = label``), emis (``label IN main_categories``) and r (``update_date
BETWEEN range_start AND range_end``). Its ground truth is read to be compared with ours; rows of it may be shorter than
k or filled with -1. The files are a stranger's: sizes are checked before anything is allocated, nothing is unpickled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.data.readers import read_located
from nextvec.evaluate.ann.draw import BUCKETS, bucket_of
from nextvec.evaluate.ann.workload import Cell, Group, Workload, exact, matching, truth_of, unit
from nextvec.files import storage_error
from nextvec.search.inputs import attribute_table
from nextvec.search.schema import MAX_DIM, check_schema
from nextvec.types import InputError, NotFoundError, Progress

__all__ = ["read_lists", "read_study", "read_vectors"]

_TYPES: dict[str, np.dtype[Any]] = {
    ".fvecs": np.dtype("<f4"),
    ".bvecs": np.dtype("u1"),
    ".ivecs": np.dtype("<i4"),
}
_FILTERS = {"em": "match", "emis": "set", "r": "range"}
_SCHEMA = {
    "number_of_sub_categories": "int",
    "main_categories": "list[string]",
    "update_date": "int",
    "number_of_versions": "int",
    "number_of_authors": "int",
    "license": "string",
}


def read_vectors(path: Path, *, limit: int | None = None) -> NDArray[Any]:
    """Rows of one width: [n, d] of float32, uint8 or int32, by the ending. limit: at most so many rows.

    InputError for another ending, a width that is not 1 to 65,536, a row of another width, and a cut-off end.
    """
    size, dtype = _opened(path)
    try:
        with path.open("rb") as stream:
            width = int.from_bytes(stream.read(4), "little", signed=True)
    except OSError as error:
        raise storage_error(error, path) from error
    if not 1 <= width <= MAX_DIM:
        raise InputError(f"{path.name}: the first row says {width} dimensions; expected 1 to {MAX_DIM}")
    stride = 4 + width * dtype.itemsize
    rows, rest = divmod(size, stride)
    if rest:
        raise InputError(
            f"{path.name}: {size} bytes are not whole rows of {width} dimensions ({stride} bytes each): is it cut off?"
        )
    rows = rows if limit is None else min(rows, limit)
    raw = np.memmap(path, np.uint8, "r", shape=(rows, stride))
    heads = np.ascontiguousarray(raw[:, :4]).view("<i4")[:, 0]
    if (heads != width).any():
        bad = int(np.flatnonzero(heads != width)[0])
        raise InputError(f"{path.name}: row {bad} says {heads[bad]} dimensions, the first {width}")
    return np.ascontiguousarray(raw[:, 4:]).view(dtype)


def read_lists(path: Path) -> list[NDArray[np.int32]]:
    """The rows of an ``.ivecs`` file, which may differ in length; trailing -1 are taken away. InputError."""
    size, dtype = _opened(path)
    if dtype.kind != "i":
        raise InputError(f"{path.name}: expected an .ivecs file")
    numbers = np.fromfile(path, dtype) if size % 4 == 0 else np.empty(0, dtype)
    rows: list[NDArray[np.int32]] = []
    at = 0
    while at < len(numbers):
        length = int(numbers[at])
        if not 0 <= length <= len(numbers) - at - 1:
            raise InputError(f"{path.name}: row {len(rows)} says {length} numbers, {len(numbers) - at - 1} are left")
        row = numbers[at + 1 : at + 1 + length].astype(np.int32)
        rows.append(row[: length - int(np.argmax(row[::-1] != -1))] if (row != -1).any() else row[:0])
        at += 1 + length
    if size % 4:
        raise InputError(f"{path.name}: {size} bytes are not whole int32 numbers: is it cut off?")
    return rows


def _opened(path: Path) -> tuple[int, np.dtype[Any]]:
    if path.suffix not in _TYPES:
        raise InputError(f"{path.name}: cannot tell the format from the ending; expected {', '.join(_TYPES)}")
    if not path.is_file():
        raise NotFoundError(f"{str(path)!r} does not exist or is no file")
    size = path.stat().st_size
    if size < 4:
        raise InputError(f"{path.name}: {size} bytes; expected at least one row")
    return size, _TYPES[path.suffix]


def read_study(
    folder: Path, *, k: int = 10, limit: int | None = None, queries: int = 1_000, progress: Progress | None = None
) -> Workload:
    """The study's folder as a workload. Each query has filters of its own; those between two buckets are left out.

    limit: at most so many base rows (the study's ground truth is then not compared); queries: at most so many of its
    queries. InputError and NotFoundError for files that are missing, damaged or do not fit together, and where the
    published ground truth disagrees with the exact answers.
    """
    vectors = unit(read_vectors(folder / "database_vectors.fvecs", limit=limit), "database_vectors")
    asked = unit(read_vectors(folder / "query_vectors.fvecs", limit=queries), "query_vectors")
    if vectors.shape[1] != asked.shape[1]:
        raise InputError(f"database vectors have {vectors.shape[1]} dimensions, query vectors {asked.shape[1]}")
    attributes = _attributes(folder / "database_attributes.jsonl", len(vectors), exact_count=limit is None)
    groups: list[Group] = []
    left_out: dict[str, str] = {}
    numbers = np.arange(len(asked))
    groups.append(Group(Cell("none", 100.0, "independent"), None, len(vectors), tuple(numbers.tolist()), 1.0))
    nearest = exact(vectors, None, asked, min(100, len(vectors)))
    for name, kind in _FILTERS.items():
        path = folder / f"{name}_query_attributes.jsonl"
        by_filter: dict[str, list[int]] = defaultdict(list)
        for number, text in enumerate(_filters(path, name, len(asked))):
            by_filter[text].append(number)
        passed = 0
        for text, who in by_filter.items():
            mask = matching(attributes, _SCHEMA, text)
            bucket = bucket_of(float(mask.mean()))
            if bucket is None:
                passed += len(who)
                continue
            lift = float(mask[nearest[who]].mean() / mask.mean())
            groups.append(Group(Cell(kind, bucket, "independent"), text, int(mask.sum()), tuple(who), round(lift, 4)))
        if passed:
            left_out[f"{name}: {passed} queries"] = f"their selectivity lies between the buckets {BUCKETS}"
    groups.sort(key=lambda group: (group.cell.kind != "none", group.cell.kind, group.cell.bucket))
    truth = truth_of(vectors, attributes, _SCHEMA, asked, groups, k, progress)
    found = Workload(
        name=f"study-{folder.name}", vectors=vectors, attributes=attributes, schema=_SCHEMA, queries=asked,
        groups=tuple(groups), truth=truth, left_out=left_out,
        facts={"source": folder.name, "rows": len(vectors), "dim": vectors.shape[1], "k": k},
    )  # fmt: skip
    if limit is None:
        _compare(folder, found)
    return found


def _attributes(path: Path, rows: int, *, exact_count: bool) -> pa.Table:
    records: list[Mapping[str, Any]] = []
    for place, record in read_located(path):
        if len(records) == rows:
            if exact_count:
                raise InputError(f"{place}: more attributes than the {rows} vectors")
            break
        records.append({name: record.get(name) for name in _SCHEMA})
    if len(records) < rows:
        raise InputError(f"{path.name}: {len(records)} records for {rows} vectors")
    return pa.table(attribute_table(records, check_schema(1, "cosine", _SCHEMA), rows))


def _filters(path: Path, name: str, count: int) -> list[str]:
    """The filters of the first ``count`` queries as ``where`` texts."""
    texts: list[str] = []
    for place, record in read_located(path):
        if len(texts) == count:
            break
        low, high, label = (record.get(key) for key in ("range_start", "range_end", "label"))
        if name == "r" and type(low) is int and type(high) is int:
            texts.append(f"update_date BETWEEN {low} AND {high}")
        elif name == "em" and str(label).lstrip("-").isascii() and str(label).lstrip("-").isdecimal():
            texts.append(f"number_of_sub_categories = {int(str(label))}")
        elif name == "emis" and isinstance(label, str):
            quoted = label.replace("'", "''")
            texts.append(f"'{quoted}' IN main_categories")
        else:
            raise InputError(f"{place}: no label or range of a filter in {str(record)[:80]}")
    if len(texts) < count:
        raise InputError(f"{path.name}: {len(texts)} filters for {count} queries")
    return texts


def _compare(folder: Path, workload: Workload) -> None:
    """InputError where the published answers score worse or better than ours by more than rounding."""
    names = {"none": "ground_truth", **{kind: f"ground_truth_{name}" for name, kind in _FILTERS.items()}}
    published = {kind: read_lists(path) for kind, n in names.items() if (path := folder / f"{n}.ivecs").is_file()}
    for number, group in enumerate(workload.groups):
        lists = published.get(group.cell.kind)
        if lists is None:
            continue
        for case, query in zip(workload.cases(number), group.queries, strict=True):
            ours = workload.truth[case][workload.truth[case] >= 0]
            if query >= len(lists) or (
                len(lists[query]) and not 0 <= lists[query].min() <= lists[query].max() < len(workload.vectors)
            ):
                raise InputError(f"{names[group.cell.kind]}.ivecs: no valid row for query {query}")
            theirs = lists[query][: len(ours)]
            gap = _scores(workload, query, ours).sum() - _scores(workload, query, theirs).sum()
            if len(theirs) != len(ours) or abs(gap) > 1e-4 * max(len(ours), 1):
                raise InputError(
                    f"{names[group.cell.kind]}.ivecs, query {query}: the published answer differs from the exact one "
                    f"({len(theirs)} of {len(ours)} hits, scores differ by {gap:.2g}): are vectors and filters of one "
                    "set?"
                )


def _scores(workload: Workload, query: int, rows: NDArray[np.int32]) -> NDArray[np.float64]:
    scores = workload.vectors[rows].astype(np.float64) @ workload.queries[query].astype(np.float64)
    return np.asarray(scores, np.float64)
