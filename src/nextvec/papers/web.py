"""The site over HTTP: FastAPI, server-rendered pages that need no JavaScript, strict headers.

Every page is made from a ``Site`` by plain functions (``views``, ``search``); this file only reads addresses, calls
them and fills templates. The views of the collection and their feeds are in ``web_feeds``, the search is in
``web_search``.
"""

from __future__ import annotations

import re

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nextvec.papers import api_http, feed, opensearch, web_feeds, web_search
from nextvec.papers.accounts.guard import Accounts
from nextvec.papers.accounts.web import routers as accounts_routers
from nextvec.papers.accounts.web_papers import beside
from nextvec.papers.api import create_api
from nextvec.papers.api_page import endpoints
from nextvec.papers.bibtex import bibtex
from nextvec.papers.insight import web as web_insight
from nextvec.papers.insight.about import about as about_paper
from nextvec.papers.mail import routes as mail_routes
from nextvec.papers.mail.transport import Mailer
from nextvec.papers.markdown import markdown
from nextvec.papers.operations import web as operations
from nextvec.papers.operations.logs import note_failure
from nextvec.papers.pages import STATIC, environment
from nextvec.papers.records import ID_PATTERN
from nextvec.papers.responses import check_base, local_path
from nextvec.papers.responses import page as _page
from nextvec.papers.responses import site_of as _site
from nextvec.papers.search import paper_id
from nextvec.papers.site import Site
from nextvec.papers.sources import web as sources
from nextvec.types import NextvecError, NotFoundError

__all__ = ["create_app"]

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_GET = ["GET", "HEAD"]
router = APIRouter()


def create_app(
    site: Site,
    *,
    base: str | None = None,
    rate: int = 0,
    token_rate: int = 0,
    mailer: Mailer | None = None,
    secret: bytes | None = None,
    local_reader: bool = False,
    metrics: bool = False,
) -> FastAPI:
    """The application over an open ``site``.

    ``base``: where readers reach it, such as https://papers.example.org, for the whole addresses that feeds need;
    without it they follow the host that a request names. InputError for what is no such address. ``rate``: requests to
    /api per minute and client, ``token_rate``: per minute and token that may read; 0 for any number. ``mailer``: what
    sends digests and the links that readers sign in with; without it nobody can subscribe, and there are no accounts.
    ``secret``: what cookies, forms and links are signed with; by itself what ``load_secret`` gives. ``local_reader``:
    whoever asks at this machine's own address is signed in as its one reader, without mail. ``metrics``: give figures
    at /metrics, to whoever can reach it.
    """
    app = FastAPI(title="nextvec papers", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.site = site
    app.state.warmth = None  # whoever serves it for long gives it one
    app.state.base = check_base(base) if base is not None else None
    app.state.jinja = environment()
    app.state.mailer = mailer
    app.state.secret = secret
    app.state.accounts = Accounts(site, base=app.state.base, mailer=mailer, secret=secret, local=local_reader)
    app.add_middleware(GZipMiddleware, minimum_size=600, compresslevel=5)  # 9: half as long again, for 3 % less
    app.add_middleware(_Headers)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.mount("/api", create_api(site, app.state.accounts, rate=rate, token_rate=token_rate))
    app.include_router(web_feeds.router)
    app.include_router(mail_routes.router)
    for accounts_router in accounts_routers:
        app.include_router(accounts_router)
    sources.join(app)
    app.include_router(web_search.router)
    app.include_router(opensearch.router)
    app.include_router(web_insight.router)
    app.include_router(router)
    operations.join(app, metrics=metrics)
    app.add_exception_handler(NextvecError, _on_error)
    app.add_exception_handler(HTTPException, _on_error)
    app.add_exception_handler(Exception, _on_crash)
    return app


class _Headers:
    """Adds the headers of every answer. No ``BaseHTTPMiddleware``: that takes each through a task and a queue."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                _add_headers(headers)
                if scope["path"].startswith("/static/") and "v" in QueryParams(scope["query_string"]):
                    headers["Cache-Control"] = "public, max-age=31536000, immutable"
            await send(message)

        await self.app(scope, receive, sending)


def _add_headers(headers: MutableHeaders) -> None:
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)  # a page that needs another one says so itself


# -- pages ---------------------------------------------------------------------------------------------------------
@router.api_route("/about", methods=_GET)
def about(request: Request) -> Response:
    site = _site(request)
    counts = site.db.day_counts()
    context = {
        "active": "about",
        "papers": site.db.count(),
        "days": len(counts),
        "first": min(counts, default=None),
        "last": max(counts, default=None),
        "encoder": site.encoder.name,
        "dim": site.encoder.dim,
    }
    return _page(request, "about.html", context)


@router.api_route("/api", methods=_GET)
def interface(request: Request) -> Response:
    """What programs can ask for, for people."""
    site = str(request.base_url).rstrip("/")
    return _page(request, "api.html", {"active": "api", "endpoints": endpoints(), "site": site})


@router.api_route("/papers/{identifier:path}", methods=_GET)
def paper_page(request: Request, identifier: str) -> Response:
    site = _site(request)
    with site.db.snapshot_held():
        return _paper_page(request, site, identifier)


def _paper_page(request: Request, site: Site, identifier: str) -> Response:
    wants_markdown = identifier.endswith(".md")
    identifier = identifier.removesuffix(".md")
    stored = site.db.get(identifier) if ID_PATTERN.fullmatch(identifier) else None
    if stored is None:
        versionless = paper_id(identifier)
        if versionless and versionless != identifier and site.db.get(versionless):
            return RedirectResponse(f"/papers/{versionless}", status_code=301)
        if elsewhere := sources.find(site, identifier):
            return RedirectResponse(f"/papers/{elsewhere}{'.md' if wants_markdown else ''}", status_code=301)
        raise NotFoundError(f"there is no paper {identifier[:80]!r} in this collection")
    similar = site.similar(identifier, 8)
    if wants_markdown or re.search(
        r"text/markdown(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", request.headers.get("accept", "")
    ):
        text = markdown(stored.paper, similar)
        return PlainTextResponse(text, media_type="text/markdown", headers={"Vary": "Accept"})
    before, after = site.db.neighbours(stored)
    context = {
        "stored": stored,
        "paper": stored.paper,
        "similar": similar,
        "before": before,
        "after": after,
        "day": feed.day(stored.paper.daily_date) if stored.paper.daily_date else None,
        "bibtex": bibtex(stored.paper),
        "about": about_paper(site, stored, similar),
    }
    context |= sources.about(site, stored.paper)
    context |= beside(request, stored.paper)
    response = _page(request, "paper.html", context)
    response.headers["Vary"] += ", Accept"  # the address is that of the Markdown, too
    return response


@router.post("/theme")
def theme(request: Request) -> Response:
    """Remember light, dark or what the system says, and go back to the page."""
    response = RedirectResponse(local_path(request.query_params.get("next")), status_code=303)
    choice = request.query_params.get("to")
    if choice in ("light", "dark"):
        response.set_cookie("theme", choice, max_age=31_536_000, samesite="lax", httponly=True)
    else:
        response.delete_cookie("theme")
    return response


@router.api_route("/robots.txt", methods=_GET)
def robots() -> Response:
    return PlainTextResponse("User-agent: *\nDisallow: /search\nAllow: /\n")


@router.api_route("/favicon.ico", methods=_GET)
def favicon() -> Response:
    return Response((STATIC / "favicon.svg").read_bytes(), media_type="image/svg+xml")


# -- errors --------------------------------------------------------------------------------------------------------
_TITLES = {
    400: "That does not work",
    403: "Not allowed",
    404: "Not here",
    405: "Not that way",
    410: "Taken away",
    413: "That is too much",
    429: "A little slower, please",
    503: "The site cannot read its data",
}


async def _on_error(request: Request, error: Exception) -> Response:
    if request.url.path.startswith("/api/"):  # a path with a line break, which leads to no mount
        return await api_http.on_error(request, error)
    if isinstance(error, HTTPException):
        status = error.status_code
        message = "There is no page at this address." if status == 404 else str(error.detail)
    else:
        status, message = api_http.status_of(error), str(error)
    identifier = None
    if status == 503:
        message, identifier = api_http.unavailable(request, error)
    response = _error_page(request, status, message, identifier)
    response.headers.update(getattr(error, "headers", None) or {})  # Allow, for one
    return response


async def _on_crash(request: Request, error: Exception) -> Response:
    identifier = note_failure(request, error, crash=True)
    message = "Something went wrong on our side. The page may work again in a moment."
    response = _error_page(request, 500, message, identifier)
    _add_headers(response.headers)
    return response


def _error_page(request: Request, status: int, message: str, identifier: str | None = None) -> Response:
    message = message[:1].upper() + message[1:] + ("" if message.endswith((".", "?", "!")) else ".")
    title = _TITLES.get(status, "That did not work")
    context = {"status": status, "title": title, "message": message, "error_id": identifier}
    context["sent"] = request.method == "POST"
    return _page(request, "error.html", context, status=status)
