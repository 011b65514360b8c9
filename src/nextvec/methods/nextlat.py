"""NextLat: a language model whose states foretell its next states, and so become beliefs about what is to come.

Next-token prediction alone does not ask a transformer for a compact state: attention may look everything up again.
NextLat adds a latent dynamics model p_psi that is to predict the next state from the state and the next token, rolled
on for d steps with the true tokens. A state that predicts the next token and the next state consistently is a belief
state: all of the past that matters for the future (the paper's theorem).

    h_t      = final state of position t, after the last norm: logits_t = W h_t
    z_{t,1}  = p_psi(h_t, e(x_{t+1})),   z_{t,i} = p_psi(z_{t,i-1}, e(x_{t+i}))
    p_psi(h, e) = h + MLP(LN([h; e])),   three linear layers with GELU
    L = CE + smooth * mean_{t, i<=d} SmoothL1(sg[h_{t+i}], z_{t,i})
           + kl * mean_{t, i<=d} KL( softmax(W h_{t+i}) || softmax(W z_{t,i}) )      no gradient to h_{t+i} and W

At inference p_psi is left out, or drafts tokens that one pass of the backbone verifies (``nextvec.generate``,
``LatentDraft(method.dynamics, method.backbone, k)``): the output is that of plain decoding, in fewer passes.

    symbol   here                        shape
    x        batch "text"                Ragged ids [N], prompts as batch "prompt" [B]
    h        out "hidden"                [N, D]
    e        backbone.embed(ids)         [N, D], a gradient flows into it
    z_{.,i}  out "latent_i"              [N_i, D], positions with i tokens after them
    W z      out "draft_i"               [K_i, V], of those the ones that count for the KL

Source: NextLat, arXiv 2511.05963. Differences and own choices: see ``NextLat.card``.
Legend: B sequences, N tokens laid end to end, D width, H hidden width of the dynamics, V vocabulary, d horizon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from nextvec.data.synthetic.path_star import PathStar
from nextvec.data.tokenizers import ByteTokenizer, TextTokenizer
from nextvec.language_method import LanguageConfig, LanguageMethod
from nextvec.methods._nextlat_parts import LatentDynamics
from nextvec.objectives.base import Objective
from nextvec.objectives.next_latent import NextLatent
from nextvec.objectives.next_token import NextToken, predicted, text_of
from nextvec.types import Batch, Card, Claim, InputError


class NextLat(LanguageMethod):
    """A causal language model with latent dynamics. ``tokenizer``: where the model was made from texts."""

    card = Card(
        name="nextlat",
        title="NextLat: next-latent prediction",
        arxiv="2511.05963",
        year=2025,
        family="next-embedding prediction",
        claim="Predicting its own next states makes a transformer plan (it solves Path-Star graphs on which a GPT"
        " guesses the first step), makes its states compact, and lets it draft for itself with identical output.",
        differs=(
            "The means over t and i are one mean over all pairs (t, i); SmoothL1 (threshold 1) averages over D.",
            "The KL counts for pairs whose position t predicts a token after the prompt and whose t + i predicts one.",
            "Gradients flow through h_t and through the embeddings of the tokens in between; the paper says neither.",
            "kl is 0 at d = 1 unless set: by the paper's ablation SmoothL1 alone suffices there, and it saves a second"
            " product with the head.",
            "The dynamics' MLP starts from PyTorch's default initialisation; what the paper uses is not known to us.",
            "Small models: the paper's Path-Star model has 12 layers of width 384 and trains for 20,000 steps of 512.",
        ),
    )
    direction: ClassVar[Mapping[str, str]] = {"next_token": "down"}

    @dataclass(kw_only=True)
    class Config(LanguageConfig):
        """horizon: d, 0 for plain next-token training. smooth, kl: weights of the two terms; kl None: 1, but 0 where
        horizon is 1. hidden: H (None: the width). The others are those of ``LanguageConfig``."""

        horizon: int = 1
        smooth: float = 1.0
        kl: float | None = None
        hidden: int | None = None

    def __init__(self, config: Any, *, tokenizer: ByteTokenizer | TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        if config.horizon < 0:
            raise InputError(f"horizon is {config.horizon}; expected 0 (plain next-token training) or more")
        self.kl = float(config.horizon > 1) if config.kl is None else config.kl
        if config.horizon:
            NextLatent(horizon=config.horizon, smooth=config.smooth, kl=self.kl)  # refuses weights that make no sense
        dim = self.backbone.config.dim
        self.dynamics = LatentDynamics(dim, hidden=config.hidden) if config.horizon else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``hidden``, ``logits`` (a row for each position that predicts), ``latent_i`` and ``draft_i``, i <= d."""
        text, prompt = text_of(batch)
        hidden = self.backbone(text)
        out = {"hidden": hidden, "logits": self.backbone.logits(hidden[predicted(text, prompt)])}
        if self.dynamics is None:
            return out
        embeddings = self.backbone.embed(text.values)
        head = self.backbone.head_weight().detach()
        state, before = hidden, None
        for i in range(1, self.config.horizon + 1):
            rows = predicted(text, ahead=i)
            # Rows are in order, and every position with i tokens after it has i - 1: its place among those is a search.
            at = rows if before is None else torch.searchsorted(before, rows)
            state = out[f"latent_{i}"] = self.dynamics(state[at], embeddings[rows + i])
            if self.kl:
                asked = torch.searchsorted(rows, predicted(text, prompt, ahead=i + 1))
                out[f"draft_{i}"] = functional.linear(state[asked], head)
            before = rows
        return out

    def objective(self) -> Objective:
        if not self.config.horizon:
            return NextToken()
        return NextToken() + NextLatent(horizon=self.config.horizon, smooth=self.config.smooth, kl=self.kl)

    def flops_per_item(self) -> float:
        flops = super().flops_per_item()
        if self.dynamics is None:
            return flops
        # The draft's logits cost a product forward and one backward: the frozen head takes no gradient.
        draft = 4.0 * self.backbone.config.vocab * self.backbone.config.dim if self.kl else 0.0
        step = 6.0 * sum(p.numel() for p in self.dynamics.parameters()) + draft
        return flops + int(self.config.horizon) * step

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight Path-Star graphs G(2, 3), read by two layers of width 16."""
        task = PathStar(2, 3, nodes=6)
        torch.manual_seed(seed)
        config = cls.Config(dim=16, layers=2, heads=2, horizon=2, kl=1.0, vocab=task.vocab, length=task.sequence_length)
        return cls(config), Batch(task.columns(task.dataset(8, seed=seed)))

    @staticmethod
    def claim(scale: str) -> Claim:
        from nextvec.methods import _nextlat_claim

        return _nextlat_claim.claim(scale)
