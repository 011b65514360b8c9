"""What every page and feed of the site needs of a request: the site, a filled template, its own whole address."""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse

from nextvec.papers import languages
from nextvec.papers.search import MAX_QUERY
from nextvec.papers.site import Site
from nextvec.types import InputError

__all__ = ["base_of", "check_base", "local_path", "page", "site_of"]

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")


def site_of(request: Request) -> Site:
    """The open site."""
    return cast(Site, request.app.state.site)


def page(request: Request, template: str, context: dict[str, Any], *, status: int = 200) -> HTMLResponse:
    """``template`` with ``context`` and what all pages show."""
    theme = request.cookies.get("theme")
    address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    base: dict[str, Any] = {
        "theme": theme if theme in ("light", "dark") else None,
        "here": address if len(address) < 2_000 else "/",
        "max_query": MAX_QUERY,
        "active": "",
        "query": "",
        "inbox": request.app.state.mailer is not None and not site_of(request).db.read_only,
    }
    visitor = request.app.state.accounts.visitor(request)
    base["visitor"] = visitor
    keep = "private, no-cache" if visitor and visitor.reader else "no-cache"
    # The language is known to the template alone: what a request works out and keeps for others is in no language.
    with languages.speaking(languages.negotiated(request.headers.get("accept-language"))):
        html = request.app.state.jinja.get_template(template).render(base | context)
    headers = {"Vary": "Cookie, Accept-Language", "Cache-Control": keep}
    return HTMLResponse(html, status_code=status, headers=headers)


def local_path(text: str | None) -> str:
    """``text`` where it is a path of this site, else the first page: "//host" and "/\\host" would lead away."""
    target = text or "/"
    return target if re.fullmatch(r"/(?:[^/\\\s][^\s]*)?", target) and len(target) <= 2_000 else "/"


def check_base(text: str) -> str:
    """The address of a site without a slash at its end. InputError where it is not http(s)://host[:port]."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or parts.path.strip("/") or not _HOST.fullmatch(parts.netloc) or port == 0:
        raise InputError(
            f"the address of the site is {text[:80]!r}; expected http(s)://host or http(s)://host:port without a path"
        )
    if parts.query or parts.fragment:
        raise InputError(f"the address of the site is {text[:80]!r}; leave out what follows the host")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def base_of(request: Request) -> tuple[str, bool]:
    """(the site's address without a slash at its end, whether it was configured and not taken from the request).

    The Host header is what the client says: only the form of a host with or without a port is let through, so that
    nothing else reaches a document. InputError otherwise.
    """
    configured = request.app.state.base
    if configured:
        return cast(str, configured), True
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise InputError(f"the Host header is {host[:80]!r}; expected a host name, with or without a port")
    return f"{request.url.scheme}://{host.lower()}", False
