"""From the records of a file to the rows of ``nextvec collection add``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from nextvec.types import ConflictError, InputError

Row = tuple[str, str, dict[str, Any]]  # place ("papers.jsonl:17"), id, record


def rows_of(located: Iterator[tuple[str, dict[str, Any]]], id_field: str) -> Iterator[Row]:
    for place, record in located:
        identifier = record.get(id_field)
        if isinstance(identifier, int) and not isinstance(identifier, bool):
            identifier = str(identifier)
        if not isinstance(identifier, str):
            raise InputError(f"{place}: no id in field {id_field!r}: name the field with --id")
        yield place, identifier, record


def vector_reader(field: str) -> Callable[[list[Row]], Any]:
    def read(rows: list[Row]) -> Any:
        import numpy as np

        vectors: list[Any] = []
        for place, _, record in rows:
            try:
                given = np.asarray(record[field])
                if given.ndim != 1 or given.dtype.kind not in "fiu":
                    raise ValueError
                with np.errstate(over="ignore"):
                    vector = given.astype(np.float32)
            except KeyError:
                raise InputError(
                    f"{place}: no field {field!r}: name it with --vector, or use --model and --text"
                ) from None
            except (TypeError, ValueError):
                raise InputError(f"{place}: {field!r} is not a list of numbers") from None
            if not np.isfinite(vector).all():
                raise InputError(f"{place}: {field!r} holds NaN or an infinite number: expected finite float32 numbers")
            if vectors and vector.shape != vectors[0].shape:
                shapes = f"{list(vector.shape)}, others {list(vectors[0].shape)}"
                raise InputError(f"{place}: the vector has shape {shapes}")
            vectors.append(vector)
        return np.stack(vectors)

    return read


def embedder(model: str, field: str) -> Callable[[list[Row]], Any]:
    from nextvec.encoder import Encoder

    encoder = Encoder.load(model)

    def embed(rows: list[Row]) -> Any:
        for place, _, record in rows:
            if not isinstance(record.get(field), str):
                raise InputError(f"{place}: no text in field {field!r}: name the field with --text")
        return encoder.encode_document([record[field] for _, _, record in rows])

    return embed


@contextlib.contextmanager
def first_place(rows: list[Row]) -> Iterator[None]:
    """Complaints about a batch count from its first record: say where that is."""
    try:
        yield
    except (InputError, ConflictError) as error:
        raise type(error)(f"{error} (position 0 is {rows[0][0]})") from error


def attributes_of(rows: list[Row], schema: dict[str, str]) -> list[dict[str, Any]]:
    attributes = []
    for place, _, record in rows:
        values = {}
        for name, kind in schema.items():
            try:
                values[name] = _cell(kind, record.get(name))
            except ValueError:
                raise InputError(f"{place}: {name!r} is {record[name]!r:.60}, expected {kind}") from None
        attributes.append(values)
    return attributes


def _cell(kind: str, value: Any) -> Any:
    """The value as the schema wants it; only text (all that a csv holds) is converted."""
    if not isinstance(value, str) or kind == "string":
        return value
    if not value.strip():
        return None
    if kind == "bool":
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower(), value)
    if kind == "list[string]":
        return [part.strip() for part in value.split(",")]
    return {"int": int, "float": float}.get(kind, str)(value)
