"""Signing in by a mailed link, and out.

Asking for a link gives the same answer whatever the address, and opening it changes nothing: programs that look at mail
open links. The button on the page it leads to is what signs in.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from nextvec.papers.accounts import signing_in
from nextvec.papers.accounts.guard import Accounts, Posted, Wrote, accounts_of, visitor_of
from nextvec.papers.rate import network
from nextvec.papers.responses import local_path, page
from nextvec.types import InputError

__all__ = ["router"]

_GET = ["GET", "HEAD"]
router = APIRouter()


@router.api_route("/sign-in", methods=_GET)
def sign_in_page(request: Request) -> Response:
    accounts: Accounts = request.app.state.accounts
    back = local_path(request.query_params.get("next"))
    visitor = accounts.visitor(request)
    if visitor and visitor.reader:
        return RedirectResponse(back, status_code=303)
    return _sign_in_form(request, accounts, back)


@router.post("/sign-in")
def ask_for_link(request: Request, fields: Posted) -> Response:
    accounts = accounts_of(request)
    accounts.check_token(visitor_of(request), fields.get("token"))
    if accounts.local or accounts.mailer is None or accounts.base is None:
        raise InputError("this site serves its own machine: open it at its own address, such as http://127.0.0.1:8000/")
    typed = fields.get("email")
    try:
        email = signing_in.check_email(typed)
    except InputError as error:
        response = _sign_in_form(request, accounts, fields.back, email=typed[:254], problem=str(error))
        response.status_code = 400
        return response
    accounts.take("links of a client", network(request.client.host if request.client else None))
    accounts.take("links to an address", email)
    token = signing_in.make_link(accounts.site.db, email, fields.back)
    if token is not None:  # else the links that were sent before are still good
        try:
            accounts.mailer.send(signing_in.letter(email, accounts.base, token))
        except Exception:
            signing_in.withdraw(accounts.site.db, token)
            raise
    return RedirectResponse("/sign-in/sent", status_code=303)


@router.api_route("/sign-in/sent", methods=_GET)
def sent(request: Request) -> Response:
    accounts_of(request)
    return page(request, "accounts/sent.html", {"active": "account", "minutes": signing_in.LINK_MINUTES})


@router.api_route("/sign-in/link", methods=_GET)
def link(request: Request) -> Response:
    accounts = accounts_of(request)
    token = request.query_params.get("token", "")
    email = signing_in.check_link(accounts.site.db, token)
    context: dict[str, object] = {"active": "account", "email": email, "link": token}
    response = _with_form(request, accounts, "accounts/link.html", context)
    response.headers["Cache-Control"] = "no-store"
    return response


@router.post("/sign-in/link")
def sign_in(request: Request, fields: Posted) -> Response:
    accounts = accounts_of(request)
    visitor = visitor_of(request)
    accounts.check_token(visitor, fields.get("token"))
    _, session, back = signing_in.redeem(accounts.site.db, fields.get("link"))
    if visitor.reader is not None and not visitor.local:
        signing_in.close_session(accounts.site.db, visitor.key)  # somebody else was signed in here
    response = RedirectResponse(local_path(back), status_code=303)
    accounts.open(response, session)
    return response


@router.post("/sign-out")
def sign_out(form: Wrote) -> Response:
    return _out(form, everywhere=False)


@router.post("/sign-out/everywhere")
def sign_out_everywhere(form: Wrote) -> Response:
    return _out(form, everywhere=True)


def _out(form: Wrote, *, everywhere: bool) -> Response:
    if form.visitor.local:
        raise HTTPException(403, "The local reader is always signed in: stop the site instead.")
    if everywhere:
        signing_in.close_sessions(form.site.db, form.reader.id)
    else:
        signing_in.close_session(form.site.db, form.visitor.key)
    response = RedirectResponse("/", status_code=303)
    form.accounts.forget(response)
    return response


def _sign_in_form(request: Request, accounts: Accounts, back: str, *, email: str = "", problem: str = "") -> Response:
    context: dict[str, object] = {
        "active": "account",
        "off": accounts.off,
        "next": back,
        "minutes": signing_in.LINK_MINUTES,
        "email": email,
        "problem": problem[:1].upper() + problem[1:],
    }
    return _with_form(request, accounts, "accounts/sign_in.html", context)


def _with_form(request: Request, accounts: Accounts, template: str, context: dict[str, object]) -> Response:
    """A page with a form for somebody who is not signed in."""
    key = accounts.prepare_form(request)
    response = page(request, template, context)
    if key:
        accounts.set_cookie(response, accounts.form_cookie, key)
    return response
