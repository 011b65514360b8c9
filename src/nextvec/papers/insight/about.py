"""What a paper's own page shows of all this: keywords and topic, the sentences that it shares with similar papers, who
works on similar things."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextvec.papers.db import Stored
from nextvec.papers.insight import store
from nextvec.papers.insight.people import Related, coauthors, load_people
from nextvec.papers.insight.sentences import sentences
from nextvec.papers.insight.topics import Topic, load_topics, units
from nextvec.papers.site import Site
from nextvec.papers.tables import fold
from nextvec.types import StorageError

__all__ = ["About", "Pair", "about", "best_sentences", "pairs"]


@dataclass(frozen=True, slots=True)
class Pair:
    """The sentence of one paper and the sentence of another that are nearest, with their cosine."""

    mine: str
    theirs: str
    cosine: float


@dataclass(frozen=True, slots=True)
class About:
    """``pairs``: by the id of a similar paper. Everything is empty where it was not worked out."""

    keywords: list[str]
    topic: Topic | None
    pairs: dict[str, Pair]
    together: list[Related]
    authors: list[Related]
    organizations: list[Related]


def about(site: Site, stored: Stored, similar: Sequence[tuple[Stored, float]]) -> About:
    """What is known about ``stored``, whose similar papers these are."""
    paper = stored.paper
    topics = load_topics(site)
    number = topics.of_paper.get(paper.id) if topics else None
    people = load_people(site)
    row = site.collection.get([paper.id], vectors=True)[0] if people else None
    authors: list[Related] = []
    organizations: list[Related] = []
    if people is not None and row is not None:
        vector = units(np.asarray(row["vector"], np.float32)[None])[0]
        authors = people.near("author", vector, {fold(name) for name in paper.authors})
        organizations = people.near("organisation", vector, {fold(paper.organization)} if paper.organization else set())
    together: list[Related] = []
    with contextlib.suppress(StorageError):  # an older database on a read-only disk has no table of authors
        together = coauthors(site, paper.authors) if paper.authors else []
    return About(
        store.keywords_of(site.db, [paper.id]).get(paper.id, []),
        topics.topics[number] if topics is not None and number is not None else None,
        pairs(site, stored, [other for other, _ in similar]),
        together,
        authors,
        organizations,
    )


def pairs(site: Site, stored: Stored, others: Sequence[Stored]) -> dict[str, Pair]:
    """The nearest pair of sentences of ``stored`` and of each other paper, by its id."""
    held = store.vectors_of(site.db, [stored.paper.id, *(other.paper.id for other in others)], site.encoder.dim)
    mine = held.get(stored.paper.id)
    own = sentences(stored.paper.summary)
    if mine is None or len(mine) != len(own) or not own:
        return {}
    found = {}
    for other in others:
        theirs = held.get(other.paper.id)
        texts = sentences(other.paper.summary)
        if theirs is None or len(theirs) != len(texts) or not texts:
            continue
        likeness = mine @ theirs.T
        i, j = np.unravel_index(int(np.argmax(likeness)), likeness.shape)
        found[other.paper.id] = Pair(own[i], texts[j], float(likeness[i, j]))
    return found


def best_sentences(site: Site, papers: Sequence[Stored], vector: NDArray[np.float32]) -> dict[str, str]:
    """The sentence of each paper's abstract that is nearest to a vector, by id; only of those whose are known."""
    held = store.vectors_of(site.db, [stored.paper.id for stored in papers], site.encoder.dim)
    found = {}
    for stored in papers:
        rows = held.get(stored.paper.id)
        texts = sentences(stored.paper.summary) if rows is not None else []
        if rows is not None and texts and len(rows) == len(texts):
            found[stored.paper.id] = texts[int(np.argmax(rows @ vector))]
    return found
