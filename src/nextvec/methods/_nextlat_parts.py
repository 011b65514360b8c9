"""Parts of NextLat: the latent dynamics, and multi-token prediction, the baseline it is held against.

Legend: N tokens laid end to end, D width, H hidden width of an MLP, V vocabulary, d horizon.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nextvec.engine.method import Method
from nextvec.nn.backbones.transformer import Transformer, TransformerConfig
from nextvec.objectives.base import Objective
from nextvec.objectives.next_token import NextToken, predicted, text_of
from nextvec.types import Batch, Card, InputError

__all__ = ["LatentDynamics", "MultiToken", "mlp"]


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """LayerNorm, then three linear layers with GELU between them: [..., inputs] -> [..., outputs]."""
    return nn.Sequential(
        nn.LayerNorm(inputs),
        nn.Linear(inputs, hidden),
        nn.GELU(),
        nn.Linear(hidden, hidden),
        nn.GELU(),
        nn.Linear(hidden, outputs),
    )


class LatentDynamics(nn.Module):
    """The state after the next token, from the state before it and that token: h + MLP(LN([h; e]))."""

    def __init__(self, dim: int, *, hidden: int | None = None) -> None:
        """dim: D; hidden: H (None: D)."""
        super().__init__()
        self.change = mlp(2 * dim, hidden or dim, dim)

    def forward(self, h: Tensor, next_embedding: Tensor) -> Tensor:
        """h [..., D] and the next token's row of the token table [..., D] -> the next state [..., D]."""
        moved: Tensor = h + self.change(torch.cat([h, next_embedding], dim=-1))
        return moved


class MultiToken(Method):
    """A GPT with d further heads: head i predicts token t + 1 + i from h_t, by h_t + MLP_i(LN(h_t)) and the output head
    of the next token. Losses of all heads are added. Gloeckle et al. 2024, arXiv 2404.19737, whose heads are
    transformer layers; here they are the MLP of NextLat's dynamics, so that the two differ in what they predict."""

    card = Card(
        name="multi_token",
        title="Better & Faster Large Language Models via Multi-token Prediction",
        arxiv="2404.19737",
        year=2024,
        family="baseline",
        claim="Heads that predict several tokens ahead improve what a language model learns.",
        differs=("Each further head is a three-layer MLP, not a transformer layer.",),
    )

    @dataclass(kw_only=True)
    class Config:
        """horizon: further heads d; hidden: H of their MLPs (None: D)."""

        model: TransformerConfig = field(default_factory=lambda: TransformerConfig.sized(2, vocab=256))
        horizon: int = 3
        hidden: int | None = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.horizon < 1:
            raise InputError(f"horizon is {config.horizon}; expected at least 1 further head")
        self.backbone = Transformer(config.model)
        dim = config.model.dim
        self.heads = nn.ModuleList(mlp(dim, config.hidden or dim, dim) for _ in range(config.horizon))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``hidden`` [N, D], ``logits`` of the next token, and ``logits_i`` of the token i after it."""
        text, prompt = text_of(batch)
        hidden = self.backbone(text)
        out = {"hidden": hidden, "logits": self.backbone.logits(hidden[predicted(text, prompt)])}
        for i, head in enumerate(self.heads, 1):
            h = hidden[predicted(text, prompt, ahead=i + 1)]
            out[f"logits_{i}"] = self.backbone.logits(h + head(h))
        return out

    def objective(self) -> Objective:
        total: Objective = NextToken()
        for i in range(1, self.config.horizon + 1):
            total = total + NextToken(logits=f"logits_{i}", ahead=i + 1, name=f"token_{i + 1}")
        return total
