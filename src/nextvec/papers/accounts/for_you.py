"""Proposals from what a reader voted for and saved, by the collection's own embeddings, each with its reason.

For each liked paper l and each recent paper c, the cosine is compared with l's cosines to all recent papers:

    z(l, c)  = (cos(l, c) - mean over c of cos(l, c)) / standard deviation over c
    score(c) = max over l of  z(l, c) · 2^(-age(l) / 180 days) · 2^(-age(c) / 30 days)

The maximum and not the mean: somebody who likes two things wants papers of the one and papers of the other, not what
lies between them. The standard score: a liked paper that is near to everything (a survey) would otherwise be the reason
for everything; hubs are a known weakness of nearest neighbours in many dimensions (Radovanović, Nanopoulos and Ivanović
2010, who also divide by local scale). The l of the maximum is the reason that is shown, and no l gives more than
``EACH`` proposals. What the reader voted for, saved or muted is not proposed.

Shapes: L liked papers, C recent ones, D values of an embedding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from nextvec.papers.accounts.following import muted
from nextvec.papers.accounts.interests import Interest
from nextvec.papers.accounts.tables import LIST_PAPERS, LISTS, VOTES
from nextvec.papers.accounts.window import kept_vectors, recent, vectors
from nextvec.papers.db import Database, Stored
from nextvec.papers.site import Site

__all__ = ["DAYS", "EACH", "Like", "Proposal", "likes", "propose"]

DAYS = 120
"""How old a proposed paper can be; after 30 days each one counts half."""
MOST_LIKED = 200
EACH = 5
_PAPER_HALF, _LIKE_HALF = 30.0, 180.0


@dataclass(frozen=True, slots=True)
class Like:
    """A paper that a reader voted for or, which is shown first, saved."""

    paper: str
    saved: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Proposal:
    """A paper, and the liked one that it is proposed for; ``cosine`` of the two."""

    stored: Stored
    because: Stored
    saved: bool
    cosine: float


def likes(db: Database, reader: str) -> list[Like]:
    """What ``reader`` voted for and saved, the latest first."""
    v, e = VOTES.c, LIST_PAPERS.c
    saved = sa.select(e.paper, e.created_at).join(LISTS, LISTS.c.id == e.list).where(LISTS.c.reader == reader)
    with db.read() as connection:
        found = {
            row.paper: Like(row.paper, False, row.created_at)
            for row in connection.execute(sa.select(v.paper, v.created_at).where(v.reader == reader))
        }
        for row in connection.execute(saved):
            before = found.get(row.paper)
            found[row.paper] = Like(row.paper, True, max(row.created_at, before.at) if before else row.created_at)
    return sorted(found.values(), key=lambda like: (like.at, like.paper), reverse=True)


def propose(
    site: Site, liked: Sequence[Like], interests: Sequence[Interest], at: datetime, *, limit: int = 40
) -> list[Proposal]:
    """The best ``limit`` recent papers for somebody who liked ``liked``, best first.

    ``at``: the moment that ages are counted from (``views.clock``); ``interests``: what is muted among them counts.
    """
    if not liked:
        return []
    known = {like.paper for like in liked}
    gone = muted(site, interests) | known
    anchors, of_liked = vectors(site, [like.paper for like in liked[:MOST_LIKED]])
    everything, of_everything = kept_vectors(site, recent(site, at, DAYS))
    open_to = [i for i, name in enumerate(everything) if name not in gone]
    if not anchors or not open_to:
        return []
    names, of_recent = [everything[i] for i in open_to], of_everything[open_to]
    by_paper = {like.paper: like for like in liked}
    cosines = of_liked @ of_recent.T  # [L, C]
    spread = cosines.std(axis=1, keepdims=True)
    z = (cosines - cosines.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    newest = max(like.at for like in liked)
    ages = np.array([(newest - by_paper[name].at).total_seconds() / 86_400 for name in anchors])
    z = np.clip(z, 0.0, None) * np.exp2(-ages / _LIKE_HALF)[:, None]
    reason = z.argmax(axis=0)
    scores = z.max(axis=0) * _freshness(site, names, at)
    chosen = _spread_out(scores, reason, limit)
    stored = {one.paper.id: one for one in site.db.get_many([names[i] for i in chosen] + anchors)}
    return [
        Proposal(
            stored[names[i]],
            stored[anchors[reason[i]]],
            by_paper[anchors[reason[i]]].saved,
            float(cosines[reason[i], i]),
        )
        for i in chosen
    ]


def _freshness(site: Site, ids: Sequence[str], at: datetime) -> NDArray[np.float64]:
    """float64 [C]: 1 for a paper of now, half of it after 30 days."""
    moments = site.db.moments(ids)
    ages = np.array([max((at - moments[name]).total_seconds() / 86_400, 0.0) for name in ids])
    return np.exp2(-ages / _PAPER_HALF)


def _spread_out(scores: NDArray[np.float64], reason: NDArray[np.int64], limit: int) -> list[int]:
    """The places of the best scores above 0, best first, at most ``EACH`` for one reason."""
    used: Counter[int] = Counter()
    chosen: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if len(chosen) == limit or scores[i] <= 0:
            break
        if used[int(reason[i])] < EACH:
            used[int(reason[i])] += 1
            chosen.append(int(i))
    return chosen
