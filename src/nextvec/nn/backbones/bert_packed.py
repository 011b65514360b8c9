"""A padding-free forward pass for BERT-shaped encoders (BERT, RoBERTa, XLM-RoBERTa) on the CPU.

Hugging Face pads every text of a batch to the longest and runs each element-wise step over the padding too. Here the
texts of a batch lie end to end in one [N, D] matrix, so every matrix product, norm and activation touches real tokens
only; texts of equal length share one attention call. Query, key and value are one product, GELU and the residual sum
are fused into the products where oneDNN offers that, and batches are small enough to stay in cache.

Legend: N tokens in the batch, B texts, L tokens of one text, D width, H heads, F feed-forward width.
The weights are those of the Hugging Face module, so the results are its results up to rounding (tested).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nextvec.nn.linear import linear

SUPPORTED = frozenset({"bert", "roberta", "xlm-roberta", "camembert"})
_GELU = {"gelu", "gelu_python"}


def supports(config: Any) -> bool:
    """Whether ``config`` describes a plain post-norm BERT encoder that this file computes exactly."""
    return (
        config.model_type in SUPPORTED
        and config.hidden_act in _GELU
        and getattr(config, "position_embedding_type", None) in (None, "absolute")
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
    )


def _fused_available(dtype: torch.dtype) -> bool:
    if not (torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    # Without AVX-512 the fused products refuse bfloat16, which the plain ones compute on any CPU.
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's weights: qkv [3D, D], out [D, D], up [F, D], down [D, F], and two norms (weight, bias, eps)."""

    qkv: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]
    norm1: tuple[Tensor, Tensor]
    up: tuple[Tensor, Tensor]
    down: tuple[Tensor, Tensor]
    norm2: tuple[Tensor, Tensor]


class PackedBert:
    """Computes last hidden states for texts laid end to end; built from a Hugging Face encoder's weights."""

    def __init__(self, model: Any, *, dtype: torch.dtype) -> None:
        """Take the weights of ``model`` (BertModel and kin); ``dtype`` is float32 or bfloat16."""
        config = model.config
        self.heads = int(config.num_attention_heads)
        self.eps = float(config.layer_norm_eps)
        # RoBERTa numbers positions from padding_idx + 1; BERT from 0.
        padding = model.embeddings.position_embeddings.padding_idx
        self.first_position = 0 if config.model_type == "bert" else int(padding) + 1
        self.fused = _fused_available(dtype)

        def cast(*tensors: Tensor) -> tuple[Tensor, ...]:
            return tuple(t.detach().to(dtype).contiguous() for t in tensors)

        def pair(module: Any) -> tuple[Tensor, Tensor]:
            weight, bias = cast(module.weight, module.bias)
            return weight, bias

        e = model.embeddings
        (self.words,) = cast(e.word_embeddings.weight)
        # Token type 0 is added to every position: fold it into the position table.
        (self.positions,) = cast(e.position_embeddings.weight + e.token_type_embeddings.weight[0])
        self.norm0 = pair(e.LayerNorm)
        self.layers = []
        for layer in model.encoder.layer:
            a = layer.attention.self
            weight, bias = cast(
                torch.cat([a.query.weight, a.key.weight, a.value.weight]),
                torch.cat([a.query.bias, a.key.bias, a.value.bias]),
            )
            attended, up, down = layer.attention.output, layer.intermediate.dense, layer.output
            self.layers.append(
                _Layer(
                    (weight, bias),
                    pair(attended.dense),
                    pair(attended.LayerNorm),
                    pair(up),
                    pair(down.dense),
                    pair(down.LayerNorm),
                )
            )

    @torch.inference_mode()
    def __call__(self, ids: Tensor, lengths: list[int], layers: int | None = None) -> Tensor:
        """Hidden states [N, D] of ``ids`` int64 [N], texts of ``lengths`` (sum N) end to end; after the first
        ``layers`` layers (None: all).

        Equal lengths should be neighbours: each run of equal lengths is one attention call.
        """
        runs = [(length, len(list(group))) for length, group in groupby(lengths)]
        steps = torch.arange(max(lengths, default=0)) + self.first_position
        positions = torch.cat([steps[:length].repeat(count) for length, count in runs])
        h = self._norm(F.embedding(ids, self.words) + F.embedding(positions, self.positions), self.norm0)
        for layer in self.layers[:layers]:
            h = self._norm(self._linear_add(self._attend(h, layer, runs), h, layer.out), layer.norm1)
            h = self._norm(self._linear_add(self._linear_gelu(h, layer.up), h, layer.down), layer.norm2)
        return h

    def _attend(self, h: Tensor, layer: _Layer, runs: list[tuple[int, int]]) -> Tensor:
        width = h.shape[1]
        qkv = linear(h, *layer.qkv)
        parts, start = [], 0
        for length, count in runs:
            stop = start + length * count
            shape = (count, length, 3, self.heads, width // self.heads)
            q, k, v = qkv[start:stop].view(shape).permute(2, 0, 3, 1, 4)
            # The CPU kernel lays its result out as [count, length, heads, ...]: transposing back copies nothing.
            parts.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, width))
            start = stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _norm(self, x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return F.layer_norm(x, (x.shape[1],), norm[0], norm[1], self.eps)

    def _linear_add(self, x: Tensor, other: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        if self.fused:
            summed: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, *weights, "add")
            return summed
        return F.linear(x, *weights) + other

    def _linear_gelu(self, x: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        if self.fused:
            activated: Tensor = torch.ops.mkldnn._linear_pointwise(x, *weights, "gelu", [], "none")
            return activated
        return F.gelu(F.linear(x, *weights))
