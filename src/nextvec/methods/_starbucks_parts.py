"""Starbucks' masked pre-training: nested masks of whole words, and the heads that read every size of the model.

Legend: B texts, N tokens end to end, M hidden tokens, V vocabulary, D width, d a smaller width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nextvec.data.masking import IGNORED
from nextvec.data.tokenizers import TextTokenizer
from nextvec.nn.backbones.transformer import Transformer
from nextvec.nn.backbones.transformer_config import TransformerConfig
from nextvec.objectives.masked_tokens import hidden_rows
from nextvec.types import Batch, InputError, Ragged


@dataclass(frozen=True)
class NestedMasks:
    """Hides whole words of "text": a share ``few`` of them from the encoder, and those and more, ``many`` in all, from
    the decoder. begins: bool [V], whether a token begins a word. A change for ``sources.Changed``: it adds the Ragged
    columns "encoder", "encoder_labels", "decoder" and "decoder_labels"; every text with a word has one hidden."""

    begins: NDArray[np.bool_]
    specials: frozenset[int]
    mask: int
    few: float = 0.2
    many: float = 0.4

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> Self:
        """For a WordPiece or byte-level BPE vocabulary. InputError where there is no mask token."""
        if tokenizer.mask is None:
            raise InputError("masked pre-training needs a tokenizer with a mask token: choose a base that has one")
        spelled = [tokenizer.spelling(i) for i in range(tokenizer.vocab)]
        pieces = any(token.startswith("##") for token in spelled)
        begins = [not token.startswith("##") if pieces else token.startswith("Ġ") for token in spelled]
        return cls(np.array(begins), tokenizer.specials | {tokenizer.mask}, tokenizer.mask)

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        text = batch.ragged("text")
        few, many = self.choose(text, rng)
        columns = dict(batch.columns)
        for name, chosen in (("encoder", few), ("decoder", many)):
            hidden = torch.from_numpy(chosen)
            columns[name] = Ragged(text.values.masked_fill(hidden, self.mask), text.lengths)
            columns[f"{name}_labels"] = Ragged(text.values.masked_fill(~hidden, IGNORED), text.lengths)
        return Batch(columns, task=batch.task)

    def choose(self, text: Ragged, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """What is hidden from the encoder and from the decoder, [N] each."""
        ids, lengths = text.values.numpy(), text.lengths.numpy()
        free = ~np.isin(ids, list(self.specials))
        first = np.zeros(len(ids), dtype=bool)
        first[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        word = np.cumsum(self.begins[ids] | first | ~free | np.append(True, ~free[:-1])) - 1
        draws = np.where(free, rng.random(int(word[-1]) + 1 if len(word) else 0)[word], 2.0)
        # The word with the smallest draw of a text is a uniform choice: it is hidden whatever it drew.
        least = np.repeat(np.minimum.reduceat(draws, np.flatnonzero(first)), lengths[lengths > 0])
        forced = free & (draws == least)
        return forced | (draws < self.few), forced | (draws < self.many)


class MaskedHeads(nn.Module):
    """From a size's states, cut to d values, to logits; and from its first token's, through one layer, once more.

    One head for all sizes: its first map uses its first d inputs. The decoder is one layer that reads the embeddings of
    the decoder's text, with the transformed first state in place of the first token.
    """

    def __init__(self, shape: TransformerConfig) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(shape.dim, shape.dim), nn.LayerNorm(shape.dim, eps=shape.eps)
        self.bias = nn.Parameter(torch.zeros(shape.vocab))
        self.decoder = Transformer(replace(shape, layers=1, vocab=0, token_types=0))
        nn.init.normal_(self.dense.weight, std=0.02)

    def transform(self, states: Tensor) -> Tensor:
        """[..., d] to [..., D]."""
        d = states.shape[-1]
        changed: Tensor = self.norm(
            functional.gelu(functional.linear(states, self.dense.weight[:, :d], self.dense.bias))
        )
        return changed

    def logits(self, states: Tensor, table: Tensor) -> Tensor:
        """[M, d] to [M, V]; table: the tokens' embeddings [V, D]."""
        return functional.linear(self.transform(states), table, self.bias)

    def forward(
        self, hidden: Sequence[Tensor], sizes: Sequence[tuple[int, int]], batch: Batch, embed: nn.Module, table: Tensor
    ) -> dict[str, Tensor]:
        """``mlm_NxD`` [M, V] and ``mae_NxD`` [M', V] of every size; hidden: states [N, D] after each layer."""
        decoder = batch.ragged("decoder")
        encoder_rows, decoder_rows = (hidden_rows(batch.ragged(f"{name}_labels")) for name in ("encoder", "decoder"))
        starts = (decoder.lengths.cumsum(0) - decoder.lengths).to(decoder.values.device)
        rows = embed(decoder.values)
        out = {}
        for n, d in sizes:
            states = hidden[n - 1][:, :d]
            out[f"mlm_{n}x{d}"] = self.logits(states[encoder_rows], table)
            seen = rows.index_copy(0, starts, self.transform(states[starts]).to(rows.dtype))
            restored = self.decoder(Ragged(seen, decoder.lengths))
            out[f"mae_{n}x{d}"] = self.logits(restored[decoder_rows], table)
        return out
