"""A vision transformer: images cut into patches, patches as vectors with learned positions, and our transformer.

Every patch of P x P pixels is one linear map of its values, and adds a learned vector of its row and one of its column
(an image smaller than the largest uses the first rows and columns). There is no extra token: what stands for the whole
image is the mean of its patches.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (arXiv 2010.11929). Row and column vectors instead of
one vector per patch, and the mean instead of a class token (as in the paper's appendix D.3), are our choices.

Legend: B images, C channels, H x W pixels, P side of a patch, R x S = H/P x W/P patches, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor, nn

from nextvec.nn.backbones.transformer import Transformer, TransformerConfig
from nextvec.nn.linear import Linear
from nextvec.types import InputError, Ragged

__all__ = ["ViT", "ViTConfig"]


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """image: the largest height and width; patch: P; heads: None for one of 32 values each; attention: "bidirectional",
    or "causal": a patch sees those before it, row by row."""

    image: int = 32
    patch: int = 8
    channels: int = 3
    dim: int = 64
    layers: int = 2
    heads: int | None = None
    attention: str = "bidirectional"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if min(self.image, self.patch, self.channels, self.dim) < 1 or self.image % self.patch:
            raise InputError(
                f"images of {self.image} in patches of {self.patch} pixels, {self.channels} channels, dim {self.dim}: "
                "expected at least 1 of each, and whole patches"
            )

    @property
    def transformer(self) -> TransformerConfig:
        """The blocks: pre-norm with LayerNorm, GELU and biases as in the paper; positions are added here."""
        return TransformerConfig(
            vocab=0,
            dim=self.dim,
            layers=self.layers,
            heads=self.heads or max(self.dim // 32, 1),
            norm="layer",
            activation="gelu",
            positions="none",
            attention=self.attention,
            biases=True,
            dropout=self.dropout,
        )


class ViT(nn.Module):
    """Images [B, C, H, W] to patch states [B, R * S, D], row by row."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = Linear(config.channels * config.patch**2, config.dim)
        side = config.image // config.patch
        self.row_table = nn.Parameter(torch.empty(side, config.dim))
        self.column_table = nn.Parameter(torch.empty(side, config.dim))
        self.transformer = Transformer(config.transformer)
        nn.init.xavier_uniform_(self.patches.weight)
        nn.init.zeros_(self.patches.bias)
        for table in (self.row_table, self.column_table):
            nn.init.normal_(table, std=0.02)

    @overload
    def forward(self, images: Tensor, *, all_states: Literal[False] = ...) -> Tensor: ...

    @overload
    def forward(self, images: Tensor, *, all_states: Literal[True]) -> list[Tensor]: ...

    def forward(self, images: Tensor, *, all_states: bool = False) -> Tensor | list[Tensor]:
        """Patch states [B, R * S, D] after the last block; all_states: those of the patches with their positions and of
        every block, layers + 1 in all.

        images: float [B, C, H, W], H and W multiples of P and at most ``image``; their scale is the caller's.
        """
        return self.contextual(self.patch_vectors(images), all_states=all_states)

    def patch_vectors(self, images: Tensor) -> Tensor:
        """Patches as vectors [B, R, S, D], before positions are added."""
        x, (rows, columns) = self._cut(images)
        vectors: Tensor = self.patches(x).view(len(x), rows, columns, -1)
        return vectors

    @overload
    def contextual(self, vectors: Tensor, *, all_states: Literal[False] = ...) -> Tensor: ...

    @overload
    def contextual(self, vectors: Tensor, *, all_states: Literal[True]) -> list[Tensor]: ...

    @overload
    def contextual(self, vectors: Tensor, *, all_states: bool) -> Tensor | list[Tensor]: ...

    def contextual(self, vectors: Tensor, *, all_states: bool = False) -> Tensor | list[Tensor]:
        """The states of ``forward`` from what ``patch_vectors`` gave, [B, R, S, D]."""
        count, rows, columns, width = vectors.shape
        places = self.row_table[:rows, None] + self.column_table[None, :columns]
        x = vectors + places.to(vectors.dtype)
        patches = rows * columns
        ends = Ragged(x.reshape(-1, width), torch.full((count,), patches))
        if all_states:
            return [state.view(count, patches, width) for state in self.transformer(ends, all_states=True)]
        states: Tensor = self.transformer(ends)
        return states.view(count, patches, width)

    def embed(self, images: Tensor) -> Tensor:
        """One vector per image, [B, D]: the mean of its patch states."""
        states: Tensor = self(images)
        return states.mean(dim=1)

    def _cut(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patches [B, R * S, C * P * P] and (R, S)."""
        side, largest, channels = self.config.patch, self.config.image, self.config.channels
        height, width = images.shape[-2:] if images.ndim == 4 else (0, 0)
        fits = images.ndim == 4 and images.shape[1] == channels and images.is_floating_point() and len(images)
        if not fits or height % side or width % side or not (1 <= height <= largest and 1 <= width <= largest):
            raise InputError(
                f"images of shape {list(images.shape)} ({images.dtype}); expected float [B, {channels}, H, W] with H "
                f"and W multiples of {side} up to {largest}"
            )
        rows, columns = height // side, width // side
        cut = images.reshape(len(images), channels, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        return cut.reshape(len(images), rows * columns, channels * side * side), (rows, columns)
