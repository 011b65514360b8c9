"""KaLM-Embedding-V2: hard examples weigh more, hard negatives are mixed on the spot, and a larger model is followed.

A small language model without its causal mask becomes an encoder (mean pooling) in stages: weak pairs, then pairs with
hard negatives, then distillation. The last two stages' loss, on every nested width:

    L    = L_CL + w L_KL
    L_CL = mean_i -(1 - p_i)^gamma log p_i,    p_i = exp(s_i+ / t) / Z_i                 (focal weights)
    Z_i  = exp(s_i+ / t) + sum over the batch's documents, the hard negatives of i and mixtures of those
    L_KL = KL( softmax(c' / t') || softmax(c / t') )   over the candidates, c' the teacher's cosines

    symbol   here                                        shape
    q_i, d_i+, hard negatives   batch "query", "document", "neg0" ...   Ragged ids
    the teacher's vectors       batch "teacher_query", ...              [B, E]
    vectors                     out of the texts' names                 [B, D]

Mixtures: ``objectives/mixing.py``. Checkpoints of one run are averaged at the end (``engine/soup.py``).

Source: Zhao et al. 2025, "KaLM-Embedding-V2" (arXiv 2506.20923). Differences and own choices: see the card.
Legend: B queries, H hard negatives of a query, D width, E the teacher's width, t temperatures, s and c cosines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from nextvec.data.mining import mine_pairs
from nextvec.data.pairs import Pairs, read_pairs
from nextvec.objectives.base import Objective
from nextvec.objectives.distill import DistillSimilarities
from nextvec.objectives.info_nce import ReweightedInfoNCE
from nextvec.objectives.matryoshka import Matryoshka
from nextvec.objectives.mixing import MixedNegatives
from nextvec.text_method import TextConfig, TextMethod, toy_pairs
from nextvec.types import Batch, Card, Claim, Column, InputError

if TYPE_CHECKING:
    from nextvec.data.sources import Source

WEIGHTS = (1.0, 0.3, 0.2, 0.1, 0.1)
"""Of the full width and of each nested one, widest first, as in the released training script."""
Vectors = NDArray[np.float32]


class Kalm(TextMethod):
    """A text encoder with focal weights, mixed hard negatives and a teacher."""

    card = Card(
        name="kalm",
        title="KaLM-Embedding-V2: focal weights, mixed hard negatives, contrastive distillation",
        arxiv="2506.20923",
        year=2025,
        family="text embeddings",
        claim="Distillation from a larger encoder is the largest gain; focal weights and mixed hard negatives each add"
        " a little; together they are best.",
        differs=(
            "A small bidirectional model in place of Qwen2-0.5B, and one stage in place of three.",
            "The number of mixtures is not known to us (two pairs and one list here); no gradient flows through the"
            " focal weight and the list's weights, of which the paper says nothing.",
            "gamma is 0.5, which is stated for a later sibling of the model; the temperature is 0.05 (the released"
            " script, which has neither focal weights nor mixing, has 0.01).",
            "Hard negatives score below 0.95 of the positive with the teacher; the paper draws seven from ranks 50 to"
            " 100 of an earlier model. There are two of them in the claim.",
            "The teacher is all-MiniLM-L6-v2 in the claim, and Qwen3-Embedding-8B in the paper.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-4", "optim.weight_decay=0.01", "schedule.warmup=0.1")
    sample: ClassVar[str] = "pairs"
    direction: ClassVar[Mapping[str, str]] = {"info_nce": "down", "distill_kl": "down"}

    @dataclass(kw_only=True)
    class Config(TextConfig):
        """hard: H. gamma: of the focal weights (0: none). pairs: pair mixtures (0: none); whole: the list mixture.
        teacher: a model's name or folder ("": none); distil: w; contrast: weight of L_CL (0: L_KL alone). dims: nested
        widths below D. temperature: t; kl_temperature: t'. The others are those of every text method."""

        hard: int = 7
        gamma: float = 0.5
        pairs: int = 2
        whole: bool = True
        teacher: str = ""
        distil: float = 1.0
        contrast: float = 1.0
        dims: tuple[int, ...] = ()
        temperature: float = 0.05
        kl_temperature: float = 0.05

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, **options)
        width = self.transformer.config.dim
        if config.dims and not (min(config.dims) >= 1 and max(config.dims) < width):
            raise InputError(f"dims {list(config.dims)} must be from 1 to below the base's width, {width}")
        if len(config.dims) >= len(WEIGHTS):
            raise InputError(f"{len(config.dims)} nested widths; expected at most {len(WEIGHTS) - 1}")
        if config.contrast < 0 or config.distil < 0 or not (config.contrast or (config.teacher and config.distil)):
            raise InputError(
                f"contrast {config.contrast} and distil {config.distil}: expected weights of which one is positive, and"
                " a teacher where it is the second alone"
            )
        self.objective()  # refuses settings that make no sense

    def objective(self) -> Objective:
        config = self.config
        names = tuple(f"neg{i}" for i in range(config.hard))
        terms: list[Objective] = []
        if config.contrast:
            inner = ReweightedInfoNCE(
                focal=config.gamma, temperature=config.temperature, own_negatives=names, symmetric=False
            )
            made: Objective = inner
            if config.hard and (config.pairs or config.whole):
                pairs = config.pairs if config.hard > 1 else 0
                made = MixedNegatives(
                    inner, pairs=pairs, whole=config.whole, temperature=config.temperature, seed=config.seed
                )
            terms.append(config.contrast * made)
        if config.teacher and config.distil:
            terms.append(config.distil * DistillSimilarities(negatives=names, temperature=config.kl_temperature))
        total = terms[0] if len(terms) == 1 else terms[0] + terms[1]
        if not config.dims:
            return total
        dims = (self.transformer.config.dim, *sorted(config.dims, reverse=True))
        return Matryoshka(total, dims=dims, weights=WEIGHTS[: len(dims)])

    def nested(self) -> tuple[list[int], list[int]]:
        dims = self.config.dims
        return [*sorted(dims), self.transformer.config.dim] if dims else [], []

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: records with "query" (or "title") and "document" (or "body", "summary", "abstract"); where they have a
        "neg" too, it is the one hard negative, else the teacher (or the base) mines ``hard`` of them."""
        pairs = read_pairs(data)
        given = pairs.negatives is not None
        config = replace(config, seed=seed, hard=1 if given else config.hard)
        method = cls.start(config, [*pairs.queries, *pairs.documents])
        taught = teach(config.teacher, pairs) if config.teacher else None
        if given or not config.hard:
            hard = None
        elif taught is None:
            hard = method.mine(pairs, config.hard, seed=seed)
        else:
            hard = mine_pairs(taught["query"], taught["document"], pairs, config.hard, seed=seed)
        return method, method.source(pairs, batch=batch, seed=seed, hard=hard, extra=taught_columns(taught, hard))

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight pairs of short texts with two hard negatives and a teacher's random vectors; three layers."""
        made, _ = super().toy(seed)
        pairs = toy_pairs()
        config = replace(made.config, hard=2, teacher="random")
        method = cls(config, tokenizer=made.text_tokenizer())
        hard = (np.arange(len(pairs))[:, None] + np.array([1, 3])) % len(pairs)
        batch = method.source(pairs, batch=len(pairs), seed=seed, hard=hard).batch(0)
        random = torch.Generator().manual_seed(seed)
        columns: dict[str, Column] = dict(batch.columns)
        for name in ("query", "document", "neg0", "neg1"):
            columns[f"teacher_{name}"] = torch.randn(len(pairs), 12, generator=random)
        return method, Batch(columns)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Each ingredient alone and all together, against plain contrastive training."""
        from nextvec.methods._kalm_claim import claim

        return claim(scale)


def teach(name: str, pairs: Pairs) -> dict[str, Vectors]:
    """The vectors [n, E] of the pairs' texts by the encoder ``name``: "query", "document" and, where there are
    negatives, "neg0"."""
    from nextvec.encoder import Encoder

    teacher = Encoder.load(name)
    texts: dict[str, Sequence[str]] = {"query": pairs.queries, "document": pairs.documents}
    if pairs.negatives is not None:
        texts["neg0"] = pairs.negatives
    return {column: teacher.encode(own) for column, own in texts.items()}


def taught_columns(taught: Mapping[str, Vectors] | None, hard: NDArray[np.int64] | None) -> dict[str, Vectors]:
    """The teacher's vectors as columns of a batch; those of hard negatives are those of the documents that they are."""
    if taught is None:
        return {}
    mined = {} if hard is None else {f"neg{h}": taught["document"][hard[:, h]] for h in range(hard.shape[1])}
    return {f"teacher_{name}": vectors for name, vectors in (dict(taught) | mined).items()}
