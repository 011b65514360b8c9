"""Cells and graph of a collection as files beside the exact index: built, checked, opened by memory-mapping.

``derived/approximate.json`` names one generation of files with their sizes and checksums, and is replaced atomically
when they are whole, so that a reader finds the old ones or the new ones. While they are being built, what is done lies
in ``derived/building/``: a build that was interrupted goes on there. All of it can be deleted at any time.

Row numbers are those of one generation of the exact index's files; rows that came later are scanned beside.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from nextvec.extras import require
from nextvec.files import atomic_write, storage_error
from nextvec.search.calibration import Calibration, calibrate
from nextvec.search.indexes.cells import Cells, build_cells
from nextvec.search.indexes.exact import ExactIndex
from nextvec.search.indexes.graph import Graph, extend_graph, links_of, start_graph
from nextvec.search.indexes.rows import Rows
from nextvec.search.native import kernels
from nextvec.types import ConflictError, InputError, NotFoundError

FORMAT = 5
MIN_ROWS = 4_096  # fewer are scanned exactly in less time than anything else takes
_HEADER = "approximate.json"
_ARRAYS = ("means", "order", "starts", "places", "codes", "scale", "signs", "flips")
_LINKS = ("links", "upper")
_SAVE_EVERY = 60.0  # seconds of building the graph between two savings
_BLOCK = 1 << 24

Float32 = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""(what is being done, units done, units in all)."""


@dataclass(frozen=True, eq=False)
class Approximate:
    """What was built over the first ``len(cells)`` rows of the generation ``rows`` of the exact index."""

    rows: str
    name: str
    cells: Cells
    graph: Graph | None
    calibration: Calibration


class ApproximateFiles:
    """The files in ``folder`` (``derived``) for D dimensions."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder
        self.dim = dim
        self._header = str(folder / _HEADER)

    def stamp(self) -> tuple[int, int] | None:
        """Changes when another index is published; None where there is none."""
        try:
            state = os.stat(self._header)  # noqa: PTH116 - at every search, and a path object takes ten times as long
        except OSError:
            return None
        return state.st_mtime_ns, state.st_ino

    def open(self, rows: Rows, known: Approximate | None = None) -> Approximate | None:
        """What was built over these rows; None where nothing was, or where it is damaged or of another generation.

        Where ``known`` is still the newest, its files are not read again."""
        try:
            header = json.loads((self.folder / _HEADER).read_bytes())
            name, files = str(header["name"]), dict(header["files"])
            if header["format"] != FORMAT or header["rows"] != rows.name or header["count"] > len(rows):
                return None
            calibration = Calibration.from_json(header["calibration"])
            if known is not None and known.name == name:
                return replace(known, calibration=calibration)
            arrays = {part: self._array(name, part, files) for part in _ARRAYS}
            cells = Cells(**arrays)
            count, dim = cells.codes.shape
            if dim != self.dim or not count == header["count"] == len(cells.order) == len(cells.places):
                return None
            graph = self._graph(name, files, header["entry"])
            if kernels is not None and cells.native is not None and graph is not None and len(graph) != count:
                return None
            return Approximate(rows.name, name, cells, graph, calibration)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            return None

    def _array(self, name: str, part: str, files: dict[str, Any]) -> Any:
        path = self._path(f"{name}.{part}.npy")
        _check(path, files[part])
        # A plain array over the map: np.memmap's own bookkeeping costs microseconds at every slice.
        return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)

    def _graph(self, name: str, files: dict[str, Any], entry: int) -> Graph | None:
        if "links" not in files or kernels is None:
            return None
        links, upper = (self._array(name, part, files) for part in _LINKS)
        graph = Graph(links, upper, int(entry))
        return graph if graph.native is not None else None

    def build(
        self,
        exact: ExactIndex,
        *,
        metric: str,
        graph: bool,
        queries: Float32 | None = None,
        progress: Progress | None = None,
    ) -> Approximate:
        """Make and publish files for all rows of ``exact``, or go on with what an interrupted build has left.
        queries: to calibrate with.

        Raises InputError (too few rows, rows that no file holds), ConflictError (another process is building),
        MissingExtraError (faiss), StorageError.
        """
        rows, say = exact.rows, progress or (lambda *_: None)
        if len(rows) < MIN_ROWS:
            raise InputError(
                f"{len(rows)} rows: an index pays from {MIN_ROWS} rows, fewer are searched exactly in less time"
            )
        if not rows.name.startswith("exact-"):
            raise InputError("the collection's folder cannot be written, so that an index cannot be kept there")
        require("faiss", why="building an index")
        with self._alone():
            return self._build(exact, metric, graph, queries, say)

    def calibrate(self, exact: ExactIndex, queries: Float32) -> Approximate:
        """Measure anew what the present index needs, on these queries, and publish that.

        Raises NotFoundError (there is none), ConflictError, StorageError."""
        with self._alone():
            near = self.open(exact.rows)
            if near is None:
                raise NotFoundError("there is no index over the present rows to calibrate: call index() first")
            calibration = calibrate(exact, near.cells, near.graph, queries=queries)
            header = json.loads((self.folder / _HEADER).read_bytes())
            with atomic_write(self.folder / _HEADER, "w") as stream:
                json.dump({**header, "calibration": calibration.to_json()}, stream)
            return replace(near, calibration=calibration)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process builds meanwhile. Errors of the disk as one line."""
        try:
            with FileLock(self.folder / "approximate.lock", timeout=0):
                yield
        except Timeout as error:
            raise ConflictError(
                f"another process is building the index in {str(self.folder)!r}: wait for it"
            ) from error
        except OSError as error:
            raise storage_error(error, self.folder) from error

    def _build(
        self, exact: ExactIndex, metric: str, graph: bool, queries: Float32 | None, say: Progress
    ) -> Approximate:
        rows = exact.rows
        work = self._work(rows, graph)
        cells = self._cells(work, rows, metric, say)
        built = self._grown(work, rows, say) if graph else None
        say("calibrating", 0, 1)
        calibration = calibrate(exact, cells, built if kernels is not None else None, queries=queries)
        say("calibrating", 1, 1)
        name = f"approximate-{secrets.token_hex(4)}"
        files = {}
        if built is not None:
            _keep(work, built, _LINKS)
        for part in [*_ARRAYS, *(_LINKS if built is not None else ())]:
            path = self._path(f"{name}.{part}.npy")
            (work / f"{part}.npy").replace(path)
            files[part] = {"bytes": path.stat().st_size, "crc": _crc(path)}
        header = {
            "format": FORMAT,
            "rows": rows.name,
            "count": len(rows),
            "name": name,
            "files": files,
            "entry": 0 if built is None else built.entry,
            "calibration": calibration.to_json(),
        }
        with atomic_write(self.folder / _HEADER, "w") as stream:
            json.dump(header, stream)
        shutil.rmtree(work, ignore_errors=True)
        for path in self.folder.glob("approximate-*.*"):
            if not path.name.startswith(f"{name}."):
                with contextlib.suppress(OSError):
                    path.unlink()
        opened = self.open(rows)
        if opened is None:
            raise OSError(f"the index in {str(self.folder)!r} could not be read back")
        return opened

    def _work(self, rows: Rows, graph: bool) -> Path:
        """The folder of the build; emptied where it holds parts for other rows."""
        work = self.folder / "building"
        wanted = {"format": FORMAT, "rows": rows.name, "count": len(rows), "graph": graph}
        try:
            same = json.loads((work / "build.json").read_bytes()) == wanted
        except (OSError, ValueError):
            same = False
        if not same:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            with atomic_write(work / "build.json", "w") as stream:
                json.dump(wanted, stream)
        return work

    def _cells(self, work: Path, rows: Rows, metric: str, say: Progress) -> Cells:
        try:
            arrays = {part: np.load(work / f"{part}.npy", allow_pickle=False) for part in _ARRAYS}
            return Cells(**arrays)
        except (OSError, ValueError):
            made = build_cells(rows, metric=metric, progress=functools.partial(say, "cells"))
        _keep(work, made, _ARRAYS)
        return made

    def _grown(self, work: Path, rows: Rows, say: Progress) -> Graph:
        faiss = require("faiss", why="an approximate index")

        path = work / "graph"
        try:
            graph = faiss.read_index(str(path))
        except RuntimeError:
            graph = start_graph(rows)
        saved = time.monotonic()

        def after(done: int) -> None:
            nonlocal saved
            say("graph", done, len(rows))
            if time.monotonic() - saved > _SAVE_EVERY:
                _save(graph, path)
                saved = time.monotonic()

        try:
            extend_graph(graph, rows, after)
        finally:
            _save(graph, path)  # what an interruption leaves is kept
        return links_of(graph)

    def _path(self, name: str) -> Path:
        if Path(name).name != name:
            raise ValueError(f"unsafe name {name!r}")
        return self.folder / name


def _keep(folder: Path, made: Cells | Graph, parts: tuple[str, ...]) -> None:
    for part in parts:
        with atomic_write(folder / f"{part}.npy") as stream:
            np.save(stream, getattr(made, part), allow_pickle=False)


def _save(graph: Any, path: Path) -> None:
    faiss = require("faiss", why="an approximate index")

    part = path.with_suffix(".part")
    faiss.write_index(graph, str(part))
    part.replace(path)


def _check(path: Path, told: dict[str, Any]) -> None:
    if path.stat().st_size != told["bytes"] or _crc(path) != told["crc"]:
        raise ValueError(f"{path.name} is not what was written")


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
