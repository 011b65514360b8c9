"""Schedules: hand-computed factors at their corners."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch", reason="the engine needs torch: pip install 'nextvec[hf]'")

from nextvec.config import from_mapping
from nextvec.engine.schedule import ScheduleConfig, factor
from nextvec.types import InputError


@pytest.mark.parametrize(
    ("settings", "step", "expected"),
    [
        # 100 steps, 10 of warm-up: the first step already moves, the tenth is the first at full size.
        ({"name": "cosine", "warmup": 10}, 0, 0.1),
        ({"name": "cosine", "warmup": 10}, 9, 1.0),
        ({"name": "cosine", "warmup": 0.1}, 4, 0.5),
        ({"name": "cosine", "warmup": 10}, 10, 1.0),
        ({"name": "cosine", "warmup": 10}, 55, 0.5),
        ({"name": "cosine", "warmup": 10}, 40, 0.75),
        ({"name": "cosine", "warmup": 10}, 99, (1 + math.cos(math.pi * 89 / 90)) / 2),
        ({"name": "cosine", "warmup": 10, "floor": 0.2}, 55, 0.6),
        ({"name": "cosine", "warmup": 10, "floor": 0.2}, 100, 0.2),
        ({"name": "cosine", "warmup": 10, "floor": 0.2}, 5000, 0.2),
        ({"name": "linear", "warmup": 0}, 0, 1.0),
        ({"name": "linear", "warmup": 0}, 25, 0.75),
        ({"name": "linear", "warmup": 0}, 99, 0.01),
        ({"name": "linear", "warmup": 20, "floor": 0.5}, 60, 0.75),
        ({"name": "wsd", "warmup": 10, "decay": 0.2}, 79, 1.0),
        ({"name": "wsd", "warmup": 10, "decay": 0.2}, 80, 1.0),
        ({"name": "wsd", "warmup": 10, "decay": 0.2}, 90, 0.5),
        ({"name": "wsd", "warmup": 10, "decay": 0.2}, 99, 0.05),
        ({"name": "wsd", "warmup": 10, "decay": 0.2, "floor": 0.1}, 90, 0.55),
        ({"name": "wsd", "warmup": 10, "decay": 0.0}, 99, 1.0),
        ({"name": "constant", "warmup": 4}, 1, 0.5),
        ({"name": "constant", "warmup": 4}, 99, 1.0),
    ],
)
def test_factors_by_hand(settings: dict[str, float], step: int, expected: float) -> None:
    assert factor(step, 100, from_mapping(ScheduleConfig, settings)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_no_step_is_lost_and_none_rises_after_the_warm_up(name: str, steps: int) -> None:
    factors = [factor(step, steps, ScheduleConfig(name=name, warmup=0.1)) for step in range(steps)]
    assert min(factors) > 0 and max(factors) == 1.0
    peak = factors.index(1.0)
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        ScheduleConfig(name="cosin")
    with pytest.raises(InputError, match="warmup is -1"):
        ScheduleConfig(warmup=-1)
    with pytest.raises(InputError, match="floor 2"):
        ScheduleConfig(floor=2)
    with pytest.raises(InputError, match="10 steps does not fit in 10"):
        factor(0, 10, ScheduleConfig(warmup=10))
    with pytest.raises(InputError, match="warm-up of 5 and a decay of 8"):
        factor(0, 10, ScheduleConfig(name="wsd", warmup=5, decay=0.8))
    with pytest.raises(InputError, match="step -1 of 10"):
        factor(-1, 10, ScheduleConfig())
