"""Build the bundled Daily Papers table: ``python -m nextvec.data.build_bundled --data $NEXTVEC_DATA``.

Daily papers come from the Hugging Face daily list, ``source = "daily_papers"``. A few papers that the methods
of this library stand on and that the list lacks come from arXiv's own metadata, ``source = "arxiv"``, with no
votes and no ``daily_date``. Categories are those of arXiv's metadata, where these have the paper. Fields that
another party's model wrote (``ai_summary``, ``ai_keywords``) and thumbnails are left out.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nextvec.data.bundled import DAILY_PAPERS, SCHEMA
from nextvec.data.readers import read_records
from nextvec.files import atomic_write, human_bytes, sha256

DAILY = "papers/hf_daily_papers/hf_daily_papers_2404589803.jsonl.xz"
ARXIV = "papers/arxiv_daily/arxiv_cs_2025-03_2026-03.jsonl.xz"

# fmt: off
FOUNDATIONS = frozenset(
    [
        "1611.05962", "1708.03246", "1901.01695", "1908.05161", "2010.12148", "2102.04252", "2211.12677",
        "2305.10438", "2311.11691", "2311.15578", "2312.11556", "2402.14776", "2404.15228", "2405.16153",
        "2405.17428", "2409.02727", "2410.05160", "2410.13230", "2410.18160", "2411.05036", "2412.09585",
        "2412.12591", "2412.16158", "2504.15471", "2505.16552", "2505.20589", "2505.22202", "2506.20923",
        "2507.04886", "2507.20783", "2507.21989", "2507.23083", "2508.21038", "2510.27350", "2511.05963",
        "2511.07025", "2511.12715", "2601.22128", "2602.06040",
    ]
)
# fmt: on
"""arXiv ids of the published methods this library is about; those found in the arXiv set are added."""


_CATEGORY = re.compile(r"[a-z-]+(?:\.[A-Za-z-]+)?")


def tidy(text: str | None) -> str | None:
    """One space for every run of whitespace; a blank line stays a paragraph break. Empty becomes None."""
    if text is None:
        return None
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return "\n\n".join(part for part in paragraphs if part) or None


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value).astimezone(UTC) if value else None


def daily_row(record: dict[str, Any]) -> dict[str, Any]:
    """A record of the daily list as a row of the bundled table."""
    return {
        "id": record["id"],
        "title": tidy(record["title"]),
        "summary": tidy(record["summary"]),
        "upvotes": record["upvotes"],
        "num_comments": record["num_comments"],
        "publishedAt": _moment(record["publishedAt"]),
        "submittedOnDailyAt": _moment(record["submittedOnDailyAt"]),
        "daily_date": date.fromisoformat(record["daily_date"]),
        "authors": [name for author in record["authors"] if (name := tidy(author))],
        "submitted_by": tidy(record["submitted_by"]),
        "githubRepo": tidy(record["githubRepo"]),
        "githubStars": record["githubStars"],
        "projectPage": tidy(record["projectPage"]),
        "organization": tidy(record["organization"]),
        "source": "daily_papers",
    }


def first_known_day(identifier: str, first_listed: str) -> date:
    """The best date arXiv metadata give for a paper: the day it was first seen in arXiv's daily listing if
    that lies in the month of its id (YYMM) or the month after, else the first day of the id's month."""
    month = date(2000 + int(identifier[:2]), int(identifier[2:4]), 1)
    following = date(month.year + month.month // 12, month.month % 12 + 1, 1)
    listed = date.fromisoformat(first_listed)
    return listed if listed.replace(day=1) in (month, following) else month


def arxiv_row(record: dict[str, Any]) -> dict[str, Any]:
    """A record of the arXiv set as a row of the bundled table: no votes, no day on the daily list."""
    day = first_known_day(record["id"], record["first_listed"])
    return {
        "id": record["id"],
        "title": tidy(record["title"]),
        "summary": tidy(record["summary"]),
        "upvotes": 0,
        "num_comments": 0,
        "publishedAt": datetime(day.year, day.month, day.day, tzinfo=UTC),
        "authors": [name for author in record["authors"] if (name := tidy(author))],
        "source": "arxiv",
    }


def categories(record: dict[str, Any]) -> list[str] | None:
    """Those of arXiv; classes of mathematics and of the ACM, which stand among them, are left out."""
    return [word for word in record.get("categories") or () if _CATEGORY.fullmatch(word)] or None


def build(daily: Iterable[dict[str, Any]], arxiv: Iterable[dict[str, Any]]) -> pa.Table:
    """The table: daily papers by day and id, then the added arXiv papers by id."""
    rows = sorted((daily_row(record) for record in daily), key=lambda row: (row["daily_date"], row["id"]))
    known = {row["id"] for row in rows}
    listed = {record["id"]: record for record in arxiv}
    extra = [arxiv_row(listed[name]) for name in FOUNDATIONS & listed.keys() if name not in known]
    rows += sorted(extra, key=lambda row: row["id"])
    for row in rows:
        row["categories"] = categories(listed[row["id"]]) if row["id"] in listed else None
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write(table: pa.Table, path: Path) -> None:
    """Parquet, zstd at its highest level, one row group and large pages (what keeps the file small)."""
    with atomic_write(path) as stream:
        pq.write_table(
            table,
            stream,
            compression="zstd",
            compression_level=22,
            row_group_size=len(table),
            data_page_size=64 << 20,
            write_batch_size=len(table),
            use_dictionary=[
                "upvotes",
                "num_comments",
                "daily_date",
                "submitted_by",
                "organization",
                "source",
            ],
        )


def main() -> None:
    """Build the file from the data folder and say what it holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder ($NEXTVEC_DATA)")
    parser.add_argument("--out", type=Path, default=DAILY_PAPERS)
    arguments = parser.parse_args()
    required = ("id", "title", "summary", "authors")
    table = build(
        read_records(arguments.data / DAILY, fields=(*required, "daily_date", "publishedAt", "upvotes")),
        read_records(arguments.data / ARXIV, fields=(*required, "first_listed")),
    )
    write(table, arguments.out)
    counts = {source: table["source"].to_pylist().count(source) for source in ("daily_papers", "arxiv")}
    size = human_bytes(arguments.out.stat().st_size)
    print(f"{arguments.out}: {counts}, {size}, SHA-256 {sha256(arguments.out)}")


if __name__ == "__main__":
    main()
