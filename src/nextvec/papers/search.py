"""Search by words (BM25) and by meaning (embeddings), fused by reciprocal rank, under exact filters: pages of it.

``ranking`` says which papers answer, and in which order; this file cuts a page out of them and says why each is there.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields, replace

from nextvec.papers import cursors
from nextvec.papers.db import Filters, Stored
from nextvec.papers.lexical import matched_terms
from nextvec.papers.params import MAX_QUERY, check_query
from nextvec.papers.ranking import DEPTH, MODES, SORTS, Mode, Ranking, Request, Sort, rank
from nextvec.papers.records import ID_PATTERN, is_arxiv_id
from nextvec.papers.site import Site
from nextvec.search.fusion import RRF_K
from nextvec.types import InputError

__all__ = [
    "DEPTH",
    "MAX_QUERY",
    "MODES",
    "RRF_K",
    "SORTS",
    "Filters",
    "Match",
    "Mode",
    "Request",
    "Results",
    "Sort",
    "answer",
    "check_mode",
    "check_query",
    "check_sort",
    "loosened",
    "paper_id",
    "search",
    "without_each",
]


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
    satisfy the filter. ``ranking``: all of them; ``following``, ``previous``: cursors, None where there is no such
    page."""

    matches: list[Match]
    total: int
    with_words: int
    candidates: int
    mode: Mode
    pages: int
    page: int
    ranking: Ranking
    following: str | None
    previous: str | None


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


def check_sort(text: str) -> Sort:
    """An order by name. InputError for an unknown one."""
    for sort in SORTS:
        if text == sort:
            return sort
    raise InputError(f"sort is {text[:40]!r}; expected one of {', '.join(SORTS)}")


def search(
    site: Site,
    query: str,
    filters: Filters | None = None,
    *,
    mode: Mode = "hybrid",
    page: int = 1,
    size: int = 20,
    where: str | None = None,
    sort: Sort = "relevance",
) -> Results:
    """Search ``site``. ``where`` is a further filter in the language of ``Collection.search``.

    Raises InputError for a query that is too long or a ``where`` that does not parse.
    """
    request = Request(query=check_query(query), filters=filters or Filters(), mode=mode, where=where, sort=sort)
    return answer(site, request, page=page, size=size)


def answer(site: Site, request: Request, *, page: int = 1, size: int = 20, after: str | None = None) -> Results:
    """A page of what answers ``request``: the ``page``-th, or the one that begins behind the cursor ``after``.

    A cursor goes on in the ranking that it came from, as long as the site remembers that one, whatever came or went
    since: no paper comes twice, none is passed over. Later it goes on behind its paper in the ranking as it is then.
    InputError for a cursor that is not of this search.
    """
    ranking = rank(site, request)
    start = (page - 1) * size
    if after is not None:
        ranking, start = _behind(site, request, ranking, after)
    shown = ranking.ids[start : start + size]
    total = len(ranking.ids)
    matches = _matches(site, request, ranking, site.db.get_many(shown))
    return Results(
        matches,
        total,
        ranking.with_words,
        ranking.candidates,
        request.mode,
        max(1, -(-total // size)),
        start // size + 1,
        ranking,
        _cursor(request, ranking, start + size) if start + size < total else None,
        _cursor(request, ranking, start - size) if 0 < start - size <= total else None,
    )


def _matches(site: Site, request: Request, ranking: Ranking, papers: list[Stored]) -> list[Match]:
    terms: dict[str, list[str]] = {}
    if request.query and (words := site.words()).stamp == site.stamp:  # the index has the words of all of these papers
        terms = words.terms(request.query, [stored.paper.id for stored in papers])
    return [_match(stored, request, ranking, terms.get(stored.paper.id)) for stored in papers]


def _match(stored: Stored, request: Request, ranking: Ranking, terms: list[str] | None) -> Match:
    name = stored.paper.id
    word, meaning = ranking.words.get(name), ranking.meaning.get(name)
    return Match(
        stored,
        ranking.scores.get(name, 0.0),
        matched_terms(request.query, _searchable(stored)) if terms is None else terms,
        word[0] if word else None,
        word[1] if word else None,
        meaning[0] if meaning else None,
        meaning[1] if meaning else None,
        name in ranking.exact,
        name == ranking.named,
    )


def _digest(request: Request) -> str:
    return hashlib.blake2b(repr(request).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _cursor(request: Request, ranking: Ranking, place: int) -> str:
    """Behind the first ``place`` papers of ``ranking``."""
    last = ranking.ids[place - 1]
    return cursor_behind(request, last, place, name=ranking.name, score=ranking.scores.get(last, 0.0))


def cursor_behind(request: Request, last: str, place: int, *, name: str = "", score: float = 0.0) -> str:
    """The cursor behind the paper ``last``, the ``place``-th of what answers ``request``. ``name``: the ranking that it
    is to go on in, if the site has kept that; ``score``: the paper's in it."""
    return cursors.pack([_digest(request), name, place, last, score])


def _behind(site: Site, request: Request, now: Ranking, word: str) -> tuple[Ranking, int]:
    """(the ranking to go on in, how many of its papers lie before the cursor)."""
    try:
        asked, name, place, last, score = cursors.unpack(word)
        if not (isinstance(place, int) and isinstance(score, float | int) and ID_PATTERN.fullmatch(last)):
            raise ValueError
    except (ValueError, TypeError) as error:
        raise InputError(f"{word[:40]!r} is no cursor of this site; take it whole from the page before") from error
    if asked != _digest(request):
        raise InputError("the cursor is of another search; leave it out to begin at the first page")
    then: Ranking | None = site.kept.get(("walk", name))
    if then is not None and 0 < place <= len(then.ids) and then.ids[place - 1] == last:
        return then, place
    if last in now.ids:
        return now, now.ids.index(last) + 1
    if request.asks and request.sort == "relevance":
        return now, sum(now.scores.get(name, 0.0) >= score for name in now.ids)
    return now, min(place, len(now.ids))


def _searchable(stored: Stored) -> str:
    paper = stored.paper
    return " ".join([paper.title, paper.summary, *paper.authors, paper.organization or ""])


PARTS = {"organization": "org"}
"""What a part of the filters is called in an address, where that is not its own name."""


def without_each(filters: Filters) -> dict[str, Filters]:
    """The filters without each of their parts, by the part's name; ``all``: none left."""
    nothing = Filters()
    parts = {
        PARTS.get(part.name, part.name): replace(filters, **{part.name: getattr(nothing, part.name)})
        for part in fields(Filters)
    }
    return parts | {"all": nothing}


def loosened(site: Site, filters: Filters) -> tuple[bool, list[tuple[str, Filters, int]]]:
    """For a search without candidates, what would have some: (True, [(part to leave out, the other filters, count)]),
    or, where leaving out one part is not enough, (False, [(part to keep, it alone, count)])."""
    parts = {name: loose for name, loose in without_each(filters).items() if name != "all" and loose != filters}
    without = [(name, loose, len(site.allowed(loose))) for name, loose in parts.items()]
    if any(count for _, _, count in without):
        return True, [option for option in without if option[2]]
    alone = [(name, _difference(filters, loose)) for name, loose in parts.items()]
    return False, [(name, single, count) for name, single in alone if (count := len(site.allowed(single)))]


def _difference(filters: Filters, loose: Filters) -> Filters:
    """The one part of ``filters`` that ``loose`` lacks."""
    names = [part.name for part in fields(Filters)]
    return Filters(**{name: getattr(filters, name) for name in names if getattr(filters, name) != getattr(loose, name)})
