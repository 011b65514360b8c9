"""Masking: which tokens a masked language model must restore, and what it sees instead.

Of the tokens chosen, 80 % become the mask token, 10 % a random token and 10 % stay (BERT, arXiv 1810.04805). Special
tokens are never chosen and never drawn. Every text that has any other token gets at least one chosen, so that no text
is without a loss; a text of special tokens alone (or an empty one) gets none, and all its labels are -100.

Legend: N tokens end to end, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextvec.types import Batch, InputError, Ragged

__all__ = ["IGNORED", "Masking"]

IGNORED = -100
"""The label of a token that is not to be predicted: what ``torch.nn.functional.cross_entropy`` passes over."""


@dataclass(frozen=True)
class Masking:
    """How to mask. ``vocab``: V; ``mask``: the mask token's id; ``specials``: ids never chosen and never drawn.

    unit: "token" chooses each token by itself with ``probability``. "span" chooses runs of tokens (SpanBERT, arXiv
    1907.10529): lengths are geometric (a run goes on with probability ``1 - stop``, at most ``longest``) and starts
    uniform, until a share ``probability`` of the text is chosen; runs stop at special tokens and at tokens already
    chosen, and what replaces a run is decided once for all of it.
    masked, random: the shares of chosen tokens that become the mask token and a random token; the rest stays.
    """

    _: KW_ONLY
    vocab: int
    mask: int
    specials: Iterable[int] = ()
    probability: float = 0.15
    unit: Literal["token", "span"] = "token"
    stop: float = 0.2
    longest: int = 10
    masked: float = 0.8
    random: float = 0.1
    column: str = "text"

    def __post_init__(self) -> None:
        specials = frozenset(int(i) for i in self.specials) | {self.mask}
        object.__setattr__(self, "specials", specials)
        if not (min(specials) >= 0 and max(specials) < self.vocab and len(specials) < self.vocab):
            raise InputError(
                f"mask {self.mask} and special ids {sorted(specials)[:8]} with vocab {self.vocab}: expected ids below "
                "it, and some tokens that are not special"
            )
        if not (0 < self.probability <= 1 and 0 < self.stop <= 1 and self.longest >= 1):
            raise InputError(
                f"probability {self.probability}, stop {self.stop}, longest {self.longest}: expected "
                "0 < probability <= 1, 0 < stop <= 1, longest >= 1"
            )
        if min(self.masked, self.random) < 0 or self.masked + self.random > 1:
            raise InputError(f"masked {self.masked} + random {self.random}: expected shares that add up to at most 1")
        if self.unit not in ("token", "span"):
            raise InputError(f"unit {self.unit!r}: expected 'token' or 'span'")

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """``batch`` with ``column`` masked and a Ragged column "labels": a change for ``sources.Changed``."""
        seen, labels = self.apply(batch.ragged(self.column), rng)
        columns = {**batch.columns, self.column: seen, "labels": Ragged(labels, seen.lengths)}
        return Batch(columns, task=batch.task)

    def apply(self, tokens: Ragged, rng: np.random.Generator) -> tuple[Ragged, Tensor]:
        """What the model sees, and the labels: int64 [N], the true id where a token was chosen, else -100."""
        ids: NDArray[np.int64] = tokens.values.numpy()
        lengths: NDArray[np.int64] = tokens.lengths.numpy()
        if ids.ndim != 1 or ids.dtype != np.int64 or (len(ids) and not (ids.min() >= 0 and ids.max() < self.vocab)):
            raise InputError(
                f"masking got {ids.dtype} {list(ids.shape)}"
                + (f" from {ids.min()} to {ids.max()}" if ids.size else "")
                + f"; expected int64 token ids from 0 to {self.vocab - 1}"
            )
        special = np.zeros(self.vocab, dtype=bool)
        special[list(self.specials)] = True
        free = ~special[ids]
        choose = self._tokens if self.unit == "token" else self._spans
        chosen, fate = choose(free, lengths, rng)
        seen = ids.copy()
        seen[chosen & (fate < self.masked)] = self.mask
        swapped = np.flatnonzero(chosen & (fate >= self.masked) & (fate < self.masked + self.random))
        seen[swapped] = rng.choice(np.flatnonzero(~special), size=len(swapped))
        labels = np.where(chosen, ids, IGNORED)
        return Ragged(torch.from_numpy(seen), tokens.lengths), torch.from_numpy(labels)

    def _tokens(
        self, free: NDArray[np.bool_], lengths: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Chosen tokens [N], and for each a number in [0, 1) that decides what replaces it [N]."""
        draws = np.where(free, rng.random(len(free)), 2.0)
        chosen = draws < self.probability
        filled = np.flatnonzero(lengths)  # reduceat takes no empty text
        if len(filled):
            starts = (np.cumsum(lengths) - lengths)[filled]
            # The smallest draw of a text is a uniform choice among its tokens: it is chosen whatever it is.
            smallest = np.repeat(np.minimum.reduceat(draws, starts), lengths[filled])
            chosen |= free & (draws == smallest)
        return chosen, rng.random(len(free))

    def _spans(
        self, free: NDArray[np.bool_], lengths: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        # Starts are tried in a random order; one that an earlier run has covered is passed over. That is a uniform
        # choice among the tokens still open, and all that is drawn is drawn at once.
        open_places = np.flatnonzero(free)
        text = np.repeat(np.arange(len(lengths)), lengths)[open_places]
        order = open_places[np.lexsort((rng.random(len(open_places)), text))].tolist()
        sizes = np.minimum(rng.geometric(self.stop, size=len(free)), self.longest).tolist()
        counts = np.bincount(text, minlength=len(lengths))
        # How many of a text to choose: the share, rounded up or down at random so that its mean is kept.
        budgets = np.minimum(counts, np.maximum(1, (self.probability * counts + rng.random(len(counts))).astype(int)))
        run = [-1] * len(free)  # the start of the run that a token was chosen with
        usable = free.tolist()
        begin = 0
        ends = np.cumsum(lengths).tolist()
        for end, count, left in zip(ends, counts.tolist(), budgets.tolist(), strict=True):
            for first in order[begin : begin + count]:
                if not left:
                    break
                place, stop = first, min(first + min(sizes[first], left), end)
                while place < stop and usable[place]:
                    usable[place], run[place] = False, first
                    place, left = place + 1, left - 1
            begin += count
        chosen = np.array(run, dtype=np.int64) >= 0
        return chosen, rng.random(len(free))[run]
