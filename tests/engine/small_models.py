"""Small modules that the engine's tests train: two towers with dropout, token losses with uneven counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nextvec.objectives.base import Columns, Objective, Outputs
from nextvec.objectives.info_nce import InfoNCE
from nextvec.types import Batch, Ragged, Term


class Towers(nn.Module):
    """Query and document vectors, and one value per token of a ragged text; dropout everywhere."""

    def __init__(self, *, dropout: float = 0.3, width: int = 6) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])
        self.drop = nn.Dropout(dropout)
        self.tokens = nn.Embedding(11, width)
        self.value = nn.Linear(width, 1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        query, document = batch.tensor("query"), batch.tensor("document")
        for block in self.blocks:
            query, document = (torch.tanh(self.drop(block(x))) for x in (query, document))
        text = batch.ragged("text")
        values = self.value(self.drop(self.tokens(text.values)))[:, 0]
        return {"query": query, "document": document, "values": values, "odd": values[text.values % 2 == 1]}


class Squares(Objective):
    """Mean square of one output; tells its count beforehand only where ``known``."""

    def __init__(self, name: str, *, known: bool = False) -> None:
        super().__init__()
        self.reads, self.known = (name,), known
        self.offset = nn.Parameter(torch.tensor(0.25))
        self.commits = 0

    def forward(self, out: Outputs, batch: Columns) -> Term:
        values = out[self.reads[0]]
        return Term(
            ((values - self.offset) ** 2).sum(), float(len(values)), {self.reads[0]: float(values.detach().sum())}
        )

    def count(self, batch: Columns) -> float | None:
        text = batch["text"]
        assert isinstance(text, Ragged)
        return float(len(text.values)) if self.known else None

    def commit(self) -> None:
        self.commits += 1


def mixed() -> Objective:
    """Two example terms with different counts and a batch term with a parameter of its own and groups."""
    nce = InfoNCE(temperature=0.5, learn_temperature=True, block=3)
    return Squares("values", known=True) + 0.7 * Squares("odd") + 1.5 * nce


def batch(size: int, *, seed: int = 0) -> Batch:
    """Examples with texts of 1 to 5 tokens."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (size,), generator=random)
    return Batch(
        {
            "query": torch.randn(size, 6, generator=random, dtype=torch.float64),
            "document": torch.randn(size, 6, generator=random, dtype=torch.float64),
            "group": torch.arange(size) // 2,
            "text": Ragged(torch.randint(0, 11, (int(lengths.sum()),), generator=random), lengths),
        }
    )
