"""Copies of collections: all rows from one store to another, in batches, resumable, verified at the end.

A copy is resumed by what is there: rows whose id the target holds are passed over, so that an interrupted copy goes on
where it stopped and a finished one changes nothing. Verification then reads every row of both.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nextvec.search.inputs import as_kept
from nextvec.search.schema import Schema
from nextvec.types import ConflictError, InputError, Progress

if TYPE_CHECKING:
    from nextvec.search.stores import AnyCollection

BATCH = 1_000  # rows per commit
_SUMS = 2**256


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did. rows: of both collections; copied, skipped: rows moved now, and rows that were there;
    checksum: of all rows (``checksum``); precision: "float32" where vectors agree bit by bit, "float16" or "int8"
    where they agree after rounding to it.
    """

    rows: int
    copied: int
    skipped: int
    checksum: str
    precision: str


def copy_rows(
    source: AnyCollection, target: AnyCollection, *, batch: int = BATCH, progress: Progress | None = None
) -> Copied:
    """Copy the rows of ``source`` that ``target`` lacks, in insertion order, then verify all of them.

    Both need the same metric and schema, and the same dim unless the target is ``nested``: it takes the first values.
    ``progress`` counts the rows moved or passed over, then those verified:
    twice the rows in all. Raises InputError (they are of different make), ConflictError that names what differs
    (rows changed at either end, or rows that only the target holds).
    """
    _refuse_different(source, target)
    if batch < 1:
        raise InputError(f"batch is {batch!r}: expected a whole number from 1")
    report = progress or (lambda done, total: None)
    ids = source.ids()
    there = set(target.ids())
    missing = [identifier for identifier in ids if identifier not in there]
    skipped = len(ids) - len(missing)
    report(skipped, 2 * len(ids))
    moved = 0
    for part in _parts(missing, batch):
        rows = _present(source, part)
        target.add(part, np.stack([row.pop("vector") for row in rows]), [_attributes(row) for row in rows])
        moved += len(part)
        report(skipped + moved, 2 * len(ids))
    total = _verified(source, target, ids, batch, lambda done: report(len(ids) + done, 2 * len(ids)))
    return Copied(len(ids), moved, skipped, total, "float32" if source.keep == target.keep else target.keep)


def checksum(collection: AnyCollection, *, batch: int = BATCH) -> str:
    """A sum over ids, attributes and float32 bits of the vectors that does not depend on the order of rows: SHA-256
    of each row, added up modulo 2**256, as 64 hex digits.
    """
    total = 0
    for part in _parts(collection.ids(), batch):
        for row in _present(collection, part):
            total += _digest(row, row.pop("vector"))
    return f"{total % _SUMS:064x}"


def _verified(source: AnyCollection, target: AnyCollection, ids: list[str], batch: int, report: Any) -> str:
    """The checksum of both; ConflictError where they differ."""
    schema = Schema(target.dim, source.metric, source.schema, target.keep)
    sums, differing, first, done = [0, 0], 0, "", 0
    for part in _parts(ids, batch):
        rows = _present(source, part)
        # Changes no bits where both keep the same.
        vectors = as_kept(np.stack([row.pop("vector")[: target.dim] for row in rows]), schema, "vector")
        for identifier, row, vector, copy in zip(part, rows, vectors, target.get(part, vectors=True), strict=True):
            wanted = _digest(row, vector)
            found = 0 if copy is None else _digest(copy, copy.pop("vector"))
            sums = [(sums[0] + wanted) % _SUMS, (sums[1] + found) % _SUMS]
            if wanted != found:
                first, differing = first or identifier, differing + 1
        done += len(part)
        report(done)
    if differing:
        raise ConflictError(
            f"the copy differs from its source in {differing} of {len(ids)} rows, the first {first!r} (checksums "
            f"{sums[0]:064x} and {sums[1]:064x}): rows changed at either end; delete those of the target and copy again"
        )
    extra = target.count() - len(ids)
    if extra:
        raise ConflictError(
            f"the target holds {len(ids) + extra} rows, the source {len(ids)}: all of the source's rows are there, "
            "delete the others or copy to a new collection"
        )
    return f"{sums[0]:064x}"


def _refuse_different(source: AnyCollection, target: AnyCollection) -> None:
    for what in ("dim", "metric", "schema"):
        one, other = getattr(source, what), getattr(target, what)
        if one != other and not (what == "dim" and target.nested and target.dim < source.dim):
            raise InputError(f"source and target have different {what} ({one!r} and {other!r}): copy to a new one")


def _parts(ids: Sequence[str], batch: int) -> Iterator[list[str]]:
    for start in range(0, len(ids), batch):
        yield list(ids[start : start + batch])


def _present(source: AnyCollection, ids: list[str]) -> list[dict[str, Any]]:
    rows = []
    for identifier, row in zip(ids, source.get(ids, vectors=True), strict=True):
        if row is None:
            raise ConflictError(f"row {identifier!r} left the source while it was copied: copy again")
        rows.append(row)
    return rows


def _attributes(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "id"}


def _digest(row: dict[str, Any], vector: NDArray[np.float32]) -> int:
    """SHA-256 over the id, the attributes by name, and the vector's float32 values (little-endian)."""
    named = [[name, _plain(row[name])] for name in sorted(row)]
    text = json.dumps(named, ensure_ascii=True, separators=(",", ":"))
    data = text.encode() + b"\x00" + np.ascontiguousarray(vector, "<f4").tobytes()
    return int.from_bytes(hashlib.sha256(data).digest(), "big")


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    return value.hex() if isinstance(value, float) else value
