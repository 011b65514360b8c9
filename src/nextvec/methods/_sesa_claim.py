"""The claim of SESA on synthetic texts: profiles and jobs that ask for skills, each skill with words of its own.

A concept has some of a pool of words, each of which several concepts have, so that one word does not tell which is
meant. A text has some concepts, for each some of its words, and words that mean nothing. A document belongs to a query
where their concepts overlap by 0.3 or more (Jaccard). The concepts of a part of the training texts are known.

latent       the same encoder and width, trained on pairs alone: its axes have no names
tfidf        ESA without training: a text's cosines with the tf-idf vectors of the concepts' known texts
explicit     SESA
unnamed      SESA's sigmoid axes, trained on pairs alone (control)

auc     whether relevant pairs score above irrelevant ones, times 100
axes    of as many largest axes as a text has concepts, how many are its concepts, in percent
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nextvec.data.pairs import Pairs
from nextvec.evaluate.sts import average_ranks
from nextvec.methods.sesa import Known, Sesa
from nextvec.objectives.base import Objective
from nextvec.objectives.info_nce import InfoNCE
from nextvec.text_claims import TextScale, scale_named, train, unit
from nextvec.text_method import TEXTS, encode_all
from nextvec.types import Batch, Check, Claim, Run

_SYLLABLES = ("ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu", "da", "fi", "go", "hu", "pe")


@dataclass(frozen=True, kw_only=True)
class Scale(TextScale):
    """concepts: K; words: of each; pool: words that they are taken from; noise: words that mean nothing; pairs: to
    learn from; labelled: share of them whose concepts are known; tests: relevant and as many irrelevant pairs; depth,
    vocab: of the model."""

    concepts: int = 12
    words: int = 9
    pool: int = 40
    noise: int = 40
    pairs: int = 200
    labelled: float = 0.3
    tests: int = 60
    depth: int = 2
    vocab: int = 600


_CPU = Scale(
    concepts=200,
    words=20,
    pool=600,
    noise=400,
    pairs=8000,
    tests=2000,
    vocab=4096,
    steps=800,
    batch=64,
    lr=1e-3,
    train_length=64,
    eval_length=64,
)
SCALES = {
    "smoke": Scale(),
    "cpu": _CPU,
    "gpu": replace(
        _CPU, concepts=1000, pool=3000, pairs=100_000, depth=4, vocab=20_000, steps=10_000, batch=256, device="auto"
    ),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="An explicit space of concepts ranks nearly as well as a latent one of the same width, and its axes"
        " mean their concepts, which they do not without the loss that names them.",
        arms={
            "latent": partial(_learned, scale=scale, sigmoid=False, weight=0.0),
            "tfidf": partial(_tfidf, scale=scale),
            "explicit": partial(_learned, scale=scale, sigmoid=True, weight=1.0),
            "unnamed": partial(_learned, scale=scale, sigmoid=True, weight=0.0),
        },
        checks=(
            Check(
                says="the explicit space loses less than two points to the latent one",
                better="explicit.auc",
                worse="latent.auc",
                margin=-2.0,
            ),
            Check(says="and is better than concepts without supervision", better="explicit.auc", worse="tfidf.auc"),
            Check(
                says="its axes mean their concepts, far more often than latent ones",
                better="explicit.axes",
                worse="latent.axes",
                margin=20.0,
            ),
            Check(says="and more often than without supervision", better="explicit.axes", worse="tfidf.axes"),
            Check(
                says="without the loss that names them they do not (control)",
                better="explicit.axes",
                worse="unnamed.axes",
                margin=20.0,
            ),
        ),
        config=asdict(scale),
    )


class World:
    """The words of every concept, and texts made of them."""

    def __init__(self, scale: Scale, seed: int) -> None:
        random = np.random.default_rng([seed, 1708])
        numbers = random.choice(len(_SYLLABLES) ** 4, size=scale.pool + scale.noise, replace=False)
        words = ["".join(_SYLLABLES[number // 15**place % 15] for place in range(4)) for number in numbers]
        self.noise = words[scale.pool :]
        self.words = [
            list(random.choice(words[: scale.pool], size=scale.words, replace=False)) for _ in range(scale.concepts)
        ]
        self.scale = scale

    def text(self, random: np.random.Generator, concepts: NDArray[np.int64]) -> str:
        """Some words of every concept, and as many that mean nothing, in any order."""
        words = [word for k in concepts for word in random.choice(self.words[k], size=3)]
        words += list(random.choice(self.noise, size=len(words)))
        return " ".join(random.permutation(words))

    def pair(self, random: np.random.Generator, *, relevant: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The concepts of a query and of a document that overlaps with it by 0.3 or more, or by less."""
        while True:
            one, two = (
                random.choice(self.scale.concepts, size=int(random.integers(3, 9)), replace=False) for _ in range(2)
            )
            if relevant:
                kept = one[random.random(len(one)) < 0.75]
                two = np.unique(np.concatenate([kept, two[: len(one) - len(kept)]]))
            if len(two) and (jaccard(one, two) >= 0.3) == relevant:
                return one, two


def jaccard(one: NDArray[np.int64], two: NDArray[np.int64]) -> float:
    """|A and B| / |A or B|."""
    return len(np.intersect1d(one, two)) / len(np.union1d(one, two))


@dataclass(frozen=True)
class Data:
    """Texts of both sides, their concepts, and which pairs are relevant (all, of those to learn from)."""

    texts: Pairs
    concepts: Mapping[str, list[NDArray[np.int64]]]
    relevant: NDArray[np.bool_]


def make(world: World, random: np.random.Generator, relevant: NDArray[np.bool_]) -> Data:
    """As many pairs as ``relevant`` is long."""
    both = [world.pair(random, relevant=bool(yes)) for yes in relevant]
    sides = {kind: [pair[i] for pair in both] for i, kind in enumerate(TEXTS)}
    queries, documents = ([world.text(random, own) for own in sides[kind]] for kind in TEXTS)
    return Data(Pairs(queries, documents), sides, relevant)


def _data(run: Run, scale: Scale) -> tuple[Data, Data, int]:
    """To learn from, to measure on, and of how many of the first the concepts are known."""
    world = World(scale, run.seed)
    random = np.random.default_rng([run.seed, 1])
    learned = make(world, random, np.ones(scale.pairs, dtype=bool))
    tests = make(world, random, np.arange(2 * scale.tests) % 2 == 0)
    return learned, tests, int(scale.labelled * scale.pairs)


class Latent(Sesa):
    """The same encoder and width without the sigmoid; only pairs are learned."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        out = super().forward(batch)
        return {name: out[f"{name}_logits"] for name in TEXTS if name in out}

    def objective(self) -> Objective:
        return InfoNCE(temperature=self.config.temperature)


def _learned(run: Run, *, scale: Scale, sigmoid: bool, weight: float) -> Mapping[str, float]:
    learned, tests, count = _data(run, scale)
    names = tuple(f"concept {k}" for k in range(scale.concepts))
    known: dict[str, Known] = {
        kind: [[names[k] for k in own] if i < count else None for i, own in enumerate(learned.concepts[kind])]
        for kind in TEXTS
    }
    kind = Sesa if sigmoid else Latent
    settings = kind.Config(
        base=scale.folder(),
        depth=scale.depth,
        vocab=scale.vocab,
        seed=run.seed,
        max_length=scale.train_length,
        concepts=names,
        weight=weight,
    )
    method = kind.start(settings, [*learned.texts.queries, *learned.texts.documents])
    train(method, method.labelled(learned.texts, known, batch=scale.batch, seed=run.seed), scale, run)
    sides = []
    for texts in (tests.texts.queries, tests.texts.documents):
        ids = method.text_tokenizer().encode(texts, max_length=scale.eval_length)
        rows = encode_all(lambda part: method.axes(method.vectors(part)), ids, str(method.axes.weight.device))
        sides.append(1 / (1 + np.exp(-rows.astype(np.float64))) if sigmoid else rows.astype(np.float64))
    return _measures(sides, tests)


def _tfidf(run: Run, *, scale: Scale) -> Mapping[str, float]:
    learned, tests, count = _data(run, scale)
    texts = [*learned.texts.queries[:count], *learned.texts.documents[:count]]
    owners = [*learned.concepts["query"][:count], *learned.concepts["document"][:count]]
    place = {word: i for i, word in enumerate(sorted({word for text in texts for word in text.split()}))}

    def counts(several: list[str]) -> NDArray[np.float64]:
        rows = np.zeros((len(several), len(place)))
        for i, text in enumerate(several):
            for word in text.split():
                if word in place:
                    rows[i, place[word]] += 1
        return rows

    seen = counts(texts)
    articles = np.zeros((scale.concepts, len(place)))
    for row, own in zip(seen, owners, strict=True):
        articles[own] += row
    rarity = np.log(len(texts) / np.maximum((seen > 0).sum(0), 1))
    articles = unit(np.log1p(articles) * rarity)
    sides = [
        unit(np.log1p(counts(side)) * rarity) @ articles.T for side in (tests.texts.queries, tests.texts.documents)
    ]
    return _measures(sides, tests)


def _measures(sides: list[NDArray[np.float64]], tests: Data) -> dict[str, float]:
    """``auc`` and ``axes`` of what both sides have of every concept, [n, K] each."""
    scores = (unit(sides[0]) * unit(sides[1])).sum(1)
    yes = tests.relevant
    many = int(yes.sum())
    above = average_ranks(scores)[yes].sum() - many * (many + 1) / 2  # relevant pairs over irrelevant ones
    found = [
        np.isin(np.argsort(-row, kind="stable")[: len(own)], own).mean()
        for side, kind in zip(sides, TEXTS, strict=True)
        for row, own in zip(side, tests.concepts[kind], strict=True)
    ]
    return {"auc": 100 * float(above / (many * (len(yes) - many))), "axes": 100 * float(np.mean(found))}
