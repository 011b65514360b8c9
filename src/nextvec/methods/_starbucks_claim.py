"""The claim of Starbucks: a small transformer, trained on titles and first sentences, in a few sizes.

whole         the whole model alone, cut to every size afterwards (naive truncation)
separate      a model for every size, trained at that size alone, with as many steps each
random        2DMSE: another layer and width at every step (the file ``matryoshka_2d``)
fixed         all sizes at every step
pretrained    the same after masked pre-training at the same sizes

``points`` are the mean of STS-B (Spearman) and titles that find abstracts (nDCG@10), times 100; ``_small`` is the mean
over all sizes but the whole. ``fell``: the smallest fall of a masked loss, over the sizes, in nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.methods.matryoshka_2d import Matryoshka2D
from nextvec.methods.starbucks import Starbucks, spread
from nextvec.objectives.base import Objective
from nextvec.objectives.info_nce import InfoNCE
from nextvec.text_claims import Measured, Texts, TextScale, read_texts, train, training_pairs, write_texts
from nextvec.text_method import TextConfig, TextMethod
from nextvec.types import Batch, Card, Check, Claim, InputError, Ragged, Run

_KIND = ("sts", "ndcg")


@dataclass(frozen=True, kw_only=True)
class Scale(TextScale):
    """depth, vocab: of the model, 64 * depth wide; masked: steps of pre-training."""

    depth: int = 2
    vocab: int = 600
    masked: int = 3

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(layers, width), the whole model last."""
        return spread(self.depth, 64 * self.depth)


_CPU = Scale(
    depth=4,
    vocab=4096,
    masked=300,
    steps=300,
    batch=32,
    lr=5e-4,
    train_length=32,
    eval_length=64,
    held=400,
    sts="benchmark",
)
SCALES = {
    "smoke": Scale(),
    "cpu": _CPU,
    "gpu": replace(
        _CPU,
        depth=6,
        vocab=16_384,
        masked=20_000,
        steps=5000,
        batch=128,
        train_length=128,
        eval_length=256,
        papers="arxiv",
        document="abstract",
        held=2000,
        device="auto",
    ),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    if name not in SCALES:
        raise InputError(f"scale is {name!r}; expected one of {', '.join(SCALES)}")
    scale = SCALES[name]
    smaller = [f"{n}x{d}" for n, d in scale.sizes[:-1]]
    return Claim(
        statement="Trained at a fixed list of sizes, small sub-models are better than with random sizes and about as"
        " good as separate models; masked pre-training at the same sizes adds to that.",
        arms={
            "whole": partial(_whole, scale=scale),
            "separate": partial(_separate, scale=scale),
            "random": partial(_random, scale=scale),
            "fixed": partial(_fixed, scale=scale, masked=0),
            "pretrained": partial(_fixed, scale=scale, masked=scale.masked),
        },
        checks=(
            *(
                Check(
                    says=f"fixed sizes are better than random ones at {size}",
                    better=f"fixed.points_{size}",
                    worse=f"random.points_{size}",
                )
                for size in smaller
            ),
            Check(
                says="they lose less than a point to separate models, on average over the smaller sizes",
                better="fixed.points_small",
                worse="separate.points_small",
                margin=-1.0,
            ),
            Check(
                says="they are better than a model that was not trained for it (control)",
                better="fixed.points_small",
                worse="whole.points_small",
            ),
            Check(
                says="the whole model loses less than 1.5 points",
                better="fixed.points_whole",
                worse="whole.points_whole",
                margin=-1.5,
            ),
            Check(
                says="masked pre-training helps the smaller sizes",
                better="pretrained.points_small",
                worse="fixed.points_small",
            ),
            Check(says="its loss falls at every size", better="pretrained.fell", worse=0.0),
        ),
        # Means of seven STS sets over the five smaller sizes of BERT-base, of the paper's repository.
        paper={
            "separate.sts_small": 75.54,
            "random.sts_small": 72.13,
            "fixed.sts_small": 76.17,
            "pretrained.sts_small": 78.06,
        },
        prepare=partial(write_texts, scale=scale),
        config=asdict(scale),
    )


class One(TextMethod):
    """A model of one size: the last of its layers, cut to ``width``."""

    card: ClassVar[Card] = Card(name="starbucks_one", title="", arxiv="", year=2024, family="", claim="", differs=())

    @dataclass(kw_only=True)
    class Config(TextConfig):
        """width: d; temperature: InfoNCE's."""

        width: int = 0
        temperature: float = 0.05

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {name: vectors[:, : self.config.width] for name, vectors in super().forward(batch).items()}

    def objective(self) -> Objective:
        return InfoNCE(temperature=self.config.temperature)


def _learn(method: TextMethod, texts: Texts, run: Run, *, scale: Scale, part: int = 0, parts: int = 1) -> None:
    source = method.source(training_pairs(texts), batch=scale.batch, seed=run.seed)
    train(method, source, scale, run, name=f"training{part}", done=part * scale.steps, total=parts * scale.steps)


def _settings(run: Run, scale: Scale) -> dict[str, Any]:
    return {
        "base": scale.folder(),
        "depth": scale.depth,
        "vocab": scale.vocab,
        "seed": run.seed,
        "max_length": scale.train_length,
    }


def _whole(run: Run, *, scale: Scale) -> Mapping[str, float]:
    texts, (layers, width) = read_texts(run.shared), scale.sizes[-1]
    method = _one(run, texts, scale, layers, width)
    _learn(method, texts, run, scale=scale)
    return _grid(method, texts, scale)


def _separate(run: Run, *, scale: Scale) -> Mapping[str, float]:
    """Every size trained alone, one after the other."""
    texts = read_texts(run.shared)
    found: dict[str, float] = {}
    for part, (layers, width) in enumerate(scale.sizes):
        method = _one(run, texts, scale, layers, width)
        _learn(method, texts, run, scale=scale, part=part, parts=len(scale.sizes))
        found |= _points(method, texts, scale, [(layers, width)])
    return _means(found, scale)


def _one(run: Run, texts: Texts, scale: Scale, layers: int, width: int) -> One:
    """An untrained model whose first ``layers`` layers are those of every other arm's start."""
    pairs = training_pairs(texts)
    start = One.start(One.Config(**_settings(run, scale), width=width), [*pairs.queries, *pairs.documents])
    shape = replace(start.transformer.config, layers=layers)
    method = One(replace(start.config, shape=shape), tokenizer=start.text_tokenizer())
    own = method.state_dict()
    method.load_state_dict({name: value for name, value in start.state_dict().items() if name in own})
    return method


def _random(run: Run, *, scale: Scale) -> Mapping[str, float]:
    texts = read_texts(run.shared)
    pairs = training_pairs(texts)
    dims = tuple(d for _, d in scale.sizes[:-1])
    config = Matryoshka2D.Config(**_settings(run, scale), variant="2dmse", dims=dims)
    method = Matryoshka2D.start(config, [*pairs.queries, *pairs.documents])
    _learn(method, texts, run, scale=scale)
    return _grid(method, texts, scale)


def _fixed(run: Run, *, scale: Scale, masked: int) -> Mapping[str, float]:
    texts = read_texts(run.shared)
    pairs = training_pairs(texts)
    every = [*pairs.queries, *pairs.documents]
    method = Starbucks.start(Starbucks.Config(**_settings(run, scale)), every)
    fell: dict[str, float] = {}
    if masked:
        before = Starbucks(replace(method.config, stage="smae"), tokenizer=method.text_tokenizer())
        source = before.masked(every, batch=scale.batch, seed=run.seed)
        first = _masked_losses(before, source.batch(0))
        train(before, source, replace(scale, steps=masked), run, name="masked", total=masked + scale.steps)
        last = _masked_losses(before, source.batch(0))
        fell = {"fell": min(first[name] - last[name] for name in first)}
        method.transformer.load_state_dict(before.transformer.state_dict())
    source = method.source(pairs, batch=scale.batch, seed=run.seed)
    train(method, source, scale, run, done=masked, total=masked + scale.steps)
    return {**_grid(method, texts, scale), **fell}


def _masked_losses(method: Starbucks, batch: Batch) -> dict[str, float]:
    device = next(method.parameters()).device
    with torch.no_grad():
        batch = batch.to(device)
        logs = method.objective().to(device)(method(batch), batch).logs
    return {name: float(value) for name, value in logs.items()}


def _grid(method: TextMethod, texts: Texts, scale: Scale) -> dict[str, float]:
    return _means(_points(method, texts, scale, scale.sizes), scale)


def _points(
    method: TextMethod, texts: Texts, scale: Scale, sizes: tuple[tuple[int, int], ...] | list[tuple[int, int]]
) -> dict[str, float]:
    """``sts_NxD``, ``ndcg_NxD`` and their mean ``points_NxD`` of every size."""

    def states(ids: Ragged) -> Tensor:
        return method.states(ids)

    measured = Measured(states, method.text_tokenizer(), texts, scale)
    found: dict[str, float] = {}
    for n, d in sizes:
        points = measured.points(partial(_cut, layer=n, dim=d))
        found |= {f"{kind}_{n}x{d}": value for kind, value in points.items()}
        found[f"points_{n}x{d}"] = (points["sts"] + points["ndcg"]) / 2
    return found


def _means(found: dict[str, float], scale: Scale) -> dict[str, float]:
    layers, width = scale.sizes[-1]
    for kind in (*_KIND, "points"):
        found[f"{kind}_small"] = float(np.mean([found[f"{kind}_{n}x{d}"] for n, d in scale.sizes[:-1]]))
        found[f"{kind}_whole"] = found[f"{kind}_{layers}x{width}"]
    return found


def _cut(rows: NDArray[np.float32], *, layer: int, dim: int) -> NDArray[np.float32]:
    return rows[:, layer - 1, :dim]
