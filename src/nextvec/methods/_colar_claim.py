"""The claim of CoLaR on chained arithmetic, and on the equations of GSM8K where that set is at hand (gpu scale).

none        the answer alone, no chain (control)
explicit    the chain in tokens: the model that the others begin with
latent      the method, asked at c = 1, 2 and 5
mean        blocks are means, not sums over sqrt(c) (control)
rl          the method, then GRPO at c = 2, where a thought's log probability is divided by its terms
rl_sum      the same without that division (control)

right_C     answers that are right at c = C, in percent; ``length_C``: latents (or tokens of the chain) that were used;
            ``passes_C``: of the model, with its cache, for a question; ``mflops_C``: millions of operations of these;
            ``ms_C``: its time, all asked together
right, length, passes, mflops, ms      the same of none and explicit
left_out, left_out_tests      questions that are longer than the model reads, to learn from and to measure on
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nextvec.data.catalog import locate
from nextvec.data.reasoning import Chain, read_chains
from nextvec.data.synthetic.arithmetic import fresh_split
from nextvec.language_claims import LanguageScale, train
from nextvec.methods._colar_parts import flops
from nextvec.methods.colar import Colar
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, InputError, Run

ARMS = ("none", "explicit", "latent", "mean", "rl", "rl_sum")
FACTORS = (1, 2, 5)


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """chains: "arithmetic", "equations" (GSM8K's, without its words) or "sentences" (GSM8K's solutions in full); count:
    to learn from; tests: to measure on; least, operations: of a question of arithmetic; begin: steps of the explicit
    model; rl: steps of GRPO; budget, answer: latents, and tokens of an answer, at most."""

    chains: str = "arithmetic"
    count: int = 60
    tests: int = 20
    least: int = 2
    operations: int = 3
    begin: int = 4
    rl: int = 1
    rl_lr: float = 1e-5
    budget: int = 24
    answer: int = 8


_CPU = Scale(
    count=20_000,
    tests=300,
    least=2,
    operations=4,
    length=96,
    dim=128,
    layers=3,
    heads=4,
    begin=1500,
    steps=2000,
    batch=32,
    lr=2e-3,
    rl=400,
    rl_lr=1e-4,
    budget=40,
)
SCALES = {
    "smoke": replace(Scale(), length=96),
    "cpu": _CPU,
    "gpu": replace(
        _CPU, chains="equations", length=640, dim=512, layers=8, heads=8, begin=5_000, steps=5_000, batch=64, lr=1e-3,
        rl=400, budget=112, answer=12, device="auto",
    ),
}  # fmt: skip


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="Explicit chains are right most often, then latent ones at c = 2, then at c = 5, then none; a chain"
        " is as long as c says; sums over sqrt(c) beat means; GRPO shortens chains without loss, because a"
        " thought's log probability is divided by its terms. The paper's figures are Llama-3.2-1B's, averaged over four"
        " sets.",
        arms={arm: partial(_arm, arm=arm, scale=scale) for arm in ARMS},
        checks=(
            Check(
                says="an explicit chain is right more often than at c = 2",
                better="explicit.right",
                worse="latent.right_2",
            ),
            Check(says="c = 2 more often than c = 5", better="latent.right_2", worse="latent.right_5"),
            Check(says="c = 5 more often than no chain", better="latent.right_5", worse="none.right"),
            Check(
                says="at c = 5 a chain has a third of the length or less",
                better="explicit.length_third",
                worse="latent.length_5",
            ),
            Check(says="sums over sqrt(c) beat means, at c = 5", better="latent.right_5", worse="mean.right_5"),
            Check(says="GRPO shortens chains, at c = 2", better="latent.length_2", worse="rl.length_2"),
            Check(says="and loses two points or less", better="rl.right_2", worse="latent.right_2", margin=-2.0),
            Check(
                says="dividing a thought's log probability by its terms is what shortens chains (control)",
                better="rl_sum.length_2",
                worse="rl.length_2",
            ),
        ),
        paper={
            "explicit.right": 53.6,
            "explicit.length": 21.4,
            "latent.right_2": 48.8,
            "latent.length_2": 10.0,
            "latent.right_5": 41.7,
            "latent.length_5": 4.57,
            "mean.right_5": 38.3,
        },
        prepare=partial(_prepare, scale=scale),
        config=asdict(scale),
    )


def _chains(scale: Scale, seed: int) -> tuple[list[Chain], list[Chain]]:
    """To learn from, and to measure on."""
    if scale.chains == "equations":
        folder = locate("gsm8k")
        return read_chains(folder / "train.jsonl"), read_chains(folder / "test.jsonl")
    if scale.chains == "sentences":
        folder = locate("icot") / "data" / "gsm8k"
        return read_chains(folder / "train_no_aug.txt"), read_chains(folder / "test.txt")
    # The model that the arms begin with has learned from the questions of seed 0.
    return fresh_split(seed, scale.count, scale.tests, least=scale.least, most=scale.operations, before=(0,))


def _fitting(method: Colar, scale: Scale, seed: int) -> tuple[list[Chain], list[Chain], dict[str, float]]:
    """What ``_chains`` gives, without what is too long for the model, and how many that were: to learn from, a question
    with its steps and answer; to measure on, a question with the budget for both. InputError where nothing is left."""
    learned, tests = _chains(scale, seed)
    room = scale.length - scale.budget - scale.answer - 2
    fit = [chain for chain in learned if method.places(chain) <= scale.length]
    asked = [chain for chain in tests if len(method.prompt(chain.question, 1)) <= room]
    if not fit or not asked:
        raise InputError(f"of {len(learned)} and {len(tests)} questions none has room in {scale.length} tokens")
    left = {"left_out": float(len(learned) - len(fit)), "left_out_tests": float(len(tests) - len(asked))}
    return fit, asked, left


def _config(scale: Scale, **changes: Any) -> Any:
    return Colar.Config(**scale.shape(), activation="gelu", **changes)


def _prepare(shared: Path, *, scale: Scale) -> None:
    """The explicit model that the arms begin with."""
    method = Colar.start(_config(scale, most=1, latent=0.0), seed=0)
    learned, _, _ = _fitting(method, scale, 0)
    run = Run(seed=0, shared=shared, folder=shared, progress=lambda done, total: None)
    begin = replace(scale, steps=scale.begin)
    train(method, method.source(learned, batch=scale.batch, seed=0), begin, run)
    method.save(shared / "explicit")


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    plain = arm in ("none", "explicit")
    config = _config(
        scale,
        most=1 if plain else max(FACTORS),
        latent=0.0 if plain else 1.0,
        merge="mean" if arm == "mean" else "sqrt",
        start_from="" if arm == "none" else str(run.shared / "explicit"),
    )
    method = Colar.start(config, seed=run.seed)
    learned, tests, left = _fitting(method, scale, run.seed)
    source = method.source(learned, batch=scale.batch, seed=run.seed, steps=arm != "none")
    train(method, source, replace(scale, steps=scale.begin + scale.steps) if arm == "none" else scale, run)
    if arm in ("rl", "rl_sum"):
        options: dict[str, Any] = {"most": scale.budget, "answer": scale.answer, "average": arm == "rl"}
        method.reinforce(learned, steps=scale.rl, lr=scale.rl_lr, seed=run.seed, **options)
    if plain:
        found = _asked(method, tests, 1, scale)
        return {**found, "length_third": found["length"] / 3, **left}
    measures = [(factor, _asked(method, tests, factor, scale)) for factor in FACTORS]
    return {f"{name}_{factor}": value for factor, found in measures for name, value in found.items()} | left


def _asked(method: Colar, tests: list[Chain], factor: int, scale: Scale) -> dict[str, float]:
    """``right``, ``length``, ``passes``, ``mflops`` and ``ms``."""
    answers, thoughts = [], []
    begun = time.perf_counter()
    for start in range(0, len(tests), 100):
        some = tests[start : start + 100]
        found = method.answer(
            [chain.question for chain in some], factor=factor, budget=scale.budget, answer=scale.answer
        )
        answers += found[0]
        thoughts += found[1]
    seconds = time.perf_counter() - begun
    right = [answer == chain.answer for answer, chain in zip(answers, tests, strict=True)]
    prompts = [method.prompt(chain.question, factor) for chain in tests]
    operations = [flops(method, prompt, thought) for prompt, thought in zip(prompts, thoughts, strict=True)]
    return {
        "right": 100 * float(np.mean(right)),
        "length": float(np.mean([len(thought.tokens) - 1 for thought in thoughts])),
        "passes": float(np.mean([thought.passes for thought in thoughts])),
        "mflops": float(np.mean(operations)) / 1e6,
        "ms": 1000 * seconds / len(tests),
    }
