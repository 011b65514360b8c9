"""Intervals and verdicts against cases computed by hand and a table of Student's t."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nextvec.claims.verdict import check, judge, overall, rank_tests, split, summary
from nextvec.evaluate.intervals import holm, paired_t_interval, signed_rank_p, t_interval, t_quantile
from nextvec.evaluate.retrieval import Interval
from nextvec.types import Check, InputError

# Two-sided 95 % points of Student's t, as any table of it has them.
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 29: 2.045, 30: 2.042, 120: 1.980}
ARMS = {"a": None, "b": None}


@pytest.mark.parametrize(("df", "expected"), TABLE.items())
def test_t_quantile_is_the_table(df: int, expected: float) -> None:
    assert t_quantile(0.975, df) == pytest.approx(expected, abs=5e-4)
    assert t_quantile(0.025, df) == -t_quantile(0.975, df)


def test_t_quantile_where_it_is_known_exactly() -> None:
    assert t_quantile(0.5, 7) == pytest.approx(0, abs=1e-12)
    assert t_quantile(0.75, 1) == pytest.approx(1, abs=1e-12)  # Cauchy: tan(pi / 4)
    assert t_quantile(0.9, 2) == pytest.approx(0.8 / math.sqrt(2 * 0.9 * 0.1), abs=1e-12)  # closed form for 2
    for p, df in ((0.0, 1), (1.0, 1), (0.5, 0)):
        with pytest.raises(InputError, match="t_quantile"):
            t_quantile(p, df)


def test_interval_by_hand() -> None:
    # 1, 2, 3: mean 2, s = 1, half = 4.30265 / sqrt(3) = 2.48414
    found = t_interval([1, 2, 3])
    assert (found.mean, found.low, found.high) == pytest.approx((2, -0.48414, 4.48414), abs=1e-5)
    # differences 1, 3: mean 2, s = sqrt 2, half = 12.70620 * sqrt(2) / sqrt(2) = 12.70620
    paired = paired_t_interval([2, 5], [1, 2])
    assert (paired.mean, paired.low, paired.high) == pytest.approx((2, -10.7062, 14.7062), abs=1e-4)


def test_one_value_and_equal_values() -> None:
    assert t_interval([0.3]) == Interval(0.3, -math.inf, math.inf)
    assert t_interval([0.1] * 7) == Interval(0.1, 0.1, 0.1)
    # The processor says 0.09999999999999998 and 0.10000000000000009.
    assert paired_t_interval([0.9, 0.8], [0.8, 0.7]) == Interval(0.1, 0.1, 0.1)
    for values in ([], [1.0, math.nan], [math.inf]):
        with pytest.raises(InputError, match="finite"):
            t_interval(values)
    with pytest.raises(InputError, match="one length"):
        paired_t_interval([1.0], [1.0, 2.0])


def test_signed_ranks_by_hand_and_beside_scipy() -> None:
    # All of one sign: 2 / 2**n. Ranks 1 to 4 with the least below 0: sums of at most 1 in 2 of 16 ways, on both sides.
    assert signed_rank_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == 2 / 2**6
    assert signed_rank_p([-1.0, 2.0, 3.0, 4.0]) == 4 / 16
    assert signed_rank_p([0.0, 0.0]) == 1.0
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    random = np.random.default_rng(0)
    for n in range(3, 14):
        values = random.normal(0.3, size=n)
        assert signed_rank_p(list(values)) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue, abs=1e-12)
    # Ties: by enumerating all signs, which scipy's exact method does not do.
    tied = [1.0, -1.0, 2.0, 2.0, 2.0, -3.0, 4.0]
    ranks = stats.rankdata(np.abs(tied))
    sums = np.array([ranks[np.array(signs, bool)].sum() for signs in itertools.product([0, 1], repeat=7)])
    least = min(ranks[np.array(tied) > 0].sum(), ranks[np.array(tied) < 0].sum())
    assert signed_rank_p(tied) == pytest.approx(2 * np.mean(sums <= least), abs=1e-12)
    with pytest.raises(InputError, match="finite"):
        signed_rank_p([math.nan])


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, 0.04, and no later one below an earlier.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_rank_tests_of_checks_with_seeds_enough() -> None:
    many = {"differences": [0.3, 0.4, 0.5, 0.6, 0.7, 0.8], "margin": 0.2}
    few = {"differences": [1.0, 2.0, 3.0], "margin": 0.0}
    assert rank_tests([many, few, many | {"margin": 0.55}]) == [
        {"wilcoxon": 2 / 64, "holm": 4 / 64},
        {},
        {"wilcoxon": pytest.approx(1.0), "holm": 1.0},
    ]


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (0.1, 0.3, 0.0, "holds"),
        (0.1, 0.3, 0.1, "inconclusive"),  # the interval must lie above the margin, not begin at it
        (-0.1, 0.3, 0.0, "inconclusive"),
        (-0.3, -0.1, 0.0, "does not hold"),
        (0.1, 0.3, 0.4, "does not hold"),
        (-0.3, 0.0, 0.0, "inconclusive"),
        (0.0, 0.0, 0.0, "does not hold"),  # equal in every seed: it did not exceed
        (0.2, 0.2, 0.0, "holds"),
        (0.2, 0.2, 0.3, "does not hold"),
        (-math.inf, math.inf, 0.0, "inconclusive"),
    ],
)
def test_judge(low: float, high: float, margin: float, verdict: str) -> None:
    assert judge(Interval((low + high) / 2 if math.isfinite(low) else 0, low, high), margin) == verdict


def test_overall() -> None:
    assert overall(["holds", "holds"]) == "holds"
    assert overall(["holds", "inconclusive"]) == "inconclusive"
    assert overall(["inconclusive", "does not hold", "holds"]) == "does not hold"
    assert overall([]) == "inconclusive"


def runs(a: list[float], b: list[float]) -> dict[str, dict[int, dict[str, float]]]:
    return {arm: {seed: {"acc": value} for seed, value in enumerate(values)} for arm, values in (("a", a), ("b", b))}


def test_a_check_is_paired_by_seed() -> None:
    # The arms overlap widely, their differences (0.1, 0.11, 0.09) do not: half = 4.30265 * 0.01 / sqrt(3) = 0.02484
    one = Check(says="a beats b", better="a.acc", worse="b.acc", margin=0.05)
    found = check(one, runs([0.3, 0.61, 0.99], [0.2, 0.5, 0.9]), ARMS)
    assert found["verdict"] == "holds" and found["note"] is None
    assert found["differences"] == [0.1, 0.11, 0.09] and found["seeds"] == [0, 1, 2]
    assert found["difference"]["low"] == pytest.approx(0.1 - 0.02484, abs=1e-5)
    assert (
        check(Check(says="", better="b.acc", worse="a.acc"), runs([0.3, 0.61], [0.2, 0.5]), ARMS)["verdict"] != "holds"
    )


def test_a_check_against_a_number() -> None:
    found = check(Check(says="above chance", better="a.acc", worse=0.2, margin=0.1), runs([0.5, 0.5], []), ARMS)
    assert found["verdict"] == "holds" and found["difference"]["mean"] == pytest.approx(0.3)
    found = check(Check(says="above chance", better="a.acc", worse=0.5), runs([0.5, 0.5], []), ARMS)
    assert found["verdict"] == "does not hold"


def test_one_seed_says_so() -> None:
    found = check(Check(says="", better="a.acc", worse="b.acc"), runs([0.9], [0.1]), ARMS)
    assert found["verdict"] == "inconclusive" and found["note"].startswith("one seed")
    assert found["difference"] == {"mean": 0.8, "low": None, "high": None, "n": 1}


def test_seeds_and_arms_that_were_not_run() -> None:
    both = Check(says="", better="a.acc", worse="b.acc")
    found = check(both, runs([0.5, 0.6, 0.7], [0.4, 0.5]), ARMS)
    assert found["seeds"] == [0, 1] and found["verdict"] == "holds"
    absent = check(both, {"a": {0: {"acc": 1.0}}}, ARMS)
    assert absent["verdict"] == "inconclusive" and absent["note"] == "'b' not run" and absent["difference"] is None
    apart = check(both, {"a": {0: {"acc": 1.0}}, "b": {1: {"acc": 1.0}}}, ARMS)
    assert apart["note"] == "no seed was run with both arms"
    with pytest.raises(InputError, match=r"reads 'a\.f1', but the arm 'a' measures acc"):
        check(Check(says="", better="a.f1", worse=0), runs([0.5], []), ARMS)


def test_references_and_summary() -> None:
    assert split("a.b.acc@0.5", {"a": 0, "a.b": 0}) == ("a.b", "acc@0.5")
    for reference in ("c.acc", "a", "a."):
        with pytest.raises(InputError, match=r"'arm\.measure'"):
            split(reference, ARMS)
    found = summary({0: {"x": 1.0}, 1: {"x": 3.0, "rare": 5.0}})
    assert found["x"]["n"] == 2 and found["x"]["mean"] == 2
    assert found["rare"] == {"mean": 5.0, "low": None, "high": None, "n": 1}
