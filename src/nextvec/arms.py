"""A training as an arm of a claim makes it: reported as the arm's progress, taken up again, its checkpoints removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from nextvec.data.sources import Source
from nextvec.engine.engine import Engine, Report, TrainConfig
from nextvec.engine.method import Method
from nextvec.engine.optim import OptimConfig
from nextvec.engine.schedule import ScheduleConfig
from nextvec.types import Run

__all__ = ["arm_config", "fit_arm"]


def arm_config(
    *, steps: int, batch: int, lr: float, seed: int, weight_decay: float, schedule: str = "cosine"
) -> TrainConfig:
    """The engine's settings: AdamW, a warm-up over a tenth of the steps, a checkpoint at each quarter, one kept."""
    return TrainConfig(
        steps=steps,
        batch=batch,
        optim=OptimConfig(lr=lr, weight_decay=weight_decay),
        schedule=ScheduleConfig(name=schedule, warmup=0.1),
        seed=seed,
        save_every=max(steps // 4, 1),
        keep=1,
    )


def fit_arm(
    method: Method,
    source: Source,
    config: TrainConfig,
    run: Run,
    *,
    device: str,
    name: str = "training",
    done: int = 0,
    total: int = 0,
    after: Callable[[int], None] | None = None,
) -> None:
    """``config.steps`` steps of ``method``, which then is in evaluation mode; taken up again where it was interrupted.

    name: the folder of its checkpoints, which goes when training is over: those of a dozen runs are gigabytes that
    nobody reads. done, total: the steps of the arm's trainings before this one, and of all (0: this is all). after: is
    called with the number of every step made (of some of them again, where the training is taken up).
    """
    folder = run.folder / name

    def on_step(state: Report) -> None:
        if after is not None:
            after(state.step)
        run.progress(done + state.step, total or state.steps)

    Engine(method, config, device=device).fit(source, folder=folder, on_step=on_step, keep_last=False)
    shutil.rmtree(folder)
    method.eval()
