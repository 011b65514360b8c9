"""Tokens as pictures of themselves: glyphs drawn with a font, and tables of vectors made of them.

A token's text is drawn one character beside the other, in a cell of S x S pixels each, black on white; the strip is
scaled to S x S and every pixel is 0 or 1. The pictures of all tokens, centred and turned onto their principal axes,
each scaled to length 1, are a table that no training has touched.

A character for which the font has no glyph gets a pattern of its own that its code point alone decides: it is told from
others, and looks like nothing.

Source: "Emergent Semantics Beyond Token Embeddings", arXiv 2507.04886. Legend: V tokens, S side in pixels, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.types import InputError, NotFoundError

__all__ = ["code_table", "default_font", "glyph_table", "render"]

_NO_GLYPH = "\U0010fffe"  # a code point that is no character, for which every font draws its "no such glyph"


def default_font() -> Path:
    """DejaVu Sans, a free font that comes with matplotlib: Latin, Greek, Cyrillic, Arabic, symbols; no Chinese."""
    matplotlib = require("matplotlib", why="drawing glyphs (its font DejaVu Sans)")
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def render(texts: Sequence[str], *, size: int = 16, font: Path | None = None) -> tuple[NDArray[np.uint8], int]:
    """Pictures uint8 [V, S, S] of 0 and 1, and how many different characters had no glyph.

    font: a TrueType or OpenType file (None: ``default_font``). A text without a visible character is all 0. InputError
    for a size below 4 and a file that is no font, NotFoundError where it is missing.
    """
    if size < 4:
        raise InputError(f"glyphs of {size} pixels; expected at least 4")
    path = font or default_font()
    if not path.is_file():
        raise NotFoundError(f"the font {str(path)!r} does not exist")
    image, draw, fonts = (require(f"PIL.{name}", why="drawing glyphs") for name in ("Image", "ImageDraw", "ImageFont"))
    try:
        drawn_with = fonts.truetype(str(path), size=max(size * 3 // 4, 3))
    except OSError as error:
        raise InputError(f"{str(path)!r} is not a font that can be read: {error}") from error
    missing = bytes(drawn_with.getmask(_NO_GLYPH))
    cells: dict[str, NDArray[np.uint8]] = {}
    absent = 0
    for character in sorted({character for text in texts for character in text}):
        cell = np.zeros((size, size), dtype=np.uint8)
        if character.isprintable() and not character.isspace():
            if bytes(drawn_with.getmask(character)) == missing:
                absent += 1
                cell = np.random.default_rng([2507, ord(character)]).integers(0, 2, (size, size)).astype(np.uint8)
            else:
                canvas = image.new("L", (size, size))
                draw.Draw(canvas).text((size / 2, size / 2), character, font=drawn_with, fill=255, anchor="mm")
                cell = (np.asarray(canvas) > 127).astype(np.uint8)
        cells[character] = cell
    pictures = np.zeros((len(texts), size, size), dtype=np.uint8)
    for picture, text in zip(pictures, texts, strict=True):
        if text:
            strip = np.concatenate([cells[character] for character in text], axis=1)
            picture[:] = strip if len(text) == 1 else _narrowed(strip, size, image)
    return pictures, absent


def _narrowed(strip: NDArray[np.uint8], size: int, image: Any) -> NDArray[np.uint8]:
    """A strip [S, k S] of 0 and 1 as [S, S]."""
    scaled = image.fromarray(strip * np.uint8(255)).resize((size, size), image.Resampling.BOX)
    return (np.asarray(scaled) > 96).astype(np.uint8)


def glyph_table(pictures: NDArray[np.uint8], dim: int) -> NDArray[np.float32]:
    """float32 [V, D] of pictures [V, S, S]: principal components, strongest first, rows of length 1 (of what is all
    mean: 0). Where there are fewer than D of them, the rest is 0."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    _, _, axes = np.linalg.svd(flat, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    turned = flat @ (axes * signs[:, None])[:dim].T
    table = np.zeros((len(pictures), dim), dtype=np.float32)
    table[:, : turned.shape[1]] = turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-9)
    return table


def code_table(vocab: int, dim: int) -> NDArray[np.float32]:
    """float32 [V, D]: the bits of a token's number as -1 and 1, over and over, rows of length 1."""
    bits = max((vocab - 1).bit_length(), 1)
    code = (np.arange(vocab)[:, None] >> np.arange(bits) & 1) * 2.0 - 1
    repeated = np.tile(code, (1, -(-dim // bits)))[:, :dim]
    table: NDArray[np.float32] = (repeated / np.sqrt(dim)).astype(np.float32)
    return table
