"""Vectors written to a memory-mapped .npy file window by window; an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nextvec.files import atomic_write, refuse_special, storage_error
from nextvec.types import Progress, StorageError


def write_vectors(
    path: Path,
    texts: Sequence[str],
    encode: Callable[[list[str]], NDArray[Any]],
    *,
    shape: tuple[int, int],
    dtype: DTypeLike,
    settings: dict[str, Any],
    window: int,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """Fill ``path`` with ``encode(texts)`` [n, d] and return it memory-mapped (read-only).

    The work happens in ``path.part`` with its state in ``path.part.json``; ``path`` appears only when complete. A run
    with the same texts and ``settings`` resumes after the last whole window; with others it starts anew.
    """
    part, state = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    job = _job(texts, shape, dtype, settings)
    done = _done(part, state, job)
    try:
        refuse_special(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = "r+" if done else "w+"
        vectors = np.lib.format.open_memmap(
            part, mode=mode, dtype=None if done else dtype, shape=None if done else shape
        )
        if hasattr(os, "posix_fallocate") and vectors.size:
            # A hole in a mapped file that the disk cannot fill kills the process (SIGBUS): claim the space now.
            with part.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, part.stat().st_size)
        while done < len(texts):
            stop = min(done + window, len(texts))
            vectors[done:stop] = encode(list(texts[done:stop]))
            vectors.flush()
            done = stop
            with atomic_write(state, "w") as stream:
                json.dump({"job": job, "done": done}, stream)
            if progress:
                progress(done, len(texts))
        del vectors
        part.replace(path)
        state.unlink(missing_ok=True)
        mapped: NDArray[Any] = np.load(path, mmap_mode="r")
        return mapped
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, path) from error


def _job(texts: Sequence[str], shape: tuple[int, int], dtype: DTypeLike, settings: dict[str, Any]) -> str:
    """A hash of everything that decides the result, so that a resumed file can never mix two runs."""
    digest = hashlib.sha256(json.dumps([list(shape), str(np.dtype(dtype)), settings], sort_keys=True).encode())
    for text in texts:
        raw = text.encode()
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def _done(part: Path, state: Path, job: str) -> int:
    """Rows already written by an interrupted run of the same job; 0 to start anew."""
    try:
        saved = json.loads(state.read_text(encoding="utf-8"))
        np.load(part, mmap_mode="r")
    except (OSError, ValueError):
        return 0
    return int(saved["done"]) if saved.get("job") == job else 0
