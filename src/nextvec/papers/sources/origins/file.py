"""A file of one's own: JSON lines, CSV, Parquet, checked as a whole before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nextvec.papers.sources.base import BATCH, Batch, Record, Request, only_file
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.ids import names_of_id

__all__ = ["SOURCE", "File"]


class File:
    """Fields as in ``papers.records``."""

    name = "file"
    about = "a jsonl, csv or parquet file with id, title, summary and more"
    hosts: tuple[str, ...] = ()
    incremental = False

    def batches(self, request: Request, fetcher: Fetcher, cursor: str | None) -> Iterator[Batch]:
        return self._all(only_file(self.name, request))

    def _all(self, path: Path) -> Iterator[Batch]:
        from nextvec.papers.ingest import read_file

        papers = read_file(path)
        for i in range(0, len(papers), BATCH):
            part = papers[i : i + BATCH]
            yield Batch([Record(paper.id, paper, names_of_id(paper.id)) for paper in part], total=len(papers))


SOURCE = File()
