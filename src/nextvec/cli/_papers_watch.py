"""Options of ``nextvec papers serve`` for whoever watches the site: figures and logs."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

import typer

from nextvec.cli.console import note

__all__ = ["LogOption", "MetricsOption", "ends_in_order", "gives_metrics", "logs_lines", "say", "write_log"]

MetricsOption = Annotated[
    bool | None,
    typer.Option(
        "--metrics/--no-metrics",
        help="Give figures at /metrics. By itself only where nobody but this machine can ask for them.",
        show_default=False,
    ),
]
LogOption = Annotated[
    str | None,
    typer.Option("--log", help="Write a line for each request to standard error: json or text.", show_default=False),
]


def gives_metrics(asked: bool | None, host: str, url: str | None) -> bool:
    """Whether /metrics answers. Figures name nobody, but how much a site is used is its operator's to tell: they are
    for this machine alone unless asked for. A site with an address elsewhere is reached through a proxy, also where it
    listens on this machine only."""
    if asked is not None:
        return asked
    return _inside(host) and (url is None or _inside(urlsplit(url).hostname or ""))


def write_log(form: str | None) -> None:
    """Begin to write the log in a form; None: only errors, as they come. InputError for an unknown one."""
    if form is not None:
        from nextvec.extras import require

        require("fastapi", why="the paper-discovery site")
        from nextvec.papers.operations.logs import set_up

        set_up(form)


def logs_lines() -> bool:
    """Whether the log takes a line for each request."""
    return logging.getLogger("nextvec.papers").isEnabledFor(logging.INFO)


@contextlib.contextmanager
def ends_in_order() -> Iterator[None]:
    """Let SIGTERM, with which services and containers are stopped, end the server and not the process: uvicorn answers
    what is in hand and then raises the signal anew, which would leave a mail that is being sent in doubt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def say(message: str) -> None:
    """What a person at the terminal should know, as a line of the log where there is one."""
    if logs_lines():
        logging.getLogger("nextvec.papers").info(message)
    else:
        note(message)


def _inside(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
