"""What collections on a server have in common: the face of ``Collection``, its checks and its errors.

A store is a subclass with a handful of parts (``_write``, ``_rows``, ``_ids``, ``_found``, ...); whatever reaches them
has been checked, and filters come as typed trees. Shapes: N rows, D dimensions, Q queries.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from nextvec.search import filters
from nextvec.search import where as grammar
from nextvec.search.inputs import Attributes, check_columns, check_ids, check_queries, check_rows
from nextvec.search.requests import check_k_or_all, check_number
from nextvec.search.schema import Kept, Schema
from nextvec.types import ConflictError, Hits, InputError

_ALL = 2**62  # hits
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,47}")


class RemoteCollection(ABC):
    """A collection on a server. A handle may be shared between threads, but not across ``fork``."""

    engine: ClassVar[str]
    precision: Kept = "float32"

    def __init__(self, address: str, schema: Schema) -> None:
        """Use ``open`` or ``create``. address: as it may be shown, without a password."""
        self.address = address
        self._schema = schema
        self._closed = False
        self._lock = threading.RLock()
        self._remembered = functools.lru_cache(maxsize=256)(functools.partial(grammar.parse, columns=schema.columns))

    @property
    def dim(self) -> int:
        """Dimensions of every vector."""
        return self._schema.dim

    @property
    def metric(self) -> Literal["cosine", "dot"]:
        """What scores are."""
        return self._schema.metric

    @property
    def keep(self) -> Kept:
        """How the store keeps the values of a vector."""
        return self.precision

    @property
    def nested(self) -> bool:
        """Whether longer vectors are cut."""
        return self._schema.nested

    @property
    def schema(self) -> dict[str, str]:
        """Attribute to type."""
        return dict(self._schema.attributes)

    def __len__(self) -> int:
        return self.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection. Every write was acknowledged by the server before this."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._disconnect()

    # Writing

    def add(self, ids: Sequence[str], vectors: ArrayLike, attributes: Attributes | None = None) -> None:
        """Add N new rows. vectors: [N, D] numbers; attributes: N mappings, or a mapping (or Arrow table) of columns;
        what is missing is NULL.

        Raises ConflictError that names the first id that exists or comes twice, InputError, StorageError.
        """
        columns, rows = check_rows(ids, vectors, attributes, self._schema)
        self._use()
        if len(rows):
            self._write(columns, rows, replace=False)

    def upsert(self, ids: Sequence[str], vectors: ArrayLike, attributes: Attributes | None = None) -> None:
        """Add rows, and replace those whose id exists (whole rows: an attribute left out becomes NULL). A replaced
        row counts as inserted now. Arguments and errors as for ``add``.
        """
        columns, rows = check_rows(ids, vectors, attributes, self._schema)
        self._use()
        if len(rows):
            self._write(columns, rows, replace=True)

    def delete(self, ids: Sequence[str] | None = None, *, where: str | None = None) -> int:
        """Delete rows by id (unknown ids are passed over) or by filter; how many there were."""
        if (ids is None) == (where is None):
            raise InputError("delete needs either ids or where, one of the two")
        if where is not None:
            tree = self._parsed(where)
            self._use()
            return self._delete_where(tree)
        wanted = list(dict.fromkeys(check_ids(ids).to_pylist()))
        self._use()
        return self._delete_ids(wanted) if wanted else 0

    # Reading

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[dict[str, Any] | None]:
        """For each id, in the order asked, its row as {"id": ..., attribute: value, ...}, or None.

        With ``vectors`` also "vector": float32 [D] (of length 1 with metric "cosine").
        """
        wanted = check_ids(ids).to_pylist()
        self._use()
        records = self._rows(list(dict.fromkeys(wanted)), vectors) if wanted else {}
        return [dict(records[identifier]) if identifier in records else None for identifier in wanted]

    def ids(self, where: str | None = None) -> list[str]:
        """The ids of all rows, or of those that match, in insertion order."""
        tree = None if where is None else self._parsed(where)
        self._use()
        return self._ids(tree)

    def count(self, where: str | None = None) -> int:
        """How many rows there are, or match."""
        tree = None if where is None else self._parsed(where)
        self._use()
        return self._count(tree)

    @overload
    def search(
        self,
        vector: Sequence[float] | NDArray[Any],
        k: int | None = 10,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        min_score: float | None = None,
        explain: bool = False,
    ) -> Hits: ...
    @overload
    def search(
        self,
        vector: Sequence[Sequence[float]],
        k: int | None = 10,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        min_score: float | None = None,
        explain: bool = False,
    ) -> list[Hits]: ...
    def search(
        self,
        vector: Any,
        k: int | None = 10,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        min_score: float | None = None,
        explain: bool = False,
    ) -> Any:
        """The k best rows among those that satisfy ``where``: exactly min(k, matches), best first.

        vector [D] gives Hits, [Q, D] a list of Q Hits. Scores are the server's float32 cosines or dot products, equal
        ones in insertion order. ``columns``: the attributes to return. ``min_score``: only hits of at least this
        score; with k=None all of them (the server ranks every match for that). ``explain`` fills ``Hits.explain`` (and
        counts the matches, which costs a request more). Raises InputError, StorageError.
        """
        began = time.perf_counter()
        queries, single = check_queries(vector, self._schema)
        depth, names = check_k_or_all(k, min_score), check_columns(columns, self._schema)
        least = None if min_score is None else check_number(min_score, "min_score")
        tree = None if where is None else self._parsed(where)
        self._use()
        results, plan = self._found(queries, _ALL if depth is None else depth, tree, names)
        if least is not None:
            results = [_cut(hits, least) for hits in results]
        if explain:
            searched = time.perf_counter()
            told: dict[str, Any] = {"rows": self._count(None), "matches": self._count(tree)}
            told |= {"search_ms": round((searched - began) * 1000, 3)}
            told |= {"total_ms": round((time.perf_counter() - began) * 1000, 3), "plan": plan}
            results = [Hits(hits.ids, hits.scores, hits.attributes, told) for hits in results]
        return results[0] if single else results

    def info(self) -> dict[str, Any]:
        """Address, engine, dim, metric, schema, rows, and what the engine tells beside them."""
        self._use()
        return {
            "address": self.address,
            "engine": self.engine,
            "dim": self.dim,
            "metric": self.metric,
            "schema": self.schema,
            "rows": self._count(None),
            "precision": self.precision,
            "nested": self.nested,
            **self._facts(),
        }

    # Parts

    def _use(self) -> None:
        if self._closed:
            raise InputError(f"collection {self.address!r} is closed: open it again")

    def _parsed(self, where: Any) -> filters.Filter:
        return self._remembered(where) if isinstance(where, str) else grammar.parse(where, self._schema.columns)

    @abstractmethod
    def _disconnect(self) -> None: ...

    @abstractmethod
    def _write(self, columns: dict[str, pa.Array], rows: NDArray[np.float32], *, replace: bool) -> None:
        """N > 0 rows with distinct ids. Without ``replace``, ConflictError where one exists, nothing written."""

    @abstractmethod
    def _delete_ids(self, ids: list[str]) -> int: ...

    @abstractmethod
    def _delete_where(self, tree: filters.Filter) -> int: ...

    @abstractmethod
    def _rows(self, ids: list[str], vectors: bool) -> Mapping[str, dict[str, Any]]:
        """Those of the rows that exist, by id: {"id": ..., attributes in the order of the schema, "vector"}."""

    @abstractmethod
    def _ids(self, tree: filters.Filter | None) -> list[str]: ...

    @abstractmethod
    def _count(self, tree: filters.Filter | None) -> int: ...

    @abstractmethod
    def _found(
        self, queries: NDArray[np.float32], k: int, tree: filters.Filter | None, names: list[str]
    ) -> tuple[list[Hits], str]:
        """Hits of each query without ``explain``, and how they were found."""

    @abstractmethod
    def _facts(self) -> dict[str, Any]: ...


def _cut(hits: Hits, least: float) -> Hits:
    """Those of at least this score; the best come first."""
    n = int(np.count_nonzero(hits.scores >= least))
    return Hits(hits.ids[:n], hits.scores[:n], hits.attributes[:n])


def check_name(name: str, address: str) -> str:
    """The name of a collection on a server, checked: it becomes a table or a part of a URL."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{address!r} names the collection {name!r}: expected a letter, then up to 47 of A-Z, a-z, 0-9, '_', '-'"
        )
    return name


def check_same(address: str, there: Schema, wanted: Schema) -> None:
    """ConflictError where a collection that exists is not the one asked for."""
    if there != wanted or list(there.attributes) != list(wanted.attributes):
        raise ConflictError(f"collection {address!r} exists with {there.told()}: they differ from what was asked for")
