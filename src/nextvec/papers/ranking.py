"""The result set of a search: what was asked, as one value, and the papers that answer it, in order.

    score(paper) = 1 / (60 + rank by words) + 1 / (60 + rank by meaning)

over the best ``DEPTH`` of each side (Cormack, Clarke and Buettcher 2009, with their constant 60). A paper whose title
is the query itself comes first. Filters are part of both searches, never applied to what came out of them: the word
side only scores papers that satisfy the filter, the vector side searches under the same filter.

The **result set** is the fused list: at most 2 * ``DEPTH`` papers, all that can be paged through. It is what is sorted
otherwise, what facets count, and what a feed is cut from. Without words, text and examples it is every paper that
satisfies the filters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nextvec.papers import examples, phrases
from nextvec.papers.db import Filters, Order, Selection
from nextvec.papers.markup import plain
from nextvec.papers.records import is_arxiv_id
from nextvec.papers.site import Site
from nextvec.search.fusion import RRF_K
from nextvec.search.words import tokenize
from nextvec.types import StorageError

__all__ = [
    "DEPTH",
    "MODES",
    "SORTS",
    "Mode",
    "Ranking",
    "Request",
    "Sort",
    "allowed_by",
    "fuse",
    "papers_in",
    "rank",
    "state_of",
]

Mode = Literal["hybrid", "semantic", "keyword", "phrase"]
MODES: tuple[Mode, ...] = ("hybrid", "semantic", "keyword", "phrase")
Sort = Literal["relevance", "newest", "votes"]
SORTS: tuple[Sort, ...] = ("relevance", "newest", "votes")
DEPTH = 200
_ORDERS: dict[Sort, Order] = {"relevance": "votes", "newest": "moment", "votes": "votes"}
_FEW, _IN = 1_000, 9_000  # ids, and characters of a list of them, that the collection's filter language takes
_Side = tuple[list[str], list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a search asks for. ``like``, ``unlike``: ids; ``text``: a pasted abstract; ``where``: a further filter in
    the language of ``Collection.search``."""

    query: str = ""
    filters: Filters = field(default_factory=Filters)
    mode: Mode = "hybrid"
    sort: Sort = "relevance"
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    text: str = ""
    where: str | None = None

    @property
    def asks(self) -> bool:
        """Whether it ranks at all, and does not only list what satisfies its filters."""
        return bool(self.query or self.like or self.unlike or self.text)

    @property
    def phrases(self) -> tuple[str, ...]:
        """What must stand in a paper as it is written."""
        if self.mode == "phrase" and any(char.isalnum() for char in self.query):
            return (self.query,)
        return phrases.quoted(self.query)


@dataclass(frozen=True)
class Ranking:
    """``ids`` in order. ``words``, ``meaning``: id -> (rank from 1, score). ``candidates`` satisfy the filters,
    ``with_words`` of them contain a query word. ``exact``: those whose title is the query; ``named``: the one whose id
    it is. ``name``: one word for this order of these papers."""

    ids: tuple[str, ...]
    scores: Mapping[str, float]
    words: Mapping[str, tuple[int, float]]
    meaning: Mapping[str, tuple[int, float]]
    with_words: int
    candidates: int
    exact: frozenset[str] = frozenset()
    named: str | None = None

    @property
    def weight(self) -> int:
        """What it takes of the site's memory, in ids: an entry of a table takes twice as much, and holds most of it."""
        return 1 + len(self.ids) + 2 * (len(self.scores) + len(self.words) + len(self.meaning))

    @cached_property
    def name(self) -> str:
        return hashlib.blake2b("\x1f".join(self.ids).encode(), digest_size=6).hexdigest()


def state_of(site: Site) -> str:
    """Which state of the site a ranking is of; without vectors only the papers count."""
    try:
        return site.index_stamp
    except StorageError:
        return site.state


def papers_in(site: Site) -> int:
    """How many papers there are; counted once for each state of the site."""
    count: int = site.kept.made((site.stamp, "papers"), site.db.count)
    return count


def rank(site: Site, request: Request) -> Ranking:
    """The papers that answer ``request``, kept until a paper changes.

    InputError for a ``where`` that does not parse, or for unlike alone.
    """
    if not request.asks and request.where is None:
        return _listing(site, request)
    key = (state_of(site), request)
    ranking: Ranking | None = site.kept.get(key)
    if ranking is None:
        ranking = _ranked(site, request) if request.asks else _listed(site, request)
        site.kept.put(key, ranking, weight=ranking.weight)
        site.kept.put(("walk", ranking.name), ranking)  # the same object: what a cursor goes on in
    return ranking


def _listing(site: Site, request: Request) -> Ranking:
    """All that satisfies the filters, which only those votes change that filter or sort."""
    filters, order = request.filters, _ORDERS[request.sort]

    def make() -> Ranking:
        ids = site.listed(filters, order)
        ranking = Ranking(ids, {}, {}, {}, 0, len(ids))
        site.kept.put(("walk", ranking.name), ranking)
        return ranking

    ranking: Ranking = site.steady(
        ("listed", filters, order),
        make,
        voted=order == "votes" or filters.votes is not None,
        also=None if filters.topic is None else site.words().stamp,
        weight=lambda made: len(made.ids) + 1,
    )
    return ranking


def allowed_by(site: Site, request: Request) -> tuple[frozenset[str] | None, str | None]:
    """(ids that satisfy everything, or None for all; what of it the collection's filter language can say)."""
    filters, where = request.filters, request.where
    clause = filters.where()
    allowed = site.allowed(filters) if filters else None
    if where is not None:
        # Parsed on its own: it cannot reach out of its brackets.
        further = frozenset(site.collection.ids(where))
        allowed = further if allowed is None else allowed & further
        clause = f"({clause}) AND ({where})" if clause else where
    having = phrases.holding(site, request.phrases)
    if having is not None:
        allowed = having if allowed is None else allowed & having
    return allowed, clause


def _clause_without_votes(request: Request) -> str | None:
    """What the collection's filter language can say of the filter but for votes."""
    clause = replace(request.filters, votes=None).where()
    if request.where is None:
        return clause
    return f"({clause}) AND ({request.where})" if clause else request.where


def _ranked(site: Site, request: Request) -> Ranking:
    query, mode = request.query, request.mode
    allowed, clause = allowed_by(site, request)
    named_examples = frozenset((*request.like, *request.unlike))
    candidates = papers_in(site) if allowed is None else len(allowed)
    words: _Side = ([], [])
    with_words = 0
    if candidates and query:
        *words, with_words = site.words().search(query, DEPTH + len(named_examples), allowed=allowed)  # type: ignore[assignment]
        words = _without(words[0], words[1], named_examples)
        if mode == "phrase" and not words[0] and allowed:  # nothing but little words: they count in a phrase
            words = (_by_votes(site, allowed), [0.0] * DEPTH)
    meaning: _Side = ([], [])
    if candidates and mode in ("hybrid", "semantic"):
        vector = examples.direction(site, request)
        if vector is not None:
            outside = allowed if request.phrases or not request.filters.in_collection else None
            if allowed and not allowed.isdisjoint(site.lifted(request.filters.votes)):
                # The collection knows the votes that came with papers, and these are in only by those given here.
                outside, clause = allowed, _clause_without_votes(request)
            found = _nearest(site, vector, DEPTH + len(named_examples), clause, outside)
            meaning = _without(*found, named_examples)
    ranking = fuse(words[0] if mode != "semantic" else [], meaning[0])
    gone = site.withdrawn()  # the indexes follow a moderator a moment later
    ranking = {name: score for name, score in ranking.items() if name not in gone}
    exact = _exact_titles(site, query, words[0][:5])
    ids = [name for name in ranking if name in exact] + [name for name in ranking if name not in exact]
    named = _named(site, query, allowed)
    if named:
        ids = [named, *(name for name in ids if name != named)]
    if request.sort != "relevance":
        ids = list(site.db.ordered(Selection(ids=json.dumps(ids)), _ORDERS[request.sort]))
    return Ranking(
        tuple(ids),
        ranking | ({named: 1.0} if named else {}),
        {name: (place, score) for place, (name, score) in enumerate(zip(*words, strict=False), start=1)},
        {name: (place, score) for place, (name, score) in enumerate(zip(*meaning, strict=True), start=1)},
        with_words,
        candidates,
        frozenset(exact),
        named,
    )


def _listed(site: Site, request: Request) -> Ranking:
    """All that satisfies the filters and ``where``."""
    allowed, _ = allowed_by(site, request)
    every = site.db.ordered(request.filters, _ORDERS[request.sort])
    ids = tuple(name for name in every if allowed is None or name in allowed)
    return Ranking(ids, {}, {}, {}, 0, len(ids))


def _without(names: Sequence[str], scores: Sequence[float], gone: frozenset[str]) -> _Side:
    """The first ``DEPTH`` that are not ``gone``."""
    kept = [(name, score) for name, score in zip(names, scores, strict=True) if name not in gone][:DEPTH]
    return [name for name, _ in kept], [score for _, score in kept]


def _nearest(
    site: Site, vector: NDArray[np.float32], k: int, clause: str | None, outside: frozenset[str] | None
) -> tuple[list[str], list[float]]:
    """The ``k`` nearest that satisfy ``clause`` and, where the collection cannot say it, are in ``outside``.

    A short list of ids is a filter of its own. Of a long one, a growing part of the ranking is looked through until
    enough of it is there: what comes out is the same as if the collection had known the filter.
    """
    collection = site.collection
    if outside is None:
        hits = collection.search(vector, k, where=clause)
        return list(hits.ids), [float(score) for score in hits.scores]
    if not outside:
        return [], []
    listed = ", ".join(f"'{identifier}'" for identifier in sorted(outside)) if len(outside) <= _FEW else ""
    if 0 < len(listed) <= _IN:
        hits = collection.search(vector, k, where=f"id IN ({listed})")
        return list(hits.ids), [float(score) for score in hits.scores]
    total = len(collection)
    ask = min(total, max(4 * k, 2 * k * total // len(outside)))
    while True:
        hits = collection.search(vector, ask, where=clause)
        kept = [(name, float(score)) for name, score in zip(hits.ids, hits.scores, strict=True) if name in outside]
        if len(kept) >= k or len(hits) < ask or ask >= total:
            return [name for name, _ in kept[:k]], [score for _, score in kept[:k]]
        ask = min(total, 4 * ask)


def _by_votes(site: Site, allowed: frozenset[str]) -> list[str]:
    return list(site.db.ordered(Selection(ids=json.dumps(sorted(allowed))), "votes"))[:DEPTH]


def fuse(words: Sequence[str], meaning: Sequence[str]) -> dict[str, float]:
    """Reciprocal rank fusion, best first; ties in favour of the better word rank, then the id."""
    scores: dict[str, float] = {}
    for ranking in (words, meaning):
        for rank_, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + 1.0 / (RRF_K + rank_)
    place = {name: i for i, name in enumerate(words)}
    return dict(sorted(scores.items(), key=lambda item: (-item[1], place.get(item[0], DEPTH), item[0])))


def _exact_titles(site: Site, query: str, names: Sequence[str]) -> set[str]:
    """Those of ``names`` whose title is the query, up to case, punctuation and maths mark-up."""
    wanted = tokenize(query)
    if len(wanted) < 2:
        return set()
    return {
        name
        for name, title in site.db.titles(names).items()
        if tokenize(title) == wanted or tokenize(plain(title)) == wanted
    }


def _named(site: Site, query: str, allowed: frozenset[str] | None) -> str | None:
    """The paper whose id the query is, if it may be there."""
    from nextvec.papers.search import paper_id

    named = paper_id(query)
    if not named or not is_arxiv_id(named):
        return None
    there = named in allowed if allowed is not None else site.db.get(named) is not None
    return named if there else None
