"""The claim of ERNIE-Gram, in two parts: a made language, and abstracts of arXiv.

In the language a text's topic decides which collocations it has, and a text repeats two of them. All topics have the
same tokens, in other pairs: what a text is about is in what stands together.

contiguous, explicit, comprehensive, relation      see ``methods/ernie_gram.py``; the same steps of the same texts
untrained                                          random weights (control)

topic       accuracy of logistic regression from a text's mean state to its topic, in percent
whole       hidden collocations that are restored whole, by the arm's own test, in percent
outside     of the attention that hidden places pay, the share that goes outside their own collocation, in percent of
            what uniform attention would pay there; see ``hidden_units``

category, text_whole, text_outside      the same of a model that learned from abstracts, on others: the probe tells the
            primary category, of eight. Not at smoke scale, which reads no data
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec.data.synthetic.collocations import collocated
from nextvec.evaluate.labels import classify
from nextvec.language_claims import LanguageScale, train
from nextvec.methods._ernie_gram_measures import hidden_units, mean_states
from nextvec.methods._ernie_gram_text import Abstracts, write_abstracts
from nextvec.methods.ernie_gram import KINDS, ErnieGram
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, Run

ARMS = (*KINDS, "untrained")


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """vocab: tokens; collocations, topics: of the language; units: of a text; terms: collocations that one text has;
    texts: to learn from; tests: to measure on, and as many to fit the probe to. Of the second part: abstracts: to learn
    from (0: there is none); words: tokens of the BPE; pairs, triples: of the lexicon; text_length: tokens of a piece;
    text_steps."""

    collocations: int = 12
    topics: int = 3
    units: int = 8
    terms: int = 2
    texts: int = 60
    tests: int = 30
    abstracts: int = 0
    words: int = 400
    pairs: int = 40
    triples: int = 20
    text_length: int = 16
    text_steps: int = 4


_CPU = Scale(
    vocab=42,
    collocations=30,
    topics=5,
    units=16,
    texts=20_000,
    tests=1000,
    length=32,
    dim=128,
    layers=4,
    heads=4,
    steps=1200,
    batch=32,
    lr=1e-3,
    abstracts=8000,
    words=4096,
    pairs=2000,
    triples=1000,
    text_length=64,
    text_steps=800,
)
SCALES = {
    "smoke": replace(Scale(), vocab=40, length=24),
    "cpu": _CPU,
    "gpu": replace(
        _CPU, texts=200_000, dim=512, layers=8, heads=8, steps=20_000, batch=256, device="auto",
        abstracts=50_000, words=8192, pairs=10_000, triples=5000, text_length=128, text_steps=20_000,
    ),
}  # fmt: skip


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="Hiding n-grams whole teaches more of a text than hiding their tokens side by side; foretelling both"
        " is no worse, and a generator's n-grams help again; hidden places then look outside.",
        arms={arm: partial(_arm, arm=arm, scale=scale) for arm in ARMS},
        checks=(
            *_checks("topic", "outside", "whole"),
            *(_checks("category", "text_outside", "text_whole") if scale.abstracts else ()),
        ),
        prepare=partial(_prepare, scale=scale),
        config=asdict(scale),
    )


def _checks(probe: str, outside: str, whole: str) -> tuple[Check, ...]:
    """Of one part: by its ``probe``, and by where hidden places look. Two controls: the baseline learns what it is
    trained for, so that it is one; and the probe sees what training teaches."""
    return (
        Check(
            says=f"{probe}: explicit is better than contiguous", better=f"explicit.{probe}", worse=f"contiguous.{probe}"
        ),
        Check(
            says=f"{probe}: comprehensive is no worse than explicit (a point is given)",
            better=f"comprehensive.{probe}",
            worse=f"explicit.{probe}",
            margin=-1.0,
        ),
        Check(
            says=f"{probe}: and better than contiguous",
            better=f"comprehensive.{probe}",
            worse=f"contiguous.{probe}",
        ),
        Check(
            says=f"{probe}: the generator does not harm (a point is given)",
            better=f"relation.{probe}",
            worse=f"comprehensive.{probe}",
            margin=-1.0,
        ),
        Check(
            says=f"{outside}: hidden places look outside more",
            better=f"explicit.{outside}",
            worse=f"contiguous.{outside}",
        ),
        Check(
            says=f"{whole}: training teaches contiguous to restore (control)",
            better=f"contiguous.{whole}",
            worse=f"untrained.{whole}",
        ),
        Check(
            says=f"{probe}: training with explicit masks teaches it (control)",
            better=f"explicit.{probe}",
            worse=f"untrained.{probe}",
        ),
    )


def _texts(scale: Scale, seed: int, count: int) -> tuple[list[list[int]], NDArray[np.int64]]:
    texts, labels = collocated(
        np.random.default_rng(seed),
        count,
        tokens=scale.vocab - 1,
        collocations=scale.collocations,
        topics=scale.topics,
        units=scale.units,
        terms=scale.terms,
    )
    return [text[: scale.length] for text in texts], labels


def _prepare(shared: Path, *, scale: Scale) -> None:
    if scale.abstracts:
        write_abstracts(shared, count=scale.abstracts, vocab=scale.words, pairs=scale.pairs, triples=scale.triples)


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    found = _language(run, arm, scale)
    return found | _abstracts(run, arm, scale) if scale.abstracts else found


def _config(scale: Scale, arm: str, **changes: Any) -> Any:
    kind = "contiguous" if arm == "untrained" else arm
    return ErnieGram.Config(kind=kind, dim=scale.dim, layers=scale.layers, heads=scale.heads, **changes)


def _language(run: Run, arm: str, scale: Scale) -> dict[str, float]:
    """``topic``, ``whole`` and ``outside``, learned from and measured on the made language."""
    learned, _ = _texts(scale, 2 * run.seed, scale.texts)
    config = _config(scale, arm, vocab=scale.vocab, length=scale.length, pairs=scale.collocations, triples=0)
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


def _abstracts(run: Run, arm: str, scale: Scale) -> dict[str, float]:
    """``category``, ``text_whole`` and ``text_outside``, of a model that learned from abstracts."""
    texts = Abstracts(run.shared, scale.text_length)
    config = _config(
        scale, arm, vocab=texts.tokenizer.vocab, length=scale.text_length, grams=texts.grams, mask=texts.mask
    )
    torch.manual_seed(run.seed)
    method = ErnieGram(config, tokenizer=texts.tokenizer)
    if arm != "untrained":
        source = method.source(texts.learned, batch=scale.batch, seed=run.seed)
        train(method, source, replace(scale, steps=scale.text_steps), run, name="abstracts")
    method.eval()
    wanted = np.array(texts.held_labels)
    guessed = classify(mean_states(method, texts.fit), np.array(texts.fit_labels), mean_states(method, texts.held))
    whole, outside = hidden_units(method, texts.held)
    return {"category": 100 * float((guessed == wanted).mean()), "text_whole": whole, "text_outside": outside}
