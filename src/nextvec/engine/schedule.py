"""Learning-rate schedules as a function of the step: what the learning rate is multiplied by.

Legend: s steps done so far (the next one is the s-th, from 0), n steps in all, w warm-up steps, d decay steps,
f floor.

- warm-up (all): (s + 1) / w for s < w, so that the first step already moves.
- constant: 1.  linear: from 1 to f over what follows the warm-up.
- cosine: f + (1 - f) (1 + cos(pi t)) / 2 with t = (s - w) / (n - w) (Loshchilov and Hutter 2017, arXiv 1608.03983).
- wsd (warm-up, stable, decay): 1, then linear to f over the last d steps (Hu et al. 2024, MiniCPM, arXiv 2404.06395,
  who decay exponentially; the linear fall is our choice).

The floor would be reached at s = n, one step after the last, so that no step is lost to a learning rate of zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nextvec.types import InputError, did_you_mean

__all__ = ["ScheduleConfig", "factor"]

NAMES = ("cosine", "wsd", "linear", "constant")


@dataclass(kw_only=True)
class ScheduleConfig:
    """warmup: a number of steps if 1 or more, a share of all steps if less. decay: the share of all steps over which
    "wsd" falls. floor: the last factor."""

    name: str = "cosine"
    warmup: float = 0.05
    decay: float = 0.2
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise InputError(
                f"schedule {self.name!r} is unknown; expected one of {', '.join(NAMES)}{did_you_mean(self.name, NAMES)}"
            )
        if not (math.isfinite(self.warmup) and self.warmup >= 0):
            raise InputError(f"warmup is {self.warmup}; expected a number of steps, or a share of them below 1")
        if not 0 <= self.decay <= 1 or not 0 <= self.floor <= 1:
            raise InputError(f"decay {self.decay} and floor {self.floor} must be from 0 to 1")


def factor(step: int, steps: int, config: ScheduleConfig) -> float:
    """The factor of the step that follows ``step`` done ones, of ``steps``; from ``steps`` on it stays at the floor.

    InputError where warm-up and decay do not fit in ``steps``, or the step is negative.
    """
    warm = round(config.warmup * steps) if config.warmup < 1 else round(config.warmup)
    fall = max(1, round(config.decay * steps)) if config.name == "wsd" and config.decay else 0
    if step < 0 or steps < 1:
        raise InputError(f"step {step} of {steps} does not exist")
    if warm >= steps and warm:
        raise InputError(f"a warm-up of {warm} steps does not fit in {steps} steps: lower schedule.warmup")
    if warm + fall > steps:
        raise InputError(f"a warm-up of {warm} and a decay of {fall} steps do not fit in {steps}: lower one of them")
    if step < warm:
        return (step + 1) / warm
    if config.name == "constant":
        return 1.0
    start = steps - fall if config.name == "wsd" else warm
    past = min(1.0, max(0, step - start) / max(1, steps - start))
    left = (1 + math.cos(math.pi * past)) / 2 if config.name == "cosine" else 1 - past
    return config.floor + (1 - config.floor) * left
