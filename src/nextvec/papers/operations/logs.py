"""What the site writes about its work: a line for each request if asked for, errors always, nothing about people.

A line names the template of a route: an address may hold the words of a link or of a search. It holds no address of a
client and nothing that a browser says of itself.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

from starlette.requests import Request

from nextvec.types import InputError

__all__ = ["FORMATS", "error_id", "note_failure", "route_of", "set_up"]

FORMATS = ("json", "text")
_log = logging.getLogger("nextvec.papers")


def set_up(form: str, stream: TextIO | None = None) -> logging.Handler:
    """Write the log as ``json`` (an object on each line) or ``text`` to standard error. InputError for another form."""
    if form not in FORMATS:
        raise InputError(f"the log format is {form[:40]!r}; expected {' or '.join(FORMATS)}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.addHandler(handler)
    _log.setLevel(logging.INFO)
    return handler


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        said = " ".join(f"{name}={value}" for name, value in fields.items())
        line = " ".join(part for part in (_time(record), record.levelname.lower(), record.getMessage(), said) if part)
        # One line is one event, but for the traceback that belongs to it.
        line = line.replace("\r", "\\r").replace("\n", "\\n")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")


def route_of(scope: MutableMapping[str, Any]) -> str:
    """The template of the route that a request was led to: "/papers/{identifier:path}"; what is behind a mount without
    one is "/static/*", what leads nowhere is "unmatched"."""
    root = scope.get("root_path", "")
    path = getattr(scope.get("route"), "path", None)
    if path is not None:
        return f"{root}{path}"
    return f"{root}/*" if root else "unmatched"


def error_id(scope: MutableMapping[str, Any]) -> str:
    """The word under which an error of this request is found in the log; the first call makes it."""
    state: dict[str, Any] = scope.setdefault("state", {})
    return str(state.setdefault("error_id", secrets.token_hex(4)))


def note_failure(request: Request, error: Exception, *, crash: bool) -> str:
    """Write down that a request failed on our side, with the traceback of a crash; the id that its page shows."""
    identifier, route = error_id(request.scope), route_of(request.scope)
    state = request.scope["state"]
    if state.get("error_noted"):  # a crash below /api comes by twice: there, and on its way out
        return identifier
    state["error_noted"] = True
    _log.error(
        "request failed (error %s, %s): %s",
        identifier,
        route,
        type(error).__name__ if crash else error,
        exc_info=error if crash else None,
        extra={"fields": {"error": identifier, "route": route}},
    )
    return identifier
