"""How a codec lies on disk: ``codec.json`` and one .npy file for each array, named by what it holds.

The arrays are written first and ``codec.json``, which names them, last and atomically; only then are the arrays of an
earlier codec removed. So whoever reads finds one whole codec, or a header that has just been replaced, and begins
again. Writers take turns through ``codec.lock``. What is read is not trusted: sizes, types, shapes,
checksums and values are checked, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from nextvec.compress.vectors._part import Float32, Stage
from nextvec.files import atomic_write, inside, storage_error
from nextvec.types import ConflictError, NotFoundError, StorageError

FORMAT = 1
_HEADER = "codec.json"
_MAX_HEADER = 64 * 1024  # bytes
_LOCK_TIMEOUT = 30.0  # seconds
_ARRAY_FILE = re.compile(r"\d+-[a-z0-9]+-[a-z]+-[0-9a-f]{12}\.npy")


def write_folder(folder: Path, header: Mapping[str, Any], arrays: Mapping[str, Float32]) -> None:
    """Write ``header`` (JSON values) and ``arrays``. StorageError where the disk refuses, ConflictError where another
    process has been writing there for 30 seconds."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "codec.lock", timeout=_LOCK_TIMEOUT):
            _write(folder, header, arrays)
    except Timeout as error:
        raise ConflictError(f"another process has been writing to {str(folder)!r} for 30 seconds: try again") from error
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, folder) from error


def _write(folder: Path, header: Mapping[str, Any], arrays: Mapping[str, Float32]) -> None:
    files = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array, np.float32), allow_pickle=False)
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        files[name] = {"file": f"{name}-{digest[:12]}.npy", "sha256": digest}
        with atomic_write(folder / files[name]["file"]) as stream:
            stream.write(buffer.getvalue())
    with atomic_write(folder / _HEADER, "w") as stream:
        document = {"format": FORMAT, **header, "arrays": files}
        json.dump({**document, "check": header_check(document)}, stream, indent=2)
    kept = {entry["file"] for entry in files.values()}
    for path in folder.iterdir():
        if path.name not in kept and _ARRAY_FILE.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def header_check(document: Mapping[str, Any]) -> str:
    """A checksum of a header's values."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def damaged(folder: Path, reason: object) -> StorageError:
    """The one error for a folder that is not what was written."""
    return StorageError(f"the codec in {str(folder)!r} is damaged ({reason}): fit it again and save it")


def read_header(folder: Path) -> dict[str, Any]:
    """``codec.json``. NotFoundError where there is none, StorageError where it cannot be read."""
    path = folder / _HEADER
    if not path.is_file():
        raise NotFoundError(f"no codec in {str(folder)!r}: there is no {_HEADER} (Codec.save writes it)")
    try:
        if path.stat().st_size > _MAX_HEADER:
            raise damaged(folder, f"{_HEADER} is larger than {_MAX_HEADER} bytes")
        header = json.loads(path.read_bytes())
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, path) from error
    except (ValueError, RecursionError) as error:
        raise damaged(folder, f"{_HEADER} is not JSON") from error
    if not isinstance(header, dict):
        raise damaged(folder, f"{_HEADER} is not an object")
    if header.get("format") != FORMAT:
        raise StorageError(
            f"the codec in {str(folder)!r} has format {header.get('format')!r}: this version of nextvec reads {FORMAT}"
        )
    if header.pop("check", None) != header_check(header):
        raise damaged(folder, f"{_HEADER} is not what was written")
    return header


def array_name(place: int, stage: Stage, name: str) -> str:
    """What the array ``name`` of the part at ``place`` is called in the folder."""
    return f"{place}-{stage.name}-{name}"


def read_array(folder: Path, entries: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Float32:
    """The array ``name`` of those that the header's ``entries`` name. StorageError where it is not what was written."""
    entry = entries.get(name)
    file = entry.get("file") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(file, str) or not _ARRAY_FILE.fullmatch(file):
        raise damaged(folder, f"no file is named for {name}")
    path = inside(folder, file)
    try:
        # A file much larger than its shape asks for is refused before it is read.
        if path.stat().st_size > 4 * int(np.prod(shape, dtype=object)) + 4096:
            raise damaged(folder, f"{file} is too large")
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != entry.get("sha256"):
            raise damaged(folder, f"{file} is not what was written")
        array = np.load(io.BytesIO(raw), allow_pickle=False)
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise damaged(folder, f"{file} is missing") from error
    except OSError as error:
        raise storage_error(error, path) from error
    except Exception as error:  # what NumPy raises for a header that is none varies
        raise damaged(folder, f"{file} is no .npy file") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape != shape:
        raise damaged(folder, f"{file} is not float32 {list(shape)}")
    if not np.isfinite(array).all():
        raise damaged(folder, f"{file} holds NaN or an infinite number")
    return array
