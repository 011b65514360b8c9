"""An open collection: the version it reads, what it remembers of it, and letting go.

Shapes: D dimensions.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from nextvec.search import filters
from nextvec.search import where as grammar
from nextvec.search.derived import Derived
from nextvec.search.paging import Remembered
from nextvec.search.schema import HEADER, Kept, Schema
from nextvec.search.snapshot import Snapshot
from nextvec.search.store import Store
from nextvec.search.text_index import TextIndexes
from nextvec.types import InputError, NotFoundError

__all__ = ["Handle"]


class Handle:
    """What ``Collection`` stands on. May be shared between threads."""

    def __init__(self, path: Path, *, version: int | None = None) -> None:
        """Use ``Collection.open`` or ``Collection.create``."""
        self.path = path
        self._schema = Schema.read(path)
        self._store = Store(path, self._schema)
        self._pinned = version is not None
        self._derived = Derived(path, self._schema, shared=not self._pinned)
        self._words = TextIndexes(path, shared=not self._pinned)
        self._paged = Remembered()
        self._remembered = functools.lru_cache(maxsize=256)(
            functools.partial(grammar.parse, columns=self._schema.columns)
        )
        self._lock = threading.Lock()
        self._closed = False
        self._snapshot: Snapshot | None = Snapshot(self._store.dataset(version), self._schema, path)

    @classmethod
    def open(cls, path: str | Path, *, version: int | None = None) -> Self:
        """Open a collection; with ``version``, a read-only view of that version, else it follows the newest one.

        Raises NotFoundError, StorageError (damaged), InputError.
        """
        folder = Path(path).expanduser()
        if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
            raise InputError(f"version is {version!r}: expected a whole number from 1")
        if not (folder / HEADER).is_file():
            what = f"no {HEADER} in it" if folder.is_dir() else "no such folder"
            raise NotFoundError(f"{str(folder)!r} is not a collection ({what}): create it first")
        return cls(folder, version=version)

    @property
    def dim(self) -> int:
        """Dimensions of every vector."""
        return self._schema.dim

    @property
    def metric(self) -> Literal["cosine", "dot"]:
        """What scores are."""
        return self._schema.metric

    @property
    def schema(self) -> dict[str, str]:
        """Attribute to type."""
        return dict(self._schema.attributes)

    @property
    def keep(self) -> Kept:
        """How the table keeps the values of a vector."""
        return self._schema.keep

    @property
    def nested(self) -> bool:
        """Whether longer vectors are cut."""
        return self._schema.nested

    @property
    def version(self) -> int:
        """The version that the next call would read."""
        return self._current().version

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of memory and files, after what runs in the background. Every write was durable before this."""
        self._store.settle()
        with self._lock:
            self._closed = True
            self._snapshot = None
            self._derived = Derived(self.path, self._schema, shared=not self._pinned)
            self._words = TextIndexes(self.path, shared=not self._pinned)
            self._paged = Remembered()

    def _current(self) -> Snapshot:
        """The snapshot to answer from: the pinned one, or the newest."""
        with self._lock:
            if self._closed or self._snapshot is None:
                raise InputError(f"collection {str(self.path)!r} is closed: open it again")
            if not self._pinned and self._store.newest_version() != self._snapshot.version:
                self._snapshot = Snapshot(self._store.dataset(), self._schema, self.path, self._snapshot)
            return self._snapshot

    def _refuse_pinned(self) -> None:
        if self._pinned:
            raise InputError(
                f"this handle is pinned to version {self.version} and read-only: open the collection without version"
            )

    def _parsed(self, where: Any) -> filters.Filter:
        return self._remembered(where) if isinstance(where, str) else grammar.parse(where, self._schema.columns)
