"""The claim of ERNIE-Gram on a language of collocations whose choice depends on a text's topic. All topics have the
same tokens, in other pairs: what a text is about is in what stands together.

contiguous, explicit, comprehensive, relation      see ``methods/ernie_gram.py``; the same steps of the same texts
untrained                                          random weights (control)

topic       accuracy of logistic regression from a text's mean state to its topic, in percent
whole       hidden collocations that are restored whole, by the arm's own test, in percent
outside     of the attention that hidden places pay, the share that goes outside their own collocation, in percent of
            what uniform attention would pay there; see ``hidden_units``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec.data.synthetic.collocations import collocated
from nextvec.evaluate.labels import classify
from nextvec.language_claims import LanguageScale, train
from nextvec.methods._ernie_gram_measures import hidden_units, mean_states
from nextvec.methods.ernie_gram import KINDS, ErnieGram
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, Run

ARMS = (*KINDS, "untrained")


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """vocab: tokens; collocations, topics: of the language; units: of a text; texts: to learn from; tests: to measure
    on, and as many to fit the probe to."""

    collocations: int = 12
    topics: int = 3
    units: int = 8
    texts: int = 60
    tests: int = 30


_CPU = Scale(
    vocab=501,
    collocations=300,
    topics=10,
    units=24,
    texts=20_000,
    tests=1000,
    length=48,
    dim=128,
    layers=4,
    heads=4,
    steps=600,
    batch=32,
    lr=1e-3,
)
SCALES = {
    "smoke": replace(Scale(), vocab=40, length=24),
    "cpu": _CPU,
    "gpu": replace(_CPU, texts=200_000, dim=512, layers=8, heads=8, steps=20_000, batch=256, device="auto"),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="Hiding n-grams whole teaches more of a text than hiding their tokens side by side; foretelling both"
        " is no worse, and a generator's n-grams help again; hidden places then look outside.",
        arms={arm: partial(_arm, arm=arm, scale=scale) for arm in ARMS},
        checks=(
            Check(says="explicit is better than contiguous", better="explicit.topic", worse="contiguous.topic"),
            Check(
                says="comprehensive is no worse than explicit (a point is given)",
                better="comprehensive.topic",
                worse="explicit.topic",
                margin=-1.0,
            ),
            Check(says="and better than contiguous", better="comprehensive.topic", worse="contiguous.topic"),
            Check(
                says="the generator does not harm (a point is given)",
                better="relation.topic",
                worse="comprehensive.topic",
                margin=-1.0,
            ),
            Check(says="hidden places look outside more", better="explicit.outside", worse="contiguous.outside"),
            Check(
                says="training teaches the topic at all (control)", better="contiguous.topic", worse="untrained.topic"
            ),
        ),
        config=asdict(scale),
    )


def _texts(scale: Scale, seed: int, count: int) -> tuple[list[list[int]], NDArray[np.int64]]:
    texts, labels = collocated(
        np.random.default_rng(seed),
        count,
        tokens=scale.vocab - 1,
        collocations=scale.collocations,
        topics=scale.topics,
        units=scale.units,
    )
    return [text[: scale.length] for text in texts], labels


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    learned, _ = _texts(scale, 2 * run.seed, scale.texts)
    config = ErnieGram.Config(
        kind="contiguous" if arm == "untrained" else arm,
        dim=scale.dim,
        layers=scale.layers,
        heads=scale.heads,
        vocab=scale.vocab,
        length=scale.length,
        pairs=scale.collocations,
        triples=0,
    )
    torch.manual_seed(run.seed)
    method = ErnieGram.start(learned, config, mask=scale.vocab - 1)
    if arm != "untrained":
        train(method, method.source(learned, batch=scale.batch, seed=run.seed), scale, run)
    method.eval()
    held, labels = _texts(scale, 2 * run.seed + 1, 2 * scale.tests)
    means = mean_states(method, held)
    guessed = classify(means[: scale.tests], labels[: scale.tests], means[scale.tests :])
    whole, outside = hidden_units(method, held[: scale.tests])
    return {
        "topic": 100 * float((guessed == labels[scale.tests :]).mean()),
        "whole": whole,
        "outside": outside,
    }
