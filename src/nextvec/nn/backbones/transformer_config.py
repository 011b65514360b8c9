"""The shape of a transformer, checked before anything is built.

Legend: D width, H query heads, Hkv key/value heads, d head width, F feed-forward width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nextvec.types import InputError, did_you_mean

__all__ = ["TransformerConfig"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "norm": ("rms", "layer"),
    "norm_position": ("pre", "post"),
    "activation": ("swiglu", "geglu", "gelu", "gelu_tanh", "relu"),
    "positions": ("rope", "carope", "carope_constant", "learned", "sinusoidal", "alibi", "none"),
    "rope_scaling": ("none", "linear", "ntk"),
    "attention": ("causal", "bidirectional", "block_causal"),
}


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The shape of a transformer. ``sized(depth)`` fills it from one number.

    vocab: rows of the token table, 0 for none (the input is then vectors); kv_heads: key/value heads, each shared by
    heads / kv_heads query heads (None: as many as heads); head_dim: width of a head (None: dim / heads); ffn: width of
    the feed-forward layer (None: 4 dim, or 8/3 dim rounded up to 64 where it is gated); norm_position: "post"
    normalises after the residual sum, as BERT does; max_length: longest sequence (a limit only for learned positions);
    attention: "block_causal" lets a token see every token of its own and earlier blocks; qk_norm: RMS norm of every
    query and key head; tied: the head is the token table; biases: of every linear layer; dropout: of the embeddings
    and of what each half-block adds (not of attention weights, for which fast kernels have no place on the CPU);
    embed_norm: normalise the embeddings; token_types: rows of a table whose row 0 is added to every token (BERT);
    checkpointing: recompute each block in the backward pass instead of storing its activations.
    """

    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None
    ffn: int | None = None
    norm: str = "rms"
    norm_position: str = "pre"
    activation: str = "swiglu"
    positions: str = "rope"
    rope_theta: float = 10_000.0
    rope_scaling: str = "none"
    rope_factor: float = 1.0
    max_length: int = 2048
    attention: str = "causal"
    qk_norm: bool = False
    tied: bool = True
    biases: bool = False
    dropout: float = 0.0
    eps: float = 1e-6
    embed_norm: bool = False
    token_types: int = 0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise InputError(
                    f"transformer {name}={value!r}; expected one of {', '.join(known)}{did_you_mean(str(value), known)}"
                )
        if min(self.dim, self.layers, self.heads, self.max_length) < 1 or min(self.vocab, self.token_types) < 0:
            raise InputError("dim, layers, heads and max_length must be at least 1; vocab and token_types at least 0")
        if self.head_dim is None and self.dim % self.heads:
            raise InputError(f"dim={self.dim} is no multiple of heads={self.heads}: choose one, or give head_dim")
        if self.key_heads < 1 or self.heads % self.key_heads:
            raise InputError(f"{self.heads} heads cannot share kv_heads={self.kv_heads}: it must divide them")
        if self.positions in ("rope", "carope", "carope_constant") and self.head_width % 2:
            raise InputError(f"rotary positions turn pairs: a head of width {self.head_width} must be even")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout}: expected at least 0 and below 1")
        if self.rope_factor < 1 or (self.rope_factor != 1 and self.rope_scaling == "none"):
            raise InputError(
                f"rope_factor={self.rope_factor} with rope_scaling={self.rope_scaling!r}: a factor of at least 1, "
                "and above 1 only with linear or ntk scaling"
            )

    @property
    def key_heads(self) -> int:
        """Key/value heads Hkv."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_width(self) -> int:
        """Width d of a head."""
        return self.dim // self.heads if self.head_dim is None else self.head_dim

    @property
    def rope_base(self) -> float:
        """The base of rotary positions, raised to theta * factor^(d / (d - 2)) by "ntk" scaling."""
        if self.rope_scaling != "ntk":
            return self.rope_theta
        return float(self.rope_theta * self.rope_factor ** (self.head_width / max(self.head_width - 2, 1)))

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layer multiplies by an activated gate."""
        return self.activation in ("swiglu", "geglu")

    @property
    def ffn_width(self) -> int:
        """Feed-forward width F."""
        if self.ffn is not None:
            return self.ffn
        return -(-8 * self.dim // 3 // 64) * 64 if self.gated else 4 * self.dim

    @classmethod
    def sized(cls, depth: int, *, vocab: int, **changes: Any) -> TransformerConfig:
        """A model from one number: ``depth`` layers of width 64 * depth, heads 64 wide; ``changes`` override.

        Parameters without the token table: about 12 * depth * dim^2, so 0.2M at depth 2, 3M at 4, 25M at 8, 85M at 12.
        """
        if depth < 1:
            raise InputError(f"a transformer of depth {depth}: at least 1 is needed")
        shape: dict[str, Any] = {"vocab": vocab, "dim": 64 * depth, "layers": depth, "heads": depth, **changes}
        return cls(**shape)
