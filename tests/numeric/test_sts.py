"""Spearman's correlation by hand and beside scipy, and the reader of the STS Benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextvec.data.catalog import find
from nextvec.data.sts import sts_benchmark
from nextvec.evaluate.sts import average_ranks, cosine_spearman, spearman
from nextvec.types import InputError


def test_ranks_by_hand() -> None:
    np.testing.assert_array_equal(average_ranks([30, 10, 20]), [3, 1, 2])
    np.testing.assert_array_equal(average_ranks([5, 1, 5, 5, 0]), [4, 2, 4, 4, 1])


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, -7]) == pytest.approx(-1)
    # Without ties: 1 - 6 sum d^2 / (n (n^2 - 1)); d = 1, 1, 0, 1, 1.
    assert spearman([1, 2, 3, 4, 5], [2, 1, 3, 5, 4]) == pytest.approx(1 - 6 * 4 / (5 * 24))
    # Ranks 1.5, 1.5, 3 and 1, 2, 3: covariance 1.5 over sqrt(1.5 * 2).
    assert spearman([0, 0, 1], [1, 2, 3]) == pytest.approx(1.5 / np.sqrt(3))


def test_spearman_beside_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, two = rng.integers(0, 9, 40), rng.normal(size=40)
        assert spearman(one, two) == pytest.approx(stats.spearmanr(one, two).statistic, abs=1e-12)


def test_cosine_spearman_ignores_lengths_of_vectors() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 12, 5)).astype(np.float32)
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(first, second, strict=True)]
    assert cosine_spearman(first, second, cosines) == pytest.approx(1)
    scale = rng.uniform(0.1, 9, (12, 1)).astype(np.float32)
    assert cosine_spearman(first * scale, second, cosines) == pytest.approx(1)
    assert cosine_spearman(first, -second, cosines) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        ([1, 2], [1, 2, 3], "one length"),
        ([1], [1], "at least 2"),
        ([1, 1, 1], [1, 2, 3], "all equal"),
        ([1, float("nan")], [1, 2], "finite"),
    ],
)
def test_what_has_no_correlation(one: list[float], two: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        spearman(one, two)


def test_shapes_of_pairs() -> None:
    with pytest.raises(InputError, match="one shape"):
        cosine_spearman(np.ones((2, 3), np.float32), np.ones((3, 3), np.float32), [1, 2])


def write(folder: Path, *lines: str) -> Path:
    (folder / "STSBenchmark").mkdir()
    (folder / "STSBenchmark" / "sts-test.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_reads_scored_pairs(tmp_path: Path) -> None:
    lines = ('news\ta\t2012\t1\t4.5\ta "quoted one\tanother .', "forum\tb\t2014\t2\t0\tone\ttwo\tsource\tsource")
    pairs = sts_benchmark("test", folder=write(tmp_path, *lines))
    assert pairs.first == ['a "quoted one', "one"]
    assert pairs.second == ["another .", "two"]
    assert pairs.scores.tolist() == [4.5, 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("news\ta\t2012\t1\tgood\tone\ttwo", "sts-test.csv:1: expected a score"),
        ("news\ta\t2012\t1\t4.5\tone", "expected a score and two sentences"),
        ("news\ta\t2012\t1\t9\tone\ttwo", "the score is 9.0; expected 0 to 5"),
        ("", "holds no pair"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sts_benchmark("test", folder=write(tmp_path, line))


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one of train, dev, test; did you mean 'test'"):
        sts_benchmark("tests", folder=tmp_path)


def test_the_catalogued_set() -> None:
    if find("sts") is None:
        pytest.skip("the STS sets are not on this machine (set NEXTVEC_DATA)")
    sizes = [len(sts_benchmark(split)) for split in ("train", "dev", "test")]
    assert sizes == [5749, 1500, 1379]
    test = sts_benchmark("test")
    assert test.first[0] == "a girl is styling her hair ."
    assert (test.scores[0], test.scores.max()) == (2.5, 5.0)
