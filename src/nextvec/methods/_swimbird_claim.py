"""The claim of SwimBird on a mixture: chained sums, whose steps want words; grids that are turned and mirrored, whose
steps want pictures; and the same grids with a question that wants both, pictures and then the corner's cells in words.

switch     sums are thought of in words, grids in pictures, counts in both, and the model decides
words      all in words: the grids' cells are spelled out
vision     pictures alone: sums are answered without a step, counts without the cells
none       nothing is thought of (control)
blind      as switch, without the loss of vision (control)

sums, grids, counts    right answers, in percent; ``all``: their mean
mode           questions that were thought of in the right mode (words, pictures, both), in percent
spans          questions about grids whose visual spans all end with as many patches as the grid has, in percent
latents        predicted patches of a grid's response
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nextvec.data.reasoning import Chain
from nextvec.data.synthetic.arithmetic import fresh_split
from nextvec.data.synthetic.grids import GridQuestion, grids, spelled
from nextvec.language_claims import LanguageScale, train
from nextvec.methods._swimbird_parts import Example, Said
from nextvec.methods.swimbird import SwimBird
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, Run

ARMS = ("switch", "words", "vision", "none", "blind")


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """count: questions of each kind to learn from; tests: of each to measure on; sides: cells of grids, of each as
    many; moves: of a grid; operations: of a sum, at most; vision: weight of the loss of vision."""

    count: int = 24
    tests: int = 6
    sides: tuple[int, ...] = (4,)
    moves: int = 1
    operations: int = 2
    vision: float = 1.0


_CPU = Scale(
    count=15_000,
    tests=200,
    sides=(4, 6),
    moves=2,
    operations=3,
    length=176,
    dim=128,
    layers=4,
    heads=4,
    steps=2500,
    batch=32,
    lr=1e-3,
)
SCALES = {
    "smoke": replace(Scale(), length=96),
    "cpu": _CPU,
    "gpu": replace(
        _CPU,
        count=200_000,
        sides=(4, 6, 8),
        moves=3,
        length=320,
        dim=512,
        layers=8,
        heads=8,
        steps=20_000,
        batch=128,
        device="auto",
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
            Check(says="switching beats words alone", better="switch.all", worse="words.all"),
            Check(says="and pictures alone", better="switch.all", worse="vision.all"),
            Check(says="it chooses the right mode, 95 times in 100", better="switch.mode", worse=95.0),
            Check(says="its spans end where a picture does, 95 times in 100", better="switch.spans", worse=95.0),
            Check(says="thinking in pictures helps at all (control)", better="switch.grids", worse="none.grids"),
            Check(says="without the loss of vision it does not (control)", better="switch.grids", worse="blind.grids"),
        ),
        config=asdict(scale),
    )


def _sum(chain: Chain, arm: str) -> Example:
    words = "".join(chain.steps)
    return Example((chain.question,), () if arm in ("vision", "none") else (words,), chain.answer)


def _grid(question: GridQuestion, arm: str, *, cells: bool) -> Example:
    """cells: the corner's are named before the answer, where words are thought of."""
    pictures = tuple(question.pictures[1:])
    drawn = tuple(f"{spelled(picture)};" for picture in pictures) if arm == "words" else pictures
    named = (f"{question.cells};",) if cells and arm != "vision" else ()
    return Example((question.text, question.pictures[0]), () if arm == "none" else (*drawn, *named), question.answer)


def _grids(run: Run, part: int, count: int, scale: Scale, *, white: bool) -> list[GridQuestion]:
    """``count`` questions, of every side as many; seeds of different parts have different questions."""
    made = []
    for side in scale.sides:
        random = np.random.default_rng([run.seed, part, side])
        made += grids(random, count // len(scale.sides), side=side, moves=scale.moves, white=white)
    return made


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    sums, fresh = fresh_split(run.seed, scale.count, scale.tests, least=1, most=scale.operations)
    kinds = {"grids": False, "counts": True}
    learned = [_sum(chain, arm) for chain in sums]
    asked: dict[str, list[Example]] = {"sums": [_sum(chain, arm) for chain in fresh]}
    for number, (kind, white) in enumerate(kinds.items()):
        own, other = (
            [_grid(q, arm, cells=white) for q in _grids(run, 2 * number + part, count, scale, white=white)]
            for part, count in ((2, scale.count), (3, scale.tests))
        )
        learned += own
        asked[kind] = other
    vision = 0.0 if arm == "blind" else scale.vision
    config = SwimBird.Config(size=max(scale.sides), patch=2, vision=vision, activation="gelu", **scale.shape())
    method = SwimBird.start(config, seed=run.seed)
    train(method, method.source(learned, batch=scale.batch, seed=run.seed), scale, run)
    most = scale.length - max(method.places(example.question) for own in asked.values() for example in own)
    measures: dict[str, float] = {}
    modes: list[bool] = []
    spans: list[bool] = []
    for kind, own in asked.items():
        said = method.respond([example.question for example in own], most=most)
        measures[kind] = 100 * float(np.mean([a.answer == e.answer for a, e in zip(said, own, strict=True)]))
        modes += [(a.spans, _spoke(method, a)) == (kind != "sums", kind != "grids") for a in said]
        if kind != "sums":
            spans += [_whole(method, a, method.patches(_shown(e))) for a, e in zip(said, own, strict=True)]
        if kind == "grids":
            measures["latents"] = float(np.mean([len(answer.latents) for answer in said]))
    measures["all"] = sum(measures[kind] for kind in asked) / len(asked)
    return measures | {"mode": 100 * float(np.mean(modes)), "spans": 100 * float(np.mean(spans))}


def _shown(example: Example) -> NDArray[np.uint8]:
    """The picture that is asked about."""
    return next(part for part in example.question if not isinstance(part, str))


def _spoke(method: SwimBird, said: Said) -> bool:
    """Whether words were thought of before the answer."""
    end = said.tokens.index(method.answer) if method.answer in said.tokens else len(said.tokens)
    return any(token < method.image for token in said.tokens[:end])


def _whole(method: SwimBird, said: Said, patches: int) -> bool:
    """Whether there are visual spans, all of ``patches`` patches."""
    lengths = [0]
    for token in said.tokens:
        if token == method.latent:
            lengths[-1] += 1
        elif lengths[-1]:
            lengths.append(0)
    found = [length for length in lengths if length]
    return bool(found) and all(length == patches for length in found)
