"""What a source is: records in batches, each with the place to go on from after it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

from nextvec.papers.records import Paper, parse_record
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.ids import names_of_id
from nextvec.types import InputError, NextvecError, did_you_mean

__all__ = [
    "Batch",
    "ExpiredCursorError",
    "Record",
    "Request",
    "Source",
    "content",
    "only_file",
    "open_source",
    "read_content",
    "source_names",
    "to_records",
]

BATCH = 1_000
_MOMENTS = ("published_at", "listed_at")


class ExpiredCursorError(NextvecError):
    """The place to go on from is not known to the source any more: begin again."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a source says of one paper. ``key`` is its own name for it; ``names`` as ``ids.names`` writes them;
    ``details``: what the site shows but does not search (venue, doi, categories)."""

    key: str
    paper: Paper
    names: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """``deleted``: keys that the source has withdrawn. ``cursor``: where to go on after this batch (None: the end).
    ``total``: how many records there are in all, where that is known. ``refused``: (record, why) that were left out."""

    records: list[Record]
    deleted: tuple[str, ...] = ()
    cursor: str | None = None
    total: int | None = None
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to take from a source; each source says which parts it knows. Days are UTC, both included."""

    file: Path | None = None
    address: str | None = None
    start: date | None = None
    until: date | None = None
    set: str | None = None
    prefix: str | None = None
    query: str | None = None
    ids: tuple[str, ...] = ()
    limit: int | None = None

    def scope(self) -> str:
        """One line that is the same for the same request, whatever day it is."""
        parts = {name: getattr(self, name) for name in ("address", "start", "until", "set", "prefix", "query")}
        words = [f"{name}={value}" for name, value in parts.items() if value is not None]
        return " ".join([*words, *([f"ids={','.join(self.ids)}"] if self.ids else [])])[:500] or "all"

    def refuse(self, source: str, *known: str) -> None:
        """InputError where something is asked for that ``source`` does not have."""
        given = [name for name in ("file", "start", "until", "set", "prefix", "query", "ids") if getattr(self, name)]
        words = {"start": "--from", "until": "--until", "file": "a FILE"}
        for name in given:
            if name not in known:
                raise InputError(
                    f"source {source!r} has no {words.get(name, f'--{name}')}; it takes "
                    f"{', '.join(words.get(one, f'--{one}') for one in known) or 'nothing further'}"
                )


class Source(Protocol):
    """One place that papers come from."""

    name: str
    about: str
    """One line for the list of sources."""
    hosts: tuple[str, ...]
    """The only hosts it may ask; none: it reads files."""
    incremental: bool
    """Whether a request without a first day goes on where the last finished one ended."""

    def batches(self, request: Request, fetcher: Fetcher, cursor: str | None) -> Iterator[Batch]:
        """What ``request`` asks for, from ``cursor`` on. InputError for what it cannot be asked for; OfflineError where
        the place cannot be reached; ExpiredCursorError."""
        ...


def source_names() -> list[str]:
    """The names of all sources."""
    from nextvec import catalog

    return catalog.names("nextvec.papers.sources.origins")


def open_source(name: str) -> Source:
    """The source of this name. InputError with the names there are."""
    from nextvec import catalog

    known = source_names()
    if name not in known:
        raise InputError(f"source {name!r} is not known; known: {', '.join(known)}{did_you_mean(name, known)}")
    source: Source = catalog.load("nextvec.papers.sources.origins", name).SOURCE
    return source


def only_file(source: str, request: Request) -> Path:
    """The file of a source that reads nothing else."""
    request.refuse(source, "file")
    if request.file is None:
        raise InputError(f"source {source!r} reads files: `nextvec papers ingest FILE --source {source}`")
    return request.file


def to_records(
    rows: Iterable[tuple[str, Mapping[str, Any], tuple[str, ...], Mapping[str, str]]],
) -> tuple[list[Record], tuple[str, ...]]:
    """(records, why others were refused) from (key, fields as ``parse_record`` takes them, names, details)."""
    found, refused = [], []
    for key, fields, names, details in rows:
        try:
            paper = parse_record({name: value for name, value in fields.items() if value is not None}, where=key)
        except InputError as error:
            refused.append(str(error))
            continue
        found.append(Record(key, paper, names or names_of_id(paper.id), details))
    return found, tuple(refused)


def content(record: Record) -> dict[str, Any]:
    """A record as JSON keeps it; what is empty is left out."""
    paper = record.paper
    values: dict[str, Any] = {}
    for name in Paper.__slots__:
        value = getattr(paper, name)
        if value not in (None, "", (), 0) or name in ("id", "title", "summary"):
            values[name] = value.isoformat() if isinstance(value, date) else value
    values["authors"] = list(paper.authors)
    return {"paper": values, "names": list(record.names), "details": dict(record.details)}


def read_content(key: str, stored: Any) -> Record:
    """The record that ``content`` wrote."""
    document = json.loads(stored) if isinstance(stored, str) else stored
    values = dict(document["paper"])
    for name in _MOMENTS:
        if values.get(name):
            values[name] = datetime.fromisoformat(values[name])
    if values.get("daily_date"):
        values["daily_date"] = date.fromisoformat(values["daily_date"])
    values["authors"] = tuple(values["authors"])
    values["categories"] = tuple(values.get("categories", ()))
    return Record(key, Paper(**values), tuple(document["names"]), document["details"])


def cut(batch: Batch, left: int) -> Batch:
    """``batch`` with at most ``left`` records; a cut one has no cursor, so that the next run reads it again."""
    return batch if len(batch.records) <= left else replace(batch, records=batch.records[:left], cursor=None)
