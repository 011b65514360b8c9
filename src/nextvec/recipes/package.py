"""Write a static encoder's folder: config.json, tokenizer.json, model.safetensors (int8 rows with a scale each)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.files import atomic_write
from nextvec.recipes.static_table import quantise

__all__ = ["write_model"]


def write_model(folder: Path, tokenizer: Any, rows: NDArray[np.float32], *, nested_dims: Sequence[int]) -> int:
    """Write the three files that ``Encoder.load`` reads and return their size in bytes. Every file is replaced
    atomically; rows float32 [V, D] are stored as int8 with one float32 scale per row."""
    from safetensors.numpy import save

    values, scale = quantise(rows)
    config = {
        "model_type": "nextvec-static",
        "dim": int(rows.shape[1]),
        "nested_dims": list(nested_dims),
        "normalize": True,
        "max_length": None,
        "prompts": {},
    }
    contents = {
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "tokenizer.json": tokenizer.to_str(pretty=False).encode(),
        "model.safetensors": save({"embedding.weight": values, "embedding.scale": scale}),
    }
    for name, content in contents.items():
        with atomic_write(folder / name) as stream:
            stream.write(content)
    return sum(len(content) for content in contents.values())
