"""How a transformer learns where a token stands: each scheme is one small class with the same three doors.

    add(h, places)       what is added to the token vectors           (learned, sinusoidal)
    rotation(h, places)  how queries and keys are turned              (rope, carope)
    slopes()             how much attention pays per token of distance (alibi)

A scheme opens the doors it needs; the others do nothing. ``POSITIONS`` names them.

Legend: N tokens laid end to end, D width, H heads, d width of a head, place = index of a token in its own sequence.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from nextvec.nn.backbones.transformer_config import TransformerConfig
from nextvec.types import InputError

__all__ = [
    "POSITIONS",
    "Alibi",
    "ContextRope",
    "Learned",
    "Positions",
    "Rope",
    "Rotation",
    "Sinusoidal",
    "alibi_slopes",
    "require_place",
]


class Turned(Protocol):
    """How far each row of a cache has turned."""

    def __call__(self, steps: Tensor) -> Tensor:
        """Angles float [N, H, d/2] after new tokens that turn by ``steps``, of that shape; they are kept."""
        ...


Rotation = tuple[Tensor, Tensor]
"""cos and sin, each float32 (or float64) [N, 1, d/2], or [N, H, d/2] where heads turn at their own pace."""


class Positions(nn.Module):
    """No positions at all, and the base of every scheme."""

    limit: int | None = None
    """The longest sequence the scheme can place; None: any."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()

    def add(self, h: Tensor, places: Tensor) -> Tensor:
        """Token vectors [N, D] with what the scheme adds at ``places`` int64 [N]."""
        return h

    def rotation(self, h: Tensor, places: Tensor, cached: Turned | None = None) -> Rotation | None:
        """How queries and keys turn at ``places``; ``h`` [N, D] are the token vectors (for schemes that read them).
        Sequences lie end to end, each from place 0; or they go on where ``cached`` knows how far they have turned."""
        return None

    def slopes(self) -> Tensor | None:
        """Attention's penalty per token of distance, float32 [H]."""
        return None


class Learned(Positions):
    """A trained vector per place (Gehring et al. 2017; BERT, GPT-2); sequences up to ``max_length``."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.limit = config.max_length
        self.table = nn.Embedding(config.max_length, config.dim)

    def add(self, h: Tensor, places: Tensor) -> Tensor:
        vectors: Tensor = self.table(places)
        return h + vectors


class Sinusoidal(Positions):
    """Fixed waves (Vaswani et al. 2017, section 3.5): sin in even columns, cos in odd ones, wavelengths from 2 pi to
    ``rope_theta`` * 2 pi (10,000 in the paper).

    The paper multiplies token vectors by sqrt(D) and adds waves of amplitude 1; here the waves are divided by sqrt(D):
    the same proportion, and vectors that come from elsewhere stay as they are.
    """

    frequencies: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.register_buffer("frequencies", _frequencies(config.dim, config.rope_theta), persistent=False)
        self.dim = config.dim

    def add(self, h: Tensor, places: Tensor) -> Tensor:
        angles = places[:, None].float() * self.frequencies
        waves = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, : self.dim]
        return h + (waves / math.sqrt(self.dim)).to(h.dtype)


class Rope(Positions):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): pair (i, i + d/2) of a head turns by place * theta^(-2i/d).

    Longer contexts than trained: "linear" divides places by the factor (Chen et al. 2023, arXiv 2306.15595); "ntk"
    raises the base to theta * factor^(d / (d - 2)), which stretches the slowest pair by the factor and leaves the
    fastest as it was (NTK-aware interpolation, as in YaRN, arXiv 2309.00071, section 3.1).
    """

    frequencies: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        frequencies = _frequencies(config.head_width, config.rope_base)
        if config.rope_scaling == "linear":
            frequencies /= config.rope_factor
        self.register_buffer("frequencies", frequencies, persistent=False)

    def rotation(self, h: Tensor, places: Tensor, cached: Turned | None = None) -> Rotation:
        angles = (places[:, None].float() * self.frequencies)[:, None]
        return angles.cos(), angles.sin()


class ContextRope(Positions):
    """Context-aware rotary positions (CARoPE, arXiv 2507.23083): every token turns what follows by as much as its own
    vector says, head by head.

        f_t,h = 1 / (1 + softplus(x_t W + b)_h)                 in (0, 1); x: token vectors, W [D, H], b [H]
        angle of pair i at place m = sum over t <= m of f_t,h^i            i = 0 .. d/2 - 1

    With f = theta^(-2/d) for all tokens this is RoPE, with which it starts: W = 0, and b such that f is that. One W for
    all layers. The sums are made in float64: they grow with the length, and only differences count.

    context=False: W stays 0, so that b alone is trained: a base per head (the control).
    """

    def __init__(self, config: TransformerConfig, *, context: bool = True) -> None:
        super().__init__(config)
        if config.key_heads != config.heads:
            raise InputError(
                f"carope turns every head at its own pace: {config.heads} heads cannot share {config.key_heads} of keys"
            )
        self.pairs = config.head_width // 2
        self.weight = nn.Parameter(torch.zeros(config.dim, config.heads), requires_grad=context)
        first = config.rope_base ** (-2.0 / config.head_width)
        self.bias = nn.Parameter(torch.full((config.heads,), math.log(math.expm1(1 / first - 1))))

    def rotation(self, h: Tensor, places: Tensor, cached: Turned | None = None) -> Rotation:
        slack = nn.functional.softplus(h.double() @ self.weight.double() + self.bias.double())
        steps = torch.exp(-torch.log1p(slack)[..., None] * torch.arange(self.pairs, device=h.device))
        angles = _running(steps, places) if cached is None else cached(steps)
        kind = torch.promote_types(h.dtype, torch.float32)
        return angles.cos().to(kind), angles.sin().to(kind)


class ConstantRope(ContextRope):
    """``ContextRope`` without context: the base of every head is trained."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config, context=False)


def _running(steps: Tensor, places: Tensor) -> Tensor:
    """Sums of ``steps`` [N, ...] along each sequence, up to and with every token; places int64 [N] from 0."""
    total = steps.cumsum(0)
    start = torch.arange(len(places), device=places.device) - places
    return total - (total - steps)[start]


class Alibi(Positions):
    """Attention with linear biases (Press et al. 2022, arXiv 2108.12409): score minus slope * distance."""

    _slopes: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.register_buffer("_slopes", alibi_slopes(config.heads), persistent=False)

    def slopes(self) -> Tensor:
        return self._slopes


POSITIONS: dict[str, type[Positions]] = {
    "rope": Rope,
    "carope": ContextRope,
    "carope_constant": ConstantRope,
    "learned": Learned,
    "sinusoidal": Sinusoidal,
    "alibi": Alibi,
    "none": Positions,
}


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Heads [N, h, d] turned by ``rotation``: their halves (a, b) become (a cos - b sin, b cos + a sin)."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def alibi_slopes(heads: int) -> Tensor:
    """The paper's slopes, float32 [H]: 2^(-8h/H) for h = 1..H where H is a power of two; otherwise those of the
    power below, then every other one of the power above."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * h / power) for h in range(1, power + 1)]
    slopes += [2.0 ** (-4.0 * h / power) for h in range(1, 2 * (heads - power), 2)]
    return torch.tensor(slopes)


def _frequencies(width: int, base: float) -> Tensor:
    """base^(-2i / width) for i = 0 .. ceil(width / 2) - 1, float32; computed in float64, as the slow ones are tiny."""
    exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
    return torch.pow(torch.tensor(base, dtype=torch.float64), -exponents).float()


def require_place(positions: Positions, longest: int) -> None:
    """InputError where a sequence is longer than the scheme can place."""
    if positions.limit is not None and longest > positions.limit:
        raise InputError(
            f"a sequence of {longest} tokens, but {type(positions).__name__.lower()} positions end at "
            f"max_length={positions.limit}: cut the sequence or raise max_length"
        )
