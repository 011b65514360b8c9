"""Collections by address: a folder, an object store, a Qdrant server, a PostgreSQL database. One interface, see
docs/stores.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nextvec.types import InputError, did_you_mean

if TYPE_CHECKING:
    from nextvec.search.collection import Collection
    from nextvec.search.schema import Kept
    from nextvec.search.stores.remote import RemoteCollection

    AnyCollection: TypeAlias = Collection | RemoteCollection

__all__ = ["create_collection", "open_collection"]

_SCHEMES = {
    "qdrant": "qdrant",
    "qdrant+https": "qdrant",
    "qdrant+file": "qdrant",
    "qdrant+memory": "qdrant",
    "postgresql": "postgres",
    "postgres": "postgres",
    "s3": "objects",
    "gs": "objects",
    "az": "objects",
    "file": "objects",
}


def open_collection(address: str | Path) -> AnyCollection:
    """Open the collection at a folder's path, ``qdrant://host:port/name`` (also ``qdrant+https``, ``qdrant+file``,
    ``qdrant+memory``), ``postgresql://user@host/database?collection=name``, or ``s3://bucket/prefix`` (also ``gs``,
    ``az`` and, for a folder as if it were an object store, ``file:///folder/name``).

    Raises NotFoundError, InputError, StorageError, and MissingExtraError where the engine's client is not installed.
    """
    opened: AnyCollection = _store(address).open(address)
    return opened


def create_collection(
    address: str | Path,
    *,
    dim: int,
    schema: Mapping[str, str] | None = None,
    metric: Literal["cosine", "dot"] = "cosine",
    keep: Kept = "float32",
    nested: bool = False,
    exist_ok: bool = False,
) -> AnyCollection:
    """Make an empty collection at an address (see ``open_collection``) and open it; as ``Collection.create``.

    keep: PostgreSQL has "float32" and "float16", Qdrant "float32". InputError for others."""
    store = _store(address)
    options: dict[str, Any] = {"dim": dim, "schema": schema, "metric": metric, "nested": nested, "exist_ok": exist_ok}
    if keep != "float32":
        engine = getattr(store, "engine", "")
        if engine == "qdrant":
            raise InputError(f"keep is {keep!r}: Qdrant keeps 'float32' here; use a folder or PostgreSQL")
        options["precision" if engine == "postgresql" else "keep"] = keep
    made: AnyCollection = store.create(address, **options)
    return made


def _store(address: str | Path) -> Any:
    """The class for an address."""
    scheme, mark, _ = str(address).partition("://")
    if isinstance(address, Path) or not mark:
        from nextvec.search.collection import Collection

        return Collection
    if scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise InputError(
            f"no store has addresses that begin with {scheme + '://'!r} (known: {known}, or the path of a folder)"
            f"{did_you_mean(scheme, _SCHEMES)}"
        )
    if _SCHEMES[scheme] == "qdrant":
        from nextvec.search.stores.qdrant import QdrantCollection

        return QdrantCollection
    if _SCHEMES[scheme] == "objects":
        from nextvec.search.stores.objects import ObjectCollection

        return ObjectCollection
    from nextvec.search.stores.postgres import PostgresCollection

    return PostgresCollection
