"""``ObjectCollection``: a collection as a Lance table on an object store, S3 or one that speaks as it does.

    with ObjectCollection.create("s3://bucket/papers", dim=384, schema={"year": "int"}) as papers:
        papers.add(["a"], vectors, [{"year": 2024}])

Also ``gs://bucket/prefix``, ``az://container/prefix`` and ``file:///folder/name``; keys and endpoints come from the
usual environment variables. The table has the columns of a collection in a folder; dim, metric and schema are its
schema's metadata, so that it is there whole with the first commit. No server and no lock: a write is one commit that
holds only where nobody committed since the version it was based on, and is made again on the newest one otherwise.
Shapes: N rows, D dimensions, Q queries.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import lance
import numpy as np
import pyarrow as pa
from lance.commit import CommitConflictError
from numpy.typing import NDArray

from nextvec.search import filters
from nextvec.search.inputs import refuse_existing
from nextvec.search.kept import unpacked
from nextvec.search.schema import SEQUENCE, Kept, Schema, check_schema
from nextvec.search.snapshot import Snapshot
from nextvec.search.store import LOCK_TIMEOUT, MAX_SMALL_FRAGMENTS, RETENTION, SMALL_FRAGMENT, numbered, without
from nextvec.search.stores.objects_place import Place
from nextvec.search.stores.objects_vectors import Vectors
from nextvec.search.stores.remote import RemoteCollection, check_same
from nextvec.types import ConflictError, Hits, InputError, StorageError

METADATA = b"nextvec"
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 2.0  # seconds before a write is tried again

Change = Callable[["_Version"], tuple[NDArray[np.int64], dict[str, pa.Array] | None, NDArray[np.float32] | None]]
"""For a version: the rows to drop, and the columns and vectors to add (None: nothing)."""


class _Version(Snapshot):
    """A version of the table, whose errors are the store's."""

    def __init__(self, dataset: Any, schema: Schema, place: Place, previous: _Version | None = None) -> None:
        self.place = place
        super().__init__(dataset, schema, place.address, previous)

    def told(self) -> contextlib.AbstractContextManager[None]:
        return self.place.told()

    def by_fragment(self, rows: NDArray[np.int64]) -> Iterator[tuple[Any, NDArray[np.int64], bool]]:
        """(fragment, sequence numbers of those of ``rows`` in it, whether they are all it has), without a request."""
        gone = self.sequence[rows]
        for fragment, part in zip(self.fragments, self.dataset.get_fragments(), strict=True):
            sequence = self._pieces[fragment, SEQUENCE].to_numpy()
            here = sequence[np.isin(sequence, gone)]
            if len(here):
                yield part, here, len(here) == len(sequence)


class ObjectCollection(RemoteCollection):
    """See the module."""

    engine: ClassVar[str] = "objects"

    def __init__(self, place: Place, dataset: Any) -> None:
        """Use ``ObjectCollection.open`` or ``ObjectCollection.create``."""
        super().__init__(place.address, _described(place, dataset))
        self._place = place
        self.precision = self._schema.keep
        self._vectors = Vectors(self.dim)
        self._version: _Version | None = _Version(dataset, self._schema, place)

    @classmethod
    def create(
        cls,
        address: str,
        *,
        dim: int,
        schema: Mapping[str, str] | None = None,
        metric: Literal["cosine", "dot"] = "cosine",
        keep: Kept = "float32",
        nested: bool = False,
        exist_ok: bool = False,
    ) -> ObjectCollection:
        """Make an empty collection, and open it. Arguments and errors as for ``Collection.create``."""
        place, wanted = Place(address), check_schema(dim, metric, schema, keep=keep, nested=nested)
        made = True
        with place.told():
            try:
                empty = _arrow(wanted).empty_table()
                dataset = lance.write_dataset(empty, place.uri, mode="create", storage_options=place.options)
            except (OSError, ValueError) as error:
                # Who comes second is told so in two ways: found at once, or when its commit meets the other one.
                second = "already exists" in str(error) or "commit conflict" in str(error)
                if not second and not isinstance(error, CommitConflictError):
                    raise
                dataset, made = _opened(place), False
        collection = cls(place, dataset)
        if not made and not exist_ok:
            raise ConflictError(f"collection {place.address!r} exists: open it, or pass exist_ok=True")
        check_same(place.address, collection._schema, wanted)
        return collection

    @classmethod
    def open(cls, address: str) -> ObjectCollection:
        """Open a collection. Raises NotFoundError, StorageError, InputError."""
        place = Place(address)
        return cls(place, _opened(place))

    # Parts

    def _disconnect(self) -> None:
        self._version = None
        self._vectors = Vectors(self.dim)

    def _current(self) -> _Version:
        """The newest version: every call asks for its number, which is one request."""
        with self._lock, self._place.told():
            version = self._version
            if version is None:
                raise InputError(f"collection {self.address!r} is closed: open it again")
            if int(version.dataset.latest_version) != version.version:
                version = self._version = _Version(_opened(self._place), self._schema, self._place, version)
            return version

    def _write(self, columns: dict[str, pa.Array], rows: NDArray[np.float32], *, replace: bool) -> None:
        def change(version: _Version) -> Any:
            old = version.rows_of(columns["id"])
            if not replace:
                taken = pa.array(np.flatnonzero(old >= 0))
                refuse_existing(columns["id"].take(taken).to_pylist(), len(rows))
            return old[old >= 0], columns, rows

        self._commit(change)

    def _delete_ids(self, ids: list[str]) -> int:
        wanted = pa.array(ids, pa.string())

        def change(version: _Version) -> Any:
            rows = version.rows_of(wanted)
            return np.unique(rows[rows >= 0]), None, None

        return self._commit(change)

    def _delete_where(self, tree: filters.Filter) -> int:
        return self._commit(lambda version: (version.matching(tree), None, None))

    def _commit(self, change: Change) -> int:
        """Make a change of the newest version; how many rows it dropped. On the version that came between, anew."""
        until, wait = time.monotonic() + LOCK_TIMEOUT, _FIRST_WAIT
        with self._lock, self._place.told():
            while True:
                version = self._current()
                gone, columns, vectors = change(version)
                if not len(gone) and vectors is None:
                    return 0
                if self._committed(version, gone, columns, vectors):
                    self._tidy()
                    return len(gone)
                if time.monotonic() > until:
                    raise ConflictError(
                        f"other writers keep changing collection {self.address!r}: nothing was written, try again"
                    )
                time.sleep(wait * random.uniform(0.5, 1.5))
                wait = min(2 * wait, _LONGEST_WAIT)

    def _committed(
        self,
        version: _Version,
        gone: NDArray[np.int64],
        columns: dict[str, pa.Array] | None,
        vectors: NDArray[np.float32] | None,
    ) -> bool:
        """Commit as the version after ``version``; False where another writer was faster."""
        new = []
        if columns is not None and vectors is not None:
            table = numbered(self._schema, version.version + 1, columns, vectors)
            new = lance.fragment.write_fragments(table, version.dataset, storage_options=self._place.options)
        transaction = lance.Transaction(version.version, self._operation(version, gone, new))
        try:
            dataset = lance.LanceDataset.commit(
                version.dataset, transaction, storage_options=self._place.options, max_retries=0
            )
        except CommitConflictError:
            # A commit whose answer was lost is sent again, and then in conflict with itself.
            dataset = _opened(self._place)
            theirs = dataset.read_transaction(version.version + 1) if dataset.version > version.version else None
            if theirs is None or theirs.uuid != transaction.uuid:
                return False
        self._version = _Version(dataset, self._schema, self._place, version)
        return True

    def _operation(self, version: _Version, gone: NDArray[np.int64], new: list[Any]) -> Any:
        """What to commit, such that any two that are based on the same version are in conflict.

        Lance lets commits pass each other that touch different fragments, and both of two writers would add the same
        id. So each of ours says that it touches the first fragment; where there is none, it replaces the empty table,
        which holds only as the very next version.
        """
        fragments = version.dataset.get_fragments()
        if not fragments:
            return lance.LanceOperation.Overwrite(_arrow(self._schema), new)
        removed, updated = [], []
        for part, sequence, whole in version.by_fragment(gone) if len(gone) else ():
            if whole:
                removed.append(part.fragment_id)
            else:
                updated.append(without(part, sequence))
        first = fragments[0].metadata
        if first.id not in removed and first.id not in {one.id for one in updated}:
            updated.append(first)
        return lance.LanceOperation.Update(removed_fragment_ids=removed, updated_fragments=updated, new_fragments=new)

    def _tidy(self) -> None:
        """Merge small fragments where there are many, as a folder does. The write before it is done: what fails here
        (another writer came between) is left for the next one."""
        version = self._version
        assert version is not None
        if sum(fragment.rows < SMALL_FRAGMENT for fragment in version.fragments) > MAX_SMALL_FRAGMENTS:
            with contextlib.suppress(StorageError, ConflictError), self._place.told():
                dataset = _opened(self._place)
                dataset.optimize.compact_files(target_rows_per_fragment=SMALL_FRAGMENT)
                dataset.cleanup_old_versions(older_than=RETENTION, error_if_tagged_old_versions=False)

    def _rows(self, ids: list[str], vectors: bool) -> dict[str, dict[str, Any]]:
        version = self._current()
        rows = version.rows_of(pa.array(ids, pa.string()))
        rows = np.unique(rows[rows >= 0])
        if not len(rows):
            return {}
        names = ["id", *self._schema.attributes]
        table = version.take(rows, [*names, *(["vector"] if vectors else [])])
        records = table.select(names).to_pylist()
        if vectors:
            for record, vector in zip(records, unpacked(table.column("vector")), strict=True):
                record["vector"] = vector
        return {record["id"]: record for record in records}

    def _ids(self, tree: filters.Filter | None) -> list[str]:
        version = self._current()
        column = version.column("id")
        return list((column if tree is None else column.take(pa.array(version.matching(tree)))).to_pylist())

    def _count(self, tree: filters.Filter | None) -> int:
        version = self._current()
        return version.rows if tree is None else version.allowed(tree).count

    def _found(
        self, queries: NDArray[np.float32], k: int, tree: filters.Filter | None, names: list[str]
    ) -> tuple[list[Hits], str]:
        version = self._current()
        found = self._vectors.found(version, queries, k, tree)
        results = []
        for one in found:
            ids = version.column("id").take(pa.array(one.rows)).to_pylist()
            results.append(Hits(ids, one.scores, version.values(one.rows, names)))
        return results, found[0].plan if found else "no queries"

    def _facts(self) -> dict[str, Any]:
        version = self._current()
        files = [file for part in version.dataset.get_fragments() for file in part.metadata.files]
        return {
            "version": version.version,
            "fragments": len(version.fragments),
            "bytes": sum(file.file_size_bytes or 0 for file in files),
            "vectors": "in memory" if self._vectors.fit(version) else "read for each search",
        }


def _opened(place: Place) -> Any:
    with place.told():
        return lance.dataset(place.uri, storage_options=place.options)


def _arrow(schema: Schema) -> pa.Schema:
    """The table's schema, with the collection's beside it."""
    return schema.arrow().with_metadata({METADATA: json.dumps(schema.document(), ensure_ascii=False)})


def _described(place: Place, dataset: Any) -> Schema:
    """What the table's metadata say."""
    found = dataset.schema.metadata or {}
    if METADATA not in found:
        raise place.missing("the table was not made by nextvec", "choose another")
    schema = Schema.from_document(found[METADATA], place.address)
    if dataset.schema.names != schema.arrow().names:
        raise StorageError(f"{place.address!r} is damaged: its metadata and the table do not name the same columns")
    return schema
