"""Readers for tests: a mailbox in memory, and browsers without JavaScript that sign in through it."""

from __future__ import annotations

import re
from email.message import EmailMessage
from html import unescape
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from nextvec.papers.site import Site
from nextvec.papers.web import create_app

BASE = "https://papers.example.org"
SECRET = b"a secret of the tests, long enough"


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

    def post(self, path: str, page: str = "/account", headers: Any = None, **fields: Any) -> Any:
        """Send a form with the token of ``page``."""
        return self.http.post(path, data={"token": self.token(page)} | fields, headers=headers)

    def comment(self, paper: str, text: str, parent: str = "") -> str:
        """The id of a new comment."""
        answer = self.post("/comments", paper=paper, text=text, parent=parent)
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"].rpartition("#comment-")[2])
