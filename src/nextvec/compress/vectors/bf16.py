"""bf16: the upper half of a float32, 2 bytes a value, 8 significant bits (relative error at most 2**-8), full range.

Stored as uint16, since NumPy has no such type. Rounded to nearest, ties to even.
"""

from __future__ import annotations

import numpy as np

from nextvec.compress.vectors._part import Coder, Codes, Float32


class BFloat16(Coder):
    """Codes uint16 [n, D]."""

    dtype = np.uint16

    def encode(self, vectors: Float32, start: int) -> Codes:
        bits = np.ascontiguousarray(vectors).view(np.uint32)
        # Half a unit of what is cut off, less one where the last bit that stays is 0: a tie then goes to even.
        # Lengths of at most 1e15 keep this from running over into infinity.
        upper: Codes = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
            np.uint16
        )
        return upper

    def decode(self, codes: Codes) -> Float32:
        values: Float32 = (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return values
