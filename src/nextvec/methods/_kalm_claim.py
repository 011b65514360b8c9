"""The claim of KaLM-Embedding-V2: what each ingredient adds in the contrastive training of a small encoder.

All arms train the same small random transformer on titles and first sentences with two hard negatives that the teacher
mined. ``plain`` is InfoNCE; ``all`` has everything; ``no_focal``, ``no_mixing`` and ``no_kl`` lack one ingredient each,
and ``kl_only`` follows the teacher without a contrastive loss: the paper's ablations. ``points`` is the mean of STS-B
(Spearman) and titles that find abstracts (nDCG@10), times 100; ``soup`` of ``all`` the same of the average of its last
three checkpoints, which the paper's first version has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from nextvec.data.mining import mine_pairs
from nextvec.engine.soup import soup
from nextvec.files import atomic_write
from nextvec.methods.kalm import Kalm, taught_columns, teach
from nextvec.text_claims import Measured, TextScale, read_texts, scale_named, train, training_pairs, write_texts
from nextvec.text_method import minilm
from nextvec.types import Check, Claim, Run

_FOCAL, _MIXING, _KL = {"gamma": 0.5}, {"pairs": 2, "whole": True}, {"distil": 1.0}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "all": {**_FOCAL, **_MIXING, **_KL},
    "no_focal": {**_MIXING, **_KL},
    "no_mixing": {**_FOCAL, **_KL},
    "no_kl": {**_FOCAL, **_MIXING},
    "kl_only": {**_KL, "contrast": 0.0},
}
_CHECKPOINTS = (0.8, 0.9, 1.0)  # parts of the steps after which the weights are averaged
_NOTHING = {"gamma": 0.0, "pairs": 0, "whole": False, "distil": 0.0, "contrast": 1.0}


@dataclass(frozen=True, kw_only=True)
class Scale(TextScale):
    """teacher: "nextvec-mini" or "all-MiniLM-L6-v2"; depth, vocab: of the student; hard: H."""

    teacher: str = "nextvec-mini"
    depth: int = 2
    vocab: int = 600
    hard: int = 2


_CPU = Scale(
    teacher="all-MiniLM-L6-v2",
    vocab=4096,
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
        hard=7,
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
    scale = scale_named(SCALES, name)
    return Claim(
        statement="Following a larger encoder is the largest gain over plain contrastive training; focal weights and"
        " mixed hard negatives each add a little; together they are best.",
        arms={arm: partial(_arm, arm=arm, scale=scale) for arm in ARMS},
        checks=(
            Check(says="all together are better than plain training", better="all.points", worse="plain.points"),
            Check(says="the teacher helps", better="all.points", worse="no_kl.points"),
            Check(says="focal weights help", better="all.points", worse="no_focal.points"),
            Check(says="mixed negatives help", better="all.points", worse="no_mixing.points"),
            Check(
                says="the average of the last checkpoints helps",
                better="all.soup",
                worse="all.points",
            ),
            Check(says="the contrastive loss helps the teacher's", better="all.points", worse="kl_only.points"),
            Check(says="the teacher helps more than focal weights", better="no_focal.points", worse="no_kl.points"),
            Check(says="the teacher helps more than mixed negatives", better="no_mixing.points", worse="no_kl.points"),
        ),
        # Means over Chinese MTEB tasks in the paper's ablations of the last stage.
        paper={
            "all.points": 70.93,
            "no_focal.points": 69.41,
            "no_mixing.points": 70.54,
            "no_kl.points": 68.31,
            "kl_only.points": 70.72,
        },
        prepare=partial(_prepare, scale=scale),
        config=asdict(scale),
    )


def _prepare(shared: Path, *, scale: Scale) -> None:
    """The texts, the teacher's vectors of those to learn from, and the hard negatives that it finds."""
    write_texts(shared, scale=scale)
    pairs = training_pairs(read_texts(shared))
    taught = teach(minilm() if scale.teacher == "all-MiniLM-L6-v2" else scale.teacher, pairs)
    hard = mine_pairs(taught["query"], taught["document"], pairs, scale.hard, seed=0)
    with atomic_write(shared / "teacher.npz") as stream:
        np.savez(stream, hard=hard, query=taught["query"], document=taught["document"])


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    texts = read_texts(run.shared)
    pairs = training_pairs(texts)
    with np.load(run.shared / "teacher.npz", allow_pickle=False) as kept:
        hard, taught = kept["hard"], {name: kept[name] for name in ("query", "document")}
    own = {**_NOTHING, **ARMS[arm]}
    config = Kalm.Config(
        base=scale.folder(),
        depth=scale.depth,
        vocab=scale.vocab,
        seed=run.seed,
        hard=scale.hard,
        max_length=scale.train_length,
        teacher=scale.teacher if own["distil"] else "",
        **own,
    )
    method = Kalm.start(config, [*pairs.queries, *pairs.documents])
    extra = taught_columns(taught, hard) if own["distil"] else None
    source = method.source(pairs, batch=scale.batch, seed=run.seed, hard=hard, extra=extra)
    steps = [max(round(share * scale.steps), 1) for share in _CHECKPOINTS]

    def keep(step: int) -> None:
        if arm == "all" and step in steps:
            save_file(method.state_dict(), run.folder / f"step-{step}.safetensors")

    train(method, source, scale, run, after=keep)

    def points() -> dict[str, float]:
        found = Measured(method.vectors, method.text_tokenizer(), texts, scale).points()
        return {**found, "points": (found["sts"] + found["ndcg"]) / 2}

    found = points()
    if arm == "all":
        kept = [load_file(run.folder / f"step-{step}.safetensors") for step in dict.fromkeys(steps)]
        method.load_state_dict(soup(kept))
        found["soup"] = points()["points"]
    return found
