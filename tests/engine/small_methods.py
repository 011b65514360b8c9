"""A small method with everything that moves: dropout, an EMA target, a queue in the objective, a step counter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nextvec.engine.ema import update
from nextvec.engine.method import Method
from nextvec.objectives.base import Columns, Objective, Outputs
from nextvec.types import Batch, Card, Claim, Ragged, Term


class Queue(Objective):
    """Pulls each row to its target and away from the mean of the last rows seen, which a queue holds."""

    reads = ("online", "target")
    scope = "batch"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4, 6))
        self.pending: Tensor | None = None

    def forward(self, out: Outputs, batch: Columns) -> Term:
        online, target = (out[name] for name in self.reads)
        self.pending = online.detach()[:4]
        away = (online * self.seen.mean(0)).sum()
        return Term(((online - target) ** 2).sum() + 0.1 * away, float(len(online)), {})

    def commit(self) -> None:
        if self.pending is not None:
            self.seen[: len(self.pending)] = self.pending
            self.pending = None


class Small(Method):
    """Online and target network on random rows."""

    card = Card(
        name="small",
        title="Small",
        arxiv="",
        year=2026,
        family="test",
        claim="the engine moves what it should move",
        differs=("a test double",),
    )

    @dataclass(kw_only=True)
    class Config:
        width: int = 6
        dropout: float = 0.2

    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=0.02", "schedule.warmup=0")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.online = nn.Sequential(nn.Linear(6, config.width), nn.Dropout(config.dropout), nn.Linear(config.width, 6))
        self.target = nn.Sequential(nn.Linear(6, config.width), nn.Dropout(0.0), nn.Linear(config.width, 6))
        self.target.requires_grad_(False)
        self.register_buffer("moved", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        rows = batch.tensor("rows")
        with torch.no_grad():
            target = 0.1 * self.target(rows) + rows.flip(1)
        return {"online": self.online(rows), "target": target}

    def objective(self) -> Objective:
        return Queue()

    def after_step(self, step: int) -> None:
        update(self.target, self.online, 0.9)
        self.moved += 1

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Small, Rows]:
        torch.manual_seed(seed)
        return cls(config), Rows(batch, seed)

    @staticmethod
    def claim(scale: str) -> Claim:
        raise AssertionError("not used")


class Rows:
    """Random rows, a function of the step."""

    def __init__(self, batch: int, seed: int = 0) -> None:
        self.size, self.seed = batch, seed

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> Batch:
        random = torch.Generator().manual_seed(1000 * self.seed + step)
        whole = Batch(
            {
                "rows": torch.randn(self.size, 6, generator=random),
                "text": Ragged(torch.arange(self.size), torch.ones(self.size, dtype=torch.int64)),
            }
        )
        return whole.take(part * self.size // parts, (part + 1) * self.size // parts)
