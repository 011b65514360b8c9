"""The catalogue of data sets: what they are, under which licence, where they come from and where they lie here.

The catalogue itself is ``catalog.yaml`` beside this file. A set is looked for in three places: the package (bundled
sets), ``$NEXTVEC_DATA/<group>/<name>/``, and ``<cache>/data/<group>/<name>/``, where ``fetch`` puts it.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nextvec.data.download import download
from nextvec.files import cache_home, inside, sha256
from nextvec.types import NotFoundError, OfflineError, Progress, StorageError, did_you_mean

__all__ = ["DataFile", "DataSet", "dataset", "datasets", "fetch", "find", "locate", "verify"]

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a set: its path below the set's folder, size in bytes, SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One entry of the catalogue. ``redistribute`` is "yes", "attribution", "share-alike" or "no" (local use only).

    ``upstream`` is the folder of the source repository that the files lie in, unchanged; ``at_root`` names files at
    its top. ``made`` says how the files were derived where they are not the repository's own: such a set
    has no public address. ``address`` replaces the repository as the place to fetch from.
    """

    name: str
    group: str
    title: str
    rows: int
    unit: str
    licence: str
    redistribute: str
    source: str
    files: tuple[DataFile, ...]
    commit: str | None = None
    upstream: str | None = None
    at_root: tuple[str, ...] = ()
    made: str | None = None
    bundled: bool = False
    address: str | None = None

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def home(self) -> str | None:
        """The page of the source repository at the catalogued commit."""
        return f"https://github.com/{self.source}/tree/{self.commit}" if self.commit else None

    def url(self, file: DataFile) -> str | None:
        """Where ``file`` can be fetched, or None where it is a derived file without a public address."""
        if self.address is not None:
            return self.address + quote(file.path)
        if self.upstream is None or self.commit is None:
            return None
        folder = "" if file.path in self.at_root else self.upstream
        return f"https://github.com/{self.source}/raw/{self.commit}/{quote(folder + file.path)}"


@functools.cache
def datasets() -> dict[str, DataSet]:
    """All data sets by name, in catalogue order."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = yaml.load((_HERE / "catalog.yaml").read_text(encoding="utf-8"), loader)
    return {name: _entry(name, fields) for name, fields in entries.items()}


def _entry(name: str, fields: dict[str, Any]) -> DataSet:
    files = tuple(DataFile(path, **facts) for path, facts in fields.pop("files").items())
    at_root = tuple(fields.pop("at_root", ()))
    return DataSet(name=name, files=files, at_root=at_root, **fields)


def dataset(name: str) -> DataSet:
    """The set called ``name``; NotFoundError (with a guess) where there is none."""
    known = datasets()
    if name not in known:
        raise NotFoundError(
            f"no data set is called {name!r}{did_you_mean(name, known)} ('nextvec data list' shows them all)"
        )
    return known[name]


def _places(entry: DataSet) -> list[tuple[str, Path]]:
    places = [("bundled", _HERE / "bundled")] if entry.bundled else []
    home = os.environ.get("NEXTVEC_DATA")
    if home:
        places.append(("NEXTVEC_DATA", Path(home).expanduser() / entry.group / entry.name))
    return [*places, ("cache", cache_home() / "data" / entry.group / entry.name)]


def _complete(entry: DataSet, folder: Path) -> bool:
    """Whether every file is there with the right size (contents are for ``verify``)."""
    try:
        return all((folder / file.path).stat().st_size == file.bytes for file in entry.files)
    except OSError:
        return False


def find(name: str) -> tuple[str, Path] | None:
    """("bundled" | "NEXTVEC_DATA" | "cache", folder) of the first place that holds the whole set, else None."""
    entry = dataset(name)
    return next(((place, folder) for place, folder in _places(entry) if _complete(entry, folder)), None)


def locate(name: str) -> Path:
    """The folder that holds the set's files. NotFoundError, with what to do, where it is nowhere here."""
    found = find(name)
    if found is None:
        entry = dataset(name)
        what = f"run 'nextvec data fetch {name}'" if entry.url(entry.files[0]) else _by_hand(entry)
        raise NotFoundError(f"data set {name!r} is not on this machine: {what}")
    return found[1]


def _by_hand(entry: DataSet) -> str:
    return (
        f"it has no public address ({entry.made or 'derived files'}); put {entry.files[0].path!r} into "
        f"$NEXTVEC_DATA/{entry.group}/{entry.name}/ and set NEXTVEC_DATA"
    )


def verify(name: str, *, progress: Progress | None = None) -> Path:
    """``locate`` and compare every file's SHA-256; StorageError for the first that differs. Progress in bytes."""
    entry, folder = dataset(name), locate(name)
    done = 0
    for file in entry.files:
        got = sha256(folder / file.path)
        if got != file.sha256:
            raise StorageError(
                f"{str(folder / file.path)!r} is not the catalogued file: SHA-256 {got[:16]}..., expected "
                f"{file.sha256[:16]}...; remove it and fetch it again"
            )
        done += file.bytes
        if progress is not None:
            progress(done, entry.bytes)
    return folder


def fetch(name: str, *, to: Path | None = None, progress: Progress | None = None) -> Path:
    """The folder of the set, fetched from its source where it is nowhere here. Progress in bytes.

    ``to`` is a folder that gets ``<group>/<name>/`` (usable as $NEXTVEC_DATA); default: the cache. Every file is
    verified by SHA-256 before it appears; an interrupted fetch goes on where it stopped. Raises OfflineError (with
    where to put the files instead), NotFoundError (the source lacks it), InputError (wrong contents), StorageError.
    """
    entry = dataset(name)
    found = find(name)
    if found is not None and to is None:
        return found[1]
    folder = (to if to is not None else cache_home() / "data") / entry.group / entry.name
    if entry.url(entry.files[0]) is None:
        raise OfflineError(f"data set {name!r} cannot be fetched: {_by_hand(entry)}")
    hint = f"put the files of {entry.home or entry.source} into $NEXTVEC_DATA/{entry.group}/{entry.name}/ instead"
    done = 0
    for file in entry.files:
        url = entry.url(file)
        assert url is not None  # the same for all files of a set
        base = done

        def report(part: int, _: int | None, base: int = base) -> None:
            if progress is not None:
                progress(base + part, entry.bytes)

        download(url, inside(folder, file.path), size=file.bytes, sha256=file.sha256, hint=hint, progress=report)
        done += file.bytes
    return folder
