"""The model that nextvec-small is while it is trained: a transformer whose every depth and width follows a teacher.

    vector = turn(mean of the states of a layer)      turn: a linear map onto principal axes of the teacher's vectors

Legend: B items, k kinds of text that the teacher read, L layers, H width of states, D width of vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from nextvec.data.tokenizers import TextTokenizer
from nextvec.nn.dense import Dense
from nextvec.objectives.base import Objective
from nextvec.objectives.distill import Distill
from nextvec.objectives.info_nce import InfoNCE
from nextvec.objectives.layers import Layers
from nextvec.objectives.matryoshka import Matryoshka
from nextvec.text_method import TextConfig, TextMethod
from nextvec.types import Batch, Card, InputError, Ragged

if TYPE_CHECKING:
    from nextvec.encoder import Encoder

__all__ = ["SmallConfig", "SmallEmbedder"]

KINDS = ("query", "text")
"""What the teacher read, in the order of its vectors in the column "teacher"."""


@dataclass(kw_only=True)
class SmallConfig(TextConfig):
    """dims, depths: the widths and the numbers of layers that are trained; shallow: weight of the smaller depths
    beside the full one (0: the full depth alone); contrast: weight of InfoNCE between "query" and "document" (0: the
    teacher alone)."""

    dims: tuple[int, ...] = field(default=(64, 128, 256))
    depths: tuple[int, ...] = field(default=(1, 2, 3, 4))
    shallow: float = 1.0
    contrast: float = 0.0
    temperature: float = 0.05


class SmallEmbedder(TextMethod):
    """Learns from batches of "text", in the second stage also "query" and "document", and "teacher" [B, k, D]: the
    teacher's vectors, turned onto D axes, of the KINDS that the batch has."""

    card = Card(
        name="nextvec-small",
        title="A small transformer that follows a large one at every depth and width",
        arxiv="",
        year=2026,
        family="text embeddings",
        claim="Nearly as good as its teacher, at a fraction of the time.",
        differs=(),
    )
    Config: ClassVar[type[Any]] = SmallConfig

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        shape = self.transformer.config
        if max(config.dims) > shape.dim or max(config.depths) != shape.layers:
            raise InputError(
                f"dims {config.dims} must stay within the model's {shape.dim}, and depths {config.depths} end at its "
                f"{shape.layers}"
            )
        self.turn = nn.Linear(shape.dim, max(config.dims), bias=False)

    def states(self, texts: Ragged) -> Tensor:
        """The vector of every layer, [B, L, D]."""
        turned: Tensor = self.turn(super().states(texts))
        return turned

    def vectors(self, texts: Ragged) -> Tensor:
        """One vector per text, [B, D]."""
        turned: Tensor = self.turn(super().vectors(texts))
        return turned

    def encoder(self) -> Encoder:
        encoder = super().encoder()
        encoder.dense.append(Dense(self.turn.weight.detach().float().cpu().numpy().copy(), None, "Identity"))
        return encoder

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """student_layers and teacher_layers [k B, L, D]; query_layers and document_layers [B, L, D] where they are."""
        kinds = [name for name in KINDS if name in batch]
        pairs = ["document"] if self.config.contrast else []
        columns = [batch.ragged(name) for name in [*kinds, *pairs]]
        joined = Ragged(torch.cat([c.values for c in columns]), torch.cat([c.lengths for c in columns]))
        parts = torch.split(self.states(joined), [len(column) for column in columns])
        states = dict(zip([*kinds, *pairs], parts, strict=True))
        student = torch.cat([states[name] for name in kinds])
        teacher = batch.tensor("teacher").to(student)
        taught = torch.cat([teacher[:, i] for i in range(len(kinds))])
        out = {"student_layers": student, "teacher_layers": taught[:, None].expand_as(student)}
        return out | ({f"{name}_layers": states[name] for name in ("query", "document")} if pairs else {})

    def objective(self) -> Objective:
        config = self.config
        made = self._at_depths(Matryoshka(Distill(), dims=config.dims))
        if config.contrast:
            found = Matryoshka(InfoNCE(temperature=config.temperature), dims=config.dims)
            made = made + config.contrast * self._at_depths(found)
        return made

    def _at_depths(self, inner: Objective) -> Objective:
        *less, full = sorted(self.config.depths)
        made: Objective = Layers(inner, layers=(full,))
        return made + self.config.shallow * Layers(inner, layers=less) if less and self.config.shallow else made

    def nested(self) -> tuple[list[int], list[int]]:
        return list(self.config.dims), list(self.config.depths)
