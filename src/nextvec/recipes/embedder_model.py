"""The two models that a domain encoder can be: a transformer, pooled, or a table of token vectors, averaged.

Legend: B texts of a kind, N tokens end to end, L layers, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nextvec.data.tokenizers import TextTokenizer
from nextvec.encoder import Encoder
from nextvec.engine.method import Method
from nextvec.nn.backbones.static import StaticBackbone, read_tokenizer
from nextvec.nn.layout import Layout, read_layout
from nextvec.nn.locate import model_folder
from nextvec.objectives.distill import DistillSimilarities
from nextvec.objectives.graded import CoSENT
from nextvec.objectives.info_nce import InfoNCE
from nextvec.objectives.layers import Layers
from nextvec.objectives.matryoshka import Matryoshka
from nextvec.text_method import TextConfig, TextMethod, joined_texts
from nextvec.types import Batch, Card, InputError

if TYPE_CHECKING:
    from nextvec.objectives.base import Objective

__all__ = ["EmbedderConfig", "StaticEmbedder", "TransformerEmbedder", "open_model"]

_CARD = Card(
    name="embedder",
    title="A domain encoder",
    arxiv="",
    year=2026,
    family="text embeddings",
    claim="Better at one's own documents than its base.",
    differs=(),
)


@dataclass(kw_only=True)
class EmbedderConfig(TextConfig):
    """graded: pairs with a score, learned with CoSENT; otherwise InfoNCE. nested: widths below D that are trained too;
    layers: numbers of layers below L. teacher: weight of the teacher's similarities (0: there is none)."""

    graded: bool = False
    nested: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    teacher: float = 0.0
    temperature: float = 0.05

    def objective(self, dim: int, layers: int) -> Objective:
        """What is minimised, for vectors ``dim`` wide of ``layers`` layers."""
        # A mined document is another query's answer, perhaps of this very batch: it counts for its own query alone.
        hard = ("neg0",) if self.negatives else ()
        made: Objective = InfoNCE(temperature=self.temperature, own_negatives=hard)
        if self.graded:
            made = CoSENT(one="query", other="document")
        if self.teacher:
            made = made + self.teacher * DistillSimilarities(negatives=hard, temperature=self.temperature)
        if self.nested:
            made = Matryoshka(made, dims=(*sorted(self.nested), dim))
        if self.layers:
            made = Layers(made, layers=(*sorted(self.layers), layers))
        return made

    def check(self, dim: int, layers: int) -> None:
        """InputError where the model cannot be nested so."""
        if self.nested and not 1 <= min(self.nested) <= max(self.nested) < dim:
            raise InputError(f"nested widths {list(self.nested)} must be from 1 to below the model's width, {dim}")
        if self.layers and not 1 <= min(self.layers) <= max(self.layers) < layers:
            has = f"from 1 to below the model's {layers}" if layers else "left out: this model has no layers"
            raise InputError(f"layers {list(self.layers)} must be {has}")


class TransformerEmbedder(TextMethod):
    """A transformer, pooled."""

    card = _CARD
    Config: ClassVar[type[Any]] = EmbedderConfig

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        self.config.check(self.dim, self.transformer.config.layers)

    @property
    def dim(self) -> int:
        """D"""
        return self.transformer.config.dim

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """NAME [B, D] per kind of text, and where layers are nested also NAME_layers [B, L, D]."""
        if not self.config.layers:
            return super().forward(batch)
        joined, names, sizes = joined_texts(batch)
        layers = dict(zip(names, torch.split(self.states(joined), sizes), strict=True))
        return {f"{n}_layers": x for n, x in layers.items()} | {n: x[:, -1] for n, x in layers.items()}

    def objective(self) -> Objective:
        made: Objective = self.config.objective(self.dim, self.transformer.config.layers)
        return made

    def nested(self) -> tuple[list[int], list[int]]:
        config = self.config
        widths = [*sorted(config.nested), self.dim] if config.nested else []
        return widths, [*sorted(config.layers), self.transformer.config.layers] if config.layers else []


class StaticEmbedder(Method):
    """A text is the mean of its tokens' rows [V, D]."""

    card = _CARD
    Config: ClassVar[type[Any]] = EmbedderConfig

    def __init__(self, config: Any, rows: NDArray[np.float32], layout: Layout, *, tokenizer: TextTokenizer) -> None:
        super().__init__(config, tokenizer=tokenizer)
        self.layout = layout
        self.token_table = nn.Parameter(torch.from_numpy(rows.copy()))
        self.config.check(self.dim, 0)

    @property
    def dim(self) -> int:
        """D"""
        return int(self.token_table.shape[1])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """NAME [B, D] per kind of text."""
        joined, names, sizes = joined_texts(batch)
        starts = torch.cumsum(joined.lengths, 0) - joined.lengths
        means = functional.embedding_bag(joined.values, self.token_table, starts.to(joined.values.device), mode="mean")
        return dict(zip(names, torch.split(means, sizes), strict=True))

    def objective(self) -> Objective:
        made: Objective = self.config.objective(self.dim, 0)
        return made

    def encoder(self) -> Encoder:
        """The table and its tokenizer as an encoder."""
        backbone = StaticBackbone(self.token_table.detach().cpu().numpy(), read_tokenizer(self.layout.folder))
        nested = [*sorted(self.config.nested), self.dim] if self.config.nested else self.layout.nested_dims
        return Encoder(backbone, replace(self.layout, dim=None, nested_dims=list(nested)), name="embedder")


def open_model(config: EmbedderConfig, texts: Sequence[str]) -> TransformerEmbedder | StaticEmbedder:
    """The model that ``config.base`` is ("tiny": random, with a tokenizer learned from ``texts``)."""
    if config.base != "tiny":
        folder, _ = model_folder(config.base)
        layout = read_layout(folder)
        if layout.kind == "static":
            if layout.dense:
                raise InputError(f"base {config.base!r} has dense layers after its table: it cannot be trained here")
            rows = StaticBackbone.load(layout.folder).table
            if not config.nested:  # what the base can be cut to, its successor can
                config = replace(config, nested=tuple(d for d in layout.nested_dims if d < rows.shape[1]))
            return StaticEmbedder(config, rows, layout, tokenizer=TextTokenizer(read_tokenizer(layout.folder)))
    return TransformerEmbedder.start(config, texts)
