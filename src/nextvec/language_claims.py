"""What the claims of the language models have in common: abstracts as tokens, a training, and a loss per token.

Legend: n pieces of text, L tokens of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from nextvec.arms import arm_config, fit_arm
from nextvec.data.bundled import daily_papers
from nextvec.data.catalog import find
from nextvec.data.readers import read_records
from nextvec.data.sources import Source
from nextvec.data.tokenfile import PackedTokens, TokenFile, build_token_file
from nextvec.data.tokenizers import ByteTokenizer, TextTokenizer, train_bpe
from nextvec.engine.method import Method
from nextvec.language_method import LanguageMethod
from nextvec.types import InputError, Ragged, Run

__all__ = ["LanguageScale", "abstracts", "packed", "pieces", "token_losses", "train", "vocabulary", "write_tokens"]

_TEST_EVERY = 20  # one abstract of so many is to measure on


@dataclass(frozen=True, kw_only=True)
class LanguageScale:
    """One scale of a claim. abstracts: how many, those to measure on included; vocab: tokens of the BPE; length: of a
    sequence; dim, layers, heads: of the model. The defaults are those of smoke scale."""

    abstracts: int = 120
    vocab: int = 400
    length: int = 16
    dim: int = 16
    layers: int = 2
    heads: int = 2
    steps: int = 4
    batch: int = 8
    lr: float = 1e-3
    device: str = "cpu"

    def shape(self) -> dict[str, Any]:
        """Settings of ``LanguageConfig``."""
        return {"dim": self.dim, "layers": self.layers, "heads": self.heads, "length": self.length}


def abstracts(count: int) -> Iterator[str]:
    """Abstracts from arXiv's daily listings, or of the bundled papers where that set is not at hand."""
    found = find("arxiv_daily")
    if found is not None:
        records = itertools.chain.from_iterable(read_records(path) for path in sorted(found[1].glob("*.jsonl.xz")))
        return (" ".join(str(record["summary"]).split()) for record in itertools.islice(records, count))
    return (" ".join(text.split()) for text in daily_papers(columns=["summary"])["summary"].to_pylist()[:count])


def write_tokens(shared: Path, *, count: int, vocab: int) -> None:
    """Tokens of the abstracts to learn from (train.bin), and of every 20th to test on (test.bin); vocab: of the BPE, 0
    for bytes."""
    texts = list(abstracts(count))
    learned = [text for i, text in enumerate(texts) if i % _TEST_EVERY]
    tokenizer: ByteTokenizer | TextTokenizer = train_bpe(learned, vocab=vocab) if vocab else ByteTokenizer()
    tokenizer.save(shared / "tokenizer")
    build_token_file(shared / "train.bin", learned, tokenizer)
    build_token_file(shared / "test.bin", texts[::_TEST_EVERY], tokenizer)


def packed(shared: Path, scale: LanguageScale, seed: int) -> Source:
    """Batches of ``batch * length`` tokens to learn from."""
    file = TokenFile.open(shared / "train.bin")
    return PackedTokens(file, tokens=scale.batch * scale.length, length=scale.length, seed=seed)


def vocabulary(shared: Path) -> int:
    """How many tokens the tokenizer has."""
    return TokenFile.open(shared / "train.bin").vocab


def pieces(shared: Path, length: int, *, most: int) -> NDArray[np.int64]:
    """The first ``length`` tokens of texts to measure on that have as many, at most ``most`` of them: int64 [n, L]."""
    file = TokenFile.open(shared / "test.bin")
    long = np.flatnonzero(file.lengths >= length)[:most]
    if not len(long):
        raise InputError(f"no text to measure on has {length} tokens: shorten the sequences")
    return np.stack([file.document(int(i))[:length] for i in long])


def train(method: Method, source: Source, scale: LanguageScale, run: Run, *, name: str = "training") -> None:
    """``scale.steps`` steps of ``method`` (see ``arms.fit_arm``)."""
    config = arm_config(steps=scale.steps, batch=scale.batch, lr=scale.lr, seed=run.seed, weight_decay=0.1)
    fit_arm(method, source, config, run, device=scale.device, name=name)


@torch.no_grad()
def token_losses(method: LanguageMethod, ids: NDArray[np.int64], *, batch: int = 32) -> NDArray[np.float32]:
    """Cross entropy of every token but the first, in nats, float32 [n, L - 1], for ids [n, L]."""
    device = next(method.parameters()).device
    found = []
    for start in range(0, len(ids), batch):
        some = torch.from_numpy(ids[start : start + batch]).to(device)
        count, length = some.shape
        hidden = method.backbone(Ragged(some.flatten(), torch.full((count,), length)))
        logits = method.next_logits(hidden).float().view(count, length, -1)[:, :-1]
        found.append(functional.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten(), reduction="none"))
    losses: NDArray[np.float32] = torch.cat(found).cpu().numpy().reshape(len(ids), -1)
    return losses
