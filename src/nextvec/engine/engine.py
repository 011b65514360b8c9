"""The engine: a method, a source of batches and settings become a trained method.

Four rules hold for every method (each has its test): scope decides accumulation (``accumulate.py``); what all processes
know together is gathered once, here, and never in an objective; running state (EMA targets, centres, queues) moves once
per optimiser step; and a run that is killed and resumed ends bit for bit as one that was not (on a CPU).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nextvec.config import to_mapping
from nextvec.data.sources import Source
from nextvec.engine import checkpoint, dist
from nextvec.engine.accumulate import Losses, backward, divide, tokens
from nextvec.engine.ema import WeightAverage
from nextvec.engine.guard import NonFiniteError, first_bad
from nextvec.engine.loggers import Loggers
from nextvec.engine.meter import Meter
from nextvec.engine.method import Method
from nextvec.engine.optim import OptimConfig, make_optimizer
from nextvec.engine.parallel import Parallel
from nextvec.engine.schedule import ScheduleConfig, factor
from nextvec.types import Batch, InputError, did_you_mean

__all__ = ["Engine", "Report", "TrainConfig"]

PRECISIONS = ("fp32", "bf16")


@dataclass(kw_only=True)
class TrainConfig:
    """How to train. batch: examples per optimiser step, over all processes; micro: examples per forward pass (None:
    all at once), which changes memory and not the gradient; clip: largest norm of the gradient (0: no limit);
    average: decay of a moving average of the weights (0: none) that is exported in their place; save_every: steps
    between checkpoints (0: only the last)."""

    steps: int = 1000
    batch: int = 32
    micro: int | None = None
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    clip: float = 1.0
    precision: str = "fp32"
    compile: bool = False
    strategy: str = "auto"
    average: float = 0.0
    seed: int = 0
    save_every: int = 0
    keep: int = 2
    log_every: int = 10
    tensorboard: bool = False
    wandb: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}"
                f"{did_you_mean(self.precision, PRECISIONS)}"
            )
        if not 0 <= self.average < 1:
            raise InputError(f"average is {self.average}; expected a decay from 0 (none) to below 1")
        if self.clip < 0 or self.save_every < 0:
            raise InputError(f"clip {self.clip} and save_every {self.save_every} must not be negative")


@dataclass(frozen=True, slots=True)
class Report:
    """Where a run stands: steps done of steps, the loss of the last step, and what was logged with it."""

    step: int
    steps: int
    loss: float
    values: dict[str, float]


class Engine:
    """Trains ``method``. ``device``: "cpu", "cuda", or "auto"."""

    def __init__(self, method: Method, config: TrainConfig, *, device: str = "auto") -> None:
        self.config = config
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.method = method.to(self.device)
        self.objective = method.objective().to(self.device)
        bf16 = config.precision == "bf16"
        self.model = Parallel(self.method, strategy=config.strategy, bf16=bf16, compile=config.compile)
        self.optimizer = make_optimizer(self._trained(), config.optim)
        self.average = WeightAverage(self.method, config.average) if config.average else None
        self.done = 0

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self.method.named_parameters():
            if parameter.requires_grad:
                yield name, parameter
        for name, parameter in self.objective.named_parameters():
            if parameter.requires_grad:
                yield f"objective.{name}", parameter

    # ------------------------------------------------------------------ one step

    def step(self, batch: Batch) -> Losses:
        """One optimiser step on this process's share of the batch. Raises NonFiniteError before anything moves."""
        self.method.train()
        losses = self.gradients(batch)
        norm = self._clip()
        if not math.isfinite(losses.loss) or not math.isfinite(norm):
            where = first_bad(self.method, batch.to(self.device))
            raise NonFiniteError(
                f"step {self.done + 1}: loss {losses.loss}, gradient norm {norm}; first bad: {where}. Lower the"
                " learning rate, warm up for longer, or look at this batch; the last checkpoint is intact"
            )
        self.optimizer.set_lr(factor(self.done, self.config.steps, self.config.schedule))
        self.optimizer.step()
        self.done += 1
        self.objective.commit()
        self.method.after_step(self.done)
        if self.average is not None:
            self.average.update(self.done)
        losses.logs["grad_norm"] = norm
        return losses

    def gradients(self, batch: Batch) -> Losses:
        """The gradient of one step in ``.grad``, exact for any ``micro`` and number of processes; nothing moves."""
        self.optimizer.zero_grad()
        micros = [micro.to(self.device) for micro in divide(batch, self.config.micro)]
        return backward(self.model, self.objective, micros, autocast=self._autocast)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.device.partition(":")[0], dtype=torch.bfloat16, enabled=enabled)

    def _clip(self) -> float:
        parameters = [parameter for _, parameter in self._trained() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()
        if self.config.clip and math.isfinite(float(norm)):
            nn.utils.clip_grads_with_norm_(parameters, self.config.clip, norm)
        return float(norm)

    # ------------------------------------------------------------------ a whole run

    def fit(
        self,
        source: Source,
        *,
        folder: Path | None = None,
        info: dict[str, Any] | None = None,
        on_step: Callable[[Report], None] | None = None,
        keep_last: bool = True,
    ) -> Report:
        """Train to ``config.steps``. ``folder`` gets checkpoints and log.jsonl; a run that left checkpoints there
        goes on from the newest whole one. ``info`` is kept with them. Ctrl-C saves a checkpoint and is raised.
        keep_last: whether there is one of the last step, too; who removes the folder then needs none."""
        if folder is not None:
            self.resume(folder)
        elif self.done == 0:
            torch.manual_seed(self.config.seed + dist.rank())
        logger = self._loggers(folder, info)
        meter = Meter(
            self.method.flops_per_item(),
            dtype=torch.bfloat16 if self.config.precision == "bf16" else torch.float32,
        )
        report = Report(self.done, self.config.steps, math.nan, {})
        try:
            while self.done < self.config.steps:
                batch = source.batch(self.done, part=dist.rank(), parts=dist.world())
                losses = self.step(batch)
                meter.add(tokens=tokens(batch), examples=batch.size)
                report = self._report(losses, meter, logger)
                if on_step is not None:
                    on_step(report)
                if folder is not None and self._save_now(keep_last):
                    with meter.paused():
                        self.save(folder, info=info)
        except KeyboardInterrupt:
            if folder is not None and dist.world() == 1:
                self.save(folder, info=info)
            raise
        finally:
            if logger is not None:
                logger.close()
        return report

    def _save_now(self, keep_last: bool) -> bool:
        every = self.config.save_every
        return keep_last if self.done == self.config.steps else bool(every and self.done % every == 0)

    def _loggers(self, folder: Path | None, info: dict[str, Any] | None) -> Loggers | None:
        if folder is None or dist.rank() != 0:
            return None
        return Loggers.open(
            folder,
            resumed=self.done,
            tensorboard=self.config.tensorboard,
            wandb=self.config.wandb,
            run_info={"train": to_mapping(self.config), **(info or {})},
        )

    def _report(self, losses: Losses, meter: Meter, logger: Loggers | None) -> Report:
        values = {"loss": losses.loss, **losses.logs}
        if self.done % self.config.log_every == 0 or self.done == self.config.steps:
            values |= meter.read(self.device)
            if logger is not None:
                logger.log(self.done, values)
        return Report(self.done, self.config.steps, losses.loss, values)

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Tensor]:
        """Everything a run needs to go on bit for bit, as named tensors: weights, running state of method and
        objective, optimiser moments, moving average, random generators."""
        tensors = {f"method.{name}": value for name, value in self.method.state_dict().items()}
        tensors |= {f"objective.{name}": value for name, value in self.objective.state_dict().items()}
        tensors |= self.optimizer.state_tensors()
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state_tensors().items()}
        return tensors | checkpoint.rng_tensors()

    def save(self, folder: Path, *, info: dict[str, Any] | None = None) -> Path:
        """Write a checkpoint of this step into ``folder``, atomically; older ones than ``config.keep`` go."""
        details = {"method": self.method.card.name, "train": to_mapping(self.config), **(info or {})}
        return checkpoint.save(folder, self.done, self.state(), details, keep=self.config.keep)

    def resume(self, folder: Path) -> int:
        """Go on from the newest whole checkpoint in ``folder``; without one, from the beginning. The step."""
        newest = checkpoint.latest(folder)
        torch.manual_seed(self.config.seed + dist.rank())
        if newest is None:
            return self.done
        self.done = int(checkpoint.read_info(newest, method=self.method.card.name)["step"])
        if self.done > self.config.steps:
            raise InputError(f"{str(newest)!r} is at step {self.done}, after the {self.config.steps} steps asked for")
        tensors = self.state()  # the tensors themselves: loading fills weights and moments in place
        checkpoint.load(newest, tensors, method=self.method.card.name)
        checkpoint.set_rng(tensors)
        return self.done
