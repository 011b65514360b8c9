"""Classification and clustering of frozen vectors."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from installed import need

need("sklearn", "classification needs scikit-learn")

from nextvec.evaluate.labels import classify, cluster  # noqa: E402
from nextvec.evaluate.weighted import v_measure_statistic  # noqa: E402
from nextvec.types import InputError, MissingExtraError  # noqa: E402


def blobs(count: int, seed: int, *, spread: float = 0.3) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    vectors = np.eye(8)[labels] + spread * rng.normal(size=(count, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_classes_are_read_off_vectors_and_not_off_noise() -> None:
    (train, labels), (test, truth) = blobs(300, 0), blobs(300, 1)
    assert (classify(train, labels, test) == truth).mean() > 0.95
    noise = np.random.default_rng(2).normal(size=test.shape).astype(np.float32)
    assert (classify(noise, labels, noise[::-1]) == truth).mean() < 0.5


def test_classes_do_not_depend_on_how_close_the_vectors_lie() -> None:
    """A common direction in all vectors (as encoders have one) takes little from what can be read off them."""
    (train, labels), (test, truth) = blobs(400, 0, spread=0.4), blobs(400, 1, spread=0.4)
    cone = np.full(8, 5.0, dtype=np.float32)
    crowded = [(part + cone) / np.linalg.norm(part + cone, axis=1, keepdims=True) for part in (train, test)]
    plain = (classify(train, labels, test) == truth).mean()
    assert (classify(crowded[0], labels, crowded[1]) == truth).mean() > plain - 0.05


def test_results_repeat() -> None:
    (train, labels), (test, _) = blobs(100, 0, spread=1), blobs(50, 1, spread=1)
    np.testing.assert_array_equal(classify(train, labels, test), classify(train, labels, test))
    np.testing.assert_array_equal(cluster(train, 3), cluster(train, 3))


def test_clusters_find_the_classes() -> None:
    vectors, labels = blobs(300, 0, spread=0.15)
    assert v_measure_statistic(cluster(vectors, 3), labels)(np.ones(300)) > 0.9
    same = np.ones((10, 2), np.float32)
    assert set(cluster(same, 3).tolist()) <= {0, 1, 2}


def test_wrong_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels = blobs(10, 0)
    with pytest.raises(InputError, match="two or more classes"):
        classify(train, labels * 0, train)
    with pytest.raises(InputError, match="of one width"):
        classify(train, labels, train[:, :3])
    with pytest.raises(InputError, match="not finite"):
        cluster(train * np.inf, 2)
    with pytest.raises(InputError, match="11 clusters of 10 vectors"):
        cluster(train, 11)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtraError, match="clustering of vectors needs 'sklearn', which is not installed"):
        cluster(train, 2)
