"""Writes an encoder as a sentence-transformers folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextvec.extras import require
from nextvec.files import storage_error
from nextvec.nn.backbones.hf import quiet
from nextvec.nn.backbones.static import StaticBackbone, write_static
from nextvec.nn.dense import Dense
from nextvec.nn.layout import Layout
from nextvec.types import ConflictError

if TYPE_CHECKING:
    from nextvec.nn.backbones.hf import HFBackbone

_MODULES = "sentence_transformers.models."


def save_encoder(
    folder: Path,
    backbone: StaticBackbone | HFBackbone,
    layout: Layout,
    dense: Sequence[Dense],
    *,
    dim: int,
) -> Path:
    """Write the encoder as a whole; see ``Encoder.save``."""
    with new_folder(folder) as temporary:
        _write(temporary, backbone, layout, dense, dim)
    return folder


@contextmanager
def new_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that becomes ``folder`` when the block ends without an error.

    Raises ConflictError where ``folder`` is a file, or exists and is not empty and is not to be replaced; StorageError
    when the disk refuses. Then nothing is left behind.
    """
    if folder.exists() and (not folder.is_dir() or (not replace and any(folder.iterdir()))):
        raise ConflictError(f"{str(folder)!r} exists and is not empty: choose another folder or remove it first")
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield temporary
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise storage_error(error, folder) from error
        raise


def _write(
    folder: Path, backbone: StaticBackbone | HFBackbone, layout: Layout, dense: Sequence[Dense], dim: int
) -> None:
    modules: list[tuple[str, str]] = []
    if isinstance(backbone, StaticBackbone):
        write_static(folder, backbone)
        modules.append(("", "StaticEmbedding"))
    else:
        with quiet(require("transformers", why=f"saving {folder.name!r}")):
            backbone.model.save_pretrained(folder, safe_serialization=True)
            backbone.tokenizer.save_pretrained(folder)
        _json(folder / "sentence_bert_config.json", _lengths(backbone))
        modules.append(("", "Transformer"))
        modules.append((_pooling(folder, layout, backbone.dim), "Pooling"))
    for module in dense:
        name = f"{len(modules)}_Dense"
        module.save(folder / name)
        modules.append((name, "Dense"))
    normalize = f"{len(modules)}_Normalize"
    (folder / normalize).mkdir()
    modules.append((normalize, "Normalize"))
    listed = [{"idx": i, "name": str(i), "path": p, "type": _MODULES + kind} for i, (p, kind) in enumerate(modules)]
    _json(folder / "modules.json", listed)
    settings: dict[str, Any] = {
        "prompts": layout.prompts,
        "default_prompt_name": layout.default_prompt,
        "similarity_fn_name": layout.similarity,
        "truncate_dim": layout.dim and dim,
    }
    # Keys of ours, which sentence-transformers passes over: the sizes that the model was trained to be cut to.
    nested = {"nested_dims": layout.nested_dims, "nested_layers": layout.nested_layers}
    settings |= {name: sizes for name, sizes in nested.items() if sizes}
    _json(folder / "config_sentence_transformers.json", settings)


def _lengths(backbone: HFBackbone) -> dict[str, Any]:
    return {"max_seq_length": backbone.max_length, "do_lower_case": backbone.lower_case}


def _pooling(folder: Path, layout: Layout, width: int) -> str:
    name = "1_Pooling"
    (folder / name).mkdir()
    modes = list(layout.pooling)
    config = {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": "cls" in modes,
        "pooling_mode_mean_tokens": "mean" in modes,
        "pooling_mode_max_tokens": "max" in modes,
        "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens" in modes,
        "pooling_mode_weightedmean_tokens": "weightedmean" in modes,
        "pooling_mode_lasttoken": "lasttoken" in modes,
        "include_prompt": layout.include_prompt,
    }
    _json(folder / name / "config.json", config)
    return name


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
