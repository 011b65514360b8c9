"""Pictures that are turned and mirrored: a grid of black and white cells, some moves, and a question about the result.

    question   rotate, mirror; corner 3?                              with a picture of the grid
    thoughts   a picture after every move
    answer     the cells of that corner, row by row: 0110             a corner is 2 x 2 cells
    or         rotate, mirror; white in corner 3?                     how many of them are white: 2

Legend: n questions, S cells of a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextvec.types import InputError

__all__ = ["GridQuestion", "grids", "spelled"]

MOVES = ("rotate", "mirror", "flip")


@dataclass(frozen=True)
class GridQuestion:
    """text: the question; pictures: uint8 [moves + 1, S, S, 3], the first as it is asked about, then after every move;
    cells: those of the corner, four digits; answer: the cells, or how many are white."""

    text: str
    pictures: NDArray[np.uint8]
    cells: str
    answer: str


def grids(
    rng: np.random.Generator, count: int, *, side: int = 8, moves: int = 2, white: bool = False
) -> list[GridQuestion]:
    """``count`` questions about grids of ``side`` cells (even); white: how many of a corner's cells are white."""
    if side < 2 or side % 2 or moves < 1:
        raise InputError(f"grids of {side} cells, {moves} moves; expected an even number of cells, and at least 1 move")
    made = []
    for _ in range(count):
        grid = rng.integers(0, 2, size=(side, side))
        steps, names = [grid], [MOVES[i] for i in rng.integers(0, len(MOVES), size=moves)]
        for name in names:
            last = steps[-1]
            moved = np.rot90(last) if name == "rotate" else last[:, ::-1] if name == "mirror" else last[::-1]
            steps.append(np.ascontiguousarray(moved))
        corner = int(rng.integers(4))
        row, column = (side - 2) * (corner // 2), (side - 2) * (corner % 2)
        cells = "".join(map(str, steps[-1][row : row + 2, column : column + 2].flatten().tolist()))
        pictures = np.stack(steps).astype(np.uint8) * np.uint8(255)
        text = f"{', '.join(names)}; {'white in ' if white else ''}corner {corner}?"
        answer = str(cells.count("1")) if white else cells
        made.append(GridQuestion(text, np.repeat(pictures[..., None], 3, axis=-1), cells, answer))
    return made


def spelled(picture: NDArray[np.uint8]) -> str:
    """A picture's cells in words: rows of 0 and 1."""
    return "/".join("".join("1" if cell else "0" for cell in row) for row in picture[..., 0].tolist())
