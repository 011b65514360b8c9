"""The page of one's own account: name, all data in one file, the end of it."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from nextvec.papers.accounts import interests, lists, personal, readers, tokens
from nextvec.papers.accounts.guard import Wrote, accounts_of, need_reader
from nextvec.papers.accounts.readers import Reader
from nextvec.papers.accounts.tables import now
from nextvec.papers.responses import page
from nextvec.types import InputError

__all__ = ["account_page", "router"]

_GET = ["GET", "HEAD"]
router = APIRouter()


@router.api_route("/account", methods=_GET)
def account(request: Request) -> Response:
    return account_page(request, need_reader(request))


def account_page(request: Request, reader: Reader, **more: object) -> Response:
    """The page of ``reader``, with ``more`` to be told on it."""
    db = accounts_of(request).site.db
    held = personal.export(db, reader)
    context = {
        "active": "account",
        "reader": reader,
        "counts": {name: len(rows) for name, rows in held.items()},
        "most": readers.MAX_NAME,
        "saved": request.query_params.get("saved") == "name",
        "dropped": request.query_params.get("saved") == "token",
        "lists": lists.of_reader(db, reader.id),
        "muted": [one for one in interests.of_reader(db, reader.id) if one.stance == "mute"],
        "tokens": tokens.of_reader(db, reader.id),
        "scopes": tokens.SCOPES,
        "most_token": tokens.MAX_NAME,
        "today": now().date(),
        "made": None,
    }
    return page(request, "accounts/account.html", context | more)


@router.post("/account/name")
def rename(form: Wrote) -> Response:
    readers.rename(form.site.db, form.reader.id, form.fields.get("name"))
    return RedirectResponse("/account?saved=name", status_code=303)


@router.api_route("/account/data.json", methods=_GET)
def data(request: Request) -> Response:
    """All that the site holds of its reader, as a file."""
    reader = need_reader(request)
    document = personal.export(accounts_of(request).site.db, reader)
    headers = {"Content-Disposition": 'attachment; filename="nextvec-papers-account.json"', "Cache-Control": "no-store"}
    return Response(json.dumps(document, indent=2, ensure_ascii=False), media_type="application/json", headers=headers)


@router.post("/account/delete")
def delete(form: Wrote) -> Response:
    if form.fields.get("sure") != "1":
        raise InputError("nothing was deleted: tick the box that says that you want it")
    personal.delete_account(form.site.db, form.reader)
    response = RedirectResponse("/", status_code=303)
    form.accounts.forget(response)
    return response
