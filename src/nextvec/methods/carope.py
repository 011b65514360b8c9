"""CARoPE: rotary positions whose pace depends on the text, head by head.

RoPE turns pair i of every query and key at place m by m * theta^i. Here every token says by how much what comes after
it is turned further, so that a head may walk slowly over some tokens and quickly over others:

    f(x_t)_h = 1 / (1 + softplus(x_t W + b)_h)              in (0, 1), from the token's embedding
    phi_h^i(m) = sum over t <= m of f(x_t)_h^i               angle of pair i of head h at place m
    q, k turned by phi; the rest is a causal transformer trained on the next token

    symbol   here                                        shape
    x        token vectors                               [N, D]
    W, b     backbone.positions.weight, .bias            [D, H], [H]
    phi      nn/backbones/positions.py, ContextRope      [N, H, d/2]

Decoding goes on from the angles that the cache keeps, token by token.

Source: "Context-aware Rotary Position Embedding", arXiv 2507.23083. Differences and own choices: see ``Carope.card``.
Legend: N tokens laid end to end, D width, H heads, d width of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from nextvec.language_method import LanguageConfig, LanguageMethod
from nextvec.types import Batch, Card, Claim, Ragged


class Carope(LanguageMethod):
    """A causal language model with context-aware rotary positions, or with another scheme (``positions``)."""

    card = Card(
        name="carope",
        title="CARoPE: context-aware rotary position embedding",
        arxiv="2507.23083",
        year=2025,
        family="input structure",
        claim="As good as RoPE at the length it was trained at, and at twice that length far better (perplexity 21.4"
        " where RoPE has 56.6).",
        differs=(
            "W = 0 and a bias b such that the angles begin as RoPE's. The paper says that they do, but has no bias,"
            " with which alone that is possible.",
            "i runs from 0, as in RoPE: the first pair of every head turns by the place, whatever the text.",
            "One W for all layers, which read the same token vectors; whether the paper shares it is not known to us.",
            "Small models of bundled abstracts in place of GPT-2's size on FineWeb-Edu.",
        ),
    )
    direction: ClassVar[Mapping[str, str]] = {"next_token": "down"}

    @dataclass(kw_only=True)
    class Config(LanguageConfig):
        """Those of ``LanguageConfig``; positions: "carope", "carope_constant" (a trained base per head and no context),
        "rope", "alibi", "sinusoidal", "learned" or "none"."""

        positions: str = "carope"

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight sequences in which every token is the sum of the two before it."""
        torch.manual_seed(seed)
        ids = torch.randint(0, 7, (8, 9))
        for t in range(2, 9):
            ids[:, t] = (ids[:, t - 1] + ids[:, t - 2]) % 7
        config = cls.Config(dim=16, layers=2, heads=2, vocab=7, length=9)
        return cls(config), Batch({"text": Ragged(ids.flatten(), torch.full((8,), 9))})

    @staticmethod
    def claim(scale: str) -> Claim:
        """Perplexity at one, two and four times the length of training."""
        from nextvec.methods import _carope_claim

        return _carope_claim.claim(scale)
