"""The new papers of what a reader follows, each with the reason, and what muting takes away.

A topic is words that title or abstract must all have, an author and an organisation are names: exact, as everywhere on
the site. A saved search has no edge, so it gives the papers nearest to it among the new ones: at most ``NEAREST``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from nextvec.papers import authors, examples
from nextvec.papers.accounts.interests import KINDS, Interest, read_search
from nextvec.papers.accounts.window import kept_vectors, recent
from nextvec.papers.db import Stored
from nextvec.papers.ranking import allowed_by, fuse
from nextvec.papers.site import Site
from nextvec.papers.tables import Selection
from nextvec.types import NextvecError

__all__ = ["DAYS", "NEAREST", "Found", "following", "muted"]

DAYS = 30
"""How far back "new" reaches, counted from the end of the newest day at the latest."""
NEAREST = 10


@dataclass(frozen=True, slots=True)
class Found:
    """A paper and why it is there: each reason as what it is of, its name and its address."""

    stored: Stored
    reasons: list[tuple[str, str, str]]


def following(site: Site, interests: Sequence[Interest], at: datetime) -> list[Found]:
    """New papers of what is followed and not muted, latest first. ``interests``: of one reader, all of them."""
    window = recent(site, at, DAYS)
    gone = muted(site, interests)
    reasons: dict[str, list[Interest]] = defaultdict(list)
    for interest in interests:
        if interest.stance == "follow":
            for identifier in _papers(site, interest, window):
                reasons[identifier].append(interest)
    ids = [identifier for identifier in window if identifier in reasons and identifier not in gone]
    return [
        Found(stored, [(KINDS[one.kind], one.shown, one.address) for one in reasons[stored.paper.id]])
        for stored in site.db.get_many(ids)
    ]


def muted(site: Site, interests: Sequence[Interest]) -> set[str]:
    """The ids of the papers that a reader does not want to see proposed."""
    gone: set[str] = set()
    for interest in interests:
        if interest.stance == "mute":
            gone |= _all(site, interest)
    return gone


def _papers(site: Site, interest: Interest, window: tuple[str, ...]) -> set[str]:
    """Those of ``window`` that ``interest`` is about."""
    if interest.kind == "search":
        return set(_nearest(site, interest, window))
    return _all(site, interest).intersection(window)


def _all(site: Site, interest: Interest) -> set[str]:
    """Every paper of a topic, an author, an organisation."""
    if interest.kind == "topic":
        return set(site.words().holding(interest.said))
    if interest.kind == "author":
        return set(site.db.ordered(Selection(author=authors.fold(interest.said)), "moment"))
    return set(site.db.ordered(Selection(organization=interest.said), "moment"))


def _nearest(site: Site, interest: Interest, window: tuple[str, ...]) -> list[str]:
    """What the search page would rank first if there were nothing but ``window``."""
    try:
        request = read_search(site.db, interest.said).request
    except NextvecError:  # saved under older rules: it gives nothing, and can be taken away
        return []
    allowed, _ = allowed_by(site, request)
    ids = [identifier for identifier in window if allowed is None or identifier in allowed]
    words: list[str] = []
    meaning: list[str] = []
    if ids and request.query and request.mode != "semantic":
        words, _, _ = site.words().search(request.query, NEAREST * 5, allowed=frozenset(ids))
    vector = examples.direction(site, request) if ids and request.mode in ("hybrid", "semantic") else None
    if vector is not None:
        names, matrix = kept_vectors(site, window)
        wanted = set(ids)
        ranked = np.argsort(-(matrix @ vector), kind="stable")
        meaning = [names[i] for i in ranked if names[i] in wanted][: NEAREST * 5]
    return list(fuse(words, meaning))[:NEAREST]
