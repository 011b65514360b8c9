"""PEG: many negatives, and harder ones weigh more as training goes on.

A query is compared with the documents of a very large batch (80,000 in the paper) and with five hard negatives of its
own. Some of those are right answers that nobody marked, and a model that knows nothing yet cannot tell; so the weight
that harder negatives get grows, from even to beta, over the first steps.

    loss_i = -log( exp(s_i+ / t) / ( exp(s_i+ / t) + sum_j w_ij exp(s_ij / t) ) )
    w_ij   = K_i exp(b s_ij) / sum_k exp(b s_ik),    b = beta * min(step / ramp, 1)      (no gradient to w)

b = 0 is InfoNCE. The form of w is a reconstruction: the paper says that weights follow the difficulty of the negatives
and change in the course of training, but no text at hand has its formula (see ``objectives/info_nce.py``).

    symbol   here                              shape
    q_i      batch "query"                     Ragged ids
    d_i+     batch "document"                  Ragged ids
    own d    batch "neg0", "neg1", ...         Ragged ids, a column per hard negative
    K_i      negatives of query i              the other documents of the batch and its own

Source: Wu et al. 2023, "Towards Robust Text Retrieval with Progressive Learning" (arXiv 2311.11691).
Legend: B queries, H hard negatives of a query, D width, t temperature, s cosines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from nextvec.data.pairs import read_pairs
from nextvec.objectives.base import Objective
from nextvec.objectives.info_nce import ReweightedInfoNCE
from nextvec.text_method import TextConfig, TextMethod, toy_pairs
from nextvec.types import Batch, Card, Claim, InputError

if TYPE_CHECKING:
    from nextvec.data.sources import Source


class Peg(TextMethod):
    """A text encoder trained with progressively harder negatives."""

    card = Card(
        name="peg",
        title="PEG: Towards Robust Text Retrieval with Progressive Learning",
        arxiv="2311.11691",
        year=2023,
        family="text embeddings",
        claim="More negatives help; weights that grow with the difficulty of negatives in the course of training are"
        " better than constant ones where mined negatives are partly right answers; 80,000 negatives fit in memory.",
        differs=(
            "The weight function, its schedule, temperature and learning rate are not known to us: weights are"
            " exp(b s) normalised to a mean of 1, and b rises in equal steps.",
            "The large batch is the engine's two-pass step (gathered over processes, exact); how the paper gathers"
            " 80,000 negatives is not known.",
            "The claim is run on a synthetic task with a small two-tower network: the paper's is Chinese retrieval with"
            " 110 million queries.",
            "A query's hard negatives are its own; other queries are not compared with them.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-4", "optim.weight_decay=0.01", "schedule.warmup=0.1")
    sample: ClassVar[str] = "pairs"
    direction: ClassVar[Mapping[str, str]] = {"info_nce": "down", "info_nce_accuracy": "up"}

    @dataclass(kw_only=True)
    class Config(TextConfig):
        """hard: H. hardness: beta; ramp: optimiser steps over which it is reached (0: at once). temperature: t. The
        others are those of every text method (``text_method.py``). The number of negatives is the batch size's:
        "batch=4096 micro=64" costs the memory of 64."""

        hard: int = 5
        hardness: float = 2.0
        ramp: int = 500
        temperature: float = 0.05

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, **options)
        if config.hard < 0:
            raise InputError(f"hard is {config.hard}; expected a number of hard negatives, 0 or more")
        self.objective()  # refuses weights that make no sense

    def objective(self) -> Objective:
        config = self.config
        return ReweightedInfoNCE(
            temperature=config.temperature,
            own_negatives=tuple(f"neg{i}" for i in range(config.hard)),
            hardness=config.hardness,
            ramp=config.ramp,
            symmetric=False,
        )

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: records with "query" (or "title") and "document" (or "body", "summary", "abstract"); where they have a
        "neg" too, it is the one hard negative, else the base mines ``hard`` of them. See ``data/pairs.py``."""
        pairs = read_pairs(data)
        given = pairs.negatives is not None
        config = replace(config, seed=seed, hard=1 if given else config.hard)
        method = cls.start(config, [*pairs.queries, *pairs.documents])
        hard = None if given or not config.hard else method.mine(pairs, config.hard, seed=seed)
        return method, method.source(pairs, batch=batch, seed=seed, hard=hard)

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight pairs of short texts, two hard negatives each, and a model of three layers."""
        made, _ = super().toy(seed)
        method = cls(replace(made.config, hard=2, ramp=10), tokenizer=made.text_tokenizer())
        pairs = toy_pairs()
        hard = (np.arange(len(pairs))[:, None] + np.array([1, 3])) % len(pairs)
        return method, method.source(pairs, batch=len(pairs), seed=seed, hard=hard).batch(0)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Numbers of negatives, and weights of negatives with and without false ones, on a synthetic task."""
        from nextvec.methods._peg_claim import claim

        return claim(scale)
