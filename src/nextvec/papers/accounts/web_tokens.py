"""Making and revoking tokens, from the page of one's own account."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from nextvec.papers.accounts import tokens
from nextvec.papers.accounts.guard import Wrote
from nextvec.papers.accounts.web_account import account_page
from nextvec.papers.params import read_day

__all__ = ["router"]

router = APIRouter()


@router.post("/account/tokens")
def make(request: Request, form: Wrote) -> Response:
    """The one answer that shows a token; nothing on the way keeps it, and a second sending is refused."""
    scopes = [scope for scope in tokens.SCOPES if form.fields.get(scope) == "1"]
    ends_on = read_day(form.fields.get("ends_on"), "the last day")
    token, word = tokens.make(form.site.db, form.reader.id, form.fields.get("name"), scopes, ends_on)
    response = account_page(request, form.reader, made=token, word=word)
    response.headers["Cache-Control"] = "no-store"
    return response


@router.post("/account/tokens/{identifier}/revoke")
def revoke(form: Wrote, identifier: str) -> Response:
    tokens.revoke(form.site.db, form.reader.id, identifier)
    return RedirectResponse("/account?saved=token#tokens", status_code=303)
