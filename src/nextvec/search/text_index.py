"""Derived files of search by words: postings of string attributes, memory-mapped, extended as rows arrive.

``derived/text-COLUMN.json`` names the segments of one attribute; it is replaced atomically after they are in place.
Segments never change. New rows go into a new one, which takes in the smaller ones at the end, so that there are few
(of doubling size) and a row is read again only a few times. Rows that were deleted are passed over, and the files
made anew once most rows are such. Everything here can be deleted at any time and is made again from the table.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from nextvec.files import atomic_write
from nextvec.search import postings
from nextvec.search.postings import Bm25, Segment, places
from nextvec.search.snapshot import Snapshot
from nextvec.search.words import RULES

FORMAT = 1
_LOCK_TIMEOUT = 60.0
_GARBAGE_SHARE = 0.5  # of dead rows, above which the files are made anew
_GARBAGE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class _Stored:
    name: str
    crc: int
    segment: Segment


class TextIndexes:
    """Keeps the BM25 of each attribute for the last snapshot asked for. Safe to share between threads.

    ``shared``: whether the files may be changed; a handle pinned to an old version leaves them to the others.
    """

    def __init__(self, path: Path, *, shared: bool) -> None:
        self._folder = path / "derived"
        self._shared = shared
        self._lock = threading.Lock()
        self._last: dict[str, tuple[int, Bm25]] = {}
        self._files: dict[str, _Files] = {}

    def index(self, snapshot: Snapshot, column: str) -> Bm25:
        """BM25 over the string attribute ``column`` of ``snapshot``; its files are made or extended first."""
        with self._lock:
            version, known = self._last.get(column, (None, None))
            if known is None or version != snapshot.version:
                present = known.segments if known else None
                if present is None or not _serves(present, snapshot, strict=self._shared):
                    present = self._segments(snapshot, column)
                known = Bm25(present, [places(snapshot.sequence, segment.sequence) for segment in present])
                self._last[column] = snapshot.version, known
            return known

    def _segments(self, snapshot: Snapshot, column: str) -> list[Segment]:
        """Segments that hold the snapshot's rows: from the files, or made and written, or only made."""
        files = self._files.setdefault(column, _Files(self._folder, column))
        present = files.open()
        if present is not None and _serves(_plain(present), snapshot, strict=self._shared):
            return _plain(present)
        if self._shared:
            # A read-only or full disk, or a lock that never comes free, keeps nobody from searching.
            with contextlib.suppress(OSError, Timeout), files.writing():
                extended = files.extended(snapshot)
                if extended is not None:
                    return extended
        return list(postings.segments(_texts(snapshot, column, -1)))


class _Files:
    """The files of one attribute. Reading takes no lock; ``writing`` must be held for ``extended``."""

    def __init__(self, folder: Path, column: str) -> None:
        self.folder = folder
        self.column = column
        self.stem = f"text-{hashlib.blake2b(column.encode(), digest_size=8).hexdigest()}"
        self.header = folder / f"{self.stem}.json"
        self._opened: list[_Stored] = []

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "text.lock", timeout=_LOCK_TIMEOUT):
            yield

    def open(self) -> list[_Stored] | None:
        """What is there, mapped; None where nothing is, or where it is damaged. Every byte is checked at the first
        opening of a segment."""
        known = {(one.name, one.crc): one for one in self._opened}
        try:
            header = json.loads(self.header.read_bytes())
            if (header["format"], header["rules"], header["column"]) != (FORMAT, RULES, self.column):
                return None
            stored = []
            for one in header["segments"]:
                name, crc = str(one["name"]), int(one["crc"])
                if not name.startswith(f"{self.stem}-") or Path(name).name != name:
                    return None
                opened = known.get((name, crc)) if (self.folder / name).is_file() else None
                stored.append(opened or _Stored(name, crc, Segment.open(self.folder / name, one["shape"], crc)))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self._opened = stored
        return stored

    def extended(self, snapshot: Snapshot) -> list[Segment] | None:
        """The files with the snapshot's rows in them; None where it is older than rows they have left behind."""
        present = self.open() or []
        segments = _plain(present)
        if _wasteful(segments, snapshot):
            present, segments = [], []
        if present and _serves(segments, snapshot, strict=True):
            return segments
        last = _last(segments)
        missing = _missing(segments, snapshot)
        if len(missing) and missing[0] <= last:
            return None
        kept = list(present)
        new = len(missing)
        while kept and len(kept[-1].segment) < postings.SEGMENT_ROWS and len(kept[-1].segment) <= 2 * new:
            new += len(kept.pop().segment)
        return self._publish(kept, snapshot)

    def _publish(self, kept: list[_Stored], snapshot: Snapshot) -> list[Segment]:
        """Write the rows after the kept segments, then the header; then drop the files that it does not name."""
        stored = list(kept)
        try:
            for segment in postings.segments(_texts(snapshot, self.column, _last(_plain(kept)))):
                name = f"{self.stem}-{secrets.token_hex(4)}.postings"
                with (self.folder / name).open("wb") as stream:
                    stored.append(_Stored(name, segment.write(stream), segment))
            parts = [{"name": one.name, "crc": one.crc, "shape": one.segment.shape} for one in stored]
            document = {"format": FORMAT, "rules": RULES, "column": self.column, "segments": parts}
            with atomic_write(self.header, "w") as out:
                json.dump(document, out, ensure_ascii=False)
        except BaseException:
            self._forget({one.name for one in self.open() or kept})
            raise
        self._forget({one.name for one in stored})
        opened = self.open()
        if opened is None:
            raise OSError(f"derived files in {str(self.folder)!r} could not be read back")
        return _plain(opened)

    def _forget(self, keep: set[str]) -> None:
        for path in self.folder.glob(f"{self.stem}-*.postings"):
            if path.name not in keep:
                with contextlib.suppress(OSError):
                    path.unlink()


def _plain(stored: list[_Stored]) -> list[Segment]:
    return [one.segment for one in stored]


def _last(segments: list[Segment]) -> int:
    return int(segments[-1].sequence[-1]) if segments else -1


def _texts(snapshot: Snapshot, column: str, last: int) -> Iterator[tuple[int, str | None]]:
    for sequence, values in snapshot.values_after(last, column):
        yield from zip(sequence.tolist(), values.to_pylist(), strict=True)


def _missing(segments: list[Segment], snapshot: Snapshot) -> NDArray[np.int64]:
    """The snapshot's sequence numbers that no segment holds, ascending."""
    held = np.concatenate([np.zeros(0, np.int64), *(segment.sequence for segment in segments)])
    wanted = snapshot.sequence
    if np.array_equal(held, wanted[: len(held)]):
        return wanted[len(held) :]
    return wanted[places(held, wanted) < 0]


def _serves(segments: list[Segment], snapshot: Snapshot, *, strict: bool) -> bool:
    return len(_missing(segments, snapshot)) == 0 and not (strict and _wasteful(segments, snapshot))


def _wasteful(segments: list[Segment], snapshot: Snapshot) -> bool:
    rows = sum(map(len, segments))
    dead = rows - snapshot.rows
    return dead > _GARBAGE_ROWS and dead > _GARBAGE_SHARE * rows
