"""Our transformer's weights, name for name, as Hugging Face's: what is trained here opens there, and the other way.

Two layouts: "qwen3" (causal, grouped heads with QK norm, SwiGLU) and "bert" (bidirectional, norms after the sum). One
table per layout (``_qwen3``, ``_bert``) is read in both directions: a matrix of ours is theirs, or several of theirs
one below the other (query, key, value; gate and up). Only safetensors are read, and no code of a model's own is run.

What has no place here: BERT's pooler (no hidden state depends on it) is left out when read, and written as zeros so
that the folder is complete; heads other than the language model's are left out.

Legend: D width, H query heads, Hkv key/value heads, d head width, F feed-forward width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nextvec.files import inside
from nextvec.nn.backbones.transformer import Transformer
from nextvec.nn.backbones.transformer_config import TransformerConfig
from nextvec.nn.layout import read_json, require_safetensors
from nextvec.nn.save import new_folder
from nextvec.types import InputError, NotFoundError

__all__ = ["from_hf", "layout_of", "save_hf", "to_hf_config", "to_hf_state"]

_ACTIVATIONS = {"gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_BERT_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
# Prefixes that a model with a head puts before the names of its body.
_PREFIXES = {"qwen3": "model.", "bert": "bert."}
_IGNORED = {
    "qwen3": ("rotary_emb.inv_freq",),
    "bert": ("pooler.", "cls.", "embeddings.position_ids", "classifier.", "qa_outputs."),
}


@dataclass(frozen=True, slots=True)
class _Row:
    """ours: a name in our state; theirs: its parts, each a name and a number of rows (0: all of it)."""

    ours: str
    theirs: tuple[tuple[str, int], ...]


def from_hf(source: Path | str | Any, **changes: Any) -> Transformer:
    """Our transformer, float32, with the weights of ``source``: a folder with config.json and safetensors, or a
    ``transformers`` model.

    changes: fields of ``TransformerConfig`` that leave the weights as they are, such as dropout=0.0,
    attention="bidirectional" or checkpointing=True. Without them the result computes what ``source`` does.
    Raises InputError for a model whose weights or settings have no counterpart here; NotFoundError for no model.
    """
    if isinstance(source, (str, Path)):
        folder = Path(source)
        if not folder.is_dir():
            raise NotFoundError(f"{str(folder)!r} is not a folder: expected a model folder with config.json")
        where, settings, state = str(folder), read_json(folder / "config.json"), _read_weights(folder)
    else:
        where, settings, state = type(source).__name__, source.config.to_dict(), dict(source.state_dict())
    kind = str(settings.get("model_type")) if isinstance(settings, dict) else "none"
    if kind not in _PREFIXES:
        raise InputError(f"{where!r} is of type {kind!r}; weights map from {' and '.join(_PREFIXES)} only")
    try:
        config = _read_bert(settings) if kind == "bert" else _read_qwen3(settings)
    except KeyError as error:
        raise InputError(f"{where!r}: config.json lacks {error}, which a {kind} model needs") from error
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{where!r}: config.json has a value of the wrong type ({error})") from error
    if config.layers > len(state):
        raise InputError(f"{where!r}: config.json says {config.layers} layers, but there are {len(state)} weights")
    if not config.tied and not any(name.endswith("lm_head.weight") for name in state):
        # A body alone, as embedding models are: there is no head that tying could change.
        config = replace(config, tied=True)
    config = replace(config, **changes)
    # No memory before the shapes are found to agree: what config.json says may be anything.
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(_to_ours(kind, model, state, where), assign=True)
    if any(buffer.is_meta for buffer in model.buffers()):
        # Computed tables of positions, which weights do not bring along.
        model.positions = type(model.positions)(config)
    return model.requires_grad_(True)


def layout_of(config: TransformerConfig) -> str:
    """The Hugging Face layout that computes what ``config`` says: "qwen3" or "bert". InputError naming what neither
    has."""
    kind = "bert" if config.norm_position == "post" else "qwen3"
    expected = _expected(kind, config)
    for name, values in expected.items():
        if getattr(config, name) not in values:
            wanted = " or ".join(repr(value) for value in values)
            raise InputError(f"{name}={getattr(config, name)!r} has no counterpart in the {kind} layout ({wanted})")
    if not config.vocab:
        raise InputError("a transformer without a token table (vocab=0) has no counterpart at Hugging Face")
    return kind


def to_hf_state(transformer: Transformer, layout: str | None = None) -> dict[str, Tensor]:
    """The weights under Hugging Face's names, as detached copies on the CPU: those of Qwen3ForCausalLM ("qwen3") or
    BertModel ("bert"; its pooler is zero). ``layout`` None: the one that fits (``layout_of``)."""
    config = transformer.config
    kind = _fitting(config, layout)
    ours = {name: value.detach().cpu() for name, value in transformer.state_dict().items()}
    state: dict[str, Tensor] = {}
    for row in _table(kind, config):
        sizes = [rows or len(ours[row.ours]) for _, rows in row.theirs]
        for (name, _), part in zip(row.theirs, torch.split(ours[row.ours], sizes), strict=True):
            state[name] = part.clone()
    if kind == "bert":
        example = ours["tokens.weight"]
        state["pooler.dense.weight"] = example.new_zeros(config.dim, config.dim)
        state["pooler.dense.bias"] = example.new_zeros(config.dim)
        return state
    return {name if name == "lm_head.weight" else f"model.{name}": value for name, value in state.items()}


def to_hf_config(config: TransformerConfig, layout: str | None = None) -> dict[str, Any]:
    """The content of Hugging Face's config.json for ``config``."""
    kind = _fitting(config, layout)
    common: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": config.vocab,
        "hidden_size": config.dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn_width,
        "max_position_embeddings": config.max_length,
        "tie_word_embeddings": config.tied,
        "dtype": "float32",
    }
    if kind == "bert":
        return common | {
            "architectures": ["BertModel"],
            "hidden_act": _BERT_ACTIVATIONS[config.activation],
            "hidden_dropout_prob": config.dropout,
            "attention_probs_dropout_prob": 0.0,
            "type_vocab_size": config.token_types,
            "layer_norm_eps": config.eps,
        }
    return common | {
        "architectures": ["Qwen3ForCausalLM"],
        "num_key_value_heads": config.key_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": config.eps,
        "rope_parameters": _write_rope(config),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
    }


def save_hf(transformer: Transformer, folder: Path, *, tokenizer: Any = None) -> Path:
    """Write config.json and model.safetensors, which ``transformers.AutoModel`` opens, and the tokenizer's files.

    folder: new or empty; it appears whole or not at all. tokenizer: one of ``transformers`` or of
    ``nextvec.data.tokenizers``. Raises InputError for a transformer that no layout fits, ConflictError for a folder
    that is not empty, StorageError when the disk refuses.
    """
    from safetensors.torch import save_file

    kind = layout_of(transformer.config)
    state = to_hf_state(transformer, kind)
    settings = to_hf_config(transformer.config, kind)
    settings["dtype"] = str(next(iter(state.values())).dtype).removeprefix("torch.")
    with new_folder(folder) as temporary:
        (temporary / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        save_file(state, temporary / "model.safetensors", metadata={"format": "pt"})
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(temporary)
        elif tokenizer is not None:
            tokenizer.save(temporary)
    return folder


def _expected(kind: str, config: TransformerConfig) -> dict[str, tuple[Any, ...]]:
    """What a layout can express: field -> possible values."""
    if kind == "bert":
        return {
            "norm": ("layer",),
            "embed_norm": (True,),
            "activation": tuple(_BERT_ACTIVATIONS),
            "positions": ("learned",),
            "attention": ("bidirectional",),
            "biases": (True,),
            "qk_norm": (False,),
            "tied": (True,),
            "key_heads": (config.heads,),
            "head_width": (config.dim // config.heads,),
            "token_types": (max(config.token_types, 1),),
        }
    return {
        "norm": ("rms",),
        "embed_norm": (False,),
        "activation": ("swiglu",),
        "positions": ("rope",),
        "attention": ("causal",),
        "biases": (False,),
        "qk_norm": (True,),
        "token_types": (0,),
    }


def _fitting(config: TransformerConfig, layout: str | None) -> str:
    kind = layout_of(config)
    if layout not in (None, kind):
        raise InputError(f"layout {layout!r} does not fit this transformer, whose layout is {kind!r}")
    return kind


def _table(kind: str, config: TransformerConfig) -> list[_Row]:
    return _bert(config) if kind == "bert" else _qwen3(config)


def _qwen3(config: TransformerConfig) -> list[_Row]:
    q, kv, f = config.heads * config.head_width, config.key_heads * config.head_width, config.ffn_width
    rows = [_one("tokens.weight", "embed_tokens.weight"), _one("final_norm.weight", "norm.weight")]
    if not config.tied:
        rows.append(_one("head.weight", "lm_head.weight"))
    for i in range(config.layers):
        b, x = f"blocks.{i}.", f"layers.{i}."
        heads = ((f"{x}self_attn.{name}_proj.weight", size) for name, size in (("q", q), ("k", kv), ("v", kv)))
        rows += [
            _Row(f"{b}qkv.weight", tuple(heads)),
            _Row(f"{b}up.weight", ((f"{x}mlp.gate_proj.weight", f), (f"{x}mlp.up_proj.weight", f))),
            _one(f"{b}out.weight", f"{x}self_attn.o_proj.weight"),
            _one(f"{b}down.weight", f"{x}mlp.down_proj.weight"),
            _one(f"{b}query_scale", f"{x}self_attn.q_norm.weight"),
            _one(f"{b}key_scale", f"{x}self_attn.k_norm.weight"),
            _one(f"{b}attention_norm.weight", f"{x}input_layernorm.weight"),
            _one(f"{b}ffn_norm.weight", f"{x}post_attention_layernorm.weight"),
        ]
    return rows


def _bert(config: TransformerConfig) -> list[_Row]:
    e = "embeddings."
    rows = [
        _one("tokens.weight", f"{e}word_embeddings.weight"),
        _one("positions.table.weight", f"{e}position_embeddings.weight"),
        _one("types.weight", f"{e}token_type_embeddings.weight"),
        _one("embed_norm.weight", f"{e}LayerNorm.weight"),
        _one("embed_norm.bias", f"{e}LayerNorm.bias"),
    ]
    parts = {
        "out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "ffn_norm": "output.LayerNorm",
    }
    for i in range(config.layers):
        b, x = f"blocks.{i}.", f"encoder.layer.{i}."
        for kind in ("weight", "bias"):
            heads = ((f"{x}attention.self.{name}.{kind}", config.dim) for name in ("query", "key", "value"))
            rows.append(_Row(f"{b}qkv.{kind}", tuple(heads)))
            rows += [_one(f"{b}{ours}.{kind}", f"{x}{theirs}.{kind}") for ours, theirs in parts.items()]
    return rows


def _one(ours: str, theirs: str) -> _Row:
    return _Row(ours, ((theirs, 0),))


def _to_ours(kind: str, model: Transformer, state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    prefix, config = _PREFIXES[kind], model.config
    theirs = {name.removeprefix(prefix): value for name, value in state.items()}
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    ours = {}
    for row in _table(kind, config):
        parts = []
        for name, rows in row.theirs:
            if name not in theirs:
                raise InputError(f"{where!r} lacks the weight {name!r}: the file is incomplete or of another model")
            part, whole = theirs.pop(name), shapes[row.ours]
            expected = (rows or whole[0], *whole[1:])
            if part.shape != expected:
                raise InputError(f"{where!r}: {name!r} is {list(part.shape)}; config.json says {list(expected)}")
            parts.append(part.detach())
        # Always a copy: what is trained here must not change the model that it came from.
        ours[row.ours] = torch.cat([part.to(torch.float32) for part in parts])
    if config.tied:
        theirs.pop("lm_head.weight", None)
    left = [name for name in theirs if not any(part in name for part in _IGNORED[kind])]
    if left:
        raise InputError(f"{where!r} has weights that have no place here, such as {left[0]!r}")
    return ours


def _read_qwen3(settings: Mapping[str, Any]) -> TransformerConfig:
    _require("qwen3", settings, "hidden_act", "silu")
    _require("qwen3", settings, "attention_bias", False)
    _require("qwen3", settings, "use_sliding_window", False)
    heads = _number(settings, "num_attention_heads")
    return TransformerConfig(
        vocab=_number(settings, "vocab_size"),
        dim=_number(settings, "hidden_size"),
        layers=_number(settings, "num_hidden_layers"),
        heads=heads,
        kv_heads=_number(settings, "num_key_value_heads", heads),
        head_dim=_number(settings, "head_dim", 128),
        ffn=_number(settings, "intermediate_size"),
        max_length=_number(settings, "max_position_embeddings", 32_768),
        eps=float(settings.get("rms_norm_eps", 1e-6)),
        tied=bool(settings.get("tie_word_embeddings", False)),
        qk_norm=True,
        **_read_rope(settings),
    )


def _read_rope(settings: Mapping[str, Any]) -> dict[str, Any]:
    # transformers 5 keeps both in rope_parameters; before, the base stood by itself and scaling in rope_scaling.
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise InputError(f"config.json: rotary positions are {rope!r}; expected a mapping")
    theta = float(rope.get("rope_theta") or settings.get("rope_theta") or 10_000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "linear":
        return {"rope_theta": theta, "rope_scaling": "linear", "rope_factor": float(rope["factor"])}
    if kind != "default":
        raise InputError(f"rotary positions of type {kind!r} have no counterpart here (default and linear have)")
    return {"rope_theta": theta}


def _write_rope(config: TransformerConfig) -> dict[str, Any]:
    if config.rope_scaling == "linear":
        return {"rope_type": "linear", "rope_theta": config.rope_theta, "factor": config.rope_factor}
    # NTK scaling is a larger base and nothing else.
    return {"rope_type": "default", "rope_theta": config.rope_base}


def _number(settings: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = settings[name] if default is None or settings.get(name) is not None else default
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"config.json: {name} is {value!r}; expected a whole number")
    return value


def _read_bert(settings: Mapping[str, Any]) -> TransformerConfig:
    _require("bert", settings, "position_embedding_type", "absolute", None)
    _require("bert", settings, "is_decoder", False)
    activation = str(settings.get("hidden_act", "gelu"))
    if activation != "relu" and activation not in _ACTIVATIONS:
        raise InputError(f"a bert model with hidden_act={activation!r}, which has no counterpart here")
    return TransformerConfig(
        vocab=_number(settings, "vocab_size"),
        dim=_number(settings, "hidden_size"),
        layers=_number(settings, "num_hidden_layers"),
        heads=_number(settings, "num_attention_heads"),
        ffn=_number(settings, "intermediate_size"),
        norm="layer",
        norm_position="post",
        activation=_ACTIVATIONS.get(activation, activation),
        positions="learned",
        max_length=_number(settings, "max_position_embeddings"),
        attention="bidirectional",
        biases=True,
        dropout=float(settings.get("hidden_dropout_prob", 0.1)),
        eps=float(settings.get("layer_norm_eps", 1e-12)),
        embed_norm=True,
        token_types=_number(settings, "type_vocab_size", 2),
    )


def _require(kind: str, settings: Mapping[str, Any], name: str, *values: Any) -> None:
    """InputError where a setting is neither absent nor one of ``values``."""
    if name in settings and settings[name] not in values:
        raise InputError(f"a {kind} model with {name}={settings[name]!r}; only {values[0]!r} has a counterpart here")


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder's safetensors: model.safetensors, or the shards that its index names."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    require_safetensors(folder)
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    names = [whole.name]
    if not whole.is_file():
        listed = read_json(index)
        weights = listed.get("weight_map") if isinstance(listed, dict) else None
        if not isinstance(weights, dict):
            raise InputError(f"{str(index)!r} has no 'weight_map' from weights to files: damaged")
        names = sorted({str(name) for name in weights.values()})
    state: dict[str, Tensor] = {}
    for name in names:
        path = inside(folder, name)
        try:
            state.update(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"{str(path)!r} is not a readable safetensors file ({error}): damaged or absent"
            ) from error
    return state
