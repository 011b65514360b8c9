"""The claim of Future Token Prediction on abstracts of arXiv.

gpt       a causal transformer with as many layers as the others have with their decoder, trained on the next token
one       the method with N = 1: the same bottleneck and no future, asked at as many positions (control)
future    the method

nats        cross entropy of the next token, on abstracts that were not learned from
adjacent    mean cosine of the states of neighbouring tokens, centred: 1 is perfectly smooth
topic       accuracy of logistic regression from one state, that of the 32nd token, to the paper's category, in percent
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec.data.labelled import arxiv_categories
from nextvec.data.tokenizers import load_tokenizer
from nextvec.evaluate.labels import classify
from nextvec.files import atomic_write
from nextvec.language_claims import LanguageScale, packed, pieces, token_losses, train, vocabulary, write_tokens
from nextvec.language_method import LanguageMethod
from nextvec.methods.carope import Carope
from nextvec.methods.future_token import FutureToken
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, Ragged, Run

ARMS = ("gpt", "one", "future")
_WORDS = ("loss", "image", "proof", "robot")  # topics at smoke scale


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """ahead, pseudo, every: of the method; state: whose state is probed; texts: per class, to fit to; tests: pieces to
    measure on, at most; topics: "words" (made here) or "arxiv"."""

    ahead: int = 3
    pseudo: int = 2
    every: int = 2
    state: int = 8
    texts: int = 12
    tests: int = 20
    topics: str = "words"


_CPU = Scale(
    abstracts=12_000,
    vocab=4096,
    length=128,
    dim=128,
    layers=3,
    heads=4,
    steps=800,
    batch=16,
    lr=2e-3,
    ahead=8,
    pseudo=4,
    every=4,
    state=32,
    texts=250,
    tests=300,
    topics="arxiv",
)
SCALES = {
    "smoke": Scale(),
    "cpu": _CPU,
    "gpu": replace(
        _CPU,
        abstracts=50_000,
        length=256,
        dim=512,
        layers=8,
        heads=8,
        steps=20_000,
        batch=64,
        pseudo=12,
        every=4,
        device="auto",
    ),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="States that must foretell eight tokens change more smoothly than a GPT's and say more of the topic,"
        " at the same loss on the next token; the bottleneck alone does not do it.",
        arms={arm: partial(_arm, arm=arm, scale=scale) for arm in ARMS},
        checks=(
            Check(says="its states change more smoothly than a GPT's", better="future.adjacent", worse="gpt.adjacent"),
            Check(says="and than with the bottleneck alone (control)", better="future.adjacent", worse="one.adjacent"),
            Check(says="they say more of the topic than a GPT's", better="future.topic", worse="gpt.topic"),
            Check(says="and than with the bottleneck alone (control)", better="future.topic", worse="one.topic"),
            Check(
                says="the next token is foretold as well (0.05 nats are given)",
                better="gpt.nats",
                worse="future.nats",
                margin=-0.05,
            ),
        ),
        prepare=partial(_prepare, scale=scale),
        config=asdict(scale),
    )


def _prepare(shared: Path, *, scale: Scale) -> None:
    write_tokens(shared, count=scale.abstracts, vocab=scale.vocab)
    tokenizer = load_tokenizer(shared / "tokenizer")
    if scale.topics == "arxiv":
        split = arxiv_categories(train=scale.texts, test=scale.texts // 2)
        parts = {"train": split.train, "test": split.test}
        texts = {name: (part.texts, part.labels.tolist()) for name, part in parts.items()}
    else:
        random = np.random.default_rng(0)
        made = [(f"{word} " * 3 + " ".join(random.choice(["a", "of", "we"], 20)), i) for i, word in enumerate(_WORDS)]
        both = tuple(zip(*(made * scale.texts), strict=True))
        texts = {name: (list(both[0]), list(both[1])) for name in ("train", "test")}
    kept = {}
    for name, (own, labels) in texts.items():
        ids = [one[: scale.state] for one in tokenizer.encode(own, special=False)]
        rows = [(one, label) for one, label in zip(ids, labels, strict=True) if len(one) == scale.state]
        kept[name] = {"ids": [one for one, _ in rows], "labels": [label for _, label in rows]}
    with atomic_write(shared / "topics.json", "w") as stream:
        json.dump(kept, stream)


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    torch.manual_seed(run.seed)
    shape = scale.shape() | {"vocab": vocabulary(run.shared), "activation": "gelu"}
    method: LanguageMethod
    if arm == "gpt":
        method = Carope(Carope.Config(positions="rope", **shape | {"layers": scale.layers + 1}))
    else:
        ahead = 1 if arm == "one" else scale.ahead
        method = FutureToken(FutureToken.Config(ahead=ahead, pseudo=scale.pseudo, every=scale.every, **shape))
    train(method, packed(run.shared, scale, run.seed), scale, run)
    ids = pieces(run.shared, scale.length, most=scale.tests)
    states = _states(method, ids)
    centred = states - states.mean(axis=(0, 1))
    unit = centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-9)
    adjacent = float((unit[:, 1:] * unit[:, :-1]).sum(axis=-1).mean())
    return {"nats": float(token_losses(method, ids).mean()), "adjacent": adjacent, "topic": _topic(method, run.shared)}


@torch.no_grad()
def _states(method: LanguageMethod, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Final states float32 [n, L, D]."""
    device = next(method.parameters()).device
    found = []
    for part in np.array_split(ids, -(-len(ids) // 64)):
        text = Ragged(torch.from_numpy(part).flatten().to(device), torch.full((len(part),), part.shape[1]))
        found.append(method.backbone(text).float().cpu().numpy().reshape(*part.shape, -1))
    states: NDArray[np.float32] = np.concatenate(found)
    return states


def _topic(method: LanguageMethod, shared: Path) -> float:
    topics = json.loads((shared / "topics.json").read_text(encoding="utf-8"))
    sides = {}
    for name, part in topics.items():
        sides[name] = (_states(method, np.array(part["ids"]))[:, -1], np.array(part["labels"]))
    guessed = classify(sides["train"][0], sides["train"][1], sides["test"][0])
    return 100 * float((guessed == sides["test"][1]).mean())
