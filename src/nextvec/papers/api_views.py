"""The views of the collection for programs: ``GET /api/views/{view}``, narrowed and paged as the pages are."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from fastapi import APIRouter, Path, Query, Request, Response

from nextvec.papers import api_models, views
from nextvec.papers.api_http import Built, answer
from nextvec.papers.params import MAX_PAGE
from nextvec.papers.site import Site

__all__ = ["router"]

router = APIRouter()


def view(
    request: Request,
    name: Annotated[views.Named, Path(alias="view", description="which view")],
    topic: Annotated[str | None, Query(description="words that title or abstract must have")] = None,
    author: Annotated[str | None, Query(description="author, by full name")] = None,
    org: Annotated[str | None, Query(description="organisation")] = None,
    source: Annotated[str | None, Query(description="source")] = None,
    category: Annotated[str | None, Query(description="venue or category; commas separate alternatives")] = None,
    votes: Annotated[int, Query(ge=0, le=10**9, description="at least so many votes")] = 0,
    code: Annotated[bool, Query(description="only papers with code")] = False,
    start: Annotated[
        str | None, Query(alias="from", description="from this day on", json_schema_extra={"format": "date"})
    ] = None,
    end: Annotated[
        str | None, Query(alias="to", description="to this day", json_schema_extra={"format": "date"})
    ] = None,
    half: Annotated[float, Query(ge=0.5, le=365, description="of trending: half-life of votes, in days")] = 2,
    last: Annotated[int, Query(ge=1, le=90, description="of rising: votes gained in so many days")] = 7,
    days: Annotated[Literal["7", "30", "365", "all"], Query(description="of discussed: papers of these days")] = "30",
    p: Annotated[int, Query(ge=0, le=MAX_PAGE, description="the page, from 0")] = 0,
    limit: Annotated[int, Query(ge=1, le=100, description="how many papers at most")] = 50,
) -> Response:
    """Papers of a view, in its order: daily (newest day first), trending, rising, discussed, new."""
    site = cast(Site, request.app.state.site)
    state = site.list_state(topic or None)
    values = {
        "topic": topic, "author": author, "org": org, "source": source, "category": category, "from": start, "to": end,
        "votes": str(votes or ""), "code": "1" if code else "", "half": f"{half:g}", "last": str(last), "days": days,
    }  # fmt: skip
    chosen, _ = views.read_view(name, "", {key: value for key, value in values.items() if value}, site)
    moment, live = views.clock(site)
    # Whole hours, so that the order, and with it the entity tag, holds for a while.
    at = moment.replace(minute=0, second=0, microsecond=0) if live else moment

    def build() -> Built:
        found = views.listing(site, chosen, at, limit=limit, offset=p * limit)
        return api_models.as_json([api_models.listed(stored.paper) for stored in found.papers]), {}

    return answer(request, f"{state} {at}", build)


router.add_api_route(
    "/views/{view}", view, response_model=list[api_models.ListedPaper], summary="A view", responses=api_models.ERRORS
)
router.add_api_route("/views/{view}", view, methods=["HEAD"], include_in_schema=False)
