"""Llama-Embed-Nemotron: hard negatives alone in the contrastive loss, and the average of several fine-tuned models.

A query is compared with its document and with the H documents that were mined for it, and with nothing else: neither
with the other documents of the batch nor with other queries. Large batches are not needed then, and tasks with few
answers (class names) do no harm to each other.

    loss_i = -log( exp(s_i+ / t) / ( exp(s_i+ / t) + sum_h exp(s_ih / t) ) ),   s cosines

The hard negatives of a query are the documents that score highest with a teacher and below 0.95 of the positive's score
(TopK-PercPos). Several runs that differ in their data and settings are merged at the end: W = mean_m W_m. A run starts
from a common pre-trained model, so that the average lies in a region where all of them are good.

    symbol   here                      shape
    q_i      batch "query"             Ragged ids
    d_i+     batch "document"          Ragged ids
    d_ih     batch "neg0", "neg1" ...  Ragged ids, one column per h
    vectors  out of the same names     [B, D]

Source: Babakhin et al. 2025, "Llama-Embed-Nemotron-8B" (arXiv 2511.07025). Differences and own choices: see the card.
Legend: B queries, H hard negatives of a query, D width, t temperature, M models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from nextvec.data.pairs import read_pairs
from nextvec.engine.soup import soup
from nextvec.objectives.base import Objective
from nextvec.objectives.info_nce import InfoNCE
from nextvec.text_method import TextConfig, TextMethod, toy_pairs
from nextvec.types import Batch, Card, Claim, InputError, did_you_mean

if TYPE_CHECKING:
    from nextvec.data.sources import Source
    from nextvec.encoder import Encoder

AGAINST = ("hard", "batch", "all")


class LlamaEmbedNemotron(TextMethod):
    """A text encoder trained against hard negatives alone."""

    card = Card(
        name="llama_embed_nemotron",
        title="Llama-Embed-Nemotron-8B: hard negatives only, merged models",
        arxiv="2511.07025",
        year=2025,
        family="text embeddings",
        claim="The average of six fine-tuned models is better than the best of them, which it would not be without"
        " their common origin; hard negatives alone are about as good in the loss as with the batch's documents.",
        differs=(
            "Small bidirectional bases (MiniLM, or random ones) in place of Llama-3.1-8B, whose causal mask the paper"
            " drops; whether merging gains as much for a large model is not tested.",
            "The base itself mines the hard negatives; the paper uses E5-Mistral-7B and Qwen3-Embedding-8B.",
            "Two hard negatives in the claim; the paper has one in its first stage and four in its second.",
            "Members differ in learning rate, order and the half of the pairs that they see; how the paper's six differ"
            " is told only as data mix and hyperparameters.",
            "The measures are STS-B and titles that find abstracts; the paper's is MMTEB.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-4", "optim.weight_decay=0.01", "schedule.warmup=0.1")
    sample: ClassVar[str] = "pairs"
    direction: ClassVar[Mapping[str, str]] = {"info_nce": "down"}

    @dataclass(kw_only=True)
    class Config(TextConfig):
        """hard: H. against: what a query's document is compared with: "hard" (its hard negatives), "batch" (the other
        documents) or "all" (both, and the other queries). temperature: t. instruction: what a query is for; it is
        written before each, "Instruct: ... Query: ". The others are those of every text method (``text_method.py``)."""

        hard: int = 1
        against: str = "hard"
        temperature: float = 0.02
        instruction: str = ""

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, **options)
        if config.against not in AGAINST:
            close = did_you_mean(config.against, AGAINST)
            raise InputError(f"against is {config.against!r}; expected one of {', '.join(AGAINST)}{close}")
        if config.hard < 1:
            raise InputError(f"hard is {config.hard}; expected at least one hard negative of each query")

    def objective(self) -> Objective:
        config = self.config
        own = () if config.against == "batch" else tuple(f"neg{i}" for i in range(config.hard))
        return InfoNCE(
            temperature=config.temperature,
            own_negatives=own,
            in_batch=config.against != "hard",
            same_tower="query" if config.against == "all" else None,
            symmetric=False,
        )

    def prompt(self) -> str:
        """What stands before a query."""
        return f"Instruct: {self.config.instruction}\nQuery: " if self.config.instruction else ""

    def encoder(self) -> Encoder:
        """The model with its prompt for queries."""
        encoder = super().encoder()
        if self.config.instruction:
            encoder.layout.prompts = {"query": self.prompt(), "document": ""}
        return encoder

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: records with "query" (or "title") and "document" (or "body", "summary", "abstract"); where they have a
        "neg" too, it is the one hard negative, else the base mines ``hard`` of them. See ``data/pairs.py``."""
        pairs = read_pairs(data)
        given = pairs.negatives is not None
        config = replace(config, seed=seed, negatives=True, hard=1 if given else config.hard)
        method = cls.start(config, [*pairs.queries, *pairs.documents])
        hard = None if given else method.mine(pairs, config.hard, seed=seed, prompt=method.prompt())
        return method, method.source(pairs, batch=batch, seed=seed, hard=hard, prompt=method.prompt())

    @classmethod
    def merge(cls, members: Sequence[Self]) -> Self:
        """The model whose weights are the mean of ``members``', which share a base."""
        if len(members) < 2:
            raise InputError(f"{len(members)} models; at least two are needed to merge")
        merged = cls(members[0].config, tokenizer=members[0].tokenizer)
        merged.load_state_dict(soup([member.state_dict() for member in members]))
        return merged.eval()

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight pairs of short texts, two hard negatives each, and a model of three layers."""
        method, _ = super().toy(seed)
        method.config.hard = 2
        pairs = toy_pairs()
        hard = (np.arange(len(pairs))[:, None] + np.array([1, 3])) % len(pairs)
        return method, method.source(pairs, batch=len(pairs), seed=seed, hard=hard).batch(0)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Six models and their average, from one base and from six; and what stands in the loss."""
        from nextvec.methods._llama_embed_nemotron_claim import claim

        return claim(scale)
