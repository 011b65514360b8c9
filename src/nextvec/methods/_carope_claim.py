"""The claim of CARoPE: perplexity on real text at the length of training, at twice and at four times that.

rope, learned, sinusoidal, alibi   the schemes it is compared with
constant                           CARoPE without context: a trained base per head (control)
carope                             the method

All have the same shape, data, order of data and steps. The texts to measure on are pieces of four times the length of
training; ``ppl_1`` is the perplexity of their tokens read in pieces of that length, ``ppl_2`` and ``ppl_4`` in pieces
two and four times as long; ``nats`` is its logarithm. Learned positions end at the length of training. ``beyond_2``,
``beyond_4``: the perplexity of those tokens alone that stand beyond the length of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nextvec.language_claims import LanguageScale, packed, pieces, token_losses, train, vocabulary, write_tokens
from nextvec.methods.carope import Carope
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, Run

ARMS = {
    "rope": "rope",
    "learned": "learned",
    "sinusoidal": "sinusoidal",
    "alibi": "alibi",
    "constant": "carope_constant",
    "carope": "carope",
}
TIMES = (1, 2, 4)
_ENDS = ("learned",)  # schemes that cannot place a token beyond the length of training


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """tests: pieces to measure on, at most."""

    tests: int = 20


_CPU = Scale(
    abstracts=12_000, vocab=4096, length=64, dim=96, layers=3, heads=3, steps=800, batch=32, lr=2e-3, tests=300
)
SCALES = {
    "smoke": Scale(),
    "cpu": _CPU,
    "gpu": replace(
        _CPU, abstracts=50_000, length=128, dim=512, layers=6, heads=8, steps=20_000, batch=256, device="auto"
    ),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="Context-aware rotary positions are as good as RoPE at the length of training, and far better beyond"
        " it. The paper's figures are those of its tiny model (44M), at 512 and 1,024 tokens. An independent comparison"
        " (CurvBias, on WikiText-103) found CARoPE worse than RoPE: 57.2 against 53.4 with 14M weights, 40.7 against"
        " 38.9 with 77M.",
        arms={arm: partial(_arm, positions=positions, scale=scale) for arm, positions in ARMS.items()},
        checks=(
            Check(
                says="within the length of training it is as good as RoPE (1 % is given)",
                better="rope.nats_1",
                worse="carope.nats_1",
                margin=-0.01,
            ),
            Check(says="at twice the length it is better than RoPE", better="rope.nats_2", worse="carope.nats_2"),
            Check(says="at four times the length too", better="rope.nats_4", worse="carope.nats_4"),
            Check(
                says="by a third of the perplexity or more, at four times",
                better="rope.nats_4",
                worse="carope.nats_4",
                margin=float(np.log(1.5)),
            ),
            Check(
                says="context does it, not a trained base (control), at four times",
                better="constant.nats_4",
                worse="carope.nats_4",
            ),
            Check(says="and better than ALiBi, at four times", better="alibi.nats_4", worse="carope.nats_4"),
        ),
        paper={
            "rope.ppl_1": 29.33,
            "rope.ppl_2": 81.27,
            "carope.ppl_1": 28.99,
            "carope.ppl_2": 36.74,
            "learned.ppl_1": 30.48,
            "sinusoidal.ppl_1": 30.62,
            "sinusoidal.ppl_2": 223.28,
        },
        prepare=partial(_prepare, scale=scale),
        config=asdict(scale),
    )


def _prepare(shared: Path, *, scale: Scale) -> None:
    write_tokens(shared, count=scale.abstracts, vocab=scale.vocab)


def _arm(run: Run, *, positions: str, scale: Scale) -> Mapping[str, float]:
    torch.manual_seed(run.seed)
    method = Carope(Carope.Config(vocab=vocabulary(run.shared), positions=positions, **scale.shape()))
    train(method, packed(run.shared, scale, run.seed), scale, run)
    length = scale.length
    ids = pieces(run.shared, 4 * length, most=scale.tests)
    measures: dict[str, float] = {}
    for times in TIMES:
        if times > 1 and positions in _ENDS:
            continue
        losses = token_losses(method, ids.reshape(-1, times * length))
        measures |= {f"nats_{times}": float(losses.mean()), f"ppl_{times}": float(np.exp(losses.mean()))}
        if times > 1:
            measures[f"beyond_{times}"] = float(np.exp(losses[:, length:].mean()))
    return measures
