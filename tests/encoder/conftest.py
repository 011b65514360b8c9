"""Small models with random weights, made once per session: no download, every architecture in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import configs, make_tokenizer


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One plain Hugging Face folder per architecture, random weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("models")
    folders = {}
    for name, config in configs().items():
        torch.manual_seed(7)
        folder = root / name
        transformers.AutoModel.from_config(config).save_pretrained(folder)
        make_tokenizer(folder, special=name not in ("llama", "qwen3"))
        folders[name] = folder
    return folders


@pytest.fixture(scope="session")
def static_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static model in nextvec's own int8 form."""
    import numpy as np
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("static") / "tiny-static"
    make_tokenizer(folder, special=False)
    rng = np.random.default_rng(3)
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    rows = rng.integers(-127, 128, size=(size, 16), dtype=np.int8)
    scale = rng.uniform(0.001, 0.01, size).astype(np.float32)
    save_file({"embedding.weight": rows, "embedding.scale": scale}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "nextvec-static", "dim": 16, "nested_dims": [4, 16]}))
    return folder
