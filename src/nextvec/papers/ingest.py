"""Papers from a file or from the package into a site, in steps that can be interrupted anywhere and run again.

1. Check every record before anything is written (a bad one is named by file, line and field).
2. Upsert by id, in batches, one transaction each. Unchanged papers cost a comparison.
3. Embed the papers whose text is new and write vector and facets to the collection; only when the collection has
   acknowledged a batch does the database note it. A crash in between repeats one batch, an upsert, and nothing else.
4. Build the word index anew if any paper changed.
5. Work out keywords, lines and sentences of what is new (``insight.build``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nextvec.files import sha256
from nextvec.papers.db import NO_VECTOR, Pending
from nextvec.papers.emblem import emblem
from nextvec.papers.insight.build import missing_insights
from nextvec.papers.insight.build import update as update_insights
from nextvec.papers.insight.topics import place_new
from nextvec.papers.lexical import LexicalIndex
from nextvec.papers.records import Paper, parse_records
from nextvec.papers.site import Site, encode_documents
from nextvec.types import InputError, Progress, StorageError

__all__ = ["SOURCES", "Report", "ingest", "prepare", "read_file", "read_source"]

BATCH = 1_000
AT_ONCE = 2_000
SOURCES = ("daily_papers",)

Stage = Callable[[str], Progress | None]
"""Called with the name of a step ("storing", "embedding", "indexing words"); gives the Progress to report to."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an ingest did. ``papers`` is how many the site holds now."""

    read: int
    changed: int
    embedded: int
    papers: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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


def ingest(site: Site, papers: Sequence[Paper], *, stage: Stage | None = None, understand: bool = True) -> Report:
    """Bring ``papers`` into ``site`` and its indexes up to date. Safe to interrupt and to repeat.

    ``understand``: keywords and the like too (``insight``), where at most ``AT_ONCE`` papers lack them. A whole
    collection takes minutes and has a command of its own.
    """
    start = time.monotonic()
    say = stage or (lambda name: None)
    with site.writing():
        changed = _store(site, papers, say)
        embedded = _embed(site, say)
        _index_words(site, say)
        if understand and missing_insights(site) <= AT_ONCE:
            update_insights(site, stage=say)
            place_new(site)
    return Report(len(papers), changed, embedded, site.db.count(), round(time.monotonic() - start, 3))


def prepare(site: Site, *, stage: Stage | None = None) -> Report | None:
    """Make sure ``site`` holds the bundled papers, ready for search; None where it does already."""
    from nextvec.data.bundled import DAILY_PAPERS

    wanted = sha256(DAILY_PAPERS)
    if site.db.fact("bundled") == wanted and is_ready(site):
        return None
    papers = [] if site.db.fact("bundled") == wanted else read_source("daily_papers")
    report = ingest(site, papers, stage=stage)
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


def _store(site: Site, papers: Sequence[Paper], say: Stage) -> int:
    progress = say("storing") if papers else None
    changed = 0
    for i in range(0, len(papers), BATCH):
        changed += site.db.upsert(papers[i : i + BATCH])
        if progress:
            progress(min(i + BATCH, len(papers)), len(papers))
    return changed


def _embed(site: Site, say: Stage) -> int:
    """Step 3; how many texts were embedded."""
    if site.usable_collection() is None:
        # Lost, damaged, of another encoder, or ahead of the database: derived data are made anew.
        site.db.forget_indexed()
        site.new_collection()
        site.db.set_facts(encoder=site.encoder_state)
    total = site.db.pending_count()
    progress = say("embedding") if total else None
    embedded, done, after = 0, 0, ""
    while batch := site.db.pending(BATCH, after):
        embedded += _embed_batch(site, batch)
        done += len(batch)
        after = batch[-1].paper.id
        if progress:
            progress(done, total)
    return embedded


def _embed_batch(site: Site, batch: Sequence[Pending]) -> int:
    """Bring one batch into the collection, then note it in the database; how many texts were embedded."""
    papers = [pending.paper for pending in batch]
    known = site.collection.get([pending.paper.id for pending in batch if not pending.text_changed], vectors=True)
    vectors = {row["id"]: row["vector"] for row in known if row is not None}
    new = [paper for paper in papers if paper.id not in vectors]
    if new:
        fresh = encode_documents(site.encoder, [paper.document() for paper in new])
        vectors |= {
            paper.id: vector
            for paper, vector in zip(new, fresh, strict=True)
            if np.isfinite(vector).all() and vector.any()
        }
    kept = [paper for paper in papers if paper.id in vectors]
    site.collection.delete([paper.id for paper in papers if paper.id not in vectors])
    if kept:
        site.collection.upsert(
            [paper.id for paper in kept],
            np.stack([vectors[paper.id] for paper in kept]),
            [paper.facets() for paper in kept],
        )
    site.db.mark_indexed(papers, [emblem(vectors[paper.id]) if paper.id in vectors else NO_VECTOR for paper in papers])
    return len(new)


def _index_words(site: Site, say: Stage) -> None:
    stamp = site.stamp
    try:
        if LexicalIndex.load(site.words_path).stamp == stamp:
            return
    except StorageError:
        pass
    rows = site.db.lexical_rows()
    index = LexicalIndex.build(rows, stamp=stamp, progress=say("indexing words"), total=site.db.count())
    index.save(site.words_path)
