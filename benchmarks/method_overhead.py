"""What a method's extra parts cost: a training step beside one of plain next-token training of the same backbone.

    python benchmarks/method_overhead.py --out benchmarks/out/method_overhead.json

One process, in alternation (a round runs every method once, in an order that rotates), random tokens, the same batches.
What is compared is the ratio of a method's time per step to the plain one's in the same round: median and range over
the rounds; beside it the ratio of their floating-point operations, where the method says how many it makes. Chains of
thought are compared with explicit chains on the same questions, and what reads no plain text (images, records, words'
bytes) with the same model without what the method adds. ``--clock cpu`` counts the process's CPU seconds in
place of wall time, for a machine that others use at the same time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _arms import machine, write
from nextvec.data.sources import Shuffled, Source
from nextvec.data.synthetic.arithmetic import arithmetic
from nextvec.data.synthetic.grids import grids
from nextvec.data.synthetic.patients import simulate
from nextvec.data.tokenfile import PackedTokens
from nextvec.engine.accumulate import backward
from nextvec.engine.method import Method
from nextvec.engine.optim import OptimConfig, make_optimizer
from nextvec.engine.parallel import Parallel
from nextvec.methods._swimbird_parts import Example
from nextvec.methods.byte2word import Byte2Word
from nextvec.methods.carope import Carope
from nextvec.methods.colar import Colar
from nextvec.methods.ernie_gram import ErnieGram
from nextvec.methods.frozen_glyphs import FrozenGlyphs
from nextvec.methods.future_token import FutureToken
from nextvec.methods.nepa import Nepa
from nextvec.methods.nextlat import NextLat
from nextvec.methods.sentence_prediction import SentencePrediction
from nextvec.methods.smb_structure import SmbStructure
from nextvec.methods.swimbird import SwimBird
from nextvec.types import Ragged

SHAPE: dict[str, Any] = {"dim": 256, "layers": 4, "heads": 4, "length": 128}
VOCAB = 4096
PLAIN, CHAINS = "next token", "explicit chains"


@dataclass(frozen=True)
class Arm:
    """A method, the name of the one that it is compared with, and what it learns from."""

    method: Method
    beside: str
    source: Source


def tokens_source(tokens: int, length: int) -> Source:
    """Random tokens in rows of ``length``."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, VOCAB, size=64 * tokens))
    return PackedTokens(Ragged(ids, torch.full((len(ids) // length,), length)), tokens=tokens, length=length, seed=0)


def arms(tokens: int) -> dict[str, Arm]:
    """By name, in the order of the table; steps of about ``tokens`` tokens."""
    return language_arms(tokens) | chain_arms(tokens) | other_arms(tokens)


def language_arms(tokens: int) -> dict[str, Arm]:
    """Methods that read plain text, beside next-token training of the same backbone."""
    text = SHAPE | {"vocab": VOCAB}
    made: dict[str, Method] = {PLAIN: Carope(Carope.Config(positions="rope", **text))}
    for positions in ("carope", "alibi"):
        made[positions] = Carope(Carope.Config(positions=positions, **text))
    for horizon in (1, 4):
        made[f"nextlat d={horizon}"] = NextLat(NextLat.Config(horizon=horizon, **text))
    made["future_token N=8, one in 8"] = FutureToken(FutureToken.Config(every=8, pseudo=4, **text))
    made["frozen_glyphs"] = FrozenGlyphs(FrozenGlyphs.Config(table="random", **text)).fill([""] * VOCAB, seed=0)
    source = tokens_source(tokens, SHAPE["length"])
    return {name: Arm(method, PLAIN, source) for name, method in made.items()}


def chain_arms(tokens: int) -> dict[str, Arm]:
    """Methods that think in latents, beside explicit chains of the same questions."""
    chains = arithmetic(np.random.default_rng(0), 512, least=3, most=6)
    made: dict[str, Arm] = {}
    settings: dict[str, dict[str, Any]] = {CHAINS: {"most": 1, "latent": 0.0}, "colar, c = 1 to 5": {}}
    for name, changes in settings.items():
        colar = Colar.start(Colar.Config(**SHAPE, **changes), seed=0)
        made[name] = Arm(colar, CHAINS, colar.source(chains, batch=tokens // 48, seed=0))
    long = SHAPE | {"length": 256}
    for stage in ("tokens", "latent"):
        sentences = SentencePrediction.start(SentencePrediction.Config(stage=stage, **long), seed=0)
        source = sentences.source(chains, batch=tokens // 48, seed=0)
        made[f"sentence_prediction, {stage}"] = Arm(sentences, "sentence_prediction, tokens", source)
    return made


def other_arms(tokens: int) -> dict[str, Arm]:
    """Methods that read something else, beside the same model without what the method adds."""
    random = np.random.default_rng(0)
    places = SHAPE | {"length": 64, "vocab": VOCAB}
    short = "next token, 64 places"
    images = torch.from_numpy(random.integers(0, 256, (512, 32, 32, 3), dtype=np.uint8))
    made = {
        short: Arm(Carope(Carope.Config(positions="rope", **places)), short, tokens_source(tokens, 64)),
        "nepa": Arm(
            Nepa(Nepa.Config(dim=SHAPE["dim"])), short, Shuffled({"image": images}, batch=tokens // 64, seed=0)
        ),
    }
    patients = [one.patient for one in simulate(random, 256, least=6, most=12)]
    for name, latent in (("records, codes alone", 0.0), ("smb_structure", 1.0)):
        smb = SmbStructure.start(patients, SmbStructure.Config(latent=latent, **SHAPE), seed=0)
        made[name] = Arm(smb, "records, codes alone", smb.source(patients, batch=tokens // 128, seed=0))
    examples = [Example((q.text, q.pictures[0]), tuple(q.pictures[1:]), q.answer) for q in grids(random, 256, side=8)]
    for name, vision in (("swimbird, words alone learned", 0.0), ("swimbird", 0.2)):
        swimbird = SwimBird.start(SwimBird.Config(vision=vision, **SHAPE), seed=0)
        made[name] = Arm(
            swimbird, "swimbird, words alone learned", swimbird.source(examples, batch=tokens // 128, seed=0)
        )
    words = [[f"w{i}" for i in random.integers(0, VOCAB, size=SHAPE["length"])] for _ in range(256)]
    for name, reads in (("a table of words", "table"), ("byte2word", "bytes")):
        torch.manual_seed(0)
        byte2word = Byte2Word.start(words, Byte2Word.Config(input=reads, **SHAPE))
        made[name] = Arm(byte2word, "a table of words", byte2word.source(words, batch=tokens // 128, seed=0))
    texts = random.integers(0, 200, size=(256, SHAPE["length"])).tolist()
    for kind in ("contiguous", "explicit", "comprehensive", "relation"):
        torch.manual_seed(0)
        config = ErnieGram.Config(kind=kind, vocab=VOCAB, pairs=2000, triples=1000, **SHAPE)
        ernie = ErnieGram.start(texts, config, mask=VOCAB - 1)
        source = ernie.source(texts, batch=tokens // 128, seed=0)
        made[f"ernie_gram, {kind}"] = Arm(ernie, "ernie_gram, contiguous", source)
    return made


def stepper(arm: Arm) -> Callable[[int], None]:
    """A function that makes one step: batch, forward, loss, backward, optimiser."""
    method, source = arm.method, arm.source
    objective, parallel = method.objective(), Parallel(method)
    trained = ((name, one) for name, one in method.named_parameters() if one.requires_grad)
    optimiser = make_optimizer(trained, OptimConfig(lr=1e-4))

    def step(number: int) -> None:
        backward(parallel, objective, [source.batch(number)])
        optimiser.step()
        optimiser.zero_grad()
        method.after_step(number + 1)

    return step


def main() -> None:
    """Parse arguments, run, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of a step")
    parser.add_argument("--steps", type=int, default=4, help="steps of a method in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    made = arms(options.tokens)
    steps = {name: stepper(arm) for name, arm in made.items()}
    for step in steps.values():  # warm-up
        step(0)
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for i in range(options.rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = clock()
            for number in range(options.steps):
                steps[name](1 + i * options.steps + number)
            times[name].append((clock() - start) / options.steps)
    rows: dict[str, dict[str, Any]] = {}
    for name, arm in made.items():
        beside = arm.beside
        ratios = [one / other for one, other in zip(times[name], times[beside], strict=True)]
        own, plain = (one.method.flops_per_item() for one in (arm, made[beside]))
        rows[name] = {
            "beside": beside,
            "seconds": statistics.median(times[name]),
            "time_ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
            "flops_ratio": own / plain if own and plain and beside == PLAIN else None,
        }
        flops = rows[name]["flops_ratio"]
        print(
            f"{name:28} {rows[name]['time_ratio']['median']:5.2f}x the time of {beside} "
            f"({min(ratios):.2f} to {max(ratios):.2f})" + ("" if flops is None else f", {flops:.2f}x the operations")
        )
    about = {
        "kind": "benchmark",
        "machine": machine(),
        "shape": SHAPE,
        "tokens": options.tokens,
        "clock": options.clock,
    }
    write(about | {"tokens": options.tokens, "methods": rows}, options.out)


if __name__ == "__main__":
    main()
