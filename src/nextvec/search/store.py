"""The truth: one Lance table per collection, its versions, and the lock that puts writers in a row.

Every write is one Lance commit: it is there whole or not at all, and a process killed in the middle leaves at most
files that no version names. Reading takes no lock.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import lance
import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from nextvec.files import storage_error
from nextvec.search.kept import packed
from nextvec.search.schema import HEADER, SEQUENCE, Schema
from nextvec.types import ConflictError, NextvecError, NotFoundError, StorageError

LOCK_TIMEOUT = 30.0  # seconds a writer waits for the other writers
RETENTION = dt.timedelta(hours=1)  # how long a version outlives the one that follows it
SMALL_FRAGMENT = 16_384  # rows; smaller fragments are merged when there are too many
MAX_SMALL_FRAGMENTS = 32
DELETED_SHARE = 0.25  # of the rows that the files hold
_RETRIES = 5
_STILL = 2_000_000_000  # nanoseconds
_DELETE_AT_ONCE = 50_000

Result = TypeVar("Result")


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Errors of the disk and of Lance as one line."""
    try:
        yield
    except NextvecError:
        raise
    except OSError as error:
        code = re.search(r"os error (\d+)", str(error))
        if error.errno is None and code:
            error = OSError(int(code[1]), os.strerror(int(code[1])))
        if error.errno is None:
            raise _unreadable(error, path) from error
        raise storage_error(error, path) from error
    except (ValueError, RuntimeError, pa.ArrowException) as error:
        raise _unreadable(error, path) from error


def _unreadable(error: Exception, path: Path) -> StorageError:
    detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    # Lance puts its layers before the message and places in its own source behind it.
    detail = re.sub(r"^(External error: )?(LanceError\(\w+\): )?(Generic [^:]*: )?", "", detail)
    detail = re.split(r",? ?/\S*/(?:rust|library|src)/", detail)[0][:300]
    return StorageError(
        f"a file of collection {str(path)!r} is damaged or gone ({detail}): if this handle was opened with an old "
        "version, open it without; otherwise restore the folder from a copy"
    )


class Store:
    """The Lance table in ``path/data.lance``."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path = path
        self.uri = str(path / "data.lance")
        self._versions = str(path / "data.lance" / "_versions")
        self._seen: tuple[tuple[int, int], int] = ((0, 0), 0)
        self.schema = schema
        self._lock = FileLock(path / "write.lock", timeout=LOCK_TIMEOUT)
        self._threads = threading.RLock()
        self._tidying: Future[None] | None = None
        with told(path):
            if not (path / "data.lance").is_dir():
                raise StorageError(f"collection {str(path)!r} is damaged: the folder 'data.lance' is missing")
            self._newest = lance.dataset(self.uri)
        if self._newest.schema.names != schema.arrow().names:
            raise StorageError(
                f"collection {str(path)!r} is damaged: {HEADER} and the table do not name the same columns"
            )

    @staticmethod
    def create(path: Path, schema: Schema, *, exist_ok: bool) -> None:
        """Make the folder, an empty table, and last of all ``collection.json``: only then it is a collection."""
        with told(path):
            path.mkdir(parents=True, exist_ok=True)
            if not (path / HEADER).exists() and {part.name for part in path.iterdir()} - {"data.lance", "write.lock"}:
                raise ConflictError(f"folder {str(path)!r} exists and is not empty: choose another one")
            with _held(FileLock(path / "write.lock", timeout=LOCK_TIMEOUT), path):
                if (path / HEADER).exists():
                    if not exist_ok:
                        raise ConflictError(f"collection {str(path)!r} exists: open it, or pass exist_ok=True")
                    return
                if (path / "data.lance").exists() and _has_rows(path):
                    raise StorageError(f"{str(path)!r} holds rows but no {HEADER}: restore that file from a copy")
                mode = "overwrite" if (path / "data.lance").exists() else "create"
                lance.write_dataset(schema.arrow().empty_table(), path / "data.lance", mode=mode)
                schema.write(path)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the write lock, across threads and processes. ConflictError after 30 s of waiting."""
        with self._threads, _held(self._lock, self.path):
            yield

    def newest_version(self) -> int:
        """The number of the newest version. Every search asks: a microsecond where nothing was written for a while."""
        try:
            state = os.stat(self._versions)  # noqa: PTH116 - a path object takes ten times as long
        except OSError:
            with told(self.path):
                raise
        seen = state.st_mtime_ns, state.st_ino
        # A clock tick can hide a second write behind a first one: only a folder that was still for a while tells.
        if seen != self._seen[0] or time.time_ns() - state.st_mtime_ns < _STILL:
            with told(self.path):
                self._seen = seen, int(self._newest.latest_version)
        return self._seen[1]

    def dataset(self, version: int | None = None) -> Any:
        """The table at ``version`` (the newest where None). NotFoundError where it is no longer kept."""
        with told(self.path):
            if version is None:
                self._newest = lance.dataset(self.uri)
                return self._newest
            try:
                return lance.dataset(self.uri, version=version)
            except (ValueError, OSError) as error:
                if "not found" not in str(error).lower():
                    raise
                newest = self.newest_version()
                raise NotFoundError(
                    f"collection {str(self.path)!r} keeps no version {version} (the newest is {newest})"
                ) from error

    def append(self, columns: dict[str, pa.Array], vectors: NDArray[np.float32]) -> None:
        """One commit that adds the rows. Hold the write lock."""
        self._commit(lambda dataset: self._append(dataset, columns, vectors))

    def replace(self, gone: NDArray[np.int64], columns: dict[str, pa.Array], vectors: NDArray[np.float32]) -> None:
        """One commit that drops the rows with the sequence numbers ``gone`` and adds the new ones. Hold the lock."""
        if len(gone) == 0:
            return self.append(columns, vectors)
        return self._commit(lambda dataset: self._replace(dataset, gone, columns, vectors))

    def delete(self, gone: NDArray[np.int64]) -> None:
        """One commit that drops the rows with these sequence numbers. Hold the write lock."""
        self._commit(lambda dataset: self._replace(dataset, gone, None, None))

    def tidy(self) -> None:
        """Have ``compact`` run in the background where there are many small fragments or deleted rows. Comes after a
        write, without the lock: the write is durable, and nothing that fails here (a full disk) is told as its failure.
        """
        with self._threads:
            if self._wants_tidying() and (self._tidying is None or self._tidying.done()):
                self._tidying = _tidier().submit(self._tidied)

    def _wants_tidying(self) -> bool:
        fragments = self._newest.get_fragments()
        rows: list[int] = [fragment.metadata.num_rows for fragment in fragments]
        gone: int = sum(fragment.num_deletions for fragment in fragments)
        return sum(count < SMALL_FRAGMENT for count in rows) > MAX_SMALL_FRAGMENTS or (
            gone > SMALL_FRAGMENT and gone > DELETED_SHARE * (sum(rows) + gone)
        )

    def _tidied(self) -> None:
        # By the time of its turn a writer may have done it, or the folder be gone.
        with contextlib.suppress(NextvecError), self.writing():
            if self._wants_tidying():
                self.compact()

    def settle(self) -> None:
        """Wait for what runs in the background."""
        with self._threads:
            running = self._tidying
        if running is not None:
            running.result()

    def compact(self) -> None:
        """Merge small fragments, then drop what only versions older than ``RETENTION`` need. Hold the lock.

        Searches go on meanwhile in the version that they have, and see the next one when it is whole."""
        with told(self.path):
            dataset = self.dataset()
            dataset.optimize.compact_files(target_rows_per_fragment=SMALL_FRAGMENT)
            dataset.cleanup_old_versions(older_than=RETENTION, error_if_tagged_old_versions=False)
            self._newest = lance.dataset(self.uri)

    def _commit(self, write: Callable[[Any], None]) -> None:
        """Run ``write`` on the newest version, again where a writer that does not know our lock came between."""
        with told(self.path):
            for attempt in range(_RETRIES):
                try:
                    write(self.dataset())
                    break
                except (OSError, ValueError, RuntimeError) as error:
                    if "conflict" not in str(error).lower() or isinstance(error, NextvecError):
                        raise
                    if attempt == _RETRIES - 1:
                        raise ConflictError(
                            f"another writer keeps changing collection {str(self.path)!r}: nothing was "
                            "written, try again"
                        ) from error
            self._newest = lance.dataset(self.uri)

    def _append(self, dataset: Any, columns: dict[str, pa.Array], vectors: NDArray[np.float32]) -> None:
        lance.write_dataset(
            numbered(self.schema, int(dataset.latest_version) + 1, columns, vectors), dataset, mode="append"
        )

    def _replace(
        self,
        dataset: Any,
        gone: NDArray[np.int64],
        columns: dict[str, pa.Array] | None,
        vectors: NDArray[np.float32] | None,
    ) -> None:
        updated: dict[int, Any] = {}
        removed: set[int] = set()
        for fragment in dataset.get_fragments():
            sequence = fragment.to_table(columns=[SEQUENCE]).column(0).to_numpy()
            here = sequence[np.isin(sequence, gone)]
            if len(here) == len(sequence):
                removed.add(fragment.fragment_id)
            elif len(here):
                updated[fragment.fragment_id] = without(fragment, here)
        new = []
        if columns is not None and vectors is not None:
            table = numbered(self.schema, int(dataset.latest_version) + 1, columns, vectors)
            new = lance.fragment.write_fragments(table, self.uri, mode="append")
        operation = lance.LanceOperation.Update(
            removed_fragment_ids=sorted(removed), updated_fragments=list(updated.values()), new_fragments=new
        )
        lance.LanceDataset.commit(self.uri, operation, read_version=dataset.version)


def numbered(schema: Schema, version: int, columns: dict[str, pa.Array], vectors: NDArray[np.float32]) -> pa.Table:
    """Rows as the table takes them, with the sequence numbers that belong to ``version``."""
    # Versions only grow, and a version is committed once: no sequence number is ever given twice.
    first = version << 32
    rows = len(vectors)
    flat = pa.array(packed(vectors, schema.keep).reshape(-1))
    arrays = {
        SEQUENCE: pa.array(np.arange(first, first + rows, dtype=np.int64)),
        **columns,
        "vector": pa.FixedSizeListArray.from_arrays(flat, schema.dim),
    }
    return pa.Table.from_arrays([arrays[name] for name in schema.arrow().names], schema=schema.arrow())


def without(fragment: Any, gone: NDArray[np.int64]) -> Any:
    """The fragment's description with these rows marked as deleted. Only whole numbers reach the SQL."""
    lists = (gone[i : i + _DELETE_AT_ONCE] for i in range(0, len(gone), _DELETE_AT_ONCE))
    predicate = " OR ".join(f"{SEQUENCE} IN ({','.join(map(str, numbers.tolist()))})" for numbers in lists)
    return fragment.delete(predicate)


@contextlib.contextmanager
def _held(lock: FileLock, path: Path) -> Iterator[None]:
    try:
        lock.acquire()
    except Timeout as error:
        raise ConflictError(
            f"another process has been writing to collection {str(path)!r} for over {lock.timeout:.0f} s: try again"
        ) from error
    except NotImplementedError as error:
        raise StorageError(f"the file system of {str(path)!r} has no locks: choose another folder") from error
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        yield
    finally:
        lock.release()


def _has_rows(path: Path) -> bool:
    try:
        dataset = lance.dataset(str(path / "data.lance"))
    except (ValueError, OSError):
        return False  # a creation that was cut off before its first version
    return bool(dataset.count_rows()) or dataset.version > 1


@functools.cache
def _tidier() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="nextvec-tidy")
