"""Around the whole application: how long each answer took, for the figures and the log."""

from __future__ import annotations

import logging
import time
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nextvec.papers.operations.logs import error_id, route_of
from nextvec.papers.operations.metrics import Metrics, search_kind

__all__ = ["INSIDE", "Watch"]

_log = logging.getLogger("nextvec.papers")
_ASKED = {"q", "like", "text"}
INSIDE = "nextvec.inside"
"""In the scope of a request that the site makes of itself: no reader's, neither counted nor logged."""


class Watch:
    """Measures every request; writes a line about it where the log takes such lines."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or INSIDE in scope:
            await self.app(scope, receive, send)
            return
        start, status, size = time.perf_counter(), 500, 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, counted)
        except Exception:
            status = 500
            error_id(scope)  # for the line below; the page of the error is made outside, and shows the same
            raise
        finally:
            self._note(scope, status, time.perf_counter() - start, size)

    def _note(self, scope: Scope, status: int, seconds: float, size: int) -> None:
        route = route_of(scope)
        searched = search_kind(route) is not None and _asks(scope["query_string"])
        self.metrics.observe(scope["method"], route, status, seconds, searched=searched)
        if not _log.isEnabledFor(logging.INFO):
            return
        method = scope["method"] if scope["method"].isalpha() else "?"
        fields = {"method": method[:16], "route": route, "status": status, "ms": round(seconds * 1000, 1)}
        fields["bytes"] = size
        if identifier := scope.get("state", {}).get("error_id"):
            fields["error"] = identifier
        _log.info("request", extra={"fields": fields})


def _asks(query: bytes) -> bool:
    pairs = parse_qsl(query.decode("latin-1"), max_num_fields=None)
    return any(name in _ASKED and value.strip() for name, value in pairs)
