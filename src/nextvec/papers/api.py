"""The interface for programs, under ``/api``: the read-only part of the Hugging Face Hub's paper API, over a ``Site``.

``huggingface_hub.HfApi(endpoint=...)`` works with it unchanged. Shapes are in ``api_models``, HTTP in ``api_http``,
what readers' programs change in ``api_reader``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.openapi.utils import get_openapi

from nextvec import __version__
from nextvec.papers import api_models, api_reader, api_views, feed, trending
from nextvec.papers.accounts.guard import Accounts
from nextvec.papers.api_http import Built, Gate, answer, handle_errors, next_link
from nextvec.papers.api_queries import Cursor, Sort, all_papers, daily_papers, find_paper
from nextvec.papers.api_tokens import SCHEME, Checker
from nextvec.papers.examples import MAX_EXAMPLES, read_examples
from nextvec.papers.facets import facets
from nextvec.papers.params import MAX_PAGE, read_all_filters
from nextvec.papers.ranking import Request as SearchRequest
from nextvec.papers.ranking import Sort as SearchSort
from nextvec.papers.ranking import rank
from nextvec.papers.rate import RateLimit
from nextvec.papers.records import check_text, clean
from nextvec.papers.search import MAX_QUERY, Mode, check_query, cursor_behind
from nextvec.papers.search import answer as answer_search
from nextvec.papers.site import Site
from nextvec.types import InputError

__all__ = ["create_api", "router", "specification"]

router = APIRouter()


def create_api(site: Site, accounts: Accounts, *, rate: int = 0, token_rate: int = 0) -> FastAPI:
    """The interface as an application to be mounted at ``/api``.

    ``rate``: requests per minute and client, ``token_rate``: per minute and token that may read; 0 for any number. A
    token is no disadvantage: it may ask at least as often as a client without one.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.site = site
    app.state.accounts = accounts
    app.include_router(router)
    app.include_router(api_views.router)
    app.include_router(api_reader.router)
    limit = RateLimit(rate) if rate else None
    token_limit = RateLimit(max(rate, token_rate)) if rate and token_rate else None
    app.add_middleware(Gate, check=Checker(accounts), limit=limit, token_limit=token_limit)
    handle_errors(app)
    return app


def _read(path: str, model: Any, summary: str) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Register a GET with its place in the specification, and the HEAD that belongs to it."""

    def add(function: Callable[..., Response]) -> Callable[..., Response]:
        router.add_api_route(path, function, response_model=model, summary=summary, responses=api_models.ERRORS)
        router.add_api_route(path, function, methods=["HEAD"], include_in_schema=False)
        return function

    return add


def _site(request: Request) -> Site:
    return cast(Site, request.app.state.site)


def _name(text: str | None, name: str) -> str | None:
    check_text(text or "", name)
    value = clean(text or "")
    if len(value) > 300:
        raise InputError(f"{name} has {len(value)} characters; at most 300 are accepted")
    return value or None


def _day(description: str, kind: str, example: str, *, alias: str | None = None) -> Any:
    return Query(alias=alias, description=description, examples=[example], json_schema_extra={"format": kind})


Limit100 = Annotated[int, Query(ge=1, le=100, description="how many papers at most")]
Identifier = Annotated[str, Path(alias="id", description="arXiv id", examples=["2412.06769"])]


@_read("/daily_papers", list[api_models.ListedPaper], "The daily feed")
def list_daily(
    request: Request,
    p: Annotated[int, Query(ge=0, le=MAX_PAGE, description="the page, from 0")] = 0,
    limit: Limit100 = 50,
    date: Annotated[str | None, _day("only this day", "date", "2025-02-28")] = None,
    week: Annotated[str | None, _day("only this ISO week", "iso-week", "2025-W09")] = None,
    month: Annotated[str | None, _day("only this month", "year-month", "2025-02")] = None,
    submitter: Annotated[str | None, Query(description="only what this account listed")] = None,
    sort: Annotated[Sort, Query(description="latest listing first, or votes that halve every 2 days")] = "publishedAt",
) -> Response:
    """Papers of the feed, of all days or of one day, ISO week or month."""
    site = _site(request)
    state = site.state
    asked: list[tuple[feed.Kind, str | None]] = [("day", date), ("week", week), ("month", month)]
    periods = [feed.parse_period(kind, text) for kind, text in asked if text]
    if len(periods) > 1:
        raise InputError("date, week and month exclude each other: give one of them")
    period = periods[0] if periods else None
    who = _name(submitter, "submitter")
    now = datetime.now(UTC).replace(tzinfo=None)
    at = now
    if sort == "trending":
        newest = max(site.db.day_counts(), default=now.date())
        # Whole hours, so that the order, and with it the entity tag, holds for a while.
        at = trending.reference(newest, now).replace(minute=0, second=0, microsecond=0)
        state += f" {at}"

    def build() -> Built:
        found = daily_papers(site.db, period, who, sort=sort, at=at, limit=limit, offset=p * limit)
        return api_models.as_json([api_models.listed(stored.paper) for stored in found]), {}

    return answer(request, state, build)


@_read("/papers", list[api_models.FlatPaper], "All papers")
def list_all(
    request: Request,
    cursor: Annotated[str | None, Query(description="from the Link header of the page before")] = None,
    limit: Limit100 = 50,
) -> Response:
    """Every paper, newest arXiv date first. A Link header with rel="next" leads to the next page."""
    site = _site(request)
    state = site.state
    after = Cursor.read(cursor) if cursor else None

    def build() -> Built:
        found, following = all_papers(site.db, after, limit)
        link = {"Link": next_link(request, cursor=following.word())} if following else {}
        return api_models.as_json([api_models.flat(stored.paper) for stored in found]), link

    return answer(request, state, build)


Several = Annotated[list[str], Query(max_length=MAX_EXAMPLES, description="id of a paper; may come several times")]


def asked(
    request: Request,
    q: Annotated[
        str, Query(description="words, a question, a name or an arXiv id", json_schema_extra={"maxLength": MAX_QUERY})
    ] = "",
    start: Annotated[str | None, _day("from this feed day on", "date", "2025-01-01", alias="from")] = None,
    end: Annotated[str | None, _day("to this feed day", "date", "2025-12-31", alias="to")] = None,
    org: Annotated[str | None, Query(description="organisation")] = None,
    author: Annotated[str | None, Query(description="author, by full name")] = None,
    source: Annotated[str | None, Query(description="source")] = None,
    category: Annotated[
        str | None,
        Query(
            description="venue or category; commas separate alternatives",
            examples=["cs.CL,emnlp"],
            json_schema_extra={"maxLength": 300},
        ),
    ] = None,
    topic: Annotated[str | None, Query(description="words that title or abstract must have")] = None,
    year: Annotated[int | None, Query(ge=1900, le=9998, description="year of the publication")] = None,
    votes: Annotated[int, Query(ge=0, le=10**9, description="at least so many votes")] = 0,
    code: Annotated[bool, Query(description="only papers with code")] = False,
    mode: Annotated[Mode, Query(description="what to search by")] = "hybrid",
    like: Several = [],  # noqa: B006 (FastAPI copies it)
    unlike: Several = [],  # noqa: B006
) -> SearchRequest:
    """The parameters that a search and its facets have in common, read."""
    values = {
        "from": start, "to": end, "org": org, "author": author, "source": source, "topic": topic,
        "category": category,
        "year": str(year) if year else None, "votes": str(votes), "code": str(int(code)),
    }  # fmt: skip
    filters, _ = read_all_filters({name: value for name, value in values.items() if value}, _site(request).db)
    liked, unliked = read_examples(like, "like"), read_examples(unlike, "unlike")
    return SearchRequest(query=check_query(q), filters=filters, mode=mode, like=liked, unlike=unliked)


Asked = Annotated[SearchRequest, Depends(asked)]


@_read("/papers/search", list[api_models.ListedPaper], "Search by words, by meaning and by example")
def find(
    request: Request,
    search: Asked,
    limit: Annotated[int, Query(ge=1, le=120, description="how many papers at most")] = 20,
    sort: Annotated[SearchSort, Query(description="the order of the results")] = "relevance",
    cursor: Annotated[str | None, Query(description="from the Link header of the page before")] = None,
) -> Response:
    """The best papers for a query, under filters that every result satisfies. Without a query: the newest.

    A Link header with rel="next" leads to the next page.
    """
    site = _site(request)
    with site.db.snapshot_held():
        return _find(request, site, search, limit, sort, cursor)


def _find(
    request: Request, site: Site, search: SearchRequest, limit: int, sort: SearchSort, cursor: str | None
) -> Response:
    newest = not search.asks and search.filters.topic is None and sort == "relevance"
    wanted = replace(search, sort="newest" if newest else sort)

    def build() -> Built:
        if newest and not cursor:  # asked again and again: from the database, which no list that is kept can lag behind
            more = site.db.select(wanted.filters, order="moment", limit=limit + 1)
            papers = more[:limit]
            following = cursor_behind(wanted, papers[-1].paper.id, limit) if len(more) > limit else None
        else:
            found = answer_search(site, wanted, size=limit, after=cursor or None)
            papers, following = [match.stored for match in found.matches], found.following
        link = {"Link": next_link(request, cursor=following)} if following else {}
        return api_models.as_json([api_models.listed(stored.paper) for stored in papers]), link

    return answer(request, _state(site, search), build)


@_read("/papers/search/facets", list[api_models.FacetCounts], "What the results of a search are made of")
def count_facets(request: Request, search: Asked) -> Response:
    """How many of the results are of which organisation, author, year, source, venue or category, and have code.

    Counted are all results of the search, at most 400; without a query all papers that satisfy the filters.
    """
    site = _site(request)

    def build() -> Built:
        found = facets(site, search, rank(site, search), most=20)
        return api_models.as_json([api_models.facet_counts(one.name, one.counts) for one in found]), {}

    with site.db.snapshot_held():
        return answer(request, _state(site, search), build)


def _state(site: Site, search: SearchRequest) -> str:
    """What the answer to a search depends on beside its address."""
    return site.index_stamp if search.asks else site.list_state(search.filters.topic)


@_read("/papers/{id:path}/similar", list[api_models.SimilarPaper], "Similar papers")
def neighbours(
    request: Request,
    identifier: Identifier,
    limit: Annotated[int, Query(ge=1, le=100, description="how many papers at most")] = 8,
) -> Response:
    """The nearest other papers by the cosine of their embeddings, the nearest first."""
    site = _site(request)

    def build() -> Built:
        found = site.similar(find_paper(site, identifier).paper.id, limit)
        return api_models.as_json([api_models.similar(stored.paper, cosine) for stored, cosine in found]), {}

    return answer(request, site.index_stamp, build)


@_read("/papers/{id:path}", api_models.PaperDetails, "One paper")
def one(request: Request, identifier: Identifier) -> Response:
    """A paper by its arXiv id, with or without a version."""
    site = _site(request)

    def build() -> Built:
        return api_models.as_json(api_models.details(find_paper(site, identifier).paper)), {}

    return answer(request, site.state, build)


# -- the specification ---------------------------------------------------------------------------------------------
@cache
def specification() -> dict[str, Any]:
    """The interface as an OpenAPI document."""
    document = get_openapi(
        title="nextvec papers",
        version=__version__,
        summary="Machine-learning papers by day, searched by meaning and by word.",
        description="The endpoints that read papers, their parameters and fields are those of the Hugging Face Hub's "
        "paper API; `similar`, `facets`, `views` and what narrows and steers the search are additions. Votes and "
        "reading lists are a reader's own and need a token.",
        routes=[*router.routes, *api_views.router.routes, *api_reader.router.routes],
        servers=[{"url": "/api"}],
    )
    document["components"]["securitySchemes"] = {"token": SCHEME}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.setdefault("security", [{}, {"token": ["read"]}])  # without one as well, at a lower rate
    return document


@router.api_route("/openapi.json", methods=["GET", "HEAD"], include_in_schema=False)
def openapi(request: Request) -> Response:
    """The specification."""
    return answer(request, "specification", lambda: (json.dumps(specification()).encode(), {}))
