"""Intervals and paired differences over examples, and classes read off vectors."""

from __future__ import annotations

import numpy as np
import pytest

from nextvec.evaluate.outcomes import KINDS, Outcome, differences, intervals
from nextvec.evaluate.retrieval import bootstrap, paired_bootstrap
from nextvec.types import InputError

N = 200


def outcome(kind: str, seed: int = 0, *, noise: float = 1.0) -> Outcome:
    """Examples on which a model with less ``noise`` does better; the truth is the same for every noise."""
    truth = np.random.default_rng(1)
    own = np.random.default_rng(seed)
    label, gold = truth.integers(0, 3, N), truth.normal(size=N)
    guess = np.where(own.random(N) < 0.3 * noise, own.integers(0, 3, N), label)
    columns = {
        "means": {"ndcg@10": np.clip(gold + 1 - 0.1 * noise, 0, 1), "mrr@10": np.clip(gold, 0, 1)},
        "spearman": {"score": gold + noise * own.normal(size=N), "gold": gold},
        "classes": {"predicted": guess, "label": label},
        "clusters": {"cluster": guess, "label": label},
        "binary": {"score": (label > 0) + noise * own.normal(size=N), "label": label > 0},
    }
    return Outcome(kind, columns[kind])


@pytest.mark.parametrize("kind", list(KINDS))
def test_intervals_hold_the_measure_and_repeat(kind: str) -> None:
    found = intervals(outcome(kind), samples=200)
    assert found == intervals(outcome(kind), samples=200)
    for name, value in outcome(kind).measures().items():
        assert found[name].mean == value
        assert found[name].low < value < found[name].high
        assert found[name].low >= -1 and found[name].high <= 1


def test_means_have_the_interval_of_the_plain_bootstrap() -> None:
    one = outcome("means")
    for name, values in one.columns.items():
        plain, ours = bootstrap(values, samples=300, seed=5), intervals(one, samples=300, seed=5)[name]
        assert (ours.mean, ours.low, ours.high) == pytest.approx((plain.mean, plain.low, plain.high))
    other = outcome("means", noise=3)
    plain = paired_bootstrap(one.columns["ndcg@10"], other.columns["ndcg@10"], samples=300, seed=5)
    ours = differences(one, other, samples=300, seed=5)["ndcg@10"]
    assert (ours.mean, ours.low, ours.high) == pytest.approx((plain.mean, plain.low, plain.high))


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_better_model_is_told_from_the_worse(kind: str) -> None:
    better, worse = outcome(kind, noise=0.3), outcome(kind, 7, noise=2.5)
    found = differences(better, worse, samples=200)
    name = next(iter(found))
    assert found[name].low > 0 and found[name].p < 0.02
    back = differences(worse, better, samples=200)[name]
    assert (back.mean, back.low, back.high) == pytest.approx(
        (-found[name].mean, -found[name].high, -found[name].low), abs=1e-9
    )


def test_a_model_does_not_differ_from_itself() -> None:
    for kind in KINDS:
        for value in differences(outcome(kind), outcome(kind), samples=50).values():
            assert value.as_dict() == {"mean": 0, "low": 0, "high": 0, "p": 1}


def test_intervals_cover() -> None:
    """Of 60 samples of a correlation of 0.6 about 95 % of the intervals hold it."""
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        one = rng.normal(size=150)
        two = 0.6 * one + 0.8 * rng.normal(size=150)
        found = intervals(Outcome("spearman", {"score": one, "gold": two}), samples=150)["spearman"]
        held += found.low <= 0.582 <= found.high  # Spearman's of a normal pair: 6 / pi asin(0.6 / 2)
    assert 51 <= held <= 60


def test_wrong_use_is_told() -> None:
    with pytest.raises(InputError, match="no kind of outcome 'mean'"):
        Outcome("mean", {"x": np.ones(2)})
    with pytest.raises(InputError, match="columns of one length"):
        Outcome("means", {"x": np.ones(2), "y": np.ones(3)})
    with pytest.raises(InputError, match="not empty"):
        Outcome("means", {})
    with pytest.raises(InputError, match="compare on the same task"):
        differences(outcome("means"), outcome("classes"))
    other = outcome("spearman")
    moved = Outcome("spearman", {**other.columns, "gold": other.columns["gold"][::-1]})
    with pytest.raises(InputError, match="differ in 'gold'"):
        differences(other, moved)
    with pytest.raises(InputError, match="samples is 0"):
        intervals(other, samples=0)
