"""Our transformer: token ids or vectors to hidden states, sequences laid end to end, one readable file.

Every matrix product, norm and activation runs over real tokens only; attention alone knows where sequences begin and
end (``attention.py``), and positions are pluggable (``positions.py``). Parts named by ``TransformerConfig`` make it a
GPT, a Qwen3, a BERT (``transformer_config.py``); ``statemap.py`` maps its weights to and from Hugging Face's.

Initialisation: every matrix and table is normal with standard deviation 0.02, the two projections of a block that
write into the residual stream are divided by sqrt(2 * layers) (as in GPT-2, so that the stream's variance does not grow
with depth), biases are 0, norms 1.

Legend: B sequences, N tokens (sum of lengths), S new tokens per row, D width, V vocabulary, H query heads,
Hkv key/value heads, d head width, F feed-forward width.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, cast, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nextvec.nn.backbones.attention import (
    Attend,
    Cached,
    Grouped,
    Jagged,
    Layout,
    Recording,
    attention,
    attention_masks,
    cached_mask,
)
from nextvec.nn.backbones.cache import KVCache
from nextvec.nn.backbones.positions import POSITIONS, Positions, Rotation, Turned, require_place, rotate
from nextvec.nn.backbones.transformer_config import TransformerConfig
from nextvec.nn.linear import Linear, linear
from nextvec.types import InputError, Ragged

__all__ = ["Block", "Transformer", "TransformerConfig"]


def _norm(config: TransformerConfig) -> nn.Module:
    if config.norm == "layer":
        return nn.LayerNorm(config.dim, eps=config.eps)
    return nn.RMSNorm(config.dim, eps=config.eps)


class Block(nn.Module):
    """Attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        heads, key_heads, width = config.heads, config.key_heads, config.head_width
        self.heads, self.key_heads, self.head_width = heads, key_heads, width
        self.post, self.activation = config.norm_position == "post", config.activation
        self.qkv = Linear(config.dim, (heads + 2 * key_heads) * width, bias=config.biases)
        self.out = Linear(heads * width, config.dim, bias=config.biases)
        self.up = Linear(config.dim, (2 if config.gated else 1) * config.ffn_width, bias=config.biases)
        self.down = Linear(config.ffn_width, config.dim, bias=config.biases)
        self.attention_norm, self.ffn_norm = _norm(config), _norm(config)
        self.eps = config.eps
        self.query_scale = nn.Parameter(torch.ones(width)) if config.qk_norm else None
        self.key_scale = nn.Parameter(torch.ones(width)) if config.qk_norm else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotation: Rotation | None, attend: Attend) -> Tensor:
        """x [N, D] -> [N, D]."""
        if self.post:
            x = self.attention_norm(x + self._attention(x, rotation, attend))
            x = self.ffn_norm(x + self._ffn(x))
            return x
        x = x + self._attention(self.attention_norm(x), rotation, attend)
        return x + self._ffn(self.ffn_norm(x))

    def _attention(self, x: Tensor, rotation: Rotation | None, attend: Attend) -> Tensor:
        heads = self.qkv(x).view(len(x), -1, self.head_width)
        q, k, v = heads.split((self.heads, self.key_heads, self.key_heads), dim=1)
        if self.query_scale is not None and self.key_scale is not None:
            q, k = self._scaled(q, self.query_scale), self._scaled(k, self.key_scale)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        added: Tensor = self.dropout(self.out(attention(attend, q, k, v)))
        return added

    def _scaled(self, heads: Tensor, scale: Tensor) -> Tensor:
        return F.rms_norm(heads, scale.shape, scale.to(heads.dtype), self.eps)

    def _ffn(self, x: Tensor) -> Tensor:
        added: Tensor = self.dropout(self.down(_activate(self.up(x), self.activation)))
        return added


def _activate(x: Tensor, activation: str) -> Tensor:
    if activation in ("swiglu", "geglu"):
        gate, value = x.chunk(2, dim=-1)
        return (F.silu(gate) if activation == "swiglu" else F.gelu(gate)) * value
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class Transformer(nn.Module):
    """Token ids or vectors [N] / [N, D], end to end, to hidden states [N, D]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = config.checkpointing
        self.path: Literal["auto", "grouped", "jagged"] = "auto"
        """Which attention path to take: "auto" is jagged on CUDA where no mask is needed, else grouped."""
        self.tokens = nn.Embedding(config.vocab, config.dim) if config.vocab else None
        self.types = nn.Embedding(config.token_types, config.dim) if config.token_types else None
        self.positions: Positions = POSITIONS[config.positions](config)
        self.embed_norm = _norm(config) if config.embed_norm else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = _norm(config) if config.norm_position == "pre" else None
        untied = config.vocab and not config.tied
        self.head = Linear(config.dim, config.vocab, bias=False) if untied else None
        self.apply(_initialise)
        with torch.no_grad():
            for block in self._blocks():
                for projection in (block.out, block.down):
                    projection.weight.mul_(1 / math.sqrt(2 * config.layers))

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def embed(self, ids: Tensor) -> Tensor:
        """Rows [N, D] of the token table for ``ids`` int64 [N]; positions are added by ``forward``."""
        if self.tokens is None:
            raise InputError("token ids for a transformer without a token table (vocab=0): give vectors [N, D]")
        if ids.dtype not in (torch.int64, torch.int32):
            raise InputError(f"token ids of type {ids.dtype}; expected int64")
        # On a GPU this check would wait for the device; there the kernel's own assertion speaks.
        if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
            low, high = int(ids.min()), int(ids.max())
            if low < 0 or high >= self.config.vocab:
                raise InputError(
                    f"token id {high if high >= self.config.vocab else low} is outside the vocabulary of "
                    f"{self.config.vocab:,} (0 to {self.config.vocab - 1})"
                )
        rows: Tensor = self.tokens(ids)
        return rows

    def head_weight(self) -> Tensor:
        """The matrix [V, D] that turns hidden states into logits: the token table where ``tied``."""
        if self.head is not None:
            return self.head.weight
        if self.tokens is None:
            raise InputError("logits of a transformer without a vocabulary (vocab=0)")
        return self.tokens.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of final hidden states [..., D]."""
        return linear(hidden, self.head_weight())

    @overload
    def forward(
        self,
        inputs: Ragged,
        *,
        blocks: Tensor | None = ...,
        all_states: Literal[False] = ...,
        vectors: Tensor | None = ...,
        at: Tensor | None = ...,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        inputs: Ragged,
        *,
        all_states: Literal[True],
        blocks: Tensor | None = ...,
        vectors: Tensor | None = ...,
        at: Tensor | None = ...,
    ) -> list[Tensor]: ...

    def forward(
        self,
        inputs: Ragged,
        *,
        blocks: Tensor | None = None,
        all_states: bool = False,
        vectors: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Tensor | list[Tensor]:
        """Hidden states [N, D] after the last block (and the final norm where norms come first).

        inputs: token ids int64 [N] or vectors float [N, D], with lengths of at least 1; vectors [M, D] and at bool [N]
        (M True): rows that stand in for token embeddings at those places; blocks int64 [N], for block-causal attention
        only: token i sees token j of its sequence where blocks[j] <= blocks[i]; all_states: return the layers + 1
        states instead, the embeddings first.

        Raises InputError for ids outside the vocabulary, an empty sequence, a sequence longer than learned positions
        reach, and shapes that do not fit.
        """
        h, layout, attend = self._prepare(inputs, blocks, self._rows(inputs.values, vectors, at))
        states = self._run(h, layout.places, [attend] * self.config.layers, keep=all_states)
        states = [layout.restore(state) for state in states]
        return states if all_states else states[-1]

    def _prepare(self, inputs: Ragged, blocks: Tensor | None, h: Tensor) -> tuple[Tensor, Layout, Attend]:
        """Rows [N, D] in computing order, that order, and attention for it."""
        kind, slopes = self.config.attention, self.positions.slopes()
        if (blocks is None) == (kind == "block_causal"):
            what = "needs blocks, int64 [N]" if blocks is None else "takes no blocks"
            raise InputError(f"{kind} attention {what}")
        if blocks is not None and (blocks.shape != h.shape[:1] or blocks.is_floating_point()):
            raise InputError(f"blocks: {blocks.dtype} {list(blocks.shape)}; expected int64 [{len(h)}]")
        jagged = self._jagged(h.device, plain=blocks is None and slopes is None)
        layout = Layout.of(inputs.lengths, device=h.device, group=not jagged)
        require_place(self.positions, max(layout.lengths))
        if jagged:
            return h, layout, Jagged(layout.lengths, causal=kind == "causal", device=h.device)
        blocks = None if blocks is None else layout.arrange(blocks.to(h.device))
        masks = attention_masks(layout, kind=kind, blocks=blocks, slopes=slopes, device=h.device)
        return layout.arrange(h), layout, Grouped(layout.runs, causal=kind == "causal", masks=masks)

    def _rows(self, values: Tensor, vectors: Tensor | None, at: Tensor | None) -> Tensor:
        """What enters the network before positions, [N, D]."""
        if values.is_floating_point():
            if values.ndim != 2 or values.shape[1] != self.config.dim:
                raise InputError(f"vectors of shape {list(values.shape)}; expected [N, {self.config.dim}]")
            h = values
        else:
            if values.ndim != 1:
                raise InputError(f"token ids of shape {list(values.shape)}; expected [N], sequences end to end")
            h = self.embed(values)
        if (vectors is None) != (at is None):
            raise InputError("vectors and at come together: rows [M, D], and bool [N] that is True at their M places")
        if vectors is None or at is None:
            return h
        if at.dtype != torch.bool or at.shape != h.shape[:1]:
            raise InputError(f"at: {at.dtype} {list(at.shape)}; expected bool [{len(h)}]")
        index = at.nonzero().squeeze(1)
        if vectors.shape != (len(index), h.shape[1]):
            raise InputError(f"vectors {list(vectors.shape)}; expected [{len(index)}, {h.shape[1]}], one per place")
        return h.index_copy(0, index, vectors.to(h.dtype))

    def _jagged(self, device: torch.device, *, plain: bool) -> bool:
        if self.path == "auto":
            # The GPU's kernels take heads whose width is a multiple of 8.
            return plain and device.type == "cuda" and self.config.head_width % 8 == 0
        if self.path == "jagged" and not plain:
            raise InputError("jagged attention takes no masks: alibi and block-causal attention are grouped")
        return self.path == "jagged"

    def _run(
        self,
        h: Tensor,
        places: Tensor,
        attends: list[Attend],
        *,
        keep: bool = False,
        cached: Turned | None = None,
    ) -> list[Tensor]:
        """The states: all layers + 1 with ``keep``, else the last alone. cached: for positions that go on."""
        if self.types is not None:
            h = h + self.types.weight[0]
        h = self.positions.add(h, places)
        if self.embed_norm is not None:
            h = self.embed_norm(h)
        h = self.dropout(h)
        rotation = self.positions.rotation(h, places, cached)
        states = [h]
        for block, attend in zip(self._blocks(), attends, strict=True):
            if self.checkpointing and self.training and torch.is_grad_enabled():
                h = checkpoint(block, h, rotation, attend, use_reentrant=False, preserve_rng_state=True)
            else:
                h = block(h, rotation, attend)
            states.append(h)
        if self.final_norm is not None:
            states[-1] = self.final_norm(h)
        return states if keep else states[-1:]

    def new_cache(self, rows: int, *, capacity: int = 64) -> KVCache:
        """An empty ``KVCache`` for ``rows`` sequences, on this model's device and in its type."""
        config, weight = self.config, self._blocks()[0].qkv.weight
        if config.attention != "causal":
            raise InputError(f"a cache for {config.attention} attention: only causal models decode in steps")
        return KVCache(
            layers=config.layers,
            rows=rows,
            heads=config.key_heads,
            head_width=config.head_width,
            capacity=capacity,
            device=weight.device,
            dtype=weight.dtype,
        )

    @torch.no_grad()
    def prefill(self, inputs: Ragged, cache: KVCache) -> Tensor:
        """Hidden states [N, D] of prompts laid end to end; fills the empty ``cache``, one row per prompt."""
        if bool(cache.lengths.any()) or cache.rows != len(inputs):
            raise InputError(
                f"prefill of {len(inputs)} prompts into a cache of {cache.rows} rows with lengths "
                f"{cache.lengths.tolist()[:8]}: an empty cache with a row per prompt is needed"
            )
        h, layout, inner = self._prepare(inputs, None, self._rows(inputs.values, None, None))
        cache.reserve(max(layout.lengths))
        rows = layout.arrange(torch.repeat_interleave(torch.arange(len(inputs)), inputs.lengths).to(h.device))
        attends: list[Attend] = [Recording(inner, cache, i, rows, layout.places) for i in range(self.config.layers)]
        (h,) = self._run(h, layout.places, attends, cached=partial(cache.turn, rows, layout.places))
        cache.lengths = inputs.lengths.clone()
        return layout.restore(h)

    @torch.no_grad()
    def forward_cached(self, inputs: Tensor, cache: KVCache) -> Tensor:
        """Hidden states [B, S, D] of S new tokens per row: ids int64 [B, S] or vectors [B, S, D].

        They are appended to ``cache``, whose rows may differ in length. Without gradients. Equal to ``forward`` on the
        whole sequences, up to rounding.
        """
        rows, steps = inputs.shape[:2]
        if rows != cache.rows or not steps:
            raise InputError(f"{list(inputs.shape)} for a cache of {cache.rows} rows; expected [{cache.rows}, S >= 1]")
        h = self._rows(inputs.flatten(0, 1), None, None)
        filled = cache.lengths
        end = int(filled.max()) + steps
        require_place(self.positions, end)
        cache.reserve(end)
        row_of = torch.arange(rows).repeat_interleave(steps).to(h.device)
        places = (filled[:, None] + torch.arange(steps)).flatten().to(h.device)
        mask = cached_mask(filled, steps, slopes=self.positions.slopes(), device=h.device)
        attends: list[Attend] = [Cached(cache, i, row_of, places, mask) for i in range(self.config.layers)]
        (h,) = self._run(h, places, attends, cached=partial(cache.turn, row_of, places))
        cache.lengths = filled + steps
        return h.view(rows, steps, -1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
