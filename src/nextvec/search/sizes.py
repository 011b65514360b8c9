"""What fewer bytes would cost: recall against bytes a vector, on a sample of a collection's own vectors.

Two kinds of lines: what a collection can be (``keep``, and with nested vectors fewer values), and codecs, which none
uses (docs/compress.md). The right answer of a query are its k best rows by the vectors as they are now.

Shapes: n rows, Q queries, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nextvec.compress.vectors import fit
from nextvec.search.indexes.rows import STATS
from nextvec.search.inputs import as_kept, check_k, check_queries
from nextvec.search.schema import VALUES, Schema
from nextvec.types import InputError, Progress

if TYPE_CHECKING:
    from nextvec.search.stores import AnyCollection

__all__ = ["Size", "sizes"]

CANDIDATES = 4  # times k: rows that the second stage scores again
FEWEST = 500
_HELD_OUT = 200
_BATCH = 1_000
Float32 = NDArray[np.float32]
Scores = Callable[[Float32], Float32]
"""Scores [Q, n] of queries [Q, D]."""


@dataclass(frozen=True, slots=True)
class Size:
    """kind: "collection" or "codec"; spec: ``keep`` and ``dim`` of a collection, or a codec's; bytes: of a vector;
    on_disk: of a row's vector with the exact index beside it (None for a codec); recall: share of the k best found, low
    and high: its 95 % interval over the queries; reranked: the same where ``CANDIDATES`` k rows are scored again by the
    vectors as they are now."""

    kind: str
    spec: str
    bytes: int
    on_disk: int | None
    recall: float
    low: float
    high: float
    reranked: float


def sizes(
    collection: AnyCollection,
    queries: Any = None,
    *,
    k: int = 10,
    rows: int = 20_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Size]:
    """The trade on ``rows`` rows of the collection, drawn by ``seed``. queries: [Q, D]; without them, 200 rows that are
    left out of the sample. Raises InputError (fewer than 500 rows)."""
    k, report = check_k(k), progress or (lambda done, total: None)
    schema = Schema(collection.dim, collection.metric, {}, collection.keep, collection.nested)
    ids = np.array(collection.ids(), object)
    if min(len(ids), rows) < FEWEST:
        raise InputError(f"{min(len(ids), rows)} rows tell too little: at least {FEWEST} are needed")
    chosen = np.random.default_rng(seed).permutation(len(ids))[: rows + (_HELD_OUT if queries is None else 0)]
    vectors = _vectors(collection, ids[chosen].tolist())
    if queries is None:
        asked, vectors = vectors[:_HELD_OUT], vectors[_HELD_OUT:]
    else:
        asked = check_queries(np.atleast_2d(np.asarray(queries)), schema)[0]
    truth = _best(asked @ vectors.T, k)
    ways = list(_ways(schema, vectors))
    made = []
    for i, (kind, spec, width, on_disk, scorer) in enumerate(ways):
        report(i, len(ways))
        scores = scorer()(asked)
        alone = _shared(truth, _best(scores, k))
        again = _shared(truth, _best(scores, CANDIDATES * k))
        half = 1.96 * float(alone.std()) / np.sqrt(len(alone))
        mean = float(alone.mean())
        bounds = max(mean - half, 0.0), min(mean + half, 1.0)
        made.append(Size(kind, spec, width, on_disk, mean, *bounds, float(again.mean())))
    report(len(ways), len(ways))
    return made


def _vectors(collection: AnyCollection, ids: list[str]) -> Float32:
    parts = []
    for start in range(0, len(ids), _BATCH):
        found = collection.get(ids[start : start + _BATCH], vectors=True)
        parts.append(np.stack([row["vector"] for row in found if row is not None]))
    return np.concatenate(parts)


def _ways(schema: Schema, vectors: Float32) -> Iterator[tuple[str, str, int, int | None, Callable[[], Scores]]]:
    """(kind, spec, bytes, bytes with the exact index, what makes the scores)."""
    dim = schema.dim
    for width in [dim, *(part for part in (dim // 2, dim // 4) if part >= 16)]:
        for keep in VALUES:
            if keep == "int8" and schema.metric != "cosine":
                continue
            kind = Schema(width, schema.metric, {}, keep)  # type: ignore[arg-type]
            size = width * VALUES[keep].bit_width // 8
            yield (
                "collection",
                f"keep={keep}, dim={width}",
                size,
                size + 5 * width + STATS.itemsize,
                _kept(kind, vectors),
            )
    parts = max((part for part in range(1, dim // 4 + 1) if dim % part == 0), default=1)
    for spec in ("rotate,binary", f"pq{parts}:opq"):
        codec = _codec(spec, schema, vectors)
        yield "codec", spec, parts if spec.startswith("pq") else -(-dim // 8), None, codec


def _kept(kind: Schema, vectors: Float32) -> Callable[[], Scores]:
    def made() -> Scores:
        base = as_kept(np.ascontiguousarray(vectors[:, : kind.dim]), kind, "vector")
        # The cut query is not brought to length 1: that changes all of its scores alike.
        return lambda queries: queries[:, : kind.dim] @ base.T

    return made


def _codec(spec: str, schema: Schema, vectors: Float32) -> Callable[[], Scores]:
    def made() -> Scores:
        codec = fit(spec, vectors, metric=schema.metric)
        codes = codec.encode(vectors)
        return lambda queries: codec.score(queries, codes)

    return made


def _best(scores: Float32, k: int) -> NDArray[np.int64]:
    """The k best rows of each query, in any order: int64 [Q, min(k, n)]."""
    k = min(k, scores.shape[1])
    found: NDArray[np.int64] = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return found


def _shared(truth: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of each query's true rows that were found."""
    return np.array([np.isin(own, there).mean() for own, there in zip(truth, found, strict=True)])
