"""NV-Embed: a decoder without its causal mask, pooled through a dictionary of latents, trained in two stages.

Every token reads from r trained latents, as from a dictionary, and what it read is averaged; the tokens of a query's
instruction are attended to by the others and left out of the average.

    O = H + MHA(q = LN(H), kv = LN(Z)) W_o,    v = mean over tokens after the instruction of  O + GEGLU(LN(O))

    stage 1    retrieval: a query's document against the other documents of the batch and H mined hard negatives
    stage 2    all tasks: against its own hard negatives alone, since the documents of a batch repeat where a task has
               few answers, and would be called wrong

Hard negatives are the documents that score highest and below 0.95 of the positive's score (TopK-PercPos).

    symbol   here                                 shape
    H        the transformer's last states        [N, D]
    Z        ``pooler`` latents                   [r, D]
    v        out "query", "document", "neg0" ...  [B, D]
    skipped  batch "query_skip"                   int64 [B], the instruction's tokens

Source: Lee et al. 2024, "NV-Embed" (arXiv 2405.17428), the pooler as released (see ``nn/pooling/latent.py``).
Legend: B texts, N tokens end to end, D width, r latents, H hard negatives of a query, t temperature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.data.mining import mine_pairs
from nextvec.data.pairs import Pairs, read_pairs
from nextvec.data.tokenizers import TextTokenizer, train_bpe
from nextvec.nn.backbones.transformer_config import TransformerConfig
from nextvec.nn.pooling.attention import AttentionPooling
from nextvec.nn.pooling.latent import LatentAttention
from nextvec.nn.pooling.modes import pool
from nextvec.nn.pooling.spans import keep, span
from nextvec.objectives.base import Objective
from nextvec.objectives.info_nce import InfoNCE
from nextvec.text_method import TextConfig, TextMethod, encode_all, joined_texts, toy_pairs
from nextvec.types import Batch, Card, Claim, InputError, Ragged, did_you_mean

if TYPE_CHECKING:
    from nextvec.data.sources import Source
    from nextvec.encoder import Encoder

POOLERS = ("latent", "attention", "mean", "lasttoken")


class NvEmbed(TextMethod):
    """A decoder as a text encoder with latent attention."""

    card = Card(
        name="nv_embed",
        title="NV-Embed: Improved Techniques for Training LLMs as Generalist Embedding Models",
        arxiv="2405.17428",
        year=2024,
        family="text embeddings",
        claim="Negatives from the batch harm tasks with few classes, so that a stage with them comes first and one"
        " without after it; latents that tokens query pool better than the mean, and the last token worst.",
        differs=(
            "Small decoders with all weights trained, in place of Mistral-7B with LoRA.",
            "The base itself mines the hard negatives; the paper uses E5-Mistral-7B.",
            "The pooler that the paper calls self-attention is here a learned score over the tokens (Lin et al. 2017).",
            "16 latents and 4 heads unless said otherwise (512 and 8 in the paper); the temperature is our choice.",
            "A stage is a run: the second is given the first by ``start_from``. One instruction for all queries of a"
            " run; the paper has one for each task.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-4", "optim.weight_decay=0.01", "schedule.warmup=0.1")
    sample: ClassVar[str] = "pairs"
    direction: ClassVar[Mapping[str, str]] = {"info_nce": "down", "info_nce_accuracy": "up"}

    @dataclass(kw_only=True)
    class Config(TextConfig):
        """stage: 1 (the batch's documents and hard negatives) or 2 (hard negatives alone). start_from: a run of this
        method whose weights, tokenizer and pooler go on ("": ``base``). hard: H. instruction: what a query is for; it
        is written before each, "Instruct: ... Query: ". pooler: "latent", "attention", "mean" or "lasttoken"; latents,
        heads: of "latent". temperature: t. base: a Qwen3 or BERT, made bidirectional; "tiny" is a small decoder. The
        others are those of every text method (``text_method.py``); ``pooling`` is not used."""

        stage: int = 1
        start_from: str = ""
        hard: int = 1
        instruction: str = ""
        pooler: str = "latent"
        latents: int = 16
        heads: int = 4
        temperature: float = 0.05

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        if config.stage not in (1, 2) or config.hard < 0 or (config.stage == 2 and not config.hard):
            raise InputError(f"stage is {config.stage}, hard {config.hard}; expected 1, or 2 with hard negatives")
        if config.pooler not in POOLERS:
            close = did_you_mean(config.pooler, POOLERS)
            raise InputError(f"pooler is {config.pooler!r}; expected one of {', '.join(POOLERS)}{close}")
        if config.shape is None:
            config = replace(config, shape=self.shape(config, config.vocab))
        super().__init__(config, tokenizer=tokenizer)
        width = self.transformer.config.dim
        self.pooler: LatentAttention | AttentionPooling | None = None
        if config.pooler == "latent":
            self.pooler = LatentAttention(width, latents=config.latents, heads=config.heads)
        elif config.pooler == "attention":
            self.pooler = AttentionPooling(width)

    @classmethod
    def shape(cls, config: Any, vocab: int) -> TransformerConfig:
        """A small decoder without its causal mask."""
        return TransformerConfig.sized(
            config.depth, vocab=vocab, qk_norm=True, dropout=config.dropout, attention="bidirectional"
        )

    @classmethod
    def changes(cls, config: Any) -> dict[str, Any]:
        return {"dropout": config.dropout, "attention": "bidirectional"}

    def pooled(self, texts: Ragged, skip: Tensor | int = 0) -> Tensor:
        """One vector per text, [B, D]. skip: leading tokens that are left out, a number or int64 [B]."""
        hidden = self.transformer(texts)
        lengths = texts.lengths.to(hidden.device)
        if isinstance(self.pooler, LatentAttention):
            made: Tensor = self.pooler(hidden, lengths, skip=skip)
            return made
        if isinstance(self.pooler, AttentionPooling):
            made = self.pooler(*keep(hidden, lengths, span(lengths, skip, lengths)))
            return made
        return pool(hidden, lengths, modes=(self.config.pooler,), skip=skip)

    def vectors(self, texts: Ragged) -> Tensor:
        """One vector per text, [B, D]; no instruction is left out."""
        return self.pooled(texts)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """NAME [B, D] per kind of text NAME that the batch has."""
        joined, names, sizes = joined_texts(batch)
        skip: Tensor | int = 0
        if "query_skip" in batch:
            own = batch.tensor("query_skip").to(joined.values.device)
            skip = torch.cat([own, own.new_zeros(sum(sizes[1:]))])  # queries come first
        return dict(zip(names, torch.split(self.pooled(joined, skip), sizes), strict=True))

    def objective(self) -> Objective:
        return InfoNCE(
            temperature=self.config.temperature,
            own_negatives=tuple(f"neg{i}" for i in range(self.config.hard)),
            in_batch=self.config.stage == 1,
            symmetric=False,
        )

    def prompt(self) -> str:
        """What stands before a query."""
        return f"Instruct: {self.config.instruction}\nQuery: " if self.config.instruction else ""

    def skipped(self, queries: Sequence[str]) -> NDArray[np.int64]:
        """int64 [n]: how many leading tokens of every query belong to the instruction. A token that holds the end of it
        and the beginning of the query counts as the query's."""
        tokenizer, length = self.text_tokenizer(), self.config.max_length
        (alone,) = tokenizer.encode([self.prompt()], max_length=length)
        found = []
        for ids in tokenizer.encode([self.prompt() + query for query in queries], max_length=length):
            same = [a == b for a, b in zip(alone, ids, strict=False)]
            shared = same.index(False) if False in same else len(same)
            found.append(min(shared, max(len(ids) - 1, 0)))
        return np.array(found, dtype=np.int64)

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """float32 [n, D] of queries with the instruction, which the average leaves out."""
        ids = self.text_tokenizer().encode([self.prompt() + q for q in queries], max_length=self.config.max_length)
        skip = self.skipped(queries) if self.config.instruction else np.zeros(len(ids), np.int64)
        device = str(next(self.parameters()).device)
        found = np.empty((len(ids), self.transformer.config.dim), np.float32)
        for left in np.unique(skip).tolist():  # one, or two where a token joins the instruction's end to a query
            rows = np.flatnonzero(skip == left)
            found[rows] = encode_all(partial(self.pooled, skip=left), [ids[i] for i in rows], device)
        return found

    def encode_documents(self, documents: Sequence[str]) -> NDArray[np.float32]:
        """float32 [n, D]."""
        ids = self.text_tokenizer().encode(documents, max_length=self.config.max_length)
        return encode_all(self.vectors, ids, str(next(self.parameters()).device))

    def encoder(self) -> Encoder | None:  # type: ignore[override]
        """None: no model folder's layout holds an encoder whose pooler is trained, nor a decoder that is read in both
        directions. Use ``load_method``, ``encode_queries`` and ``encode_documents``."""
        return None

    def mine(self, pairs: Pairs, k: int, *, seed: int, prompt: str = "") -> NDArray[np.int64]:
        """As ``TextMethod.mine``; the prompt is this method's own, and is left out of the average as in training."""
        self.eval()
        queries, documents = self.encode_queries(pairs.queries), self.encode_documents(pairs.documents)
        return mine_pairs(queries, documents, pairs, k, seed=seed)

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: records with "query" (or "title") and "document" (or "body", "summary", "abstract"); where they have a
        "neg" too, it is the one hard negative, else the model mines ``hard`` of them. See ``data/pairs.py``."""
        pairs = read_pairs(data)
        given = pairs.negatives is not None
        config = replace(config, seed=seed, negatives=given or config.hard > 0, hard=1 if given else config.hard)
        if config.start_from:
            method = cls._go_on(config)
        else:
            method = cls.start(config, [*pairs.queries, *pairs.documents])
        hard = None if given or not config.hard else method.mine(pairs, config.hard, seed=seed)
        return method, method.instructed(pairs, hard, batch=batch, seed=seed)

    def instructed(self, pairs: Pairs, hard: NDArray[np.int64] | None, *, batch: int, seed: int) -> Source:
        """Batches of ``pairs`` with the instruction before every query, and how long it is."""
        extra = {"query_skip": self.skipped(pairs.queries)} if self.config.instruction else {}
        return self.source(pairs, batch=batch, seed=seed, hard=hard, prompt=self.prompt(), extra=extra)

    @classmethod
    def _go_on(cls, config: Any) -> Self:
        """The model of an earlier run under this run's settings."""
        before = cls.of_run(config.start_from)
        kept = ("shape", "pooler", "latents", "heads", "max_length")
        config = replace(config, **{name: getattr(before.config, name) for name in kept})
        method = cls(config, tokenizer=before.text_tokenizer())
        method.load_state_dict(before.state_dict())
        return method

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight pairs of short texts with an instruction, one hard negative each, and a decoder of two layers."""
        pairs = toy_pairs()
        tokenizer = train_bpe([*pairs.queries, *pairs.documents], vocab=300)
        config = cls.Config(depth=2, max_length=40, seed=seed, latents=3, instruction="find it", negatives=True)
        shape = replace(cls.shape(config, tokenizer.vocab), dim=32, heads=4, max_length=64)
        torch.manual_seed(seed)
        method = cls(replace(config, shape=shape), tokenizer=tokenizer)
        hard = (np.arange(len(pairs))[:, None] + np.array([3])) % len(pairs)
        return method, method.instructed(pairs, hard, batch=len(pairs), seed=seed).batch(0)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Negatives from the batch with few and many classes, the order of stages, and poolers."""
        from nextvec.methods._nv_embed_claim import claim

        return claim(scale)
