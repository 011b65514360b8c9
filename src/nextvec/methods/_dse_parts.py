"""DSE's teacher: a cross-encoder, which reads both sentences of a pair as one text.

Legend: B pairs, n pairs in all, C logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nextvec.data.judged import JudgedPairs
from nextvec.data.tokenizers import TextTokenizer
from nextvec.nn.pooling.modes import pool
from nextvec.objectives.base import Objective
from nextvec.objectives.labels import Labels
from nextvec.text_method import TextConfig, TextMethod, encode_all
from nextvec.types import Batch, Card, Ragged


@dataclass(kw_only=True)
class JudgedConfig(TextConfig):
    """kind, outputs: what the labels are, and C; filled in from the data."""

    kind: str = "binary"
    outputs: int = 1


class CrossEncoder(TextMethod):
    """The teacher: a pair is one text, and a linear map of its first token's state gives the logits."""

    card = Card(name="dse_teacher", title="", arxiv="", year=2020, family="", claim="", differs=())
    Config: ClassVar[type[Any]] = JudgedConfig

    def __init__(self, config: Any, *, tokenizer: TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        self.head = nn.Linear(self.transformer.config.dim, config.outputs)

    def read(self, pairs: Ragged) -> Tensor:
        """logits [B, C]."""
        first = pool(self.transformer(pairs), pairs.lengths.to(pairs.values.device), modes=("cls",))
        logits: Tensor = self.head(first)
        return logits

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.read(batch.ragged("text"))}

    def objective(self) -> Objective:
        return Labels(self.config.kind)

    def joined(self, pairs: JudgedPairs) -> list[list[int]]:
        """Token ids of each pair as one text; either is cut to half of ``max_length``."""
        tokenizer, half = self.text_tokenizer(), self.config.max_length // 2
        ids = [tokenizer.encode(side, max_length=half) for side in (pairs.first, pairs.second)]
        # The second text's leading special token would be a second beginning.
        return [one + (two[1:] if two[:1] == one[:1] else two) for one, two in zip(*ids, strict=True)]

    def logits(self, pairs: JudgedPairs) -> NDArray[np.float32]:
        """float32 [n, C]."""
        self.eval()
        return encode_all(self.read, self.joined(pairs), str(next(self.parameters()).device))


def best_constant(pairs: JudgedPairs) -> Tensor:
    """The logits [C] that fit the labels of ``pairs`` best where all pairs get the same ones: a head's first bias.

    A bias that begins at random has to be learned from the base's vectors, which are bent for it: with scores from 0
    to 5 and a fine-tuning's rate that is most of what 150 steps do.
    """
    if pairs.kind == "score":
        return torch.tensor([float(pairs.label.mean())])
    # Half a pair more of either kind, so that the logits are finite.
    counts = torch.bincount(torch.from_numpy(np.asarray(pairs.label)).long(), minlength=max(pairs.outputs, 2)) + 0.5
    return counts.log() if pairs.kind == "classes" else (counts[1] / counts[0]).log()[None]
