"""What seeds say: mean and interval per arm and measure, and whether a claim holds, computed from intervals alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nextvec.types import Check, InputError

if TYPE_CHECKING:
    from nextvec.evaluate.retrieval import Interval

__all__ = ["HOLDS", "INCONCLUSIVE", "Verdict", "check", "judge", "overall", "rank_tests", "split", "summary"]

Verdict: TypeAlias = Literal["holds", "does not hold", "inconclusive"]
HOLDS: Verdict = "holds"
DOES_NOT_HOLD: Verdict = "does not hold"
INCONCLUSIVE: Verdict = "inconclusive"
_ENOUGH = 6  # 2 / 2**5 is above 0.05

Runs: TypeAlias = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Measures by arm and seed, of the runs that are complete."""


def summary(runs: Mapping[int, Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean and 95 % t interval over seeds of every measure of one arm; "n" is the number of seeds that gave it."""
    # NumPy is imported where there is something to judge: the process of a run knows its own arm alone.
    from nextvec.evaluate.intervals import t_interval

    names = dict.fromkeys(name for measures in runs.values() for name in measures)
    values = {name: [measures[name] for measures in runs.values() if name in measures] for name in names}
    return {name: as_json(t_interval(own), len(own)) for name, own in values.items()}


def as_json(interval: Interval, n: int) -> dict[str, Any]:
    """An interval as JSON can hold it: where there is none (one seed), the ends are null."""
    low, high = (end if math.isfinite(end) else None for end in (interval.low, interval.high))
    return {"mean": interval.mean, "low": low, "high": high, "n": n}


def split(reference: str, arms: Mapping[str, Any]) -> tuple[str, str]:
    """("arm", "measure") of "arm.measure"; InputError where no arm is called so. Both may contain dots."""
    fits = [arm for arm in arms if reference.startswith(f"{arm}.") and len(reference) > len(arm) + 1]
    if not fits:
        raise InputError(f"{reference!r} is not 'arm.measure' of an arm of this claim (arms: {', '.join(arms)})")
    arm = max(fits, key=len)
    return arm, reference[len(arm) + 1 :]


def judge(difference: Interval, margin: float) -> Verdict:
    """``holds`` where the whole interval lies above ``margin``, ``does not hold`` where it lies below.

    With no spread at all (every seed gave the same difference), a difference equal to the margin does not hold: it
    had to exceed it.
    """
    if difference.low > margin:
        return HOLDS
    if difference.high < margin or (difference.low == difference.high and difference.high <= margin):
        return DOES_NOT_HOLD
    return INCONCLUSIVE


def check(one: Check, runs: Runs, arms: Mapping[str, Any]) -> dict[str, Any]:
    """The check as the result keeps it: sentence, differences per seed, their interval, verdict, and why none.

    ``arms`` are all arms of the claim, ``runs`` those that were run. InputError where an arm that was run lacks the
    measure.
    """
    from nextvec.evaluate.intervals import paired_t_interval

    document: dict[str, Any] = {"says": one.says, "better": one.better, "worse": one.worse, "margin": one.margin}
    document |= {"seeds": [], "differences": [], "difference": None, "verdict": INCONCLUSIVE, "note": None}
    sides = [_side(side, runs, arms) for side in (one.better, one.worse)]
    if absent := [name for values, name in sides if values is not None and not values]:
        return document | {"note": f"{' and '.join(map(repr, dict.fromkeys(absent)))} not run"}
    better, worse = sides[0][0] or {}, sides[1][0]
    seeds = [seed for seed in sorted(better) if worse is None or seed in worse]
    if not seeds:
        return document | {"note": "no seed was run with both arms"}
    above = [better[seed] for seed in seeds]
    below = [float(one.worse) if worse is None else worse[seed] for seed in seeds]
    difference = paired_t_interval(above, below)
    return document | {
        "seeds": seeds,
        "differences": [round(high - low, 12) for high, low in zip(above, below, strict=True)],
        "difference": as_json(difference, len(seeds)),
        "verdict": judge(difference, one.margin),
        "note": "one seed: no interval, so no verdict" if len(seeds) == 1 else None,
    }


def _side(side: str | float, runs: Runs, arms: Mapping[str, Any]) -> tuple[dict[int, float] | None, str]:
    """Values by seed (None for a number, empty where the arm was not run) and the arm's name."""
    if not isinstance(side, str):
        return None, ""
    arm, measure = split(side, arms)
    own = runs.get(arm, {})
    found = {seed: measures[measure] for seed, measures in own.items() if measure in measures}
    if own and not found:
        known = sorted({name for measures in own.values() for name in measures})
        raise InputError(f"a check reads {side!r}, but the arm {arm!r} measures {', '.join(known)}")
    return found, arm


def rank_tests(checks: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """For each check Wilcoxon's p that the differences lie about the margin, alone and by Holm among all of these;
    nothing where fewer seeds than ``_ENOUGH`` leave no p below 0.05. The verdict is the interval's all the same."""
    from nextvec.evaluate.intervals import holm, signed_rank_p

    p = {
        i: signed_rank_p([difference - one["margin"] for difference in one["differences"]])
        for i, one in enumerate(checks)
        if len(one["differences"]) >= _ENOUGH
    }
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    return [{"wilcoxon": p[i], "holm": adjusted[i]} if i in p else {} for i in range(len(checks))]


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The claim holds where all checks hold, and does not where any does not."""
    if DOES_NOT_HOLD in verdicts:
        return DOES_NOT_HOLD
    return HOLDS if verdicts and all(verdict == HOLDS for verdict in verdicts) else INCONCLUSIVE
