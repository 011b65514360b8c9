"""How the interface for programs speaks HTTP: answers with entity tags, errors as JSON, limits, other origins."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nextvec import __version__
from nextvec.papers.api_tokens import Checker, bearer, challenge
from nextvec.papers.db_errors import BusyDatabaseError
from nextvec.papers.kept import noting_older
from nextvec.papers.operations.logs import note_failure
from nextvec.papers.rate import RateLimit, Verdict, network
from nextvec.types import GoneError, InputError, NextvecError, NotFoundError

__all__ = ["Gate", "answer", "handle_errors", "next_link", "on_error", "problem", "status_of", "unavailable"]

_OPEN = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "ETag, Link, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "Accept, Accept-Language, Authorization, Content-Type, If-None-Match",
    "Access-Control-Max-Age": "86400",
}

Built = tuple[bytes, Mapping[str, str]]


def answer(request: Request, state: str, build: Callable[[], Built]) -> Response:
    """What ``build`` gives (JSON and further headers) under a strong entity tag, or 304 where the client has it.

    ``state`` names everything beside the address that the answer depends on. It has to be read before ``build`` runs:
    a change in between gives a newer body an older tag, which the next request replaces, never the other way round.
    Where ``build`` took a list of before the last change (``Site.steady``), there is no tag, and nothing is to be kept.
    """
    # A compressed body is another representation, and a strong tag belongs to one (RFC 9110, 8.8.3).
    packed = "gzip" in request.headers.get("accept-encoding", "")
    parts = [__version__, state, request.url.path, request.url.query]
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    tag = f'"{digest}{"-gzip" if packed else ""}"'
    headers = {"ETag": tag, "Cache-Control": "public, no-cache"}
    wanted = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    unchanged = Response(status_code=304, headers=headers | {"Vary": "Accept-Encoding"})  # others: by GZipMiddleware
    if tag in wanted:
        return unchanged
    with noting_older() as noted:
        body, further = build()
    if noted:
        headers = {"Cache-Control": "no-store"}
    if "*" in wanted:  # whatever there is: known only now that there is something
        return unchanged
    return Response(body, media_type="application/json", headers=headers | dict(further))


def next_link(request: Request, **changes: str) -> str:
    """A ``Link`` header that leads to this address with other parameters; absolute, as clients expect it."""
    url = request.url.include_query_params(**changes)
    host = request.headers.get("host", "")
    if not re.fullmatch(r"[A-Za-z0-9.:\[\]_-]{1,260}", host):  # what cannot be an address is not repeated
        return f'<{url.path}?{url.query}>; rel="next"'
    return f'<{url}>; rel="next"'


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as the interface tells it."""
    line = " ".join(message.split())
    body = json.dumps({"error": line}, ensure_ascii=False).encode("utf-8", "replace")
    told = {"Cache-Control": "no-store"} | dict(headers or {})
    return Response(body, status, media_type="application/json", headers=told)


def handle_errors(app: FastAPI) -> None:
    """Give ``app`` JSON for every error."""
    for kind in (NextvecError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, on_error)
    app.add_exception_handler(Exception, _on_crash)


async def on_error(request: Request, error: Exception) -> Response:
    """The answer to an error that is no bug."""
    if isinstance(error, HTTPException):
        if error.status_code == 405:
            allowed = _allowed(request)
            message = f"{request.method} is not possible here; use {' or '.join(allowed)}"
            return problem(405, message, {"Allow": ", ".join(allowed)})
        message = "there is nothing at this address; /api lists what there is"
        return problem(error.status_code, message if error.status_code == 404 else str(error.detail), error.headers)
    if isinstance(error, RequestValidationError):
        return problem(400, _complaint(error))
    status = status_of(error)
    if status == 503:
        message, identifier = unavailable(request, error)
        return problem(status, f"{message} (error {identifier})", {"X-Error-Id": identifier})
    return problem(status, str(error))


def unavailable(request: Request, error: Exception) -> tuple[str, str]:
    """(What a visitor reads of a failure on our side, the id under which the log has its message.)

    The message itself is for whoever runs the site: it may name a path, a database or a host.
    """
    identifier = note_failure(request, error, crash=False)
    if isinstance(error, BusyDatabaseError):
        return "the site is busy with another writer: try again in a moment", identifier
    return "the site cannot use its data at the moment: try again in a minute", identifier


def _allowed(request: Request) -> list[str]:
    """What can be done at this address: several routes may lead there, each for a method."""
    asked = [(method, {**request.scope, "method": method}) for method in ("GET", "HEAD", "POST", "DELETE")]
    routes = request.app.routes
    found = [method for method, scope in asked if any(route.matches(scope)[0] is Match.FULL for route in routes)]
    return found or ["GET", "HEAD"]


def status_of(error: Exception) -> int:
    """The HTTP status that tells an error a user can act on."""
    statuses = ((InputError, 400), (GoneError, 410), (NotFoundError, 404))
    return next((status for kind, status in statuses if isinstance(error, kind)), 503)


async def _on_crash(request: Request, error: Exception) -> Response:
    identifier = note_failure(request, error, crash=True)
    message = "something went wrong on our side; the same request may work again in a moment"
    return problem(500, f"{message} (error {identifier})", {"X-Error-Id": identifier})


def _complaint(error: RequestValidationError) -> str:
    first = error.errors()[0]
    name, came = first["loc"][-1], f"{first.get('input')!s:.40}"
    expected = first["msg"].replace("Input should", "it should")
    return f"{name} is {came!r}; {expected}"


class Gate:
    """In front of the interface: other origins may read it, tokens are looked up, and each client comes only so often.

    ``limit``, ``token_limit``: for a client without a token that may read, and for such a token; None: as often as it
    likes.
    """

    def __init__(
        self, app: ASGIApp, check: Checker, limit: RateLimit | None = None, token_limit: RateLimit | None = None
    ) -> None:
        self.app = app
        self.check = check
        self.limit = limit
        self.token_limit = token_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        further = dict(_OPEN)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(status_code=204, headers=further | _PREFLIGHT)(scope, receive, send)
            return
        token, refused = await self._token(scope, bearer(headers.get("authorization")))
        verdict = self._take(scope, token)
        if verdict is not None:
            further |= verdict.headers()
            if not verdict.allowed:
                message = f"more than {verdict.limit} requests in a minute; try again in {verdict.wait} s"
                await problem(429, message, further)(scope, receive, send)
                return
        if refused is not None:
            if isinstance(refused, InputError):
                told = problem(401, str(refused), further | challenge("invalid_token", str(refused)))
            else:
                told = await on_error(Request(scope), refused)
                told.headers.update(further)
            await told(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = MutableHeaders(scope=message)
                for name, value in further.items():  # an endpoint with a limit of its own has told of that one
                    told.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)

    async def _token(self, scope: Scope, word: str | None) -> tuple[str | None, NextvecError | None]:
        """The id of the token that may read and came with a request, if one did, and why one that came is refused.

        Who asks is noted for the endpoints."""
        if word is None:
            return None, None
        try:
            asking = await run_in_threadpool(self.check, word)
        except NextvecError as error:
            return None, error
        scope.setdefault("state", {})["asking"] = asking
        return asking.token.id if "read" in asking.token.scopes else None, None

    def _take(self, scope: Scope, token: str | None) -> Verdict | None:
        client = token or network((scope.get("client") or [None])[0])
        limit = self.limit if token is None else self.token_limit
        return None if limit is None else limit.take(client)
