"""float16: IEEE half precision, 2 bytes a value, 11 significant bits (relative error at most 2**-11).

Values under 6e-8 become 0, and under 6e-5 lose digits (next to unit vectors of a few hundred values neither matters).
"""

from __future__ import annotations

import numpy as np

from nextvec.compress.vectors._part import Coder, Codes, Float32
from nextvec.types import InputError

_LARGEST = np.float32(65_504)


class Half(Coder):
    """Codes float16 [n, D]. InputError for values beyond 65,504 (only with "dot")."""

    dtype = np.float16

    def encode(self, vectors: Float32, start: int) -> Codes:
        largest = np.abs(vectors).max(axis=1, initial=0)
        bad = np.flatnonzero(largest > _LARGEST)
        if len(bad):
            raise InputError(
                f"vector {start + bad[0]} holds a value of {largest[bad[0]]:.6g}: float16 ends at {_LARGEST:.0f}, "
                "rescale it or use bf16"
            )
        return vectors.astype(np.float16)

    def decode(self, codes: Codes) -> Float32:
        return codes.astype(np.float32)
