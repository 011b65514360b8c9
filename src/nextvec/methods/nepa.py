"""NEPA: a vision transformer that foretells the embedding of the next patch, and nothing else.

An image is cut into patches, row by row; each becomes a vector by one linear map, which is trained too. A transformer
that sees only what came before gives, at patch t, the vector that it expects of patch t + 1.

    z_t = E x_t                      patch embedding
    h_t = f(z_1 + p_1, ..., z_t + p_t)         causal; p: positions
    L   = mean over t < T of  1 - cos(h_t, sg[z_{t+1}])

There is no decoder, no second network, no augmented view and no negative example: a causal mask, a shift by one and a
stop-gradient. Without the shift the map from z_t to itself would do; without the stop all z_t could become equal.

    symbol   here                          shape
    x        batch "image"                 uint8 [B, S, S, 3]
    z        out "target"                  [B * T, D]
    h        out "pred_1"                  [B * (T - 1), D], or with shift=0 "pred_0", [B * T, D]

Source: "Next-Embedding Prediction Makes Strong Vision Learners", arXiv 2512.16922. Differences and own choices: see
``Nepa.card``. Legend: B images, S side in pixels, P side of a patch, T = (S / P)^2 patches of an image, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from nextvec.data.images import read_images
from nextvec.data.sources import Shuffled, Source
from nextvec.engine.method import Method
from nextvec.nn.backbones.vit import ViT, ViTConfig
from nextvec.objectives.base import Objective
from nextvec.objectives.next_embedding import NextEmbedding
from nextvec.types import Batch, Card, Claim, InputError


class Nepa(Method):
    """A causal vision transformer; ``features`` are what is measured and used."""

    card = Card(
        name="nepa",
        title="NEPA: next-embedding prediction makes strong vision learners",
        arxiv="2512.16922",
        year=2025,
        family="next-embedding prediction",
        claim="Trained on nothing but the next patch's embedding, a vision transformer becomes a good beginning for"
        " fine-tuning (83.8 % and 85.3 % of ImageNet-1K with ViT-B and ViT-L); the shift and the stop-gradient are"
        " needed.",
        differs=(
            "Vectors of rows and columns are added as positions, LayerNorm and GELU; rotary positions, LayerScale,"
            " SwiGLU and normalised queries and keys, which keep large models stable, are left out.",
            "The last norm of the transformer stands before the cosine; there is no further head.",
            "Small images, and models of about a million weights; the paper's are ViT-B and ViT-L on ImageNet-1K.",
        ),
    )
    train_settings: ClassVar[tuple[str, ...]] = ("optim.lr=1e-3", "optim.weight_decay=0.05", "batch=64")
    sample: ClassVar[str] = "pictures"
    direction: ClassVar[Mapping[str, str]] = {"next_embedding": "down"}

    @dataclass(kw_only=True)
    class Config:
        """depth: the size dial, layers of width 32 * depth (or ``dim``). size: S, to which images are cut and scaled;
        patch: P. stop: the stop-gradient; shift: 1, or 0 for the control that foretells the patch it sees. attention:
        "causal", or "bidirectional", for fine-tuning afterwards."""

        depth: int = 4
        dim: int | None = None
        size: int = 32
        patch: int = 4
        stop: bool = True
        shift: int = 1
        attention: str = "causal"
        dropout: float = 0.0

        def vit(self) -> ViTConfig:
            """The transformer's settings."""
            return ViTConfig(
                image=self.size,
                patch=self.patch,
                dim=self.dim or 32 * self.depth,
                layers=self.depth,
                attention=self.attention,
                dropout=self.dropout,
            )

    def __init__(self, config: Any, *, tokenizer: None = None) -> None:
        super().__init__(config)
        if config.shift not in (0, 1) or config.size // config.patch < 2:
            raise InputError(
                f"shift is {config.shift}, images of {config.size} in patches of {config.patch} pixels; expected a "
                "shift of 0 or 1, and at least 4 patches"
            )
        self.vit = ViT(config.vit())

    def pixels(self, images: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] as numbers from -1 to 1, [B, 3, S, S]."""
        return images.permute(0, 3, 1, 2).to(self.vit.patches.weight.dtype) / 127.5 - 1

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``target`` and ``pred_1`` (or ``pred_0``)."""
        vectors = self.vit.patch_vectors(self.pixels(batch.tensor("image")))
        states = self.vit.contextual(vectors)
        foretold = states[:, : states.shape[1] - self.config.shift]
        width = states.shape[-1]
        return {"target": vectors.reshape(-1, width), f"pred_{self.config.shift}": foretold.reshape(-1, width)}

    def objective(self) -> Objective:
        patches = (self.config.size // self.config.patch) ** 2
        return NextEmbedding(ahead=(self.config.shift,), each=patches, stop=self.config.stop)

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """The mean of the patches' states [B, D], of the embeddings and of every layer; images uint8 [B, S, S, 3]."""
        vectors = self.vit.patch_vectors(self.pixels(images))
        return [state.mean(dim=1) for state in self.vit.contextual(vectors, all_states=True)]

    def encoder(self) -> None:
        """There is no encoder of texts: what is embedded here are images (``features``)."""

    def flops_per_item(self) -> float:
        """Per image."""
        patches = (self.config.size // self.config.patch) ** 2
        return 6.0 * float(patches * sum(p.numel() for p in self.vit.transformer.parameters()))

    @classmethod
    def toy(cls, seed: int) -> tuple[Self, Batch]:
        """Eight images of 8 pixels, in patches of 2."""
        torch.manual_seed(seed)
        images = torch.randint(0, 256, (8, 8, 8, 3), dtype=torch.uint8)
        return cls(cls.Config(depth=2, dim=32, size=8, patch=2)), Batch({"image": images})

    @classmethod
    def prepare(cls, data: Path, config: Any, *, batch: int, seed: int, folder: Path) -> tuple[Self, Source]:
        """data: a folder of images, at any depth, or a tar archive of them; each is cut to its middle square and scaled
        to ``config.size``. Folders' names, where there are some, are not looked at."""
        torch.manual_seed(seed)
        method = cls(config)
        images = read_images(data, size=config.size)
        return method, Shuffled({"image": images.pixels}, batch=batch, seed=seed)

    @staticmethod
    def claim(scale: str) -> Claim:
        """Probes and fine-tuning on CIFAR-10."""
        from nextvec.methods import _nepa_claim

        return _nepa_claim.claim(scale)
