"""The map of topics, their trends, and the page of one topic, over HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from nextvec.papers.db import Order, Selection
from nextvec.papers.insight import drawing
from nextvec.papers.insight.drawing import Drawing
from nextvec.papers.insight.lines import sparkline
from nextvec.papers.insight.topics import Topic, Topics, load_topics, topics_path
from nextvec.papers.insight.trends import Step, Trend, paper_days, trends
from nextvec.papers.params import check_page, read_page
from nextvec.papers.records import clean
from nextvec.papers.responses import page, site_of
from nextvec.papers.site import Site
from nextvec.papers.syndication import FORMATS, MOST
from nextvec.papers.web_feeds import changed_at, feed_of, links_of
from nextvec.types import InputError, NotFoundError

__all__ = ["router"]

SIZE = 40
SORTS: dict[str, tuple[str, Order]] = {"votes": ("Most votes", "votes"), "newest": ("Newest", "moment")}
STEPS = {"month": "Months", "week": "Weeks"}
WAYS = {"all": "All", "rises": "Rising", "falls": "Falling"}
_GET = ["GET", "HEAD"]
router = APIRouter()


def _choice(request: Request, name: str, known: Any) -> str:
    """The value of a parameter that has a few; the first of them for none. InputError for another."""
    value = clean(request.query_params.get(name, "")) or next(iter(known))
    if value not in known:
        raise InputError(f"{name} is {value[:40]!r}; expected one of {', '.join(known)}")
    return value


def _kept(site: Site, topics: Topics, what: str, make: Any) -> Any:
    """What is made of the topics as they are, kept until they or the papers change."""
    return site.kept.made((what, site.stamp, id(topics)), make, weight=2_000)


def _drawing(site: Site, topics: Topics) -> Drawing:
    made: Drawing = _kept(site, topics, "map", lambda: drawing.draw(topics))
    return made


def _trends(site: Site, topics: Topics, step: Step) -> list[Trend]:
    days = _kept(site, topics, "days", lambda: paper_days(site.db))
    made: list[Trend] = _kept(site, topics, f"trends {step}", lambda: trends(topics, days, step))
    return made


def _not_built(request: Request) -> Response:
    return page(request, "map.html", {"active": "map", "topics": None, "papers": site_of(request).db.count()})


@router.api_route("/map", methods=_GET)
def map_page(request: Request) -> Response:
    """The topics on a plane."""
    site = site_of(request)
    topics = load_topics(site)
    if topics is None:
        return _not_built(request)
    made = _drawing(site, topics)
    context = {
        "active": "map",
        "topics": topics.topics,
        "papers": len(topics.ids),
        "drawing": made,
        "size": (drawing.WIDTH, drawing.HEIGHT),
        "ways": {trend.topic.number: trend.way for trend in _trends(site, topics, "month")},
    }
    return page(request, "map.html", context)


@router.api_route("/topics", methods=_GET)
def topics_page(request: Request) -> Response:
    """What rises and what falls."""
    site = site_of(request)
    topics = load_topics(site)
    if topics is None:
        return _not_built(request)
    step: Step = "week" if _choice(request, "step", STEPS) == "week" else "month"
    way = _choice(request, "way", WAYS)
    every = _trends(site, topics, step)
    shown = [trend for trend in every if way in ("all", trend.way)]
    if way != "all":
        shown.sort(key=lambda trend: trend.p)
    context = {
        "active": "map",
        "trends": shown,
        "counts": {name: sum(name in ("all", trend.way) for trend in every) for name in WAYS},
        "step": step,
        "steps": STEPS,
        "way": way,
        "ways": WAYS,
        "spark": sparkline,
        "colours": _drawing(site, topics).colours,
        "first": every[0].periods[0] if every else None,
        "last": every[0].periods[-1] if every else None,
    }
    return page(request, "topics.html", context)


def _topic(site: Site, slug: str) -> tuple[Topics, Topic]:
    topics = load_topics(site)
    topic = topics.by_slug.get(slug) if topics else None
    if topics is None or topic is None:
        raise NotFoundError(f"there is no topic {slug[:60]!r}: /topics lists those that there are")
    return topics, topic


def _address(topic: Topic, sort: str, page: int = 1, *, ending: str = "") -> str:
    """Where a topic's page is, or its feed."""
    pairs = ({"sort": sort} if sort != next(iter(SORTS)) else {}) | ({"page": str(page)} if page > 1 else {})
    return f"/topics/{topic.slug}{'.' + ending if ending else ''}{'?' + urlencode(pairs) if pairs else ''}"


def _topic_feed(request: Request, slug: str, ending: str) -> Response:
    """The papers of one topic as a feed, in the order that ``sort`` says."""
    site = site_of(request)
    topics, topic = _topic(site, slug)
    sort = _choice(request, "sort", SORTS)
    ids = _members(site, topics, topic, sort)[:MOST]
    made = datetime.fromtimestamp(int(topics_path(site).stat().st_mtime), UTC)  # papers get their topics a moment later
    return feed_of(
        request,
        ending,
        site.db.get_many(ids),
        max(changed_at(site, voted=sort == "votes"), made),
        address=lambda end: _address(topic, sort, ending=end),
        title=f"{topic.label} ({SORTS[sort][0].lower()})",
        subtitle=f"Machine-learning papers about {', '.join(topic.terms[:4])}.",
    )


def _add(ending: str) -> None:
    def endpoint(request: Request, slug: str) -> Response:
        return _topic_feed(request, slug, ending)

    router.add_api_route(f"/topics/{{slug}}.{ending}", endpoint, methods=_GET, response_class=Response)


for _ending in FORMATS:  # before the page, which would take their endings for its own
    _add(_ending)


@router.api_route("/topics/{slug}", methods=_GET)
def topic_page(request: Request, slug: str) -> Response:
    """The papers of one topic."""
    site = site_of(request)
    topics, topic = _topic(site, slug)
    if any(not value for value in request.query_params.values()):
        return RedirectResponse(f"/topics/{slug}", status_code=303)
    sort = _choice(request, "sort", SORTS)
    number = read_page(request.query_params.get("page"))
    ids = _members(site, topics, topic, sort)
    pages = max(1, -(-len(ids) // SIZE))
    check_page(number, pages)
    listed = site.db.get_many(ids[(number - 1) * SIZE : number * SIZE])
    context = {
        "active": "map",
        "topic": topic,
        "trend": _trends(site, topics, "month")[topic.number] if _trends(site, topics, "month") else None,
        "colour": _drawing(site, topics).colours[topic.number],
        "spark": sparkline,
        "near": _near(topics, topic),
        "listed": listed,
        "most": max((stored.paper.upvotes for stored in listed), default=0),
        "total": len(ids),
        "sort": sort,
        "sorts": {name: shown for name, (shown, _) in SORTS.items()},
        "page": number,
        "pages": pages,
        "feeds": links_of(partial(_address, topic, sort)),
        "address": partial(_address, topic),
    }
    return page(request, "topic.html", context)


def _members(site: Site, topics: Topics, topic: Topic, sort: str) -> tuple[str, ...]:
    def make() -> tuple[str, ...]:
        return tuple(site.db.ordered(Selection(ids=json.dumps(topics.members(topic))), SORTS[sort][1]))

    made: tuple[str, ...] = _kept(site, topics, f"members {topic.number} {sort}", make)
    return made


def _near(topics: Topics, topic: Topic, most: int = 5) -> list[tuple[Topic, float]]:
    """The topics whose centres are nearest, with the cosine."""
    likeness = topics.centres @ topics.centres[topic.number]
    order = [int(i) for i in (-likeness).argsort(kind="stable") if i != topic.number]
    return [(topics.topics[i], float(likeness[i])) for i in order[:most]]
