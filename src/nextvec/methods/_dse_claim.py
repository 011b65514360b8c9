"""The claim of DSE: a cross-encoder on pairs of sentences, and students that read each sentence alone.

The pairs are those of the STS Benchmark (train to learn from, test to measure on); at smoke scale, titles whose shared
words are the score. All students have the teacher's base, steps and batches.

teacher            the cross-encoder
labels, half, taught      alpha = 0, 0.5, 1
cosine             alpha = 0.5, the cosine in place of the head
one_layer          alpha = 0.5, psi of the last layer alone

``score`` is Spearman's correlation of the logits with people's scores, times 100. ``faster``: of one sentence against
many stored ones, the time of the cross-encoder over the student's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nextvec.data.judged import JudgedPairs
from nextvec.data.sts import sts_benchmark
from nextvec.evaluate.sts import spearman
from nextvec.files import atomic_write
from nextvec.methods.dse import Dse
from nextvec.text_claims import TextScale, read_texts, scale_named, train, write_texts
from nextvec.types import Check, Claim, Run

STUDENTS: Mapping[str, Mapping[str, Any]] = {
    "labels": {"alpha": 0.0},
    "half": {"alpha": 0.5},
    "taught": {"alpha": 1.0},
    "cosine": {"alpha": 0.5, "head": "cosine"},
    "one_layer": {"alpha": 0.5, "last": 1},
}


@dataclass(frozen=True, kw_only=True)
class Scale(TextScale):
    """depth, vocab: of a random base; hidden: of the head; stored: sentences that one is compared with."""

    depth: int = 2
    vocab: int = 600
    hidden: int = 32
    stored: int = 50


_CPU = Scale(
    base="all-MiniLM-L6-v2", steps=150, batch=16, lr=1e-4, train_length=40, sts="benchmark", hidden=512, stored=1000
)
SCALES = {
    "smoke": Scale(),
    "cpu": _CPU,
    "gpu": replace(_CPU, steps=2000, batch=32, train_length=128, stored=10_000, device="auto"),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="A student that follows a cross-encoder's logits is better than one that learns from the labels"
        " alone, and compares one sentence with many stored ones far faster than the cross-encoder.",
        arms={
            "teacher": partial(_teacher, scale=scale),
            **{student: partial(_student, student=student, scale=scale) for student in STUDENTS},
        },
        checks=(
            Check(says="the teacher helps", better="half.score", worse="labels.score"),
            Check(
                says="labels and teacher are better than the teacher alone", better="half.score", worse="taught.score"
            ),
            Check(says="the head is better than the cosine", better="half.score", worse="cosine.score"),
            Check(says="four layers are better than one", better="half.score", worse="one_layer.score"),
            Check(says="the teacher is better than its students", better="teacher.score", worse="half.score"),
            Check(
                says="a student compares one sentence with stored ones 100 times as fast",
                better="half.faster",
                worse=100.0 if name != "smoke" else 1.0,
            ),
        ),
        prepare=partial(_prepare, scale=scale),
        config=asdict(scale),
    )


def _prepare(shared: Path, *, scale: Scale) -> None:
    """Make pairs.json: first, second and score of both parts."""
    if scale.sts == "benchmark":
        parts = {part: sts_benchmark(part) for part in ("train", "test")}
        made = {
            part: [list(own.first), list(own.second), [float(score) for score in own.scores]]
            for part, own in parts.items()
        }
    else:
        write_texts(shared, scale=scale)
        rows = read_texts(shared)["sts"]
        made = {"train": [list(side) for side in zip(*rows, strict=True)]}
        made["test"] = made["train"]
    with atomic_write(shared / "pairs.json", "w") as stream:
        json.dump(made, stream, ensure_ascii=False)


def _read(shared: Path, part: str) -> JudgedPairs:
    first, second, scores = json.loads((shared / "pairs.json").read_text(encoding="utf-8"))[part]
    return JudgedPairs(first, second, np.array(scores, np.float32), "score")


def _settings(run: Run, scale: Scale, **own: Any) -> Dse.Config:
    return Dse.Config(
        base=scale.folder(),
        depth=scale.depth,
        vocab=scale.vocab,
        seed=run.seed,
        max_length=scale.train_length,
        kind="score",
        hidden=scale.hidden,
        teacher_steps=scale.steps,
        teacher_lr=scale.lr,
        **own,
    )


def _teacher(run: Run, *, scale: Scale) -> Mapping[str, float]:
    learned, tests = _read(run.shared, "train"), _read(run.shared, "test")
    teacher = Dse.teacher(learned, _settings(run, scale), batch=scale.batch)
    return {"score": 100 * spearman(teacher.logits(tests)[:, 0], tests.label)}


def _student(run: Run, *, student: str, scale: Scale) -> Mapping[str, float]:
    learned, tests = _read(run.shared, "train"), _read(run.shared, "test")
    config = _settings(run, scale, **STUDENTS[student])
    # Every arm has a process of its own: the teacher of a seed is trained anew, to the same weights.
    taught = Dse.teacher(learned, config, batch=scale.batch).logits(learned) if config.alpha else None
    method = Dse.start(config, [*learned.first, *learned.second])
    method.begin(learned)
    train(method, method.judged(learned, taught, batch=scale.batch, seed=run.seed), scale, run)
    score = 100 * spearman(method.score(method.encode(tests.first), method.encode(tests.second))[:, 0], tests.label)
    found = {"score": score}
    return {**found, "faster": _faster(method, tests, scale)} if student == "half" else found


def _faster(method: Dse, tests: JudgedPairs, scale: Scale) -> float:
    """How many times as long an (untrained) cross-encoder takes for one sentence against ``stored`` ones."""
    stored = [tests.second[i % len(tests)] for i in range(scale.stored)]
    pairs = JudgedPairs([tests.first[0]] * len(stored), stored, np.arange(len(stored), dtype=np.float32), "score")
    teacher = Dse.teacher(pairs, replace(method.config, teacher_steps=1), batch=8)
    kept = method.encode(stored)
    seconds = []
    ways: list[Callable[[], object]] = [
        lambda: teacher.logits(pairs),
        lambda: method.score(method.encode(tests.first[:1]), kept),
    ]
    for compare in ways:
        compare()
        took = []
        for _ in range(3):
            start = time.perf_counter()
            compare()
            took.append(time.perf_counter() - start)
        seconds.append(min(took))
    return seconds[0] / seconds[1]
