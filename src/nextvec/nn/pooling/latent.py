"""Pooling through learned latent vectors, on texts laid end to end: tokens that query latents, or the reverse.

``LatentAttention`` (NV-Embed): every token reads from r latents Z, a dictionary as it were, and the result is averaged.

    O = H + MHA(q = LN(H), kv = LN(Z)) W_o        [n, D]
    v = mean over tokens of  O + GEGLU(LN(O))     W_2 (gelu(g) * x), [x, g] = W_1 LN(O), inner width 4 D

``LatentQueryPooling`` ("Pooling and Attention"; Perceiver): r latents query the tokens, and the latents are averaged.

    O = Z + MHA(q = LN(Z), kv = LN(H)) W_o        [r, D], attending to the text's own tokens only
    v = mean over latents of  O + GEGLU(LN(O))

No linear map has a bias. Vectors are not normalised here: truncation comes first (see ``encoder``).

Sources: Lee et al. 2024 (arXiv 2405.17428), as released: the paper's formula omits heads, norms and residuals, and says
GELU where the code has GEGLU. Tang and Yang 2024 (arXiv 2409.02727): their published pooler attends to padding when it
is given all tokens, so that a vector depends on the batch; when it is given the last token alone (their variant M2) the
softmax runs over one key, is 1 whatever latents and query maps are, and what remains is a linear map of that token.
Here padding is masked, and a causal model's variant reads all tokens.

Legend: N tokens, B texts, D width, r latents, T tokens of the longest text, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nextvec.nn.linear import Linear
from nextvec.nn.pooling.modes import pool
from nextvec.types import InputError

__all__ = ["LatentAttention", "LatentQueryPooling"]


class _GatedForward(nn.Module):
    """LayerNorm, GEGLU of ``expansion`` times the width, and back; what is added to the residual."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = Linear(width, 2 * expansion * width, bias=False)
        self.down = Linear(expansion * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(self.norm(x)).chunk(2, dim=-1)
        out: Tensor = self.down(functional.gelu(gate) * value)
        return out


class _CrossAttention(nn.Module):
    """x [..., S, D] reads from context [..., T, D]: both normalised first; what is added to the residual."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_context = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = Linear(width, heads * head_width, bias=False)
        self.to_kv = Linear(width, 2 * heads * head_width, bias=False)
        self.to_out = Linear(heads * head_width, width, bias=False)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: bool [B, T], which of the context may be read."""
        q = self.to_q(self.norm(x))
        k, v = self.to_kv(self.norm_context(context)).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for part in (q, k, v))
        allowed = None if mask is None else mask[:, None, None, :]
        read = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        out: Tensor = self.to_out(read.transpose(-2, -3).flatten(-2))
        return out


class _Latents(nn.Module):
    """What both directions share: latents, one cross attention, one gated feed-forward."""

    def __init__(
        self, width: int, *, latents: int = 512, heads: int = 8, head_width: int | None = None, expansion: int = 4
    ) -> None:
        """width D; latents r, drawn from N(0, 1); head_width E, D / heads where not given (NV-Embed: D)."""
        super().__init__()
        if min(width, latents, heads, expansion) < 1 or (head_width is not None and head_width < 1):
            raise InputError(
                f"width {width}, latents {latents}, heads {heads}, head_width {head_width}, expansion {expansion}: all "
                "must be at least 1"
            )
        if head_width is None and width % heads:
            raise InputError(f"width {width} does not divide by {heads} heads; give head_width")
        self.width = width
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.attention = _CrossAttention(width, heads, head_width or width // heads)
        self.feed = _GatedForward(width, expansion)

    def _checked(self, hidden: Tensor) -> Tensor:
        if hidden.ndim != 2 or hidden.shape[1] != self.width:
            raise InputError(f"hidden has shape {list(hidden.shape)}; expected [N, {self.width}]")
        return hidden.to(self.latents.dtype)


class LatentAttention(_Latents):
    """hidden [N, D] and lengths int64 [B] to [B, D]: tokens query the latents. Zeros for a text without tokens."""

    def tokens(self, hidden: Tensor) -> Tensor:
        """The states before the mean: [N, D]. Each depends on its own state alone."""
        hidden = self._checked(hidden)
        # A batch of one: with a batch dimension torch takes its fused kernels.
        out = hidden + self.attention(hidden[None], self.latents[None])[0]
        read: Tensor = out + self.feed(out)
        return read

    def forward(self, hidden: Tensor, lengths: Tensor, *, skip: int | Tensor = 0) -> Tensor:
        """skip: leading tokens of each text (its instruction) that the mean leaves out, a number or int64 [B]."""
        return pool(self.tokens(hidden), lengths, skip=skip)


class LatentQueryPooling(_Latents):
    """hidden [N, D] and lengths int64 [B] to [B, D]: the latents query each text's tokens. Zeros for a text without."""

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        hidden = self._checked(hidden)
        sizes = lengths.tolist()
        if sum(sizes) != len(hidden):
            raise InputError(f"lengths add up to {sum(sizes)}, but there are {len(hidden)} states")
        if not sum(sizes):
            return hidden.new_zeros(len(sizes), self.width)
        padded = nn.utils.rnn.pad_sequence(list(torch.split_with_sizes(hidden, sizes)), batch_first=True)
        mask = torch.arange(padded.shape[1], device=hidden.device) < lengths.to(hidden.device)[:, None]
        return self.attend(padded, mask)

    def attend(self, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """context [B, T, D], mask bool [B, T] (None: all of it counts) to [B, D]; zeros where a row has no context."""
        empty = None if mask is None else ~mask.any(1, keepdim=True)
        # A softmax over nothing is NaN: an empty row reads its padding, and is set to zero afterwards.
        allowed = None if mask is None or empty is None else mask | empty
        latents = self.latents.expand(len(context), -1, -1)
        out = latents + self.attention(latents, context, allowed)
        pooled: Tensor = (out + self.feed(out)).mean(1)
        return pooled if empty is None else pooled.masked_fill(empty, 0.0)
