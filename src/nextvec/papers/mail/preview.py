"""A look at a digest before one asks for it: the mail itself in a frame, and the same as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from nextvec.papers import languages
from nextvec.papers.mail.choose import FIRST, Chooser
from nextvec.papers.mail.compose import Composer, Digest
from nextvec.papers.mail.fields import address_of, chosen
from nextvec.papers.mail.schedule import Schedule
from nextvec.papers.mail.subscriptions import read_wanted
from nextvec.papers.responses import base_of, page, site_of
from nextvec.papers.signing import Signer
from nextvec.papers.views import clock
from nextvec.types import InputError

__all__ = ["router"]

_GET = ["GET", "HEAD"]
# A digest is a mail: its styles stand in its elements. It gets a document of its own in which nothing else works.
_MAIL_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox allow-popups "
    "allow-popups-to-escape-sandbox; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "X-Frame-Options": "SAMEORIGIN",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Language",
}
_FRAME = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "font-src 'self'; connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}
router = APIRouter()


@router.api_route("/digest/preview", methods=_GET)
def preview_page(request: Request) -> Response:
    """A digest as it would be now: the mail itself in a frame, its text, how large it is."""
    values = dict(request.query_params)
    if any(not value for value in values.values()):
        pairs = urlencode({name: value for name, value in values.items() if value})
        return RedirectResponse("/digest/preview" + (f"?{pairs}" if pairs else ""), status_code=303)
    context: dict[str, Any] = {
        "mail": None,
        "problem": "",
        "status": 200,
        **chosen(values),
    }
    try:
        message = _preview(request, values)
    except InputError as error:
        context |= {"problem": str(error)[:1].upper() + str(error)[1:], "status": 400}
    else:
        if message is not None:
            context["mail"] = {
                "subject": str(message["Subject"]),
                "bytes": len(_part(message, "html").encode()),
                "text": _part(message, "plain"),
                "frame": f"/digest/preview/mail{address_of(values)}",
            }
    response = page(request, "mail/preview.html", context, status=context["status"])
    response.headers.update(_FRAME)
    return response


@router.api_route("/digest/preview/mail", methods=_GET)
def preview_mail(request: Request) -> Response:
    """The HTML part alone, in a document that can do nothing."""
    message = _preview(request, dict(request.query_params))
    html = _part(message, "html") if message is not None else "<!doctype html><title>Empty</title><p>No papers.</p>"
    # Links open beside the frame: in it, the pages of the site refuse to be shown.
    return HTMLResponse(html.replace("<head>", '<head>\n<base target="_blank">', 1), headers=_MAIL_HEADERS)


def _preview(request: Request, values: dict[str, str]) -> EmailMessage | None:
    """The mail; none where there are no papers for it. Its links end and change nothing."""
    site = site_of(request)
    language = languages.negotiated(request.headers.get("accept-language")) or "en"
    wanted, _ = read_wanted({"language": language, **values}, list("01234"), site.db)
    at, _ = clock(site, datetime.now(UTC).replace(tzinfo=None))
    schedule = Schedule(every=wanted.schedule.every, days="0" if wanted.schedule.every == "week" else "01234")
    found = Chooser(site).candidates(wanted.about, schedule, at - FIRST[schedule.every], at)
    base, _ = base_of(request)
    # Signed with what is no secret: the links of a preview open no page of anybody.
    signer, jinja = Signer(b"preview" * 8), request.app.state.jinja
    composer = Composer(site, base=base, sender="papers@example.org", signer=signer, jinja=jinja)
    chosen = found[: wanted.most]
    chosen = chosen[: composer.fits(chosen)]
    if not chosen:
        return None
    digest = Digest(
        subscription=wanted,
        address="you@example.org",
        papers=tuple((candidate.id, candidate.why) for candidate in chosen),
        found=len(found),
        day=at - timedelta(microseconds=1),
        message_id="digest.preview",
    )
    return composer.digest(digest, datetime.now(UTC).replace(tzinfo=None))


def _part(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    return str(part.get_content()) if part is not None else ""
