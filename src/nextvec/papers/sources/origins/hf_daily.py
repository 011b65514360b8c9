"""Hugging Face Daily Papers: the listing of a day from the Hub, or files of it (as the Hub writes them, or flat)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from nextvec.papers.records import FIELDS
from nextvec.papers.sources.base import BATCH, Batch, Record, Request, to_records
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.ids import arxiv_id, names
from nextvec.types import InputError

__all__ = ["SOURCE", "HfDaily"]

API = "https://huggingface.co/api/daily_papers"
_PER_DAY = 100
_MOST_DAYS = 400
_LARGEST = 64 << 20


class HfDaily:
    """``--from`` and ``--until`` (default: today), or a file."""

    name = "hf_daily"
    about = "Hugging Face Daily Papers by day (--from, --until), or a file of them"
    hosts: tuple[str, ...] = ("huggingface.co",)
    incremental = True

    def batches(self, request: Request, fetcher: Fetcher, cursor: str | None) -> Iterator[Batch]:
        if request.file is not None:
            request.refuse(self.name, "file")
            return _from_file(request.file)
        request.refuse(self.name, "start", "until")
        return _by_day(request, fetcher, cursor)


SOURCE = HfDaily()


def _by_day(request: Request, fetcher: Fetcher, cursor: str | None) -> Iterator[Batch]:
    until = request.until or datetime.now(UTC).date()
    first = request.start or until
    days = (until - first).days + 1
    if not 1 <= days <= _MOST_DAYS:
        raise InputError(f"from {first} to {until} are {days} days; expected 1 to {_MOST_DAYS}")
    day = date.fromisoformat(cursor) if cursor else first
    while day <= until:
        url = f"{request.address or API}?date={day.isoformat()}&limit={_PER_DAY}"
        body = fetcher.get(url, types=("application/json",))
        try:
            listed = json.loads(body)
        except (ValueError, RecursionError):
            raise InputError(f"the daily papers of {day} are no JSON, or were cut off") from None
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise InputError(f"the daily papers of {day} are no list of papers")
        records, refused = _records((f"{day}: paper {i}", entry) for i, entry in enumerate(listed, start=1))
        day += timedelta(days=1)
        yield Batch(records, cursor=day.isoformat() if day <= until else None, total=None, refused=refused)


def _from_file(path: Path) -> Iterator[Batch]:
    from nextvec.data.readers import batched, read_located

    if path.suffix == ".json" and path.is_file():
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path.name} has more than {_LARGEST:,} bytes: write it as JSON lines")
        try:
            listed = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            raise InputError(f"{path.name}: not JSON, or cut off") from None
        entries = listed if isinstance(listed, list) else [listed]
        if not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{path.name}: expected a list of papers")
        located: Iterable[tuple[str, Mapping[str, Any]]] = (
            (f"{path.name}: paper {i}", entry) for i, entry in enumerate(entries, start=1)
        )
    else:
        located = read_located(path)
    for part in batched(located, BATCH):
        records, refused = _records(part)
        yield Batch(records, refused=refused)


def _records(located: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[list[Record], tuple[str, ...]]:
    rows: list[tuple[str, dict[str, Any], tuple[str, ...], dict[str, str]]] = []
    refused: list[str] = []
    for where, entry in located:
        fields = _nested(entry) if isinstance(entry.get("paper"), dict) else dict(entry)
        identifier = arxiv_id(str(fields.get("id") or ""))
        if identifier is None:
            refused.append(f"{where}: {str(fields.get('id'))[:60]!r} is no arXiv id")
            continue
        kept = {name: fields[name] for name in FIELDS if fields.get(name) is not None}
        rows.append((identifier, kept | {"id": identifier, "source": "daily_papers"}, names(arxiv=identifier), {}))
    records, more = to_records(rows)
    return records, (*refused, *more)


def _nested(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the Hub's list as flat fields."""
    paper: Mapping[str, Any] = entry["paper"]
    listed = paper.get("submittedOnDailyAt") or entry.get("submittedOnDailyAt")
    authors = [one.get("name") for one in paper.get("authors") or [] if isinstance(one, dict) and not one.get("hidden")]
    return {
        "id": paper.get("id"),
        "title": paper.get("title") or entry.get("title"),
        "summary": paper.get("summary") or entry.get("summary"),
        "authors": [name for name in authors if isinstance(name, str)],
        "upvotes": paper.get("upvotes"),
        "num_comments": entry.get("numComments"),
        "publishedAt": paper.get("publishedAt") or entry.get("publishedAt"),
        "submittedOnDailyAt": listed,
        "daily_date": str(listed)[:10] if listed else None,
        "submitted_by": _called(entry.get("submittedBy") or paper.get("submittedOnDailyBy")),
        "organization": _called(paper.get("organization") or entry.get("organization")),
        "githubRepo": paper.get("githubRepo"),
        "githubStars": paper.get("githubStars"),
        "projectPage": paper.get("projectPage"),
    }


def _called(someone: Any) -> str | None:
    """What an account or organisation is called."""
    if not isinstance(someone, dict):
        return None
    name = someone.get("fullname") or someone.get("name") or someone.get("user")
    return name if isinstance(name, str) else None
