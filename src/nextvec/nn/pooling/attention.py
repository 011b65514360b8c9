"""Attention pooling: each text's states weighted by a learned score, on texts laid end to end.

    a = softmax over the tokens of a text of  u^T tanh(W h_i)      v = sum_i a_i h_i

With several heads, each has its own u, and their vectors stand side by side. At the start u = 0: then all weights are
alike and the module gives the mean, from which training departs.

Source: Lin et al. 2017 (arXiv 1703.03130), there with a penalty on heads that attend alike, which is an objective's
matter. Legend: N tokens, B texts, D width, H heads, A width of the score's hidden layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nextvec.types import InputError

__all__ = ["AttentionPooling", "segment_softmax"]


def segment_softmax(scores: Tensor, lengths: Tensor) -> Tensor:
    """Softmax over the rows of each text: scores [N, H], lengths int64 [B] that add up to N; [N, H]."""
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=scores.device), lengths)
    if len(owner) != len(scores):
        raise InputError(f"lengths add up to {len(owner)}, but there are {len(scores)} scores")
    # The greatest score is taken off for the sake of the exponential only, so no gradient goes through it.
    greatest = torch.segment_reduce(scores.detach(), "max", lengths=lengths, initial=None)
    weights = (scores - greatest[owner]).exp()
    return weights / weights.new_zeros(len(lengths), scores.shape[1]).index_add(0, owner, weights)[owner]


class AttentionPooling(nn.Module):
    """hidden [N, D] and lengths int64 [B] to [B, H D], in the dtype of the weights; zeros for a text without tokens."""

    def __init__(self, width: int, *, heads: int = 1, score_width: int | None = None) -> None:
        """width D; heads H; score_width A, D where not given."""
        super().__init__()
        if min(width, heads) < 1 or (score_width is not None and score_width < 1):
            raise InputError(f"width {width}, heads {heads}, score_width {score_width}: all must be at least 1")
        self.width, self.heads = width, heads
        self.inner = nn.Linear(width, score_width or width, bias=False)
        self.score = nn.Linear(score_width or width, heads, bias=False)
        nn.init.zeros_(self.score.weight)

    def weights(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """How much each token counts: [N, H]; for every text and head they add up to 1."""
        if hidden.ndim != 2 or hidden.shape[1] != self.width:
            raise InputError(f"hidden has shape {list(hidden.shape)}; expected [N, {self.width}]")
        return segment_softmax(self.score(torch.tanh(self.inner(hidden.to(self.score.weight.dtype)))), lengths)

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """The weighted sums: [B, H D]."""
        weights = self.weights(hidden, lengths)
        weighted = weights[:, :, None] * hidden.to(weights.dtype)[:, None, :]
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths)
        summed = weighted.new_zeros(len(lengths), self.heads, self.width).index_add(0, owner, weighted)
        return summed.flatten(1)
