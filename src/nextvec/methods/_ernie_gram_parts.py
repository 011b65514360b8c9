"""What the file ``ernie_gram`` stands on: a lexicon of n-grams by t-statistic, and how texts are masked.

Legend: N tokens, V vocabulary, G n-grams of the lexicon, B texts, N' places of what is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nextvec.data.sources import ragged
from nextvec.types import Batch, InputError, Ragged

__all__ = ["Lexicon", "Masker"]

Gram = tuple[int, ...]


@dataclass(frozen=True)
class Lexicon:
    """Pairs and triples of tokens that occur together more often than by chance; ``vocab``: V. A unit's identity is a
    token's id, or V + its number in ``grams``."""

    vocab: int
    grams: tuple[Gram, ...]

    @classmethod
    def mine(cls, texts: Iterable[Sequence[int]], vocab: int, *, pairs: int, triples: int, least: int = 5) -> Lexicon:
        """The ``pairs`` and ``triples`` with the largest t-statistic among those that occur ``least`` times or more:

        t = (p(x y) - p(x) p(y)) / sqrt(p(x y) / N)           Church and others 1991; triples alike
        """
        single: Counter[int] = Counter()
        together: dict[int, Counter[Gram]] = {2: Counter(), 3: Counter()}
        for text in texts:
            single.update(text)
            for n, counts in together.items():
                counts.update(zip(*(text[i:] for i in range(n)), strict=False))
        total = sum(single.values())
        if not total:
            raise InputError("no tokens to mine n-grams from")
        chosen: list[Gram] = []
        for n, most in ((2, pairs), (3, triples)):
            scored = []
            for gram, count in together[n].items():
                chance = float(np.prod([single[token] / total for token in gram]))
                t = (count / total - chance) / np.sqrt(count / total / total)
                if count >= least and t > 0:
                    scored.append((-t, gram))
            chosen += [gram for _, gram in sorted(scored)[:most]]
        return cls(vocab, tuple(chosen))

    @property
    def size(self) -> int:
        """V + G."""
        return self.vocab + len(self.grams)

    def units(self, text: Sequence[int]) -> list[Gram]:
        """The text as units, from left to right, the longest that the lexicon has."""
        known = self._known()
        found, at = [], 0
        while at < len(text):
            for n in (3, 2):
                gram = tuple(text[at : at + n])
                if len(gram) == n and gram in known:
                    break
            else:
                gram = (text[at],)
            found.append(gram)
            at += len(gram)
        return found

    def identity(self, unit: Gram) -> int:
        """The unit's number below ``size``."""
        return unit[0] if len(unit) == 1 else self.vocab + self._known()[unit]

    def _known(self) -> dict[Gram, int]:
        if "_numbers" not in self.__dict__:
            object.__setattr__(self, "_numbers", {gram: i for i, gram in enumerate(self.grams)})
        numbers: dict[Gram, int] = self.__dict__["_numbers"]
        return numbers


@dataclass(frozen=True)
class Masker:
    """Texts with a share of their units hidden: a change for ``sources.Changed`` on batches with the column "text".

    kind "contiguous": a unit of n tokens becomes n masks, each of which foretells its token (``fine``). Else it becomes
    one mask, which foretells the unit's identity (``coarse``); with ``inner``, n queries stand behind the text, at the
    places of the unit's tokens, and foretell those (``fine``).

    ids      Ragged int64 [N']    tokens, ``mask``, and for queries ``mask`` as well
    at       Ragged int64 [N']    the place in the whole text
    query    Ragged int64 [N']    0: text; 1: a query, which the text does not see
    coarse   Ragged int64 [N']    identity, or -100
    fine     Ragged int64 [N']    token, or -100
    seed     int64 [B]            for what a generator draws
    """

    lexicon: Lexicon
    mask: int
    kind: str
    inner: bool
    share: float = 0.15
    specials: frozenset[int] = frozenset()

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        text = batch.ragged("text")
        rows = [part.tolist() for part in torch.split(text.values, text.lengths.tolist())]
        made: dict[str, list[list[int]]] = {name: [] for name in ("ids", "at", "query", "coarse", "fine")}
        for row in rows:
            for name, values in self.one(row, rng).items():
                made[name].append(values)
        columns: dict[str, Any] = {name: ragged(values) for name, values in made.items()}
        return Batch(columns | {"seed": torch.from_numpy(rng.integers(0, 1 << 40, size=len(rows)))}, task=batch.task)

    def one(self, text: Sequence[int], rng: np.random.Generator) -> dict[str, list[int]]:
        """The columns of one text."""
        units = self.lexicon.units(text)
        free = [i for i, unit in enumerate(units) if not self.specials & set(unit)]
        count = min(max(1, round(self.share * len(units))), len(free))
        hidden = set(rng.choice(free, size=count, replace=False).tolist()) if count else set()
        read: list[tuple[int, int, int, int, int]] = []
        queries: list[tuple[int, int, int, int, int]] = []
        place = 0
        for i, unit in enumerate(units):
            inner = list(enumerate(unit, start=place))
            if i not in hidden:
                read += [(token, at, 0, -100, -100) for at, token in inner]
            elif self.kind == "contiguous":
                read += [(self.mask, at, 0, -100, token) for at, token in inner]
            else:
                read.append((self.mask, place, 0, self.lexicon.identity(unit), -100))
                if self.inner:
                    queries += [(self.mask, at, 1, -100, token) for at, token in inner]
            place += len(unit)
        columns = zip(*(read + queries), strict=True)
        return dict(zip(("ids", "at", "query", "coarse", "fine"), map(list, columns), strict=True))


def rows_of(column: Ragged) -> torch.Tensor:
    """The places that foretell something, int64 [M]."""
    return (column.values >= 0).nonzero().squeeze(1)
