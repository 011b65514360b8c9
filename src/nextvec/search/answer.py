"""From a checked request and one version of a collection to hits.

A ranking for each query (by vector, by words, or of both), then what shapes it, in this order: ``min_score`` cuts it,
``diversity`` reorders its beginning, ``group_by`` gathers it, the cursor says where in it to begin.
Shapes: Q queries, N rows, M rows that satisfy the filter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.search.fusion import DEPTH, Ranked, rrf, weighted
from nextvec.search.grouping import Grouping, codes_of
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.exact import Found
from nextvec.search.paging import Cursor, Remembered
from nextvec.search.postings import Bm25
from nextvec.search.ranking import POOL, Above, Diverse, Listed, Ranking, Searched, everything
from nextvec.search.requests import Request
from nextvec.search.snapshot import Snapshot
from nextvec.search.words import tokenize
from nextvec.types import Hits, InputError

__all__ = ["Source", "respond"]

_RANGE = 1_024  # rows that a search for all above a score looks at first


@dataclass(frozen=True, slots=True)
class Source:
    """What is searched. ``allowed``: the rows that satisfy the filter (None: all); ``find(queries, n)``:
    the n best of them by vector, in row numbers of the snapshot; ``words(column)``: the index of an attribute;
    ``vectors(rows)``: float32 [n, D]."""

    snapshot: Snapshot
    allowed: Allowed | None
    find: Callable[[NDArray[np.float32], int], Sequence[Found]]
    words: Callable[[str], Bm25]
    vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]]

    @property
    def matches(self) -> int:
        return self.snapshot.rows if self.allowed is None else self.allowed.count


@dataclass(frozen=True, slots=True)
class _Answer:
    """One page of one query: its hits in row numbers, and how they were found."""

    ranked: Ranked
    plan: str
    reranked: int
    next_page: Callable[[], str] | None
    told: Mapping[str, Any] | None = None


def respond(request: Request, source: Source, remembered: Remembered, began: float) -> list[Hits]:
    """Hits for each query; ``began`` is the ``time.perf_counter()`` at which the call did. InputError where a cursor
    belongs to another search."""
    filtered = time.perf_counter()
    found = _answers(request, source, remembered)
    searched = time.perf_counter()
    snapshot = source.snapshot
    parts = snapshot.ids_of_each([one.ranked[0] for one in found])
    results = [_hits(one, own, request, snapshot) for one, own in zip(found, parts, strict=True)]
    if request.explain:
        times = {"filter_ms": filtered - began, "search_ms": searched - filtered}
        times["total_ms"] = time.perf_counter() - began
        told: dict[str, Any] = {"version": snapshot.version, "rows": snapshot.rows, "matches": source.matches}
        told |= {name: round(seconds * 1000, 3) for name, seconds in times.items()}
        results = [
            replace(one, explain={**told, "plan": how.plan, "reranked": how.reranked, **(how.told or {})})
            for one, how in zip(results, found, strict=True)
        ]
    return results


def _answers(request: Request, source: Source, remembered: Remembered) -> list[_Answer]:
    if request.recall is not None and not request.is_plain:
        everyone = list(range(len(request)))
        return [_first_page(request, one) for one in _rankings(request, source, everyone, [0] * len(everyone))]
    version = source.snapshot.version
    # Worked out when a cursor comes in or is asked for: that is a fifth of the time of a small search.
    prints = cache(partial(request.fingerprints, source.snapshot.identity))
    if request.is_plain:
        return _plain(request, source, prints)
    starts = [cursor.done for cursor in request.cursors] or [0] * len(request)
    if request.cursors and any(cursor.search != own for cursor, own in zip(request.cursors, prints(), strict=False)):
        raise InputError(
            "the cursor belongs to another search: pass the same vector, text, filter and options (k and columns "
            "may change), or search without cursor"
        )
    kept = [remembered.get(version, prints()[i]) if start else None for i, start in enumerate(starts)]
    missing = [i for i, ranking in enumerate(kept) if ranking is None]
    rankings = dict(zip(missing, _rankings(request, source, missing, starts), strict=True))
    grouping = _grouping(request, source)
    answers = []
    for i, start in enumerate(starts):
        ranking = kept[i] or rankings[i]
        ranked, more = _page(ranking, grouping, start, request.k)
        next_page = None
        if more and request.k is not None:
            next_page = partial(_cursor, prints, i, version, start + request.k)
            if start:
                remembered.keep(version, prints()[i], ranking)
        answers.append(_Answer(ranked, ranking.plan, ranking.reranked, next_page))
    return answers


def _plain(request: Request, source: Source, prints: Callable[[], Sequence[bytes]]) -> list[_Answer]:
    """The k best by vector and nothing else: what most searches are, without what the others need."""
    assert request.vectors is not None and request.k is not None
    total, version, k = source.matches, source.snapshot.version, request.k
    return [
        _Answer(
            (one.rows, one.scores),
            one.plan,
            one.reranked,
            partial(_cursor, prints, i, version, k) if total > k and request.recall is None else None,
            one.told,
        )
        for i, one in enumerate(source.find(request.vectors, min(k, max(total, 1))))
    ]


def _cursor(prints: Callable[[], Sequence[bytes]], i: int, version: int, done: int) -> str:
    return Cursor(version, done, prints()[i]).text()


def _first_page(request: Request, ranking: Ranking) -> _Answer:
    """Approximate rankings have no further pages: what comes later may belong before."""
    assert request.k is not None
    return _Answer(ranking.first(request.k), ranking.plan, ranking.reranked, None, ranking.told)


def _hits(found: _Answer, ids: list[str], request: Request, snapshot: Snapshot) -> Hits:
    rows, scores = found.ranked
    groups = []
    if request.group_by is not None:
        groups = snapshot.column(request.group_by).take(pa.array(rows)).to_pylist()
    return Hits(ids, scores, snapshot.values(rows, request.names), None, found.next_page, groups)


def _page(ranking: Ranking, grouping: Grouping | None, start: int, k: int | None) -> tuple[Ranked, bool]:
    if grouping is not None:
        return grouping.page(ranking, start, k)
    if k is None:
        return everything(ranking), False
    rows, scores = ranking.first(start + k)
    return (rows[start:], scores[start:]), ranking.more_than(start + k)


def _grouping(request: Request, source: Source) -> Grouping | None:
    if request.group_by is None:
        return None
    codes = codes_of(source.snapshot, request.group_by)
    sizes = np.bincount(codes if source.allowed is None else codes[source.allowed.rows])
    return Grouping(codes, sizes, request.group_size)


def _rankings(request: Request, source: Source, queries: list[int], starts: list[int]) -> list[Ranking]:
    """The shaped ranking of each of these queries."""
    if not queries:
        return []
    base: list[Ranking]
    if request.vectors is None:
        base = [_by_words(request, source, i) for i in queries]
    else:
        depth = _depth(request, max(starts[i] for i in queries))
        searched = _by_vector(source, request.vectors[queries], depth)
        base = list(searched)
        if request.texts is not None:
            sides = zip(searched, queries, strict=True)
            base = [_fused(request, one, _by_words(request, source, i)) for one, i in sides]
    return [_shaped(request, source, one) for one in base]


def _depth(request: Request, start: int) -> int:
    """Rows that all queries are searched for at once; a query that turns out to need more goes on by itself."""
    if request.texts is not None:
        return DEPTH
    if request.k is None:
        return _RANGE
    wanted = start + request.k
    if request.group_by is not None:
        wanted *= 2 * request.group_size
    if request.min_score is not None:
        wanted += 1
    return max(wanted, POOL) if request.diversity is not None else wanted


def _by_vector(source: Source, queries: NDArray[np.float32], depth: int) -> list[Searched]:
    total = source.matches

    def finder(i: int) -> Callable[[int], Found]:
        return lambda n: source.find(queries[i : i + 1], n)[0]

    found = source.find(queries, min(depth, max(total, 1)))
    return [Searched(finder(i), total, one) for i, one in enumerate(found)]


def _by_words(request: Request, source: Source, i: int) -> Listed:
    """The rows with at least one of the words, by the weighted sum of the attributes' BM25."""
    assert request.texts is not None
    total = np.zeros(source.snapshot.rows)
    tokens = tokenize(request.texts[i])
    for column, weight in request.weights.items():
        source.words(column).add_scores(tokens, weight, total)
    if source.allowed is None:
        rows = np.flatnonzero(total)
    else:
        rows = source.allowed.rows[total[source.allowed.rows] > 0]
    return Listed(rows, total[rows].astype(np.float32), "bm25")


def _fused(request: Request, searched: Searched, words: Listed) -> Listed:
    sides = searched.first(DEPTH), words.first(DEPTH)
    rows, scores = rrf(sides) if request.fusion == "rrf" else weighted(*sides, request.alpha)
    return Listed(rows, scores, f"{request.fusion} of {searched.plan} and {words.plan}", searched.reranked)


def _shaped(request: Request, source: Source, ranking: Ranking) -> Ranking:
    if request.min_score is not None:
        ranking = Above(ranking, request.min_score)
    if request.diversity:
        ranking = Diverse(ranking, request.diversity, lambda rows: _directions(source, rows))
    return ranking


def _directions(source: Source, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors of these rows at length 1, float32 [n, D]; a vector of zeros stays one."""
    if not len(rows):
        return np.zeros((0, source.snapshot.schema.dim), np.float32)
    vectors = source.vectors(rows)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return (vectors / np.where(lengths > 0, lengths, 1.0)[:, None]).astype(np.float32)
