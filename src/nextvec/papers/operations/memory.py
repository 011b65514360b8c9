"""How much memory a process that serves for weeks keeps: glibc's heaps."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

__all__ = ["share_heaps"]

_M_ARENA_MAX = -8  # malloc.h
_HEAPS = 2


def share_heaps() -> bool:
    """Let all threads of this process share two heaps; whether that was possible. Call it before there are threads.

    glibc gives nearly each thread a heap of its own, up to eight for each core, and what one of them freed serves no
    other: forty threads that make pages kept 320 MB so, more with every hour. $MALLOC_ARENA_MAX, where it is set, is
    what the operator wants instead.
    """
    if not sys.platform.startswith("linux") or os.environ.get("MALLOC_ARENA_MAX"):
        return False
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such function
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS))
    return False
