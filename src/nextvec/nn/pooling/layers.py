"""Averages over layers: hidden states of several layers to one, token by token; then any pooling follows.

States are what a transformer returns when asked for all of them: states[0] the embeddings' output, states[l] that of
layer l, up to states[L].

    first_last    (h_1 + h_L) / 2       as in BERT-whitening (Su et al. 2021, arXiv 2103.15316)
    last_layers   mean of the last c    with c = 2 in BERT-flow (Li et al. 2020, arXiv 2011.05864)

Code in circulation does not agree whether the first is layer 1 or the embeddings. Here it is layer 1 unless ``first=0``
is given.

Legend: N tokens, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nextvec.types import InputError

__all__ = ["first_last", "last_layers", "layer_mean"]


def layer_mean(states: Sequence[Tensor] | Tensor, layers: Sequence[int]) -> Tensor:
    """The mean of ``states[l]`` for l in ``layers`` (negative ones count from the end): [N, D], in float32 (float64
    stays). states: L + 1 tensors [N, D], or one [L + 1, N, D]. InputError for a layer that there is not or twice."""
    count = len(states)
    if not layers:
        raise InputError("a mean over no layers; name at least one")
    wrong = [layer for layer in layers if not -count <= layer < count]
    if wrong:
        raise InputError(
            f"there is no state {wrong[0]} among {count} (0 is the embeddings, {count - 1} the last layer)"
        )
    chosen = [layer % count for layer in layers]
    if len(set(chosen)) != len(chosen):
        raise InputError(f"layers {list(layers)} name one layer twice (there are {count} states)")
    picked = [states[layer] for layer in chosen]
    return torch.stack([state if state.dtype == torch.float64 else state.float() for state in picked]).mean(0)


def first_last(states: Sequence[Tensor] | Tensor, *, first: int = 1) -> Tensor:
    """The mean of layer ``first`` (0: the embeddings) and the last layer: [N, D]. A model of one layer gives that one
    twice, which is itself."""
    last = len(states) - 1
    if not 0 <= first <= last:
        raise InputError(f"first is {first}; there are states 0 to {last}")
    return layer_mean(states, [last] if first == last else [first, last])


def last_layers(states: Sequence[Tensor] | Tensor, count: int) -> Tensor:
    """The mean of the last ``count`` layers, 1 to L: [N, D]. The embeddings are no layer."""
    most = len(states) - 1
    if not 1 <= count <= most:
        raise InputError(f"the last {count} layers; there are {most}")
    return layer_mean(states, range(most - count + 1, most + 1))
