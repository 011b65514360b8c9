"""float32: the values as they are, 4 bytes each. The end of a spec that only transforms ("truncate64")."""

from __future__ import annotations

import numpy as np

from nextvec.compress.vectors._part import Coder, Codes, Float32


class Plain(Coder):
    """Codes float32 [n, D]."""

    dtype = np.float32

    def encode(self, vectors: Float32, start: int) -> Codes:
        return vectors

    def decode(self, codes: Codes) -> Float32:
        return codes
