"""The two training stages of a static encoder: follow the teacher, then find each title's own abstract.

Legend: N papers, G general texts, B papers of a batch, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec.objectives.base import Objective, Outputs
from nextvec.objectives.distill import Distill
from nextvec.objectives.info_nce import InfoNCE
from nextvec.objectives.matryoshka import Matryoshka
from nextvec.recipes.static_table import Bags, TokenTable
from nextvec.types import Progress

__all__ = ["Stage", "Views", "contrast", "distil"]


@dataclass(frozen=True, slots=True)
class Views:
    """The training papers as bags, row i of each being paper i, and G texts of general English. The teacher's vectors
    on the student's axes: float16 [N, D] for titles, [M, D] for the first halves of the first M <= N papers' abstracts,
    and [G, D]."""

    titles: Bags
    abstracts: Bags
    firsts: Bags
    seconds: Bags
    general: Bags
    teacher_titles: NDArray[np.float16]
    teacher_firsts: NDArray[np.float16]
    teacher_general: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.titles)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How one stage is trained: Adam with linear warm-up over a tenth of the steps and cosine decay to zero. batch:
    papers of a step; general: texts of general English beside them."""

    steps: int
    batch: int
    learning_rate: float
    general: int = 0
    temperature: float = 0.05
    distill_weight: float = 0.0


def distil(
    rows: NDArray[np.float32],
    views: Views,
    stage: Stage,
    *,
    dims: tuple[int, ...],
    seed: int,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Train the rows [V, D] so that mean vectors of titles, half abstracts and general texts point where the teacher's
    do."""
    objective = Matryoshka(Distill(), dims=dims)

    def outputs(table: TokenTable, papers: NDArray[np.int64], generator: np.random.Generator) -> Outputs:
        return _student_and_teacher(table, views, papers, _drawn(views, stage, generator))

    return _train(rows, len(views), objective, outputs, stage, seed=seed, progress=progress)


def contrast(
    rows: NDArray[np.float32],
    views: Views,
    stage: Stage,
    *,
    dims: tuple[int, ...],
    seed: int,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Train the rows [V, D] with InfoNCE: a title finds its own abstract (whole, or one of its halves, at random);
    where weighted, the distillation goes on beside it."""
    objective: Objective = Matryoshka(InfoNCE(temperature=stage.temperature), dims=dims)
    if stage.distill_weight:
        objective = objective + stage.distill_weight * Matryoshka(Distill(), dims=dims)

    def outputs(table: TokenTable, papers: NDArray[np.int64], generator: np.random.Generator) -> Outputs:
        view = (views.abstracts, views.firsts, views.seconds)[int(generator.choice(3, p=(0.5, 0.25, 0.25)))]
        out = {"query": table(views.titles.take(papers)), "document": table(view.take(papers))}
        if stage.distill_weight:
            out |= _student_and_teacher(table, views, papers, _drawn(views, stage, generator))
        return out

    return _train(rows, len(views), objective, outputs, stage, seed=seed, progress=progress)


def _drawn(views: Views, stage: Stage, generator: np.random.Generator) -> NDArray[np.int64]:
    """Which general texts a step sees."""
    size = min(stage.general, len(views.general))
    return np.sort(generator.choice(len(views.general), size=size, replace=False)).astype(np.int64)


def _student_and_teacher(
    table: TokenTable, views: Views, papers: NDArray[np.int64], general: NDArray[np.int64]
) -> dict[str, torch.Tensor]:
    known = papers[papers < len(views.teacher_firsts)]
    taught = (views.teacher_titles[papers], views.teacher_firsts[known], views.teacher_general[general])
    bags = (views.titles.take(papers), views.firsts.take(known), views.general.take(general))
    student = torch.cat([table(bag) for bag in bags if len(bag)])
    return {"student": student, "teacher": torch.from_numpy(np.concatenate(taught).astype(np.float32))}


def _train(
    rows: NDArray[np.float32],
    count: int,
    objective: Objective,
    outputs: Any,
    stage: Stage,
    *,
    seed: int,
    progress: Progress | None,
) -> NDArray[np.float32]:
    table = TokenTable(rows)
    optimiser = torch.optim.Adam(table.parameters(), lr=stage.learning_rate, fused=True)
    generator = np.random.default_rng(seed)
    size = min(stage.batch, count)
    order = generator.permutation(count)
    place = 0
    for step in range(stage.steps):
        if place + size > count:
            order, place = generator.permutation(count), 0
        papers = np.sort(order[place : place + size]).astype(np.int64)
        place += size
        for group in optimiser.param_groups:
            group["lr"] = stage.learning_rate * _schedule(step, stage.steps)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(objective(outputs(table, papers, generator), {}).mean)
        optimiser.step()
        objective.commit()
        if progress is not None:
            progress(step + 1, stage.steps)
    return table.weight.detach().numpy().copy()


def _schedule(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
