"""A mail server that delivers nothing: what comes in is listed, kept as files and shown on a page of this machine.

For development: `nextvec papers mail --catch`, and `--mail catch` where mail is sent. Needs the ``mail`` extra.
"""

from __future__ import annotations

import email.policy
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles

from nextvec.extras import require
from nextvec.files import atomic_write
from nextvec.papers.pages import STATIC, environment
from nextvec.papers.records import clean
from nextvec.types import InputError, NotFoundError

__all__ = ["Caught", "Mailbox", "catching", "create_page"]

_LARGEST = 10_000_000  # bytes of a mail
_PAGE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; font-src 'self'; img-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
# Whatever a mail holds runs nothing, loads nothing and reaches nobody.
_SANDBOX = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Caught:
    """One mail. ``sender`` and ``recipients`` are those of the envelope, which headers need not repeat."""

    number: int
    sender: str
    recipients: tuple[str, ...]
    received: datetime
    path: Path
    message: EmailMessage

    def part(self, kind: str) -> str:
        """The text of its HTML (``html``) or plain (``plain``) part; nothing where there is none."""
        body = self.message.get_body((kind,))
        try:
            return str(body.get_content()) if body is not None else ""
        except (LookupError, UnicodeError):  # a character set that nobody knows
            return ""

    @property
    def subject(self) -> str:
        return clean(str(self.message.get("Subject", ""))) or "(no subject)"


class Mailbox:
    """Everything that came in since the start, in ``folder`` as ``0001.eml`` and so on."""

    def __init__(self, folder: Path, *, came: Callable[[Caught], None] = lambda mail: None) -> None:
        self.folder, self._came = folder, came
        self.mails: list[Caught] = []
        folder.mkdir(parents=True, exist_ok=True)
        names = [int(path.stem) for path in folder.glob("*.eml") if path.stem.isdigit()]
        self._first = max(names, default=0) + 1  # what an earlier start kept stays as it is

    def add(self, sender: str, recipients: list[str], content: bytes) -> Caught:
        """Keep one mail. StorageError where the disk refuses."""
        number = self._first + len(self.mails)
        path = self.folder / f"{number:04d}.eml"
        with atomic_write(path) as stream:
            stream.write(content)
        message = BytesParser(policy=email.policy.default).parsebytes(content)
        caught = Caught(number, sender, tuple(recipients), datetime.now(UTC), path, message)
        self.mails.append(caught)
        self._came(caught)
        return caught

    def get(self, number: int) -> Caught:
        """One mail. NotFoundError for a number that is none."""
        place = number - self._first
        if not 0 <= place < len(self.mails):
            raise NotFoundError(f"there is no mail {number} here")
        return self.mails[place]

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """What aiosmtpd calls for each mail."""
        self.add(envelope.mail_from or "", list(envelope.rcpt_tos), envelope.original_content)
        return "250 2.0.0 caught"


def catching(mailbox: Mailbox, *, host: str = "127.0.0.1", port: int) -> Any:
    """An SMTP server over ``mailbox``, started in a thread; call ``stop()`` on it at the end.

    MissingExtraError without aiosmtpd, InputError where the port is taken.
    """
    controller = require("aiosmtpd.controller", why="the capture server").Controller(
        mailbox, hostname=host, port=port, data_size_limit=_LARGEST
    )
    try:
        controller.start()
    except OSError as error:
        raise InputError(
            f"cannot catch mail on {host}:{port}: {error.strerror or error}; choose another --port"
        ) from error
    return controller


def create_page(mailbox: Mailbox) -> FastAPI:
    """The pages that show a mailbox: a list, each mail with its headers, its HTML in a sandbox, its text."""
    page = FastAPI(title="caught mail", docs_url=None, redoc_url=None, openapi_url=None)
    page.mount("/static", StaticFiles(directory=STATIC), name="static")
    jinja = environment()

    def filled(**context: Any) -> Response:
        return HTMLResponse(
            jinja.get_template("mail/caught.html").render(mails=mailbox.mails, **context), headers=_PAGE
        )

    @page.get("/")
    def listed() -> Response:
        return filled(mail=None)

    @page.get("/mail/{number}")
    def one(number: int) -> Response:
        return filled(mail=mailbox.get(number))

    @page.get("/mail/{number}/html")
    def html(number: int) -> Response:
        return HTMLResponse(mailbox.get(number).part("html"), headers=_SANDBOX)

    @page.get("/mail/{number}/raw")
    def raw(number: int) -> Response:
        return PlainTextResponse(mailbox.get(number).path.read_bytes().decode("utf-8", "replace"), headers=_PAGE)

    @page.exception_handler(NotFoundError)
    async def absent(request: Request, error: NotFoundError) -> Response:
        return PlainTextResponse(f"{error}\n", status_code=404, headers=_PAGE)

    return page
