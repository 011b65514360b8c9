"""A bit per dimension: the rotation, the estimate, and the scan that uses it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.cells import build_cells, look, search_cells
from nextvec.search.indexes.exact import ExactIndex, Found
from nextvec.search.indexes.rows import Rows, in_memory
from nextvec.search.indexes.signs import BLOCK, flips_of, signs_of, turned
from nextvec.search.native import kernels

N = 6_000


def clustered(dim: int, count: int = N, seed: int = 1) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, dim))
    made = centres[rng.integers(0, 40, count)] + 0.7 * rng.standard_normal((count, dim))
    unit: NDArray[np.float32] = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return unit


def read(signs: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """What ``signs_of`` laid, row by row: bits uint8 [32 B, 8 S], 0 or 1, and factors float32 [32 B, 2]."""
    blocks, size = signs.shape
    wide = size // BLOCK - 8
    rows = signs[:, : BLOCK * wide].reshape(blocks, wide, BLOCK).transpose(0, 2, 1).reshape(-1, wide)
    factors = np.ascontiguousarray(signs[:, BLOCK * wide :]).view("<f4").reshape(blocks, 2, BLOCK).transpose(0, 2, 1)
    return np.unpackbits(rows, axis=1, bitorder="little"), factors.reshape(-1, 2).astype(np.float32)


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 64, 100, 256, 384])
def test_the_rotation_keeps_every_product(dim: int) -> None:
    rng = np.random.default_rng(dim)
    vectors = rng.standard_normal((50, dim)).astype(np.float32)
    moved = turned(vectors, flips_of(dim, rng))
    np.testing.assert_allclose(moved @ moved.T, vectors @ vectors.T, rtol=1e-4, atol=1e-4)
    assert not np.shares_memory(moved, vectors)
    if dim >= 64:  # one value is spread over all
        spike = np.eye(1, dim, dtype=np.float32)
        assert np.abs(turned(spike, flips_of(dim, rng))).max() < 0.6


def test_one_value_by_hand() -> None:
    """D=2, no flips: H (a, b) = (a + b, a - b) / sqrt(2), and H H = 1."""
    flips = np.ones((2, 2), np.int8)
    np.testing.assert_allclose(turned(np.array([[3.0, 1.0]], np.float32), flips), [[3, 1]], rtol=1e-6)
    flips[1] = [1, -1]  # H diag(1, -1) H (a, b) = (b, a)
    np.testing.assert_allclose(turned(np.array([[3.0, 1.0]], np.float32), flips), [[1, 3]], rtol=1e-6)


@pytest.mark.parametrize("dim", [3, 64, 100, 300])
def test_signs_and_factors_are_what_the_formula_says(dim: int) -> None:
    rng = np.random.default_rng(0)
    count = 50
    flips, rests = flips_of(dim, rng), rng.standard_normal((count, dim)).astype(np.float32)
    rests[4] = 0
    signs = signs_of(rests, flips)
    wide = -(-dim // 64) * 8
    assert signs.shape == (2, BLOCK * (wide + 8)) and signs.dtype == np.uint8
    bits, factors = read(signs)
    moved = turned(rests, flips)
    assert np.array_equal(bits[:count, :dim], moved > 0) and not bits[:, dim:].any()
    assert not bits[count:].any() and not factors[count:].any()
    # Dimensions 8 to 15 of row 33 are byte 1 of row 1 of the second block.
    if dim > 16:
        assert signs[1, BLOCK + 1] == np.packbits(moved[33, 8:16] > 0, bitorder="little")[0]
    bits = bits[:count]
    slope, shift = factors[:count].T
    expected = np.sum(rests.astype(float) ** 2, axis=1) / np.maximum(np.abs(moved).sum(axis=1), 1e-30)
    np.testing.assert_allclose(slope, expected, rtol=1e-4)
    np.testing.assert_allclose(shift, 2 * slope * bits.sum(axis=1), rtol=1e-5)
    assert slope[4] == shift[4] == 0


def test_the_estimate_has_no_bias_and_the_error_of_the_paper() -> None:
    """Over rotations, <q', b> |r|^2 / <T r, b> - q.r has mean 0 and a deviation of about
    |q| |r| sqrt(pi/2 - 1) / sqrt(D) for a q at a right angle to r."""
    rng, dim, errors = np.random.default_rng(5), 256, []
    rests = rng.standard_normal((100, dim)).astype(np.float32)
    queries = rng.standard_normal((100, dim)).astype(np.float32)
    for _ in range(40):
        flips = flips_of(dim, rng)
        signs = signs_of(rests, flips)
        bits, factors = read(signs)
        guess = np.einsum("ij,ij->i", turned(queries, flips), 2.0 * bits[:100, :dim] - 1) * factors[:100, 0]
        errors.append(guess - np.einsum("ij,ij->i", rests, queries))
    scale = np.linalg.norm(rests, axis=1) * np.linalg.norm(queries, axis=1) / np.sqrt(dim)
    relative = np.array(errors) / scale
    assert abs(relative.mean()) < 0.05
    assert relative.std() == pytest.approx(np.sqrt(np.pi / 2 - 1), rel=0.1)


def reached(found: list[Found], whole: list[Found]) -> float:
    """The share of the hits of ``whole`` that are in ``found``, where there are any."""
    pairs = [(one, true) for one, true in zip(found, whole, strict=True) if len(true.rows)]
    return float(np.mean([np.isin(true.rows, one.rows).mean() for one, true in pairs])) if pairs else 1.0


def rows_of(vectors: NDArray[np.float32]) -> Rows:
    return in_memory([(np.arange(len(vectors)), vectors)], vectors.shape[1])


@pytest.mark.skipif(kernels is None, reason="the search kernels were not compiled")
@pytest.mark.parametrize("dim", [40, 256, 300])
def test_a_scan_that_keeps_enough_finds_what_one_by_codes_finds(dim: int) -> None:
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    vectors = clustered(dim)
    index = ExactIndex(rows_of(vectors))
    own = build_cells(index.rows)
    queries = clustered(dim, 60, seed=2)
    rows = np.full(60, float(N))
    third = Allowed(N, rows=np.arange(0, N, 3))
    for allowed in (None, third, Allowed(N, rows=np.array([5, 70])), Allowed(N, rows=np.zeros(0, np.int64))):
        order, _ = look(own, queries, allowed)
        whole = search_cells(own, index, queries, 10, allowed, order, rows=rows)
        every = search_cells(own, index, queries, 10, allowed, order, rows=rows, keep=N)
        assert (
            reached(every, whole) >= 0.998
        )  # a row is left alone that is three deviations of its estimate below the best
        some = search_cells(own, index, queries, 10, allowed, order, rows=rows, keep=400)
        few = search_cells(own, index, queries, 10, allowed, order, rows=rows, keep=12)
        assert reached(some, whole) >= (0.98 if dim > 64 else 0.9) and reached(some, whole) >= reached(few, whole)
        assert all(len(one.rows) == len(true.rows) for one, true in zip(some, whole, strict=True))
        if allowed is not None:
            assert all(allowed.mask[one.rows].all() for one in few)
    order, _ = look(own, queries)
    few = search_cells(own, index, queries, 10, None, order, rows=rows, keep=12)
    assert reached(few, index.search(queries, 10)) > 20 * 12 / N  # twenty times what chance would find


@pytest.mark.skipif(kernels is None, reason="the search kernels were not compiled")
def test_rows_far_longer_than_all_others_do_not_hide_these() -> None:
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    vectors, queries = clustered(64, 3_000), clustered(64, 40, seed=2)
    vectors[:3] *= 1e6
    index = ExactIndex(rows_of(vectors))
    own = build_cells(index.rows, metric="dot")
    order, rows = look(own, queries)[0], np.full(40, 3_000.0)
    whole = search_cells(own, index, queries, 10, None, order, rows=rows)
    kept = search_cells(own, index, queries, 10, None, order, rows=rows, keep=300)
    assert reached(kept, whole) > 0.95


@pytest.mark.skipif(kernels is None, reason="the search kernels were not compiled")
@pytest.mark.parametrize("dim", [9, 64, 200, 4_200])  # the sums of the last do not fit 16 bits
def test_every_way_to_look_at_signs_keeps_the_same(dim: int) -> None:
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    vectors, queries = clustered(dim, 1_500), clustered(dim, 40, seed=2)
    index = ExactIndex(rows_of(vectors))
    own = build_cells(index.rows)
    order, _ = look(own, queries)
    rows, found = np.full(40, 1_500.0), []
    try:
        for level in range(4):
            if kernels.use(level) == level:
                found.append(search_cells(own, index, queries, 10, None, order, rows=rows, keep=30))
    finally:
        kernels.use(3)
    for other in found[1:]:  # the last digit of an estimate may decide about the last row that is kept
        assert reached(other, found[0]) > 0.99
    assert reached(found[0], index.search(queries, 10)) > 0.3


@pytest.mark.skipif(kernels is None, reason="the search kernels were not compiled")
@pytest.mark.parametrize("dim", [3, 18, 64, 200, 256])
@pytest.mark.parametrize("count", [4, 8, 17, 64, 70])
def test_queries_that_come_together_have_their_cells_in_the_same_order(dim: int, count: int) -> None:
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    index, queries = ExactIndex(rows_of(clustered(dim, 3_000))), clustered(dim, count, seed=2)
    own = build_cells(index.rows)
    assert len(own.means) % 32 != 0  # the last tile is not full
    rows = np.full(count, 400.0)
    try:
        for level in range(1, 4):
            if kernels.use(level) != level:
                continue
            apart = [look(own, queries[i : i + 1]) for i in range(count)]
            order, shares = look(own, queries)
            np.testing.assert_array_equal(order, np.concatenate([one[0] for one in apart]))
            assert shares == [one[1][0] for one in apart]
            ranked = search_cells(own, index, queries, 5, None, None, rows=rows, keep=60)  # by the scan itself
            known = search_cells(own, index, queries, 5, None, order, rows=rows, keep=60)
            for one, other in zip(ranked, known, strict=True):
                np.testing.assert_array_equal(one.rows, other.rows)
    finally:
        kernels.use(3)


@pytest.mark.skipif(kernels is None, reason="the search kernels were not compiled")
def test_a_negative_number_of_rows_to_keep_is_refused() -> None:
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    index = ExactIndex(rows_of(clustered(32, 500)))
    own = build_cells(index.rows)
    query = clustered(32, 1, seed=2)
    with pytest.raises(ValueError, match="cells that do not fit"):
        search_cells(own, index, query, 5, None, look(own, query)[0], rows=np.array([100.0]), keep=-1)


@pytest.mark.skipif(kernels is None, reason="the search kernels were not compiled")
@pytest.mark.parametrize("dim", [24, 256])
def test_a_scan_of_all_cells_gives_up_where_more_is_probably_lost_than_may_be(dim: int) -> None:
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    vectors, queries = clustered(dim), clustered(dim, 80, seed=2)
    index = ExactIndex(rows_of(vectors))
    own = build_cells(index.rows)
    order, rows = look(own, queries)[0], np.full(80, np.inf)
    truth = index.search(queries, 10)
    given = []
    for keep in (12, 60, 200, N):
        found = search_cells(own, index, queries, 10, None, order, rows=rows, keep=keep, may_lose=0.02)
        sure = [(one, true) for one, true in zip(found, truth, strict=True) if len(one.rows)]
        given.append(len(sure))
        kept = [np.isin(true.rows, one.rows).mean() for one, true in sure]
        assert not kept or np.mean(kept) >= 0.97
        assert all(len(one.rows) == 10 and one.reranked > 0 for one, _ in sure)
        everyone = search_cells(own, index, queries, 10, None, order, rows=rows, keep=keep, may_lose=1.0)
        assert all(len(one.rows) == 10 for one in everyone)
    assert given == sorted(given) and given[0] < 20 and given[-1] == 80
    # Only where all rows are looked at: what else is lost by looking at fewer is no matter of signs.
    near = search_cells(own, index, queries, 10, None, order, rows=np.full(80, N / 2.0), keep=12, may_lose=0.0)
    assert all(len(one.rows) == 10 for one in near)


@pytest.mark.skipif(kernels is None, reason="the search kernels were not compiled")
def test_rows_that_came_later_do_not_hide_that_a_scan_gave_up() -> None:
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    vectors, query = clustered(32, N + 40), clustered(32, 1, seed=2)
    index = ExactIndex(rows_of(vectors))
    own = build_cells(rows_of(vectors[:N]))
    order = look(own, query)[0]
    for may_lose, hits in ((0.0, 0), (1.0, 10)):
        (found,) = search_cells(own, index, query, 10, None, order, rows=np.array([np.inf]), keep=12, may_lose=may_lose)
        assert len(found.rows) == len(found.scores) == hits
