"""The model that nextvec-small is while it is trained: a transformer whose every depth and width follows a teacher.

Legend: B items, k kinds of text that the teacher read, L layers, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.data.tokenizers import TextTokenizer
from nextvec.nn.backbones.transformer import Block, Transformer
from nextvec.nn.backbones.transformer_config import TransformerConfig
from nextvec.objectives.base import Objective
from nextvec.objectives.distill import Distill
from nextvec.objectives.info_nce import InfoNCE
from nextvec.objectives.layers import Layers
from nextvec.objectives.matryoshka import Matryoshka
from nextvec.text_method import TextConfig, TextMethod
from nextvec.types import Batch, Card, InputError, Ragged

__all__ = ["SmallConfig", "SmallEmbedder", "shape_of", "start_from"]

KINDS = ("query", "text")
"""What the teacher read, in the order of its vectors in the column "teacher"."""


@dataclass(kw_only=True)
class SmallConfig(TextConfig):
    """dims, depths: the widths and the numbers of layers that are trained; contrast: weight of InfoNCE between "query"
    and "document" (0: the teacher alone)."""

    dims: tuple[int, ...] = field(default=(64, 128, 256))
    depths: tuple[int, ...] = field(default=(1, 2, 3, 4))
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
        if max(config.dims) != shape.dim or max(config.depths) != shape.layers:
            raise InputError(
                f"dims {config.dims} and depths {config.depths} must end at the model's {shape.dim} and {shape.layers}"
            )

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
        made: Objective = Layers(Matryoshka(Distill(), dims=config.dims), layers=config.depths)
        if config.contrast:
            found = Matryoshka(InfoNCE(temperature=config.temperature), dims=config.dims)
            made = made + config.contrast * Layers(found, layers=config.depths)
        return made

    def nested(self) -> tuple[list[int], list[int]]:
        return list(self.config.dims), list(self.config.depths)


def shape_of(vocab: int, *, dim: int, layers: int, heads: int, ffn: int, length: int) -> TransformerConfig:
    """A BERT of that shape, which Hugging Face's library opens too."""
    return TransformerConfig(
        vocab=vocab,
        dim=dim,
        layers=layers,
        heads=heads,
        ffn=ffn,
        norm="layer",
        norm_position="post",
        activation="gelu",
        positions="learned",
        max_length=length,
        attention="bidirectional",
        biases=True,
        eps=1e-12,
        embed_norm=True,
        token_types=2,
    )


LENGTH = 4.0
"""Mean length of a token's vector at the start."""
BALLAST = 12.0
"""What stands on the last two axes inside, with opposite signs; well above the lengths of tokens' vectors."""


@torch.no_grad()
def start_from(transformer: Transformer, rows: NDArray[np.float32]) -> None:
    """Make a BERT the table ``rows`` [V', D], V' <= V, at every depth: the mean of its states points nearly where the
    mean of the rows does, but for the last two axes.

    A norm makes all tokens' vectors equally long, while in a table the length is the token's weight. So the last two
    axes carry a ballast of +-BALLAST, added before every norm (by the token's type, by the biases of what the block's
    halves add) and taken away after it (a gain of 0): beside it the vectors hardly change what a norm divides by, and
    the gain of the other axes undoes that. Positions and tokens beyond V' are 0.
    """
    width = transformer.config.dim
    ballast = torch.zeros(width)
    ballast[-2:] = torch.tensor([BALLAST, -BALLAST])
    gain = torch.full((width,), float(ballast.std(correction=0)))
    gain[-2:] = 0
    table = transformer.head_weight()
    scaled = torch.from_numpy(rows * (LENGTH / np.linalg.norm(rows, axis=1).mean()))
    table.zero_()
    table[: len(rows), :-2] = scaled[:, :-2]
    transformer.get_parameter("positions.table.weight").zero_()
    transformer.get_parameter("types.weight").zero_()
    transformer.get_parameter("types.weight")[0] = ballast
    transformer.get_parameter("embed_norm.weight").copy_(gain)
    for block in cast("list[Block]", list(transformer.blocks)):
        for half, norm in ((block.out, block.attention_norm), (block.down, block.ffn_norm)):
            half.bias.copy_(ballast)
            norm.get_parameter("weight").copy_(gain)
