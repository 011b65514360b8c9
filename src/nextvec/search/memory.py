"""How much memory an open collection holds: the arrays behind it, its own and those mapped from files."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["held"]


def held(*roots: Any) -> dict[str, int]:
    """Bytes of all arrays that can be reached from these objects of this package: "own", and "mapped" from files, which
    the system reads when they are needed and takes back when memory runs short. Values in Python's own dictionaries are
    not counted."""
    found = {"own": 0, "mapped": 0}
    for array in _arrays(list(roots)):
        found["mapped" if _is_mapped(array) else "own"] += array.nbytes
    return found


def _arrays(todo: list[Any]) -> Iterator[Any]:
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        # A view counts for what it shows; the same array, reached twice, counts once.
        if one is None or isinstance(one, (str, bytes, int, float, type)) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (np.ndarray, pa.Array)):
            yield one
        elif isinstance(one, Mapping):
            todo += one.values()
        elif isinstance(one, (list, tuple)):
            todo += one
        elif type(one).__module__.startswith("nextvec.search."):
            todo += getattr(one, "__dict__", {}).values()
            todo += [getattr(one, name, None) for name in getattr(type(one), "__slots__", ())]


def _is_mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)
