"""The data that come with the package: 9,877 daily papers (2024-05-27 to 2026-08-21) and a few from arXiv."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from nextvec.types import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DAILY_PAPERS", "SCHEMA", "daily_papers"]

DAILY_PAPERS = Path(__file__).parent / "bundled" / "daily_papers.parquet"
"""The bundled table; licence and sources are in ATTRIBUTION.md beside it."""

_MOMENT = pa.timestamp("ms", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("summary", pa.string(), nullable=False),
        pa.field("upvotes", pa.int32(), nullable=False),
        pa.field("num_comments", pa.int32(), nullable=False),
        pa.field("publishedAt", _MOMENT, nullable=False),
        pa.field("submittedOnDailyAt", _MOMENT),
        pa.field("daily_date", pa.date32()),
        pa.field("authors", pa.list_(pa.string()), nullable=False),
        pa.field("submitted_by", pa.string()),
        pa.field("githubRepo", pa.string()),
        pa.field("githubStars", pa.int32()),
        pa.field("projectPage", pa.string()),
        pa.field("organization", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("categories", pa.list_(pa.string())),
    ]
)


def daily_papers(*, columns: Sequence[str] | None = None) -> pa.Table:
    """The bundled papers, by day and id: one row each, columns as in ``SCHEMA``.

    ``source`` is "daily_papers" (9,877 rows, with ``daily_date``) or "arxiv" (added papers, after them, with
    ``daily_date`` null and no votes). ``categories`` are arXiv's, of the papers that its listings at hand name.
    InputError for a column that does not exist.
    """
    unknown = [name for name in columns or () if name not in SCHEMA.names]
    if unknown:
        raise InputError(f"daily papers have no column {unknown[0]!r}; columns: {', '.join(SCHEMA.names)}")
    return pq.read_table(DAILY_PAPERS, columns=list(columns) if columns is not None else None)
