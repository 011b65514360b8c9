"""Results as files: one JSON document per model, task and size, and beside it what was seen of every example.

OUT/MODEL/TASK.dim64.layers3.int8.limit100.json, the parts that are not the default; the same name with .npz holds the
examples, so that two models can be compared later without encoding anything again.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from nextvec.evaluate.embedder import Size
from nextvec.evaluate.outcomes import Outcome
from nextvec.files import atomic_write, storage_error
from nextvec.types import InputError

__all__ = ["KIND", "SCHEMA", "read_record", "record_path", "safe_name", "write_record"]

KIND = "evaluation"
SCHEMA = 1
_FIELDS = ("settings", "model", "task", "measures", "outcome", "seconds")


def record_path(out: Path, model: str, task: str, size: Size, limit: int | None) -> Path:
    """Where the result of ``task`` (its slug) at ``size`` lies; ``model`` is a folder's name (see ``safe_name``)."""
    parts = [
        task,
        f"dim{size.dim}" if size.dim is not None else "",
        f"layers{size.layers}" if size.layers is not None else "",
        size.dtype if size.dtype != "float32" else "",
        f"limit{limit}" if limit is not None else "",
    ]
    return out / model / f"{'.'.join(filter(None, parts))}.json"


def safe_name(text: str) -> str:
    """``text`` with what a file name should not hold replaced by dashes, at most 60 characters."""
    kept = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in text)
    return kept.strip("-")[-60:] or "model"


def write_record(path: Path, record: Mapping[str, Any], outcome: Outcome) -> None:
    """Write both files, the JSON document last: where it is, its examples are. StorageError where the disk refuses."""
    with atomic_write(path.with_suffix(".npz")) as stream:
        np.savez_compressed(stream, **cast(dict[str, Any], dict(outcome.columns)))
    with atomic_write(path, "w") as stream:
        json.dump({"kind": KIND, "schema": SCHEMA, **record}, stream, indent=1, allow_nan=False)
        stream.write("\n")


def read_record(path: Path, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Outcome] | None:
    """The document and the outcome at ``path``; None where there is none, or one of other settings (data, weights).

    InputError for files that are damaged.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    except ValueError as error:
        raise _damaged(path, f"not valid JSON ({error})") from error
    if not isinstance(record, dict) or record.get("kind") != KIND or record.get("schema") != SCHEMA:
        raise _damaged(path, f"no evaluation of schema {SCHEMA}")
    if lacking := [name for name in _FIELDS if name not in record]:
        raise _damaged(path, f"it lacks {lacking[0]!r}")
    if record["settings"] != dict(settings):
        return None
    return record, _outcome(path.with_suffix(".npz"), str(record["outcome"]))


def _outcome(path: Path, kind: str) -> Outcome:
    try:
        with np.load(path, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
        return Outcome(kind, columns)
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, str(error) or type(error).__name__) from error
    except OSError as error:
        raise storage_error(error, path) from error


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{str(path)!r} cannot be used: {why}; measure again with --again, or remove the file")
