"""Pages of proposals: the new papers of what one follows, and what is near to what one liked."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from nextvec.papers import views
from nextvec.papers.accounts import following, for_you, interests
from nextvec.papers.accounts.guard import Wrote, accounts_of, need_reader
from nextvec.papers.params import check_page, read_page
from nextvec.papers.responses import page

__all__ = ["router"]

PAGE_SIZE = 40
_GET = ["GET", "HEAD"]
router = APIRouter()


@router.api_route("/following", methods=_GET)
def followed(request: Request) -> Response:
    reader = need_reader(request)
    site = accounts_of(request).site
    chosen = interests.of_reader(site.db, reader.id)
    at, live = views.clock(site)
    found = following.following(site, chosen, at)
    number = read_page(request.query_params.get("page"))
    pages = max(1, -(-len(found) // PAGE_SIZE))
    check_page(number, pages)
    kind = request.query_params.get("kind", "topic")
    context = {
        "active": "following",
        "interests": chosen,
        "found": found[(number - 1) * PAGE_SIZE : number * PAGE_SIZE],
        "total": len(found),
        "page": number,
        "pages": pages,
        "kinds": interests.KINDS,
        "kind": kind if kind in interests.KINDS else "topic",
        "said": request.query_params.get("said", "")[:300],
        "days": following.DAYS,
        "nearest": following.NEAREST,
        "at": at,
        "live": live,
    }
    return page(request, "accounts/following.html", context)


@router.post("/follow")
def follow(form: Wrote) -> Response:
    """Follow or mute something."""
    fields = form.fields
    interests.choose(form.site.db, form.reader.id, fields.get("kind"), fields.get("said"), fields.get("stance"))
    return _back(form)


@router.post("/unfollow")
def unfollow(form: Wrote) -> Response:
    """Neither follow nor mute it any more."""
    interests.forget(form.site.db, form.reader.id, form.fields.get("kind"), form.fields.get("folded"))
    return _back(form)


@router.api_route("/for-you", methods=_GET)
def proposed(request: Request) -> Response:
    reader = need_reader(request)
    site = accounts_of(request).site
    liked = for_you.likes(site.db, reader.id)
    at, live = views.clock(site)
    chosen = interests.of_reader(site.db, reader.id)
    context = {
        "active": "for_you",
        "proposals": for_you.propose(site, liked, chosen, at, limit=PAGE_SIZE),
        "liked": len(liked),
        "days": for_you.DAYS,
        "each": for_you.EACH,
        "muted": sum(one.stance == "mute" for one in chosen),
        "at": at,
        "live": live,
    }
    return page(request, "accounts/for_you.html", context)


def _back(form: Wrote) -> Response:
    return RedirectResponse(form.fields.back if form.fields.get("next") else "/following", status_code=303)
