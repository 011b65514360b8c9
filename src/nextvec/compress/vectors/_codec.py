"""Codec: the parts of a spec, fitted, as one thing that encodes, decodes, scores and is saved.

Shapes: n vectors, q queries, D dimensions, w columns of the codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nextvec.compress.vectors._folder import array_name, write_folder
from nextvec.compress.vectors._inputs import check_codes, check_matrix, prepare
from nextvec.compress.vectors._part import BLOCK, Coder, Codes, Float32, Metric, Part, Transform


class Codec:
    """Made by ``fit`` or ``load``. Never changes, so that threads may share it."""

    def __init__(self, transforms: Sequence[Transform], coder: Coder, *, dim: int, metric: Metric) -> None:
        """transforms: in the order in which vectors pass them; dim: D; metric: of the vectors that come in."""
        self.transforms = tuple(transforms)
        self.coder = coder
        self.dim = dim
        self.metric = metric

    @property
    def parts(self) -> tuple[Part, ...]:
        """Transforms, then the coder."""
        return (*self.transforms, self.coder)

    @property
    def spec(self) -> str:
        """The spec in full, "pca128,int8"."""
        return ",".join(str(part.stage) for part in self.parts)

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """The type of the codes."""
        kind: np.dtype[Any] = np.dtype(self.coder.dtype)
        return kind

    @property
    def code_width(self) -> int:
        """w, the columns of the codes."""
        return self.coder.width

    @property
    def bytes_per_vector(self) -> int:
        """What one vector takes: all of it, nothing is kept elsewhere but what the codec has learnt."""
        return self.code_width * self.code_dtype.itemsize

    def __repr__(self) -> str:
        return f"Codec({self.spec!r}, dim={self.dim}, metric={self.metric!r}, {self.bytes_per_vector} bytes a vector)"

    def encode(self, vectors: Any) -> Codes:
        """Codes [n, w] of vectors [n, D] (any numbers; n may be 0). A vector's code does not depend on the others.

        InputError, with the row named, for NaN, infinite and zero vectors (zero only with "cosine") and for values
        out of a coder's range; for a wrong shape.
        """
        array = check_matrix(vectors, self.dim, "vector")
        codes: Codes = np.empty((len(array), self.code_width), self.code_dtype)
        for start in range(0, len(array), BLOCK):
            block = prepare(array[start : start + BLOCK], self.metric, "vector", start)
            for transform in self.transforms:
                block = transform.forward(block, start)
            codes[start : start + len(block)] = self.coder.encode(block, start)
        return codes

    def decode(self, codes: Any) -> Float32:
        """Float32 [n, D]: the vectors that codes [n, w] stand for (of length 1 only as nearly as the codec is true).

        InputError for codes of another type or width.
        """
        array = self.check(codes)
        vectors = np.empty((len(array), self.dim), np.float32)
        for start in range(0, len(array), BLOCK):
            block = self.coder.decode(array[start : start + BLOCK])
            for transform in reversed(self.transforms):
                block = transform.backward(block)
            vectors[start : start + len(block)] = block
        return vectors

    def score(self, queries: Any, codes: Any) -> Float32:
        """Float32 [q, n]: dot products of queries [q, D] with what codes [n, w] stand for; higher is better.

        The queries stay float32 (an asymmetric score). With "cosine" they are brought to length 1. Computed in
        float32 from the codes, without decoding to D. InputError as for ``encode`` and ``decode``.
        """
        array = self.check(codes)
        asked = self.ask(queries)
        scores = np.empty((len(asked[0]), len(array)), np.float32)
        for start in range(0, len(array), BLOCK):
            block = array[start : start + BLOCK]
            scores[:, start : start + len(block)] = self.score_block(asked, block)
        return scores

    def check(self, codes: Any) -> Codes:
        """``codes``, where they can be this codec's. InputError otherwise."""
        return check_codes(codes, self.code_dtype, self.code_width, self.spec)

    def ask(self, queries: Any) -> tuple[Float32, Float32]:
        """Queries [q, D] carried to where the coder is, float32 [q, d], and what to add to each one's scores [q]."""
        carried = prepare(check_matrix(queries, self.dim, "query vector"), self.metric, "query vector")
        offset = np.zeros(len(carried), np.float32)
        for transform in self.transforms:
            carried, add = transform.query(carried)
            if add is not None:
                offset += add
        return carried, offset

    def score_block(self, asked: tuple[Float32, Float32], codes: Codes) -> Float32:
        """Scores [q, n] of at most ``BLOCK`` checked codes for what ``ask`` gave."""
        return self.coder.score(asked[0], codes) + asked[1][:, None]

    def save(self, folder: str | Path) -> Path:
        """Write JSON and .npy files (no pickle) to ``folder``; gives it back.

        A codec that is there is replaced at one moment: a reader sees the old or the new one. StorageError where the
        disk refuses, ConflictError where another process keeps writing there.
        """
        header = {"spec": self.spec, "metric": self.metric, "dim": self.dim}
        arrays = {
            array_name(i, part.stage, name): array
            for i, part in enumerate(self.parts)
            for name, array in part.arrays.items()
        }
        write_folder(Path(folder), header, arrays)
        return Path(folder)
