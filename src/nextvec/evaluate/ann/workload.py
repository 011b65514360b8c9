"""What is searched: vectors with attributes, queries, filters, and the exact answer to each.

A workload is a folder, so that every engine's process reads the same numbers:

    vectors.npy float32 [N, D]   queries.npy float32 [Q, D]   attributes.parquet N rows   truth.npy int32 [C, k]
    workload.json: schema, groups (a filter with its queries), what could not be drawn, SHA-256 of the files

A case is one query under one filter; the cases of a group follow each other, and the groups too. Vectors and queries
have length 1, scores are cosines. Legend: N rows, D dimensions, Q queries, C cases, k hits asked for.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nextvec.files import sha256, storage_error
from nextvec.search import filters, where
from nextvec.types import InputError, NotFoundError, Progress, StorageError

__all__ = ["FORMAT", "Cell", "Group", "Workload", "exact", "matching", "open_workload", "save"]

FORMAT = 1
_FILES = ("vectors.npy", "queries.npy", "attributes.parquet", "truth.npy")
_BLOCK = 65_536  # rows scored at once


@dataclass(frozen=True, slots=True)
class Cell:
    """What is measured together: a kind of filter, the share of rows that match, and how filter and query relate."""

    kind: str
    bucket: float
    correlation: str

    def __str__(self) -> str:
        return f"{self.kind} {self.bucket:.3g} % {self.correlation}"


@dataclass(frozen=True, slots=True)
class Group:
    """One filter (None: all rows) and the queries asked under it (rows of ``queries``).

    lift: the share of the queries' 100 nearest rows that match, over the share of all rows that do: 1 where filter and
    query have nothing to do with each other, above where matches are near, below where they are far.
    """

    cell: Cell
    where: str | None
    matches: int
    queries: tuple[int, ...]
    lift: float


@dataclass(frozen=True, kw_only=True)
class Workload:
    """See the module. ``left_out``: cells that the data cannot give, with the reason."""

    name: str
    vectors: NDArray[np.float32]
    attributes: pa.Table
    schema: Mapping[str, str]
    queries: NDArray[np.float32]
    groups: tuple[Group, ...]
    truth: NDArray[np.int32]
    left_out: Mapping[str, str]
    facts: Mapping[str, Any]

    @property
    def k(self) -> int:
        """Hits asked for."""
        return int(self.truth.shape[1])

    def cells(self) -> list[Cell]:
        """Every cell that has a group, in order."""
        return list(dict.fromkeys(group.cell for group in self.groups))

    def cases(self, number: int) -> range:
        """The cases of group ``number``."""
        first = sum(len(group.queries) for group in self.groups[:number])
        return range(first, first + len(self.groups[number].queries))


def matching(attributes: pa.Table, schema: Mapping[str, str], text: str | None) -> NDArray[np.bool_]:
    """Which rows satisfy the filter: bool [N]."""
    if text is None:
        return np.ones(len(attributes), np.bool_)
    tree = where.parse(text, schema)
    return filters.mask(tree, lambda name: attributes.column(name).combine_chunks())


def exact(
    vectors: NDArray[np.float32], rows: NDArray[np.int64] | None, queries: NDArray[np.float32], k: int
) -> NDArray[np.int32]:
    """The min(k, rows) best rows by float64 dot product, best first, equal ones in row order; the rest is -1: [Q, k].

    vectors [N, D] and queries [Q, D] of length 1; rows: the candidates, ascending (None: all). A float32 product is
    off by D * 2^-24 at most for such vectors, so only what is that close to the k-th best is scored in float64.
    """
    allowed = np.arange(len(vectors)) if rows is None else rows
    wanted = min(k, len(allowed))
    best = np.full((len(queries), k), -1, np.int32)
    if not wanted:
        return best
    slack = 2 * max(vectors.shape[1], 16) * 2.0**-24
    kept: list[tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]] = [([], []) for _ in queries]
    floor = np.full(len(queries), -np.inf)
    for start in range(0, len(allowed), _BLOCK):
        part = allowed[start : start + _BLOCK]
        block = vectors[start : start + _BLOCK] if rows is None else vectors[part]
        scores = queries @ block.T
        for i, one in enumerate(scores):
            if len(one) > wanted:
                floor[i] = max(floor[i], np.partition(one, -wanted)[-wanted] - slack)
            near = np.flatnonzero(one >= floor[i])
            kept[i][0].append(part[near])
            kept[i][1].append(one[near])
    for i, (found, _) in enumerate(kept):
        candidates = np.concatenate(found)
        wide = vectors[candidates].astype(np.float64)
        # einsum sums every row in the same order: equal rows get equal scores.
        order = np.argsort(-np.einsum("ij,j->i", wide, queries[i].astype(np.float64)), kind="stable")[:wanted]
        best[i, :wanted] = candidates[order]
    return best


def truth_of(
    vectors: NDArray[np.float32],
    attributes: pa.Table,
    schema: Mapping[str, str],
    queries: NDArray[np.float32],
    groups: Sequence[Group],
    k: int,
    progress: Progress | None = None,
) -> NDArray[np.int32]:
    """The exact answers to all cases: int32 [C, k], -1 where fewer rows match."""
    answers = []
    for done, group in enumerate(groups, 1):
        rows = None if group.where is None else np.flatnonzero(matching(attributes, schema, group.where))
        answers.append(exact(vectors, rows, queries[list(group.queries)], k))
        if progress:
            progress(done, len(groups))
    return np.concatenate(answers) if answers else np.zeros((0, k), np.int32)


def save(workload: Workload, folder: Path) -> Path:
    """Write the workload to ``folder``, whole or not at all; what was there is replaced. StorageError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
            part = Path(made) / "w"
            part.mkdir()
            np.save(part / "vectors.npy", workload.vectors)
            np.save(part / "queries.npy", workload.queries)
            np.save(part / "truth.npy", workload.truth)
            pq.write_table(workload.attributes, part / "attributes.parquet")
            document = {
                "format": FORMAT,
                "name": workload.name,
                "schema": dict(workload.schema),
                "groups": [asdict(group) for group in workload.groups],
                "left_out": dict(workload.left_out),
                "facts": dict(workload.facts),
                "sha256": {name: sha256(part / name) for name in _FILES},
            }
            (part / "workload.json").write_text(json.dumps(document, indent=1, default=str), encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            part.rename(folder)
    except OSError as error:
        raise storage_error(error, folder) from error
    return folder


def open_workload(folder: Path, *, verify: bool = True, mapped: bool = False) -> Workload:
    """Read a workload. verify: compare the checksums; mapped: leave the vectors on disk.

    NotFoundError where there is none, StorageError where it is damaged.
    """
    try:
        document = json.loads((folder / "workload.json").read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}, this nextvec reads {FORMAT}")
        for name in _FILES if verify else ():
            if sha256(folder / name) != document["sha256"][name]:
                raise ValueError(f"{name} differs from its checksum")
        groups = tuple(
            Group(Cell(**one["cell"]), one["where"], one["matches"], tuple(one["queries"]), one["lift"])
            for one in document["groups"]
        )
        return Workload(
            name=document["name"],
            vectors=np.load(folder / "vectors.npy", mmap_mode="r" if mapped else None, allow_pickle=False),
            attributes=pq.read_table(folder / "attributes.parquet"),
            schema=document["schema"],
            queries=np.load(folder / "queries.npy", allow_pickle=False),
            groups=groups,
            truth=np.load(folder / "truth.npy", allow_pickle=False),
            left_out=document["left_out"],
            facts=document["facts"],
        )
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{str(folder)!r} is not a workload: {Path(error.filename or '').name} is missing"
        ) from error
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise StorageError(
            f"workload {str(folder)!r} is damaged ({error}): remove the folder and make it again"
        ) from error


def unit(vectors: NDArray[Any], what: str) -> NDArray[np.float32]:
    """float32 rows of length 1. InputError names the first that is not finite, or zero."""
    if vectors.ndim != 2 or not vectors.size or vectors.dtype.kind not in "fiu":
        raise InputError(f"{what} has shape {list(vectors.shape)} of {vectors.dtype}: expected numbers [n, d]")
    result = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), _BLOCK):
        part = vectors[start : start + _BLOCK].astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", part, part))
        bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(bad):
            value = "all zeros" if math.isfinite(lengths[bad[0]]) else "not finite"
            raise InputError(f"{what}: row {start + bad[0]} is {value}: cosines need finite vectors that are not zero")
        result[start : start + _BLOCK] = part / lengths[:, None]
    return result
