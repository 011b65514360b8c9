"""Workloads from a source: filters in every bucket, queries that belong to them, and the exact answers.

How filter and query relate ("correlation"):
- independent: the filter is drawn without looking at the query;
- near: the filter is drawn from the query's own attributes, so that its matches tend to lie around it;
- far: the queries least similar to the mean of the filter's matches.

Legend: N rows, D dimensions, P queries at hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.evaluate.ann.draw import BUCKETS, CORRELATIONS, KINDS, Drawer
from nextvec.evaluate.ann.workload import Cell, Group, Workload, exact, matching, open_workload, save, truth_of, unit
from nextvec.files import cache_home
from nextvec.types import InputError, NotFoundError, Progress, StorageError

__all__ = ["Plan", "Source", "cached", "hold_out", "make"]

_NEAREST = 100  # of the unfiltered rows, to tell how filter and query relate
_SAMPLE = 20_000  # matches that their mean is taken from


@dataclass(frozen=True, kw_only=True)
class Source:
    """vectors [N, D] and queries [P, D], each with attributes of one schema (``query_attributes`` may be None: then no
    filter is drawn from a query)."""

    name: str
    vectors: NDArray[Any]
    attributes: pa.Table
    schema: Mapping[str, str]
    queries: NDArray[Any]
    query_attributes: pa.Table | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a workload holds: ``filters`` per cell, ``queries`` per filter, ``k`` hits each."""

    k: int = 10
    kinds: tuple[str, ...] = KINDS
    buckets: tuple[float, ...] = BUCKETS
    correlations: tuple[str, ...] = CORRELATIONS
    filters: int = 4
    queries: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for what, given, known in (
            ("kinds", self.kinds, KINDS),
            ("buckets", self.buckets, BUCKETS),
            ("correlations", self.correlations, CORRELATIONS),
        ):
            for one in given:
                if one not in known:
                    raise InputError(f"{what}: {one!r} is not one of {', '.join(map(str, known))}")
        for what, number in (("k", self.k), ("filters", self.filters), ("queries", self.queries)):
            if number < 1:
                raise InputError(f"{what} is {number}: expected at least 1")


def cached(
    source: Callable[[], Source],
    key: Mapping[str, Any],
    plan: Plan,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """The folder of the workload that ``key`` (what decides the source) and ``plan`` give, made where it is not there
    or damaged. folder: where workloads lie (default: the cache)."""
    told = json.dumps([dict(key), asdict(plan)], sort_keys=True, default=str)
    place = (folder or cache_home() / "ann") / f"{key['name']}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    try:
        open_workload(place, mapped=True)
    except (NotFoundError, StorageError):
        save(make(source(), plan, progress=progress), place)
    return place


def make(source: Source, plan: Plan | None = None, *, progress: Progress | None = None) -> Workload:
    """Draw filters, choose their queries, answer all exactly. InputError where the source does not fit together."""
    plan = plan or Plan()
    vectors, queries = unit(source.vectors, "vectors"), unit(source.queries, "queries")
    if vectors.shape[1] != queries.shape[1] or len(source.attributes) != len(vectors):
        raise InputError(
            f"vectors {list(vectors.shape)}, queries {list(queries.shape)} and {len(source.attributes)} rows of "
            "attributes do not belong together"
        )
    attributes = pa.table({name: source.attributes.column(name).combine_chunks() for name in source.schema})
    maker = _Maker(source, plan, vectors, queries, attributes)
    groups, left_out = maker.groups()
    truth = truth_of(vectors, attributes, source.schema, queries, groups, plan.k, progress)
    return Workload(
        name=source.name,
        vectors=vectors,
        attributes=attributes,
        schema=source.schema,
        queries=queries,
        groups=tuple(groups),
        truth=truth,
        left_out=left_out,
        facts={**source.facts, "rows": len(vectors), "dim": vectors.shape[1], **asdict(plan)},
    )


class _Maker:
    """Chooses filters and queries for one source."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        vectors: NDArray[np.float32],
        queries: NDArray[np.float32],
        attributes: pa.Table,
    ) -> None:
        self._source, self._plan, self._vectors, self._queries = source, plan, vectors, queries
        self._attributes = attributes
        self._random = np.random.default_rng([plan.seed, 1])
        self._drawer = Drawer(attributes, source.schema, self._random)
        self._nearest = exact(vectors, None, queries, min(_NEAREST, len(vectors)))
        own = source.query_attributes
        self._own = None if own is None else own.select(list(source.schema)).to_pylist()

    def groups(self) -> tuple[list[Group], dict[str, str]]:
        """All groups, and the cells that cannot be had with the reason. The first cell is the one without a filter."""
        groups, left_out = [], {}
        if 100.0 in self._plan.buckets:
            cell = Cell("none", 100.0, "independent")
            groups = [self._group(cell, None, None) for _ in range(self._plan.filters)]
        for correlation in self._plan.correlations:
            for kind in self._plan.kinds:
                for bucket in self._plan.buckets:
                    cell = Cell(kind, bucket, correlation)
                    if correlation == "near" and self._own is None:
                        left_out[str(cell)] = "the queries have no attributes"
                        continue
                    found = self._cell(cell)
                    groups += found
                    if not found:
                        left_out[str(cell)] = "the attributes have no such filter with so many matches"
        if not groups:
            raise InputError(
                "no filter of the wanted kinds and buckets can be drawn from the attributes "
                f"({', '.join(self._source.schema) or 'there are none'}): name other attributes"
            )
        return groups, left_out

    def _cell(self, cell: Cell) -> list[Group]:
        groups: list[Group] = []
        seen: set[str] = set()
        for _ in range(self._plan.filters * 3):
            if len(groups) == self._plan.filters:
                break
            anchor = int(self._random.integers(len(self._queries)))
            own = self._own[anchor] if self._own is not None and cell.correlation == "near" else None
            drawn = self._drawer.draw(cell.kind, cell.bucket, own)
            if drawn is None:
                if own is None:
                    break  # it looked everywhere
                continue
            text, rows = drawn
            if text not in seen:
                seen.add(text)
                groups.append(self._group(cell, text, rows))
        return groups

    def _group(self, cell: Cell, text: str | None, rows: NDArray[np.int64] | None) -> Group:
        wanted = min(self._plan.queries, len(self._queries))
        if cell.correlation == "independent" or rows is None:
            chosen = self._random.choice(len(self._queries), wanted, replace=False)
        else:
            some = rows if len(rows) <= _SAMPLE else np.sort(self._random.choice(rows, _SAMPLE, replace=False))
            similar = self._queries @ self._vectors[some].mean(axis=0)
            if cell.correlation == "near":
                satisfied = matching(self._source.query_attributes, self._source.schema, text)
                similar = similar + 4 * satisfied  # those that satisfy it come before all others
            chosen = np.argsort(-similar if cell.correlation == "near" else similar, kind="stable")[:wanted]
        matches = len(self._vectors) if rows is None else len(rows)
        if rows is None:
            lift = 1.0
        else:
            hit = np.zeros(len(self._vectors), np.bool_)
            hit[rows] = True
            lift = float(hit[self._nearest[chosen]].mean()) * len(self._vectors) / matches
        return Group(cell, text, matches, tuple(chosen.tolist()), round(lift, 4))


def hold_out(
    vectors: NDArray[Any], attributes: pa.Table, queries: int, seed: int
) -> tuple[NDArray[Any], pa.Table, NDArray[Any], pa.Table]:
    """Take ``queries`` random rows away (a tenth of all at most): (vectors, attributes, queries, their attributes)."""
    count = min(queries, len(vectors) // 10)
    if count < 1:
        raise InputError(f"{len(vectors)} vectors: at least 10 are needed to hold some out as queries")
    chosen = np.random.default_rng([seed, 2]).permutation(len(vectors))
    out, kept = np.sort(chosen[:count]), np.sort(chosen[count:])
    return vectors[kept], attributes.take(pa.array(kept)), vectors[out], attributes.take(pa.array(out))
