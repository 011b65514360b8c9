"""What a collection holds: dimension, metric and typed attributes, and how they are written down."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from nextvec.files import atomic_write, storage_error
from nextvec.types import InputError, StorageError, did_you_mean

FORMAT = 1
FORMAT_SMALLER = 2  # of collections whose table keeps vectors in fewer bytes than float32
HEADER = "collection.json"
MAX_DIM = 65_536  # int8 dot products then fit an int32 with room to spare

Metric = Literal["cosine", "dot"]
Kept = Literal["float32", "float16", "int8"]
VALUES: dict[str, pa.DataType] = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}
"""How a table keeps the values of a vector."""

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "list[string]": pa.list_(pa.string()),
}
RESERVED = ("id", "vector")
SEQUENCE = "_seq"
"""Row number given at the door, never used twice: insertion order, and the key of every derived file."""

_NAME = re.compile(r"[^\W\d_][\w \-]{0,63}")


@dataclass(frozen=True, slots=True)
class Schema:
    """``attributes`` maps each attribute to one of the keys of ``ARROW_TYPES``. keep: how vectors are kept; nested:
    longer vectors are cut to their first ``dim`` values."""

    dim: int
    metric: Metric
    attributes: Mapping[str, str]
    keep: Kept = "float32"
    nested: bool = False

    @property
    def columns(self) -> dict[str, str]:
        """What a filter may name: ``id`` and the attributes, with their types."""
        return {"id": "string", **self.attributes}

    def arrow(self) -> pa.Schema:
        """The schema of the table on disk."""
        return pa.schema(
            [
                pa.field(SEQUENCE, pa.int64(), nullable=False),
                pa.field("id", pa.string(), nullable=False),
                *(pa.field(name, ARROW_TYPES[kind]) for name, kind in self.attributes.items()),
                pa.field("vector", pa.list_(VALUES[self.keep], self.dim), nullable=False),
            ]
        )

    def document(self) -> dict[str, Any]:
        """The schema as JSON, as every store keeps it. What is as it always was is not named, so that an older
        nextvec reads it."""
        number = FORMAT if self.keep == "float32" else FORMAT_SMALLER
        document = {"format": number, "dim": self.dim, "metric": self.metric, "schema": dict(self.attributes)}
        return document | ({} if number == FORMAT else {"keep": self.keep}) | ({"nested": True} if self.nested else {})

    def told(self) -> str:
        """For messages."""
        more = ("" if self.keep == "float32" else f", keep {self.keep!r}") + (", nested" if self.nested else "")
        return f"dim {self.dim}, metric {self.metric!r}{more} and schema {dict(self.attributes)}"

    @classmethod
    def from_document(cls, text: str | bytes, place: str) -> Schema:
        """What ``document`` wrote; StorageError naming ``place`` where it is damaged or of another format."""
        try:
            document = json.loads(text)
            if document["format"] not in (FORMAT, FORMAT_SMALLER):
                raise StorageError(
                    f"{place!r} has format {document['format']!r}, this nextvec reads {FORMAT} and {FORMAT_SMALLER}: "
                    "upgrade nextvec"
                )
            keep = document["keep"] if document["format"] == FORMAT_SMALLER else "float32"
            nested = document.get("nested", False)
            return check_schema(document["dim"], document["metric"], document["schema"], keep=keep, nested=nested)
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{place!r} is damaged ({error}): restore it from a copy") from error

    def write(self, folder: Path) -> None:
        """Write ``collection.json`` atomically."""
        with atomic_write(folder / HEADER, "w") as stream:
            json.dump(self.document(), stream, indent=2, ensure_ascii=False)

    @classmethod
    def read(cls, folder: Path) -> Schema:
        """Read ``collection.json``; StorageError where it is damaged or of another format."""
        path = folder / HEADER
        try:
            text = path.read_bytes()
        except OSError as error:
            raise storage_error(error, path) from error
        return cls.from_document(text, str(path))


def check_schema(
    dim: Any, metric: Any, attributes: Mapping[str, str] | None, *, keep: Any = "float32", nested: Any = False
) -> Schema:
    """The schema, with every name and type checked. Raises InputError."""
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= MAX_DIM:
        raise InputError(f"dim is {dim!r}: expected a whole number from 1 to {MAX_DIM}")
    if metric not in ("cosine", "dot"):
        raise InputError(f"metric is {metric!r}: expected 'cosine' or 'dot'")
    if keep not in VALUES:
        raise InputError(f"keep is {keep!r}: expected one of {', '.join(VALUES)}{did_you_mean(str(keep), VALUES)}")
    if keep == "int8" and metric != "cosine":
        raise InputError("keep 'int8' goes with metric 'cosine' only, for it keeps directions and no lengths")
    if not isinstance(nested, bool):
        raise InputError(f"nested is {nested!r}: expected True or False")
    if attributes is not None and not isinstance(attributes, Mapping):
        raise InputError(f"schema is a {type(attributes).__name__}: expected a mapping of attribute to type")
    checked: dict[str, str] = {}
    for name, kind in (attributes or {}).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError(
                f"attribute name {name!r} is not usable: expected a letter, then up to 63 letters, digits, "
                "spaces, '_' or '-'"
            )
        if name.lower() in RESERVED:
            raise InputError(f"attribute name {name!r} is reserved: choose another name")
        if name.lower() in {known.lower() for known in checked}:
            raise InputError(f"attribute name {name!r} differs from another one only by case: choose another name")
        if kind not in ARROW_TYPES:
            known = ", ".join(ARROW_TYPES)
            raise InputError(
                f"attribute {name!r} has type {kind!r}: expected one of {known}{did_you_mean(str(kind), ARROW_TYPES)}"
            )
        checked[name] = kind
    return Schema(dim, metric, checked, keep, nested)
