"""The Dense module of sentence-transformers: one linear map and an activation after pooling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextvec.nn.layout import read_json, require_safetensors
from nextvec.types import InputError

_ACTIVATIONS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: (1 / (1 + np.exp(-x))).astype(np.float32),
}


class Dense:
    """``activation(x @ weight.T + bias)`` on pooled vectors: float32 [B, D_in] to [B, D_out]."""

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, activation: str) -> None:
        """weight: [D_out, D_in]; bias: [D_out] or None; activation: Identity, Tanh, ReLU or Sigmoid."""
        if activation not in _ACTIVATIONS:
            raise InputError(f"Dense activation {activation!r} is not supported; known: {', '.join(_ACTIVATIONS)}")
        self.weight, self.bias, self.activation = weight, bias, activation

    @classmethod
    def load(cls, folder: Path) -> Dense:
        """Read ``config.json`` and ``model.safetensors`` from the module's folder."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        config = read_json(folder / "config.json")
        require_safetensors(folder)
        try:
            tensors = load_file(folder / "model.safetensors")
            weight = tensors["linear.weight"].astype(np.float32)
        except (SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"{str(folder)!r} holds no readable Dense weights ({error})") from error
        bias = tensors.get("linear.bias")
        activation = str(config.get("activation_function", "Identity")).rpartition(".")[2]
        return cls(weight, None if bias is None else bias.astype(np.float32), activation)

    @property
    def dim(self) -> int:
        """The width D_out."""
        return int(self.weight.shape[0])

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map [B, D_in] to [B, D_out]."""
        y = x @ self.weight.T
        if self.bias is not None:
            y += self.bias
        return _ACTIVATIONS[self.activation](y)

    def save(self, folder: Path) -> None:
        """Write the module in sentence-transformers' form."""
        import json

        from safetensors.numpy import save_file

        folder.mkdir()
        tensors = {"linear.weight": self.weight}
        if self.bias is not None:
            tensors["linear.bias"] = self.bias
        save_file(tensors, folder / "model.safetensors")
        home = "linear" if self.activation == "Identity" else "activation"
        config = {
            "in_features": int(self.weight.shape[1]),
            "out_features": self.dim,
            "bias": self.bias is not None,
            "activation_function": f"torch.nn.modules.{home}.{self.activation}",
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
