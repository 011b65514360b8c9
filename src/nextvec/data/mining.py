"""Hard negatives from vectors: for every query the documents that score high and are no answers.

The nearest documents that are not marked as answers are the most useful negatives, and the likeliest to be answers
that nobody marked. Three rules keep those out: a candidate counts only below a share of the positive's score
(TopK-PercPos) or a margin below it (TopK-MarginPos), both of NV-Retriever, Moreira et al. 2024 (arXiv 2407.15831); only
from one rank to another (KaLM-Embedding-V2, arXiv 2506.20923, draws from ranks 50 to 100); and never when it reads as a
positive or the query does. Search is exact. Legend: Q queries, N documents, D width, k negatives of a query.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextvec.data.pairs import Pairs
from nextvec.types import InputError, Progress

__all__ = ["fill_random", "mine", "mine_pairs"]

_QUERIES, _DOCUMENTS = 256, 8192  # scores made at a time
_NONE = np.iinfo(np.int64).min
_LOW = np.int64(0xFFFFFFFF)

Lists = Sequence[NDArray[np.int64]]


def mine(
    queries: ArrayLike,
    documents: ArrayLike,
    positives: Sequence[Sequence[int] | NDArray[np.int64]],
    k: int,
    *,
    rank: tuple[int, int | None] = (0, None),
    share: float | None = None,
    margin: float | None = None,
    query_keys: Sequence[Hashable] | None = None,
    document_keys: Sequence[Hashable] | None = None,
    seed: int | None = None,
    normalise: bool = True,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Documents [Q, k] that are hard negatives of each query, best-scoring first; -1 where no more satisfy the rules
    (see ``fill_random``).

    queries: [Q, D]; documents: [N, D]; float32 is what is compared, cosines unless ``normalise`` is False (then dot
    products). positives: the numbers of each query's answers, which are never returned. document_keys, query_keys: say,
    the texts: documents with the key of one of the positives or of the query are not returned either.

    Of the others, in order of score (equal scores: the lower number first), those count that are at ranks
    ``rank[0]`` to ``rank[1]`` - 1 (from 0; None: to the end) and score below every limit: for a positive score p,
    p - (1 - share) |p|, which is share * p unless p is negative, and p - margin, where p is the lowest score of the
    query's positives. The k best of these are returned; with ``seed``, k of them by chance: then rank[1] is needed.
    Scores are rounded, so that a copy of a positive may score a hair below it: keys keep it out, a share of 1 may not.

    InputError where N < k, or the ranks are fewer than k; for widths that differ, values that are not finite, numbers
    of documents that there are not, and queries without positives where a limit needs one. Memory: blocks of scores
    and, per query of a block, rank[0] + k candidates (with ``seed`` rank[1]).
    """
    made, known = _vectors(queries, "queries", normalise), _vectors(documents, "documents", normalise)
    _check(made, known, k, share, margin)
    begin, end = _window(rank, k, len(known), seed)
    answers = _answers(positives, len(made), len(known))
    blocked = _blocked(answers, len(known), query_keys, document_keys)
    limits = _limits(made, known, answers, share, margin)
    random = None if seed is None else np.random.default_rng(seed)
    length = min(begin + k if random is None else end, len(known))
    found = np.full((len(made), k), -1, dtype=np.int64)
    for start in range(0, len(made), _QUERIES):
        rows = slice(start, start + _QUERIES)
        keys, above = _best(made[rows], known, blocked[rows], None if limits is None else limits[rows], length)
        ranks = above[:, None] + np.arange(length)
        left = (keys != _NONE) & (ranks >= begin) & (ranks < end)
        found[rows] = _choose(_LOW - (keys & _LOW), left, k, random)
        if progress is not None:
            progress(min(start + _QUERIES, len(made)), len(made))
    return found


def fill_random(
    mined: ArrayLike,
    documents: int,
    positives: Sequence[Sequence[int] | NDArray[np.int64]],
    *,
    seed: int,
    query_keys: Sequence[Hashable] | None = None,
    document_keys: Sequence[Hashable] | None = None,
) -> NDArray[np.int64]:
    """``mined`` [Q, k] with every -1 replaced by a document drawn evenly from those that are no positives, share no key
    (as in ``mine``) and are not in the row yet. documents: their number N.

    InputError where a query has fewer such documents than places to fill.
    """
    filled = np.array(mined, dtype=np.int64)
    if filled.ndim != 2 or (filled.size and not (filled.min() >= -1 and filled.max() < documents)):
        raise InputError(f"mined is {list(filled.shape)}; expected [Q, k] numbers of {documents} documents, or -1")
    blocked = _blocked(_answers(positives, len(filled), documents), documents, query_keys, document_keys)
    random = np.random.default_rng(seed)
    for i in np.flatnonzero((filled < 0).any(axis=1)).tolist():
        empty = filled[i] < 0
        taken = np.union1d(blocked[i], filled[i][~empty])
        need, free = int(empty.sum()), documents - len(taken)
        if free < need:
            raise InputError(
                f"query {i} needs {need} more negatives and {free} documents are left that are no positives: ask for "
                "fewer negatives or give more documents"
            )
        drawn = random.choice(free, need, replace=False)
        # The drawn-th free document: as many further on as taken ones come before it.
        filled[i, empty] = drawn + np.searchsorted(taken - np.arange(len(taken)), drawn, side="right")
    return filled


def mine_pairs(
    queries: ArrayLike,
    documents: ArrayLike,
    pairs: Pairs,
    k: int,
    *,
    share: float | None = 0.95,
    seed: int,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """int64 [n, k]: for the query of every pair, the numbers of k documents of other pairs that score highest below
    ``share`` of its answer's score, and at random where there are fewer. queries, documents: vectors [n, D] of the
    pairs' texts. Pairs of one group, and texts that read the same, are no negatives of each other."""
    answers = pairs.answers()
    found = mine(
        queries,
        documents,
        answers,
        k,
        share=share,
        query_keys=pairs.queries,
        document_keys=pairs.documents,
        progress=progress,
    )
    return fill_random(found, len(pairs), answers, seed=seed, query_keys=pairs.queries, document_keys=pairs.documents)


# ---------------------------------------------------------------------------- what is asked for


def _vectors(vectors: ArrayLike, name: str, normalise: bool) -> NDArray[np.float32]:
    made: NDArray[np.float32] = np.asarray(vectors, dtype=np.float32)
    if made.ndim != 2 or not made.size:
        raise InputError(f"{name} is {list(made.shape)}; expected vectors, [rows, width]")
    broken = ~np.isfinite(made).all(axis=1)
    if broken.any():
        raise InputError(f"{name}: row {int(broken.argmax())} has a value that is not finite (NaN or infinite)")
    if normalise:
        # Through the largest value, so that squares neither overflow nor vanish; a vector of zeros stays one.
        made = made / np.maximum(np.abs(made).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        made /= np.maximum(np.linalg.norm(made, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.ascontiguousarray(made)


def _check(
    queries: NDArray[np.float32], documents: NDArray[np.float32], k: int, share: float | None, margin: float | None
) -> None:
    if queries.shape[1] != documents.shape[1]:
        raise InputError(f"queries are {queries.shape[1]} wide and documents {documents.shape[1]}; expected one width")
    if k < 1 or k > len(documents):
        raise InputError(f"{k} negatives asked for, of {len(documents)} documents; expected 1 to {len(documents)}")
    if len(documents) > _LOW:
        raise InputError(f"{len(documents)} documents; at most {_LOW} can be mined at once")
    if share is not None and not 0 < share < math.inf:
        raise InputError(f"share is {share}; expected a positive number, such as 0.95")
    if margin is not None and not math.isfinite(margin):
        raise InputError(f"margin is {margin}; expected a finite number, such as 0.05")
    largest = float(np.abs(queries).max()) * float(np.abs(documents).max()) * queries.shape[1]
    if largest > float(np.finfo(np.float32).max):
        raise InputError(f"dot products of these vectors may reach {largest:.0e}, more than float32 holds: scale them")


def _window(rank: tuple[int, int | None], k: int, documents: int, seed: int | None) -> tuple[int, int]:
    begin, end = rank
    if seed is not None and end is None:
        raise InputError(f"rank is {rank}; with a seed expected (from, to): the ranks to draw from, such as (0, 100)")
    if begin < 0 or (end is not None and end - begin < k):
        raise InputError(f"rank is {rank}; expected (from, to) with from >= 0 and at least {k} ranks between them")
    if begin >= documents:
        raise InputError(f"rank is {rank}, but {documents} documents have no rank {begin}: begin earlier")
    return begin, documents if end is None else min(end, documents)


def _answers(positives: Sequence[Sequence[int] | NDArray[np.int64]], queries: int, documents: int) -> Lists:
    if len(positives) != queries:
        raise InputError(f"{len(positives)} lists of positives for {queries} queries; expected one for each")
    made = []
    for i, numbers in enumerate(positives):
        own = np.asarray(numbers)
        if own.ndim != 1 or (own.size and own.dtype.kind not in "iu"):
            raise InputError(f"the positives of query {i} are {numbers!r:.60}; expected a list of document numbers")
        if own.size and not (own.min() >= 0 and own.max() < documents):
            raise InputError(f"the positives of query {i} are {numbers!r:.60}; expected numbers 0 to {documents - 1}")
        made.append(own.astype(np.int64))
    return made


def _blocked(
    answers: Lists,
    documents: int,
    query_keys: Sequence[Hashable] | None,
    document_keys: Sequence[Hashable] | None,
) -> Lists:
    """Sorted numbers of the documents that query i must not get: its answers, and all with a key of theirs or its."""
    if document_keys is None:
        if query_keys is not None:
            raise InputError("query_keys are compared with document_keys: give both, or document_keys alone")
        return [np.unique(own) for own in answers]
    if len(document_keys) != documents or (query_keys is not None and len(query_keys) != len(answers)):
        given = "" if query_keys is None else f" and {len(query_keys)} query_keys for {len(answers)} queries"
        raise InputError(f"{len(document_keys)} document_keys for {documents} documents{given}; expected one for each")
    holders: dict[Hashable, list[int]] = {}
    for number, key in enumerate(document_keys):
        holders.setdefault(key, []).append(number)
    made = []
    for i, own in enumerate(answers):
        keys = {document_keys[number] for number in own.tolist()}
        if query_keys is not None:
            keys.add(query_keys[i])
        same = [number for key in keys for number in holders.get(key, ())]
        made.append(np.unique(np.concatenate([own, np.array(same, dtype=np.int64)])))
    return made


def _limits(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    answers: Lists,
    share: float | None,
    margin: float | None,
) -> NDArray[np.float32] | None:
    """float32 [Q]: candidates must score below; None where there is no limit."""
    if share is None and margin is None:
        return None
    lowest = np.empty(len(queries), dtype=np.float32)
    for i, own in enumerate(answers):
        if not len(own):
            raise InputError(f"query {i} has no positives, so that share and margin have no score to compare with")
        lowest[i] = (documents[own] @ queries[i]).min()
    limits = np.full_like(lowest, np.inf)
    if share is not None:
        np.subtract(lowest, np.float32(1 - share) * np.abs(lowest), out=limits)
    if margin is not None:
        np.minimum(limits, lowest - np.float32(margin), out=limits)
    return limits


# ---------------------------------------------------------------------------- the search


def _best(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    blocked: Lists,
    limits: NDArray[np.float32] | None,
    length: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys [b, length] of the best documents below the limits, best first and _NONE where there are no more; and how
    many documents, int64 [b], are at or above the limits: all of them come before the first key."""
    best = np.full((len(queries), length), _NONE, dtype=np.int64)
    above = np.zeros(len(queries), dtype=np.int64)
    rows = np.repeat(np.arange(len(queries)), [len(own) for own in blocked])
    numbers = np.concatenate(blocked)
    for start in range(0, len(documents), _DOCUMENTS):
        scores = queries @ documents[start : start + _DOCUMENTS].T
        keys = _keys(scores, start)
        inside = (numbers >= start) & (numbers < start + _DOCUMENTS)
        out = (rows[inside], numbers[inside] - start)
        keys[out] = _NONE
        if limits is not None:
            over = scores >= limits[:, None]
            over[out] = False
            above += over.sum(axis=1)
            keys[over] = _NONE
        best = np.partition(np.concatenate([best, keys], axis=1), keys.shape[1] - 1, axis=1)[:, keys.shape[1] :]
    return np.sort(best, axis=1)[:, ::-1], above


def _keys(scores: NDArray[np.float32], start: int) -> NDArray[np.int64]:
    """int64 [b, n] that sort as (score, lower number first): the score's bits made monotone above, then the number."""
    bits = (scores + np.float32(0)).view(np.int32)  # -0 becomes 0, which it equals
    ordered = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    numbers = _LOW - np.arange(start, start + scores.shape[1], dtype=np.int64)
    made: NDArray[np.int64] = (ordered.astype(np.int64) << 32) | numbers
    return made


def _choose(
    numbers: NDArray[np.int64], left: NDArray[np.bool_], k: int, random: np.random.Generator | None
) -> NDArray[np.int64]:
    """[b, k] of the numbers that are left: the first ones, or any of them; then -1."""
    if random is None:
        order = np.argsort(~left, axis=1, kind="stable")[:, :k]
    else:
        # Drawn row by row from one stream, so that the choice does not depend on the size of blocks.
        order = np.argsort(np.where(left, random.random(left.shape), np.inf), axis=1, kind="stable")[:, :k]
    length = left.shape[1]
    order = np.sort(np.where(np.take_along_axis(left, order, axis=1), order, length), axis=1)  # by rank
    chosen = np.take_along_axis(numbers, np.minimum(order, length - 1), axis=1)
    chosen = np.where(order < length, chosen, -1)
    return np.pad(chosen, ((0, 0), (0, k - chosen.shape[1])), constant_values=-1)
