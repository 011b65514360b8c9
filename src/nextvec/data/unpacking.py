"""How far a compressed file may grow: a few hundred kilobytes can unpack to gigabytes that mean nothing."""

from __future__ import annotations

import io
from typing import IO, Any

from nextvec.types import InputError

__all__ = ["ALWAYS_UNPACKED", "MAX_RATIO", "bounded"]

MAX_RATIO = 200
"""Bytes that one byte of a compressed file may unpack to. Records of text give 3 to 30, the worst repetition 1,000 with
gzip and more than 5,000 with xz and Zstandard."""

ALWAYS_UNPACKED = 64 << 20
"""Bytes that a compressed file may unpack to whatever its size."""


def bounded(stream: Any, packed: int, name: str) -> IO[bytes]:
    """``stream``, unpacked from ``packed`` bytes, buffered; reading on past the limit is an InputError."""
    return io.BufferedReader(_Bounded(stream, packed, name), 1 << 20)


class _Bounded(io.RawIOBase):
    def __init__(self, stream: Any, packed: int, name: str) -> None:
        self._stream = stream
        self._left = max(ALWAYS_UNPACKED, MAX_RATIO * packed)
        self._told = (
            f"{name}: unpacks to more than {self._left:,} bytes from {packed:,}, over {MAX_RATIO} times its size: "
            "refused; if you trust it, unpack it and give the unpacked file"
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read: int = self._stream.readinto(buffer)
        self._left -= read
        if self._left < 0:
            raise InputError(self._told)
        return read
