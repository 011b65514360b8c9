"""What a method's extra parts cost: a training step beside one of plain next-token training of the same backbone.

    python benchmarks/method_overhead.py --out benchmarks/out/method_overhead.json

One process, in alternation (a round runs every method once, in an order that rotates), random tokens, the same batches.
What is compared is the ratio of a method's time per step to the plain one's in the same round: median and range over
the rounds; beside it the ratio of their floating-point operations, where the method says how many it makes. Chains of
thought are compared with explicit chains on the same questions. ``--clock cpu`` counts the process's CPU seconds in
place of wall time, for a machine that others use at the same time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _arms import machine, write
from nextvec.data.sources import Source
from nextvec.data.synthetic.arithmetic import arithmetic
from nextvec.data.tokenfile import PackedTokens
from nextvec.engine.accumulate import backward
from nextvec.engine.method import Method
from nextvec.engine.optim import OptimConfig, make_optimizer
from nextvec.engine.parallel import Parallel
from nextvec.methods.carope import Carope
from nextvec.methods.colar import Colar
from nextvec.methods.frozen_glyphs import FrozenGlyphs
from nextvec.methods.future_token import FutureToken
from nextvec.methods.nextlat import NextLat
from nextvec.types import Ragged

SHAPE: dict[str, Any] = {"dim": 256, "layers": 4, "heads": 4, "length": 128}
VOCAB = 4096
PLAIN, CHAINS = "next token", "explicit chains"


def methods() -> dict[str, tuple[Method, str]]:
    """By name: the method, and what it is compared with."""
    text = SHAPE | {"vocab": VOCAB}
    made: dict[str, tuple[Method, str]] = {PLAIN: (Carope(Carope.Config(positions="rope", **text)), PLAIN)}
    for positions in ("carope", "alibi"):
        made[positions] = (Carope(Carope.Config(positions=positions, **text)), PLAIN)
    for horizon in (1, 4):
        made[f"nextlat d={horizon}"] = (NextLat(NextLat.Config(horizon=horizon, **text)), PLAIN)
    made["future_token N=8, one in 8"] = (FutureToken(FutureToken.Config(every=8, pseudo=4, **text)), PLAIN)
    frozen = FrozenGlyphs(FrozenGlyphs.Config(table="random", **text)).fill([""] * VOCAB, seed=0)
    made["frozen_glyphs"] = (frozen, PLAIN)
    made[CHAINS] = (Colar.start(Colar.Config(most=1, latent=0.0, **SHAPE), seed=0), CHAINS)
    made["colar, c = 1 to 5"] = (Colar.start(Colar.Config(**SHAPE), seed=0), CHAINS)
    return made


def source_of(method: Method, tokens: int) -> Source:
    """Batches for ``method``."""
    random = np.random.default_rng(0)
    if isinstance(method, Colar):
        return method.source(arithmetic(random, 512, least=3, most=6), batch=tokens // 48, seed=0)
    ids = torch.from_numpy(random.integers(0, VOCAB, size=64 * tokens))
    lengths = torch.full((len(ids) // 128,), 128)
    return PackedTokens(Ragged(ids, lengths), tokens=tokens, length=128, seed=0)


def stepper(method: Method, tokens: int) -> Callable[[int], None]:
    """A function that makes one step: batch, forward, loss, backward, optimiser."""
    source, objective, parallel = source_of(method, tokens), method.objective(), Parallel(method)
    optimiser = make_optimizer(method.named_parameters(), OptimConfig(lr=1e-4))

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
    made = methods()
    steps = {name: stepper(method, options.tokens) for name, (method, _) in made.items()}
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
    rows = {}
    for name, (method, beside) in made.items():
        ratios = [one / other for one, other in zip(times[name], times[beside], strict=True)]
        own, plain = (one.flops_per_item() for one in (method, made[beside][0]))
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
