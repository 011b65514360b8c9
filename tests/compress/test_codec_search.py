"""``top_k``: order, ties, blocks, and the second stage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from nextvec.compress.vectors import _top_k, fit, top_k
from nextvec.search.indexes.exact import ExactIndex
from nextvec.search.indexes.rows import in_memory
from nextvec.search.inputs import normalise
from nextvec.types import InputError


def normal(rows: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


# Small whole numbers: float32 sums are exact, and there are ties everywhere.
whole = arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(-2, 2).map(float))


@settings(max_examples=80, deadline=None)
@given(whole, whole, st.integers(1, 12), st.integers(1, 7))
def test_equals_a_stable_sort(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, block: int) -> None:
    codec = fit("float32", vectors, metric="dot")
    exact = queries @ vectors.T
    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_top_k, "BLOCK", block)
        codes = codec.encode(vectors)
        for found in (
            top_k(codec, queries, codes, k),
            top_k(codec, queries, codes, k, rerank=vectors),
            top_k(codec, queries, codes, k, rerank=(codec, codes)),
        ):
            assert np.array_equal(found.rows, order)
            assert np.array_equal(found.scores, np.take_along_axis(exact, order, axis=1))
            assert found.rows.dtype == np.int64 and found.scores.dtype == np.float32


def test_gives_what_the_exact_index_gives() -> None:
    vectors, queries = normalise(normal(3000, 24)), normalise(normal(5, 24, 1))
    vectors = normalise(vectors)
    codec = fit("int8", vectors)
    found = top_k(codec, queries, codec.encode(vectors), 10, rerank=vectors, candidates=3000)
    index = ExactIndex(in_memory([(np.arange(3000), vectors)], 24))
    for rows, scores, one in zip(found.rows, found.scores, index.search(queries, 10), strict=True):
        assert np.array_equal(rows, one.rows)
        assert scores == pytest.approx(one.scores, abs=1e-7)


def test_several_blocks_of_codes() -> None:
    vectors, queries = normal(2 * _top_k.BLOCK + 77, 4), normal(3, 4, 1)
    codec = fit("bf16", vectors)
    codes = codec.encode(vectors)
    scores = codec.score(queries, codes)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :25]
    assert np.array_equal(top_k(codec, queries, codes, 25).rows, order)


def test_the_second_stage_only_sees_candidates_and_only_improves() -> None:
    vectors, queries = normal(2000, 32), normal(50, 32, 1)
    codec, finer = fit("rotate,binary", vectors), fit("int8", vectors)
    codes, finer_codes = codec.encode(vectors), finer.encode(vectors)
    exact = np.argsort(-(queries @ normalise(vectors).T), axis=1)[:, :10]

    def recall(rows: NDArray[np.int64]) -> float:
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact, strict=True)]))

    alone = top_k(codec, queries, codes)
    again = top_k(codec, queries, codes, rerank=vectors)
    by_codes = top_k(codec, queries, codes, rerank=(finer, finer_codes))
    more = top_k(codec, queries, codes, rerank=vectors, candidates=200)
    first = top_k(codec, queries, codes, 40).rows
    assert all(set(a) <= set(b) for a, b in zip(again.rows, first, strict=True))
    assert recall(alone.rows) + 0.1 < recall(again.rows) < recall(more.rows)
    assert recall(by_codes.rows) > recall(again.rows) - 0.02
    unit = normalise(queries)[:, None] * normalise(vectors)[again.rows]
    assert again.scores == pytest.approx(unit.sum(axis=2), abs=1e-6)


def test_fewer_rows_than_k() -> None:
    vectors = normal(5, 8)
    codec = fit("float16", vectors)
    codes = codec.encode(vectors)
    assert top_k(codec, vectors[:2], codes, 10, rerank=vectors).rows.shape == (2, 5)
    assert top_k(codec, vectors[:2], codes[:0], 10).rows.shape == (2, 0)
    assert top_k(codec, vectors[:0], codes, 3).scores.shape == (0, 3)


def test_bad_questions() -> None:
    vectors = normal(50, 8)
    codec = fit("int8", vectors)
    codes = codec.encode(vectors)
    other = fit("int8", vectors, metric="dot")
    broken = vectors.copy()
    broken[17] = np.nan
    for wrong, message in (
        ({"k": 0}, "k is 0: expected a whole number"),
        ({"k": 2.5}, "k is 2.5: expected a whole number"),
        ({"k": True}, "k is True"),
        ({"candidates": 20}, "without rerank"),
        ({"rerank": vectors, "candidates": 5}, "candidates is 5, fewer than the 10"),
        ({"rerank": vectors, "candidates": -1}, "candidates is -1"),
        ({"rerank": vectors[:9]}, "rerank has 9 vectors for 50 rows"),
        ({"rerank": vectors[:, :4]}, r"shape \[50, 4\]: expected \[n, 8\]"),
        ({"rerank": (codec, codes[:9])}, "rerank has 9 codes for 50 rows"),
        ({"rerank": (other, other.encode(vectors))}, "metric 'dot', the first has 8 and 'cosine'"),
        ({"rerank": broken, "candidates": 50}, "re-ranking vector 17 holds NaN"),
    ):
        with pytest.raises(InputError, match=message):
            top_k(codec, vectors[:2], codes, **wrong)  # type: ignore[arg-type]
