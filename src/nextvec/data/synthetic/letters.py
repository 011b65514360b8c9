"""Letters in a plane: worlds of a few letters, seen one at a time along a random walk.

A world has 4 to 6 of 26 letters in [-4, 4]^2, one of them at the centre, any two at least 0.25 apart. A walk starts at
the centre, so that the sum of the displacements so far is the absolute position, and jumps to one of the other letters
at each step, all equally likely. What comes next is predictable only by who remembers which letter lies where and knows
where the eye lands: the minimal world of Glimpse Prediction Networks (arXiv 2511.12715). That walks start at the centre
is our choice.

Legend: W worlds, K letters of a world, L steps of a walk.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextvec.types import InputError

__all__ = ["Letters"]


class Letters:
    """Worlds of ``fewest`` to ``most`` letters (numbers equally likely) of an alphabet of ``vocab``."""

    def __init__(
        self, *, vocab: int = 26, fewest: int = 4, most: int = 6, extent: float = 4.0, distance: float = 0.25
    ) -> None:
        if not 2 <= fewest <= most <= vocab:
            raise InputError(f"worlds of {fewest} to {most} letters of {vocab}: expected 2 <= fewest <= most <= vocab")
        # Letters take discs of radius `distance`; where those fill much of the square, drawing again would not end.
        if distance < 0 or most * np.pi * distance**2 > extent**2:
            raise InputError(f"{most} letters {distance} apart do not fit loosely into [-{extent}, {extent}]^2")
        self.vocab, self.fewest, self.most = vocab, fewest, most
        self.extent, self.distance = extent, distance

    def sample(
        self, rng: np.random.Generator, worlds: int, length: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """A walk in each of ``worlds`` worlds.

        letters: int64 [W, L], consecutive ones differ. saccades: float32 [W, L, 2], from the letter to the next one
        (the last leads to a letter that is not shown). positions: float32 [W, L, 2], positions[:, 0] = 0.
        """
        if min(worlds, length) < 1:
            raise InputError(f"{worlds} worlds, {length} steps: expected 1 or more of each")
        sizes = rng.integers(self.fewest, self.most + 1, size=(worlds, 1))
        names = rng.random((worlds, self.vocab)).argsort(axis=1)[:, : self.most]
        places = self._places(rng, sizes)
        # From letter i, i + 1 .. i + K - 1 (mod K) are all the others: a jump is a uniform offset, a walk their sum.
        jumps = rng.integers(1, sizes, size=(worlds, length))
        walk = np.concatenate([np.zeros((worlds, 1), dtype=np.int64), jumps.cumsum(axis=1)], axis=1) % sizes
        path = np.take_along_axis(places, walk[..., None], axis=1)
        letters = np.take_along_axis(names, walk[:, :-1], axis=1)
        return letters, np.diff(path, axis=1), np.ascontiguousarray(path[:, :-1])

    def _places(self, rng: np.random.Generator, sizes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Where the letters lie: float32 [W, most, 2]; those from K on are not used. Worlds with two letters too close
        are drawn again as a whole, which keeps the others uniform."""
        places = np.zeros((len(sizes), self.most, 2), dtype=np.float32)
        pending = np.arange(len(sizes))
        first, second = np.triu_indices(self.most, k=1)
        while len(pending):
            drawn = rng.uniform(-self.extent, self.extent, size=(len(pending), self.most, 2)).astype(np.float32)
            drawn[:, 0] = 0.0
            places[pending] = drawn
            apart = np.linalg.norm(drawn[:, first] - drawn[:, second], axis=-1)
            close = ((apart < self.distance) & (second < sizes[pending])).any(axis=1)
            pending = pending[close]
        return places
