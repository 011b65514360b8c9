"""nextvec: embeddings end to end. The public face, loaded lazily (importing it costs no torch, no Lance)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Collection", "Encoder", "__version__", "fit", "load_method", "methods", "reproduce"]

_HOMES = {
    "Encoder": "nextvec.encoder",
    "Collection": "nextvec.search.collection",
    "fit": "nextvec.training",
    "load_method": "nextvec.training",
    "methods": "nextvec.claims",
    "reproduce": "nextvec.claims",
}

if TYPE_CHECKING:
    from nextvec.claims import methods, reproduce
    from nextvec.encoder import Encoder
    from nextvec.search.collection import Collection
    from nextvec.training import fit, load_method


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nextvec' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
