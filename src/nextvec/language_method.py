"""What the language models have in common: a causal transformer, its data, and next-token prediction.

A method derives from :class:`LanguageMethod` and overrides what its paper changes: ``forward`` and ``objective``, or
the settings that ``model`` gives the backbone.

Legend: B sequences, N tokens laid end to end, M positions that predict a token, D width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from nextvec.data.readers import read_records
from nextvec.data.sources import Source
from nextvec.data.tokenfile import PackedTokens, TokenFile, build_token_file
from nextvec.data.tokenizers import ByteTokenizer, TextTokenizer, load_tokenizer, train_bpe
from nextvec.engine.method import Method
from nextvec.nn.backbones.transformer import Transformer, TransformerConfig
from nextvec.objectives.base import Objective
from nextvec.objectives.next_token import NextToken, predicted, text_of
from nextvec.types import Batch, InputError

__all__ = ["LanguageConfig", "LanguageMethod", "texts_of"]

_TOKENIZER_TEXTS = 100_000  # more teach a BPE of some ten thousand tokens little


@dataclass(kw_only=True)
class LanguageConfig:
    """depth: the size dial, layers of width 64 * depth (see ``TransformerConfig.sized``); dim, layers, heads: instead
    of what it gives. tokenizer: "bpe" (learned from the texts), "bytes", or a tokenizer.json or folder with one; vocab:
    tokens of a BPE, afterwards those of the tokenizer. field: of a record, the one that holds the text. length: tokens
    in a sequence, at most; longer texts are cut into several. The others are the transformer's."""

    depth: int = 4
    dim: int | None = None
    layers: int | None = None
    heads: int | None = None
    tokenizer: str = "bpe"
    vocab: int = 8192
    field: str = "text"
    length: int = 512
    norm: str = "rms"
    activation: str = "swiglu"
    positions: str = "rope"
    qk_norm: bool = False
    tied: bool = True
    dropout: float = 0.0
    checkpointing: bool = False

    def model(self) -> TransformerConfig:
        """The backbone's settings."""
        names = ("norm", "activation", "positions", "qk_norm", "tied", "dropout", "checkpointing")
        given = {name: value for name in ("dim", "layers", "heads") if (value := getattr(self, name)) is not None}
        return TransformerConfig.sized(
            self.depth,
            vocab=self.vocab,
            max_length=self.length,
            **given,
            **{name: getattr(self, name) for name in names},
        )


class LanguageMethod(Method):
    """A causal language model. ``tokenizer``: where the model was made from texts."""

    Config: ClassVar[type[Any]] = LanguageConfig
    train_settings: ClassVar[tuple[str, ...]] = ("optim.weight_decay=0.1", "batch=16")

    def __init__(self, config: Any, *, tokenizer: ByteTokenizer | TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        self.backbone = Transformer(config.model())

    def next_logits(self, states: Tensor) -> Tensor:
        """Logits [..., V] of the next token after final states [..., D]."""
        return self.backbone.logits(states)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``hidden`` [N, D], and ``logits`` [M, V], a row for each position that predicts."""
        text, prompt = text_of(batch)
        hidden = self.backbone(text)
        return {"hidden": hidden, "logits": self.next_logits(hidden[predicted(text, prompt)])}

    def objective(self) -> Objective:
        return NextToken()

    def encoder(self) -> None:
        """No encoder: a state here says what comes next, not what the text as a whole means, and the paper makes no
        claim about sentence vectors. ``forward`` gives the states as ``hidden``."""

    def flops_per_item(self) -> float:
        """Per token, for sequences of ``length``: 6 for each weight of a block or of the head, and those of attention
        over half of ``length`` tokens."""
        config = self.backbone.config
        weights = sum(p.numel() for block in self.backbone.blocks for p in block.parameters())
        weights += config.vocab * config.dim
        attended = config.layers * config.heads * config.head_width * int(self.config.length)
        return 6.0 * (weights + attended)

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """A language model of the texts in ``data``: a file or folder of text, Markdown, JSON lines, CSV or Parquet,
        where a record's ``config.field`` is its text. A batch has ``batch * config.length`` tokens. ``folder`` keeps
        the tokenizer and the tokens."""
        tokenizer = _tokenizer(data, config, folder)
        path = folder / "tokens.bin"
        file = (
            TokenFile.open(path) if path.is_file() else build_token_file(path, texts_of(data, config.field), tokenizer)
        )
        source = PackedTokens(file, tokens=batch * config.length, length=config.length, seed=seed)
        torch.manual_seed(seed)
        return cls(dataclasses.replace(config, vocab=tokenizer.vocab), tokenizer=tokenizer), source


def texts_of(data: Path, field: str) -> Iterator[str]:
    """The texts of the records of ``data``."""
    for record in read_records(data, fields=(field,)):
        text = record[field]
        if not isinstance(text, str):
            raise InputError(f"field {field!r} holds a {type(text).__name__} in {str(data)!r}; expected a text")
        yield text


def _tokenizer(data: Path, config: Any, folder: Path) -> ByteTokenizer | TextTokenizer:
    """The tokenizer that ``config`` names; one learned from ``data`` is kept in ``folder``."""
    if config.tokenizer == "bytes":
        return ByteTokenizer()
    if config.tokenizer != "bpe":
        return load_tokenizer(Path(config.tokenizer))
    kept = folder / "tokenizer"
    if not (kept / "tokenizer_config.json").is_file():
        texts = itertools.islice(texts_of(data, config.field), _TOKENIZER_TEXTS)
        train_bpe(texts, vocab=config.vocab).save(kept)
    return load_tokenizer(kept)
