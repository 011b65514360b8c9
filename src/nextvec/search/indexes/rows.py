"""Derived files of the exact index: rows as float32 and as int8 codes, memory-mapped, appended to as rows arrive.

``derived/exact.json`` names the files of one generation and how many rows of them count; it is replaced atomically
after the rows are in place, so that what it counts is whole. Files only grow: a process that has mapped them keeps
what it mapped. Everything here can be deleted at any time and is made again from the table.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from nextvec.files import atomic_write
from nextvec.search.indexes.codes import quantise

FORMAT = 1
_HEADER = "exact.json"
_LOCK_TIMEOUT = 60.0

STATS = np.dtype(
    [
        ("sequence", "<i8"),
        ("check", "<u8"),
        ("codes_check", "<u8"),
        ("scale", "<f4"),
        ("error", "<f4"),
        ("norm", "<f4"),
        ("unused", "<f4"),
    ]
)
Chunk = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Sequence numbers [n], ascending, and vectors [n, D]."""


class Damaged(Exception):
    """A derived file is not what was written: make it again."""


_NOTHING = (np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int8), np.zeros(0, STATS))


def row_check(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """A sum over the bytes of each row, which any single change alters: uint64 [n]."""
    raw = np.ascontiguousarray(rows).view(np.uint8)
    words = raw.view(np.uint32) if raw.shape[1] % 4 == 0 else raw
    sums: NDArray[np.uint64] = words.sum(axis=1, dtype=np.uint64)
    return sums


@dataclass(frozen=True)
class Rows:
    """N rows of one generation: vectors float32 [N, D], codes int8 [N, D], stats [N] as in ``STATS``; ``crc`` is the
    checksum of the stats where they come from files."""

    name: str
    vectors: NDArray[np.float32]
    codes: NDArray[np.int8]
    stats: NDArray[Any]
    crc: int = 0

    def __len__(self) -> int:
        return len(self.stats)

    @cached_property
    def sequence(self) -> NDArray[np.int64]:
        """Ascending."""
        return np.ascontiguousarray(self.stats["sequence"])

    @cached_property
    def check(self) -> NDArray[np.uint64]:
        return np.ascontiguousarray(self.stats["check"])

    @cached_property
    def codes_check(self) -> NDArray[np.uint64]:
        return np.ascontiguousarray(self.stats["codes_check"])

    @cached_property
    def scale(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.stats["scale"])

    @cached_property
    def error(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.stats["error"])

    @cached_property
    def norm(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.stats["norm"])

    @cached_property
    def widest_error(self) -> np.float32:
        return np.float32(self.error.max(initial=0))

    @cached_property
    def widest_norm(self) -> np.float32:
        return np.float32(self.norm.max(initial=0))


def describe(chunk: Chunk) -> tuple[NDArray[np.int8], NDArray[Any]]:
    """Codes and stats of a chunk of rows."""
    sequence, vectors = chunk
    quantised = quantise(vectors)
    stats = np.zeros(len(sequence), STATS)
    stats["sequence"] = sequence
    stats["check"] = row_check(vectors)
    stats["codes_check"] = row_check(quantised.codes)
    stats["scale"], stats["error"], stats["norm"] = quantised.scale, quantised.error, quantised.norm
    return quantised.codes, stats


def in_memory(chunks: Iterable[Chunk], dim: int) -> Rows:
    """Rows that no file holds: for a read-only folder, or a version older than the files."""
    vectors, codes, stats = [np.zeros((0, dim), np.float32)], [np.zeros((0, dim), np.int8)], [np.zeros(0, STATS)]
    for chunk in chunks:
        chunk_codes, chunk_stats = describe(chunk)
        vectors.append(chunk[1])
        codes.append(chunk_codes)
        stats.append(chunk_stats)
    name = f"memory-{secrets.token_hex(4)}"
    return Rows(name, np.concatenate(vectors), np.concatenate(codes), np.concatenate(stats))


class RowFiles:
    """The files in ``folder``. Reading takes no lock; ``writing`` must be held to append or restart."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder
        self.dim = dim

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The lock between processes that make derived files. OSError or Timeout where it cannot be had."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "exact.lock", timeout=_LOCK_TIMEOUT):
            yield

    def open(self, known: Rows | None = None) -> Rows | None:
        """What is there, mapped; None where nothing is, or where it is damaged. Of the stats, only what comes after
        those of ``known``, an earlier state of the same files, is read."""
        try:
            header = json.loads((self.folder / _HEADER).read_bytes())
            name, rows, crc = str(header["name"]), int(header["rows"]), int(header["stats_crc"])
            if header["format"] != FORMAT or header["dim"] != self.dim or not name.startswith("exact-"):
                return None
            if rows == 0:
                return in_memory((), self.dim)
            if known is not None and known.name == name and len(known) == rows and known.crc == crc:
                return known
            if known is None or known.name != name or len(known) > rows:
                known = Rows(name, *_NOTHING)
            stats = np.fromfile(
                self._path(name, "stats"), STATS, count=rows - len(known), offset=len(known) * STATS.itemsize
            )
            if len(known) + len(stats) != rows or zlib.crc32(stats.tobytes(), known.crc) != crc:
                return None
            stats = np.concatenate([known.stats, stats]) if len(known) else stats
            vectors = np.memmap(self._path(name, "rows"), np.float32, "r", shape=(rows, self.dim))
            codes = np.memmap(self._path(name, "codes"), np.int8, "r", shape=(rows, self.dim))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # A plain array over the map: np.memmap's own bookkeeping costs microseconds at every slice.
        return Rows(name, vectors.view(np.ndarray), codes.view(np.ndarray), stats, crc)

    def append(self, present: Rows | None, chunks: Iterable[Chunk]) -> Rows:
        """Write the chunks after ``present`` (None: a new generation) and publish them. Hold the lock."""
        old = present if present is not None and present.name.startswith("exact-") else None
        name = old.name if old is not None else f"exact-{secrets.token_hex(4)}"
        try:
            count, crc = self._write(name, old, chunks)
            header = {"format": FORMAT, "dim": self.dim, "name": name, "rows": count, "stats_crc": crc}
            with atomic_write(self.folder / _HEADER, "w") as stream:
                json.dump(header, stream)
        except BaseException:
            self._forget(f"{name}.*" if old is None else "")
            raise
        if old is None:
            self._forget("exact-*.*", but=name)
        opened = self.open(old)
        if opened is None:
            raise OSError(f"derived files in {str(self.folder)!r} could not be read back")
        return opened

    def _write(self, name: str, old: Rows | None, chunks: Iterable[Chunk]) -> tuple[int, int]:
        """Put the chunks behind the rows of ``old``: (rows, checksum of the stats) after that."""
        count, crc = (0, 0) if old is None else (len(old), old.crc)
        with contextlib.ExitStack() as stack:
            streams = []
            for part, width in (("rows", 4 * self.dim), ("codes", self.dim), ("stats", STATS.itemsize)):
                path = self._path(name, part)
                path.touch()
                stream = stack.enter_context(path.open("r+b"))
                stream.seek(count * width)
                stream.truncate()  # what a process left that was killed before it could publish
                streams.append(stream)
            for chunk in chunks:
                codes, stats = describe(chunk)
                for stream, array in zip(streams, (chunk[1], codes, stats), strict=True):
                    stream.write(np.ascontiguousarray(array).data)
                count += len(stats)
                crc = zlib.crc32(stats.tobytes(), crc)
        return count, crc

    def _path(self, name: str, part: str) -> Path:
        if Path(name).name != name:
            raise ValueError(f"unsafe name {name!r}")
        return self.folder / f"{name}.{part}"

    def _forget(self, pattern: str, *, but: str = "") -> None:
        for path in self.folder.glob(pattern) if pattern else ():
            if not (but and path.name.startswith(f"{but}.")):
                with contextlib.suppress(OSError):
                    path.unlink()
