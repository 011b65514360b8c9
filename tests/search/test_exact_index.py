"""The scan with an error bound gives what float64 brute force gives, near ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nextvec.search.indexes import codes as kernels
from nextvec.search.indexes import exact
from nextvec.search.indexes.codes import quantise
from nextvec.search.indexes.exact import DIRECT, ExactIndex
from nextvec.search.indexes.rows import Damaged, Rows, in_memory


def index_of(vectors: NDArray[np.float32]) -> ExactIndex:
    return ExactIndex(in_memory([(np.arange(len(vectors)), vectors)], vectors.shape[1]))


def brute(
    vectors: NDArray[np.float32], query: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None
) -> tuple[list[int], list[float]]:
    rows = np.arange(len(vectors)) if allowed is None else allowed
    scores = np.einsum("ij,j->i", vectors[rows].astype(np.float64), query.astype(np.float64)).astype(np.float32)
    order = np.lexsort((rows, -scores))[:k]
    return rows[order].tolist(), scores[order].tolist()


def agree(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
) -> list[exact.Found]:
    found = index_of(vectors).search(queries, k, allowed)
    for query, one in zip(queries, found, strict=True):
        rows, scores = brute(vectors, query, k, allowed)
        assert one.rows.tolist() == rows
        assert one.scores.tolist() == scores
        assert one.scores.dtype == np.float32
    return found


def unit(rng: np.random.Generator, rows: int, dim: int) -> NDArray[np.float32]:
    vectors = rng.standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(params=["int8, compiled", "int8", "float32"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All ways to scan: with compiled kernels, without, and where numkong cannot be imported either."""
    if request.param == "int8, compiled":
        if exact.native is None:
            pytest.skip("the search kernels were not compiled")
    else:
        monkeypatch.setattr(exact, "native", None)
    if request.param == "float32":
        monkeypatch.setattr(kernels, "numkong", None)
    elif not kernels.available():
        pytest.skip("numkong is not installed")
    return str(request.param).partition(",")[0]


@pytest.mark.parametrize("queries", [1, 3, 70])
@pytest.mark.parametrize("share", [None, 0.7, 0.1, 0.001])
def test_equals_brute_force(kernel: str, queries: int, share: float | None) -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng, 20_000, 48)  # two blocks
    allowed = None if share is None else np.flatnonzero(rng.random(20_000) < share)
    found = agree(vectors, unit(rng, queries, 48), 10, allowed)
    if share != 0.001:
        assert found[0].plan.startswith("gather" if share == 0.1 else "scan")
        assert found[0].plan.endswith(kernel)
        assert found[0].reranked < 2000


def test_near_ties_closer_than_the_codes_can_tell(kernel: str) -> None:
    rng = np.random.default_rng(2)
    base = unit(rng, 1, 64)
    # 20,000 rows within 1e-4 of one direction: int8 cannot tell them apart, float32 barely.
    vectors = base + rng.standard_normal((20_000, 64)).astype(np.float32) * np.float32(1e-5)
    vectors = np.concatenate([unit(rng, 10_000, 64), vectors.astype(np.float32)])
    found = agree(vectors, base, 25)
    told = "near ties in float32" in found[0].plan  # the kernels score all of them instead
    assert told or kernel == "float32" or found[0].reranked == 20_000
    agree(vectors, base, 25, np.flatnonzero(rng.random(30_000) < 0.5))


def test_equal_rows_tie_in_insertion_order(kernel: str) -> None:
    rng = np.random.default_rng(3)
    vectors = np.repeat(unit(rng, 300, 33), 10, axis=0)
    shuffled = rng.permutation(len(vectors))
    for one in agree(vectors[shuffled], unit(rng, 5, 33), 40):
        ties = np.flatnonzero(np.diff(one.scores) == 0)
        assert len(ties) > 30
        assert np.all(np.diff(one.rows)[ties] > 0)
    same = np.repeat(unit(rng, 1, 33), 5000, axis=0)
    assert index_of(same).search(same[:1], 7)[0].rows.tolist() == list(range(7))


def test_clusters_in_file_order(kernel: str) -> None:
    # The first blocks hold nothing near the query, so that the threshold starts far too low.
    rng = np.random.default_rng(4)
    centres = unit(rng, 40, 32)
    vectors = np.repeat(centres, 1500, axis=0) + 0.05 * rng.standard_normal((60_000, 32)).astype(np.float32)
    agree(vectors.astype(np.float32), centres[[39, 0, 20]], 30)
    agree(vectors.astype(np.float32), centres[[39]], 30, np.arange(100, 60_000, 2))


def test_dot_products_of_very_different_lengths(kernel: str) -> None:
    rng = np.random.default_rng(5)
    vectors = unit(rng, 5000, 24) * (10.0 ** rng.uniform(-12, 12, (5000, 1))).astype(np.float32)
    vectors[::7] = 0
    agree(vectors, np.float32([[1e14], [1e-14], [0]]) * unit(rng, 3, 24), 20)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 70), st.integers(1, 400), st.sampled_from(["normal", "ints", "sparse"]))
def test_any_shape(seed: int, dim: int, k: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((int(rng.integers(1, 3000)), dim)).astype(np.float32)
    if kind == "ints":
        vectors = np.rint(vectors)
    elif kind == "sparse":
        vectors[rng.random(vectors.shape) < 0.9] = 0
    queries = vectors[rng.integers(0, len(vectors), 3)]
    allowed = np.flatnonzero(rng.random(len(vectors)) < rng.random())
    agree(vectors, queries, k)
    if len(allowed):
        agree(vectors, queries, k, allowed)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 200), st.floats(-12, 12))
def test_residual_bound_holds(seed: int, dim: int, magnitude: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = (rng.standard_normal((50, dim)) ** 3 * 10.0**magnitude).astype(np.float32)
    coded = quantise(vectors)
    exact_residual = vectors.astype(np.float64) - coded.codes * coded.scale.astype(np.float64)[:, None]
    assert np.all(np.linalg.norm(exact_residual, axis=1) <= coded.error)
    assert np.all(np.linalg.norm(vectors.astype(np.float64), axis=1) <= coded.norm)


@pytest.mark.parametrize("part", ["vectors", "codes"])
def test_damage_is_noticed(part: str) -> None:
    rng = np.random.default_rng(6)
    vectors = unit(rng, DIRECT * 40, 16)
    rows = in_memory([(np.arange(len(vectors)), vectors.copy())], 16)
    query = vectors[:1]
    best = int(ExactIndex(rows).search(query, 1)[0].rows[0])
    getattr(rows, part)[best, 3] += 1
    if part == "codes" and not kernels.available():
        pytest.skip("no codes are read without numkong")
    with pytest.raises(Damaged):
        ExactIndex(Rows(rows.name, rows.vectors, rows.codes, rows.stats)).search(query, 1)
