"""Tokens over HTTP (RFC 6750): who asks with one, and whether it is for what is asked. No cookie plays a part, so that
no page of another site can ask in a reader's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from nextvec.papers.accounts import tokens
from nextvec.papers.accounts.guard import Accounts
from nextvec.papers.accounts.readers import Reader
from nextvec.papers.accounts.tokens import SCOPES, Scope, Token
from nextvec.papers.site import Site
from nextvec.types import InputError, NotFoundError

__all__ = ["SCHEME", "Asking", "Checker", "ForLists", "ForVotes", "bearer", "challenge"]

SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token that a reader makes on the page /account. Scopes: "
    + "; ".join(f"`{scope}`: {about[0].lower()}{about[1:]}" for scope, about in SCOPES.items())
    + ".",
}
_REALM = 'Bearer realm="nextvec papers"'
_OF_THE_HUB = "hf_"


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks with which token, and of which accounts."""

    accounts: Accounts
    reader: Reader
    token: Token

    @property
    def site(self) -> Site:
        return self.accounts.site


class Checker:
    """What looks tokens up. ``accounts``: of the site."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts

    def __call__(self, word: str) -> Asking:
        """Who asks with ``word``. InputError for a token that does not work, and on a site without accounts."""
        if self.accounts.off:
            raise InputError(f"no token is known here: {self.accounts.off}")
        token, reader = tokens.check(self.accounts.site.db, word)
        return Asking(self.accounts, reader, token)


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header; None where there is none.

    Another scheme is a proxy's business, and a token of the Hub is what its client sends everywhere: neither asks this
    site for anything.
    """
    match = re.fullmatch(r"(?i:bearer) +(\S.*)", (header or "").strip())
    word = match.group(1) if match else None
    return None if word is None or word.startswith(_OF_THE_HUB) else word


def challenge(error: str = "", message: str = "", scope: str = "") -> dict[str, str]:
    """The header that goes with 401 and 403: what was wrong, as programs read it."""
    fields = {"error": error, "error_description": message.replace('"', "'"), "scope": scope}
    said = [f'{name}="{value}"' for name, value in fields.items() if value]
    return {"WWW-Authenticate": ", ".join([_REALM, *said])}


def _needs(scope: Scope) -> Callable[[Request], Asking]:
    """What an endpoint depends on that only tokens with ``scope`` may use."""

    def check(request: Request) -> Asking:
        accounts = cast(Accounts, request.app.state.accounts)
        if accounts.off:
            raise NotFoundError(accounts.off)
        asking: Asking | None = getattr(request.state, "asking", None)
        if asking is None:
            message = f"this needs a token with the scope {scope!r}: make one at /account and send it as a bearer token"
            raise HTTPException(401, message, challenge())
        if scope not in asking.token.scopes:
            message = f"this token is for {' and '.join(asking.token.scopes)}; this needs the scope {scope!r}"
            raise HTTPException(403, message, challenge("insufficient_scope", message, scope))
        if request.method not in ("GET", "HEAD"):
            accounts.take("reader", asking.reader.id)
        return asking

    return check


ForVotes = Annotated[Asking, Depends(_needs("vote"))]
ForLists = Annotated[Asking, Depends(_needs("lists"))]
