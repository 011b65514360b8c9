"""The claim of "Pooling and Attention" on synthetic texts of token ids, with small decoders from random weights.

needle   two texts belong together where both hold the same one of many rare tokens, somewhere; all else is noise: the
         signal is a token's identity, there before the first layer. Measured: does a text find its partner among new
         ones (MRR, in points)?
topic    a text's tokens are drawn from its topic; two of one topic belong together. Measured: how many new texts lie
         nearest to the mean of their own topic (accuracy, in percent)

M1 ... M5     the designs; M2_published has M2's latents query one key, as the published code does

The paper's Wilcoxon tests over data sets have their place taken by paired intervals over seeds, every one of which has
its own world, weights and texts.

Legend: B pairs of a batch, n texts, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.data.sources import Generated, ragged
from nextvec.evaluate.retrieval import dense_ranks
from nextvec.methods.pooling_attention import DESIGNS, PoolingAttention
from nextvec.text_claims import TextScale, scale_named, train, unit
from nextvec.text_method import encode_all
from nextvec.types import Batch, Check, Claim, Ragged, Run

Texts = NDArray[np.int64]
Encode = Callable[[Ragged], Tensor]
_END = 0  # the last token of every text, which a causal model's vector is read from


@dataclass(frozen=True, kw_only=True)
class Scale(TextScale):
    """depth: of the decoder; length: tokens of a text; needles: rare tokens; topics; common: tokens of noise; tests:
    new texts."""

    depth: int = 2
    length: int = 12
    needles: int = 30
    topics: int = 5
    common: int = 40
    tests: int = 40


_CPU = Scale(steps=200, batch=64, lr=1e-3, length=24, needles=200, topics=20, common=200, tests=1000)
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
    arms = {design: partial(_arm, design=design, scale=scale) for design in DESIGNS}
    arms["M2_published"] = partial(_arm, design="M2", one_key=True, scale=scale)
    return Claim(
        statement="For likeness and retrieval the latents that query all layers of a bidirectional model are best; for"
        " classes a trained pooler and bidirectional attention are no better than the last token of a causal model.",
        arms=arms,
        checks=(
            *(
                Check(says=f"at needles M5 is better than {other}", better="M5.needle", worse=f"{other}.needle")
                for other in ("M1", "M2", "M3", "M4")
            ),
            Check(says="at needles bidirectional attention helps (M4, M2)", better="M4.needle", worse="M2.needle"),
            Check(
                says="at topics M1 loses less than two points to M5", better="M1.topic", worse="M5.topic", margin=-2.0
            ),
            Check(
                says="at needles M2 with all tokens is better than as published",
                better="M2.needle",
                worse="M2_published.needle",
            ),
        ),
        config=asdict(scale),
    )


class World:
    """The topics of one seed. Ids: the end, then needles, then common tokens."""

    def __init__(self, scale: Scale, seed: int) -> None:
        random = np.random.default_rng([seed, 2409])
        self.scale = scale
        self.vocab = 1 + scale.needles + scale.common
        # Topics overlap: each prefers a tenth of the common tokens, and has the others too.
        weights = np.ones((scale.topics, scale.common))
        for own in weights:
            own[random.choice(scale.common, size=max(scale.common // 10, 1), replace=False)] = 10.0
        self.topics = np.cumsum(weights / weights.sum(1, keepdims=True), axis=1)

    def texts(self, random: np.random.Generator, task: str, count: int) -> tuple[Texts, NDArray[np.int64]]:
        """Two texts for each of ``count`` pairs [2, count, length], and their needles or topics [count]."""
        scale, first = self.scale, 1 + self.scale.needles
        if task == "topic":
            kinds = random.integers(scale.topics, size=count)
            draws = random.random((2, count, scale.length, 1))
            made = first + (draws > self.topics[kinds][None, :, None, :]).sum(-1)
        else:
            kinds = random.integers(scale.needles, size=count)
            made = first + random.integers(scale.common, size=(2, count, scale.length))
            place = random.integers(scale.length - 1, size=(2, count))
            np.put_along_axis(made, place[..., None], np.broadcast_to(1 + kinds, (2, count))[..., None], axis=2)
        made[..., -1] = _END
        return made, kinds

    def batch(self, random: np.random.Generator, count: int, *, task: str) -> Batch:
        """``count`` pairs; those of one needle or topic are no negatives of each other."""
        (queries, documents), kinds = self.texts(random, task, count)
        columns = {"query": ragged(list(queries)), "document": ragged(list(documents))}
        return Batch({**columns, "group": torch.from_numpy(kinds)})


def _arm(run: Run, *, design: str, scale: Scale, one_key: bool = False) -> Mapping[str, float]:
    world, found = World(scale, run.seed), {}
    for part, task in enumerate(("needle", "topic")):
        torch.manual_seed(run.seed)
        config = PoolingAttention.Config(
            design=design, one_key=one_key, depth=scale.depth, vocab=world.vocab, max_length=scale.length, seed=run.seed
        )
        method = PoolingAttention(config)
        source = Generated(partial(world.batch, task=task), batch=scale.batch, seed=run.seed)
        train(method, source, scale, run, name=task, done=part * scale.steps, total=2 * scale.steps)
        measure = needle_points if task == "needle" else topic_points
        device = str(next(method.parameters()).device)
        found[task] = measure(method.vectors, world, np.random.default_rng([run.seed, 1]), device)
    return found


def needle_points(encode: Encode, world: World, random: np.random.Generator, device: str) -> float:
    """MRR in points: does a text with a needle find the other text with it? Every needle once on each side."""
    (queries, documents), _ = each_needle_once(world, random)
    one, two = (unit(encode_all(encode, texts.tolist(), device)) for texts in (queries, documents))
    return 100 * float(np.mean(1 / dense_ranks(one, two, np.arange(len(one)))))


def topic_points(encode: Encode, world: World, random: np.random.Generator, device: str) -> float:
    """Accuracy in percent: is a text nearest to the mean of other texts of its topic?"""
    (asked, known), kinds = world.texts(random, "topic", world.scale.tests)
    one, two = (unit(encode_all(encode, texts.tolist(), device)) for texts in (asked, known))
    centres = unit(np.stack([two[kinds == kind].sum(0) for kind in range(world.scale.topics)]))
    return 100 * float(np.mean((one @ centres.T).argmax(1) == kinds))


def each_needle_once(world: World, random: np.random.Generator) -> tuple[Texts, NDArray[np.int64]]:
    """Texts [2, needles, length], the i-th with needle i, and their needles."""
    made, _ = world.texts(random, "needle", world.scale.needles)
    kinds = np.arange(world.scale.needles)
    held = (made > _END) & (made <= world.scale.needles)
    made[held] = np.broadcast_to(1 + kinds, (2, len(kinds))).flatten()
    return made, kinds
