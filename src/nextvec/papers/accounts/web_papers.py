"""What readers do with a paper: vote, comment; and what its page shows of that."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from nextvec.papers.accounts import comments, interests, lists, votes
from nextvec.papers.accounts.comment_text import html
from nextvec.papers.accounts.comments import Comment
from nextvec.papers.accounts.guard import Wrote, accounts_of, need_reader
from nextvec.papers.authors import fold
from nextvec.papers.db import Stored
from nextvec.papers.params import check_page, read_page
from nextvec.papers.records import Paper
from nextvec.papers.responses import page
from nextvec.papers.sources import moderation
from nextvec.types import NotFoundError

__all__ = ["beside", "router"]

PAGE_SIZE = 50
_GET = ["GET", "HEAD"]
_DEEPEST = 4  # steps to the right; what is deeper stands below the last one
router = APIRouter()


def beside(request: Request, paper: Paper) -> dict[str, Any]:
    """For the page of ``paper``: the thread, and what its reader did with it. Nothing on a site without accounts."""
    accounts = request.app.state.accounts
    visitor = accounts.visitor(request)
    if visitor is None:
        return {}
    db = accounts.site.db
    thread = comments.thread(db, paper.id)
    number = read_page(request.query_params.get("comments"))
    pages = max(1, -(-len(thread) // PAGE_SIZE))
    check_page(number, pages)
    places = {comment.id: 1 + place // PAGE_SIZE for place, comment in enumerate(thread)}
    context = {
        "thread": thread[(number - 1) * PAGE_SIZE : number * PAGE_SIZE],
        "authors_of": {comment.id: comment.author for comment in thread},
        "places": places,
        "readable": sum(comment.state == "shown" for comment in thread),
        "comment_page": number,
        "comment_pages": pages,
        "comment_html": html,
        "deepest": _DEEPEST,
        "most_text": comments.MAX_TEXT,
    }
    if (reader := visitor.reader) is not None:
        stances = {(str(one.kind), one.folded): one.stance for one in interests.of_reader(db, reader.id)}
        names = ([("org", paper.organization)] if paper.organization else []) + [
            ("author", name) for name in dict.fromkeys(paper.authors[:24])
        ]
        context |= {
            "voted": bool(votes.voted(db, reader.id, [paper.id])),
            "lists": lists.of_reader(db, reader.id),
            "holding": lists.holding(db, reader.id, paper.id),
            "names": [(kind, name, fold(name), stances.get((kind, fold(name)))) for kind, name in names],
            "most_name": lists.MAX_NAME,
            "most_note": lists.MAX_NOTE,
            "most_reason": moderation.MAX_REASON,
        }
    return {"beside": context}


@router.post("/vote")
def vote(request: Request, form: Wrote) -> Response:
    """Vote or take it back; as often as one likes, it counts once."""
    paper = form.fields.get("paper")
    wanted = form.fields.flag("up")
    _paper(form, paper)
    (votes.give if wanted else votes.take_back)(form.site.db, form.reader.id, paper)
    if not form.scripted:
        return RedirectResponse(_at(paper), status_code=303)
    stored = _paper(form, paper)
    return page(request, "accounts/vote.html", {"paper": stored.paper, "voted": wanted, "scripted": True})


@router.post("/comments")
def write(form: Wrote) -> Response:
    paper = form.fields.get("paper")
    parent = form.fields.get("parent") or None
    identifier = comments.write(form.site.db, form.reader.id, paper, form.fields.get("text"), parent)
    return _to_comment(form, paper, identifier)


@router.api_route("/comments/{identifier}/reply", methods=_GET)
def reply_page(request: Request, identifier: str) -> Response:
    need_reader(request)
    comment = comments.find(accounts_of(request).site.db, identifier)
    if comment.state != "shown":
        raise NotFoundError(f"this comment was {comment.state} in the meantime")
    return _form(request, comment, "reply")


@router.api_route("/comments/{identifier}/edit", methods=_GET)
def edit_page(request: Request, identifier: str) -> Response:
    reader = need_reader(request)
    comment = comments.find(accounts_of(request).site.db, identifier)
    if comment.reader != reader.id:
        raise HTTPException(403, "Only its author can edit a comment.")
    return _form(request, comment, "edit")


@router.post("/comments/{identifier}/edit")
def edit(form: Wrote, identifier: str) -> Response:
    comment = _own(form, identifier, "edit")
    comments.edit(form.site.db, form.reader.id, identifier, form.fields.get("text"))
    return _to_comment(form, comment.paper, identifier)


@router.post("/comments/{identifier}/delete")
def delete(form: Wrote, identifier: str) -> Response:
    comment = _own(form, identifier, "delete")
    comments.delete(form.site.db, form.reader.id, identifier)
    return RedirectResponse(f"/papers/{comment.paper}#comments", status_code=303)


@router.post("/comments/{identifier}/hide")
def hide(form: Wrote, identifier: str) -> Response:
    """For moderators: take a comment out of sight, or bring it back."""
    if not form.reader.moderates:
        raise HTTPException(403, "Only moderators can hide a comment.")
    paper = comments.hide(form.site.db, form.reader.id, identifier, hidden=form.fields.flag("hidden"))
    return _to_comment(form, paper, identifier)


def _own(form: Wrote, identifier: str, verb: str) -> Comment:
    comment = comments.find(form.site.db, identifier)
    if comment.reader != form.reader.id:
        raise HTTPException(403, f"Only its author can {verb} a comment.")
    return comment


def _form(request: Request, comment: Comment, verb: str) -> Response:
    stored = accounts_of(request).site.db.get(comment.paper)
    if stored is None:
        raise NotFoundError(f"there is no paper {comment.paper!r} in this collection")
    context = {
        "comment": comment,
        "paper": stored.paper,
        "verb": verb,
        "most_text": comments.MAX_TEXT,
        "comment_html": html,
    }
    return page(request, "accounts/comment_form.html", context)


def _paper(form: Wrote, identifier: str) -> Stored:
    stored = form.site.db.get(identifier)
    if stored is None:
        raise NotFoundError(f"there is no paper {identifier[:80]!r} in this collection")
    return stored


def _to_comment(form: Wrote, paper: str, identifier: str) -> Response:
    """To the place of a comment on the page of its paper, which may have several pages of them."""
    ids = [comment.id for comment in comments.thread(form.site.db, paper)]
    number = 1 + ids.index(identifier) // PAGE_SIZE if identifier in ids else 1
    page_of = f"?comments={number}" if number > 1 else ""
    return RedirectResponse(f"/papers/{paper}{page_of}#comment-{identifier}", status_code=303)


def _at(paper: str) -> str:
    return f"/papers/{paper}#vote"
