"""Codecs against hand-computed cases and independent NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from nextvec.compress.vectors import Codec, fit
from nextvec.compress.vectors._kmeans import kmeans, nearest, step
from nextvec.compress.vectors.pq import balanced_axes, learn_rotation
from nextvec.encoder import _quantise


def normal(rows: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def dot(spec: str, sample: NDArray[np.float32]) -> Codec:
    return fit(spec, sample, metric="dot")


def test_int8_by_hand() -> None:
    # Dimension 0 spans -1 .. 1 (centre 0, scale 2 / 254), dimension 1 is always 3.
    codec = dot("int8", np.array([[-1, 3], [1, 3]], np.float32))
    step = 2 / 254
    given = np.array([[1, 3], [-1, 3], [0, 3], [2.4 * step, 3], [2.6 * step, 3], [-2.6 * step, 3], [9, 5]], np.float32)
    codes = codec.encode(given)
    assert codes[:, 0].tolist() == [127, -127, 0, 2, 3, -3, 127]  # nearest; what lies outside is at the edge
    assert codes[:, 1].tolist() == [0] * 7
    assert codec.decode(codes)[:, 0] == pytest.approx(np.array([127, -127, 0, 2, 3, -3, 127]) * step, abs=1e-7)
    assert codec.decode(codes)[:, 1].tolist() == [3] * 7


def test_int8_error_is_half_a_step_inside_the_range() -> None:
    sample = normal(500, 24)
    codec = dot("int8", sample)
    steps = (sample.max(axis=0) - sample.min(axis=0)) / 254
    assert np.all(np.abs(codec.decode(codec.encode(sample)) - sample) <= steps * 0.5001)


def test_int8_vector_by_hand() -> None:
    codec = dot("int8:vector", np.ones((1, 3), np.float32))
    codes = codec.encode(np.array([[2, -1, 0.5], [0, 0, 0], [-254, 127, 1]], np.float32))
    assert codec.bytes_per_vector == 7
    assert codes[:, :3].tolist() == [[127, -64, 32], [0, 0, 0], [-127, 64, 0]]  # 63.5 and 0.5 go to the even one
    assert np.ascontiguousarray(codes[:, 3:]).view("<f4").ravel().tolist() == pytest.approx([2 / 127, 0, 2])
    assert codec.decode(codes)[1].tolist() == [0, 0, 0]


finite = st.floats(-1e6, 1e6, width=32).map(lambda x: 0.0 if abs(x) < 1e-6 else x)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 20)), elements=finite))
def test_errors_are_bounded_for_any_vectors(vectors: NDArray[np.float32]) -> None:
    for spec, bound in (
        ("float32", np.zeros_like(vectors)),
        ("bf16", np.abs(vectors) * 2.0**-8),
        ("int8:vector", np.abs(vectors).max(axis=1, keepdims=True) / 254 * (1 + 1e-5)),
        ("rotate,float32", np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True) * 1e-5),
    ):
        codec = dot(spec, vectors)
        decoded = codec.decode(codec.encode(vectors))
        assert np.all(np.abs(decoded.astype(np.float64) - vectors) <= bound), spec
        scores = codec.score(vectors, codec.encode(vectors))
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        exact = vectors.astype(np.float64) @ decoded.astype(np.float64).T
        assert np.all(np.abs(scores - exact) <= 1e-5 * (np.outer(lengths, lengths) + 1e-12)), spec


def test_bf16_rounds_to_nearest_even() -> None:
    # 1 + 2**-8 lies between 1 and 1 + 2**-7: even is 1. 1 + 3 * 2**-8 lies between 1 + 2**-7 and 1 + 2**-6: the latter.
    values = np.array([[1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 3 * 2**-8, 0, 3e14]], np.float32)
    codec = dot("bf16", values)
    codes = codec.encode(values)
    assert codes.dtype == np.uint16 and codes[0, 0] == 0x3F80
    assert codec.decode(codes)[0, :6].tolist() == [1, 1, 1 + 2**-6, 1 + 2**-7, -1 - 2**-6, 0]


def test_bf16_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    values = normal(200, 33) * np.float32(10.0) ** np.random.default_rng(1).integers(-8, 9, (200, 33)).astype(
        np.float32
    )
    theirs = torch.from_numpy(values).bfloat16().float().numpy()
    codec = dot("bf16", values)
    assert np.array_equal(codec.decode(codec.encode(values)), theirs)


def test_float16_is_numpys() -> None:
    values = normal(50, 9)
    assert np.array_equal(dot("float16", values).encode(values), values.astype(np.float16))


def test_binary_is_the_encoders_and_its_signs_count_hamming() -> None:
    vectors = normal(300, 37)
    codec = fit("binary", vectors)
    codes = codec.encode(vectors)
    assert np.array_equal(codes, _quantise(vectors, "binary"))
    # With the mean taken out and every amplitude made 1, a score is the dot product of signs: D - 2 * Hamming.
    signs = (codec.decode(codes) - codec.coder.arrays["centre"]) / codec.coder.arrays["scale"]
    assert np.allclose(np.abs(signs), 1, atol=1e-4)
    hamming = np.bitwise_count(codes[:, None] ^ codes[None]).sum(axis=2, dtype=np.int64)
    assert np.allclose(signs @ signs.T, 37 - 2 * hamming, atol=1e-2)


def test_binary_bits_stand_for_the_mean_of_their_side() -> None:
    sample = np.array([[1, -1], [3, -3], [-1, -2], [-5, -2]], np.float32)
    codec = dot("binary", sample)
    assert codec.encode(sample).ravel().tolist() == [0b1000_0000, 0b1000_0000, 0, 0]
    # Dimension 1 has nothing above 0: that side stands for 0.
    assert codec.decode(codec.encode(np.array([[9, 9], [-9, -9]], np.float32))).tolist() == [[2, 0], [-3, -2]]


def test_truncate_keeps_the_first_values_at_length_one() -> None:
    vectors = normal(20, 10)
    codec = fit("truncate4", vectors)
    assert codec.spec == "truncate4,float32" and codec.bytes_per_vector == 16
    expected = vectors[:, :4] / np.linalg.norm(vectors[:, :4], axis=1, keepdims=True)
    assert np.allclose(codec.encode(vectors), expected, atol=1e-6)
    assert np.array_equal(codec.decode(codec.encode(vectors))[:, 4:], np.zeros((20, 6)))
    assert np.array_equal(dot("truncate4", vectors).encode(vectors), vectors[:, :4])


def test_rotation_is_orthogonal_and_keeps_dot_products() -> None:
    vectors = normal(40, 12)
    codec = dot("rotate", vectors)
    matrix = codec.transforms[0].arrays["matrix"].astype(np.float64)
    assert np.allclose(matrix @ matrix.T, np.eye(12), atol=1e-6)
    assert np.allclose(codec.score(vectors, codec.encode(vectors)), vectors @ vectors.T, atol=1e-4)
    other = fit("rotate", vectors, metric="dot", seed=1).transforms[0].arrays["matrix"]
    assert not np.allclose(matrix, other)


def test_pca_leaves_the_variance_of_the_axes_that_it_drops() -> None:
    sample = normal(400, 9) * np.arange(9, 0, -1, dtype=np.float32) + np.float32(2)
    codec = dot("pca4", sample)
    error = np.square(codec.decode(codec.encode(sample)) - sample).sum(axis=1).mean()
    singular = np.linalg.svd(sample.astype(np.float64) - sample.mean(axis=0), compute_uv=False)
    assert error == pytest.approx(np.square(singular[4:]).sum() / 400, rel=1e-4)
    assert np.allclose(dot("pca9", sample).decode(dot("pca9", sample).encode(sample)), sample, atol=1e-4)


@pytest.mark.parametrize("spec", ["pq4", "pq4:opq"])
def test_pq_takes_the_nearest_centroid_and_scores_like_brute_force(spec: str) -> None:
    sample = normal(600, 12)
    codec = dot(spec, sample)
    rotation = codec.coder.arrays.get("rotation", np.eye(12, dtype=np.float32)).astype(np.float64)
    centroids = codec.coder.arrays["centroids"].astype(np.float64)
    rotated = (sample.astype(np.float64) @ rotation.T).astype(np.float32).astype(np.float64).reshape(600, 4, 3)
    distances = np.square(rotated[:, :, None] - centroids[None]).sum(axis=-1)
    codes = codec.encode(sample)
    assert np.array_equal(codes, distances.argmin(axis=-1))
    decoded = np.stack([centroids[m, codes[:, m]] for m in range(4)], axis=1).reshape(600, 12) @ rotation
    assert np.allclose(codec.decode(codes), decoded, atol=1e-5)
    for queries in (sample[:1], sample[:40]):  # by tables, and by a product
        assert np.allclose(codec.score(queries, codes), queries @ decoded.T, atol=1e-4)


def test_pq_of_as_many_vectors_as_centroids_is_exact() -> None:
    sample = normal(256, 6)
    codec = dot("pq1", sample)
    assert np.allclose(codec.decode(codec.encode(sample)), sample)


def test_opq_rotation_helps_where_variance_is_uneven() -> None:
    sample = normal(1500, 16) * np.geomspace(4, 0.1, 16).astype(np.float32)
    errors = {
        s: np.square(dot(s, sample).decode(dot(s, sample).encode(sample)) - sample).sum() for s in ("pq4", "pq4:opq")
    }
    assert errors["pq4:opq"] < 0.6 * errors["pq4"]
    rotation = learn_rotation(sample, 4, np.random.default_rng(0)).astype(np.float64)
    assert np.allclose(rotation @ rotation.T, np.eye(16), atol=1e-5)


def test_axes_are_dealt_so_that_products_of_variances_are_alike() -> None:
    sample = normal(4000, 8) * np.array([8, 4, 4, 2, 4, 2, 2, 1], np.float32)
    axes = balanced_axes(sample, 2).astype(np.float64)
    variances = np.var(sample @ axes.T, axis=0).reshape(2, 4)
    products = np.log(variances).sum(axis=1)
    assert abs(products[0] - products[1]) < 0.7


def test_kmeans_finds_clear_clusters_and_fills_empty_ones() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    points = (centres[np.arange(300) % 3] + 0.1 * rng.standard_normal((300, 2))).astype(np.float32)
    moved, _ = step(points, np.array([[0, 0], [5, 5], [900, 900]], np.float32))
    assert np.square(moved - 900).sum(axis=1).min() > 100  # the far one was given a point
    found = np.array([[4, 4], [9, 3], [3, 9]], np.float32)
    for _ in range(3):
        found, best = step(points, found)
    assert np.allclose(found, [points[i::3].mean(axis=0) for i in range(3)], atol=1e-5)
    assert np.array_equal(best, np.arange(300) % 3)
    assert nearest(points[:1], np.zeros((2, 2), np.float32))[0].tolist() == [0]


def test_kmeans_gets_better_with_every_step() -> None:
    points = normal(500, 3)
    errors = []
    for steps in (0, 1, 2, 5, 20):
        centroids = kmeans(points, 16, np.random.default_rng(0), steps=steps)
        errors.append(np.square(points[:, None] - centroids[None]).sum(axis=2).min(axis=1).mean())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[0]
