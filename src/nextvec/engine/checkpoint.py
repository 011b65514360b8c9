"""Checkpoints: named tensors and what belongs to them, in a folder that is whole or is not there.

    folder/step-00001000/     info.json, and one .safetensors file per process (no pickles)
    folder/.step-00002000.part/     one being written; the next save removes what a killed one left

Written with torch.distributed.checkpoint (DCP): every process writes its own part, and a checkpoint of many processes
opens in one or in another number. ``info.json`` comes last and holds the size and SHA-256 of every file and of itself;
the folder gets its name only when all of that is on the disk. The folder must be seen by all processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.tensor import DTensor

from nextvec import __version__
from nextvec.engine import dist
from nextvec.files import atomic_write, sha256, storage_error, sync
from nextvec.types import InputError, NotFoundError, StorageError, did_you_mean

__all__ = ["FORMAT", "latest", "load", "read", "read_info", "rng_tensors", "save", "scan", "set_rng"]

FORMAT = 1
_INFO = "info.json"
_MAX_INFO = 64 << 20
_NAME = re.compile(r"step-\d{8,}")
_logger = getLogger(__name__)


# ---------------------------------------------------------------------------------------------------- writing


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], info: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write ``folder/step-<step>`` and return it; then only the ``keep`` newest stay. All processes call it together.

    tensors: plain (one process's copy is written) or sharded; names of what differs between processes must differ.
    info: must hold "method", the method's name; JSON. StorageError where the disk refuses, in every process: then what
    was written is removed and the earlier checkpoints are untouched.
    """
    if step < 0 or keep < 1:
        raise InputError(f"step {step} and keep {keep}: expected a step from 0 on, and at least 1 checkpoint to keep")
    text = _info_text(info, step)
    part = folder / f".step-{step:08d}.part"
    try:
        dist.together(lambda: _prepare(folder, part), first_only=True)
        _write(part, tensors)
        return dist.together(lambda: _publish(part, folder / f"step-{step:08d}", text, keep), first_only=True)
    except BaseException:
        if dist.rank() == 0:
            shutil.rmtree(part, ignore_errors=True)
        raise


def _info_text(info: Mapping[str, Any], step: int) -> str:
    if not isinstance(info.get("method"), str):
        raise InputError("the info of a checkpoint must hold 'method', the method's name")
    ours = {"format": FORMAT, "nextvec": __version__, "step": step, "world": dist.world()}
    try:
        return json.dumps({**info, **ours}, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the info of a checkpoint must be JSON: {error}") from error


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Errors of the disk, DCP's wrapping of them included, as one-line StorageErrors about ``folder``."""
    try:
        with warnings.catch_warnings():
            # DCP remarks on every call that there is one process only.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
            yield
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        for cause in causes:
            if isinstance(cause, KeyboardInterrupt):
                raise KeyboardInterrupt from error
        for cause in causes:
            if isinstance(cause, OSError):
                raise storage_error(cause, folder) from error
        # A BaseException would slip past whoever handles errors.
        raise RuntimeError(str(error)) from error
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, folder) from error


def _prepare(folder: Path, part: Path) -> None:
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".step-*.part"):
            shutil.rmtree(left)
        part.mkdir()


def _write(part: Path, tensors: Mapping[str, Tensor]) -> None:
    with _disk(part.parent):
        writer = HuggingFaceStorageWriter(path=str(part), save_distributed=True)
        dcp_save(_storable(tensors), storage_writer=writer)


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous and without shared memory, as safetensors wants them: a tied weight is written under each name."""
    seen: set[int] = set()
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        place = _own_part(tensor).untyped_storage().data_ptr()
        result[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return result


def _own_part(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _publish(part: Path, target: Path, text: str, keep: int) -> Path:
    with _disk(part.parent):
        files = {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in sorted(part.iterdir())}
        info = {**json.loads(text), "files": files}
        with atomic_write(part / _INFO, "w") as stream:
            json.dump({**info, "digest": _digest(info)}, stream, ensure_ascii=False, indent=1)
        sync(part)
        old = target.with_name(f".{target.name}.old.part")
        if target.exists():
            target.rename(old)
        try:
            part.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
        sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
    _prune(target.parent, keep)
    return target


def _prune(folder: Path, keep: int) -> None:
    """Remove what is older than the ``keep`` newest checkpoints whose files have their sizes."""
    left = keep
    for path in _found(folder):
        if left:
            left -= _damage(path, hashes=False) is None
            continue
        # Renamed first: half a removal must not look like a checkpoint. A disk that refuses costs only space.
        with contextlib.suppress(OSError):
            hidden = path.rename(path.with_name(f".{path.name}.part"))
            shutil.rmtree(hidden)


# ---------------------------------------------------------------------------------------------------- finding


def scan(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint in ``folder`` (None: there is none) and a line on each newer one that is damaged.

    Every byte is checked against its hash. InputError where the newest whole one has another format. All processes
    call it together; the first looks.
    """

    def look() -> tuple[Path | None, list[str]]:
        notes: list[str] = []
        for path in _found(folder):
            damage = _damage(path)
            if damage is None:
                return path, notes
            notes.append(f"checkpoint {str(path)!r} is skipped: {damage}")
        return None, notes

    return dist.together(look, first_only=True)


def latest(folder: Path) -> Path | None:
    """As ``scan``, with the lines on damaged ones logged as warnings."""
    path, notes = scan(folder)
    if dist.rank() == 0:
        for note in notes:
            _logger.warning(note)
    return path


def _found(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, newest first, whole or not."""
    if not folder.is_dir():
        return []
    names = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(names, key=lambda path: -int(path.name.removeprefix("step-")))


def _digest(info: Mapping[str, Any]) -> str:
    """The SHA-256 of everything in info.json but the digest itself."""
    rest = {key: value for key, value in info.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _parse(path: Path) -> dict[str, Any]:
    """info.json of the checkpoint ``path``; StorageError where it is missing or damaged, InputError where its format
    is not ours."""
    file = path / _INFO
    if not file.is_file():
        raise StorageError(f"{_INFO} is missing")
    if file.stat().st_size > _MAX_INFO:
        raise StorageError(f"{_INFO} has more than {_MAX_INFO:,} bytes")
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{_INFO} is not valid JSON") from error
    if not isinstance(info, dict) or info.get("digest") != _digest(info):
        raise StorageError(f"{_INFO} is not what was written (its digest differs)")
    if info.get("format") != FORMAT:
        raise InputError(
            f"the checkpoint {str(path)!r} has format {info.get('format')!r} (of nextvec {info.get('nextvec')!r}); this"
            f" version, {__version__}, reads format {FORMAT}: use the one that wrote it"
        )
    return info


def _damage(path: Path, *, hashes: bool = True) -> str | None:
    """What is wrong with the checkpoint ``path``; None where it is whole."""
    try:
        files: dict[str, dict[str, Any]] = _parse(path)["files"]
        there = {file.name for file in path.iterdir()} - {_INFO}
        lone = sorted(there ^ files.keys())
        if lone:
            return f"{lone[0]} is {'not listed in info.json' if lone[0] in there else 'missing'}"
        for name, expected in files.items():
            size = (path / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size:,} bytes, expected {expected['bytes']:,}"
            if hashes and sha256(path / name) != expected["sha256"]:
                return f"{name} is not what was written (its SHA-256 differs)"
    except OSError as error:  # StorageError included
        return str(error)
    return None


# ---------------------------------------------------------------------------------------------------- reading


def read_info(path: Path, *, method: str | None = None) -> dict[str, Any]:
    """What was saved beside the tensors: "method", "step", "world" (processes), "nextvec", "format", and the caller's.

    method: the name it must have, else InputError. NotFoundError without a checkpoint at ``path``; StorageError where
    info.json is damaged.
    """
    if not path.is_dir():
        raise NotFoundError(f"there is no checkpoint {str(path)!r}")
    try:
        info = _parse(path)
    except StorageError as error:
        raise StorageError(f"cannot use the checkpoint {str(path)!r}: {error}") from error
    if method is not None and info["method"] != method:
        raise InputError(
            f"the checkpoint {str(path)!r} is of method {info['method']!r}, expected {method!r}: choose another folder"
        )
    return info


def load(path: Path, tensors: Mapping[str, Tensor], *, method: str | None = None, partial: bool = False) -> None:
    """Fill ``tensors`` (plain or sharded) in place from the checkpoint. All processes call it together.

    Names, shapes and dtypes must be those that were saved; what was saved and is not asked for is an error too, unless
    ``partial`` (random states of other processes aside). Raises InputError for these and for another method or format,
    StorageError for a damaged checkpoint, in every process; then nothing has changed.
    """
    info = dist.together(lambda: _whole(path, method), first_only=True)
    reader = HuggingFaceStorageReader(str(path))
    dist.together(lambda: _match(path, reader, tensors, info, partial))
    with _disk(path):
        dcp_load({name: tensor.detach() for name, tensor in tensors.items()}, storage_reader=reader)


def read(path: Path, *, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of the checkpoint whose names begin with ``prefix`` (which is cut off), whole, on the CPU.

    For one process: averages, export, a look inside. Raises as ``load``; NotFoundError where no name begins so.
    """
    _whole(path, None)
    reader = HuggingFaceStorageReader(str(path))
    found = {name: item for name, item in _stored(path, reader).items() if name.startswith(prefix)}
    if not found:
        raise NotFoundError(f"the checkpoint {str(path)!r} has no tensor whose name begins with {prefix!r}")
    tensors = {name: torch.empty(item.size, dtype=item.properties.dtype) for name, item in found.items()}
    with _disk(path):
        dcp_load(dict(tensors), storage_reader=reader, no_dist=True)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _whole(path: Path, method: str | None) -> dict[str, Any]:
    info = read_info(path, method=method)
    damage = _damage(path)
    if damage is not None:
        raise StorageError(f"cannot use the checkpoint {str(path)!r}: {damage}")
    return info


def _stored(path: Path, reader: HuggingFaceStorageReader) -> dict[str, TensorStorageMetadata]:
    with _disk(path):
        return cast(dict[str, TensorStorageMetadata], reader.read_metadata().state_dict_metadata)


def _match(
    path: Path, reader: HuggingFaceStorageReader, tensors: Mapping[str, Tensor], info: Mapping[str, Any], partial: bool
) -> None:
    stored = _stored(path, reader)
    where = f"the checkpoint {str(path)!r}"
    for name, tensor in tensors.items():
        if name not in stored:
            if name.startswith("rng."):
                raise InputError(
                    f"{where} lacks {name!r}: it was saved by {info['world']} process(es), on another device or number"
                    " of processes; resume with the same"
                )
            raise InputError(f"{where} lacks {name!r}{did_you_mean(name, stored)}: was it saved with other settings?")
        size, dtype = stored[name].size, stored[name].properties.dtype
        if size != tensor.shape or dtype != tensor.dtype:
            raise InputError(
                f"{where} has {name!r} as {dtype} {list(size)}; expected {tensor.dtype} {list(tensor.shape)}:"
                " was it saved with other settings?"
            )
    extra = [name for name in stored if name not in tensors and not name.startswith("rng.")]
    if extra and not partial:
        raise InputError(f"{where} has {extra[0]!r}, which is not expected here: was it saved with other settings?")


# ---------------------------------------------------------------------------------------------------- random states


def rng_tensors() -> dict[str, Tensor]:
    """The states of this process's random generators: ``rng.cpu.<rank>`` and, with a GPU, ``rng.cuda.<rank>`` (uint8,
    on the CPU)."""
    tensors = {f"rng.cpu.{dist.rank()}": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors[f"rng.cuda.{dist.rank()}"] = torch.cuda.get_rng_state()
    return tensors


def set_rng(tensors: Mapping[str, Tensor]) -> None:
    """Set this process's random generators to what ``rng_tensors`` gave it; other names are passed over."""
    own = f"rng.cpu.{dist.rank()}"
    if own not in tensors:
        raise InputError(f"there is no random state {own!r}: the checkpoint was saved by fewer processes")
    torch.set_rng_state(tensors[own])
    gpu = f"rng.cuda.{dist.rank()}"
    if torch.cuda.is_available() and gpu in tensors:
        torch.cuda.set_rng_state(tensors[gpu])
