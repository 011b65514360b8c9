"""Supervised Explicit Semantic Analysis: a text is how much it has of every known concept.

An encoder's axes mean nothing. Here axis k is a concept with a name ("Python", "accounting"), learned from texts whose
concepts are known in part, and the same axes decide whether two texts belong together: a match can be explained by the
concepts that both have.

    s(x)   = sigmoid(W h(x) + b)                    in [0, 1]^K
    r(q, d) = cos(s(q), s(d))
    loss   = InfoNCE(r) + lambda * ( concepts of q + concepts of d )
    concepts of x: mean over those it has of -log s_k, and over those it has not of -log(1 - s_k)

Without the second part the axes drift and are latent again.

    symbol   here                                  shape
    h        the transformer, pooled               [B, D]
    s        out "query", "document"               [B, K]
    logits   out "query_logits", ...               [B, K]
    labels   batch "query_concepts", ...           float [B, K], -1 where not known

Source: Bogdanova and Yazdani 2017, "SESA: Supervised Explicit Semantic Analysis" (arXiv 1708.03246). Only its abstract
is known to us: the equations are a reconstruction. Legend: B items, K concepts, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextvec.data.pairs import Pairs, read_pairs
from nextvec.data.readers import read_located
from nextvec.data.tokenizers import TextTokenizer
from nextvec.nn.dense import Dense
from nextvec.objectives.base import Objective
from nextvec.objectives.info_nce import InfoNCE
from nextvec.objectives.labels import Labels
from nextvec.text_method import TEXTS, TextConfig, TextMethod, encode_all, toy_pairs
from nextvec.types import Batch, Card, Claim, InputError

if TYPE_CHECKING:
    from nextvec.data.sources import Source
    from nextvec.encoder import Encoder

Known = Sequence[Sequence[str] | None]
"""The concepts of every text; None where they are not known."""


class Sesa(TextMethod):
    """A text encoder whose axes are concepts."""

    card = Card(
        name="sesa",
        title="SESA: Supervised Explicit Semantic Analysis",
        arxiv="1708.03246",
        year=2017,
        family="text embeddings",
        claim="An explicit space of concepts ranks nearly as well as a latent one of the same width, and its axes mean"
        " their concepts, which they do not without the loss that names them.",
        differs=(
            "Only the paper's abstract is known to us: the sigmoid, the cosine, how the two losses are added and their"
            " weight are our choices.",
            "The encoder is a transformer, pooled; the paper's is a recurrent network.",
            "All concepts that a text has not are its negatives, by their mean; the paper samples some.",
            "The claim is run on synthetic texts with ambiguous words; the paper's are jobs and members' profiles.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=5e-4", "optim.weight_decay=0.01", "schedule.warmup=0.1")
    sample: ClassVar[str] = "pairs"
    direction: ClassVar[Mapping[str, str]] = {"info_nce": "down", "query_concepts": "down"}

    @dataclass(kw_only=True)
    class Config(TextConfig):
        """concepts: the names of the axes, filled in by ``prepare`` from the data, at most ``most``, the commonest.
        weight: lambda. temperature: InfoNCE's. The others are those of every text method (``text_method.py``)."""

        concepts: tuple[str, ...] = ("",)
        most: int = 1000
        weight: float = 1.0
        temperature: float = 0.05

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        if not config.concepts or len(set(config.concepts)) != len(config.concepts):
            raise InputError(f"{len(config.concepts)} concepts; expected at least one, each once")
        if not config.weight >= 0:
            raise InputError(f"weight is {config.weight}; expected 0 or more")
        self.axes = nn.Linear(self.transformer.config.dim, len(config.concepts))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """NAME and ``NAME_logits`` [B, K] per kind of text NAME that the batch has."""
        logits = {name: self.axes(vectors) for name, vectors in super().forward(batch).items()}
        return {name: torch.sigmoid(z) for name, z in logits.items()} | {f"{n}_logits": z for n, z in logits.items()}

    def objective(self) -> Objective:
        config = self.config
        made: Objective = InfoNCE(
            temperature=config.temperature, own_negatives=("neg0",) if config.negatives else (), symmetric=True
        )
        if config.weight:
            for name in TEXTS:
                column = f"{name}_concepts"
                made = made + config.weight * Labels("several", logits=f"{name}_logits", label=column, name=column)
        return made

    def encoder(self) -> Encoder:
        """The transformer, its pooling, and the map to concepts."""
        encoder = super().encoder()
        weight, bias = (part.detach().cpu().float().numpy() for part in (self.axes.weight, self.axes.bias))
        encoder.dense = [Dense(weight, bias, "Sigmoid")]
        return encoder

    def concepts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """s(x), float32 [n, K]."""
        ids = self.text_tokenizer().encode(texts, max_length=self.config.max_length)
        device = str(next(self.parameters()).device)
        return encode_all(lambda rows: torch.sigmoid(self.axes(self.vectors(rows))), ids, device)

    def explain(self, query: str, document: str, k: int = 5) -> list[tuple[str, float]]:
        """The ``k`` concepts that do most for the match, each with its share of the cosine, largest first."""
        one, two = self.concepts([query, document])
        parts = one * two / max(float(np.linalg.norm(one) * np.linalg.norm(two)), 1e-12)
        best = np.argsort(-parts, kind="stable")[:k]
        return [(self.config.concepts[i], float(parts[i])) for i in best]

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: records with "query" (or "title") and "document" (or "body", "summary", "abstract"), and, where they
        are known, "query_concepts" and "document_concepts" (or "concepts", of both), lists of names."""
        pairs = read_pairs(data)
        known = _read_concepts(data, config.most)
        names = sorted({name for side in known.values() for own in side for name in own or ()})
        if not names:
            raise InputError(
                f"{str(data)!r}: no record has 'concepts'; without any there is nothing to name an axis by"
            )
        config = replace(config, seed=seed, negatives=pairs.negatives is not None, concepts=tuple(names))
        method = cls.start(config, [*pairs.queries, *pairs.documents])
        return method, method.labelled(pairs, known, batch=batch, seed=seed)

    def labelled(self, pairs: Pairs, known: Mapping[str, Known], *, batch: int, seed: int) -> Source:
        """Shuffled batches of ``pairs`` with the concepts of each kind of text."""
        place = {name: k for k, name in enumerate(self.config.concepts)}
        extra = {}
        for kind in TEXTS:
            rows = np.full((len(pairs), len(place)), -1.0, np.float32)
            for i, own in enumerate(known[kind]):
                if own is not None:
                    rows[i] = 0
                    rows[i, [place[name] for name in own if name in place]] = 1
            extra[f"{kind}_concepts"] = rows
        return self.source(pairs, batch=batch, seed=seed, extra=extra)

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight pairs of short texts with a concept each, known of six, and a model of three layers."""
        made, _ = super().toy(seed)
        pairs = toy_pairs()
        names = tuple(query.split()[1] for query in pairs.queries)
        torch.manual_seed(seed)
        method = cls(replace(made.config, concepts=names), tokenizer=made.text_tokenizer())
        own: Known = [[name] if i < 6 else None for i, name in enumerate(names)]
        return method, method.labelled(pairs, dict.fromkeys(TEXTS, own), batch=len(pairs), seed=seed).batch(0)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Explicit, latent, unsupervised, and explicit without the loss that names the axes."""
        from nextvec.methods._sesa_claim import claim

        return claim(scale)


def _read_concepts(data: Path, most: int) -> dict[str, Known]:
    """The concepts of queries and documents, the ``most`` commonest of them."""
    found: dict[str, list[list[str] | None]] = {kind: [] for kind in TEXTS}
    counts: dict[str, int] = {}
    for place, record in read_located(data):
        for kind in TEXTS:
            own = record.get(f"{kind}_concepts", record.get("concepts"))
            if own is not None and not (isinstance(own, list) and all(isinstance(name, str) and name for name in own)):
                raise InputError(f"{place}: concepts are {own!r:.60}; expected a list of names")
            found[kind].append(None if own is None else list(dict.fromkeys(own)))
            for name in found[kind][-1] or ():
                counts[name] = counts.get(name, 0) + 1
    kept = set(sorted(counts, key=lambda name: (-counts[name], name))[:most])
    return {
        kind: [None if own is None else [name for name in own if name in kept] for own in side]
        for kind, side in found.items()
    }
