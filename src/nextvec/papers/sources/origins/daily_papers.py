"""The Daily Papers that come with the package."""

from __future__ import annotations

from collections.abc import Iterator

from nextvec.papers.sources.base import BATCH, Batch, Record, Request
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.ids import names_of_id

__all__ = ["SOURCE", "DailyPapers"]


class DailyPapers:
    """Nothing to choose."""

    name = "daily_papers"
    about = "the Daily Papers that come with the package"
    hosts: tuple[str, ...] = ()
    incremental = False

    def batches(self, request: Request, fetcher: Fetcher, cursor: str | None) -> Iterator[Batch]:
        request.refuse(self.name)
        return self._all()

    def _all(self) -> Iterator[Batch]:
        from nextvec.papers.ingest import read_source

        papers = read_source("daily_papers")
        for i in range(0, len(papers), BATCH):
            part = papers[i : i + BATCH]
            yield Batch([Record(paper.id, paper, names_of_id(paper.id)) for paper in part], total=len(papers))


SOURCE = DailyPapers()
