"""What the word index is made of: parts of up to 65,536 papers, each in files that never change, and a header.

home/words/index.json          names the parts, with sizes, checksums and which of their papers are gone; replaced whole
home/words/NAME.papers         digest and id of each paper of a part
home/words/NAME-FIELD.postings its words (``nextvec.search.postings``)

Papers that come go into a new part, which takes in the smaller ones at the end; of a paper that changes or goes, its
row is marked. So there are few parts, each some times the size of the next, and a paper is written again only a few
times. Who opened a part keeps it, whatever the header says later.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.files import atomic_write
from nextvec.search.postings import SEGMENT_ROWS, Builder, Segment, merged
from nextvec.search.words import RULES

__all__ = ["FIELDS", "Gone", "Part", "Row", "digest", "forget", "parts_of", "read", "texts_of", "tidied", "write"]

FIELDS = {"title": 2.0, "summary": 1.0, "names": 1.0}
"""Weights: a word in the title counts twice. Each field has its own BM25, with its own lengths."""

Row = tuple[str, str, str, Sequence[str], str | None]
"""A paper as it is indexed: id, title, summary, authors, organisation."""
Gone = NDArray[np.bool_]
"""bool [N]: which rows of a part do not count any more."""

_FORMAT = "3"
_SMALLER = 4
"""The last part is written again with the new one where it is not more than so many times as large."""
_TRIES = 5


@dataclass(frozen=True, eq=False)
class Part:
    """N papers: ``ids``, ``digests`` of their texts (uint64 [N]), postings by field. ``name`` is that of its files."""

    name: str
    ids: list[str]
    digests: NDArray[np.uint64]
    fields: Mapping[str, Segment]

    def __len__(self) -> int:
        return len(self.ids)


def texts_of(row: Row) -> dict[str, str]:
    """What is indexed of a paper, by field."""
    _, title, summary, authors, organization = row
    return {"title": title, "summary": summary, "names": " ".join([*authors, organization or ""])}


def digest(row: Row) -> int:
    """64 bits that change with any of its texts."""
    text = "\x1f".join(texts_of(row).values())
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def parts_of(rows: Iterable[Row]) -> Iterator[Part]:
    """New parts that hold ``rows``."""
    every = iter(rows)
    while some := list(itertools.islice(every, 1)):
        ids: list[str] = []
        digests: list[int] = []
        builders = {field: Builder() for field in FIELDS}
        made: dict[str, Segment] = {}
        for row in itertools.chain(some, every):
            for field, text in texts_of(row).items():
                segment = builders[field].add(len(ids), text)
                if segment is not None:
                    made[field] = segment
            ids.append(row[0])
            digests.append(digest(row))
            if made:
                break
        for field in FIELDS:
            rest = builders[field].rest()
            if rest is not None:
                made[field] = rest
        yield _part(ids, np.array(digests, np.uint64), made)


def _part(ids: list[str], digests: NDArray[np.uint64], fields: Mapping[str, Segment]) -> Part:
    return Part(secrets.token_hex(6), ids, digests, fields)


def tidied(parts: Sequence[Part], gone: Sequence[Gone]) -> tuple[list[Part], list[Gone]]:
    """The same papers in few parts: none that is mostly gone, and the last ones together."""
    held = [
        _together([(part, dead)]) if 2 * np.count_nonzero(dead) > len(part) else (part, dead)
        for part, dead in zip(parts, gone, strict=True)
    ]
    held = [(part, dead) for part, dead in held if len(part)]
    begin = len(held) - 1
    size = _living(*held[-1]) if held else 0
    while begin > 0:
        before = _living(*held[begin - 1])
        if before > _SMALLER * size or before + size > SEGMENT_ROWS:
            break
        size += before
        begin -= 1
    if begin < len(held) - 1:
        held[begin:] = [_together(held[begin:])]
    return [part for part, _ in held], [dead for _, dead in held]


def _living(part: Part, gone: Gone) -> int:
    return len(part) - int(np.count_nonzero(gone))


def _together(some: Sequence[tuple[Part, Gone]]) -> tuple[Part, Gone]:
    """One part of those papers that are not gone."""
    ids = [name for part, gone in some for name in itertools.compress(part.ids, (~gone).tolist())]
    digests = np.concatenate([part.digests[~gone] for part, gone in some])
    fields = {field: merged([(part.fields[field], ~gone) for part, gone in some]) for field in FIELDS}
    return _part(ids, digests, fields), np.zeros(len(ids), bool)


# -- on disk -------------------------------------------------------------------------------------------------------
def write(folder: Path, stamp: str, parts: Sequence[Part], gone: Sequence[Gone]) -> None:
    """Write the parts that are not there, then the header, then let go of what it does not name. OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        known = {one["name"]: one for one in _header(folder)["parts"]}
    except (OSError, ValueError, KeyError, TypeError):
        known = {}
    entries = []
    for part, dead in zip(parts, gone, strict=True):
        there = part.name in known and all(path.is_file() for path in _files(folder, part.name))
        entry = known[part.name] if there else _written(folder, part)
        entries.append(entry | {"gone": np.flatnonzero(dead).tolist()})
    header = {"format": _FORMAT, "rules": RULES, "stamp": stamp, "parts": entries}
    with atomic_write(folder / "index.json", "w") as out:
        json.dump(header, out)
    forget(folder, {part.name for part in parts})


def forget(folder: Path, names: Iterable[str]) -> None:
    """Remove the files of all parts but these."""
    kept = {path for name in names for path in _files(folder, name)}
    for path in [*folder.glob("*.papers"), *folder.glob("*.postings")]:
        if path not in kept:
            with contextlib.suppress(OSError):
                path.unlink()


def _files(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.papers", *(folder / f"{name}-{field}.postings" for field in FIELDS)]


def _written(folder: Path, part: Part) -> dict[str, Any]:
    papers, *postings = _files(folder, part.name)
    names = part.digests.astype("<u8").tobytes() + "\n".join(part.ids).encode()
    papers.write_bytes(names)
    entry: dict[str, Any] = {"name": part.name, "papers": [len(part), zlib.crc32(names)], "fields": {}}
    for field, path in zip(FIELDS, postings, strict=True):
        with path.open("wb") as stream:
            crc = part.fields[field].write(stream)
        entry["fields"][field] = [part.fields[field].shape, crc]
    return entry


def _header(folder: Path) -> dict[str, Any]:
    header: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    if (header["format"], header["rules"]) != (_FORMAT, RULES):
        raise ValueError("another format")
    return header


def read(folder: Path, known: Sequence[Part]) -> tuple[str, list[Part], list[Gone]]:
    """(stamp, parts, what is gone of each) as ``write`` wrote them; those that are among ``known`` are not read again.

    ValueError, KeyError, TypeError for what is damaged, OSError for what cannot be read.
    """
    opened = {part.name: part for part in known}
    for _ in range(_TRIES):
        header = _header(folder)
        try:
            parts = [opened.get(one["name"]) or _opened(folder, one) for one in header["parts"]]
            break
        except FileNotFoundError:
            if header == _header(folder):
                raise
            # Written again between the header and its files: the new header names others.
    else:
        raise OSError("it is written faster than it can be read")
    gone = [np.zeros(len(part), bool) for part in parts]
    for one, dead in zip(header["parts"], gone, strict=True):
        places = np.array(one["gone"], np.int64)
        if len(places) and not 0 <= places.min() <= places.max() < len(dead):
            raise ValueError("a paper is gone that is not there")
        dead[places] = True
    return str(header["stamp"]), parts, gone


def _opened(folder: Path, entry: Mapping[str, Any]) -> Part:
    name = str(entry["name"])
    if not name.isalnum():
        raise ValueError("impossible name of a part")
    papers, *postings = _files(folder, name)
    size, crc = entry["papers"]
    names = papers.read_bytes()
    if zlib.crc32(names) != crc or not 0 <= size <= len(names) // 8:
        raise ValueError("not what was written")
    ids = names[8 * size :].decode().split("\n") if size else []
    fields = {field: Segment.open(path, *entry["fields"][field]) for field, path in zip(FIELDS, postings, strict=True)}
    if {len(ids), *map(len, fields.values())} != {size}:
        raise ValueError("parts of different size")
    return Part(name, ids, np.frombuffer(names, "<u8", size), fields)
