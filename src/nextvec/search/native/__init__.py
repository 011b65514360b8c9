"""The compiled search kernels, where they were built: ``kernels``, else None (``NEXTVEC_KERNELS=off`` does without).

``_kernels.c`` says what they do. They take arrays that lie in one piece, check their sizes, and let other threads run.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Out", "kernels", "outputs"]

BITS, INTS, FLOATS, CODES, RANKS = 1, 2, 3, 4, 5
"""Kinds of filter: a bit per row; an int64 or float64 per row, in a range; an int32 per row, in a set; a uint16 per
row, in a range."""

Out = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


def _load() -> Any:
    if os.environ.get("NEXTVEC_KERNELS") == "off":
        return None
    try:
        return importlib.import_module("nextvec.search.native._kernels")
    except ImportError:  # there was no compiler when the package was installed
        return None


kernels: Any = _load()


def outputs(queries: int, k: int) -> Out:
    """Where the kernels write: rows int64 [Q, k], scores float32 [Q, k], and (hits, rows scored) int64 [Q, 2]."""
    return np.empty((queries, k), np.int64), np.empty((queries, k), np.float32), np.empty((queries, 2), np.int64)
