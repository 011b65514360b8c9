"""Many queries at once: every way to multiply codes, however threads share them, gives what brute force gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from nextvec.search.indexes import exact
from nextvec.search.indexes import threads as threads_module
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.exact import ExactIndex, likely
from nextvec.search.indexes.rows import Damaged, in_memory
from nextvec.search.native import kernels, outputs

pytestmark = pytest.mark.skipif(kernels is None, reason="the search kernels were not compiled")

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@pytest.fixture(params=["one by one", "wide", "bytes", "matrix"])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way to multiply codes that this processor has."""
    wanted = ["one by one", "wide", "bytes", "matrix"].index(request.param)
    if kernels.use(wanted) != wanted:
        kernels.use(3)
        pytest.skip(f"this processor multiplies codes otherwise than by {request.param}")
    yield request.param
    kernels.use(3)


def clustered(rows: int, dim: int, seed: int = 0) -> Float32:
    """Near ones and far ones, of lengths from 0.5 to 2, with ties."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((9, dim))
    vectors = centres[random.integers(0, 9, rows)] + 0.3 * random.standard_normal((rows, dim))
    vectors *= random.uniform(0.5, 2, (rows, 1)) / np.sqrt(dim)
    vectors[::7] = vectors[0]
    return vectors.astype(np.float32)


def index_of(vectors: Float32) -> ExactIndex:
    return ExactIndex(in_memory([(np.arange(len(vectors)), vectors)], vectors.shape[1]))


def best(vectors: Float32, query: Float32, k: int, rows: Int64) -> tuple[list[int], list[float]]:
    scores = np.einsum("ij,j->i", vectors[rows].astype(np.float64), query.astype(np.float64)).astype(np.float32)
    order = np.lexsort((rows, -scores))[:k]
    return rows[order].tolist(), scores[order].tolist()


def agree(found: list[exact.Found], vectors: Float32, queries: Float32, k: int, rows: Int64) -> None:
    assert len(found) == len(queries)
    for query, one in zip(queries, found, strict=True):
        assert (one.rows.tolist(), one.scores.tolist()) == best(vectors, query, k, rows)


@pytest.mark.parametrize("dim", [1, 3, 31, 62, 64, 100, 256, 300])
@pytest.mark.parametrize("queries", [4, 16, 17, 40, 65, 130])
def test_any_number_of_queries_and_dimensions(level: str, dim: int, queries: int) -> None:
    vectors = clustered(1_111, dim)
    asked = clustered(queries, dim, seed=1)
    index = index_of(vectors)
    agree(index.search(asked, 10), vectors, asked, 10, np.arange(1_111))
    few = np.flatnonzero(np.arange(1_111) % 3 == 1)
    agree(index.search(asked, 10, few), vectors, asked, 10, few)


@pytest.mark.parametrize("k", [1, 2, 25, 200])
@pytest.mark.parametrize("rows", [257, 1_000, 4_003])
def test_any_number_of_hits_and_rows(level: str, k: int, rows: int) -> None:
    vectors, asked = clustered(rows, 48), clustered(9, 48, seed=2)
    index = index_of(vectors)
    agree(index.search(asked, k), vectors, asked, k, np.arange(rows))
    shuffled = np.random.default_rng(3).permutation(rows)[: rows * 3 // 4]
    agree(index.listed(asked, k, shuffled), vectors, asked, k, np.sort(shuffled))


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8, 0.99])
def test_a_filter_of_any_share(level: str, share: float) -> None:
    vectors, asked = clustered(6_000, 32), clustered(8, 32, seed=4)
    rows = np.flatnonzero(np.random.default_rng(5).random(6_000) < share)
    index = index_of(vectors)
    agree(index.among(asked, 10, Allowed(6_000, rows=rows)), vectors, asked, 10, rows)
    agree(index.among(asked[:1], 10, Allowed(6_000, rows=rows)), vectors, asked[:1], 10, rows)


@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize("queries", [1, 2, 6])
@pytest.mark.parametrize("apart", [64, 10_000])
def test_threads_share_rows_or_queries(monkeypatch: pytest.MonkeyPatch, threads: int, queries: int, apart: int) -> None:
    monkeypatch.setattr(threads_module, "workers", lambda: threads)
    monkeypatch.setattr(exact, "_APART", apart)
    monkeypatch.setattr(exact, "_SHARED", 1)
    vectors, asked = clustered(3_000, 40), clustered(queries, 40, seed=6)
    index = index_of(vectors)
    for k in (1, 10, 700):
        agree(index.search(asked, k), vectors, asked, k, np.arange(3_000))
    rows = np.flatnonzero(np.random.default_rng(7).random(3_000) < 0.8)
    agree(index.among(asked, 10, Allowed(3_000, rows=rows)), vectors, asked, 10, rows)
    agree(index.listed(asked, 10, rows[:700]), vectors, asked, 10, rows[:700])


def test_parts_of_rows_that_hold_fewer_than_k_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "workers", lambda: 4)
    monkeypatch.setattr(exact, "_APART", 1)
    monkeypatch.setattr(exact, "_SHARED", 1)
    vectors, asked = clustered(2_000, 16), clustered(5, 16, seed=8)
    index = index_of(vectors)
    bits = Allowed(2_000, rows=np.array([3, 900, 901, 1_999])).native(5)
    found = index._by_kernel(asked, 10, None, bits, "scan int8")
    agree(found, vectors, asked, 10, np.array([3, 900, 901, 1_999]))


def test_damage_is_seen_by_many_queries_too(level: str) -> None:
    vectors, asked = clustered(1_000, 32), clustered(8, 32, seed=9)
    index = index_of(vectors)
    wanted = index.search(asked, 1)[3].rows[0]
    index.rows.vectors[wanted, 5] += 1
    with pytest.raises(Damaged):
        index.search(asked, 1)


def test_what_is_likely_is_found(level: str) -> None:
    """With five standard deviations in place of certainty nothing of 300 answers is lost, and fewer rows are scored."""
    vectors, asked = clustered(20_000, 128), clustered(30, 128, seed=10)
    index = index_of(vectors)
    sure = index.search(asked, 10)
    fast = index.search(asked, 10, sure=likely(128))
    assert [one.rows.tolist() for one in fast] == [one.rows.tolist() for one in sure]
    if kernels.fast:  # else another library multiplies, and rows are ruled out with certainty
        assert sum(one.reranked for one in fast) < sum(one.reranked for one in sure)
    assert likely(16) == 1.0 and 0 < likely(4096) < likely(256) < 1


@pytest.mark.parametrize("first, last", [(-1, 5), (5, 4), (0, 101)])
def test_rows_that_are_not_there_are_refused(first: int, last: int) -> None:
    index = index_of(clustered(100, 8))
    with pytest.raises(IndexError, match="not there"):
        kernels.exact(index.native, clustered(4, 8), None, None, first, last, 2, 0, 1.0, outputs(4, 2))


def test_no_rows_at_all_give_no_hits() -> None:
    index = index_of(clustered(100, 8))
    out = outputs(4, 2)
    assert kernels.exact(index.native, clustered(4, 8), None, None, 7, 7, 2, 0, 1.0, out)
    assert out[2].tolist() == [[0, 0]] * 4
