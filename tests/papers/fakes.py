"""A small encoder for tests: hashed words, no weights, the same on every machine."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.papers.records import Paper
from nextvec.search.words import tokenize


class HashEncoder:
    """Bag of hashed words, 64 dimensions, unit length; counts what it was asked to embed."""

    name = "hash"
    dim = 64

    def __init__(self, *, state: str = "1") -> None:
        self.state = state
        self.embedded = 0
        self._rows: dict[str, NDArray[np.float32]] = {}

    def fingerprint(self) -> str:
        return self.state

    def encode_document(self, inputs: Any) -> NDArray[np.float32]:
        self.embedded += len(inputs)
        return self.encode_query(inputs)

    def encode_query(self, inputs: Any) -> NDArray[np.float32]:
        out = np.zeros((len(inputs), self.dim), np.float32)
        for i, text in enumerate(inputs):
            for token in tokenize(text):
                out[i] += self._row(token)
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        return np.divide(out, norms, out=np.zeros_like(out), where=norms > 0)

    def _row(self, token: str) -> NDArray[np.float32]:
        if token not in self._rows:
            seed = int.from_bytes(hashlib.sha256(f"{self.state}{token}".encode()).digest()[:8], "big")
            self._rows[token] = np.random.default_rng(seed).standard_normal(self.dim).astype(np.float32)
        return self._rows[token]


EVIL = Paper(
    id="evil/one",
    title='<script>alert("title")</script> & {{ 7*7 }} $\\alpha$',
    summary="<img src=x onerror=alert(1)> [a](javascript:alert(2)) </p></main> {% raw %} 10% <b>bold</b>",
    authors=("<i>Mallory</i>", "Robert'); DROP TABLE papers;--"),
    organization="O'Brien & <Sons>",
    upvotes=3,
)
