"""Tokens as pictures of themselves: glyphs drawn with a font, and tables of vectors made of them.

A token's text is drawn one character beside the other, in a cell of S x S pixels each, white or black; the strip is
scaled to S x S, in grey. The pictures of all tokens, centred and turned onto their principal axes, each scaled to
length 1, are a table that no training has touched.

No two pictures are alike, for two tokens with one vector would be one token to a model:

- a character that cannot be printed, or for which the font has no glyph, is a pattern that its code point decides: it
  is told from others, and looks like nothing. The space alone is blank.
- where two texts would still have one picture (letters of two scripts, strips of many cells), the shorter keeps it, and
  in the other's some pixels, which its text decides, are inverted.

Source: "Emergent Semantics Beyond Token Embeddings", arXiv 2507.04886. Legend: V tokens, S side in pixels, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.types import InputError, NotFoundError

__all__ = ["Pictures", "code_table", "default_font", "glyph_table", "render"]

_NO_GLYPH = "\U0010fffe"  # a code point that is no character, for which every font draws its "no such glyph"
_SEED = 2507
_INVERTED = 1 / 8  # of the pixels: enough to be told from any other, and still a picture of the text


def default_font() -> Path:
    """DejaVu Sans, a free font that comes with matplotlib: Latin, Greek, Cyrillic, Arabic, symbols; no Chinese."""
    matplotlib = require("matplotlib", why="drawing glyphs (its font DejaVu Sans)")
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


class Pictures(NamedTuple):
    """pixels uint8 [V, S, S]; how many different characters are a ``patterned`` cell in place of a glyph; how many
    texts were ``marked``, because they would have looked as another does."""

    pixels: NDArray[np.uint8]
    patterned: int
    marked: int


def render(texts: Sequence[str], *, size: int = 16, font: Path | None = None) -> Pictures:
    """A picture of every text, 0 to 255, no two alike.

    font: a TrueType or OpenType file (None: ``default_font``). InputError for a size below 4 and a file that is no
    font, NotFoundError where it is missing.
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
    patterned = 0
    for character in sorted({character for text in texts for character in text}):
        cell = np.zeros((size, size), dtype=np.uint8)
        if character != " ":
            seen = character.isprintable() and not character.isspace()
            if not seen or bytes(drawn_with.getmask(character)) == missing:
                patterned += 1
                cell = np.random.default_rng([_SEED, ord(character)]).integers(0, 2, (size, size)).astype(np.uint8)
            else:
                canvas = image.new("L", (size, size))
                draw.Draw(canvas).text((size / 2, size / 2), character, font=drawn_with, fill=255, anchor="mm")
                cell = (np.asarray(canvas) > 127).astype(np.uint8)
        cells[character] = cell * np.uint8(255)
    pictures = np.zeros((len(texts), size, size), dtype=np.uint8)
    for picture, text in zip(pictures, texts, strict=True):
        if text:
            strip = np.concatenate([cells[character] for character in text], axis=1)
            picture[:] = strip if len(text) == 1 else _narrowed(strip, size, image)
    return Pictures(pictures, patterned, _told_apart(pictures, texts))


def _narrowed(strip: NDArray[np.uint8], size: int, image: Any) -> NDArray[np.uint8]:
    """A strip [S, k S] as [S, S]. In grey: a threshold here would make one picture of many texts."""
    return np.asarray(image.fromarray(strip).resize((size, size), image.Resampling.BOX))


def _told_apart(pictures: NDArray[np.uint8], texts: Sequence[str]) -> int:
    """Mark, in place, the pictures that another text has; how many they were. Which are marked depends on the texts
    alone: the space first, which stays blank, then the shorter before the longer."""
    seen: set[bytes] = set()
    times: Counter[str] = Counter()
    marked = 0
    for i in sorted(range(len(texts)), key=lambda i: (texts[i] != " ", len(texts[i]), texts[i], i)):
        # Two ids may have one text, where a tokenizer's decoding drops something: the second time differs, too.
        random = np.random.default_rng([_SEED, times[texts[i]], *texts[i].encode("utf-8", "surrogatepass")])
        times[texts[i]] += 1
        plain, marked = pictures[i].copy(), marked + (pictures[i].tobytes() in seen)
        while pictures[i].tobytes() in seen:
            pictures[i] = np.where(random.random(plain.shape) < _INVERTED, 255 - plain, plain)
        seen.add(pictures[i].tobytes())
    return marked


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
