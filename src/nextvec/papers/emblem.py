"""A paper's emblem: a small mirrored pattern drawn from its embedding, so that near papers look alike.

The first 32 values of the vector (the most informative ones of an encoder with nested widths) choose which cells of
an 8 x 8 mirrored grid are dark, mid or empty; the angle of the first two chooses one of 12 hues.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

__all__ = ["draw", "emblem"]

HUES = 12
_CELLS = 32
_ROWS = 8


def emblem(vector: NDArray[np.float32]) -> str:
    """17 characters for a vector [D]: one hue digit (base 12, a and b), then 32 cells of 2 bits as 16 hex digits."""
    values = np.zeros(_CELLS, np.float32)
    head = np.asarray(vector, np.float32)[:_CELLS]
    values[: len(head)] = head
    angle = math.atan2(float(values[1]), float(values[0])) % (2 * math.pi)
    hue = int(angle / (2 * math.pi) * HUES) % HUES
    spread = float(np.sqrt(np.mean(values**2))) or 1.0
    levels = np.digitize(values / spread, (-0.2, 0.45, 1.1))  # 0: empty ... 3: darkest
    bits = 0
    for level in levels:
        bits = bits << 2 | int(level)
    return f"{hue:x}{bits:016x}"


@lru_cache(maxsize=10_000)
def draw(mark: str | None) -> Markup:
    """The emblem as inline SVG without style attributes; a plain ring where there is none."""
    if not mark or len(mark) != 17:
        return Markup(
            '<svg class="emblem" viewBox="0 0 8 8" aria-hidden="true"><circle cx="4" cy="4" r="2.5" fill="none"'
            ' stroke="currentColor" stroke-width=".5"/></svg>'
        )
    paths = zip(*map(_row, range(_ROWS), bytes.fromhex(mark[1:])), strict=True)
    drawn = enumerate(map("".join, paths), start=1)
    shapes = "".join(f'<path class="e{level}" d="{path}"/>' for level, path in drawn if path)
    return Markup(
        f'<svg class="emblem hue-{int(mark[0], 16) % HUES}" viewBox="0 0 8 8" aria-hidden="true">{shapes}</svg>'
    )


@lru_cache(maxsize=_ROWS * 256)
def _row(row: int, cells: int) -> tuple[str, str, str]:
    """The path of each level in one row of four cells, 2 bits each: emblems are many, their rows are not."""
    paths = ["", "", "", ""]
    for column in range(4):
        paths[cells >> 2 * (3 - column) & 3] += f"M{column} {row}h1v1h-1zM{7 - column} {row}h1v1h-1z"
    return paths[1], paths[2], paths[3]
