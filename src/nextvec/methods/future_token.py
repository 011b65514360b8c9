"""Future Token Prediction: all that is known of the next N tokens has to pass through one state.

A causal transformer gives one state h_t per position. A linear map unfolds it into K vectors, and a small decoder,
which looks at these alone and at the tokens that it has been told since, foretells the next N tokens one by one. So h_t
must hold where the text is going, and not only which token comes next.

    P_t  = reshape(W h_t)                                         K vectors: the pseudo-sequence
    q_tk = decoder(start, x_{t+1}, ..., x_{t+k-1};  P_t)          causal among its tokens, cross-attention to P_t
    L    = sum over t, k of g^(k-1) CE(x_{t+k} | q_tk)  /  sum of g^(k-1)             k = 1 .. N

    symbol   here                             shape
    h        out "hidden"                     [N_all, D], tokens of all texts end to end
    P        expand(h)                        [R, K, D] for R positions t, one of ``every``
    logits   out "future"                     [Q, V], a row per (t, k) with a token there, in order of t, then k

The next token alone: k = 1. Source: "Future Token Prediction", arXiv 2410.18160. Differences and own choices: see
``FutureToken.card``. Legend: D width, V vocabulary, K pseudo-sequence, N tokens ahead, R positions, Q pairs (t, k).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from nextvec.data.tokenizers import ByteTokenizer, TextTokenizer
from nextvec.language_method import LanguageConfig, LanguageMethod
from nextvec.nn.linear import Linear
from nextvec.objectives.base import Columns, Objective, Outputs, Scope
from nextvec.objectives.next_token import predicted, text_of
from nextvec.types import Batch, Card, Claim, Column, InputError, Ragged, Term


def positions(text: Ragged, prompt: Tensor | None, *, every: int) -> Tensor:
    """The positions t that are asked, int64 [R]: of those that predict a token every ``every``-th, beginning with one
    that the text's own tokens decide, so that it is the same whatever else is in the batch."""
    rows = predicted(text, prompt)
    if every == 1:
        return rows
    lengths = text.lengths.to(rows.device)
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=rows.device), lengths)
    first = torch.zeros(len(lengths), dtype=torch.long, device=rows.device)
    first = first.index_add(0, owner, text.values) % every
    place = torch.arange(len(owner), device=rows.device) - (lengths.cumsum(0) - lengths)[owner]
    return rows[(place[rows] + first[owner[rows]]) % every == 0]


def pairs(text: Ragged, prompt: Tensor | None, *, ahead: int, every: int) -> tuple[Tensor, Tensor, Tensor]:
    """t [R] of ``positions``; and for every (t, k) with a token at t + k: the number of its t, and k, int64 [Q]."""
    at = positions(text, prompt, every=every)
    ends = torch.repeat_interleave(text.lengths.cumsum(0), text.lengths).to(at.device)
    left = (ends[at] - 1 - at).clamp(max=ahead)
    which = torch.repeat_interleave(torch.arange(len(at), device=at.device), left)
    start = torch.repeat_interleave(left.cumsum(0) - left, left)
    return at, which, torch.arange(len(which), device=at.device) - start + 1


class FutureTokens(Objective):
    """Reads ``future`` [Q, V], rows as ``pairs`` orders them. Weighted mean over pairs, in nats. Logs ``future`` and,
    of k = 1 alone, ``next_token``."""

    scope: Scope = "example"
    reads = ("future",)
    columns = ("text", "prompt")

    def __init__(self, *, ahead: int = 8, gamma: float = 0.8, every: int = 1) -> None:
        super().__init__()
        if ahead < 1 or every < 1 or not 0 < gamma <= 1:
            raise InputError(
                f"ahead {ahead}, every {every}, gamma {gamma}; expected whole numbers of at least 1, and 0 < gamma <= 1"
            )
        self.ahead, self.gamma, self.every = ahead, gamma, every

    def count(self, batch: Columns) -> float:
        _, _, steps = pairs(*text_of(batch), ahead=self.ahead, every=self.every)
        return float((self.gamma ** (steps - 1).double()).sum())

    def forward(self, out: Outputs, batch: Columns) -> Term:
        text, prompt = text_of(batch)
        at, which, steps = pairs(text, prompt, ahead=self.ahead, every=self.every)
        logits = out["future"]
        if logits.ndim != 2 or len(logits) != len(steps):
            raise InputError(f"'future' is {list(logits.shape)}; expected [{len(steps)}, vocabulary]")
        losses = functional.cross_entropy(logits, text.values[at[which] + steps], reduction="none")
        weights = (self.gamma ** (steps - 1).double()).to(losses)
        total, count = (losses * weights).sum(), self.count(batch)
        first = losses[steps == 1].detach()
        logs = {
            "future": float(total.detach()) / max(count, 1e-9),
            "next_token": float(first.sum()) / max(len(first), 1),
        }
        return Term(total, count, logs)

    @classmethod
    def example(cls, rows: int, seed: int) -> tuple[Self, dict[str, Tensor], dict[str, Column]]:
        random = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, 5, (rows * 4,), generator=random)
        # Of four tokens three predict: two pairs each for the first two, one for the third.
        logits = torch.randn(rows * 5, 5, generator=random, dtype=torch.float64).requires_grad_()
        columns: dict[str, Column] = {
            "text": Ragged(ids, torch.full((rows,), 4)),
            "of_5": Ragged(torch.zeros(rows * 5, dtype=torch.int64), torch.full((rows,), 5)),
        }
        return cls(ahead=2), {"future": logits}, columns


class _Layer(nn.Module):
    """Attention among the told tokens, attention to the pseudo-sequence, feed-forward; norms come first."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.RMSNorm(dim) for _ in range(3))
        self.own, self.out = Linear(dim, 3 * dim, bias=False), Linear(dim, dim, bias=False)
        self.asked, self.given = Linear(dim, dim, bias=False), Linear(dim, 2 * dim, bias=False)
        self.crossed = Linear(dim, dim, bias=False)
        self.up, self.down = Linear(dim, 4 * dim, bias=False), Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x [R, k, D], memory [R, K, D] -> [R, k, D]."""
        x = x + self.out(self._attend(*self.own(self.norms[0](x)).chunk(3, dim=-1), causal=True))
        x = x + self.crossed(self._attend(self.asked(self.norms[1](x)), *self.given(memory).chunk(2, dim=-1)))
        added: Tensor = self.down(functional.gelu(self.up(self.norms[2](x))))
        return x + added

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
        q, k, v = (x.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return mixed.transpose(1, 2).flatten(2)


class FutureToken(LanguageMethod):
    """A causal transformer whose states foretell N tokens through a decoder that sees nothing else of the text."""

    card = Card(
        name="future_token",
        title="Future Token Prediction: causal language modelling with per-token semantic state vectors",
        arxiv="2410.18160",
        year=2024,
        family="next-embedding prediction",
        claim="States that must foretell several tokens change more smoothly along the text and say more of its topic"
        " than those of a GPT with the same loss on the next token.",
        differs=(
            "K = 12, N = 8 and gamma = 0.8, which a third party uses; the first token has weight 1. The paper's own are"
            " not known to us, nor are its sizes.",
            "The decoder begins with a vector of its own, has learned positions, and reads and writes with the"
            " transformer's table of tokens.",
            "One position of ``every`` is asked in training, which costs so many times less; which ones a text's own"
            " tokens decide.",
        ),
    )
    direction: ClassVar[Mapping[str, str]] = {"future": "down", "next_token": "down"}

    @dataclass(kw_only=True)
    class Config(LanguageConfig):
        """ahead: N; pseudo: K; gamma: weight of each further token; decoder: its layers; every: one position of so many
        is asked in training. The others are those of ``LanguageConfig``."""

        ahead: int = 8
        pseudo: int = 12
        gamma: float = 0.8
        decoder: int = 1
        every: int = 4

    def __init__(self, config: Any, *, tokenizer: ByteTokenizer | TextTokenizer | None = None) -> None:
        super().__init__(config, tokenizer=tokenizer)
        FutureTokens(ahead=config.ahead, gamma=config.gamma, every=config.every)  # refuses what makes no sense
        if min(config.pseudo, config.decoder) < 1:
            raise InputError(f"pseudo is {config.pseudo} and decoder {config.decoder}; expected at least 1 of each")
        dim, heads = self.backbone.config.dim, self.backbone.config.heads
        self.expand = Linear(dim, config.pseudo * dim, bias=False)
        self.begin = nn.Parameter(torch.zeros(dim))
        self.place_table = nn.Parameter(torch.zeros(config.ahead, dim))
        self.layers = nn.ModuleList(_Layer(dim, heads) for _ in range(config.decoder))
        self.norm = nn.RMSNorm(dim)
        for parameter in (self.begin, self.place_table):
            nn.init.normal_(parameter, std=0.02)

    def decode(self, states: Tensor, told: Tensor) -> Tensor:
        """What the decoder says after each of the told tokens: [R, k + 1, D] of states [R, D] and told [R, k, D]."""
        memory = self.expand(states).view(len(states), self.config.pseudo, states.shape[1])
        x = torch.cat([self.begin.expand(len(states), 1, -1).to(told.dtype), told], dim=1)
        x = x + self.place_table[: x.shape[1]]
        for layer in self.layers:
            x = layer(x, memory)
        said: Tensor = self.norm(x)
        return said

    def next_logits(self, states: Tensor) -> Tensor:
        """As ``LanguageMethod.next_logits``, of states [R, D]: what the decoder says first."""
        none = states.new_zeros(len(states), 0, states.shape[1])
        return self.backbone.logits(self.decode(states, none)[:, 0])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``hidden`` and ``future``."""
        text, prompt = text_of(batch)
        hidden = self.backbone(text)
        at, which, steps = pairs(text, prompt, ahead=self.config.ahead, every=self.config.every)
        behind = torch.arange(1, self.config.ahead, device=at.device)
        # Beyond the end of a text stand tokens of the next one; the decoder is causal, and nothing asks it there.
        told = text.values[(at[:, None] + behind).clamp(max=len(text.values) - 1)]
        rows = self.backbone.embed(told.flatten()).view(*told.shape, self.backbone.config.dim)
        said = self.decode(hidden[at], rows)[which, steps - 1]
        return {"hidden": hidden, "future": self.backbone.logits(said)}

    def objective(self) -> Objective:
        return FutureTokens(ahead=self.config.ahead, gamma=self.config.gamma, every=self.config.every)

    def flops_per_item(self) -> float:
        config, dim = self.config, self.backbone.config.dim
        blocks = 6.0 * sum(p.numel() for block in self.backbone.blocks for p in block.parameters())
        step = sum(p.numel() for layer in self.layers for p in layer.parameters()) + self.backbone.config.vocab * dim
        asked = config.ahead * step + self.expand.weight.numel()
        return float(blocks + 6.0 * asked / config.every)

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight sequences of seven tokens in a cycle."""
        torch.manual_seed(seed)
        ids = (torch.randint(0, 7, (8, 1)) + torch.arange(9)) % 7
        config = cls.Config(dim=16, layers=2, heads=2, vocab=7, length=9, ahead=3, pseudo=2, every=2)
        return cls(config), Batch({"text": Ragged(ids.flatten(), torch.full((8,), 9))})

    @staticmethod
    def claim(scale: str) -> Claim:
        """Smoothness and topic of states on abstracts."""
        from nextvec.methods import _future_claim

        return _future_claim.claim(scale)
