"""The claim of NV-Embed on synthetic texts of token ids, with small decoders from random weights.

Tasks are those of ``_pooling_attention_claim``: a needle that two texts share (retrieval; MRR, in points), and topics,
here as classes: a text's document is its class's name, its hard negative another class's. Measured is how many new
texts lie nearest to the mean of their class (accuracy, in percent). Whether two rows have one class is not told.

latent, attention, mean, lasttoken    poolers, on needles
few_batch, few_own                    two classes, with the batch's documents as negatives, and hard negatives alone
many_batch, many_own                  the same with many classes
two_stage                             needles with the batch's documents, then both tasks with hard negatives alone
reversed                              the same stages the other way round
single_batch, single_own              both tasks at once, with and without the batch's documents

``both``: the mean of needle and accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec.data.sources import Generated, ragged
from nextvec.methods._pooling_attention_claim import Scale as NeedleScale
from nextvec.methods._pooling_attention_claim import World, needle_points, topic_points
from nextvec.methods.nv_embed import POOLERS, NvEmbed
from nextvec.text_claims import scale_named, train
from nextvec.types import Batch, Check, Claim, Run

_ORDERS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "two_stage": (("needle", 1), ("both", 2)),
    "reversed": (("both", 2), ("needle", 1)),
    "single_batch": (("both", 1), ("both", 1)),
    "single_own": (("both", 2), ("both", 2)),
}
"""Of each arm its two trainings: the tasks, and the stage whose negatives they have."""


@dataclass(frozen=True, kw_only=True)
class Scale(NeedleScale):
    """few: classes of a task with few."""

    few: int = 2


_CPU = Scale(steps=150, batch=64, lr=1e-3, length=40, needles=200, topics=20, common=200, tests=1000)
SCALES = {
    "smoke": Scale(),
    "cpu": _CPU,
    "gpu": replace(
        _CPU, depth=6, steps=3000, batch=512, length=128, needles=5000, topics=200, common=5000, device="auto"
    ),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    arms = {pooler: partial(_pooled, pooler=pooler, scale=scale) for pooler in POOLERS}
    for words, classes in (("few", scale.few), ("many", scale.topics)):
        own = replace(scale, topics=classes)
        arms |= {
            f"{words}_{kind}": partial(_classes, stage=stage, scale=own) for stage, kind in ((1, "batch"), (2, "own"))
        }
    arms |= {order: partial(_stages, order=order, scale=replace(scale, topics=scale.few)) for order in _ORDERS}
    return Claim(
        statement="Negatives from the batch harm tasks with few classes, so that a stage with them comes first and one"
        " without after it; latents that tokens query pool better than the mean, and the last token worst.",
        arms=arms,
        checks=(
            Check(says="latents pool better than the mean", better="latent.needle", worse="mean.needle"),
            Check(says="and than a learned score", better="latent.needle", worse="attention.needle"),
            Check(says="the last token is worse than the mean", better="mean.needle", worse="lasttoken.needle"),
            Check(says="negatives of the batch harm few classes", better="few_own.topic", worse="few_batch.topic"),
            Check(
                says="with many classes they cost less than two points",
                better="many_batch.topic",
                worse="many_own.topic",
                margin=-2.0,
            ),
            *(
                Check(says=f"two stages are better than {other}", better="two_stage.both", worse=f"{other}.both")
                for other in ("reversed", "single_batch", "single_own")
            ),
        ),
        # MTEB's 56 tasks; the two poolers of the ablation in both stages.
        paper={
            "latent.needle": 72.31,
            "mean.needle": 71.71,
            "lasttoken.needle": 71.63,
            "two_stage.both": 72.31,
            "reversed.both": 71.85,
            "single_batch.both": 70.83,
            "single_own.both": 71.94,
        },
        config=asdict(scale),
    )


class Tasks:
    """Batches of one task or both, each row with its document and a hard negative."""

    def __init__(self, world: World) -> None:
        self.world = world

    def batch(self, random: np.random.Generator, count: int, *, task: str) -> Batch:
        """``count`` rows: of "needle", "topic", or half of each ("both")."""
        kinds = {"both": ("needle", "topic")}.get(task, (task,))
        parts = [self._rows(random, kind, count // len(kinds)) for kind in kinds]
        names = ("query", "document", "neg0")
        columns = {name: ragged([row for part in parts for row in part[i]]) for i, name in enumerate(names)}
        order = random.permutation(len(columns["query"].lengths))
        rows = {name: torch.split(column.values, column.lengths.tolist()) for name, column in columns.items()}
        return Batch({name: ragged([own[i].numpy() for i in order]) for name, own in rows.items()})

    def _rows(self, random: np.random.Generator, kind: str, count: int) -> tuple[list[NDArray[np.int64]], ...]:
        (texts, documents), kinds = self.world.texts(random, kind, count)
        scale = self.world.scale
        if kind == "needle":
            (_, wrong), _ = self.world.texts(random, kind, count)
            return list(texts), list(documents), list(wrong)
        other = (kinds + random.integers(1, scale.topics, size=count)) % scale.topics
        # A class's name is one token of its own, after all others, and the end.
        first = 1 + scale.needles + scale.common
        named, wrong_named = ([np.array([first + k, 0]) for k in own] for own in (kinds, other))
        return list(texts), named, wrong_named


def _made(world: World, run: Run, scale: Scale, *, pooler: str, stage: int) -> NvEmbed:
    torch.manual_seed(run.seed)
    config = NvEmbed.Config(
        depth=scale.depth,
        vocab=world.vocab + scale.topics,
        max_length=scale.length,
        seed=run.seed,
        pooler=pooler,
        stage=stage,
        negatives=True,
    )
    return NvEmbed(config)


def _learn(method: NvEmbed, world: World, task: str, run: Run, scale: Scale, *, part: int = 0, parts: int = 1) -> None:
    source = Generated(partial(Tasks(world).batch, task=task), batch=scale.batch, seed=run.seed + 1000 * part)
    train(method, source, scale, run, name=f"part{part}", done=part * scale.steps, total=parts * scale.steps)


def _pooled(run: Run, *, pooler: str, scale: Scale) -> Mapping[str, float]:
    world = World(scale, run.seed)
    method = _made(world, run, scale, pooler=pooler, stage=1)
    _learn(method, world, "needle", run, scale)
    return {"needle": needle_points(method.vectors, world, np.random.default_rng([run.seed, 1]), _device(method))}


def _classes(run: Run, *, stage: int, scale: Scale) -> Mapping[str, float]:
    world = World(scale, run.seed)
    method = _made(world, run, scale, pooler="latent", stage=stage)
    _learn(method, world, "topic", run, scale)
    return {"topic": topic_points(method.vectors, world, np.random.default_rng([run.seed, 1]), _device(method))}


def _stages(run: Run, *, order: str, scale: Scale) -> Mapping[str, float]:
    world = World(scale, run.seed)
    method = None
    for part, (task, stage) in enumerate(_ORDERS[order]):
        new = _made(world, run, scale, pooler="latent", stage=stage)
        if method is not None:
            new.load_state_dict(method.state_dict())
        method = new
        _learn(method, world, task, run, scale, part=part, parts=len(_ORDERS[order]))
    assert method is not None
    random = np.random.default_rng([run.seed, 1])
    needle = needle_points(method.vectors, world, random, _device(method))
    topic = topic_points(method.vectors, world, random, _device(method))
    return {"needle": needle, "topic": topic, "both": (needle + topic) / 2}


def _device(method: NvEmbed) -> str:
    return str(next(method.parameters()).device)
