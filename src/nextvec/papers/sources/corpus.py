"""The large collection: Daily Papers, arXiv's daily listings and the ACL Anthology, from the data sets at hand.

About 120,000 papers. The files come from the data catalogue (``nextvec data list``): from $NEXTVEC_DATA, the cache, or
the package. Of the Anthology only papers with an abstract are taken: a title alone is little to search.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nextvec.papers.ingest import Report, Stage, Totals, finish, settle, take
from nextvec.papers.site import Site
from nextvec.papers.sources.base import Batch, Request, cut, open_source
from nextvec.papers.sources.fetch import Fetcher
from nextvec.types import InputError, NotFoundError, did_you_mean

__all__ = ["CORPORA", "Part", "corpus", "parts_of"]


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a data set, read by a source. ``data``: the name in the catalogue; none: it comes with the package."""

    source: str
    data: str | None = None
    file: str | None = None


_FIELDS = 2  # another number where more is taken from each record: the files are read again
_DAILY = Part("daily_papers")
_ARXIV = Part("arxiv", "arxiv_daily", "arxiv_cs_2025-03_2026-03.jsonl.xz")
_ACL = tuple(
    Part("acl", "acl_anthology_2025", file)
    for file in ("acl_anthology_2025-11.jsonl.xz", "acl_anthology_2025.findings_partial.jsonl.xz")
)
CORPORA: dict[str, tuple[Part, ...]] = {
    "daily": (_DAILY,),
    "arxiv": (_ARXIV,),
    "acl": _ACL,
    "all": (_DAILY, _ARXIV, *_ACL),
}
"""What ``--corpus`` may name."""


def parts_of(name: str) -> list[tuple[Part, Path | None]]:
    """The parts with their files. InputError for an unknown corpus; NotFoundError, with what to do, where a data set is
    not on this machine."""
    from nextvec.data.catalog import locate

    if name not in CORPORA:
        raise InputError(f"corpus is {name!r}; expected one of {', '.join(CORPORA)}{did_you_mean(name, CORPORA)}")
    found = []
    for part in CORPORA[name]:
        path = locate(part.data) / part.file if part.data and part.file else None
        if path is not None and not path.is_file():
            raise NotFoundError(f"data set {part.data!r} lacks {part.file!r}: fetch it again")
        found.append((part, path))
    return found


def corpus(site: Site, name: str, *, limit: int | None = None, stage: Stage | None = None) -> Report | None:
    """Take in a corpus; None where the site holds it already. Interrupted, it goes on with the batch it was at.

    ``limit``: at most so many records of each part.
    """
    parts = parts_of(name)
    start = time.monotonic()
    say = stage or (lambda step: None)
    totals = Totals()
    todo = [(part, path) for part, path in parts if site.db.fact(_fact(part)) != _state(part, path, limit)]
    if not todo:
        return None
    with site.writing():
        totals.embedded += settle(site, say)
        for part, path in todo:
            _take(site, part, path, limit, say, totals)
        finish(site, say)
    return totals.report(site, start)


def _take(site: Site, part: Part, path: Path | None, limit: int | None, say: Stage, totals: Totals) -> None:
    state = _state(part, path, limit)
    at = f"{_fact(part)}:at"
    before = (site.db.fact(at) or "").partition(" ")
    skipped = int(before[0]) if before[2] == state else 0
    progress = say(f"taking in {part.data or part.source}")
    for done, batch in enumerate(_batches(part, path, limit), start=1):
        totals.read += len(batch.records)
        if done > skipped:
            take(site, part.source, batch, totals)
            site.db.set_facts(**{at: f"{done} {state}"})
        if progress:
            progress(totals.read, None)
    site.db.set_facts(**{_fact(part): state})


def _batches(part: Part, path: Path | None, limit: int | None) -> Iterator[Batch]:
    source = open_source(part.source)
    left = limit
    for batch in source.batches(Request(file=path), Fetcher(()), None):
        kept = replace(batch, records=[one for one in batch.records if one.paper.summary])
        if left is not None:
            kept = cut(kept, left)
            left -= len(kept.records)
        yield kept
        if left is not None and left <= 0:
            return


def _fact(part: Part) -> str:
    return f"corpus:{part.source}:{part.file or ''}"[:60]


def _state(part: Part, path: Path | None, limit: int | None) -> str:
    """Changes with the file, with how much of it is wanted and with what is taken from a record."""
    size = f"{path.stat().st_size}-{path.stat().st_mtime_ns}" if path else "bundled"
    return f"{size}-{limit or 'all'}-{_FIELDS}"
