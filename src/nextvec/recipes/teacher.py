"""A teacher: an encoder whose vectors of many texts are kept on disk, so that an interrupted recipe goes on.

Legend: N texts, H width of the teacher.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextvec.encoder import Encoder
from nextvec.types import Progress

__all__ = ["Teacher"]


class Teacher:
    """A local model folder as a teacher. Its vectors are as pooled: not normalised."""

    def __init__(self, folder: Path, *, max_length: int = 256) -> None:
        """folder: what ``Encoder.load`` reads; max_length: tokens kept per text."""
        self.folder = folder
        self.encoder = Encoder.load(folder, max_length=max_length)

    def encode_cached(
        self, texts: Sequence[str], folder: Path, *, progress: Progress | None = None
    ) -> NDArray[np.float16]:
        """float16 [N, H], kept in ``folder`` under a hash of the texts and of the teacher's weights."""
        digest = hashlib.sha256(f"{self.encoder.fingerprint()} {self.encoder.max_length}".encode())
        for text in texts:
            digest.update(text.encode() + b"\0")
        path = folder / f"{digest.hexdigest()[:20]}.npy"
        if not path.exists():
            self.encoder.encode(texts, normalize=False, dtype="float16", out=path, progress=progress)
        vectors: NDArray[np.float16] = np.load(path)
        return vectors
