"""Reading lists over HTTP: one's own, and those that others share."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse

from nextvec.papers.accounts import lists
from nextvec.papers.accounts.guard import Wrote, accounts_of, need_reader
from nextvec.papers.accounts.lists import ReadingList
from nextvec.papers.responses import base_of, page
from nextvec.papers.syndication import MOST
from nextvec.papers.web_feeds import feed_of, links_of
from nextvec.types import InputError

__all__ = ["router"]

_GET = ["GET", "HEAD"]
_ENDINGS = (".bib", ".json")
_FEEDS = {".atom": "atom", ".rss": "rss", ".feed.json": "json"}
"""Of a shared list, by ending; ``.json`` alone is the list itself."""
router = APIRouter()


@router.api_route("/lists", methods=_GET)
def mine(request: Request) -> Response:
    reader = need_reader(request)
    context = {
        "active": "lists",
        "lists": lists.of_reader(accounts_of(request).site.db, reader.id),
        "most": lists.MAX_NAME,
    }
    return page(request, "accounts/lists.html", context)


@router.post("/lists")
def create(form: Wrote) -> Response:
    identifier = lists.create(form.site.db, form.reader.id, form.fields.get("name"))
    return RedirectResponse(f"/lists/{identifier}", status_code=303)


@router.post("/save")
def save(form: Wrote) -> Response:
    """Put a paper into a list, an old or a new one, from the paper's page."""
    chosen, name, paper = form.fields.get("list"), form.fields.get("name"), form.fields.get("paper")
    if not chosen and not name.strip():
        raise InputError("no list was named: choose one, or give the new one a name")
    note = form.fields.get("note")
    lists.add(form.site.db, form.reader.id, None if name.strip() else chosen, paper, name=name, note=note)
    return RedirectResponse(f"/papers/{paper}#save", status_code=303)


@router.api_route("/lists/{identifier}", methods=_GET)
def one(request: Request, identifier: str) -> Response:
    reader = need_reader(request)
    bare, ending = _ending(identifier, _ENDINGS)
    chosen = lists.own(accounts_of(request).site.db, reader.id, bare)
    return _shown(request, chosen, ending, own=True)


@router.post("/lists/{identifier}/name")
def rename(form: Wrote, identifier: str) -> Response:
    lists.rename(form.site.db, form.reader.id, identifier, form.fields.get("name"))
    return RedirectResponse(f"/lists/{identifier}", status_code=303)


@router.post("/lists/{identifier}/share")
def share(form: Wrote, identifier: str) -> Response:
    lists.share(form.site.db, form.reader.id, identifier, on=form.fields.flag("on"))
    return RedirectResponse(f"/lists/{identifier}", status_code=303)


@router.post("/lists/{identifier}/delete")
def delete(form: Wrote, identifier: str) -> Response:
    lists.delete(form.site.db, form.reader.id, identifier)
    return RedirectResponse("/lists", status_code=303)


@router.post("/lists/{identifier}/note")
def note(form: Wrote, identifier: str) -> Response:
    lists.add(form.site.db, form.reader.id, identifier, form.fields.get("paper"), note=form.fields.get("note"))
    return RedirectResponse(f"/lists/{identifier}", status_code=303)


@router.post("/lists/{identifier}/remove")
def remove(form: Wrote, identifier: str) -> Response:
    lists.remove(form.site.db, form.reader.id, identifier, form.fields.get("paper"))
    return RedirectResponse(form.fields.back if form.fields.get("next") else f"/lists/{identifier}", status_code=303)


@router.api_route("/shared/{address}", methods=_GET)
def shared(request: Request, address: str) -> Response:
    """A list for whoever has its address; search engines are asked to leave it out."""
    bare, ending = _ending(address, (*_FEEDS, *_ENDINGS))
    chosen = lists.shared(accounts_of(request).site.db, bare)
    response = _feed(request, chosen, ending) if ending in _FEEDS else _shown(request, chosen, ending, own=False)
    response.headers["X-Robots-Tag"] = "noindex"
    return response


def _ending(word: str, known: Iterable[str]) -> tuple[str, str]:
    ending = next((ending for ending in known if word.endswith(ending)), "")
    return word.removesuffix(ending), ending


def _feed(request: Request, chosen: ReadingList, ending: str) -> Response:
    """A shared list as a feed, the last paper put in first."""
    site = accounts_of(request).site
    response = feed_of(
        request,
        _FEEDS[ending],
        [entry.stored for entry in lists.entries(site.db, chosen.id)[:MOST]],
        None,  # nobody notes when a paper was taken out
        address=lambda end: _address_of(chosen, ending=end),
        title=chosen.name,
        subtitle=f"A reading list of {chosen.owner}.",
    )
    response.headers["Cache-Control"] = "private, no-cache"  # it may be made private any moment
    return response


def _address_of(chosen: ReadingList, *, ending: str = "") -> str:
    return f"/shared/{chosen.address}" + next((end for end, name in _FEEDS.items() if name == ending), "")


def _shown(request: Request, chosen: ReadingList, ending: str, *, own: bool) -> Response:
    found = lists.entries(accounts_of(request).site.db, chosen.id)
    if ending == ".bib":
        return PlainTextResponse(lists.as_bibtex(found), media_type="application/x-bibtex", headers=_file("bib"))
    if ending == ".json":
        return JSONResponse(lists.as_json(chosen, found), headers=_file("json"))
    base, _ = base_of(request)
    context = {
        "active": "lists",
        "list": chosen,
        "entries": found,
        "own_list": own,
        "address": f"{base}/shared/{chosen.address}" if chosen.address else None,
        "files": f"/lists/{chosen.id}" if own else f"/shared/{chosen.address}",
        "feeds": [] if own else links_of(partial(_address_of, chosen)),
        "most": lists.MAX_NAME,
        "most_note": lists.MAX_NOTE,
    }
    return page(request, "accounts/list.html", context)


def _file(ending: str) -> dict[str, str]:
    return {
        "Content-Disposition": f'attachment; filename="reading-list.{ending}"',
        "Cache-Control": "private, no-cache",
    }
