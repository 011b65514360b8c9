"""What comes through the door: ids, vectors and attributes, checked before anything is written.

Shapes: N rows, D dimensions.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nextvec.search.calibration import FEWEST
from nextvec.search.kept import rounded, stays
from nextvec.search.native import kernels
from nextvec.search.schema import ARROW_TYPES, Schema
from nextvec.types import ConflictError, InputError, did_you_mean

Attributes: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | pa.Table
MAX_ID = 1024
_INT64 = range(-(2**63), 2**63)
_CONTROL = r"[\x00-\x1f\x7f]"


def check_ids(ids: Any) -> pa.Array:
    """A string array of N ids: not empty, at most 1024 characters, no control characters."""
    if isinstance(ids, (str, bytes)):
        raise InputError(f"ids is a single {type(ids).__name__}: expected a list of strings")
    if isinstance(ids, pa.ChunkedArray):
        ids = _in_one_piece(ids, "ids")
    if isinstance(ids, pa.Array):
        if ids.type not in (pa.string(), pa.large_string(), pa.string_view()):
            raise InputError(f"ids has type {ids.type}: expected strings")
    else:
        ids = list(ids)
        for i, identifier in enumerate(ids):
            if not isinstance(identifier, str):
                raise InputError(f"id at position {i} is {_show(identifier)}: expected a string")
    try:
        array = pa.array(ids, pa.string()) if isinstance(ids, list) else ids.cast(pa.string())
    except (pa.ArrowInvalid, UnicodeEncodeError) as error:
        raise InputError("an id is not valid Unicode text (it holds a lone surrogate)") from error
    if isinstance(array, pa.ChunkedArray):  # Arrow's way to say that they do not fit into one
        raise _too_much("ids")
    length = pc.utf8_length(array)
    bad = pc.or_(pc.or_(pc.less(length, 1), pc.greater(length, MAX_ID)), pc.match_substring_regex(array, _CONTROL))
    i = pc.index(pc.fill_null(bad, True), True).as_py()
    if i >= 0:
        raise InputError(
            f"id at position {i} is {_show(array[i].as_py())}: expected 1 to {MAX_ID} characters, none of "
            "them a control character"
        )
    return array


def check_unique(ids: pa.Array) -> None:
    """ConflictError that names the first id that comes twice in one batch."""
    counts = pc.value_counts(ids)
    if len(counts) == len(ids):
        return
    seen: set[str] = set()
    for i, identifier in enumerate(ids.to_pylist()):
        if identifier in seen:
            raise ConflictError(
                f"id {identifier!r} comes twice in the batch (again at position {i}): nothing was written"
            )
        seen.add(identifier)


def check_vectors(vectors: Any, dim: int, *, rows: int | None = None, nested: bool = False) -> NDArray[np.float32]:
    """A float32 [N, dim] C-contiguous array of finite numbers; ``rows`` is the N expected. nested: longer vectors are
    cut."""
    try:
        array = np.asarray(vectors)
    except ValueError as error:
        raise InputError(f"the vectors do not form one array (rows of different length?): {error}") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"the vectors have type {array.dtype}: expected numbers (float32)")
    if rows == 0 and array.size == 0:
        return np.zeros((0, dim), np.float32)
    if array.ndim == 2 and nested and array.shape[1] > dim:
        array = array[:, :dim]
    if array.ndim != 2 or array.shape[1] != dim:
        more = " or more values" if nested else ""
        raise InputError(f"the vectors have shape {list(array.shape)}: expected [n, {dim}]{more}")
    if rows is not None and len(array) != rows:
        raise InputError(f"{rows} ids came with {len(array)} vectors: expected one vector for each id")
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(array, dtype=np.float32)
    # A sum is infinite or NaN where an element is; only then is it worth looking element by element.
    if not np.isfinite(result.sum(dtype=np.float64)) or not np.isfinite(np.abs(result).max(initial=0.0)):
        bad = np.flatnonzero(~np.isfinite(result).all(axis=1))
        if len(bad):
            raise InputError(f"vector {bad[0]} holds NaN or an infinite number: expected finite float32 numbers")
    return result


def check_rows(
    ids: Any, vectors: Any, attributes: Attributes | None, schema: Schema
) -> tuple[dict[str, pa.Array], NDArray[np.float32]]:
    """What a write takes, checked: columns ("id" and every attribute) of N values, and vectors [N, D] as stored."""
    array = check_ids(ids)
    check_unique(array)
    rows = check_vectors(vectors, schema.dim, rows=len(array), nested=schema.nested)
    columns = {"id": array, **attribute_table(attributes, schema, len(array))}
    return columns, as_kept(rows, schema, "vector")


def check_queries(vector: Any, schema: Schema) -> tuple[NDArray[np.float32], bool]:
    """Queries [Q, D] as the metric wants them, and whether they came as one vector."""
    try:
        array = np.asarray(vector)
    except ValueError as error:
        raise InputError(f"the query vectors do not form one array: {error}") from error
    single = array.ndim == 1
    queries = check_vectors(array[None] if single else array, schema.dim, nested=schema.nested)
    return scaled(queries, schema, "query vector"), single


def calibration_queries(queries: Any, schema: Schema) -> NDArray[np.float32]:
    """Queries [Q, D] to calibrate with, as the metric wants them."""
    made, single = check_queries(queries, schema)
    if single or len(made) < FEWEST:
        raise InputError(f"{1 if single else len(made)} queries to calibrate with: at least {FEWEST} are needed")
    return made


def check_k(k: Any) -> int:
    """The number of hits asked for, from 1."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InputError(f"k is {k!r}: expected a whole number from 1")
    return int(k)


def check_columns(columns: Any, schema: Schema, *, what: str = "columns") -> list[str]:
    """Names of attributes; ``what``: the argument that they came in."""
    if isinstance(columns, str):
        raise InputError(f"{what} is the text {columns!r}: expected a list of attributes")
    names = list(columns or ())
    for name in names:
        if not isinstance(name, str) or name not in schema.attributes:
            known = ", ".join(schema.attributes) or "none"
            hint = did_you_mean(str(name), schema.attributes)
            raise InputError(f"{what} names {name!r}, which is not an attribute (known: {known}){hint}")
    return names


def refuse_existing(taken: Sequence[str], rows: int) -> None:
    """ConflictError where some of the ids of an ``add`` of ``rows`` rows exist; ``taken``: those, in their order."""
    if taken:
        raise ConflictError(
            f"id {taken[0]!r} exists already ({len(taken)} of {rows} ids do): "
            "nothing was written; use upsert to replace rows"
        )


def as_kept(vectors: NDArray[np.float32], schema: Schema, what: str) -> NDArray[np.float32]:
    """Vectors [N, D] as a collection holds them: as the metric wants them, and as its table gives them back. What a
    collection of the same make gave back stays as it is."""
    same = stays(vectors, schema.keep) if schema.metric == "cosine" else np.zeros(len(vectors), np.bool_)
    made = rounded(scaled(vectors, schema, what), schema.keep, what)
    return np.where(same[:, None], vectors, made) if same.any() else made


def scaled(vectors: NDArray[np.float32], schema: Schema, what: str) -> NDArray[np.float32]:
    """Vectors as the metric wants them: of length 1, or as they come."""
    if schema.metric == "cosine":
        return normalise(vectors, what)
    check_lengths(vectors, what)
    return vectors


def check_lengths(vectors: NDArray[np.float32], what: str = "vector") -> None:
    """For dot products: lengths of 0 or 1e-15 to 1e15, so that no score leaves the range of float32."""
    with np.errstate(over="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    bad = np.flatnonzero((lengths > 1e15) | ((lengths < 1e-15) & (lengths > 0)))
    if len(bad):
        raise InputError(f"{what} {bad[0]} has length {lengths[bad[0]]:.3g}: expected 0 or 1e-15 to 1e15, rescale it")


def _refuse_zero(row: int, what: str) -> None:
    if row >= 0:
        raise InputError(
            f"{what} {row} is all zeros and has no direction: cosine needs a non-zero vector (or use metric 'dot')"
        )


def plain_vectors(vectors: Any, schema: Schema) -> NDArray[np.float32] | None:
    """One vector [D] or several [Q, D], cut where the schema cuts, if they are as plain as most are: float32 in one
    piece, for cosines; None where they have to be looked at."""
    if kernels is None or type(vectors) is not np.ndarray or schema.metric != "cosine":
        return None
    dim, shape = schema.dim, vectors.shape
    if schema.nested and shape and shape[-1] > dim:
        vectors = np.ascontiguousarray(vectors[..., :dim])
        shape = vectors.shape
    plain = vectors.dtype == np.float32 and shape[-1:] == (dim,) and len(shape) <= 2 and vectors.size
    return vectors if plain and vectors.flags.c_contiguous else None


def plain_queries(vectors: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """What ``check_queries`` would make of ``plain_vectors``, in a tenth of the time; None where one is all zeros."""
    dim = vectors.shape[-1]
    queries = np.empty((vectors.size // dim, dim), np.float32)
    return queries if kernels.unit(vectors, queries, dim) < 0 else None


def normalise(vectors: NDArray[np.float32], what: str = "vector") -> NDArray[np.float32]:
    """Rows of length 1, float32 [N, D]; InputError names the first zero vector.

    Rows that are of length 1 up to the rounding of float32 stay as they are, so that doing it twice changes nothing:
    vectors moved from one collection to another keep their bits.
    """
    if kernels is not None and vectors.flags.c_contiguous:
        # All ways that a vector comes in take this one: cursors hold a checksum of its bits.
        made = np.empty_like(vectors)
        _refuse_zero(kernels.unit(vectors, made, vectors.shape[1]), what)
        return made
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    _refuse_zero(int(np.argmin(lengths)) if len(lengths) and not lengths.all() else -1, what)
    lengths[np.abs(lengths - 1) <= 2.0**-23] = 1.0
    # Subnormal rows lose digits when divided in float32.
    return np.ascontiguousarray((vectors / lengths[:, None]).astype(np.float32))


def attribute_table(attributes: Attributes | None, schema: Schema, rows: int) -> dict[str, pa.Array]:
    """One typed array of ``rows`` values for each attribute of the schema (missing ones are NULL)."""
    kinds = schema.attributes
    given: dict[str, Any] = {}
    if isinstance(attributes, pa.Table):
        given = {name: attributes.column(name) for name in attributes.column_names}
    elif isinstance(attributes, Mapping):
        given = dict(attributes)
    elif attributes is not None:
        given = _columns(attributes, kinds, rows)
    for name in given:
        _known(name, kinds)
    arrays = {}
    for name, kind in kinds.items():
        values = given.get(name)
        if values is None:
            arrays[name] = pa.nulls(rows, ARROW_TYPES[kind])
            continue
        arrays[name] = _typed(name, kind, values)
        if len(arrays[name]) != rows:
            raise InputError(f"attribute {name!r} has {len(arrays[name])} values for {rows} ids: expected one each")
    return arrays


def _known(name: Any, kinds: Mapping[str, str]) -> None:
    if name not in kinds:
        known = ", ".join(kinds) or "none"
        raise InputError(f"attribute {name!r} is not in the schema (known: {known}){did_you_mean(str(name), kinds)}")


def _columns(records: Any, kinds: Mapping[str, str], rows: int) -> dict[str, list[Any]]:
    if isinstance(records, (str, bytes)) or not isinstance(records, Sequence):
        raise InputError(
            f"attributes is a {type(records).__name__}: expected a list of mappings, a mapping of lists "
            "or an Arrow table"
        )
    if len(records) != rows:
        raise InputError(f"{rows} ids came with {len(records)} attribute mappings: expected one for each id")
    for i, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise InputError(f"attributes at position {i} is {_show(record)}: expected a mapping of name to value")
        if not record.keys() <= kinds.keys():
            _known(next(name for name in record if name not in kinds), kinds)
    used = {name for record in records for name in record}
    return {name: [record.get(name) for record in records] for name in used}


def _typed(name: str, kind: str, values: Any) -> pa.Array:
    arrow = ARROW_TYPES[kind]
    if isinstance(values, pa.ChunkedArray):
        values = _in_one_piece(values, f"attribute {name!r}")
    if isinstance(values, pa.Array) and values.type == arrow and kind not in ("float", "list[string]"):
        return values
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind == {"int": "i", "bool": "b"}.get(kind):
        return pa.array(values).cast(arrow)
    if isinstance(values, pa.Array):
        values = values.to_pylist()
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__") or not hasattr(values, "__iter__"):
        raise InputError(f"attribute {name!r} is {_show(values)}: expected a list of values, one for each id")
    convert = _CONVERTERS[kind]
    converted: list[Any] = []
    for i, value in enumerate(values):
        if value is None:
            converted.append(None)
            continue
        if isinstance(value, np.generic):
            value = value.item()
        try:
            converted.append(convert(value))
        except (TypeError, ValueError) as error:
            detail = f" ({error})" if str(error) else ""
            raise InputError(
                f"attribute {name!r} at position {i} is {_show(value)}: expected {kind} or None{detail}"
            ) from error
    try:
        return pa.array(converted, arrow)
    except (pa.ArrowInvalid, UnicodeEncodeError, OverflowError) as error:
        raise InputError(f"attribute {name!r} cannot be stored as {kind}: {error}") from error


def _in_one_piece(values: pa.ChunkedArray, what: str) -> pa.Array:
    try:
        return values.combine_chunks()
    except pa.ArrowInvalid as error:
        raise _too_much(what) from error


def _too_much(what: str) -> InputError:
    return InputError(f"{what} hold more than 2 GB of text in one call: add the rows in several")


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    if value not in _INT64:
        raise ValueError("outside 64 bits")
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    if math.isnan(value):
        raise ValueError("use None for a missing value")
    return float(value) + 0.0  # -0.0 becomes 0.0: engines differ on whether the two are equal


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def to_date(value: Any) -> dt.date:
    """A date from a date or ``YYYY-MM-DD``; a datetime is refused, for it would lose its time."""
    if isinstance(value, str):
        return dt.date.fromisoformat(value)
    if isinstance(value, dt.datetime) or not isinstance(value, dt.date):
        raise TypeError
    return value


def to_timestamp(value: Any) -> dt.datetime:
    """A UTC datetime from a datetime, date or ISO 8601 text; without a zone, UTC is meant."""
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    elif isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if not isinstance(value, dt.datetime):
        raise TypeError
    if value.tzinfo is None:
        return value.replace(tzinfo=dt.UTC)
    try:
        return value.astimezone(dt.UTC)
    except OverflowError as error:
        raise ValueError("outside the years 1 to 9999") from error


def _strings(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise TypeError
    return list(value)


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "string": _string,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "date": to_date,
    "timestamp": to_timestamp,
    "list[string]": _strings,
}


def _show(value: Any) -> str:
    text = repr(value)
    return f"{text[:60]}..." if len(text) > 60 else text


def check_recall(recall: Any) -> float | None:
    """The recall that is enough; None where only the best rows there are will do. Raises InputError."""
    if recall == "exact":
        return None
    if isinstance(recall, bool) or not isinstance(recall, (int, float)) or not 0 < recall <= 1:
        raise InputError(f"recall is {recall!r}: expected 'exact' or a share above 0 and up to 1, such as 0.95")
    return None if recall == 1 else float(recall)
