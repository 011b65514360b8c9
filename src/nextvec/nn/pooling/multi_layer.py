"""Multi-layer trainable pooling: one vector per layer, a learned layer embedding, and latents that query the layers.

    x_l = p(h_l) + e_l,   l = 1 .. L         p: mean over tokens (bidirectional model), or last token (causal)
    v   = LatentQueryPooling(x_1 .. x_L)

Source: Tang and Yang 2024, "Pooling and Attention" (arXiv 2409.02727), variants M3 and M5: 768 latents, 32 heads.
Differs: there are as many layer embeddings as the model has layers (the published code fixes 32, and so fails or goes
short on others); the mean does not run over padding; the vector is not normalised here (truncation comes first). One
layer is refused: a softmax over one key is 1, and the latents would read nothing. Layer embeddings begin at zero.

Legend: N tokens, B texts, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nextvec.nn.pooling.latent import LatentQueryPooling
from nextvec.nn.pooling.modes import check_modes, pool
from nextvec.types import InputError

__all__ = ["MultiLayerPooling"]


class MultiLayerPooling(nn.Module):
    """States of all layers to [B, D]; zeros for a text without tokens."""

    def __init__(
        self,
        width: int,
        layers: int,
        *,
        mode: str = "mean",
        latents: int = 768,
        heads: int = 32,
        head_width: int | None = None,
        expansion: int = 4,
    ) -> None:
        """width D; layers L, at least 2; mode: what makes one vector of a layer, a name of ``modes.MODES``; the rest as
        for ``LatentQueryPooling``."""
        super().__init__()
        if layers < 2:
            raise InputError(f"multi-layer pooling over {layers} layers; expected at least 2")
        self.mode = check_modes((mode,))[0]
        self.layers = layers
        self.pooler = LatentQueryPooling(
            width, latents=latents, heads=heads, head_width=head_width, expansion=expansion
        )
        self.layer = nn.Parameter(torch.zeros(layers, width))

    def forward(self, states: Sequence[Tensor] | Tensor, lengths: Tensor) -> Tensor:
        """states: L + 1 tensors [N, D] (the embeddings' output first, which is left out), or one [L + 1, N, D]."""
        if len(states) != self.layers + 1:
            raise InputError(f"{len(states)} states; expected {self.layers + 1}: the embeddings' and each layer's")
        pooled = [pool(states[layer], lengths, modes=(self.mode,)) for layer in range(1, self.layers + 1)]
        context = torch.stack(pooled, dim=1).to(self.layer.dtype)
        if context.shape[2] != self.layer.shape[1]:
            raise InputError(f"states are {context.shape[2]} wide; expected {self.layer.shape[1]}")
        return self.pooler.attend(context + self.layer).masked_fill((lengths == 0)[:, None], 0.0)
