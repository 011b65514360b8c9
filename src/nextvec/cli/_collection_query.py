"""What ``nextvec collection search`` looks for, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextvec.types import InputError, NotFoundError

if TYPE_CHECKING:
    from nextvec.search.stores import AnyCollection


def check_query(
    text: str | None, model: str | None, vector: Path | None, text_columns: str | None, hybrid: bool
) -> None:
    """Which of the options that say what to look for go together. Raises InputError."""
    words = hybrid or text_columns is not None
    if vector is None and text is None:
        raise InputError(
            "what to look for is missing: pass --vector FILE.npy or --text (with --model, --text-columns or both)"
        )
    if words and text is None:
        raise InputError("--text-columns and --hybrid need --text: the words to look for")
    if vector is not None and (model is not None or (text is not None and not words)):
        raise InputError("--vector and --text with --model exclude each other: --text beside a vector needs --hybrid")
    if text is not None and model is None and not words:
        raise InputError(
            "--text needs --model, the model that the collection was embedded with, or --text-columns to look for words"
        )
    if hybrid and model is None and vector is None:
        raise InputError("--hybrid needs --model or --vector beside --text; for words alone pass --text-columns")


def text_columns_of(names: str | None, collection: AnyCollection) -> list[str]:
    if names is not None:
        return split(names)
    texts = [name for name, kind in collection.schema.items() if kind == "string"]
    if not texts:
        raise InputError("--hybrid finds no string attribute in the collection to look for words in")
    return texts


def split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def check_remote(collection: Any, query: dict[str, Any]) -> None:
    """Servers search by vector, filter and score alone. Raises InputError."""
    from nextvec.search.collection import Collection

    beyond = sorted(set(query) - {"vector", "min_score"})
    if beyond and not isinstance(collection, Collection):
        raise InputError(f"{beyond[0]} works on collections in a folder: copy this one with nextvec collection copy")


def recall_of(text: str) -> Any:
    try:
        return "exact" if text == "exact" else float(text)
    except ValueError:
        return text  # the search says what it expects


def load_vectors(file: Path, option: str = "--vector") -> Any:
    """What the .npy file holds, mapped."""
    import numpy as np

    if not file.is_file():
        what = "is not a file" if file.exists() else "does not exist"
        raise NotFoundError(f"{str(file)!r} {what}: {option} takes a .npy file")
    try:
        # Mapped, so that a header that promises terabytes is refused and not allocated.
        return np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{str(file)!r} is not a .npy file of numbers ({error})") from error


def embed_query(model: str, text: str, collection: AnyCollection) -> Any:
    from nextvec.encoder import Encoder

    query = Encoder.load(model).encode_query(text)
    if len(query) != collection.dim and not (collection.nested and len(query) > collection.dim):
        raise InputError(
            f"model {model!r} gives {len(query)} dimensions, the collection has {collection.dim}: "
            "search with the model that it was embedded with"
        )
    return query
