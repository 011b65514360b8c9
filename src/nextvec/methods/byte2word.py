"""Byte2Word: words read as their bytes, so that none is unknown and a slip of the pen is not another word.

    e_w = what learned queries read, by attention, of the bytes of word w           (nn/inputs/byte_words.py)
    h   = transformer(e_1, ..., e_n), both directions
    L   = mean over hidden words of  -log softmax(W h)[word]                       a word that is hidden has a vector of
                                                                                   its own in place of its bytes
    symbol   here                            shape
    bytes    batch "words"                   Ragged uint8 [N, W]; a hidden word is all 0
    word     batch "labels"                  Ragged int64 [N], the hidden word's number, else -100
    ids      batch "ids"                     Ragged int64 [N], for the table of words (a control)
    W h      out "logits"                    [M, V]

Source: "Word-Level Representation From Bytes For Language Modeling", arXiv 2211.12677. Differences and own choices: see
``Byte2Word.card``. Legend: N words end to end, W bytes of a word at most, M hidden words, V words of the head, D width.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from nextvec.data.sources import Changed, Shuffled, Source
from nextvec.engine.method import Method
from nextvec.language_method import texts_of
from nextvec.nn.backbones.transformer import Transformer, TransformerConfig
from nextvec.nn.inputs.byte_words import ByteWords, word_bytes
from nextvec.objectives.base import Objective
from nextvec.objectives.masked_tokens import MaskedTokens, hidden_rows
from nextvec.types import Batch, Card, Claim, InputError, Ragged

INPUTS = ("bytes", "mean", "table")
_WORD = re.compile(r"\w+|[^\w\s]")
UNKNOWN, HIDDEN = 0, 1  # the first two rows of a table of words


def split_words(text: str) -> list[str]:
    """Runs of letters and digits, and every other mark by itself, in lower case."""
    return _WORD.findall(text.lower())


class Byte2Word(Method):
    """A masked language model of words. ``input``: how a word becomes a vector."""

    card = Card(
        name="byte2word",
        title="Byte2Word: word-level representation from bytes for language modelling",
        arxiv="2211.12677",
        year=2022,
        family="input structure",
        claim="On par with a table of sub-words at a tenth of its parameters, and much more robust to noise in the"
        " characters.",
        differs=(
            "Only the abstract is known to us: one query, 64 values a byte, at most 16 bytes, learned places of bytes"
            " and four heads are our choices.",
            "Hidden words are foretold as whole words of a vocabulary, not as sub-words.",
            "Texts are put into lower case; hidden words have a vector of their own, always (BERT: 80 %).",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-3", "optim.weight_decay=0.01", "batch=32")
    direction: ClassVar[Mapping[str, str]] = {"masked_tokens": "down"}

    @dataclass(kw_only=True)
    class Config:
        """input: "bytes"; or, as controls, "mean" of the bytes and "table" of words. width, longest, queries: of the
        bytes (see ``ByteWords``). length: words of a sequence, at most; share: of the words that are hidden. most:
        words of the vocabulary, the commonest; words: which, filled in by ``prepare``. field: of a record, the one that
        holds the text."""

        input: str = "bytes"
        depth: int = 4
        dim: int | None = None
        layers: int | None = None
        heads: int | None = None
        width: int = 64
        longest: int = 16
        queries: int = 1
        length: int = 128
        share: float = 0.15
        most: int = 8000
        field: str = "text"
        words: tuple[str, ...] = ()

        def model(self) -> TransformerConfig:
            """The transformer's settings."""
            given = {name: value for name in ("dim", "layers", "heads") if (value := getattr(self, name)) is not None}
            return TransformerConfig.sized(
                self.depth, vocab=0, max_length=self.length, attention="bidirectional", activation="gelu", **given
            )

    def __init__(self, config: Any, *, tokenizer: None = None) -> None:
        super().__init__(config)
        if config.input not in INPUTS or not 0 < config.share < 1:
            raise InputError(
                f"input is {config.input!r} and share {config.share}; expected one of {', '.join(INPUTS)}, and a share"
                " between 0 and 1"
            )
        self.transformer = Transformer(config.model())
        dim = self.transformer.config.dim
        self.table = nn.Embedding(len(config.words) + 2, dim) if config.input == "table" else None
        self.reader = None
        if self.table is None:
            kind = "attention" if config.input == "bytes" else "mean"
            self.reader = ByteWords(dim, width=config.width, longest=config.longest, queries=config.queries, kind=kind)
        self.head = nn.Linear(dim, max(len(config.words), 1))
        self.numbers = {word: i for i, word in enumerate(config.words)}

    def input_parameters(self) -> int:
        """Parameters of what turns words into vectors."""
        part = self.table if self.table is not None else self.reader
        assert part is not None
        return sum(parameter.numel() for parameter in part.parameters())

    def vectors(self, batch: Batch) -> Tensor:
        """The words' vectors [N, D]."""
        if self.table is not None:
            found: Tensor = self.table(batch.ragged("ids").values)
            return found
        assert self.reader is not None
        read: Tensor = self.reader(batch.ragged("words").values)
        return read

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``hidden`` [N, D] and ``logits`` [M, V]."""
        hidden = self.transformer(Ragged(self.vectors(batch), batch.ragged("words").lengths))
        return {"hidden": hidden, "logits": self.head(hidden[hidden_rows(batch.ragged("labels"))])}

    def objective(self) -> Objective:
        return MaskedTokens()

    def encoder(self) -> None:
        """No encoder: ``forward`` gives a vector per word, and the paper makes no claim about sentences."""

    def columns(self, texts: Sequence[Sequence[str]]) -> dict[str, Ragged]:
        """``words``, ``ids`` and ``known`` (a word's number in the vocabulary, or -100) of texts that are split."""
        flat = [word for words in texts for word in words]
        lengths = torch.tensor([len(words) for words in texts])
        known = torch.tensor([self.numbers.get(word, -100) for word in flat], dtype=torch.int64)
        ids = torch.where(known < 0, UNKNOWN, known + 2)
        values = torch.from_numpy(word_bytes(flat, longest=self.config.longest))
        return {"words": Ragged(values, lengths), "ids": Ragged(ids, lengths), "known": Ragged(known, lengths)}

    def hide(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """``batch`` with a share of the words that the vocabulary has hidden, at least one a text where there is one:
        a change for ``sources.Changed``."""
        known = batch.ragged("known")
        draw = torch.from_numpy(rng.random(len(known.values))).masked_fill(known.values < 0, 2.0)
        chosen = draw < self.config.share
        start = 0
        for length in known.lengths.tolist():
            own = draw[start : start + length]
            if length and float(own.min()) < 1:
                chosen[start + int(own.argmin())] = True
            start += length
        words, ids = batch.ragged("words"), batch.ragged("ids")
        labels = torch.where(chosen, known.values, -100)
        columns = {
            "words": Ragged(words.values.masked_fill(chosen[:, None], 0), words.lengths),
            "ids": Ragged(ids.values.masked_fill(chosen, HIDDEN), ids.lengths),
            "labels": Ragged(labels, known.lengths),
        }
        return Batch(columns, task=batch.task)

    def source(self, texts: Sequence[Sequence[str]], *, batch: int, seed: int) -> Source:
        """Shuffled batches of texts that are split into words, some of them hidden."""
        return Changed(Shuffled(self.columns(texts), batch=min(batch, len(texts)), seed=seed), self.hide, seed=seed)

    @classmethod
    def start(cls, texts: Sequence[Sequence[str]], config: Any) -> Self:
        """A model whose vocabulary is the commonest words of ``texts``. InputError where there are none."""
        counts = Counter(word for words in texts for word in words)
        words = sorted(counts, key=lambda word: (-counts[word], word))[: config.most]
        if not words:
            raise InputError("these texts hold no words: nothing can be learned from them")
        return cls(dataclasses.replace(config, words=tuple(words)))

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight sequences of words in a cycle, one of each hidden."""
        torch.manual_seed(seed)
        cycle = ["red", "dog", "ran", "to", "me", "éa"]
        texts = [[cycle[(i + j) % 6] for j in range(4)] for i in range(8)]
        method = cls.start(texts, cls.Config(dim=32, layers=2, heads=2, width=16, length=8))
        return method, method.hide(Batch(dict(method.columns(texts))), np.random.default_rng(seed))

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: texts, as for every language model here; texts of more than ``length`` words are cut into several."""
        texts = [words for text in texts_of(data, config.field) if (words := split_words(text))]
        pieces = [words[i : i + config.length] for words in texts for i in range(0, len(words), config.length)]
        torch.manual_seed(seed)
        method = cls.start(pieces, config)
        return method, method.source(pieces, batch=batch, seed=seed)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Hidden words of abstracts, clean and with slips."""
        from nextvec.methods import _byte2word_claim

        return _byte2word_claim.claim(scale)


def slips(words: Sequence[str], rate: float, rng: np.random.Generator) -> list[str]:
    """The words with slips of the pen: of every character, with probability ``rate``, it is left out or exchanged with
    the next. No word becomes empty."""
    made = []
    for word in words:
        letters, i = list(word), 0
        while i < len(letters):
            if rng.random() < rate:
                if rng.random() < 0.5 and len(letters) > 1:
                    del letters[i]
                    continue
                if i + 1 < len(letters):
                    letters[i], letters[i + 1] = letters[i + 1], letters[i]
                    i += 1
            i += 1
        made.append("".join(letters))
    return made
