"""How a table keeps vectors: as they are, or in fewer bytes.

``rounded`` is what a collection holds of a vector: searches, copies and checksums know nothing else. It is taken once,
when a row comes in, and taking it again changes nothing: rows that are copied, compacted or restored keep their bits.

- float16: 2 bytes a value, 11 significant bits;
- int8: 1 byte a value; the largest of a vector is 127. The direction is kept and no length: with "cosine" alone.

Shapes: N rows, D dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.search.schema import Kept
from nextvec.types import InputError

__all__ = ["packed", "rounded", "stays", "unpacked"]

Float32 = NDArray[np.float32]
_BEYOND = 65_520.0  # where float16 rounds to infinity
_TOP = 127
_UNIT = 2.0**-10  # how far from 1 the length of a unit vector may be once it is rounded to float16


def packed(vectors: Float32, keep: Kept) -> NDArray[Any]:
    """The values as the table has them: [N, D]."""
    if keep == "float32":
        return vectors
    if keep == "float16":
        return vectors.astype(np.float16)
    scale = np.abs(vectors).max(axis=1, initial=0.0) / np.float32(_TOP)
    # Vectors so small that their scale vanishes do not come here: with "cosine" all have length 1.
    codes: NDArray[np.int8] = np.clip(np.rint(vectors / scale[:, None]), -_TOP, _TOP).astype(np.int8)
    return codes


def unpacked(column: Any) -> Float32:
    """A fixed-size list column of the table as float32 [N, D]."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    width = array.type.list_size
    values = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    if array.type.value_type != pa.int8():
        return np.ascontiguousarray(values, np.float32)
    wide = values.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    vectors: Float32 = (wide / np.maximum(lengths, 1)[:, None]).astype(np.float32)
    return vectors


def rounded(vectors: Float32, keep: Kept, what: str) -> Float32:
    """What the table gives back of float32 [N, D]. InputError for values that float16 does not reach (with "dot")."""
    if keep == "float32" or not len(vectors):
        return vectors
    large = np.flatnonzero(np.abs(vectors).max(axis=1) >= _BEYOND)
    if keep == "float16" and len(large):
        raise InputError(f"{what} {large[0]} holds a number beyond 65504: float16 cannot keep it")
    values = packed(vectors, keep)
    flat = pa.array(values.reshape(-1))
    return unpacked(pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))


def stays(vectors: Float32, keep: Kept) -> NDArray[np.bool_]:
    """Which of float32 [N, D] a table with "cosine" gave back as they are: not to be brought to length 1 again, which
    would change their bits. bool [N]."""
    if keep != "float16":
        return np.zeros(len(vectors), np.bool_)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    near: NDArray[np.bool_] = np.abs(lengths - 1) <= _UNIT
    near[near] = (vectors[near].astype(np.float16) == vectors[near]).all(axis=1)
    return near
