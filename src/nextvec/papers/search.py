"""Hybrid search: words (BM25) and meaning (embeddings), fused by reciprocal rank, under exact filters.

    score(paper) = 1 / (60 + rank by words) + 1 / (60 + rank by meaning)

over the best ``DEPTH`` of each side (Cormack, Clarke and Buettcher 2009, with their constant 60). A paper whose title
is the query itself comes first. Filters are part of both searches, never applied to what came out of them: the word
side only scores papers that satisfy the filter, the vector side searches under the same filter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nextvec.papers.db import Filters, Stored
from nextvec.papers.lexical import matched_terms
from nextvec.papers.markup import plain
from nextvec.papers.records import check_text, clean, is_arxiv_id
from nextvec.papers.site import Site
from nextvec.search.fusion import RRF_K
from nextvec.search.words import tokenize
from nextvec.types import InputError

__all__ = [
    "DEPTH",
    "MAX_QUERY",
    "MODES",
    "Match",
    "Mode",
    "Results",
    "check_query",
    "fuse",
    "loosened",
    "paper_id",
    "search",
    "without_each",
]

Mode = Literal["hybrid", "semantic", "keyword"]
MODES: tuple[Mode, ...] = ("hybrid", "semantic", "keyword")
MAX_QUERY = 250
DEPTH = 200
_LIFTED = 100  # ids in one filter, which has a greatest length


@dataclass(frozen=True, slots=True)
class Match:
    """One result and why it is there. Ranks count from 1; None: not among the best of that side."""

    stored: Stored
    score: float
    terms: list[str]
    word_rank: int | None = None
    word_score: float | None = None
    meaning_rank: int | None = None
    meaning_score: float | None = None
    exact_title: bool = False
    exact_id: bool = False

    def why(self) -> str:
        """One line for people: which words matched, and the ranks by words and by meaning."""
        parts = []
        if self.exact_id:
            parts.append("the id asked for")
        if self.exact_title:
            parts.append("exact title")
        if self.word_rank is not None:
            parts.append(
                f"words #{self.word_rank} ({', '.join(self.terms)})" if self.terms else f"words #{self.word_rank}"
            )
        if self.meaning_rank is not None:
            parts.append(f"meaning #{self.meaning_rank} (cosine {self.meaning_score:.2f})")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Results:
    """One page of matches. ``total`` can be paged through; ``with_words`` contain a query word; ``candidates``
    satisfy the filter."""

    matches: list[Match]
    total: int
    with_words: int
    candidates: int
    mode: Mode
    pages: int


def check_query(text: str) -> str:
    """The query with whitespace and control characters cleaned. InputError above 250 characters."""
    check_text(text, "the query")
    query = clean(text)
    if len(query) > MAX_QUERY:
        raise InputError(
            f"the query has {len(query)} characters; at most {MAX_QUERY} are accepted: shorten it to its main words"
        )
    return query


def check_mode(text: str) -> Mode:
    """A mode by name. InputError for an unknown one."""
    for mode in MODES:
        if text == mode:
            return mode
    raise InputError(f"mode {text[:40]!r} is not known; expected one of {', '.join(MODES)}")


def paper_id(query: str) -> str | None:
    """The arXiv id where the query is one, alone or inside an arXiv or paper-page address; else None."""
    text = query.strip()
    text = re.sub(r"^(?:https?://)?(?:www\.|export\.)?(?:arxiv\.org/(?:abs|pdf|html)|[\w.]+/papers)/", "", text)
    text = re.sub(r"^arxiv:\s*", "", text, flags=re.IGNORECASE)
    text = re.sub(r"(?:\.pdf|\.md)?(?:[?#].*)?$", "", text).rstrip("/")
    text = re.sub(r"v\d{1,2}$", "", text)
    return text if is_arxiv_id(text) else None


def search(
    site: Site,
    query: str,
    filters: Filters | None = None,
    *,
    mode: Mode = "hybrid",
    page: int = 1,
    size: int = 20,
    where: str | None = None,
) -> Results:
    """Search ``site``. ``where`` is a further filter in the language of ``Collection.search``.

    Raises InputError for a query that is too long or a ``where`` that does not parse.
    """
    query = check_query(query)
    filters = filters or Filters()
    allowed, clause = _allowed(site, filters, where)
    candidates = site.db.count() if allowed is None else len(allowed)
    words: list[str] = []
    word_scores: list[float] = []
    with_words = 0
    if candidates and query:
        words, word_scores, with_words = site.words().search(query, DEPTH, allowed=allowed)
    meaning: dict[str, float] = {}
    if candidates and query and mode != "keyword":
        vector = site.query_vector(query)
        if vector is not None:
            lifted = sorted(site.db.lifted(filters) & allowed) if allowed else []
            meaning = _nearest(site, vector, min(DEPTH, candidates), clause, lifted)
    ranking = fuse(words if mode != "semantic" else [], list(meaning))
    gone = site.withdrawn()  # the indexes follow a moderator a moment later
    ranking = [(name, score) for name, score in ranking if name not in gone]
    exact = _exact_titles(site, query, words[:5])
    ranking = [(name, score) for name, score in ranking if name in exact] + [
        (name, score) for name, score in ranking if name not in exact
    ]
    named = paper_id(query)
    if named and (named in allowed if allowed is not None else site.db.get(named)):
        ranking = [(named, 1.0)] + [(name, score) for name, score in ranking if name != named]
    shown = dict(ranking[(page - 1) * size : page * size])
    word_place = {name: place for place, name in enumerate(words, start=1)}
    meaning_place = {name: place for place, name in enumerate(meaning, start=1)}
    matches = [
        Match(
            stored,
            shown[stored.paper.id],
            matched_terms(query, _searchable(stored)),
            word_place.get(stored.paper.id),
            word_scores[word_place[stored.paper.id] - 1] if stored.paper.id in word_place else None,
            meaning_place.get(stored.paper.id),
            meaning.get(stored.paper.id),
            stored.paper.id in exact,
            stored.paper.id == named,
        )
        for stored in site.db.get_many(list(shown))
    ]
    return Results(matches, len(ranking), with_words, candidates, mode, max(1, -(-len(ranking) // size)))


def _allowed(site: Site, filters: Filters, where: str | None) -> tuple[frozenset[str] | None, str | None]:
    """(ids that satisfy everything, or None for all; the whole filter as one clause)."""
    clause = filters.where()
    if where is None:
        return (site.allowed(filters) if filters else None), clause
    allowed = frozenset(site.collection.ids(where))  # parsed on its own: it cannot reach out of its brackets
    if clause:
        allowed &= site.allowed(filters)
    return allowed, f"({clause}) AND ({where})" if clause else where


def _nearest(
    site: Site, vector: NDArray[np.float32], k: int, clause: str | None, lifted: Sequence[str]
) -> dict[str, float]:
    """The ``k`` nearest papers with their cosine, nearest first: those that the collection finds by ``clause``, and
    those that votes given on this site have lifted into the filter (the collection knows the ingested votes)."""
    meaning = {hit.id: hit.score for hit in site.collection.search(vector, k, where=clause)}
    for i in range(0, len(lifted), _LIFTED):
        named = ", ".join(f"'{identifier}'" for identifier in lifted[i : i + _LIFTED])  # ids hold no quotes
        hits = site.collection.search(vector, k, where=f"id IN ({named})")
        meaning |= {hit.id: hit.score for hit in hits}
    return dict(sorted(meaning.items(), key=lambda item: -item[1])[:k]) if lifted else meaning


def fuse(words: Sequence[str], meaning: Sequence[str]) -> list[tuple[str, float]]:
    """Reciprocal rank fusion, best first; ties in favour of the better word rank, then the id."""
    scores: dict[str, float] = {}
    for ranking in (words, meaning):
        for rank, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + 1.0 / (RRF_K + rank)
    place = {name: i for i, name in enumerate(words)}
    return sorted(scores.items(), key=lambda item: (-item[1], place.get(item[0], DEPTH), item[0]))


def _exact_titles(site: Site, query: str, names: Sequence[str]) -> set[str]:
    """Those of ``names`` whose title is the query, up to case, punctuation and maths mark-up."""
    wanted = tokenize(query)
    if len(wanted) < 2:
        return set()
    return {
        stored.paper.id
        for stored in site.db.get_many(names)
        if tokenize(stored.paper.title) == wanted or tokenize(plain(stored.paper.title)) == wanted
    }


def _searchable(stored: Stored) -> str:
    paper = stored.paper
    return " ".join([paper.title, paper.summary, *paper.authors, paper.organization or ""])


def without_each(filters: Filters) -> dict[str, Filters]:
    """The filters without each of their parts, by the part's name; ``all``: none left."""
    return {
        "start": replace(filters, start=None),
        "end": replace(filters, end=None),
        "org": replace(filters, organization=None),
        "votes": replace(filters, votes=None),
        "code": replace(filters, code=False),
        "all": Filters(),
    }


def loosened(site: Site, filters: Filters) -> tuple[bool, list[tuple[str, Filters, int]]]:
    """For a search without candidates, what would have some: (True, [(part to leave out, the other filters, count)]),
    or, where leaving out one part is not enough, (False, [(part to keep, it alone, count)])."""
    parts = {name: loose for name, loose in without_each(filters).items() if name != "all" and loose != filters}
    without = [(name, loose, site.db.count(loose)) for name, loose in parts.items()]
    if any(count for _, _, count in without):
        return True, [option for option in without if option[2]]
    alone = [(name, _difference(filters, loose)) for name, loose in parts.items()]
    return False, [(name, single, count) for name, single in alone if (count := site.db.count(single))]


def _difference(filters: Filters, loose: Filters) -> Filters:
    """The one part of ``filters`` that ``loose`` lacks."""
    names = ("start", "end", "organization", "votes", "code")
    return Filters(**{name: getattr(filters, name) for name in names if getattr(filters, name) != getattr(loose, name)})
