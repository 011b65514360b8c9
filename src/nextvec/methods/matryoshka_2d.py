"""2D Matryoshka: sentence embeddings that may be cut in two directions, to fewer layers and to fewer values.

Every layer's states are pooled, and the loss of ordinary training is also taken on short prefixes of them, so that a
user may stop after layer n (``encode(layers=n)``) and keep d values (``encode(dim=d)``) of one and the same model. The
base loss L is any batch objective, InfoNCE here. Two published ways to choose what is trained:

2DMSE: each step draws one layer n < N and one width d < D, evenly.

    loss = L(z_N) + L(z_N[:d]) + L(z_n) + L(z_n[:d]) + w t KL( softmax(z_N / t) || softmax(z_n / t) )

The softmax is over the D values of a vector, z_N is not moved by the KL, which is averaged over all texts.

ESE ("Espresso"): each step takes all layers, at one width k.

    loss = L(z_N) + L(z_N[:k]) + A(z_N) + 1/(N-1) sum_{n<N} ( L(z_n[:k]) + A(z_n) ) / (1 + ln(1 + n))
    A(Z) = MSE(Z[:, :k], P) + KL( softmax(P) || softmax(Z[:, :k]) ),   P = Z U S (not moved)
    U S V' = rank-k decomposition of softmax(Z' Z / sqrt(D)), each row of the D x D matrix summing to 1

"mrl" nests widths alone (``objectives/matryoshka.py``) and "plain" trains z_N alone: the baselines.

Legend: B pairs, R texts (of all kinds), N (in code L) layers, D width, n a layer from 1, d and k widths, z_n [R, D] the
pooled output of layer n (not normalised; L normalises), Z all rows of it, t temperature, w weight of the KL.

Source: Li et al. 2024, "2D Matryoshka Sentence Embeddings" (arXiv 2402.14776; v1 and v3 are 2DMSE, v2 is "ESE: Espresso
Sentence Embeddings", ICLR 2025). t, the KL's fixed teacher and A follow the authors' and sentence-transformers' code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from nextvec.data.sources import generator
from nextvec.data.tokenizers import TextTokenizer
from nextvec.methods import _matryoshka_2d_parts as parts
from nextvec.objectives.base import Columns, Objective, Outputs
from nextvec.objectives.info_nce import InfoNCE
from nextvec.objectives.layers import Layered
from nextvec.objectives.matryoshka import Matryoshka
from nextvec.text_claims import read_texts, train, training_pairs, write_texts
from nextvec.text_method import TextConfig, TextMethod, joined_texts
from nextvec.types import Batch, Card, Claim, Column, InputError, Run, Term, did_you_mean

VARIANTS = ("2dmse", "ese", "mrl", "plain")


class _Batch(Layered):
    """What 2DMSE and ESE ask of ``inner``: they weigh their alignment by its count, which is that of pairs."""

    def __init__(self, inner: Objective) -> None:
        super().__init__(inner)
        if inner.scope != "batch":
            raise InputError(f"{type(self).__name__} wraps batch objectives; {type(inner).__name__} is one of examples")


class TwoDMatryoshka(_Batch):
    """2DMSE around ``inner``. ``dims``: the widths d to draw from, all below D. The draw depends on ``seed`` and the
    number of optimiser steps alone: all processes draw alike, and a resumed run draws what the straight one drew.

    Logs those of ``inner`` on the full vector, and ``kl``.
    """

    steps: Tensor

    def __init__(
        self, inner: Objective, *, dims: Sequence[int], kl_weight: float = 1.0, temperature: float = 0.3, seed: int = 0
    ) -> None:
        super().__init__(inner)
        if not dims or min(dims) < 1 or len(set(dims)) != len(dims):
            raise InputError(f"dims must be different positive widths, got {list(dims)}")
        if not temperature > 0 or kl_weight < 0:
            raise InputError(f"temperature {temperature} must be positive and kl_weight {kl_weight} not negative")
        self.dims, self.kl_weight, self.temperature, self.seed = tuple(dims), kl_weight, temperature, seed
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[TwoDMatryoshka, dict[str, Tensor], dict[str, Column]]:
        inner, out, columns = cls.inner_example(rows, seed)
        return cls(inner, dims=(2, 5), seed=seed), out, columns

    def draw(self, layers: int) -> tuple[int, int]:
        """This step's layer, from 1 to ``layers`` - 1, and width."""
        random = generator(self.seed, int(self.steps))
        return int(random.integers(1, layers)), int(random.choice(self.dims))

    def forward(self, out: Outputs, batch: Columns) -> Term:
        rows = self.rows(out, layers=2, narrow=max(self.dims))
        last, width = rows.shape[1:]
        layer, dim = self.draw(last)
        terms = [self.at(out, batch, n, d) for n in (last, layer) for d in (width, dim)]
        aligned = _coordinate_kl(rows[:, layer - 1], rows[:, -1], self.temperature)
        count = terms[0].count
        total = terms[0].sum + terms[1].sum + terms[2].sum + terms[3].sum + self.kl_weight * count * aligned
        return Term(total, count, {**terms[0].logs, "kl": float(aligned.detach())})

    def commit(self) -> None:
        self.steps += 1
        super().commit()


class Espresso(_Batch):
    """ESE around ``inner``. ``compress``: the width k, below D. Logs those of ``inner`` on the full vector, and
    ``compression``, the last layer's A."""

    def __init__(self, inner: Objective, *, compress: int) -> None:
        super().__init__(inner)
        if compress < 1:
            raise InputError(f"compress is {compress}; expected a width of at least 1")
        self.compress = compress

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Espresso, dict[str, Tensor], dict[str, Column]]:
        inner, out, columns = cls.inner_example(rows, seed)
        return cls(inner, compress=3), out, columns

    def forward(self, out: Outputs, batch: Columns) -> Term:
        k = self.compress
        rows = self.rows(out, layers=2, narrow=k)
        last, width = rows.shape[1:]
        full = self.at(out, batch, last, width)
        aligned = _compression(rows[:, -1], k)
        total = full.sum + self.at(out, batch, last, k).sum + full.count * aligned
        for n in range(1, last):
            own = self.at(out, batch, n, k).sum + full.count * _compression(rows[:, n - 1], k)
            total = total + own / ((last - 1) * (1 + math.log(1 + n)))
        return Term(total, full.count, {**full.logs, "compression": float(aligned.detach())})


def _coordinate_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """t KL( softmax(teacher / t) || softmax(student / t) ) over the values of a row, the mean of rows [R, d]."""
    target = functional.softmax(teacher.detach() / temperature, dim=-1)
    guess = functional.log_softmax(student / temperature, dim=-1)
    return temperature * functional.kl_div(guess, target, reduction="batchmean")


def _compression(rows: Tensor, k: int) -> Tensor:
    """ESE's A of ``rows`` [R, D]."""
    target = _principal(rows, k)
    return functional.mse_loss(rows[:, :k], target) + _coordinate_kl(rows[:, :k], target, 1.0)


@torch.no_grad()
def _principal(rows: Tensor, k: int) -> Tensor:
    """ESE's P [R, k] of ``rows`` [R, D]. A decomposition leaves the sign of each column open: here its largest value
    is positive, so that what is aimed at does not flip from step to step."""
    mixed = functional.softmax(rows.T @ rows / math.sqrt(rows.shape[1]), dim=-1)
    left, strength, _ = torch.linalg.svd(mixed)
    left = left[:, :k]
    sign = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()
    found: Tensor = rows @ (left * sign * strength[:k])
    return found


class Matryoshka2D(TextMethod):
    """A sentence encoder whose layers and values nest."""

    card = Card(
        name="matryoshka_2d",
        title="2D Matryoshka Sentence Embeddings (2DMSE; v2: ESE, Espresso Sentence Embeddings)",
        arxiv="2402.14776",
        year=2024,
        family="text embeddings",
        claim="Cut to few layers and few values, embeddings trained on both are far better than those of ordinary"
        " training or of nested widths alone, and at full size they lose little.",
        differs=(
            "The base loss is symmetric InfoNCE over title and sentence pairs; the papers use AnglE on NLI.",
            "2DMSE draws n from 1 to N - 1 without weights by depth, as v1 and v3 say; their first code weighted it.",
            "ESE leaves out the embedding layer (no model stops there) and averages over layers 1 to N - 1.",
            "ESE's decomposition is exact and its signs are fixed; the authors' code draws a random low-rank one.",
            "The KL is taken on pooled vectors that are not normalised, of all texts of the batch.",
            "Fine-tuning of a small model on a few thousand pairs, without dropout; the papers use BERT-base and NLI.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-4", "optim.weight_decay=0.01", "schedule.warmup=0.1")
    sample: ClassVar[str] = "pairs"
    direction: ClassVar[Mapping[str, str]] = {"info_nce_accuracy": "up", "info_nce": "down"}

    @dataclass(kw_only=True)
    class Config(TextConfig):
        """variant: "2dmse", "ese", "mrl" (widths alone) or "plain". dims: the nested widths below D (none: the powers
        of two from about D / 16). compress: ESE's k (None: 128 as in the paper, half of D where D <= 128). temperature:
        InfoNCE's. The others are those of every text encoder (``text_method.py``)."""

        variant: str = "2dmse"
        dims: tuple[int, ...] = ()
        compress: int | None = None
        temperature: float = 0.05
        kl_weight: float = 1.0
        kl_temperature: float = 0.3

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        if config.variant not in VARIANTS:
            close = did_you_mean(config.variant, VARIANTS)
            raise InputError(f"variant is {config.variant!r}; expected one of {', '.join(VARIANTS)}{close}")
        shape = self.transformer.config
        widths = config.dims or tuple(2**i for i in range(1, 16) if shape.dim / 16 <= 2**i < shape.dim)
        self.dims = tuple(sorted(widths))
        self.compress = config.compress or (128 if shape.dim > 128 else shape.dim // 2)
        if max(self.dims) >= shape.dim or self.compress >= shape.dim or shape.layers < 2:
            own = f"base's width {shape.dim}, and its {shape.layers} layers at least 2"
            raise InputError(f"dims {list(self.dims)} and compress {self.compress} must be below the {own}")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Per kind of text NAME that the batch has: ``NAME_layers`` [B, L, D], and NAME [B, D], the last layer."""
        joined, names, sizes = joined_texts(batch)
        layers = dict(zip(names, torch.split(self.states(joined), sizes), strict=True))
        return {f"{n}_layers": x for n, x in layers.items()} | {n: x[:, -1] for n, x in layers.items()}

    def objective(self) -> Objective:
        config = self.config
        inner = InfoNCE(temperature=config.temperature, negatives="neg0" if config.negatives else None)
        if config.variant == "2dmse":
            return TwoDMatryoshka(
                inner, dims=self.dims, kl_weight=config.kl_weight, temperature=config.kl_temperature, seed=config.seed
            )
        if config.variant == "ese":
            return Espresso(inner, compress=self.compress)
        if config.variant == "mrl":
            return Matryoshka(inner, dims=(*self.dims, self.transformer.config.dim))
        return inner

    def nested(self) -> tuple[list[int], list[int]]:
        """The widths and numbers of layers that the variant trains."""
        shape = self.transformer.config
        widths = {"plain": [], "ese": [self.compress, shape.dim]}.get(self.config.variant, [*self.dims, shape.dim])
        deep = self.config.variant in ("2dmse", "ese")
        return widths, list(range(1, shape.layers + 1)) if deep else []

    @staticmethod
    def claim(scale: str) -> Claim:
        """Four variants on a grid of layers and widths: the same base, pairs, steps and base loss."""
        size = parts.SIZES[scale]
        return Claim(
            statement="Embeddings trained on few layers and few values keep far more of their quality when cut to them"
            " than embeddings trained plainly or on few values alone, and lose little at full size.",
            arms={variant: partial(_arm, variant=variant, size=size) for variant in VARIANTS},
            checks=(*parts.checks("2dmse"), *parts.checks("ese")),
            paper=parts.PAPER if scale != "smoke" else {},
            curves=tuple(f"{task}_l{n}" for task in ("sts", "ndcg") for n in range(1, size.layers + 1)),
            prepare=partial(write_texts, scale=size),
            config=parts.described(size),
        )


def _arm(run: Run, *, variant: str, size: parts.Size) -> Mapping[str, float]:
    texts = read_texts(run.shared)
    pairs = training_pairs(texts)
    config = Matryoshka2D.Config(
        variant=variant, base=size.folder(), depth=2, vocab=600, seed=run.seed, max_length=size.train_length
    )
    method = Matryoshka2D.start(config, [*pairs.queries, *pairs.documents])
    train(method, method.source(pairs, batch=size.batch, seed=run.seed), size, run)
    return parts.grid(method.states, method.text_tokenizer(), texts, size)
