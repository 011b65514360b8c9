"""The claim of SwimBird on a mixture: chained sums, whose steps want words, and grids that are turned and mirrored,
whose steps want pictures.

switch     sums are thought of in words, grids in pictures, and the model decides
words      both in words: the grids' cells are spelled out
vision     pictures alone: sums are answered without a step
none       neither thinks (control)
blind      as switch, without the loss of vision (control)

sums, grids    right answers, in percent; ``both``: their mean
mode           questions of either kind that were thought of in the right mode, in percent
latents        predicted patches of a grid's response
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from nextvec.data.reasoning import Chain
from nextvec.data.synthetic.arithmetic import fresh_split
from nextvec.data.synthetic.grids import GridQuestion, grids, spelled
from nextvec.language_claims import LanguageScale, train
from nextvec.methods._swimbird_parts import Example
from nextvec.methods.swimbird import SwimBird
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, Run

ARMS = ("switch", "words", "vision", "none", "blind")


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """count: questions of each kind to learn from; tests: of each to measure on; side: cells of a grid; moves: of a
    grid; operations: of a sum, at most."""

    count: int = 24
    tests: int = 6
    side: int = 4
    moves: int = 1
    operations: int = 2


_CPU = Scale(
    count=15_000,
    tests=200,
    side=6,
    moves=2,
    operations=4,
    length=160,
    dim=128,
    layers=4,
    heads=4,
    steps=1200,
    batch=32,
    lr=1e-3,
)
SCALES = {
    "smoke": replace(Scale(), length=96),
    "cpu": _CPU,
    "gpu": replace(
        _CPU, count=200_000, side=8, length=256, dim=512, layers=8, heads=8, steps=20_000, batch=128, device="auto"
    ),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="A model that may think in words or in pictures is better on a mixture than one that thinks in either"
        " alone, and chooses the right one; the loss of vision is what makes pictures work.",
        arms={arm: partial(_arm, arm=arm, scale=scale) for arm in ARMS},
        checks=(
            Check(says="switching beats words alone", better="switch.both", worse="words.both"),
            Check(says="and pictures alone", better="switch.both", worse="vision.both"),
            Check(says="it chooses the right mode, 95 times in 100", better="switch.mode", worse=95.0),
            Check(says="thinking in pictures helps at all (control)", better="switch.grids", worse="none.grids"),
            Check(says="without the loss of vision it does not (control)", better="switch.grids", worse="blind.grids"),
        ),
        config=asdict(scale),
    )


def _sum(chain: Chain, arm: str) -> Example:
    words = "".join(chain.steps)
    return Example((f"sum: {chain.question}",), () if arm in ("vision", "none") else (words,), chain.answer)


def _grid(question: GridQuestion, arm: str) -> Example:
    pictures = tuple(question.pictures[1:])
    words = tuple(f"{spelled(picture)};" for picture in pictures)
    thoughts = () if arm == "none" else words if arm == "words" else pictures
    return Example((question.text, question.pictures[0]), thoughts, question.answer)


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    sums, fresh = fresh_split(run.seed, scale.count, scale.tests, least=1, most=scale.operations)
    pictures, others = (
        grids(np.random.default_rng([run.seed, part]), count, side=scale.side, moves=scale.moves)
        for part, count in ((2, scale.count), (3, scale.tests))
    )
    examples = [_sum(chain, arm) for chain in sums] + [_grid(question, arm) for question in pictures]
    config = SwimBird.Config(
        size=scale.side, patch=2, vision=0.0 if arm == "blind" else 0.2, activation="gelu", **scale.shape()
    )
    method = SwimBird.start(config, seed=run.seed)
    train(method, method.source(examples, batch=scale.batch, seed=run.seed), scale, run)
    asked, shown = [_sum(chain, arm) for chain in fresh], [_grid(question, arm) for question in others]
    most = scale.length - max(method.places(example.question) for example in [*asked, *shown])
    right: dict[str, float] = {}
    modes: list[bool] = []
    latents = 0.0
    for name, own in (("sums", asked), ("grids", shown)):
        said = method.respond([example.question for example in own], most=most)
        right[name] = 100 * float(np.mean([a.answer == e.answer for a, e in zip(said, own, strict=True)]))
        modes += [answer.spans == (name == "grids") for answer in said]
        latents = float(np.mean([len(answer.latents) for answer in said]))
    both = (right["sums"] + right["grids"]) / 2
    return {**right, "both": both, "mode": 100 * float(np.mean(modes)), "latents": latents}
