"""Who is asking, and whether they may: cookies, form tokens, the origin of a form, limits.

A form that writes passes, in this order: there are accounts; it comes from a page of this site (Origin); it is small;
its client is not too fast; somebody is signed in; its token was given to this very session; its reader is not too fast.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Request, Response
from starlette.exceptions import HTTPException

from nextvec.papers.accounts.readers import LOCAL, Reader, find, local_reader
from nextvec.papers.accounts.signing_in import SESSION_DAYS, session_reader
from nextvec.papers.accounts.tables import new_id
from nextvec.papers.mail.transport import Mailer
from nextvec.papers.rate import RateLimit, network
from nextvec.papers.responses import base_of, local_path
from nextvec.papers.signing import Signer, load_secret
from nextvec.papers.site import Site
from nextvec.types import InputError, NextvecError, NotFoundError

__all__ = [
    "Accounts",
    "Fields",
    "Posted",
    "Visitor",
    "Writing",
    "Wrote",
    "accounts_of",
    "check_loopback",
    "need_reader",
    "visitor_of",
]

MAX_BODY = 64 * 1024
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_SECONDS = SESSION_DAYS * 86_400


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks for a page. ``key``: what form tokens are bound to (a session, or a word this browser was given before
    it signed in; empty where it has neither); ``token``: the one for this page's forms."""

    reader: Reader | None
    key: str = ""
    token: str = ""
    local: bool = False


class Accounts:
    """The accounts of a site, or the reason why it has none (``off``)."""

    def __init__(
        self, site: Site, *, base: str | None, mailer: Mailer | None, secret: bytes | None, local: bool
    ) -> None:
        """``local``: one reader, who needs no mail. InputError for a mailer without the address of the site."""
        if mailer is not None and base is None and not local:
            raise InputError(
                "links in mails need the site's own address: name it with --url https://papers.example.org"
            )
        self.site = site
        self.base = base
        self.mailer = mailer
        self.local = local
        self.off: str | None = None
        if site.db.read_only or not os.access(site.home, os.W_OK):
            self.off = "this site has no accounts: its folder cannot be written to"
        elif mailer is None and not local:
            self.off = (
                "this site has no accounts: signing in goes by mail, and none can be sent. Serve it with --mail and "
                "--url, or with --local-reader for yourself alone"
            )
        if self.off is None:
            self._signer = Signer(secret if secret is not None else load_secret(site.home))
            if local:
                local_reader(site.db)
        self.secure = bool(base and base.startswith("https:"))
        prefix = "__Host-" if self.secure else ""  # browsers then refuse the cookie from a subdomain
        self.session_cookie, self.form_cookie = f"{prefix}session", f"{prefix}form"
        self._lock = threading.Lock()
        self._limits = {
            "client": RateLimit(120),
            "reader": RateLimit(60),
            "links to an address": RateLimit(5, seconds=900),
            "links of a client": RateLimit(20, seconds=900),
        }

    # -- who -------------------------------------------------------------------------------------------------------
    def visitor(self, request: Request) -> Visitor | None:
        """Who asks, looked up once for each request; None on a site without accounts."""
        if self.off:
            return None
        known: Visitor | None = getattr(request.state, "visitor", None)
        if known is None:
            try:
                known = self._local(request) if self.local else self._signed_in(request)
            except NextvecError:  # the page itself will say that the database cannot be read
                known = Visitor(None)
            request.state.visitor = known
        return known

    def _signed_in(self, request: Request) -> Visitor:
        session = self._read("session", request.cookies.get(self.session_cookie, ""))
        reader = session_reader(self.site.db, session) if session else None
        key = session if reader else request.cookies.get(self.form_cookie, "")[:64]
        return Visitor(reader, key, self._signer.sign("form", key) if key else "")

    def _local(self, request: Request) -> Visitor:
        """The local reader, for whoever is at this machine and asked for it by its own name: a page of another site
        whose name leads to 127.0.0.1 is a stranger."""
        host = re.sub(r":\d{1,5}$", "", request.headers.get("host", "")).lower()
        if host not in _LOOPBACK:
            return Visitor(None, local=True)
        reader = find(self.site.db, LOCAL) or local_reader(self.site.db)  # made anew after a deletion
        return Visitor(reader, LOCAL, self._signer.sign("form", LOCAL), local=True)

    def _read(self, purpose: str, text: str) -> str:
        """What was signed for ``purpose``, or nothing."""
        try:
            return str(self._signer.read(purpose, text, seconds=_SECONDS)) if text else ""
        except InputError:
            return ""

    # -- cookies ---------------------------------------------------------------------------------------------------
    def prepare_form(self, request: Request) -> str | None:
        """Before a form for people who are not signed in is shown: the word to give to a browser that has none."""
        visitor = self.visitor(request)
        if visitor is None or visitor.key or visitor.local:
            return None
        key = new_id()
        request.state.visitor = Visitor(None, key, self._signer.sign("form", key))
        return key

    def set_cookie(self, response: Response, name: str, value: str, *, seconds: int | None = None) -> None:
        response.set_cookie(name, value, max_age=seconds, path="/", secure=self.secure, httponly=True, samesite="lax")

    def open(self, response: Response, session: str) -> None:
        """Sign the browser in; ``session`` is in the database."""
        self.set_cookie(response, self.session_cookie, self._signer.sign("session", session), seconds=_SECONDS)
        self.forget(response, self.form_cookie)

    def forget(self, response: Response, name: str | None = None) -> None:
        """Sign the browser out, or take another cookie away."""
        response.delete_cookie(name or self.session_cookie, path="/", secure=self.secure, httponly=True, samesite="lax")

    # -- whether ---------------------------------------------------------------------------------------------------
    def check_token(self, visitor: Visitor, token: str) -> None:
        """403 where ``token`` was not given to this session."""
        key = self._read("form", token)
        if not visitor.key or not hmac.compare_digest(key.encode(), visitor.key.encode()):
            raise HTTPException(
                403, "This form is too old, or does not come from a page of this site: reload the page, then send it."
            )

    def check_origin(self, request: Request) -> None:
        """403 where a browser says that the form stood on another site's page."""
        origin = request.headers.get("origin")
        base, configured = base_of(request)
        wanted = base if configured else base.partition("://")[2]
        given = origin if configured or origin is None else origin.partition("://")[2]
        foreign = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if foreign or (given is not None and given.lower() != wanted):
            raise HTTPException(403, f"This form comes from a page of {origin or 'another site'}, not of {base}.")

    def take(self, limit: str, who: str) -> None:
        """429 where ``who`` has used up a limit."""
        with self._lock:
            verdict = self._limits[limit].take(who)
        if not verdict.allowed:
            raise HTTPException(429, f"Please try again in {verdict.wait} seconds.", verdict.headers())


def check_loopback(host: str, *, otherwise: str = "leave --host at 127.0.0.1") -> None:
    """InputError where others than this machine could reach ``host``: there a local reader would be anybody."""
    try:
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside:
        raise InputError(
            f"a local reader is whoever reaches the site, and {host!r} can be reached by others: {otherwise}"
        )


class Fields:
    """The fields of a form, each at most once."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> str:
        """Its text as it was sent; empty where there is none."""
        return self._values.get(name, "")

    def flag(self, name: str) -> bool:
        """1 or 0. InputError for anything else."""
        value = self.get(name)
        if value not in ("0", "1"):
            raise InputError(f"{name} is {value[:40]!r}; expected 1 or 0")
        return value == "1"

    @property
    def back(self) -> str:
        """Where to go afterwards: a path of this site."""
        return local_path(self.get("next"))


@dataclass(frozen=True, slots=True)
class Writing:
    """A form that may write: by whom, with what."""

    accounts: Accounts
    reader: Reader
    visitor: Visitor
    fields: Fields
    scripted: bool

    @property
    def site(self) -> Site:
        return self.accounts.site


def accounts_of(request: Request) -> Accounts:
    """The accounts. NotFoundError, with the reason, on a site that has none."""
    accounts: Accounts = request.app.state.accounts
    if accounts.off:
        raise NotFoundError(accounts.off)
    return accounts


def visitor_of(request: Request) -> Visitor:
    """Who asks. NotFoundError on a site without accounts."""
    return accounts_of(request).visitor(request) or Visitor(None)


def need_reader(request: Request) -> Reader:
    """Who asks for a page of their own; others are led to the sign-in and come back."""
    reader = visitor_of(request).reader
    if reader is None:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        raise _sign_in(request, here)
    return reader


def _sign_in(request: Request, back: str) -> HTTPException:
    target = "/sign-in?" + urlencode({"next": local_path(back)})
    if "hx-request" in request.headers:  # a script asked: the page has to move, not a part of it
        return HTTPException(401, "Sign in first.", {"HX-Redirect": target})
    return HTTPException(303, "Sign in first.", {"Location": target})


async def _posted(request: Request) -> Fields:
    """The form's fields, before anybody knows who sent it."""
    accounts = accounts_of(request)
    accounts.check_origin(request)
    accounts.take("client", network(request.client.host if request.client else None))
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(400, "Expected the fields of a form.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"The form is larger than {MAX_BODY // 1024} kB.")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError as error:
        raise HTTPException(400, "The form holds bytes that are not UTF-8, or too many fields.") from error
    return Fields(dict(reversed(pairs)))


def _wrote(request: Request, fields: Annotated[Fields, Depends(_posted)]) -> Writing:
    accounts = accounts_of(request)
    visitor = visitor_of(request)
    if visitor.reader is None:
        raise _sign_in(request, fields.get("next"))
    accounts.check_token(visitor, fields.get("token"))
    accounts.take("reader", visitor.reader.id)
    return Writing(accounts, visitor.reader, visitor, fields, "hx-request" in request.headers)


Posted = Annotated[Fields, Depends(_posted)]
"""Of a form for people who are not signed in; its endpoint checks the token."""
Wrote = Annotated[Writing, Depends(_wrote)]
"""Of a form for readers."""
