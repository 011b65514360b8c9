"""One encoder at several widths and codes: texts are encoded once, and cut, scaled and coded for each size.

The order is the encoder's own (truncate, normalise, quantise), so every size gives what ``Encoder.encode`` would.
Legend: n texts, D the model's width, d the width asked for.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nextvec.encoder import DTYPES, Encoder
from nextvec.types import InputError, Progress, did_you_mean

__all__ = ["Embedder", "Size", "vector_bytes"]

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Size:
    """How vectors are asked for: dim, the first so many values (None: the model's own width); layers, of a
    transformer (None: all); dtype, "float32", "float16", "int8" or "binary"."""

    dim: int | None = None
    layers: int | None = None
    dtype: str = "float32"

    def check(self, encoder: Encoder) -> Size:
        """This size with its width written out; InputError where the encoder cannot give it."""
        if self.dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise InputError(f"dtype is {self.dtype!r}; expected one of {known}{did_you_mean(self.dtype, DTYPES)}")
        # The encoder's own words about widths and layers that it does not have; no text is encoded.
        encoder.encode([], dim=self.dim, layers=self.layers)
        layers = self.layers if self.layers != encoder.layers else None
        return Size(self.dim or encoder.dim, layers, self.dtype)


def vector_bytes(dim: int, dtype: str) -> int:
    """Bytes of one stored vector of ``dim`` values."""
    return -(-dim // 8) if dtype == "binary" else dim * np.dtype(DTYPES[dtype]).itemsize


class Embedder:
    """An encoder that keeps the vectors of one number of layers, for every size that ``at`` is asked for.

    ``seconds`` adds up the time that the model itself took, where what was kept counts as what it took the first time;
    ``fresh_seconds`` leaves out what was kept.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.seconds = 0.0
        self.fresh_seconds = 0.0
        self._kept: dict[str, tuple[Vectors, float]] = {}
        self._layers: int | None = None

    def forget(self) -> None:
        """Drop what is kept: the next task has other texts."""
        self._kept.clear()

    def at(self, size: Size) -> Callable[..., Vectors]:
        """A function like ``Encoder.encode`` that gives float32 [n, d] vectors as they are when stored in ``size``."""

        def encode(
            inputs: Sequence[str],
            *,
            role: Literal["query", "document"] | None = None,
            progress: Progress | None = None,
        ) -> Vectors:
            whole = self._whole(inputs, role, size.layers, progress)
            cut = whole[:, : size.dim or self.encoder.dim]
            unit = cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.float32(1e-12))
            return _READ_BACK[size.dtype](unit)

        return encode

    def _whole(self, inputs: Sequence[str], role: Any, layers: int | None, progress: Progress | None) -> Vectors:
        """The vectors at the model's full width, not yet scaled to length 1."""
        if layers != self._layers:
            self.forget()
            self._layers = layers
        digest = hashlib.sha256(str(role).encode())
        for text in inputs:
            digest.update(b"\0" + text.encode("utf-8", "surrogatepass"))
        key = digest.hexdigest()
        if key not in self._kept:
            started = time.perf_counter()
            options = {"role": role, "layers": layers, "progress": progress, "normalize": False}
            vectors = self.encoder.encode(list(inputs), dim=self.encoder.full_dim, **options)
            self._kept[key] = vectors, time.perf_counter() - started
            self.fresh_seconds += self._kept[key][1]
        vectors, seconds = self._kept[key]
        self.seconds += seconds
        return vectors


def _signs(unit: Vectors) -> Vectors:
    return np.where(unit > 0, np.float32(1), np.float32(-1))


_READ_BACK: dict[str, Callable[[Vectors], Vectors]] = {
    "float32": lambda unit: unit,
    "float16": lambda unit: unit.astype(np.float16).astype(np.float32),
    "int8": lambda unit: np.rint(unit * 127).clip(-127, 127).astype(np.float32),
    "binary": _signs,
}
"""Unit vectors as they come back from their codes, up to a factor that a cosine does not see."""
