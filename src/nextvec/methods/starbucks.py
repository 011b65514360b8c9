"""Starbucks: one model in a fixed list of sizes, each a number of layers and a width, pre-trained and fine-tuned so.

A nested model that is trained at random sizes spends most steps on sizes that nobody asks for. Here every step trains
the same few pairs (n, d), from small to the whole, and a user picks one of them.

    stage "srl"    loss = L(N, D) + sum over the smaller of  L(n, d) + w KL(n, d)        see objectives/fixed_sizes.py
    stage "smae"   loss = mean over all (n, d) of  ( MLM(n, d) + MAE(n, d) ) / 2

L is InfoNCE between query and document. MLM: from layer n's states, cut to d values, the head restores words hidden
from the encoder (20 %). MAE: the first token's state alone, transformed by the same head to D values, stands in front
of the decoder's embeddings, and one layer restores words hidden from the decoder (40 %, the encoder's among them).

    symbol   here                          shape
    z_n      ``NAME_layers``               [B, N, D]
    q, d     batch "query", "document"     Ragged ids
    x        batch "text", and as seen     Ragged ids
             by "encoder" and "decoder"
    logits   ``mlm_NxD``, ``mae_NxD``      [M, V]

Source: Zhuang et al. 2024, "Starbucks: Improved Training for 2D Matryoshka Embeddings" (arXiv 2410.13230).
Legend: B items, N layers, D width, d a smaller width, M hidden tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from nextvec.data.pairs import read_pairs
from nextvec.data.sources import Changed, Shuffled
from nextvec.data.tokenizers import TextTokenizer
from nextvec.methods._starbucks_parts import MaskedHeads, NestedMasks
from nextvec.objectives.base import Objective
from nextvec.objectives.fixed_sizes import FixedSizes
from nextvec.objectives.info_nce import InfoNCE
from nextvec.objectives.masked_tokens import MaskedTokens
from nextvec.text_method import TextConfig, TextMethod, joined_texts
from nextvec.types import Batch, Card, Claim, InputError, did_you_mean

if TYPE_CHECKING:
    from nextvec.data.sources import Source

STAGES = ("srl", "smae")
_MOST_SIZES = 6


class Starbucks(TextMethod):
    """A text encoder in a few fixed sizes."""

    card = Card(
        name="starbucks",
        title="Starbucks: Improved Training for 2D Matryoshka Embeddings",
        arxiv="2410.13230",
        year=2024,
        family="text embeddings",
        claim="Trained at a fixed list of sizes, small sub-models are better than with random sizes and about as good"
        " as separate models; masked pre-training at the same sizes adds to that.",
        differs=(
            "The base is small; the paper's is BERT-base with six sizes from (2, 32) to (12, 768).",
            "Vectors are compared by cosine and pooled as the base says; the paper's retrieval uses the first token's"
            " state and dot products.",
            "Hidden words always become the mask token; how the paper's collator replaces them is not known to us.",
            "The decoder's layer starts from random weights, the paper's from BERT's.",
            "Without sizes given, they are spread over the layers and widths halve; the paper names its own.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-4", "optim.weight_decay=0.01", "schedule.warmup=0.1")
    sample: ClassVar[str] = "pairs"
    direction: ClassVar[Mapping[str, str]] = {"kl": "down"}

    @dataclass(kw_only=True)
    class Config(TextConfig):
        """stage: "srl" (pairs) or "smae" (texts alone, before it). sizes: "LAYERSxWIDTH", from small to the whole
        model; none: one for each layer, at most six, widths halving. form, weight: of the KL (``FixedSizes``).
        temperature: InfoNCE's, and of the scores that the KL "candidates" compares. The others are those of every text
        method (``text_method.py``)."""

        stage: str = "srl"
        sizes: tuple[str, ...] = ()
        form: str = "coordinates"
        weight: float = 1.0
        temperature: float = 0.05

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        if config.stage not in STAGES:
            close = did_you_mean(config.stage, STAGES)
            raise InputError(f"stage is {config.stage!r}; expected one of {', '.join(STAGES)}{close}")
        shape = self.transformer.config
        self.sizes = _read(config.sizes) or spread(shape.layers, shape.dim)
        if self.sizes[-1] != (shape.layers, shape.dim):
            raise InputError(f"the last of the sizes must be the whole model's, {shape.layers}x{shape.dim}")
        self.objective()  # refuses settings that make no sense
        self.heads = MaskedHeads(shape) if config.stage == "smae" else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``NAME_layers`` [B, N, D] of every kind of text NAME, or ``mlm_NxD`` and ``mae_NxD`` of every size."""
        if self.heads is not None:
            hidden = self.transformer(batch.ragged("encoder"), all_states=True)[1:]
            made: dict[str, Tensor] = self.heads(
                hidden, self.sizes, batch, self.transformer.embed, self.transformer.head_weight()
            )
            return made
        joined, names, lengths = joined_texts(batch)
        parts = torch.split(self.states(joined), lengths)
        return {f"{name}_layers": part for name, part in zip(names, parts, strict=True)}

    def objective(self) -> Objective:
        config = self.config
        if config.stage == "srl":
            own = ("neg0",) if config.negatives else ()
            inner = InfoNCE(temperature=config.temperature, own_negatives=own)
            return FixedSizes(
                inner, sizes=self.sizes, form=config.form, weight=config.weight, temperature=config.temperature
            )
        kinds = [("mlm", "encoder_labels"), ("mae", "decoder_labels")]
        terms = [
            MaskedTokens(logits=f"{kind}_{n}x{d}", labels=labels, name=f"{kind}_{n}x{d}") * (0.5 / len(self.sizes))
            for n, d in self.sizes
            for kind, labels in kinds
        ]
        total: Objective = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def nested(self) -> tuple[list[int], list[int]]:
        return sorted({d for _, d in self.sizes}), sorted({n for n, _ in self.sizes})

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: records with "query" (or "title") and "document" (or "body", "summary", "abstract"), in all records or
        none also "neg"; see ``data/pairs.py``. The stage "smae" reads all of their texts alone."""
        if config.stage != "smae":
            return super().prepare(data, config, batch=batch, seed=seed, folder=folder)
        pairs = read_pairs(data)
        texts = list(dict.fromkeys([*pairs.queries, *pairs.documents, *(pairs.negatives or [])]))
        method = cls.start(replace(config, seed=seed), texts)
        return method, method.masked(texts, batch=batch, seed=seed)

    def masked(self, texts: list[str], *, batch: int, seed: int) -> Source:
        """Shuffled batches of ``texts``, masked anew every time."""
        tokenizer = self.text_tokenizer()
        ids = tokenizer.encode(texts, max_length=self.config.max_length)
        source = Shuffled({"text": ids}, batch=min(batch, len(texts)), seed=seed)
        return Changed(source, NestedMasks.of(tokenizer), seed=seed)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Fixed sizes beside random ones and separate models, with and without masked pre-training."""
        from nextvec.methods._starbucks_claim import claim

        return claim(scale)


def spread(layers: int, dim: int) -> tuple[tuple[int, int], ...]:
    """Sizes for a model of ``layers`` layers and width ``dim``."""
    count = min(layers, _MOST_SIZES)
    return tuple((-(-layers * i // count), max(dim >> (count - i), 1)) for i in range(1, count + 1))


def _read(sizes: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    try:
        return tuple((int(layers), int(width)) for layers, width in (size.split("x") for size in sizes))
    except ValueError as error:
        raise InputError(f"sizes are {', '.join(map(repr, sizes))}; expected LAYERSxWIDTH, such as 2x64") from error
