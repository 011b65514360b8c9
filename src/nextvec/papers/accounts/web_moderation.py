"""What moderators do on the site: papers out of sight and back, two of them made one, what readers hand in decided on.

The commands (``nextvec papers hide`` and its like) do the same; both write into one log.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from nextvec.papers.accounts.guard import Writing, Wrote, accounts_of, need_reader
from nextvec.papers.db_errors import BusyDatabaseError
from nextvec.papers.responses import page
from nextvec.papers.search import paper_id
from nextvec.papers.sources import moderation, queue
from nextvec.types import ConflictError, InputError

__all__ = ["router"]

_GET = ["GET", "HEAD"]
_SHOWN = 50
_ONLY = "Only moderators can do that."
router = APIRouter()


def _moderates(form: Wrote) -> Writing:
    if not form.reader.moderates:
        raise HTTPException(403, _ONLY)
    return form


Moderates = Annotated[Writing, Depends(_moderates)]
"""Of a form for moderators."""


@router.api_route("/moderation", methods=_GET)
def overview(request: Request) -> Response:
    """What waits, what is out of sight, and who did what."""
    if not need_reader(request).moderates:
        raise HTTPException(403, _ONLY)
    db = accounts_of(request).site.db
    context = {
        "active": "moderation",
        "waiting": queue.listed(db, "waiting", limit=_SHOWN),
        "away": moderation.withdrawn(db, limit=_SHOWN),
        "acts": moderation.audit(db, limit=_SHOWN),
        "most": moderation.MAX_REASON,
    }
    return page(request, "accounts/moderation.html", context)


@router.post("/moderation/hide")
def hide(form: Moderates) -> Response:
    paper, reason = _paper(form, "paper"), form.fields.get("reason")
    with _told():
        moderation.hide(form.site.db, paper, reason=reason, actor=form.reader.id)
    return _done()


@router.post("/moderation/show")
def show(form: Moderates) -> Response:
    """Bring a hidden paper back."""
    paper = form.fields.get("paper")
    with _told():
        moderation.unhide(form.site.db, paper, actor=form.reader.id)
    return RedirectResponse(f"/papers/{paper}", status_code=303)


@router.post("/moderation/merge")
def merge(form: Moderates) -> Response:
    """Make ``gone`` a part of ``paper``."""
    paper, gone, reason = _paper(form, "paper"), _paper(form, "gone"), form.fields.get("reason")
    with _told():
        kept = moderation.merge(form.site.db, paper, gone, actor=form.reader.id, reason=moderation.check_reason(reason))
    return RedirectResponse(f"/papers/{kept}", status_code=303)


@router.post("/moderation/split")
def split(form: Moderates) -> Response:
    with _told():
        moderation.split(form.site.db, form.fields.get("paper"), actor=form.reader.id)
    return _done()


@router.post("/moderation/decide")
def decide(form: Moderates) -> Response:
    """Let what a reader handed in be fetched, or not."""
    state: queue.State = "approved" if form.fields.flag("approve") else "rejected"
    reason = form.fields.get("reason")
    if state == "rejected":
        reason = moderation.check_reason(reason)
    with _told():
        queue.decide(form.site.db, form.fields.get("paper"), state, actor=form.reader.id, reason=reason)
    return _done()


def _paper(form: Writing, name: str) -> str:
    """A paper that was named by its id or its address on arXiv."""
    text = form.fields.get(name).strip()
    if not text:
        raise InputError("no paper was named: expected its id or its address on arXiv")
    return paper_id(text) or text


@contextmanager
def _told() -> Iterator[None]:
    """A state that does not allow an act is told like a mistake in the form: it is one, made a moment ago."""
    try:
        yield
    except BusyDatabaseError:
        raise
    except ConflictError as error:
        raise InputError(str(error)) from error


def _done() -> Response:
    return RedirectResponse("/moderation", status_code=303)
