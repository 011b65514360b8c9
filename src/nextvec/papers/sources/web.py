"""The pages of papers in: handing a paper in, what became of it, and what a paper's page tells of its sources."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from nextvec.papers.db_errors import BusyDatabaseError
from nextvec.papers.rate import RateLimit, network
from nextvec.papers.records import Paper
from nextvec.papers.responses import page, site_of
from nextvec.papers.site import Site
from nextvec.papers.sources import intake, moderation, queue, snapshots
from nextvec.papers.sources.ids import address_of, names_of_id
from nextvec.papers.sources.links import MAX_LINK, read_link
from nextvec.papers.sources.tables import NAMES
from nextvec.types import ConflictError, GoneError, InputError, NextvecError, NotFoundError, StorageError

__all__ = ["about", "find", "join", "router"]

PER_MINUTE = 6
"""Links that one client may hand in per minute."""
_BODY = 4_096
_SHOWN = 20
_TITLES = {
    "arxiv": "arXiv",
    "acl": "ACL Anthology",
    "hf_daily": "Hugging Face Daily Papers",
    "daily_papers": "Hugging Face Daily Papers, as bundled",
    "bibtex": "a BibTeX file",
    "file": "a file",
    "earlier": "taken in before sources were noted",
}
router = APIRouter()


def join(app: FastAPI) -> None:
    """Add the pages to the site."""
    app.state.submit_limit = RateLimit(PER_MINUTE)
    app.state.jinja.globals["can_submit"] = _open(app.state.site)
    app.include_router(router)


def _open(site: Site) -> bool:
    """Whether anything can be written down."""
    return not site.db.read_only and os.access(site.home, os.W_OK)


# -- a paper's page ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Told:
    """Who gave a paper: ``name`` of the source, ``fields`` that come from it, when it was first seen (a day)."""

    name: str
    fields: str
    seen: Any


def find(site: Site, identifier: str) -> str | None:
    """Where a paper is now that is not under ``identifier``; None where nothing is known of it. GoneError for one that
    was taken away."""
    try:
        found = moderation.away(site.db, identifier)
    except StorageError:
        if site.db.read_only:  # made by an older nextvec: nothing was taken away there
            return None
        raise
    if found is None:
        return None
    if found.state != "merged":
        raise GoneError(f"the paper {identifier[:80]!r} was taken away: {found.reason}")
    return found.target


def about(site: Site, paper: Paper) -> dict[str, Any]:
    """What the page of ``paper`` shows of its sources: ``spark``, ``since`` (the day of its first point),
    ``elsewhere`` (name, address), ``told``."""
    own = set(names_of_id(paper.id)) if paper.is_arxiv else set()
    try:
        with site.db.read() as connection:
            points = snapshots.history(connection, paper.id)
            given = intake.given_to(connection, [paper.id])
            names = sorted(connection.execute(NAMES.select().where(NAMES.c.paper == paper.id)).scalars())
    except StorageError:
        if not site.db.read_only:
            raise
        return {"spark": "", "since": None, "elsewhere": [], "told": []}
    return {
        "spark": snapshots.spark(points),
        "since": points[0].day if points else None,
        "elsewhere": [address_of(name) for name in names if name not in own],
        "told": [
            Told(_TITLES.get(one.source, one.source), ", ".join(_said(one.fields)), one.first_seen) for one in given
        ],
    }


def _said(fields: tuple[str, ...]) -> list[str]:
    """The fields as people call them; where the paper says it is from needs no telling here."""
    words = {
        "summary": "abstract", "published_at": "date", "listed_at": "listing", "daily_date": "feed day",
        "num_comments": "comments", "upvotes": "votes", "github_repo": "code", "github_stars": "stars",
        "project_page": "project", "submitted_by": "submitter", "organization": "organisation",
    }  # fmt: skip
    return [words.get(name, name) for name in fields if name != "source"]


# -- handing in ----------------------------------------------------------------------------------------------------
@router.api_route("/submit", methods=["GET", "HEAD"])
def form(request: Request) -> Response:
    return _form(request)


def _form(request: Request, link: str = "", problem: str = "", status: int = 200) -> Response:
    site = site_of(request)
    ready = _open(site)
    context = {
        "active": "submit",
        "open": ready,
        "link": link[:MAX_LINK],
        "problem": problem[:1].upper() + problem[1:],
        "max_link": MAX_LINK,
        "recent": queue.listed(site.db, limit=_SHOWN) if ready else [],
    }
    return page(request, "submit.html", context, status=status)


@router.post("/submit")
async def hand_in(request: Request) -> Response:
    site = site_of(request)
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise InputError("a paper can be handed in from the site's own page only: open /submit")
    if not _open(site):
        raise InputError("this site is on a read-only disk: no paper can be handed in")
    link = await _link(request)
    verdict = request.app.state.submit_limit.take(network(request.client.host if request.client else None))
    if not verdict.allowed:
        told = f"that were many links at once: try again in {verdict.wait} seconds"
        response = await run_in_threadpool(_form, request, link, told, 429)
        response.headers.update(verdict.headers())
        return response
    try:
        identifier = read_link(link)
        return await run_in_threadpool(_accept, site, identifier)
    except BusyDatabaseError:
        raise
    except (InputError, ConflictError) as error:
        status = 400 if isinstance(error, InputError) else 409
        return await run_in_threadpool(_form, request, link, str(error), status)


def _accept(site: Site, identifier: str) -> Response:
    """To the paper, where it is here already, else into the queue and to the page that tells how it goes on."""
    elsewhere = moderation.away(site.db, identifier)
    known = identifier if site.db.get(identifier) else elsewhere.target if elsewhere else None
    if known:
        return RedirectResponse(f"/papers/{known}", status_code=303)
    queue.submit(site.db, identifier)
    return RedirectResponse(f"/submit/{identifier}", status_code=303)


async def _link(request: Request) -> str:
    """The field ``link`` of a form of at most 4 kB."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InputError(f"the form came as {kind[:60] or 'nothing'!r}; expected application/x-www-form-urlencoded")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY:
            raise InputError(f"the form has more than {_BODY:,} bytes; a link is enough")
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        raise InputError("the form has too many fields; a link is enough") from None
    return fields.get("link", [""])[0]


@router.api_route("/submit/{identifier:path}", methods=["GET", "HEAD"])
def state(request: Request, identifier: str) -> Response:
    site = site_of(request)
    try:
        found = queue.get(site.db, identifier[:64])
    except NextvecError:
        found = None
    if found is None:
        raise NotFoundError(f"nobody has handed in a paper {identifier[:60]!r}; /submit is the place to do it")
    there = site.db.get(found.id)
    target = found.id if there else None
    if there is None and found.state == "done":
        gone = moderation.away(site.db, found.id)
        target = gone.target if gone else None
    return page(request, "submission.html", {"active": "submit", "found": found, "target": target})
