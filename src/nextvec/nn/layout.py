"""Reads the layout of a model folder: sentence-transformers, plain Hugging Face, model2vec, or nextvec's static one.

Folders come from outside: paths are confined to the folder, JSON is size-limited, weights are accepted as
safetensors only, and no code of theirs is ever run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nextvec.files import inside
from nextvec.types import InputError, NotFoundError

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
_MAX_JSON = 16 << 20
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass
class Layout:
    """What a model folder says of itself. ``kind`` is "static" or "transformer"."""

    kind: str
    folder: Path
    pooling: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    dense: list[Path] = field(default_factory=list)
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_length: int | None = None
    lower_case: bool = False
    similarity: str = "cosine"
    dim: int | None = None
    nested_dims: list[int] = field(default_factory=list)
    nested_layers: list[int] = field(default_factory=list)


def read_json(path: Path) -> Any:
    """The parsed JSON of a small file; one-line errors for missing, oversized or damaged files."""
    if not path.is_file():
        raise NotFoundError(f"{str(path)!r} is missing: the folder does not hold a complete model")
    size = path.stat().st_size
    if size > _MAX_JSON:
        raise InputError(f"{str(path)!r} has {size:,} bytes; a configuration may have {_MAX_JSON:,}: refused")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is not valid JSON ({error}): the file is damaged or truncated") from error


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{str(path)!r} holds a JSON {type(value).__name__}, expected an object")
    return value


def require_safetensors(folder: Path) -> None:
    """Refuse a folder whose weights are pickles (they can run code) or absent."""
    if list(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{str(folder)!r} has its weights only as a pickle ({pickles[0]}), which can run code when loaded: "
            "refused. Convert it to model.safetensors first"
        )
    raise NotFoundError(f"{str(folder)!r} holds no *.safetensors: the folder does not hold a complete model")


def read_layout(folder: Path) -> Layout:
    """The layout of the model in ``folder``."""
    if not folder.is_dir():
        raise NotFoundError(f"{str(folder)!r} is not a folder: expected a model folder")
    if (folder / "modules.json").is_file():
        return _sentence_transformers(folder)
    config = _object(folder / "config.json")
    model_type = config.get("model_type")
    if model_type == "nextvec-static":
        prompts = config.get("prompts") or {}
        return Layout(
            "static",
            folder,
            prompts=_prompts(prompts, folder),
            max_length=_whole(config, "max_length", folder),
            dim=_whole(config, "dim", folder),
            nested_dims=_wholes(config, "nested_dims", folder),
        )
    if model_type == "model2vec":
        return Layout("static", folder, max_length=_whole(config, "seq_length", folder))
    return Layout("transformer", folder)


def _sentence_transformers(folder: Path) -> Layout:
    modules = read_json(folder / "modules.json")
    if not isinstance(modules, list) or not all(isinstance(m, dict) and "type" in m for m in modules):
        raise InputError(f"{str(folder / 'modules.json')!r}: expected a list of objects with a 'type'")
    layout: Layout | None = None
    for module in modules:
        kind = str(module["type"]).rpartition(".")[2]
        where = inside(folder, str(module.get("path") or "."))
        if layout is None:
            if kind not in ("Transformer", "StaticEmbedding"):
                raise InputError(
                    f"{folder.name}: first module {kind!r} is not supported (Transformer or StaticEmbedding)"
                )
            layout = Layout("static" if kind == "StaticEmbedding" else "transformer", where)
        elif kind == "Pooling":
            layout.pooling, layout.include_prompt = _pooling(_object(where / "config.json"))
        elif kind == "Dense":
            layout.dense.append(where)
        elif kind not in ("Normalize", "Dropout"):
            raise InputError(
                f"{folder.name}: module {kind!r} is not supported "
                "(Transformer, StaticEmbedding, Pooling, Dense, Normalize, Dropout)"
            )
    if layout is None:
        raise InputError(f"{str(folder / 'modules.json')!r} names no module")
    _add_settings(layout, folder)
    return layout


def _add_settings(layout: Layout, folder: Path) -> None:
    """Prompts, similarity and lengths from sentence-transformers' two configuration files, where present."""
    settings = folder / "config_sentence_transformers.json"
    if settings.is_file():
        config = _object(settings)
        layout.prompts = _prompts(config.get("prompts") or {}, settings)
        name = config.get("default_prompt_name")
        if name is not None and not isinstance(name, str):
            raise InputError(f"{str(settings)!r}: 'default_prompt_name' is {name!r:.40}; expected a name")
        layout.default_prompt = name
        layout.similarity = config.get("similarity_fn_name") or "cosine"
        if layout.similarity not in SIMILARITIES:
            raise InputError(
                f"{str(settings)!r}: similarity {layout.similarity!r:.40}; known: {', '.join(SIMILARITIES)}"
            )
        layout.dim = _whole(config, "truncate_dim", settings)
        layout.nested_dims = _wholes(config, "nested_dims", settings)
        layout.nested_layers = _wholes(config, "nested_layers", settings)
    lengths = layout.folder / "sentence_bert_config.json"
    if lengths.is_file():
        config = _object(lengths)
        layout.max_length = _whole(config, "max_seq_length", lengths)
        layout.lower_case = bool(config.get("do_lower_case", False))


def _whole(config: dict[str, Any], name: str, where: Path) -> int | None:
    value = config.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise InputError(f"{str(where)!r}: {name!r} is {value!r:.40}; expected a whole number from 1")
    return value


def _wholes(config: dict[str, Any], name: str, where: Path) -> list[int]:
    values = config.get(name) or []
    if not isinstance(values, list):
        raise InputError(f"{str(where)!r}: {name!r} is {values!r:.40}; expected a list of whole numbers")
    return [_whole({name: value}, name, where) or 0 for value in values]


def _prompts(value: Any, where: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise InputError(f"{str(where)!r}: 'prompts' must map names to texts")
    return dict(value)


def _pooling(config: dict[str, Any]) -> tuple[tuple[str, ...], bool]:
    mode = config.get("pooling_mode") or [name for key, name in _LEGACY_POOLING.items() if config.get(key)]
    modes = (mode,) if isinstance(mode, str) else tuple(mode)
    return modes or ("mean",), bool(config.get("include_prompt", True))
