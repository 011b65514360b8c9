"""What an engine is to the benchmark. Legend: N rows, D dimensions, Q queries of one call."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextvec.extras import available
from nextvec.search import filters, where

__all__ = ["Engine", "Found", "Setting", "Unsupported", "lists"]

Found = Sequence[Sequence[Any] | NDArray[Any]]
"""Of each query the ids of its hits, as the engine gives them: what `int` reads as row numbers."""
"""The row numbers of each query's hits, best first: at most k, fewer where fewer match."""


class Unsupported(Exception):
    """The engine cannot express this filter; its cell is left out with the reason."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of a sweep. series: what is drawn as one curve and is one row of the table; values: the knobs;
    ready: what the filter matches is known before the clock starts."""

    series: str
    values: Mapping[str, Any] = field(default_factory=dict)
    ready: bool = False

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.values.items()) or "exact"


class Engine(ABC):
    """An index in ``folder`` that outlives the process: ``build`` makes it, ``open`` gets it ready to be searched.

    modules: what must be installed (the first gives the version); extra: the nextvec extra that holds them. exact: no
    knob changes what is found. batch: one call answers many queries under one filter (otherwise no batch is measured).
    note: what a reader of the table must know.
    """

    modules: ClassVar[tuple[str, ...]]
    package: ClassVar[str]
    exact: ClassVar[bool] = False
    batch: ClassVar[bool] = True
    note: ClassVar[str] = ""
    counts_memory: ClassVar[bool] = True

    def __init__(self, folder: Path, schema: Mapping[str, str], *, threads: int = 1) -> None:
        self.folder, self.schema, self.threads = folder, dict(schema), threads

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run here, or None."""
        absent = [name for name in cls.modules if not available(name)]
        return f"{absent[0]!r} is not installed: pip install 'nextvec[bench]'" if absent else None

    @classmethod
    def version(cls) -> str:
        """The installed version of its package."""
        return importlib.metadata.version(cls.package)

    @abstractmethod
    def build(self, vectors: NDArray[np.float32], attributes: pa.Table) -> None:
        """Make the index of vectors [N, D] (of length 1) and their attributes in ``folder``, ready for ``open``."""

    @abstractmethod
    def open(self, attributes: pa.Table) -> None:
        """Get ready to search. attributes: for engines that keep none of their own."""

    @abstractmethod
    def settings(self, k: int) -> list[Setting]:
        """The sweep, within each series from fast to accurate."""

    def prepare(self, text: str | None, setting: Setting) -> Any:
        """The filter as a user of this engine writes it down: made off the clock. None: all rows.

        What it costs to find the matches belongs into ``search``. Raises Unsupported.
        """
        return None if text is None else self.parsed(text)

    @abstractmethod
    def search(self, queries: NDArray[np.float32], k: int, prepared: Any, setting: Setting) -> Found:
        """Answer queries [Q, D] under one filter: what is on the clock. Ids are read as row numbers off it."""

    def close(self) -> None:
        """Let go of files and servers."""
        return

    def disk(self) -> int:
        """Bytes that the files in ``folder`` take on the disk; what was only promised to them does not count."""
        files = (path.stat() for path in self.folder.rglob("*") if path.is_file())
        return sum(min(file.st_size, getattr(file, "st_blocks", file.st_size) * 512) for file in files)

    def parsed(self, text: str) -> filters.Filter:
        """The filter as a typed tree."""
        return where.parse(text, {"id": "string", **self.schema})


def lists(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Rows [Q, k] that are -1 where nothing was found, as lists of what was found."""
    return [row[row >= 0] for row in rows]
