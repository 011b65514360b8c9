"""One version of a collection in memory: its columns, loaded when first needed, and the filters answered so far."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nextvec.search import column_index, filters
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.kept import unpacked
from nextvec.search.native import kernels
from nextvec.search.resolve import resolve
from nextvec.search.schema import SEQUENCE, Schema
from nextvec.search.store import told

_MASKS = 32
_BATCH = 8_192
_TEXTS = 1_024  # rows of texts read in one piece: Lance reads no piece of more than 2 GB
_PLAIN_TEXT = 2**31 - 1  # bytes that Arrow's plain strings can address
_INDEX_AFTER = 3  # conditions on a column, in new filters
_SMALL_KINDS = {"int", "float", "bool", "date", "timestamp"}


@dataclass(frozen=True, slots=True)
class Fragment:
    """A run of rows that never changes: a Lance fragment with one state of its deletions."""

    number: int
    deletions: str | None
    rows: int


class Snapshot:
    """Rows are numbered 0 .. rows - 1 in insertion order. Safe to share between threads.

    ``previous`` is an older snapshot: the columns of fragments that both have are taken over, so that after a small
    write only the new rows are read.
    """

    def __init__(self, dataset: Any, schema: Schema, path: Path | str, previous: Snapshot | None = None) -> None:
        self.dataset = dataset
        self.schema = schema
        self.path = path
        self.version = int(dataset.version)
        with self.told():
            self.fragments = [
                Fragment(fragment.fragment_id, fragment.deletion_file(), fragment.metadata.num_rows)
                for fragment in dataset.get_fragments()
            ]
        self.rows = sum(fragment.rows for fragment in self.fragments)
        self._pieces: dict[tuple[Fragment, str], pa.Array] = {}
        if previous is not None:
            known = set(self.fragments)
            self._pieces = {key: piece for key, piece in previous._pieces.items() if key[0] in known}
        self._columns: dict[str, pa.Array] = {}
        self._indexes: dict[str, column_index.ColumnIndex | None] = {}
        self._asked: dict[str, int] = {}
        self._masks: OrderedDict[int, tuple[filters.Filter, Allowed]] = OrderedDict()
        self._lock = threading.RLock()
        self._order: NDArray[np.int64] | None = None
        self._sequence: NDArray[np.int64] | None = None

    def told(self) -> AbstractContextManager[None]:
        """Errors of what holds the table as one line."""
        return told(Path(self.path))

    @property
    def sequence(self) -> NDArray[np.int64]:
        """Sequence numbers, ascending: int64 [rows]."""
        with self._lock:
            if self._sequence is None:
                sequence = self._read(SEQUENCE).to_numpy()
                if np.any(sequence[1:] <= sequence[:-1]):
                    # Only a foreign tool that rewrote the table can get here.
                    self._order = np.argsort(sequence, kind="stable")
                    sequence = sequence[self._order]
                self._sequence = sequence
            return self._sequence

    def _disk_order(self) -> NDArray[np.int64] | None:
        """Where each row is in the table; None where the table is in insertion order, as this library writes it."""
        assert len(self.sequence) == self.rows
        return self._order

    def column(self, name: str) -> pa.Array:
        """All values of ``id`` or of an attribute, in insertion order."""
        with self._lock:
            if name not in self._columns:
                array = self._read(name)
                order = self._disk_order()
                self._columns[name] = array if order is None else array.take(pa.array(order))
            return self._columns[name]

    def _read(self, name: str) -> pa.Array:
        missing = [fragment for fragment in self.fragments if (fragment, name) not in self._pieces]
        if missing:
            numbers = {fragment.number for fragment in missing}
            with self.told():
                chosen = [part for part in self.dataset.get_fragments() if part.fragment_id in numbers]
                batch = _TEXTS if _is_text(self.schema.arrow().field(name).type) else None
                scanner = self.dataset.scanner(columns=[name], fragments=chosen, batch_size=batch)
                read = joined(scanner.to_table().column(0).chunks, self.schema.arrow().field(name).type)
            start = 0
            for fragment in missing:
                self._pieces[fragment, name] = read.slice(start, fragment.rows)
                start += fragment.rows
        pieces = [self._pieces[fragment, name] for fragment in self.fragments]
        return joined(pieces, self.schema.arrow().field(name).type)

    @cached_property
    def identity(self) -> tuple[int | str, ...]:
        """What tells this version from the same number in a collection that was made anew in its place."""
        if self.rows == 0:
            return (0,)
        ids = self.column("id")
        return self.rows, ids[0].as_py(), ids[-1].as_py()

    def matching(self, tree: filters.Filter) -> NDArray[np.int64]:
        """The rows that satisfy the filter, ascending: int64 [matches]."""
        return self.allowed(tree).rows

    def allowed(self, tree: filters.Filter) -> Allowed:
        """The rows that satisfy the filter. The answers to the last 32 new ones are kept."""
        # By identity: the same text gives the same tree, and to hash one takes longer than the search may.
        kept = self._masks.get(id(tree))
        if kept is not None and kept[0] is tree:
            return kept[1]
        self._index(tree)
        found = resolve(tree, self.rows, self._indexes.get, self.column)
        with self._lock:
            self._masks[id(tree)] = tree, found
            if len(self._masks) > _MASKS:
                self._masks.popitem(last=False)
        return found

    def _index(self, tree: filters.Filter) -> None:
        """Count what the filter reads; make an index of each column that was asked for often enough to pay for it."""
        if filters.columns_used(tree) <= self._indexes.keys():
            return
        with self._lock:
            for name, times in filters.conditions(tree).items():
                self._asked[name] = self._asked.get(name, 0) + times
                if name not in self._indexes and self._asked[name] > _INDEX_AFTER:
                    self._indexes[name] = column_index.index_of(self.column(name), self.schema.columns[name])

    def rows_of(self, ids: pa.Array) -> NDArray[np.int64]:
        """The row of each id, -1 where there is none: int64 [len(ids)]."""
        column = self.column("id")
        ids = ids.cast(column.type)
        if len(ids) == 1:
            return np.array([pc.index(column, ids[0]).as_py()], np.int64)
        rows = np.flatnonzero(pc.is_in(column, value_set=ids).to_numpy(zero_copy_only=False))
        found = column.take(pa.array(rows))
        place = pc.index_in(ids, value_set=found)
        place = pc.fill_null(place, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return np.where(place >= 0, rows[place] if len(rows) else -1, -1)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of these rows."""
        return self.ids_of_each([rows])[0]

    def ids_of_each(self, rows: Sequence[NDArray[np.int64]]) -> list[list[str]]:
        """The ids of the rows of each query."""
        if kernels is None or self.id_buffers is None:
            column = self.column("id")
            return [column.take(pa.array(own)).to_pylist() for own in rows]
        # Out of Arrow's own memory, which takes a tenth of what asking Arrow for a few rows does.
        made: list[list[str]] = kernels.strings(*self.id_buffers, [np.ascontiguousarray(own, np.int64) for own in rows])
        return made

    @cached_property
    def id_buffers(self) -> tuple[NDArray[np.int32], memoryview] | None:
        """Where each id begins in the text of all of them: int32 [rows + 1], and that text; None where it has more than
        2 GB."""
        column = self.column("id")
        if column.type != pa.string():
            return None
        _, offsets, text = column.buffers()
        begins = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
        return begins, memoryview(text) if text is not None else memoryview(b"")

    def values(self, rows: NDArray[np.int64], names: list[str]) -> list[Mapping[str, Any]]:
        """The attributes ``names`` of these rows, as Python values; an empty list where none are asked for."""
        if not names or not len(rows):
            return []
        columns: dict[str, list[Any]] = {}
        distant = []
        for name in names:
            # Small types are worth keeping whole; texts are fetched row by row unless a filter loaded them.
            if name in self._columns or name == "id" or self.schema.attributes[name] in _SMALL_KINDS:
                columns[name] = self.column(name).take(pa.array(rows)).to_pylist()
            else:
                distant.append(name)
        if distant:
            table = self.take(rows, distant)
            columns.update({name: table.column(name).to_pylist() for name in distant})
        return [{name: columns[name][i] for name in names} for i in range(len(rows))]

    def take(self, rows: NDArray[np.int64], names: list[str]) -> pa.Table:
        """These rows of the table, read from disk."""
        order = self._disk_order()
        physical = rows if order is None else order[rows]
        with self.told():
            return self.dataset.take(physical.tolist(), columns=names)

    def take_vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 [len(rows), D], read from disk."""
        return unpacked(self.take(rows, ["vector"]).column(0))

    def vectors_after(self, last: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """(sequence numbers [n], vectors [n, D]) of the rows with a number above ``last``, in insertion order."""
        for sequence, values in self.values_after(last, "vector"):
            yield sequence, unpacked(values)

    def values_after(self, last: int, name: str) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
        """(sequence numbers [n], values [n] of one column) of the rows with a number above ``last``, in insertion
        order. Read piece by piece and not kept."""
        if self._disk_order() is not None:
            rows = np.flatnonzero(self.sequence > last)
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                yield self.sequence[part], self.take(part, [name]).column(0).combine_chunks()
            return
        starts = np.cumsum([0, *(fragment.rows for fragment in self.fragments)])
        first = int(np.searchsorted(self.sequence, last, side="right"))
        numbers = {fragment.number for fragment, end in zip(self.fragments, starts[1:], strict=True) if end > first}
        if not numbers:
            return
        with self.told():
            chosen = [part for part in self.dataset.get_fragments() if part.fragment_id in numbers]
            size = _TEXTS if _is_text(self.schema.arrow().field(name).type) else _BATCH
            scanner = self.dataset.scanner(columns=[SEQUENCE, name], fragments=chosen, batch_size=size)
            for batch in scanner.to_batches():
                sequence = batch.column(0).to_numpy()
                new = int(np.searchsorted(sequence, last, side="right"))
                yield sequence[new:], batch.column(1)[new:]


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.list_(pa.string()))


def joined(pieces: list[pa.Array], kind: pa.DataType) -> pa.Array:
    """The pieces of a column of this type as one array; texts of more than 2 GB in all with 64-bit offsets."""
    if not pieces:
        return pa.array([], kind)
    if _is_text(kind) and (sum(one.nbytes for one in pieces) > _PLAIN_TEXT or any(one.type != kind for one in pieces)):
        wide = pa.large_string() if kind == pa.string() else pa.large_list(pa.large_string())
        pieces = [one.cast(wide) for one in pieces]
    return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
