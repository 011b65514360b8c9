"""The recent papers, from which is proposed, and their embeddings, which are kept in memory for the next reader.

Shapes: n papers with an embedding, D values of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nextvec.papers.site import Site
from nextvec.papers.tables import Selection

__all__ = ["MOST", "kept_vectors", "recent", "vectors"]

MOST = 10_000
"""The most papers that are looked at: of more, the newest. Their embeddings take 10 MB at 256 values each."""
_KEPT = 2

Vectors = tuple[list[str], NDArray[np.float32]]
_kept: WeakKeyDictionary[Site, dict[tuple[Any, ...], Vectors]] = WeakKeyDictionary()


def recent(site: Site, at: datetime, days: float) -> tuple[str, ...]:
    """The ids of the papers of the last ``days`` before ``at``, latest first."""
    start = (at - timedelta(days=days, microseconds=1)).date()
    return site.ordered(Selection(days=(start, None), dated=True), "moment")[:MOST]


def vectors(site: Site, ids: Sequence[str]) -> Vectors:
    """Those of ``ids`` that have an embedding, and the embeddings, float32 [n, D] of length 1."""
    rows = [row for row in site.collection.get(ids, vectors=True) if row is not None]
    matrix = np.array([row["vector"] for row in rows], np.float32).reshape(len(rows), site.collection.dim)
    return [row["id"] for row in rows], matrix


def kept_vectors(site: Site, ids: tuple[str, ...]) -> Vectors:
    """The same; the last two windows asked for are kept until a paper or the collection changes. Not to be changed."""
    key = (site.collection.version, ids)
    known = _kept.setdefault(site, {})
    if key not in known:
        found = vectors(site, ids)
        found[1].setflags(write=False)
        while len(known) >= _KEPT:
            known.pop(next(iter(known)), None)
        known[key] = found
    return known[key]
