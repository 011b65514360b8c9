"""The claim of PEG on a synthetic task: how many negatives, weighed how, with how many that are right answers.

A document is a point z on a sphere, near one of many centres; a query is about one document. Each is seen through its
own fixed rotation, among coordinates of pure noise. A linear map per side has to find the common space. Hard negatives
of a query are other documents near the same centre; a share ``wrong`` of them is the document itself seen once more:
the right answer that nobody marked. Tests are new documents and queries: does a query find its own (MRR, in points)?

few, some, many              no hard negatives; 64 queries per step among 64, 512 or 4,096 documents
even                         hard negatives, all weights 1 (beta = 0)
constant, progressive        beta at once, or growing over the first half; of the hard negatives a share is wrong
milder                       three quarters of beta at once: what progressive weights come to on average, without order
constant_clean, progressive_clean    the same without wrong ones
large                        one step of 80,000 queries against 80,000 documents: exact, in blocks; memory and the whole
                             matrix's size beside it

Legend: B queries, M documents of the pool, H hard negatives of a query, L latent and D observed width.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextvec.data.sources import Generated
from nextvec.engine.accumulate import backward
from nextvec.engine.engine import Engine, TrainConfig
from nextvec.engine.method import Method
from nextvec.engine.optim import OptimConfig
from nextvec.engine.parallel import Parallel
from nextvec.engine.schedule import ScheduleConfig
from nextvec.evaluate.retrieval import dense_ranks
from nextvec.objectives.base import Objective
from nextvec.objectives.info_nce import ReweightedInfoNCE
from nextvec.types import Batch, Card, Check, Claim, InputError, Run

_LATENT, _OBSERVED, _WIDTH = 16, 64, 24
_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Scale:
    """spread: of documents about their centre; noise: of what is seen; wrong: share of the hard negatives that are
    right answers; beta: of the weights; tests: documents and queries of the test; large: pairs of the large step."""

    steps: int = 600
    batch: int = 64
    centres: int = 500
    spread: float = 0.6
    noise: float = 0.15
    hard: int = 5
    wrong: float = 0.3
    beta: float = 5.0
    temperature: float = 0.1
    lr: float = 5e-3
    pools: tuple[int, int, int] = (64, 512, 4096)
    tests: int = 4000
    large: int = 80_000
    device: str = "cpu"


SCALES = {
    "smoke": Scale(steps=20, centres=50, pools=(64, 128, 256), tests=300, large=2000),
    "cpu": Scale(),
    "gpu": Scale(steps=5000, centres=5000, tests=20_000, device="cuda"),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    if name not in SCALES:
        raise InputError(f"scale is {name!r}; expected one of {', '.join(SCALES)}")
    scale = SCALES[name]
    clean = replace(scale, wrong=0.0)
    arms: dict[str, Callable[[Run], Mapping[str, float]]] = {
        arm: partial(_arm, scale=replace(scale, hard=0), pool=count)
        for arm, count in zip(("few", "some", "many"), scale.pools, strict=True)
    }
    arms["even"] = partial(_arm, scale=replace(scale, beta=0.0), pool=scale.batch)
    for words, own in (("", scale), ("_clean", clean)):
        arms[f"constant{words}"] = partial(_arm, scale=own, pool=scale.batch)
        arms[f"progressive{words}"] = partial(_arm, scale=own, pool=scale.batch, ramp=scale.steps // 2)
    arms["milder"] = partial(_arm, scale=replace(scale, beta=0.75 * scale.beta), pool=scale.batch)
    arms["large"] = partial(_large, scale=scale)
    return Claim(
        statement="More negatives help; hard negatives that weigh more in the course of training are better than ones"
        " that do from the start where some of them are right answers, and no worse where none is; 80,000 negatives"
        " need a small part of the memory of their scores.",
        arms=arms,
        checks=(
            Check(says="more negatives help (some against few)", better="some.mrr", worse="few.mrr"),
            Check(says="more negatives help (many against some)", better="many.mrr", worse="some.mrr"),
            Check(
                says="where some hard negatives are wrong, progressive weights are better than constant ones",
                better="progressive.mrr",
                worse="constant.mrr",
            ),
            Check(
                says="and better than constant ones of the same mean, so that it is the order that helps",
                better="progressive.mrr",
                worse="milder.mrr",
            ),
            Check(says="and better than even ones", better="progressive.mrr", worse="even.mrr"),
            Check(
                says="where none is wrong, progressive weights lose less than a point to constant ones",
                better="progressive_clean.mrr",
                worse="constant_clean.mrr",
                margin=-1.0,
            ),
            Check(
                says="wrong hard negatives do harm to constant weights (control)",
                better="constant_clean.mrr",
                worse="constant.mrr",
            ),
            Check(
                says="the large step takes less than a tenth of its scores' memory", better="large.spared", worse=10.0
            ),
        ),
        config=asdict(scale),
    )


class World:
    """The fixed rotations and centres of one seed."""

    def __init__(self, scale: Scale, seed: int) -> None:
        random = np.random.default_rng([seed, 2311])
        self.scale = scale
        self.centres = _unit(random.normal(size=(scale.centres, _LATENT)))
        self.turns = [np.linalg.qr(random.normal(size=(_OBSERVED, _OBSERVED)))[0] for _ in range(2)]

    def documents(self, random: np.random.Generator, centres: NDArray[np.int64]) -> NDArray[np.float64]:
        """Points [n, L] near ``centres`` [n]."""
        own = self.centres[centres]
        return _unit(own + self.scale.spread * random.normal(size=own.shape) / np.sqrt(_LATENT))

    def seen(self, random: np.random.Generator, points: NDArray[np.float64], side: int) -> Tensor:
        """What is seen of ``points`` [..., L] by queries (side 0) or documents (1): float32 [..., D]."""
        wide = np.zeros((*points.shape[:-1], _OBSERVED))
        wide[..., :_LATENT] = points + self.scale.noise * random.normal(size=points.shape)
        wide[..., _LATENT:] = random.normal(size=(*points.shape[:-1], _OBSERVED - _LATENT)) / 2
        return torch.from_numpy((wide @ self.turns[side]).astype(np.float32))

    def batch(self, random: np.random.Generator, count: int, *, pool: int) -> Batch:
        """Queries with their documents and hard negatives; ``pool`` - ``count`` further documents, laid into the rows
        of "pool"."""
        scale = self.scale
        centres = random.integers(scale.centres, size=count)
        points = self.documents(random, centres)
        columns: dict[str, Any] = {"query": self.seen(random, points, 0), "document": self.seen(random, points, 1)}
        for h in range(scale.hard):
            near = self.documents(random, centres)
            wrong = random.random(count) < scale.wrong
            near[wrong] = points[wrong]
            columns[f"neg{h}"] = self.seen(random, near, 1)
        more = (pool - count) // count
        if more:
            others = self.documents(random, random.integers(scale.centres, size=count * more))
            columns["pool"] = self.seen(random, others.reshape(count, more, _LATENT), 1)
        return Batch(columns)


class Towers(Method):
    """Two linear maps."""

    card = Card(name="peg_towers", title="", arxiv="", year=2023, family="", claim="", differs=())

    @dataclass(kw_only=True)
    class Config:
        """As in ``Scale``; ramp: see ``Peg``."""

        hard: int = 5
        beta: float = 0.0
        ramp: int = 0
        temperature: float = 0.1
        pool: bool = False
        block: int = 4096

    direction: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.query, self.document = (nn.Linear(_OBSERVED, _WIDTH, bias=False) for _ in range(2))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        out = {"query": self.query(batch.tensor("query"))}
        names = ["document", *(f"neg{h}" for h in range(self.config.hard))]
        out |= {name: self.document(batch.tensor(name)) for name in names}
        if self.config.pool:
            out["pool"] = self.document(batch.tensor("pool")).flatten(0, 1)
        return out

    def objective(self) -> Objective:
        own = self.config
        return ReweightedInfoNCE(
            temperature=own.temperature,
            negatives="pool" if own.pool else None,
            own_negatives=tuple(f"neg{h}" for h in range(own.hard)),
            hardness=own.beta,
            ramp=own.ramp,
            symmetric=False,
            block=own.block,
        )


def _made(scale: Scale, seed: int, **options: Any) -> Towers:
    torch.manual_seed(seed)
    return Towers(Towers.Config(hard=scale.hard, beta=scale.beta, temperature=scale.temperature, **options))


def _arm(run: Run, *, scale: Scale, pool: int, ramp: int = 0) -> Mapping[str, float]:
    """Train, then look for new documents among new ones."""
    world = World(scale, run.seed)
    method = _made(scale, run.seed, ramp=ramp, pool=pool > scale.batch)
    engine = Engine(
        method,
        TrainConfig(
            steps=scale.steps,
            batch=scale.batch,
            optim=OptimConfig(lr=scale.lr, weight_decay=0.0),
            schedule=ScheduleConfig(name="cosine", warmup=0.05),
            seed=run.seed,
        ),
        device=scale.device,
    )
    source = Generated(partial(world.batch, pool=pool), batch=scale.batch, seed=run.seed)
    engine.fit(source, on_step=lambda report: run.progress(report.step, report.steps))
    random = np.random.default_rng([run.seed, 1])
    points = world.documents(random, random.integers(scale.centres, size=scale.tests))
    with torch.no_grad():
        sides = [
            nn.functional.normalize(tower(world.seen(random, points, side).to(scale.device)), dim=-1).cpu().numpy()
            for side, tower in enumerate((method.query, method.document))
        ]
    ranks = dense_ranks(sides[0], sides[1], np.arange(scale.tests))
    return {"mrr": 100 * float(np.mean(1 / ranks)), "recall@1": 100 * float(np.mean(ranks == 1))}


def _large(run: Run, *, scale: Scale) -> Mapping[str, float]:
    """One exact step of very many pairs: its peak memory, and the scores' size over it."""
    own = replace(scale, hard=0)
    batch = World(own, run.seed).batch(np.random.default_rng(run.seed), scale.large, pool=scale.large)
    method = _made(own, run.seed, block=_BLOCK).to(scale.device)
    batch, before = batch.to(scale.device), _memory(scale.device, peak=False)
    loss = backward(Parallel(method), method.objective().to(scale.device), [batch]).loss
    beyond = max(_memory(scale.device, peak=True) - before, 1)
    scores = 4.0 * scale.large**2
    return {"beyond_gb": beyond / 1e9, "scores_gb": scores / 1e9, "spared": scores / beyond, "loss": loss}


def _memory(device: str, *, peak: bool) -> int:
    """Bytes that this process holds, or held at most (every arm has a process of its own); on a GPU those of torch."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _unit(points: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = points / np.linalg.norm(points, axis=-1, keepdims=True)
    return scaled
