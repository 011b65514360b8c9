"""Operations of a transformer's passes in decoding, counted from shapes: a multiplication and an addition are two.

Matrix products alone are counted, those of attention included; norms, activations and rotations are small beside them.
"""

from __future__ import annotations

from torch import nn

from nextvec.nn.backbones.transformer import Transformer

__all__ = ["matrix_flops", "reading_flops"]


def matrix_flops(module: nn.Module) -> float:
    """Of one vector through every matrix of ``module``: 2 for each weight."""
    return 2.0 * sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 2)


def reading_flops(model: Transformer, places: int, *, after: int = 0, spoken: int = 0) -> float:
    """Of reading ``places`` places of one sequence after ``after`` others that are in the cache, with logits at
    ``spoken`` of them. A place attends to itself and to all before it: 4 for each value of a key."""
    config = model.config
    seen = places * after + places * (places + 1) / 2
    attended = 4.0 * config.layers * config.heads * config.head_width * seen
    head = 2.0 * spoken * model.head_weight().numel() if spoken else 0.0
    return places * matrix_flops(model.blocks) + attended + head
