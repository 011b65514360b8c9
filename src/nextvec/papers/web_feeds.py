"""The views of the collection over HTTP: each a page that a reader can narrow, and the same as three kinds of feed."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from threading import Lock
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from nextvec.papers import feed, syndication, trending, views
from nextvec.papers.db import Stored
from nextvec.papers.narrowing import Narrowing
from nextvec.papers.offered import offered
from nextvec.papers.params import check_page, read_page
from nextvec.papers.responses import base_of, page, site_of
from nextvec.papers.site import Site
from nextvec.papers.syndication import FORMATS, MOST, Feed
from nextvec.papers.views import Kind, View
from nextvec.types import NotFoundError

__all__ = ["changed_at", "conditional", "feed_of", "links_of", "router"]

PAGE_SIZE = 40
_FRESH = 300  # seconds that a feed may be kept without asking
_GET = ["GET", "HEAD"]
_TEMPLATES = {"trending": "trending.html", "rising": "rising.html", "discussed": "listing.html", "new": "listing.html"}
_FOLDERS: dict[str, Kind] = {"date": "day", "week": "week", "month": "month"}
router = APIRouter()


# -- pages ---------------------------------------------------------------------------------------------------------
@router.api_route("/", methods=_GET)
def home(request: Request) -> Response:
    """The newest day."""
    db = site_of(request).db
    with db.snapshot_held():
        counts = db.day_counts()
        if not counts:
            return page(request, "empty.html", {"papers": db.count()})
        return _view_page(request, "day", max(counts).isoformat())


@router.api_route("/papers", methods=_GET)
@router.api_route("/papers/daily", methods=_GET)
def papers(request: Request) -> Response:
    return RedirectResponse("/" + (f"?{request.url.query}" if request.url.query else ""), status_code=307)


def _view_page(request: Request, kind: Kind, key: str = "") -> Response:
    site = site_of(request)
    values = request.query_params
    view, unknown = views.read_view(kind, key, values, site)
    home = request.url.path == "/"
    if home:
        view = replace(view, path="/")  # the day that is the newest tomorrow, too
    number = read_page(values.get("page"))
    if any(not value for value in values.values()):
        # A form sends its empty fields too; the address that is kept and passed on has none.
        return RedirectResponse(view.address(page=number), status_code=303)
    at, live = views.clock(site)
    listed = views.listing(site, view, at, limit=PAGE_SIZE, offset=(number - 1) * PAGE_SIZE)
    pages = max(1, -(-listed.total // PAGE_SIZE))
    check_page(number, pages)
    context: dict[str, Any] = {
        "active": "trending" if kind == "rising" else kind,
        "view": view,
        "listed": listed,
        "unknown": unknown,
        "shown": view.narrowing.shown(),
        "none_set": Narrowing(),
        "ways": views.ways(site, view, at) if view.narrowing and not listed.total else [],
        "feeds": links_of((views.daily(view.narrowing) if home else view).address),
        "offered": offered(site),
        "page": number,
        "pages": pages,
        "first": (number - 1) * PAGE_SIZE + 1,
        "at": at,
        "live": live,
        "days": views.DAYS,
        "half_lives": trending.HALF_LIVES,
        "last": views.LAST,
    }
    if view.period:
        context |= _around(site, view, view.period, at)
    return page(request, _TEMPLATES.get(kind, "feed.html"), context)


def links_of(address: Callable[..., str]) -> list[tuple[str, str, str]]:
    """(name, media type, address) of a view's feeds; ``address(ending=...)`` gives the address of one."""
    return [(form.name, form.media_type, address(ending=ending)) for ending, form in FORMATS.items()]


def _around(site: Site, view: View, period: feed.Period, at: datetime) -> dict[str, Any]:
    """What the page of a day, week or month shows beside its papers."""
    counts = site.db.day_counts()
    before, after = feed.walk(period, counts)
    anchor = max((day for day in counts if period.start <= day <= period.end), default=period.start)
    chosen = views.selection(view, at)
    if view.narrowing.topic:
        chosen = replace(chosen, ids=json.dumps(views.members(site, view, at)))
    everything = sum(count for day, count in counts.items() if period.start <= day <= period.end)

    def moved(other: feed.Period | None) -> str:
        """The same view of another period."""
        return f"{other.path}{view.address().removeprefix(view.path)}" if other else ""

    return {
        "period": period,
        "moved": moved,
        "day_of": feed.day,
        "summary": site.db.summary(chosen),
        "everything": everything,
        "before": before,
        "after": after,
        "tabs": [feed.period_of(kind, anchor) for kind in ("day", "week", "month")],
        "calendar": feed.calendar(anchor, counts),
        "calendar_month": feed.month(anchor),
        "calendar_walk": feed.walk(feed.month(anchor), counts),
        "strip": _strip(anchor, counts),
        "organizations": site.db.organizations(chosen, limit=10),
    }


def _strip(anchor: Any, counts: dict[Any, int]) -> list[tuple[feed.Period, int]]:
    """The feed days around ``anchor``, newest first: on a narrow screen the first ones are seen. They are called by
    weekday and number, so that they are of a month before or after it at most."""
    days = [day for day in counts if abs(day - anchor) <= timedelta(days=31)]
    later = [day for day in days if day > anchor][:2]
    earlier = [day for day in days if day <= anchor][-(10 - len(later)) :]
    return [(feed.day(day), counts[day]) for day in reversed(earlier + later)]


# -- feeds ---------------------------------------------------------------------------------------------------------
def _feed(request: Request, kind: Kind, ending: str, key: str = "") -> Response:
    site = site_of(request)
    view, _ = views.read_view(kind, key, request.query_params, site)
    at, live = views.clock(site)
    changed = changed_at(site, voted=kind != "new" or bool(view.narrowing.votes))
    if view.narrowing.topic:
        changed = max(changed, site.words_changed())  # the word index follows the papers a moment later
    if live and kind in ("trending", "rising", "discussed"):
        # These change with the clock too: by the hour, so that a feed has a time before which it was the same.
        at = at.replace(minute=0, second=0, microsecond=0)
        changed = max(changed, at.replace(tzinfo=UTC))
    listed = views.listing(site, view, at, limit=MOST)
    shown = ", ".join(view.narrowing.shown().values())
    return feed_of(
        request,
        ending,
        listed.papers,
        changed,
        address=lambda end: view.address(ending=end),
        link="/" if kind == "daily" and not view.pairs() else view.address(),
        title=f"{view.title}{f' ({shown})' if shown else ''}",
        subtitle=_about(view),
    )


def feed_of(
    request: Request,
    ending: str,
    papers: Sequence[Stored],
    changed: datetime | None,
    *,
    address: Callable[[str], str],
    title: str,
    subtitle: str,
    link: str | None = None,
) -> Response:
    """``papers`` as the feed that ``ending`` says, or 304. ``address``: the path of the view as a page ("") or under an
    ending; ``link``: the page, where that is another; ``changed``: when the feed last did (aware UTC). Where nobody
    notes that (None), it is since when this process has seen the feed as it is."""
    site = site_of(request)
    name = site.db.fact("site") or ""
    if not name:
        raise NotFoundError("this collection has no feeds yet: open it once with this nextvec where it can be written")
    base, configured = base_of(request)
    revised = site.db.revisions([stored.paper.id for stored in papers])
    items = syndication.entries(papers, revised, site=name, base=base)
    if changed is None:
        changed = site.kept.made(("feed seen", base, address(ending)), _Seen).since(repr((title, items)))
    form = FORMATS[ending]
    body = form.write(
        Feed(
            id=syndication.stable_id(name, address("")),
            title=f"{title} · nextvec papers",
            subtitle=subtitle,
            link=base + (link or address("")),
            address=base + address(ending),
            icon=f"{base}/static/favicon.svg",
            updated=max((entry.updated for entry in items), default=changed),
            entries=items,
        )
    )
    return conditional(request, body, form.media_type, changed, shared=configured)


class _Seen:
    """What a feed held when it was last asked for, and since when."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._digest = b""
        self._at = _now()

    def since(self, held: str) -> datetime:
        """Since when it has held this, as far as this process knows (whole seconds)."""
        digest = hashlib.sha256(held.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            if digest != self._digest:
                self._digest, self._at = digest, _now().replace(microsecond=0)
            return self._at


def _now() -> datetime:
    return datetime.now(UTC)


def _about(view: View) -> str:
    """One sentence for the readers of a feed."""
    return {
        "daily": "Machine-learning papers by day, the newest day first.",
        "trending": f"Papers by votes that count half after every {view.own} {'day' if view.own == '1' else 'days'}.",
        "rising": f"Papers by the votes they gained in the last {view.own} {'day' if view.own == '1' else 'days'}.",
        "discussed": "The papers with the most comments"
        + (f", of the last {view.own} days." if view.own != "all" else "."),
        "new": "Papers in the order in which they came.",
    }.get(view.kind, f"Machine-learning papers of {view.title}.")


def changed_at(site: Site, *, voted: bool = True) -> datetime:
    """When a paper last changed (aware UTC, whole seconds); ``voted``: or got a vote or a comment here."""
    facts = site.db.facts("changed", "activity")
    moments = [facts.get("changed", ""), facts.get("activity", "").partition(" ")[0] if voted else ""]
    moment = max((datetime.fromisoformat(text) for text in moments if text), default=datetime(2000, 1, 1))
    return moment.replace(tzinfo=UTC, microsecond=0)


def conditional(request: Request, body: bytes, media_type: str, changed: datetime, *, shared: bool) -> Response:
    """``body``, or 304 where the client has it. ``shared``: whether caches that serve many may keep it.

    An address taken from the Host header is for the one who sent it. The body is packed here and not on the way out:
    a strong ETag must tell the packed bytes from the plain ones.
    """
    packed = "gzip" in request.headers.get("accept-encoding", "")
    digest = hashlib.sha256(body).hexdigest()[:32]
    tags = [f'"{digest}"', f'"{digest}-gzip"']
    if packed:
        body = gzip.compress(body, 6, mtime=0)
    # Another change may follow in the second of this one, with the same date (RFC 9110, 8.8.2.2).
    modified = changed if _now() - changed >= timedelta(seconds=1) else changed - timedelta(seconds=1)
    headers = {
        "ETag": tags[1 if packed else 0],
        "Last-Modified": format_datetime(modified, usegmt=True),
        "Cache-Control": f"{'public' if shared else 'private'}, max-age={_FRESH}",
        "Vary": "Accept-Encoding",
    }
    if _fresh(request, tags, changed):
        return Response(status_code=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    headers |= {"Content-Type": f"{media_type}; charset=utf-8", "Content-Length": str(len(body))}
    return Response(b"" if request.method == "HEAD" else body, headers=headers)


def _fresh(request: Request, tags: list[str], changed: datetime) -> bool:
    """Whether the client's conditions say that it has this; the date counts only without an ETag (RFC 9110, 13.2.2)."""
    known = request.headers.get("if-none-match")
    if known is not None:
        return known.strip() == "*" or any(tag in tags for tag in re.findall(r'"[^"]*"', known))
    since = request.headers.get("if-modified-since")
    if not since:
        return False
    try:
        moment = parsedate_to_datetime(since)
    except ValueError:
        return False
    return changed <= (moment if moment.tzinfo else moment.replace(tzinfo=UTC))


# -- addresses: feeds first, or a day would take their endings for its own -----------------------------------------
def _add(path: str, kind: Kind, ending: str | None) -> None:
    def keyed(request: Request, key: str) -> Response:
        with site_of(request).db.snapshot_held():
            return _feed(request, kind, ending, key) if ending else _view_page(request, kind, key)

    def plain(request: Request) -> Response:
        return keyed(request, "")

    endpoint: Callable[..., Response] = keyed if "{key}" in path else plain
    router.add_api_route(f"{path}.{ending}" if ending else path, endpoint, methods=_GET, response_class=Response)


for _ending in (*FORMATS, None):
    for _folder, _kind in _FOLDERS.items():
        _add(f"/papers/{_folder}/{{key}}", _kind, _ending)
    for _name in ("trending", "rising", "discussed", "new"):
        _add(f"/papers/{_name}", _name, _ending)
    if _ending:
        _add("/papers/daily", "daily", _ending)
