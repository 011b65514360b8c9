"""``nextvec collection check``: reads all of a collection, compares what has checksums, and repairs what it can.

The derived files keep a checksum of every vector as it was written, and a second copy of it. So a vector of the table
that has changed on the disk is found, and put right where the copy still is what was written. Ids and attributes have
no second copy: what cannot be read of them is told, and needs a backup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextvec.search.indexes.approximate import ApproximateFiles
from nextvec.search.indexes.rows import RowFiles, Rows, row_check
from nextvec.search.schema import SEQUENCE, Schema
from nextvec.search.snapshot import Snapshot
from nextvec.search.store import Store
from nextvec.types import StorageError

_CHUNK = 8_192
_TOLERANCE = 1e-3  # of the length of a vector with metric "cosine"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """part: of the collection; problem: what is wrong; repaired: done already; remedy: what is left to do."""

    part: str
    problem: str
    remedy: str
    repaired: bool = False


def check_collection(path: str | Path, *, repair: bool = False, progress: Progress | None = None) -> list[Finding]:
    """All that is wrong with the collection at ``path``: an empty list is a clean bill.

    With ``repair``, derived files that are damaged are removed (the next search or ``index`` makes them anew) and
    vectors of the table are restored from their copies. Takes the time of reading everything. Raises StorageError
    where the collection cannot be opened at all.
    """
    folder, say = Path(path).expanduser(), progress or (lambda *_: None)
    schema = Schema.read(folder)
    store = Store(folder, schema)
    snapshot = Snapshot(store.dataset(), schema, folder)
    found = list(_readable(snapshot, say))
    if found:
        return found
    files = RowFiles(folder / "derived", schema.dim)
    rows = files.open()
    if rows is None and (files.folder / "exact.json").exists():
        found.append(_derived("exact index", "its files are not what was written", files, "exact*", repair))
    if rows is not None and len(rows):
        harmed = _harmed(rows, say)
        found += list(_vectors(store, snapshot, rows, harmed, repair, say))
        if harmed.any():
            words = f"{int(harmed.sum())} of {len(rows)} rows are not what was written"
            found.append(_derived("exact index", words, files, "exact*", repair))
    near = ApproximateFiles(files.folder, schema.dim)
    if near.stamp() is not None and (rows is None or near.open(rows) is None):
        words = "damaged, or made for rows that are no longer there"
        found.append(_derived("approximate index", words, files, "approximate*", repair))
    return found


def _readable(snapshot: Snapshot, say: Progress) -> Iterator[Finding]:
    """Columns of the table that cannot be read, and ids that come twice."""
    names = [SEQUENCE, "id", *snapshot.schema.attributes]
    for place, name in enumerate(names):
        say("reading columns", place, len(names))
        try:
            if name == SEQUENCE:
                assert len(snapshot.sequence) == snapshot.rows
            elif name == "id" and len(snapshot.column(name).unique()) < snapshot.rows:
                yield Finding("table", "an id comes twice", "delete the id and add its row again")
            else:
                snapshot.column(name)
        except StorageError as error:
            yield Finding("table", f"column {name!r} cannot be read: {error}", "restore the folder from a copy")
    try:
        if snapshot.rows:
            snapshot.take_vectors(np.array([0, snapshot.rows - 1]))
    except StorageError as error:
        yield Finding("table", f"vectors cannot be read: {error}", "restore the folder from a copy")


def _harmed(rows: Rows, say: Progress) -> NDArray[np.bool_]:
    """Which rows of the exact index differ from their checksums: bool [N]."""
    harmed = np.zeros(len(rows), np.bool_)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        harmed[part] = row_check(rows.vectors[part]) != rows.check[part]
        harmed[part] |= row_check(rows.codes[part]) != rows.codes_check[part]
        say("exact index", min(start + _CHUNK, len(rows)), len(rows))
    return harmed


def _vectors(
    store: Store, snapshot: Snapshot, rows: Rows, harmed: NDArray[np.bool_], repair: bool, say: Progress
) -> Iterator[Finding]:
    """Vectors of the table that differ from the checksums, or that no search could have been given."""
    wrong: list[NDArray[np.int64]] = []
    done = 0
    try:
        for sequence, vectors in snapshot.vectors_after(-1):
            place = np.searchsorted(rows.sequence, sequence)
            known = place < len(rows)
            known[known] = rows.sequence[place[known]] == sequence[known]
            differs = np.zeros(len(sequence), np.bool_)
            differs[known] = row_check(vectors[known]) != rows.check[place[known]]
            differs |= ~np.isfinite(vectors).all(axis=1)
            if snapshot.schema.metric == "cosine":
                with np.errstate(all="ignore"):
                    differs |= ~(np.abs(np.linalg.norm(vectors, axis=1) - 1) <= _TOLERANCE)
            wrong.append(sequence[differs])
            done += len(sequence)
            say("vectors", done, snapshot.rows)
    except StorageError as error:
        yield Finding("table", f"vectors cannot be read: {error}", "restore the folder from a copy")
        return
    numbers = np.concatenate([*wrong, np.zeros(0, np.int64)])
    if len(numbers) == 0:
        return
    place = np.searchsorted(rows.sequence, numbers)
    inside = np.minimum(place, len(rows) - 1)
    sound = (place < len(rows)) & (rows.sequence[inside] == numbers)
    sound &= (row_check(rows.vectors[inside]) == rows.check[inside]) & ~harmed[inside]
    first = snapshot.column("id")[int(np.searchsorted(snapshot.sequence, numbers[0]))].as_py()
    words = f"the vectors of {len(numbers)} rows are not what was written, id {first!r} the first"
    if not repair or not sound.all():
        remedy = "check with repair restores them" if sound.all() else "add those rows again, or restore from a copy"
        yield Finding("table", words, remedy)
        return
    with store.writing():
        newest = Snapshot(store.dataset(), snapshot.schema, snapshot.path)
        still = np.isin(numbers, newest.sequence)  # others may have written meanwhile
        at = np.searchsorted(newest.sequence, numbers[still])
        kinds = newest.schema.arrow()
        names = ("id", *snapshot.schema.attributes)
        columns = {name: newest.column(name).take(at).cast(kinds.field(name).type) for name in names}
        store.replace(numbers[still], columns, rows.vectors[inside[still]])
    yield Finding("table", words, "", repaired=True)


def _derived(part: str, problem: str, files: RowFiles, pattern: str, repair: bool) -> Finding:
    """A fault of files that can be made anew; with ``repair`` they are removed, header first."""
    if not repair:
        return Finding(part, problem, "check with repair removes it; it is made anew when needed")
    with files.writing():
        for path in sorted(files.folder.glob(pattern), key=lambda path: path.suffix != ".json"):
            if path.suffix != ".lock":
                path.unlink(missing_ok=True)
    return Finding(part, problem, "", repaired=True)
