"""The best rows by their codes, and the best of those by something truer.

Shapes: n rows, q queries, k rows wanted, c candidates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextvec.compress.vectors._codec import Codec
from nextvec.compress.vectors._inputs import check_matrix, prepare
from nextvec.compress.vectors._part import BLOCK, Codes, Float32, Metric
from nextvec.types import InputError

Int64 = NDArray[np.int64]
Candidates = tuple[Int64, Float32]
"""Rows, ascending, and their scores."""


class Found(NamedTuple):
    """rows: int64 [q, min(k, n)], best first; scores: float32, the same shape."""

    rows: Int64
    scores: Float32


def top_k(
    codec: Codec,
    queries: Any,
    codes: Any,
    k: int = 10,
    *,
    rerank: Any = None,
    candidates: int | None = None,
) -> Found:
    """The min(k, n) best rows of codes [n, w] for each of queries [q, D]; equal scores in row order.

    rerank: a second stage that scores the best ``candidates`` rows (4k where not given) anew: the vectors themselves,
    [n, D] (may be memory-mapped, only the candidates' rows are read), or a pair (codec, codes) of finer codes of the
    same rows. Codes are scored in float32, ``BLOCK`` rows at a time, so that memory does not grow with q * n. The
    vectors are scored in float64 and rounded to float32 once, as the exact index does: those scores are exact, what
    may be missed is a row that was no candidate. InputError for what ``Codec.score`` refuses, for k or candidates
    out of range, and for a second stage that does not go with the first.
    """
    codes = codec.check(codes)
    _whole("k", k)
    if candidates is None:
        candidates = 4 * k
    elif rerank is None:
        raise InputError("candidates is given without rerank: there is nothing to score them with")
    _whole("candidates", candidates)
    if candidates < k:
        raise InputError(f"candidates is {candidates}, fewer than the {k} rows wanted")
    second = None if rerank is None else _second(codec, rerank, len(codes))
    asked = codec.ask(queries)
    first = _scan(codec, asked, codes, k if second is None else candidates)
    if second is None:
        return _ordered(first, k, len(codes))
    if isinstance(second, tuple):
        again = _by_codes(*second, queries, first)
    else:
        again = _exactly(codec.metric, queries, second, first)
    return _ordered(again, k, len(codes))


def _whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} is {value!r}: expected a whole number of at least 1")


def _second(codec: Codec, rerank: Any, rows: int) -> NDArray[Any] | tuple[Codec, Codes]:
    """The second stage, checked."""
    if isinstance(rerank, tuple) and len(rerank) == 2 and isinstance(rerank[0], Codec):
        other, codes = rerank[0], rerank[0].check(rerank[1])
        if (other.dim, other.metric) != (codec.dim, codec.metric):
            raise InputError(
                f"rerank's codec has dim {other.dim} and metric {other.metric!r}, the first has {codec.dim} and "
                f"{codec.metric!r}: expected the same"
            )
        if len(codes) != rows:
            raise InputError(f"rerank has {len(codes)} codes for {rows} rows: expected one for each")
        return other, codes
    vectors = check_matrix(rerank, codec.dim, "re-ranking vector")
    if len(vectors) != rows:
        raise InputError(f"rerank has {len(vectors)} vectors for {rows} rows: expected one for each")
    return vectors


def _scan(codec: Codec, asked: tuple[Float32, Float32], codes: Codes, count: int) -> list[Candidates]:
    """For each query the ``count`` best rows, ascending, and their scores."""
    best = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in asked[0]]
    for start in range(0, len(codes), BLOCK):
        scores = codec.score_block(asked, codes[start : start + BLOCK])
        for i, (rows, kept) in enumerate(best):
            own = scores[i]
            # A later row that only ties with the worst that is kept loses to it.
            new = np.flatnonzero(own > kept.min()) if len(kept) >= count else np.arange(len(own))
            together = np.concatenate([rows, new + start]), np.concatenate([kept, own[new]])
            chosen = _best(together[1], count)
            best[i] = together[0][chosen], together[1][chosen]
    return best


def _best(scores: Float32, count: int) -> Int64:
    """Places of the ``count`` highest scores, ascending; of equal ones the first."""
    if len(scores) <= count:
        return np.arange(len(scores))
    least = np.partition(scores, -count)[-count]
    above = np.flatnonzero(scores > least)
    ties = np.flatnonzero(scores == least)[: count - len(above)]
    return np.sort(np.concatenate([above, ties]))


def _exactly(metric: Metric, queries: Any, vectors: NDArray[Any], first: list[Candidates]) -> list[Candidates]:
    wide = prepare(np.asarray(queries), metric, "query vector").astype(np.float64)
    again = []
    for query, (rows, _) in zip(wide, first, strict=True):
        chosen = prepare(vectors[rows], metric, "re-ranking vector", rows)
        # Not BLAS: each row is summed in the same order wherever it stands, so that equal rows tie exactly.
        again.append((rows, np.einsum("ij,j->i", chosen.astype(np.float64), query).astype(np.float32)))
    return again


def _by_codes(codec: Codec, codes: Codes, queries: Any, first: list[Candidates]) -> list[Candidates]:
    carried, offset = codec.ask(queries)
    return [
        (rows, codec.score_block((carried[i : i + 1], offset[i : i + 1]), codes[rows])[0])
        for i, (rows, _) in enumerate(first)
    ]


def _ordered(found: list[Candidates], k: int, rows: int) -> Found:
    """The k best of each query's candidates, best first; ``rows`` in all (no query, no candidate to tell k from)."""
    orders = [np.argsort(-scores, kind="stable")[:k] for _, scores in found]
    shape = (len(found), min(k, rows))
    best = Found(np.empty(shape, np.int64), np.empty(shape, np.float32))
    for i, (own, scores) in enumerate(found):
        best.rows[i], best.scores[i] = own[orders[i]], scores[orders[i]]
    return best
