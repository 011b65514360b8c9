"""Works out what is not worked out yet, or of an older text: ``nextvec papers insight``, and the end of an ingest.

Papers are taken in batches, each stored in one transaction: interrupted, it goes on where it was. How many papers have
a phrase is counted once over the collection and kept beside it, and anew when a fifth more papers have come.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.files import atomic_write
from nextvec.papers import markup
from nextvec.papers.insight import candidates, keywords, sentences, store, summary
from nextvec.papers.insight.candidates import BUCKETS, Candidate, Counts
from nextvec.papers.insight.store import Insight
from nextvec.papers.records import Paper
from nextvec.papers.site import Site, TextEncoder, encode_documents
from nextvec.types import Progress

__all__ = ["Report", "counts_path", "few_missing", "missing_insights", "update", "work_out"]

BATCH = 250
_GROWTH = 1.2
Stage = Callable[[str], Progress | None]


@dataclass(frozen=True, slots=True)
class Report:
    """What an update did. ``papers``: how many the site holds; ``made``: how many were worked out."""

    papers: int
    made: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def update(site: Site, *, again: bool = False, stage: Stage | None = None) -> Report:
    """Bring keywords, lines and sentence embeddings up to date; ``again``: all of them anew.

    The caller holds ``Site.writing``. Safe to interrupt and to repeat.
    """
    began = time.monotonic()
    say = stage or (lambda name: None)
    if again:
        store.forget(site.db)
    encoder, generation = site.encoder_state, site.stamp
    due = store.missing(site.db, encoder)
    if due:
        counts = _counts(site, say, again=again)
        progress = say("understanding")
        for start in range(0, len(due), BATCH):
            papers = [stored.paper for stored in site.db.get_many(due[start : start + BATCH])]
            store.write(site.db, work_out(papers, counts, site.encoder), encoder)
            if progress:
                progress(min(start + BATCH, len(due)), len(due))
    store.note_whole(site.db, encoder, generation)
    return Report(site.db.count(), len(due), round(time.monotonic() - began, 3))


def missing_insights(site: Site) -> int:
    """How many papers ``update`` would work out."""
    return len(store.missing(site.db, site.encoder_state))


def few_missing(site: Site, most: int) -> bool:
    """Whether ``update`` would work out at most so many."""
    return store.lacking(site.db) <= most and missing_insights(site) <= most


def work_out(papers: Sequence[Paper], counts: Counts, encoder: TextEncoder) -> list[Insight]:
    """The insights of some papers. Phrases and sentences of all of them are embedded together."""
    split = [sentences.sentences(paper.summary) for paper in papers]
    listed = [keywords.shortlist(_candidates(paper), counts) for paper in papers]
    phrases = list(dict.fromkeys(one.text for found in listed for _, one in found))
    place = {text: i for i, text in enumerate(phrases)}
    texts = [*(paper.document() for paper in papers), *(sentence for found in split for sentence in found), *phrases]
    vectors = _units(encode_documents(encoder, texts))
    wholes, rest = vectors[: len(papers)], vectors[len(papers) :]
    of_phrases = rest[len(rest) - len(phrases) :]
    found: list[Insight] = []
    at = 0
    for i, paper in enumerate(papers):
        own = rest[at : at + len(split[i])]
        at += len(split[i])
        mine = of_phrases[[place[one.text] for _, one in listed[i]]]
        chosen = keywords.choose(listed[i], mine, wholes[i]) if listed[i] else []
        line = summary.shorten(split[i][summary.choose(split[i], own, wholes[i])]) if split[i] else ""
        found.append(Insight(paper, chosen, line, own))
    return found


def _candidates(paper: Paper) -> list[Candidate]:
    return candidates.candidates(markup.plain(paper.title), markup.plain(paper.summary))


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of unit length; what cannot have one is zero."""
    clean = np.nan_to_num(np.asarray(vectors, np.float32), posinf=0.0, neginf=0.0)
    norms = np.linalg.norm(clean, axis=1, keepdims=True)
    return np.asarray(clean / np.maximum(norms, 1e-12), np.float32)


# -- how many papers have a phrase ---------------------------------------------------------------------------------
def counts_path(site: Site) -> Any:
    """Where the counts lie."""
    return site.home / "insight" / "phrases.npz"


def _counts(site: Site, say: Stage, *, again: bool) -> Counts:
    """The counts on disk where they are of about this collection, else made anew and kept."""
    papers = site.db.count()
    held = None if again else _read(site)
    if held is not None and papers <= held.papers * _GROWTH and held.papers <= papers * _GROWTH:
        return held
    progress = say("counting phrases")
    counts = Counts(0, np.zeros(BUCKETS, np.int32), np.zeros(BUCKETS, np.int32))
    for _, title, abstract, _, _ in site.db.lexical_rows():
        candidates.add(counts, candidates.candidates(markup.plain(title), markup.plain(abstract)))
        if progress and counts.papers % 200 == 0:
            progress(counts.papers, papers)
    path = counts_path(site)
    path.parent.mkdir(exist_ok=True)
    body = io.BytesIO()
    np.savez_compressed(body, papers=np.int64(counts.papers), having=counts.having, alone=counts.alone)
    with atomic_write(path, "wb") as stream:
        stream.write(body.getvalue())
    return counts


def _read(site: Site) -> Counts | None:
    try:
        with np.load(counts_path(site), allow_pickle=False) as held:
            counts = Counts(int(held["papers"]), held["having"], held["alone"])
    except (OSError, ValueError, KeyError, EOFError):
        return None
    return counts if counts.having.shape == counts.alone.shape == (BUCKETS,) else None
