"""The claim of Llama-Embed-Nemotron: merging, and what stands in the loss.

merged     M models from one base, each with its own half of the pairs, order and learning rate; their average against
           the best of them, chosen by the very figure that is compared (so the best is flattered), and against the
           ensemble, whose vectors are those of all M side by side.
scratch    the control: small models from M random beginnings, which have no common origin.
one_origin those small models from one random beginning: it is the origin that counts, and not the size or the steps.
hard, batch, all    one model each: the loss against hard negatives alone, the batch's documents alone, and both with
           the other queries.

``points`` is the mean of STS-B (Spearman) and titles that find abstracts (nDCG@10), times 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from nextvec.methods.llama_embed_nemotron import LlamaEmbedNemotron
from nextvec.text_claims import Measured, Texts, TextScale, read_texts, scale_named, train, training_pairs, write_texts
from nextvec.types import Check, Claim, Run

_RATES = (0.5, 1.0, 2.0)  # of the scale's learning rate, in turn


@dataclass(frozen=True, kw_only=True)
class Scale(TextScale):
    """members: M; hard: H; scratch_steps, scratch_lr: of the models without a common origin."""

    members: int = 2
    hard: int = 2
    scratch_steps: int = 3
    scratch_lr: float = 1e-3


_CPU = Scale(
    base="all-MiniLM-L6-v2",
    steps=40,
    batch=16,
    lr=1e-4,
    train_length=32,
    eval_length=64,
    held=400,
    sts="benchmark",
    members=6,
    scratch_steps=300,
)
SCALES = {
    "smoke": Scale(),
    "cpu": _CPU,
    "gpu": replace(
        _CPU,
        steps=1000,
        batch=128,
        train_length=128,
        eval_length=256,
        papers="arxiv",
        document="abstract",
        held=2000,
        hard=4,
        scratch_steps=4000,
        device="auto",
    ),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    arms = {"merged": partial(_members, scale=scale), "scratch": partial(_members, scale=scale, scratch=True)}
    arms["one_origin"] = partial(_members, scale=scale, scratch=True, shared=True)
    arms |= {against: partial(_one, scale=scale, against=against) for against in ("hard", "batch", "all")}
    return Claim(
        statement="The average of six fine-tuned models is better than the best of them; without a common origin it is"
        " worse than the worst. Hard negatives alone are about as good as with the batch's documents.",
        arms=arms,
        checks=(
            Check(
                says="merged, six models are better than the best of them", better="merged.soup", worse="merged.best"
            ),
            Check(
                says="merged without a common origin they are worse than the worst of them (control)",
                better="scratch.worst",
                worse="scratch.soup",
            ),
            Check(
                says="merged from one random beginning they are better than the worst of them (control)",
                better="one_origin.soup",
                worse="one_origin.worst",
            ),
            Check(
                says="hard negatives alone lose less than a point to the batch's documents",
                better="hard.points",
                worse="batch.points",
                margin=-1.0,
            ),
            Check(
                says="hard negatives alone lose less than a point to all together",
                better="hard.points",
                worse="all.points",
                margin=-1.0,
            ),
        ),
        # MMTEB means of the paper: six members from 67.27 to 68.62; another, 1B model for the losses.
        paper={
            "merged.soup": 69.46,
            "merged.best": 68.62,
            "merged.worst": 67.27,
            "hard.points": 64.03,
            "all.points": 62.14,
        },
        prepare=partial(write_texts, scale=scale),
        config=asdict(scale),
    )


def _start(scale: Scale, texts: Texts, *, seed: int, against: str = "hard") -> LlamaEmbedNemotron:
    pairs = training_pairs(texts)
    config = LlamaEmbedNemotron.Config(
        base=scale.folder(),
        depth=2,
        vocab=600,
        seed=seed,
        hard=scale.hard,
        against=against,
        max_length=scale.train_length,
    )
    return LlamaEmbedNemotron.start(config, [*pairs.queries, *pairs.documents])


def _one(run: Run, *, scale: Scale, against: str) -> Mapping[str, float]:
    """One model with its measures."""
    texts = read_texts(run.shared)
    pairs = training_pairs(texts)
    method = _start(scale, texts, seed=run.seed, against=against)
    hard = method.mine(pairs, scale.hard, seed=run.seed)
    train(method, method.source(pairs, batch=scale.batch, seed=run.seed, hard=hard), scale, run)
    found = Measured(method.vectors, method.text_tokenizer(), texts, scale).points()
    return {**found, "points": _mean(found)}


def _members(run: Run, *, scale: Scale, scratch: bool = False, shared: bool = False) -> Mapping[str, float]:
    """M models, their average and their ensemble."""
    texts = read_texts(run.shared)
    pairs = training_pairs(texts)
    own = replace(scale, base="tiny", steps=scale.scratch_steps, lr=scale.scratch_lr) if scratch else scale
    base = _start(own, texts, seed=run.seed)
    hard = base.mine(pairs, own.hard, seed=run.seed)  # once: all members learn from the same hard negatives
    members, vectors, points = [], [], []
    for m in range(own.members):
        method = _start(own, texts, seed=run.seed * own.members + m if scratch and not shared else run.seed)
        half = np.random.default_rng([run.seed, m]).permutation(len(pairs))[: len(pairs) // 2]
        at = replace(own, lr=own.lr * _RATES[m % len(_RATES)])
        train(
            method,
            method.source(pairs, batch=own.batch, seed=run.seed * own.members + m, hard=hard, rows=half),
            at,
            run,
            name=f"member{m}",
            done=m * own.steps,
            total=own.members * own.steps,
        )
        measured = Measured(method.vectors, method.text_tokenizer(), texts, own)
        members.append(method)
        vectors.append(measured)
        points.append(_mean(measured.points()))
    merged = LlamaEmbedNemotron.merge(members)
    whole = Measured(merged.vectors, merged.text_tokenizer(), texts, own).points()
    return {
        "soup": _mean(whole),
        "best": max(points),
        "worst": min(points),
        "member": float(np.mean(points)),
        "ensemble": _mean(Measured.beside(vectors).points()),
        "soup_sts": whole["sts"],
        "soup_ndcg": whole["ndcg"],
    }


def _mean(points: Mapping[str, Any]) -> float:
    return float(points["sts"] + points["ndcg"]) / 2
