"""Files: where data lie, atomic writes, checksums, and errors of the disk told in one line."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nextvec.types import ConflictError, InputError, StorageError

_REASONS = {
    errno.ENOSPC: "the disk is full: free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the command again",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "permission denied: choose another folder or change its permissions",
    errno.EPERM: "permission denied: choose another folder or change its permissions",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder, not a file",
    errno.ENOENT: "no such file or folder",
}


def data_home() -> Path:
    """The folder for what nextvec makes (site, indexes): $NEXTVEC_HOME, else ~/.local/share/nextvec."""
    base = os.environ.get("NEXTVEC_HOME")
    if base:
        return Path(base).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "nextvec"


def cache_home() -> Path:
    """The folder for what can be fetched again: $NEXTVEC_CACHE, else ~/.cache/nextvec."""
    base = os.environ.get("NEXTVEC_CACHE")
    if base:
        return Path(base).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nextvec"


def storage_error(error: OSError, path: str | os.PathLike[str]) -> StorageError:
    """The one-line, user-facing form of an OSError at ``path``."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return StorageError(f"cannot use {os.fspath(path)!r}: {reason}")


def refuse_special(path: Path) -> None:
    """StorageError where ``path`` is something that must not be replaced by a file: a folder, device or pipe."""
    if path.exists() and not path.is_file():
        raise StorageError(f"cannot write to {str(path)!r}: it is a folder, device or pipe, not a file")


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb", *, private: bool = False) -> Iterator[IO]:  # type: ignore[type-arg]
    """Open a temporary file beside ``path`` that replaces it only when the block ends without an error.

    ``private``: only its owner can read it.

    The data are flushed to the device before the rename: after a crash the old file or the new one is there,
    never a torn one. Raises StorageError when the disk refuses.
    """
    temporary = ""
    try:
        refuse_special(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        encoding = None if "b" in mode else "utf-8"
        with tempfile.NamedTemporaryFile(
            mode, dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False, encoding=encoding
        ) as stream:
            temporary = stream.name
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # A temporary file is private (0600); what it becomes gets the permissions any new file would.
        if not private:
            mask = os.umask(0)
            os.umask(mask)
            Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise storage_error(error, path) from error
        raise


@contextlib.contextmanager
def alone(lock: Path, *, busy: str) -> Iterator[None]:
    """Hold the lock file ``lock``. ConflictError (``busy`` is its message) while another process does, StorageError
    where the disk refuses; nobody waits."""
    from filelock import FileLock, Timeout

    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        raise ConflictError(busy) from error
    except OSError as error:
        raise storage_error(error, lock.parent) from error
    try:
        yield
    finally:
        held.release()


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the device."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path, *, block: int = 1 << 20) -> str:
    """The SHA-256 of a file as a hex string, read in blocks of ``block`` bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(block):
            digest.update(chunk)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """``folder / name``, refused when the result would leave ``folder`` (absolute, ``..``, or a link out)."""
    root = folder.resolve()
    target = (root / name).resolve()
    if not target.is_relative_to(root):
        raise InputError(f"path {name!r} leaves the folder {str(folder)!r}: refused")
    return target


def folder_bytes(folder: Path) -> int:
    """The sizes of all files in a folder, added up."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may be tidying up
            size += path.stat().st_size if path.is_file() else 0
    return size


def human_bytes(size: float) -> str:
    """``83_506_384 -> '83.5 MB'`` (decimal units)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
