"""Papers from a file or from the package into a site, in steps that can be interrupted anywhere and run again.

1. Check every record before anything is written (a bad one is named by file, line and field).
2. In batches: plan which papers change (``sources.intake``), embed the texts that are new, write vectors and facets to
   the collection, and only then, in one transaction, the papers and that the collection holds them. A paper that can be
   read can be found; a crash in between repeats one batch, an upsert, and nothing else.
3. Take out of the collection what the database does not have (a crash between the two, papers taken away).
4. Let the word index follow the papers that changed.
5. Work out keywords, lines and sentences of what is new (``insight.build``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nextvec.files import sha256
from nextvec.papers import agreement
from nextvec.papers.db import NO_VECTOR, Filters
from nextvec.papers.emblem import emblem
from nextvec.papers.insight.build import few_missing
from nextvec.papers.insight.build import update as update_insights
from nextvec.papers.insight.topics import place_new
from nextvec.papers.records import Paper, parse_records
from nextvec.papers.site import Site, encode_documents
from nextvec.papers.sources import intake
from nextvec.papers.sources.base import Batch, Record
from nextvec.papers.sources.ids import names_of_id
from nextvec.papers.word_index import LexicalIndex, follow
from nextvec.types import InputError, Progress, StorageError

__all__ = ["SOURCES", "Report", "Totals", "finish", "ingest", "prepare", "read_file", "read_source", "settle", "take"]

BATCH = 1_000
AT_ONCE = 2_000
SOURCES = ("daily_papers",)

Stage = Callable[[str], Progress | None]
"""Called with the name of a step ("storing", "embedding", "indexing words"); gives the Progress to report to."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an ingest did. ``papers`` is how many the site holds now; ``merged``: records that joined a paper by its
    title; ``deleted``: those that their source has withdrawn; ``refused``: those that could not be used."""

    read: int
    changed: int
    embedded: int
    papers: int
    seconds: float
    merged: int = 0
    deleted: int = 0
    refused: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Totals:
    """A report in the making."""

    read: int = 0
    changed: int = 0
    embedded: int = 0
    merged: int = 0
    deleted: int = 0
    refused: int = 0

    def report(self, site: Site, start: float) -> Report:
        """``start``: ``time.monotonic()`` of its beginning."""
        seconds = round(time.monotonic() - start, 3)
        return Report(**asdict(self), papers=site.db.count(), seconds=seconds)


def read_file(path: Path) -> list[Paper]:
    """The checked papers of a jsonl, csv or parquet file. Raises InputError (file, line, field; double ids)."""
    from nextvec.data.readers import read_located

    papers = list(parse_records(read_located(path, fields=("id", "title", "summary"))))
    if not papers:
        raise InputError(f"{path}: no papers in it; expected records with id, title and summary")
    return papers


def read_source(name: str) -> list[Paper]:
    """The papers of a bundled source (``SOURCES``)."""
    if name not in SOURCES:
        raise InputError(f"source {name!r} is not known; known: {', '.join(SOURCES)}")
    from nextvec.data.bundled import daily_papers

    located = ((f"{name}: row {number}", record) for number, record in enumerate(daily_papers().to_pylist(), start=1))
    return list(parse_records(located))


def ingest(
    site: Site, papers: Sequence[Paper], *, source: str = "file", stage: Stage | None = None, understand: bool = True
) -> Report:
    """Bring ``papers`` into ``site`` and its indexes up to date. Safe to interrupt and to repeat.

    ``source``: who says so; what the same source said of a paper before is replaced. ``understand``: see ``finish``.
    """
    start = time.monotonic()
    say = stage or (lambda name: None)
    totals = Totals(read=len(papers))
    with site.writing():
        totals.embedded += settle(site, say)
        progress = say("taking in") if papers else None
        for i in range(0, len(papers), BATCH):
            part = papers[i : i + BATCH]
            batch = Batch([Record(paper.id, paper, names_of_id(paper.id)) for paper in part])
            take(site, source, batch, totals)
            if progress:
                progress(min(i + BATCH, len(papers)), len(papers))
        finish(site, say, understand=understand)
    return totals.report(site, start)


def prepare(site: Site, *, stage: Stage | None = None) -> Report | None:
    """Make sure ``site`` holds the bundled papers, ready for search; None where it does already."""
    from nextvec.data.bundled import DAILY_PAPERS

    wanted = sha256(DAILY_PAPERS)
    if site.db.fact("bundled") == wanted and is_ready(site):
        return None
    papers = [] if site.db.fact("bundled") == wanted else read_source("daily_papers")
    report = ingest(site, papers, source="daily_papers", stage=stage)
    site.db.set_facts(bundled=wanted)
    return report


def is_ready(site: Site) -> bool:
    """Whether vectors and words are complete and up to date."""
    if site.db.pending_count() or site.usable_collection() is None:
        return False
    try:
        return LexicalIndex.load(site.words_path).stamp == site.stamp
    except StorageError:
        return False


def take(site: Site, source: str, batch: Batch, totals: Totals, *, cursor: Callable[..., None] | None = None) -> None:
    """Step 2 for one batch, under the site's lock. ``cursor``: called in the transaction, with its connection."""
    while True:
        made = intake.plan(site.db, source, batch)
        # Were this to end between the two stores, what the collection holds of these would not be what is noted.
        if site.agreed is not None:
            site.agreed.touched.update(paper.id for paper in made.papers)
        site.db.forget_indexed([paper.id for paper in made.papers])
        vectors, embedded = _vectors(site, made.papers, made.new_text)
        marks = {paper.id: emblem(vectors[paper.id]) if paper.id in vectors else NO_VECTOR for paper in made.papers}
        changed = intake.commit(site.db, made, marks, cursor)
        totals.embedded += embedded
        if changed is not None:
            break
    site.collection.delete(made.gone)
    totals.changed += changed
    totals.merged += made.merged
    totals.deleted += len(made.deleted)
    totals.refused += len(batch.refused)


def settle(site: Site, say: Stage) -> int:
    """Make vectors and database agree; how many texts were embedded for that. What changed since they last did is
    looked at, or, where that is not known (``agreement``), everything."""
    generation = site.stamp
    among = agreement.suspects(site)
    if among is None and site.usable_collection() is None:
        # Lost, damaged or of another encoder: derived data are made anew.
        site.db.forget_indexed()
        site.new_collection()
        site.db.set_facts(encoder=site.encoder_state)
    embedded = _catch_up(site, say, among)
    if among is None:
        strays = set(site.collection.ids()) - site.db.ids(Filters())
    else:
        held = site.collection.get(among)
        strays = {row["id"] for row in held if row is not None} - set(site.db.titles(among))
    if strays:
        site.collection.delete(sorted(strays))
    agreement.note(site, generation)
    return embedded


def _catch_up(site: Site, say: Stage, among: Sequence[str] | None) -> int:
    """Bring into the collection what it lacks (``among``: of these papers); how many texts were embedded."""
    total = site.db.pending_count(among)
    progress = say("embedding") if total else None
    embedded, done, after = 0, 0, ""
    while total and (batch := site.db.pending(BATCH, after, among)):
        papers = [pending.paper for pending in batch]
        new = {pending.paper.id for pending in batch if pending.text_changed}
        vectors, count = _vectors(site, papers, new)
        marks = [emblem(vectors[paper.id]) if paper.id in vectors else NO_VECTOR for paper in papers]
        site.db.mark_indexed(papers, marks)
        embedded += count
        done += len(batch)
        after = papers[-1].id
        if progress:
            progress(done, total)
    return embedded


def finish(site: Site, say: Stage, *, understand: bool = True) -> None:
    """Steps 3 to 5: what was changed meanwhile is followed, the words are searched.

    ``understand``: keywords and the like too (``insight``), where at most ``AT_ONCE`` papers lack them. A whole
    collection takes minutes and has a command of its own.
    """
    settle(site, say)
    _index_words(site, say)
    if understand and few_missing(site, AT_ONCE):
        update_insights(site, stage=say)
        place_new(site)


def _vectors(site: Site, papers: Sequence[Paper], new_text: Collection[str]) -> tuple[dict[str, Any], int]:
    """Bring papers into the collection: (id -> vector of those that have one, how many texts were embedded)."""
    if not papers:
        return {}, 0
    known = site.collection.get([paper.id for paper in papers if paper.id not in new_text], vectors=True)
    rows = {row["id"]: row for row in known if row is not None}
    vectors = {identifier: row["vector"] for identifier, row in rows.items()}
    new = [paper for paper in papers if paper.id not in vectors and paper.document()]
    if new:
        fresh = encode_documents(site.encoder, [paper.document() for paper in new])
        vectors |= {
            paper.id: vector
            for paper, vector in zip(new, fresh, strict=True)
            if np.isfinite(vector).all() and vector.any()
        }
    kept = [paper for paper in papers if paper.id in vectors and _differs(rows.get(paper.id), paper)]
    site.collection.delete([paper.id for paper in papers if paper.id not in vectors])
    if kept:
        site.collection.upsert(
            [paper.id for paper in kept],
            np.stack([vectors[paper.id] for paper in kept]),
            [paper.facets() for paper in kept],
        )
    return vectors, len(new)


def _differs(row: dict[str, Any] | None, paper: Paper) -> bool:
    """Whether the collection holds something else of ``paper`` than it should."""
    return row is None or any(row.get(name) != value for name, value in paper.facets().items())


def _index_words(site: Site, say: Stage) -> None:
    try:
        before = LexicalIndex.load(site.words_path)
    except StorageError:
        before = None
    index = follow(site.db, before, say)
    if index is not before:
        index.save(site.words_path)
