"""Random walks on a torus: moves and observations whose only hidden state is the position.

A sequence is the start cell, then moves; after every ``every`` moves the cell reached is written:

    cell move cell move cell ...            (every = 1)
    cell move move move cell move ...       (every = 3)

Given the start and the moves so far, the position is known, and the position (with the phase, where every > 1) is all
that the future depends on: moves are uniform, observed cells are certain. A model whose states are beliefs needs no
more than the position; effective rank can be held against that. The layout is ours: the paper that uses grid worlds
(NextLat, arXiv 2511.05963) does not fix one.

Legend: C cells, S moves (steps), T = 1 + S + S / every tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextvec.types import InputError

__all__ = ["GridWorld"]

_MOVES = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])  # up, right, down, left: rows, columns


class GridWorld:
    """A torus of height x width cells. Token ids: cell (row * width + column) 0..C-1, then up, right, down, left."""

    def __init__(self, height: int = 4, width: int = 4, *, every: int = 1) -> None:
        if min(height, width, every) < 1:
            raise InputError(f"a grid of {height} x {width}, observed every {every} moves: expected 1 or more of each")
        self.height, self.width, self.every = height, width, every
        self.cells = height * width
        self.vocab = self.cells + len(_MOVES)

    def sequence_length(self, steps: int) -> int:
        """T of a walk of ``steps`` moves, a multiple of ``every``."""
        if steps < 1 or steps % self.every:
            raise InputError(f"{steps} steps: expected a multiple of {self.every} (a cell is written after so many)")
        return 1 + steps + steps // self.every

    def sample(self, rng: np.random.Generator, count: int, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``count`` walks of ``steps`` moves: ids int64 [count, T], and the true cell at each token int64 [count, T]
        (at a move, the cell it leads to)."""
        length = self.sequence_length(steps)
        if count < 1:
            raise InputError(f"{count} walks: expected 1 or more")
        moves = rng.integers(len(_MOVES), size=(count, steps))
        row = rng.integers(self.height, size=(count, 1))
        column = rng.integers(self.width, size=(count, 1))
        rows = np.concatenate([row, row + _MOVES[moves, 0].cumsum(axis=1)], axis=1) % self.height
        columns = np.concatenate([column, column + _MOVES[moves, 1].cumsum(axis=1)], axis=1) % self.width
        visited = rows * self.width + columns
        ids = np.empty((count, length), dtype=np.int64)
        cells = np.empty_like(ids)
        ids[:, 0] = cells[:, 0] = visited[:, 0]
        blocks = (count, steps // self.every, self.every)
        reached = visited[:, 1:].reshape(blocks)
        ids[:, 1:] = np.concatenate([self.cells + moves.reshape(blocks), reached[..., -1:]], axis=2).reshape(count, -1)
        cells[:, 1:] = np.concatenate([reached, reached[..., -1:]], axis=2).reshape(count, -1)
        return ids, cells
