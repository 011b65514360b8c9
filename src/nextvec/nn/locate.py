"""Finds the folder of a model: by bundled name, as a folder, or in the hub's local cache (else from the hub)."""

from __future__ import annotations

from pathlib import Path

from nextvec.extras import require
from nextvec.types import NotFoundError, OfflineError, did_you_mean

__all__ = ["bundled_models", "model_folder"]

_MODELS = Path(__file__).parents[1] / "models"


def bundled_models() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(path.name for path in _MODELS.iterdir() if path.is_dir()) if _MODELS.is_dir() else []


def model_folder(
    path_or_name: str | Path, *, local_files_only: bool = False, revision: str | None = None
) -> tuple[Path, str]:
    """The model's folder and its short name, from a bundled name, a folder (a training run's too), or a hub id
    ("owner/name").

    local_files_only: never use the network. Raises NotFoundError, OfflineError.
    """
    name = str(path_or_name)
    if name in bundled_models():
        return _MODELS / name, name
    try:
        path = Path(path_or_name).expanduser()
        if path.is_dir():
            return _encoder_of(path), path.resolve().name
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, "~nobody", a NUL in it
        raise NotFoundError(f"no model {name[:80]!r}: not a path ({error})"[:300]) from error
    if isinstance(path_or_name, str) and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _from_hub(name, local_files_only=local_files_only, revision=revision), name
    hint = did_you_mean(name, bundled_models())
    raise NotFoundError(f"no model {name!r}: not a folder and not bundled ({', '.join(bundled_models())}){hint}")


def _encoder_of(folder: Path) -> Path:
    """The folder itself, or of a training run its encoder/."""
    made = folder / "encoder"
    return made if (folder / "run.yaml").is_file() and made.is_dir() else folder


def _from_hub(name: str, *, local_files_only: bool, revision: str | None) -> Path:
    hub = require("huggingface_hub", why=f"fetching {name!r}")
    allowed = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        folder = hub.snapshot_download(
            name, revision=revision, allow_patterns=allowed, local_files_only=local_files_only
        )
    except Exception as error:  # the client raises its own, requests' and OS errors for one and the same cause
        first = str(error).strip().split("\n")[0][:200]
        raise OfflineError(
            f"model {name!r} is neither a folder here nor in the local cache, and the hub gave none: {first}. "
            "Pass a model folder, or use 'nextvec-mini'"
        ) from error
    return Path(folder)
