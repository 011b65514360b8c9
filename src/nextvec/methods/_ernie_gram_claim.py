"""The claim of ERNIE-Gram on a language of collocations whose choice depends on a text's topic. All topics have the
same tokens, in other pairs: what a text is about is in what stands together.

contiguous, explicit, comprehensive, relation      see ``methods/ernie_gram.py``; the same steps of the same texts
untrained                                          random weights (control)

topic       accuracy of logistic regression from a text's mean state to its topic, in percent
whole       hidden collocations that are restored whole, by the arm's own test, in percent
outside     of the attention that hidden places pay, the share that goes outside their own collocation, in percent
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.data.sources import ragged
from nextvec.data.synthetic.collocations import collocated
from nextvec.evaluate.labels import classify
from nextvec.language_claims import LanguageScale, train
from nextvec.methods._ernie_gram_parts import rows_of
from nextvec.methods.ernie_gram import KINDS, ErnieGram
from nextvec.nn.backbones.transformer import Block
from nextvec.text_claims import scale_named
from nextvec.types import Batch, Check, Claim, InputError, Ragged, Run

ARMS = (*KINDS, "untrained")


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """vocab: tokens; collocations, topics: of the language; units: of a text; texts: to learn from; tests: to measure
    on, and as many to fit the probe to."""

    collocations: int = 12
    topics: int = 3
    units: int = 8
    texts: int = 60
    tests: int = 30


_CPU = Scale(
    vocab=501,
    collocations=300,
    topics=10,
    units=24,
    texts=20_000,
    tests=1000,
    length=48,
    dim=128,
    layers=4,
    heads=4,
    steps=600,
    batch=32,
    lr=1e-3,
)
SCALES = {
    "smoke": replace(Scale(), vocab=40, length=24),
    "cpu": _CPU,
    "gpu": replace(_CPU, texts=200_000, dim=512, layers=8, heads=8, steps=20_000, batch=256, device="auto"),
}


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="Hiding n-grams whole teaches more of a text than hiding their tokens side by side; foretelling both"
        " is no worse, and a generator's n-grams help again; hidden places then look outside.",
        arms={arm: partial(_arm, arm=arm, scale=scale) for arm in ARMS},
        checks=(
            Check(says="explicit is better than contiguous", better="explicit.topic", worse="contiguous.topic"),
            Check(
                says="comprehensive is no worse than explicit (a point is given)",
                better="comprehensive.topic",
                worse="explicit.topic",
                margin=-1.0,
            ),
            Check(says="and better than contiguous", better="comprehensive.topic", worse="contiguous.topic"),
            Check(
                says="the generator does not harm (a point is given)",
                better="relation.topic",
                worse="comprehensive.topic",
                margin=-1.0,
            ),
            Check(says="hidden places look outside more", better="explicit.outside", worse="contiguous.outside"),
            Check(
                says="training teaches the topic at all (control)", better="contiguous.topic", worse="untrained.topic"
            ),
        ),
        config=asdict(scale),
    )


def _texts(scale: Scale, seed: int, count: int) -> tuple[list[list[int]], NDArray[np.int64]]:
    texts, labels = collocated(
        np.random.default_rng(seed),
        count,
        tokens=scale.vocab - 1,
        collocations=scale.collocations,
        topics=scale.topics,
        units=scale.units,
    )
    return [text[: scale.length] for text in texts], labels


def _arm(run: Run, *, arm: str, scale: Scale) -> Mapping[str, float]:
    learned, _ = _texts(scale, 2 * run.seed, scale.texts)
    config = ErnieGram.Config(
        kind="contiguous" if arm == "untrained" else arm,
        dim=scale.dim,
        layers=scale.layers,
        heads=scale.heads,
        vocab=scale.vocab,
        length=scale.length,
        pairs=scale.collocations,
        triples=0,
    )
    torch.manual_seed(run.seed)
    method = ErnieGram.start(learned, config, mask=scale.vocab - 1)
    if arm != "untrained":
        train(method, method.source(learned, batch=scale.batch, seed=run.seed), scale, run)
    method.eval()
    held, labels = _texts(scale, 2 * run.seed + 1, 2 * scale.tests)
    means = _means(method, held)
    guessed = classify(means[: scale.tests], labels[: scale.tests], means[scale.tests :])
    whole, outside = _hidden(method, held[: scale.tests])
    return {
        "topic": 100 * float((guessed == labels[scale.tests :]).mean()),
        "whole": whole,
        "outside": outside,
    }


def _means(method: ErnieGram, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    device = next(method.parameters()).device
    found = []
    for start in range(0, len(texts), 200):
        rows = ragged([list(text) for text in texts[start : start + 200]]).to(device)
        parts = torch.split(method.states(rows).float(), rows.lengths.tolist())
        found.append(torch.stack([part.mean(dim=0) for part in parts]).cpu().numpy())
    means: NDArray[np.float32] = np.concatenate(found)
    return means


@torch.no_grad()
def _hidden(method: ErnieGram, texts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """``whole`` and ``outside`` over the collocations that are hidden in these texts."""
    device = str(next(method.parameters()).device)
    masker = method.masker()
    right = count = 0
    shares: list[float] = []
    for start in range(0, len(texts), 200):
        rows = ragged([list(text) for text in texts[start : start + 200]])
        batch = masker(Batch({"text": rows}), np.random.default_rng(start)).to(device)
        out = method(batch)
        hits, own = _restored(method, batch, out)
        right, count = right + hits, count + own
        shares += _outside(method, batch)
    if not count:
        raise InputError("no collocation was hidden: measure on more texts")
    return 100 * right / count, 100 * float(np.mean(shares))


def _restored(method: ErnieGram, batch: Batch, out: Mapping[str, Tensor]) -> tuple[int, int]:
    """Of the hidden units of several tokens, how many are restored whole, and how many there are."""
    if method.config.kind != "contiguous":
        labels = batch.ragged("coarse").values
        wanted = labels[rows_of(batch.ragged("coarse"))]
        several = wanted >= method.config.vocab
        hits = (out["coarse_logits"].argmax(dim=1) == wanted)[several]
        return int(hits.sum()), len(hits)
    # Side by side: a unit's places follow each other in the text; two hidden units that touch count as one.
    rows = rows_of(batch.ragged("fine"))
    right = out["fine_logits"].argmax(dim=1) == batch.ragged("fine").values[rows]
    ends = [*(rows[1:] != rows[:-1] + 1).nonzero().flatten().add(1).tolist(), len(rows)]
    runs = [right[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    several_runs = [run for run in runs if len(run) > 1]
    return sum(bool(run.all()) for run in several_runs), len(several_runs)


def _outside(method: ErnieGram, batch: Batch) -> list[float]:
    """For hidden places of several tokens, the share of attention, over layers and heads, that is not paid to the
    unit's own places."""
    ids, at, query = (batch.ragged(name) for name in ("ids", "at", "query"))
    fine, coarse = batch.ragged("fine").values, batch.ragged("coarse").values
    reader = method.reader
    states = reader.transformer(
        Ragged(reader.table(ids.values) + reader.place_table[at.values], ids.lengths),
        blocks=query.values,
        all_states=True,
    )
    found, start = [], 0
    for length in ids.lengths.tolist():
        part = slice(start, start + length)
        text = int((query.values[part] == 0).sum())
        hidden = (fine[part][:text] >= 0) | (coarse[part][:text] >= method.config.vocab)
        if bool(hidden.any()):
            own = _own(hidden)
            for block, state in zip(reader.transformer.blocks, states[:-1], strict=True):
                assert isinstance(block, Block)
                heads = block.qkv(block.attention_norm(state[part][:text])).view(text, -1, block.head_width)
                q, k, _ = heads.split((block.heads, block.key_heads, block.key_heads), dim=1)
                paid = torch.einsum("ihd,jhd->hij", q, k).div(block.head_width**0.5).softmax(dim=-1).mean(dim=0)
                found.append(float((paid * ~own).sum(dim=1)[hidden].mean()))
        start += length
    return found


def _own(hidden: Tensor) -> Tensor:
    """bool [T, T]: whether two places are hidden parts of one run."""
    run = (hidden.long().diff(prepend=hidden.new_zeros(1).long()) != 0).long().cumsum(0)
    return (run[:, None] == run) & hidden[:, None] & hidden
