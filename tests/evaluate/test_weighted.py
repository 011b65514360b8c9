"""Measures as functions of counts: by hand, beside scikit-learn, scipy and sentence-transformers, and counts as
repetition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nextvec.evaluate.sts import spearman
from nextvec.evaluate.weighted import (
    Statistic,
    class_statistics,
    mean_statistic,
    pair_statistics,
    rank_statistic,
    v_measure_statistic,
)
from nextvec.types import InputError

Floats = NDArray[np.float64]
N = 40


def examples(seed: int) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, N)
    wrong = rng.random(N) < 0.4
    return {
        "label": label,
        "other": np.where(wrong, rng.integers(0, 4, N), label),
        "truth": rng.random(N) < 0.5,
        "score": np.round(rng.normal(size=N), 1),  # with equal values
        "gold": rng.integers(0, 6, N).astype(float),
    }


def statistics(data: dict[str, NDArray[np.generic]]) -> dict[str, Statistic]:
    return {
        "mean": mean_statistic(data["gold"]),
        "spearman": rank_statistic(data["score"], data["gold"]),
        **class_statistics(data["other"], data["label"]),
        "v": v_measure_statistic(data["other"], data["label"]),
        **{f"pair {name}": one for name, one in pair_statistics(data["score"], data["truth"]).items()},
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 3), min_size=N, max_size=N).filter(lambda own: sum(own) > 5))
def test_a_count_is_a_repetition(seed: int, counts: list[int]) -> None:
    data, times = examples(seed), np.array(counts)
    repeated = {name: np.repeat(values, times) for name, values in data.items()}
    if len(set(repeated["truth"].tolist())) < 2:
        return
    by_counts = {name: one(times.astype(float)) for name, one in statistics(data).items()}
    by_repetition = {name: one(np.ones(times.sum())) for name, one in statistics(repeated).items()}
    assert by_counts == pytest.approx(by_repetition, abs=1e-9)


def test_by_hand() -> None:
    ones = np.ones(4)
    assert mean_statistic([0, 1, 2, 5])(ones) == 2
    assert mean_statistic([0, 1, 2, 5])(np.array([0, 0, 1, 3])) == 17 / 4
    found = {name: one(ones) for name, one in class_statistics([0, 1, 1, 1], [0, 0, 1, 1]).items()}
    assert found == {"accuracy": 0.75, "f1": pytest.approx((2 / 3 + 4 / 5) / 2)}
    # Best first: right, wrong, right, wrong. Precision 1 and 2/3 at the right ones.
    found = {name: one(ones) for name, one in pair_statistics([4, 3, 2, 1], [True, False, True, False]).items()}
    assert found == {"ap": pytest.approx((1 + 2 / 3) / 2), "accuracy": 0.75, "f1": pytest.approx(0.8)}
    assert v_measure_statistic([1, 1, 0, 0], [0, 0, 1, 1])(ones) == pytest.approx(1)
    assert v_measure_statistic([0, 1, 0, 1], [0, 0, 1, 1])(ones) == pytest.approx(0)
    assert v_measure_statistic([0, 0, 0, 0], [0, 0, 1, 1])(ones) == 0
    assert rank_statistic([1, 1, 1, 1], [1, 2, 3, 4])(ones) == 0
    assert rank_statistic([1, 2, 3, 4], [1, 2, 3, 4])(np.array([3.0, 0, 0, 0])) == 0


def test_spearman_is_that_of_sts_and_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for seed in range(10):
        data = examples(seed)
        ours = rank_statistic(data["score"], data["gold"])(np.ones(N))
        assert ours == pytest.approx(spearman(data["score"], data["gold"]), abs=1e-12)
        assert ours == pytest.approx(stats.spearmanr(data["score"], data["gold"]).statistic, abs=1e-12)


def test_beside_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for seed in range(10):
        data, ones = examples(seed), np.ones(N)
        found = class_statistics(data["other"], data["label"])
        assert found["accuracy"](ones) == pytest.approx(metrics.accuracy_score(data["label"], data["other"]))
        assert found["f1"](ones) == pytest.approx(metrics.f1_score(data["label"], data["other"], average="macro"))
        ours = v_measure_statistic(data["other"], data["label"])(ones)
        assert ours == pytest.approx(metrics.v_measure_score(data["label"], data["other"]))
        ours = pair_statistics(data["score"], data["truth"])["ap"](ones)
        assert ours == pytest.approx(metrics.average_precision_score(data["truth"], data["score"]))


def test_best_thresholds_beside_sentence_transformers() -> None:
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import evaluation

    theirs = evaluation.BinaryClassificationEvaluator
    for seed in range(10):
        rng = np.random.default_rng(seed)
        truth = rng.random(N) < rng.uniform(0.2, 0.8)
        scores = rng.normal(size=N) + truth  # all different: theirs depends on the order of equal ones
        ours = pair_statistics(scores, truth)
        accuracy, _ = theirs.find_best_acc_and_threshold(scores, truth.astype(int), True)
        f1, *_ = theirs.find_best_f1_and_threshold(scores, truth.astype(int), True)
        assert ours["accuracy"](np.ones(N)) == pytest.approx(accuracy)
        assert ours["f1"](np.ones(N)) == pytest.approx(f1)


def test_equal_scores_are_decided_alike() -> None:
    found = pair_statistics([1.0, 1.0, 1.0, 1.0], [True, False, True, True])
    assert {name: one(np.ones(4)) for name, one in found.items()} == {
        "ap": 0.75,
        "accuracy": 0.75,
        "f1": pytest.approx(6 / 7),
    }


def test_wrong_use_is_told() -> None:
    with pytest.raises(InputError, match="list of finite numbers"):
        mean_statistic([1.0, np.nan])
    with pytest.raises(InputError, match="two lists of one length, got 2 and 3"):
        rank_statistic([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="labels of both kinds"):
        pair_statistics([1.0, 2.0], [True, True])
    with pytest.raises(InputError, match="two lists of one length, from 0"):
        class_statistics([0, -1], [0, 1])
