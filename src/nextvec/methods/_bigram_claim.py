"""The claim of bigram subnetworks on a small language model of abstracts, trained here.

trained      masks over the trained model
untrained    masks over the same model before its training (control)

A subnetwork is found with each of several penalties; what is reported is that of the fewest weights whose surprisals
correlate with the table's by 0.95 or more, or, where none does, the one that correlates best. Which it is, is decided
on every second text to measure on, and what it is measured on the others. See
``BigramSubnetworks.measure``; ``first``: percent of the kept weights that are in the first feed-forward layer;
``second``: the largest percent of any other layer, attention or feed-forward.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from nextvec.arms import arm_config, fit_arm
from nextvec.data.tokenfile import TokenFile
from nextvec.language_claims import LanguageScale, packed, pieces, train, vocabulary, write_tokens
from nextvec.methods._bigram_parts import BigramTable, Causal
from nextvec.methods.bigram_subnetworks import BigramSubnetworks
from nextvec.methods.carope import Carope
from nextvec.text_claims import scale_named
from nextvec.types import Check, Claim, InputError, Ragged, Run

Measures = Mapping[str, float]

ARMS = ("trained", "untrained")
_ENOUGH = 0.95


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """penalties: that are tried; mask_steps, mask_lr: of the masks; sharp: beta at the end; tests: pieces to decide
    and to measure on, at most."""

    penalties: tuple[float, ...] = (1.0,)
    mask_steps: int = 6
    mask_lr: float = 0.05
    sharp: float = 100.0
    tests: int = 20


_CPU = Scale(
    abstracts=12_000,
    vocab=1024,
    length=64,
    dim=128,
    layers=3,
    heads=4,
    steps=800,
    batch=32,
    lr=2e-3,
    penalties=(1.0, 5.0, 20.0),
    mask_steps=1000,
    tests=400,
)
SCALES = {
    "smoke": Scale(),
    "cpu": _CPU,
    "gpu": replace(
        _CPU, abstracts=50_000, length=128, vocab=4096, dim=512, layers=8, heads=8, steps=20_000, batch=128,
        penalties=(0.0, 1.0, 5.0, 10.0, 50.0, 100.0), mask_steps=4000, mask_lr=0.01, device="auto",
    ),
}  # fmt: skip


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="A few per cent of a language model's weights predict as a bigram table does; most are in the first"
        " feed-forward layer; the model needs them more than as many others. The paper's figures are Pythia-70M's.",
        arms={arm: partial(_arm, arm=arm, scale=scale) for arm in ARMS},
        checks=(
            Check(says="its surprisals correlate with the table's above 0.95", better="trained.r", worse=_ENOUGH),
            Check(says="more than the model's own do", better="trained.r", worse="trained.r_full"),
            Check(says="a fifth of the weights or less will do", better="trained.pruned", worse=80.0),
            Check(
                says="the first feed-forward layer has more of them than any other layer",
                better="trained.first",
                worse="trained.second",
            ),
            Check(
                says="without them the model is worse than without as many others",
                better="trained.loss_without",
                worse="trained.loss_random",
            ),
            Check(says="in an untrained model none is as good (control)", better="trained.r", worse="untrained.r"),
        ),
        paper={"trained.r": 0.961, "trained.r_full": 0.737, "trained.active": 15.0},
        prepare=partial(_prepare, scale=scale),
        config=asdict(scale),
    )


def _prepare(shared: Path, *, scale: Scale) -> None:
    write_tokens(shared, count=scale.abstracts, vocab=scale.vocab)


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    vocab = vocabulary(run.shared)
    torch.manual_seed(run.seed)
    model = Carope(Carope.Config(vocab=vocab, positions="rope", activation="gelu", **scale.shape()))
    if arm == "trained":
        train(model, packed(run.shared, scale, run.seed), scale, run)
    file = TokenFile.open(run.shared / "train.bin")
    table = BigramTable.of((file.document(i) for i in range(len(file))), vocab)
    ids = pieces(run.shared, scale.length, most=scale.tests)
    if len(ids) < 2:
        raise InputError("one text to measure on; expected two or more: one half decides between the penalties")
    halves = [
        Ragged(torch.from_numpy(half).flatten(), torch.full((len(half),), scale.length))
        for half in (ids[::2], ids[1::2])
    ]
    found = []
    for i, penalty in enumerate(scale.penalties):
        config = BigramSubnetworks.Config(
            penalty=penalty, growth=scale.sharp ** (1 / scale.mask_steps), length=scale.length, seed=run.seed
        )
        method = BigramSubnetworks.of(Causal(model.backbone), table, config)
        _learn(method, scale, run, name=f"masks-{i}")
        device = next(method.parameters()).device
        decides, measures = (method.measure(half.to(device)) for half in halves)
        own = {name: value for name, value in measures.items() if not name.startswith("part_")}
        own |= {"penalty": penalty, "pruned": 100 - measures["active"], **_layers(method, measures)}
        found.append((decides, own))
    return _best(found)


def _best(found: Sequence[tuple[Measures, Measures]]) -> Measures:
    """Of what was measured on texts that decide and on others, for every penalty, the latter of the one to report."""
    enough = [one for one in found if one[0]["r"] >= _ENOUGH]
    if enough:
        return min(enough, key=lambda one: one[0]["active"])[1]
    return max(found, key=lambda one: one[0]["r"])[1]


def _learn(method: BigramSubnetworks, scale: Scale, run: Run, *, name: str) -> None:
    config = arm_config(
        steps=scale.mask_steps,
        batch=scale.batch,
        lr=scale.mask_lr,
        seed=run.seed,
        weight_decay=0.0,
        schedule="constant",
    )
    fit_arm(method, packed(run.shared, scale, run.seed + 1), config, run, device=scale.device, name=name)


def _layers(method: BigramSubnetworks, measures: Mapping[str, float]) -> dict[str, float]:
    """``first`` and ``second`` from the shares of the matrices."""
    shares: dict[tuple[str, str], float] = defaultdict(float)
    for i, name in enumerate(method.names):  # body.blocks.0.qkv.weight
        _, _, block, matrix, _ = name.split(".")
        shares[(block, "attention" if matrix in ("qkv", "out") else "feed-forward")] += measures[f"part_{i}"]
    first = shares.pop(("0", "feed-forward"))
    return {"first": first, "second": max(shares.values())}
