"""Where workloads come from: clustered synthetic vectors, a Parquet file, a collection, research papers.

Legend: N rows, D dimensions, P queries held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nextvec.evaluate.ann.make import Source, hold_out
from nextvec.search.collection import Collection
from nextvec.search.inputs import attribute_table
from nextvec.search.schema import ARROW_TYPES, check_schema
from nextvec.types import InputError, NotFoundError, Progress, did_you_mean

if TYPE_CHECKING:
    from nextvec.encoder import Encoder

__all__ = ["MAX_ROWS", "collection", "papers", "parquet", "synthetic"]

MAX_ROWS = 2_000_000
_BATCH = 65_536


def synthetic(
    rows: int, *, dim: int = 128, correlated: bool = True, queries: int = 512, seed: int = 0, inner: int = 16
) -> Source:
    """Clustered vectors: about one cluster per 500 rows, each spread in ``inner`` directions of its own choosing.

    Attributes: "stamp" (int, all different), "year" (1990 to 2024, more of late), "kind" (string, 40 values, shares
    falling like 1/rank), "tags" (list, 0 to 4 of 200), "score" (float), "open" (bool). correlated: cluster and value
    go together in "year", "kind" and "tags"; otherwise nothing goes with the vectors. "stamp" and "score" never do.
    """
    if not 10 <= rows <= MAX_ROWS or not 2 <= dim <= 65_536:
        raise InputError(f"{rows} rows of {dim} dimensions: expected 10 to {MAX_ROWS} rows, 2 dimensions or more")
    generator = np.random.default_rng([seed, 0])
    clusters = max(rows // 500, 2)
    total = rows + min(queries, max(rows // 10, 1))
    centres = generator.standard_normal((clusters, dim), dtype=np.float32)
    spread = generator.standard_normal((8, min(inner, dim), dim), dtype=np.float32) / np.float32(np.sqrt(inner))
    cluster = generator.integers(0, clusters, total)
    vectors = np.empty((total, dim), np.float32)
    for start in range(0, total, _BATCH):
        part = cluster[start : start + _BATCH]
        noise = generator.standard_normal((len(part), spread.shape[1]), dtype=np.float32)
        block = centres[part] + np.float32(0.1) * generator.standard_normal((len(part), dim), dtype=np.float32)
        for way in range(len(spread)):
            own = part % len(spread) == way
            block[own] += np.float32(0.8) * (noise[own] @ spread[way])
        vectors[start : start + len(part)] = block
    attributes, schema = _attributes(generator, cluster if correlated else None, total, rows)
    return Source(
        name="synthetic",
        vectors=vectors[:rows],
        attributes=attributes.slice(0, rows),
        schema=schema,
        queries=vectors[rows:],
        query_attributes=attributes.slice(rows),
        facts={"source": "synthetic", "correlated": correlated, "clusters": clusters, "seed": seed},
    )


def _attributes(
    generator: np.random.Generator, cluster: NDArray[np.int64] | None, total: int, rows: int
) -> tuple[pa.Table, dict[str, str]]:
    """With ``cluster``, three of four rows take the value of their cluster, the others a random one."""

    def drawn(weights: NDArray[np.float64]) -> NDArray[np.int64]:
        shares = weights / weights.sum()
        free = generator.choice(len(shares), total, p=shares)
        if cluster is None:
            return free
        usual = generator.choice(len(shares), int(cluster.max()) + 1, p=shares)
        return np.where(generator.random(total) < 0.75, usual[cluster], free)

    kinds = drawn(1 / np.arange(1, 41))
    years = 1990 + drawn(np.exp(np.arange(35) / 12))
    first, second = drawn(1 / np.arange(1, 201)), drawn(1 / np.arange(1, 201))
    count = generator.integers(0, 3, total)
    tags = [[f"t{a}", f"t{b}"][:n] for a, b, n in zip(first.tolist(), second.tolist(), count.tolist(), strict=True)]
    table = pa.table(
        {
            "stamp": pa.array(generator.permutation(total) * rows // total, pa.int64()),
            "year": pa.array(years, pa.int64()),
            "kind": pa.array([f"kind{i}" for i in kinds.tolist()]),
            "tags": pa.array(tags, pa.list_(pa.string())),
            "score": pa.array(generator.random(total).round(6)),
            "open": pa.array(generator.random(total) < 0.5),
        }
    )
    schema = {
        "stamp": "int", "year": "int", "kind": "string", "tags": "list[string]", "score": "float", "open": "bool"
    }  # fmt: skip
    return table, schema


def parquet(path: Path, vector: str, attributes: Sequence[str], *, queries: int = 512, seed: int = 0) -> Source:
    """A user's Parquet file: the column ``vector`` (lists of numbers, one length) and the columns ``attributes``.

    Integers, floats, bools, text, dates, timestamps and lists of text become attributes; other types are an
    InputError, as are a missing column and vectors of different lengths. NotFoundError where there is no such file.
    """
    if not path.is_file():
        raise NotFoundError(f"{str(path)!r} does not exist or is no file: --data takes a Parquet file")
    try:
        names = pq.read_schema(path).names
        for name in (vector, *attributes):
            if name not in names:
                raise InputError(
                    f"{path.name} has no column {name!r} (it has {', '.join(names)}){did_you_mean(name, names)}"
                )
        table = pq.read_table(path, columns=[vector, *attributes])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path.name} is not a readable Parquet file: {str(error).splitlines()[0]}") from error
    matrix = _matrix(table.column(vector), f"{path.name}: {vector}")
    schema = {name: _kind(table.schema.field(name).type, f"{path.name}: column {name!r}") for name in attributes}
    check_schema(matrix.shape[1], "cosine", schema)
    try:
        typed = {name: _cast(table.column(name), kind) for name, kind in schema.items()}
    except pa.ArrowException as error:
        raise InputError(f"{path.name}: an attribute is outside the range of its type: {error}") from error
    kept, own, held, held_own = hold_out(matrix, _table(typed, len(matrix)), queries, seed)
    return Source(
        name=_safe(path.stem), vectors=kept, attributes=own, schema=schema, queries=held, query_attributes=held_own,
        facts={"source": path.name, "vector": vector},
    )  # fmt: skip


def _table(columns: dict[str, Any], rows: int) -> pa.Table:
    return pa.table(columns) if columns else pa.table({"": pa.nulls(rows)}).select([])


def _matrix(column: pa.ChunkedArray, what: str) -> NDArray[Any]:
    array = column.combine_chunks()
    listed = (
        pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)
    )
    if not listed or array.null_count or not len(array):
        raise InputError(
            f"{what} has type {array.type} and {array.null_count} nulls: expected a list of numbers per row"
        )
    flat = array.flatten()
    if flat.null_count or not (pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)):
        raise InputError(f"{what} holds {flat.type} and {flat.null_count} nulls: expected numbers")
    width = len(flat) // len(array)
    if not pa.types.is_fixed_size_list(array.type):
        lengths = np.diff(array.offsets.to_numpy())
        if (lengths != width).any() or not width:
            raise InputError(f"{what} holds vectors of {lengths.min()} to {lengths.max()} numbers: expected one length")
    values: NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(len(array), width)
    return values


def _kind(of: pa.DataType, what: str) -> str:
    types = pa.types
    if types.is_list(of) and (types.is_string(of.value_type) or types.is_large_string(of.value_type)):
        return "list[string]"
    if types.is_dictionary(of):
        of = of.value_type
    for kind, test in (
        ("bool", types.is_boolean), ("int", types.is_integer), ("float", types.is_floating), ("date", types.is_date),
        ("timestamp", types.is_timestamp), ("string", types.is_string), ("string", types.is_large_string),
    ):  # fmt: skip
        if test(of):
            return kind
    raise InputError(f"{what} has type {of}: expected text, numbers, bools, dates, timestamps or lists of text")


def _cast(column: pa.ChunkedArray, kind: str) -> pa.Array:
    array = column.combine_chunks()
    if kind == "float":
        values = array.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0
        return pa.array(values, pa.float64(), from_pandas=True)  # NaN is NULL
    if kind == "timestamp" and array.type.tz is None:
        array = array.cast(pa.timestamp("us"), safe=False)
    return array.cast(ARROW_TYPES[kind], safe=kind not in ("timestamp", "date"))


def collection(path: Path, *, queries: int = 512, seed: int = 0) -> Source:
    """An existing collection with metric "cosine": its vectors and all its attributes, in insertion order."""
    with Collection.open(path) as opened:
        if opened.metric != "cosine":
            raise InputError(f"{str(path)!r} has metric {opened.metric!r}: this benchmark compares by cosine")
        ids, schema = opened.ids(), opened.schema
        vectors = np.empty((len(ids), opened.dim), np.float32)
        records: list[dict[str, Any]] = []
        for start in range(0, len(ids), 8_192):
            for row, record in enumerate(opened.get(ids[start : start + 8_192], vectors=True), start):
                if record is None:
                    raise InputError(f"{str(path)!r} changed while it was read: try again when nothing writes to it")
                vectors[row] = record.pop("vector")
                record.pop("id")
                records.append(record)
        checked = check_schema(opened.dim, "cosine", schema)
    columns = attribute_table(records, checked, len(ids))
    kept, own, held, held_own = hold_out(vectors, _table(columns, len(ids)), queries, seed)
    return Source(
        name=_safe(path.name), vectors=kept, attributes=own, schema=schema, queries=held, query_attributes=held_own,
        facts={"source": path.name},
    )  # fmt: skip


def papers(
    encoder: Encoder,
    *,
    rows: int | None = None,
    queries: int = 512,
    seed: int = 0,
    each: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """Abstracts of arXiv, the ACL Anthology (from 2016 on) and Daily Papers with their own attributes; the queries are
    titles of held-out papers, their attributes those of the paper.

    "year" and "votes" are int, "listed" a date, "venue" a string, "topics" a list (arXiv categories or venues),
    "has_code" a bool, "authors" how many. rows: so many of them, drawn at random; each: see ``read_papers``.
    NotFoundError where the sets are not on this machine.
    """
    from nextvec.evaluate.ann.papers import read_papers

    titles, texts, attributes, schema = read_papers(each=each)
    order = np.random.default_rng([seed, 3]).permutation(len(texts))
    total = len(texts) if rows is None else min(rows + queries, len(texts))
    held, kept = np.sort(order[:queries]), np.sort(order[queries:total])
    if len(kept) < 10:
        raise InputError(f"{len(texts)} papers and {queries} queries: too few are left to search in")
    asked = [titles[i] for i in held.tolist()]
    return Source(
        name="papers",
        vectors=_embedded(encoder, [texts[i] for i in kept.tolist()], progress),
        attributes=attributes.take(pa.array(kept)),
        schema=schema,
        queries=np.asarray(encoder.encode_query(asked)),
        query_attributes=attributes.take(pa.array(held)),
        facts={"source": "arXiv, ACL Anthology, Daily Papers", "encoder": repr(encoder)},
    )


def _embedded(encoder: Encoder, texts: list[str], progress: Progress | None) -> NDArray[np.float32]:
    """The texts' vectors [N, D]; kept in the workload, so each text is encoded once."""
    parts = []
    for start in range(0, len(texts), 4_096):
        parts.append(np.asarray(encoder.encode_document(texts[start : start + 4_096]), np.float32))
        if progress:
            progress(min(start + 4_096, len(texts)), len(texts))
    return np.concatenate(parts)


def _safe(name: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in name)[:40] or "data"
