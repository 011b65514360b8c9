"""Readers for tests: a mailbox in memory, and browsers without JavaScript that sign in through it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from email.message import EmailMessage
from html import unescape
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from databases import copy_home
from fakes import HashEncoder
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from starlette.routing import Mount

from nextvec.papers.accounts import signing_in
from nextvec.papers.accounts.readers import Reader, enter
from nextvec.papers.db import Database
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.web import create_app

BASE = "https://papers.example.org"
SECRET = b"a secret of the tests, long enough"
DAY = date(2025, 3, 1)


class Mailbox:
    """Keeps what is sent; ``broken``: refuses it."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.broken = False

    def send(self, message: EmailMessage) -> None:
        if self.broken:
            raise ConnectionError("no route to the mail server")
        self.messages.append(message)

    def link(self) -> str:
        """The link of the last mail, without the site's address."""
        found = re.search(rf"{BASE}(/sign-in/link\?token=\S+)", self.messages[-1].get_content())
        assert found, self.messages[-1].get_content()
        return found.group(1)


def make_app(site: Site, mailbox: Mailbox | None = None, **more: Any) -> FastAPI:
    return create_app(site, base=BASE, mailer=mailbox or Mailbox(), secret=SECRET, **more)


class Person:
    """Somebody at the site."""

    def __init__(self, app: FastAPI, email: str = "", *, base: str = BASE) -> None:
        self.http = TestClient(app, base_url=base, follow_redirects=False, raise_server_exceptions=False)
        self.mailbox: Any = app.state.accounts.mailer
        if email:
            self.sign_in(email)

    def sign_in(self, email: str, *, back: str = "/") -> Any:
        answer = self.post("/sign-in", "/sign-in", email=email, next=back)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in/sent"), answer.text
        link = self.mailbox.link()
        answer = self.post("/sign-in/link", link, link=link.partition("token=")[2])
        assert answer.status_code == 303, answer.text
        return answer

    def token(self, page: str = "/account") -> str:
        """The token of the forms on ``page``."""
        found = re.search(r'name="token" value="([^"]*)"', self.http.get(page).text)
        return unescape(found.group(1)) if found else ""

    def get(self, path: str, **more: Any) -> Any:
        return self.http.get(path, **more)

    def enter(self, email: str) -> Reader:
        """Be signed in as the reader with this address, without the way through the mail."""
        accounts = self.http.app.state.accounts  # type: ignore[attr-defined]
        token = signing_in.make_link(accounts.site.db, email, "/")
        reader, session, _ = signing_in.redeem(accounts.site.db, token or "")
        answer = Response()
        accounts.open(answer, session)
        value = answer.headers["set-cookie"].partition("=")[2].partition(";")[0]
        self.http.cookies.set(accounts.session_cookie, value, domain="papers.example.org")
        return reader

    def post(self, path: str, page: str = "/account", headers: Any = None, **fields: Any) -> Any:
        """Send a form with the token of ``page``."""
        return self.http.post(path, data={"token": self.token(page)} | fields, headers=headers)

    def comment(self, paper: str, text: str, parent: str = "") -> str:
        """The id of a new comment."""
        answer = self.post("/comments", paper=paper, text=text, parent=parent)
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"].rpartition("#comment-")[2])


def papers(count: int = 8) -> list[Paper]:
    """Papers of three days, two organisations and three topics."""
    return [
        Paper(
            id=f"p{i}",
            title=f"Paper {i} on latent plans",
            summary=f"Words of topic{i % 3}.",
            authors=("Ada Lovelace", f"Author {i}"),
            organization=("Analytical Engines", "Other Works")[i % 2],
            upvotes=i,
            num_comments=1,
            daily_date=DAY - timedelta(days=i % 3),
        )
        for i in range(count)
    ]


def copied(filled: Path, folder: Path) -> Site:
    """An open site over a copy of the home ``filled``."""
    return Site(copy_home(filled, folder), encoder=HashEncoder())


def state(site: Site) -> dict[str, Any]:
    """Every row of the database but what only looking at pages may change: nothing."""
    with site.db.read() as connection:
        tables = sa.inspect(connection).get_table_names()
        return {name: sorted(map(repr, connection.execute(sa.text(f"SELECT * FROM {name}")))) for name in tables}


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """(method, path) of everything that the application answers to; files and HEAD left out."""

    def walk(found: Any, prefix: str) -> Iterator[tuple[str, str]]:
        for route in found:
            inner = getattr(route, "original_router", None) or (route.app if isinstance(route, Mount) else None)
            if inner is not None:
                yield from walk(getattr(inner, "routes", []), prefix + getattr(route, "path", ""))
            else:
                yield from ((method, prefix + route.path) for method in route.methods - {"HEAD"})

    return sorted(set(walk(app.routes, "")))


def join(db: Database, email: str) -> Reader:
    """A reader with this address."""
    with db.write() as connection:
        return enter(connection, email)


def of(db: Database, paper: str) -> Paper:
    """A paper as everybody sees it."""
    stored = db.get(paper)
    assert stored is not None
    return stored.paper
