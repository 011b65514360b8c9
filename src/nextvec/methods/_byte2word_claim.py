"""The claim of Byte2Word on abstracts of arXiv: hidden words, clean and with slips of the pen in what is read.

table    a row per word of the vocabulary; other words are one and the same
bytes    the method
mean     the mean of the bytes' vectors in place of attention (control)

nats_R      cross entropy of hidden words, where R percent of the characters of the other words have a slip
rise        nats_30 - nats_0
unigram     of the same hidden words, by how often each occurs in the texts that are learned from: a model that is not
            below it has learned nothing that noise could cost
beside      nats_0 of the words that stand beside one that is not in the vocabulary
parameters  of what turns words into vectors, in thousands
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from nextvec.language_claims import LanguageScale, abstracts, train
from nextvec.methods.byte2word import INPUTS, Byte2Word, slips, split_words
from nextvec.objectives.masked_tokens import hidden_rows
from nextvec.text_claims import scale_named
from nextvec.types import Batch, Check, Claim, InputError, Ragged, Run

RATES = (0, 10, 20, 30)


@dataclass(frozen=True, kw_only=True)
class Scale(LanguageScale):
    """vocab: words; width: of a byte; tests: pieces to measure on, at most."""

    width: int = 16
    tests: int = 20


_CPU = Scale(
    abstracts=12_000, vocab=8000, length=64, dim=128, layers=3, heads=4, steps=4000, batch=32, lr=2e-3, width=64,
    tests=400,
)  # fmt: skip
SCALES = {
    "smoke": Scale(),
    "cpu": _CPU,
    "gpu": replace(
        _CPU, abstracts=50_000, vocab=30_000, length=128, dim=512, layers=8, heads=8, steps=20_000, batch=256,
        lr=1e-3, device="auto",
    ),
}  # fmt: skip


def claim(name: str) -> Claim:
    """The claim at scale ``name``."""
    scale = scale_named(SCALES, name)
    return Claim(
        statement="Words read as bytes are foretold as well as with a table of words, at a tenth of its parameters, and"
        " slips of the pen cost far less.",
        arms={kind: partial(_arm, kind=kind, scale=scale) for kind in INPUTS},
        checks=(
            Check(
                says="clean text is learned: half a nat below words by their frequency, or more (control)",
                better="bytes.unigram",
                worse="bytes.nats_0",
                margin=0.5,
            ),
            Check(says="the table's, too (control)", better="table.unigram", worse="table.nats_0", margin=0.5),
            Check(
                says="on clean text bytes lose 0.1 nats or less to a table",
                better="table.nats_0",
                worse="bytes.nats_0",
                margin=-0.1,
            ),
            Check(
                says="with a tenth of its parameters",
                better="table.parameters_tenth",
                worse="bytes.parameters",
            ),
            Check(says="slips cost less than with a table", better="table.rise", worse="bytes.rise"),
            Check(says="at 30 % it is better", better="table.nats_30", worse="bytes.nats_30"),
            Check(
                says="beside words that the vocabulary lacks it is better", better="table.beside", worse="bytes.beside"
            ),
            Check(says="attention does it better than a mean (control)", better="mean.nats_0", worse="bytes.nats_0"),
        ),
        config=asdict(scale),
    )


def _arm(run: Run, *, kind: str, scale: Scale) -> Mapping[str, float]:
    texts = [words for text in abstracts(scale.abstracts) if len(words := split_words(text)) > 1]
    learned = [words for i, words in enumerate(texts) if i % 20]
    held = [words[: scale.length] for words in texts[::20]][: scale.tests]
    pieces = [words[i : i + scale.length] for words in learned for i in range(0, len(words), scale.length)]
    torch.manual_seed(run.seed)
    config = Byte2Word.Config(
        input=kind,
        dim=scale.dim,
        layers=scale.layers,
        heads=scale.heads,
        width=scale.width,
        length=scale.length,
        most=scale.vocab,
    )
    method = Byte2Word.start(pieces, config)
    train(method, method.source(pieces, batch=scale.batch, seed=run.seed), scale, run)
    found = {rate: _losses(method, held, rate / 100) for rate in RATES}
    measures = {f"nats_{rate}": float(losses.mean()) for rate, (losses, _) in found.items()}
    losses, beside = found[0]
    if not beside.any():
        raise InputError("no hidden word stands beside one that the vocabulary lacks: measure on more texts")
    parameters = method.input_parameters() / 1000
    return measures | {
        "rise": measures["nats_30"] - measures["nats_0"],
        "unigram": _unigram(method, pieces, held),
        "beside": float(losses[beside].mean()),
        "parameters": parameters,
        "parameters_tenth": parameters / 10,
    }


def _hidden(method: Byte2Word, held: Sequence[Sequence[str]]) -> Ragged:
    """The labels of words that are hidden to measure on: always the same ones."""
    return method.hide(Batch(dict(method.columns(held))), np.random.default_rng(1)).ragged("labels")


def _unigram(method: Byte2Word, learned: Sequence[Sequence[str]], held: Sequence[Sequence[str]]) -> float:
    """Cross entropy of the hidden words of ``held`` by the frequencies of the vocabulary's words in ``learned``."""
    counts = np.zeros(len(method.numbers))
    for words in learned:
        for word in words:
            if word in method.numbers:
                counts[method.numbers[word]] += 1
    labels = _hidden(method, held).values
    return -float(np.log(counts / counts.sum())[labels[labels >= 0].numpy()].mean())


@torch.no_grad()
def _losses(
    method: Byte2Word, held: Sequence[Sequence[str]], rate: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Of every hidden word the cross entropy, and whether a word beside it is not in the vocabulary. The hidden words
    are the same at every rate."""
    random = np.random.default_rng(0)
    clean = method.columns(held)
    read = method.columns([slips(words, rate, random) for words in held]) if rate else clean
    hidden = _hidden(method, held)
    chosen = hidden.values >= 0
    batch = Batch(
        {
            "words": Ragged(read["words"].values.masked_fill(chosen[:, None], 0), hidden.lengths),
            "ids": Ragged(read["ids"].values.masked_fill(chosen, 1), hidden.lengths),
            "labels": hidden,
        }
    )
    device = next(method.parameters()).device
    logits = method(batch.to(str(device)))["logits"].float().cpu()
    rows = hidden_rows(hidden)
    unknown = [functional.pad(part < 0, (1, 1)) for part in torch.split(clean["known"].values, hidden.lengths.tolist())]
    beside = torch.cat([text[:-2] | text[2:] for text in unknown])[rows]
    losses = functional.cross_entropy(logits, hidden.values[rows], reduction="none")
    return losses.numpy(), beside.numpy()
