"""Pooling and attention: five ways from a decoder's states to one vector, under the same training.

    design   attention       vector
    M1       causal          the last token's state of the last layer
    M2       causal          latents query the last layer's states
    M3       causal          latents query one vector per layer, its last token's state
    M4       bidirectional   latents query the last layer's states
    M5       bidirectional   latents query one vector per layer, the mean of its states

    latents query X:  O = Z + MHA(q = LN(Z), kv = LN(X)) W_o,   v = mean over latents of O + GEGLU(LN(O))
    loss_i = -log( exp(s_ii / t) / sum_j exp(s_ij / t) )  over all documents and hard negatives of the batch, s cosines

    symbol   here                              shape
    Z        ``pooler`` latents                [r, D]
    X        the last layer, or one per layer  [N, D] or [B, L, D]
    v        out "query", "document", "neg0"   [B, D]

Source: Tang and Yang 2024, "Pooling and Attention: What Are Effective Designs for LLM-Based Embedding Models?"
(arXiv 2409.02727). Legend: B texts, N tokens end to end, L layers, D width, r latents, t temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from nextvec.data.tokenizers import TextTokenizer, train_bpe
from nextvec.nn.backbones.transformer_config import TransformerConfig
from nextvec.nn.pooling.latent import LatentQueryPooling
from nextvec.nn.pooling.modes import pool
from nextvec.nn.pooling.multi_layer import MultiLayerPooling
from nextvec.objectives.base import Objective
from nextvec.objectives.info_nce import InfoNCE
from nextvec.text_method import TextConfig, TextMethod, toy_pairs
from nextvec.types import Batch, Card, Claim, InputError, Ragged, did_you_mean

if TYPE_CHECKING:
    from nextvec.encoder import Encoder

DESIGNS = {
    "M1": ("causal", "last"),
    "M2": ("causal", "tokens"),
    "M3": ("causal", "layers"),
    "M4": ("bidirectional", "tokens"),
    "M5": ("bidirectional", "layers"),
}
"""Attention, and what the vector is made of."""


class PoolingAttention(TextMethod):
    """A decoder as a text encoder, in one of five designs."""

    card = Card(
        name="pooling_attention",
        title="Pooling and Attention: What Are Effective Designs for LLM-Based Embedding Models?",
        arxiv="2409.02727",
        year=2024,
        family="text embeddings",
        claim="For likeness and retrieval the latents that query all layers of a bidirectional model are best; for"
        " classes a trained pooler and bidirectional attention are no better than the last token of a causal model.",
        differs=(
            "In the published code M2's latents query one key, so that they and the query map have no effect: here they"
            " query all tokens. ``one_key`` gives the published form.",
            "Padding is never attended to; the published M4 does, so that a vector depends on its batch.",
            "There are as many layer embeddings as layers; the published code has 32 of any model.",
            "The negatives are those of the whole batch, through the engine's two-pass rule; the published accumulation"
            " leaves one text per device and so as many negatives as devices.",
            "All weights are trained, without LoRA; 16 latents and 4 heads unless said otherwise (768 and 32 there).",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-4", "optim.weight_decay=0.01", "schedule.warmup=0.1")
    sample: ClassVar[str] = "pairs"
    direction: ClassVar[Mapping[str, str]] = {"info_nce": "down", "info_nce_accuracy": "up"}

    @dataclass(kw_only=True)
    class Config(TextConfig):
        """design: M1 to M5. latents: r; heads: of the pooler. one_key: M2 reads the last token alone, as published.
        temperature: t. base: a Qwen3 or BERT; "tiny" is a small decoder. The others are those of every text method
        (``text_method.py``); ``pooling`` is not used."""

        design: str = "M5"
        latents: int = 16
        heads: int = 4
        one_key: bool = False
        temperature: float = 0.05

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        if config.design not in DESIGNS:
            close = did_you_mean(config.design, DESIGNS)
            raise InputError(f"design is {config.design!r}; expected one of {', '.join(DESIGNS)}{close}")
        if config.one_key and config.design != "M2":
            raise InputError(f"one_key is a form of M2, and design is {config.design}")
        self.attention, self.reads = DESIGNS[config.design]
        if config.shape is None:
            config = replace(config, shape=self.shape(config, config.vocab))
        super().__init__(config, tokenizer=tokenizer)
        shape = self.transformer.config
        options = {"latents": config.latents, "heads": config.heads}
        self.pooler: LatentQueryPooling | MultiLayerPooling | None = None
        if self.reads == "tokens":
            self.pooler = LatentQueryPooling(shape.dim, **options)
        elif self.reads == "layers":
            mode = "lasttoken" if self.attention == "causal" else "mean"
            self.pooler = MultiLayerPooling(shape.dim, shape.layers, mode=mode, **options)

    @classmethod
    def shape(cls, config: Any, vocab: int) -> TransformerConfig:
        """A small decoder with the design's attention."""
        return TransformerConfig.sized(
            config.depth, vocab=vocab, qk_norm=True, dropout=config.dropout, attention=DESIGNS[config.design][0]
        )

    @classmethod
    def changes(cls, config: Any) -> dict[str, Any]:
        return {"dropout": config.dropout, "attention": DESIGNS[config.design][0]}

    def vectors(self, texts: Ragged) -> Tensor:
        """One vector per text, [B, D], of token ids laid end to end."""
        lengths = texts.lengths.to(texts.values.device)
        states = self.transformer(texts, all_states=True)
        if isinstance(self.pooler, MultiLayerPooling):
            queried: Tensor = self.pooler(states, lengths)
            return queried
        if self.pooler is not None and not self.config.one_key:
            queried = self.pooler(states[-1], lengths)
            return queried
        last = pool(states[-1], lengths, modes=("lasttoken",))
        return last if self.pooler is None else self.pooler.attend(last[:, None])

    def objective(self) -> Objective:
        return InfoNCE(
            temperature=self.config.temperature,
            negatives="neg0" if self.config.negatives else None,
            symmetric=False,
        )

    def encoder(self) -> Encoder | None:  # type: ignore[override]
        """M1 as an encoder. None for the others: no model folder's layout holds a trained pooler, so that such a model
        is used through ``load_method`` and ``vectors``."""
        if self.pooler is not None:
            return None
        self.config.pooling = "lasttoken"
        return super().encoder()

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight pairs of short texts and a decoder of two layers."""
        pairs = toy_pairs()
        tokenizer = train_bpe([*pairs.queries, *pairs.documents], vocab=300)
        config = cls.Config(depth=2, vocab=tokenizer.vocab, max_length=16, seed=seed, latents=3)
        config = replace(config, shape=replace(cls.shape(config, tokenizer.vocab), dim=32, heads=4, max_length=32))
        torch.manual_seed(seed)
        method = cls(config, tokenizer=tokenizer)
        return method, method.source(pairs, batch=len(pairs), seed=seed).batch(0)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Five designs, and M2 as published, on two synthetic tasks."""
        from nextvec.methods._pooling_attention_claim import claim

        return claim(scale)
