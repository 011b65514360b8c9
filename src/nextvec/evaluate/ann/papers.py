"""Research papers with the attributes that they really have, from the catalogued sets."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from nextvec.data.bundled import daily_papers
from nextvec.data.catalog import dataset, locate
from nextvec.data.readers import read_records
from nextvec.data.titles import FIRST_ACL_YEAR, title_key
from nextvec.search.inputs import attribute_table
from nextvec.search.schema import check_schema

__all__ = ["SCHEMA", "read_papers"]

SCHEMA = {
    "year": "int",
    "listed": "date",
    "venue": "string",
    "topics": "list[string]",
    "authors": "int",
    "votes": "int",
    "has_code": "bool",
}
_MIN_ABSTRACT = 200  # characters


def read_papers(*, each: int | None = None) -> tuple[list[str], list[str], pa.Table, dict[str, str]]:
    """(titles, abstracts, attributes, schema), a paper once per title: Daily Papers first, for they know the most.

    each: at most so many records of each set, the first ones.
    """
    titles: list[str] = []
    texts: list[str] = []
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for one in (_daily, _arxiv, _acl):
        for title, text, row in itertools.islice(one(), each):
            title, text = " ".join(title.split()), " ".join(text.split())
            key = title_key(title)
            if len(text) >= _MIN_ABSTRACT and key and key not in seen:
                seen.add(key)
                titles.append(title)
                texts.append(text)
                rows.append(row)
    schema = check_schema(1, "cosine", SCHEMA)
    return titles, texts, pa.table(attribute_table(rows, schema, len(rows))), dict(SCHEMA)


_Row = tuple[str, str, dict[str, Any]]


def _records(name: str) -> Iterator[dict[str, Any]]:
    folder = locate(name)
    for file in dataset(name).files:
        yield from read_records(folder / file.path)


def _daily() -> Iterator[_Row]:
    for record in daily_papers().to_pylist():
        if record["source"] == "daily_papers":
            day = record["daily_date"]
            yield (
                record["title"],
                record["summary"],
                {
                    "year": record["publishedAt"].year,
                    "listed": day,
                    "venue": "daily",
                    "authors": len(record["authors"]),
                    "votes": record["upvotes"],
                    "has_code": record["githubRepo"] is not None,
                },
            )


def _arxiv() -> Iterator[_Row]:
    for record in _records("arxiv_daily"):
        day = dt.date.fromisoformat(str(record["first_listed"])[:10])
        yield (
            record["title"],
            record["summary"],
            {
                "year": day.year,
                "listed": day,
                "venue": "arxiv",
                "topics": record["categories"],
                "authors": len(record["authors"]),
            },
        )


def _acl() -> Iterator[_Row]:
    for record in _records("acl_anthology_2025"):
        year = int(record["year"])
        if year >= FIRST_ACL_YEAR and record.get("abstract"):
            venues = [str(venue) for venue in record.get("venues") or []]
            row = {"year": year, "venue": venues[0] if venues else None, "topics": venues}
            yield record["title"], record["abstract"], {**row, "authors": len(record.get("authors") or [])}
