"""Retrieval measured against graded judgements, per query, as trec_eval does.

    DCG@k  = sum over the first k places i of gain_i / log2(i + 1)          (the gain itself, not 2^gain - 1)
    nDCG@k = DCG@k / the DCG@k of the best order there is
    recall@k, precision@k = relevant documents among the first k, over all relevant ones, over k
    MRR@k  = 1 / place of the first relevant document, 0 where none stands among the first k
    MAP@k  = sum over the places i <= k of relevant documents of precision@i, over the number of all relevant ones

A document is relevant where its gain is above 0. Equal scores are in the order of the documents (trec_eval orders them
by name, backwards). Source: Järvelin and Kekäläinen 2002 (nDCG); trec_eval's ndcg_cut, recall, P, map_cut. Legend: Q
queries, N documents, D width, k places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nextvec.types import InputError, did_you_mean

__all__ = ["graded_measures", "top_documents"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def top_documents(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    k: int,
    *,
    own: Sequence[int] | None = None,
    block: int = 256,
) -> Ints:
    """Positions of the k documents of the highest inner product for each query, best first: int64 [Q, min(k, N)].

    queries [Q, D], documents [N, D]; own: per query the position of a document that is passed over (-1: none), in whose
    stead the row ends with -1 where too few are left. Scored in blocks of ``block`` queries, so that Q x N is never
    held whole. InputError for shapes that do not fit and for vectors that are not finite.
    """
    if queries.ndim != 2 or queries.shape[1:] != documents.shape[1:] or not len(documents) or k < 1:
        raise InputError(
            f"queries {queries.shape}, documents {documents.shape}, k {k}: one width and k >= 1 are needed"
        )
    for name, vectors in (("queries", queries), ("documents", documents)):
        if not np.isfinite(vectors).all():
            raise InputError(f"the vectors of the {name} hold a value that is not finite (NaN or infinite)")
    wide = min(k, len(documents))
    result = np.full((len(queries), wide), -1, dtype=np.int64)
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ documents.T
        for i, row in enumerate(scores, start):
            passed = -1 if own is None else own[i]
            if passed >= 0:
                row[passed] = -np.inf
            best = _best(row, wide)
            best = best[best != passed]
            result[i, : len(best)] = best
    return result


def _best(scores: NDArray[np.float32], k: int) -> Ints:
    """The k highest, best first, equal ones by position: exact where the k-th and the next are equal too."""
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k].astype(np.int64)


def graded_measures(ranked: Ints, gains: Sequence[Mapping[int, int]], names: Sequence[str]) -> dict[str, Floats]:
    """The measures ``names`` ("ndcg@10", "recall@100", "precision@10", "mrr@10", "map@100") of every query: [Q] each.

    ranked: int64 [Q, k], positions of documents, best first, -1 where a row ends earlier; gains: per query the
    relevant documents, position -> gain, at least one. Beyond the last place of a row nothing is found. InputError for
    another name, for lengths that differ and for a query without a relevant document.
    """
    if len(ranked) != len(gains) or not len(gains):
        raise InputError(f"{len(ranked)} ranked rows for the judgements of {len(gains)} queries")
    best = [sorted((gain for gain in own.values() if gain > 0), reverse=True) for own in gains]
    if not all(best):
        raise InputError(f"query {next(i for i, own in enumerate(best) if not own)} has no relevant document")
    found = np.zeros(ranked.shape)
    for i, own in enumerate(gains):
        found[i] = [max(own.get(int(place), 0), 0) for place in ranked[i]]
    counts = np.array([len(own) for own in best], dtype=np.float64)
    result = {}
    for name in names:
        kind, at = _parse(name)
        result[name] = _KINDS[kind](found[:, :at], best, counts, at)
    return result


def _parse(name: str) -> tuple[str, int]:
    kind, _, at = name.partition("@")
    if kind not in _KINDS or not at.isdecimal() or int(at) < 1:
        known = [f"{kind}@10" for kind in _KINDS]
        raise InputError(f"no retrieval measure {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}")
    return kind, int(at)


def _ndcg(found: Floats, best: list[list[int]], counts: Floats, at: int) -> Floats:
    discounts = 1 / np.log2(np.arange(2, found.shape[1] + 2))
    ideal = np.array([sum(gain / np.log2(i + 2) for i, gain in enumerate(own[:at])) for own in best])
    result: Floats = (found @ discounts) / ideal
    return result


def _recall(found: Floats, best: list[list[int]], counts: Floats, at: int) -> Floats:
    result: Floats = (found > 0).sum(1) / counts
    return result


def _precision(found: Floats, best: list[list[int]], counts: Floats, at: int) -> Floats:
    result: Floats = (found > 0).sum(1) / at
    return result


def _mrr(found: Floats, best: list[list[int]], counts: Floats, at: int) -> Floats:
    hit = found > 0
    return np.where(hit.any(1), 1.0 / (hit.argmax(1) + 1), 0.0)


def _map(found: Floats, best: list[list[int]], counts: Floats, at: int) -> Floats:
    hit = found > 0
    precisions = hit.cumsum(1) / np.arange(1, found.shape[1] + 1)
    result: Floats = np.where(hit, precisions, 0.0).sum(1) / counts
    return result


_KINDS: dict[str, Callable[[Floats, list[list[int]], Floats, int], Floats]] = {
    "ndcg": _ndcg,
    "recall": _recall,
    "precision": _precision,
    "mrr": _mrr,
    "map": _map,
}
