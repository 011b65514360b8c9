"""The pages of mail: subscribe, confirm, change, unsubscribe. ``preview`` has the look at a digest.

A link in a mail is the key to what it does: it is signed, for one purpose and one subscription or reader. Following it
changes nothing, since mail servers follow links too; the button on its page does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from threading import Lock
from typing import Any, cast
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from nextvec.papers import feed, languages
from nextvec.papers.db_errors import BusyDatabaseError
from nextvec.papers.feed import Period
from nextvec.papers.mail import preview
from nextvec.papers.mail.addresses import fold, masked, read_address
from nextvec.papers.mail.fields import choices, chosen
from nextvec.papers.mail.schedule import next_slot
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.subscriptions import Subscription, read_wanted, rescheduled
from nextvec.papers.offered import offered
from nextvec.papers.rate import RateLimit, network
from nextvec.papers.responses import page as _page
from nextvec.papers.responses import site_of
from nextvec.papers.signing import Signer, load_secret
from nextvec.types import ConflictError, InputError, NotFoundError

__all__ = ["router"]

_GET = ["GET", "HEAD"]
_LARGEST = 20_000  # bytes of a form
_CLIENT, _ADDRESS = 20, 3  # requests for a subscription, per hour
_CONFIRM = 3 * 86_400  # seconds
router = APIRouter()
router.include_router(preview.router)


class _Limits:
    """How often somebody may ask for a subscription: by client, and for one address."""

    def __init__(self) -> None:
        self._lock = Lock()
        # A bucket holds a minute's worth: with a clock that runs sixty times slower, an hour's.
        self._client = RateLimit(_CLIENT, clock=lambda: time.monotonic() / 60)
        self._address = RateLimit(_ADDRESS, clock=lambda: time.monotonic() / 60)

    def client(self, request: Request) -> int:
        """Seconds to wait; 0: go on."""
        with self._lock:
            return self._client.take(network(request.client.host if request.client else None)).wait * 60

    def address(self, address: str) -> bool:
        with self._lock:
            return self._address.take(fold(address)).allowed


def _limits(request: Request) -> _Limits:
    state = request.app.state
    if not hasattr(state, "mail_limits"):
        state.mail_limits = _Limits()
    return cast(_Limits, state.mail_limits)


def _signer(request: Request) -> Signer:
    secret = request.app.state.secret
    return Signer(secret if secret is not None else load_secret(site_of(request).home))


def _store(request: Request) -> MailStore:
    return MailStore(site_of(request).db)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


async def _form(request: Request) -> tuple[dict[str, str], list[str]]:
    """(the fields of a form, the ticked days of the week). InputError for one that is too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST:
            raise InputError(f"the form has more than {_LARGEST:,} bytes: shorten what was typed")
    try:
        pairs = parse_qsl(body.decode("utf-8", "replace"), max_num_fields=100)
    except ValueError:
        raise InputError("the form has more than 100 fields") from None
    return dict(pairs), [value for name, value in pairs if name == "day"]


# -- subscribing -----------------------------------------------------------------------------------------------------
@router.api_route("/subscribe", methods=_GET)
def subscribe_page(request: Request) -> Response:
    """The form; a view's filters in the address are filled in."""
    return _form_page(request, dict(request.query_params), list("01234"))


def _spoken(request: Request) -> str:
    """The tag of the language that the browser asks for, as the form gives it back: never empty."""
    return languages.negotiated(request.headers.get("accept-language")) or "en"


def _form_page(
    request: Request,
    values: Mapping[str, str],
    days: list[str],
    *,
    problem: str = "",
    wrong: str = "",
    status: int = 200,
) -> Response:
    """``wrong``: the field that ``problem`` is about, where that is known."""
    site = site_of(request)
    unavailable = "read-only" if site.db.read_only else "no mailer" if request.app.state.mailer is None else ""
    context = {
        "days": days,
        "problem": problem[:1].upper() + problem[1:],
        "wrong": wrong,
        "unavailable": unavailable,
        "offered": offered(site),
        **chosen({**values, "language": languages.known(values.get("language", "")) or _spoken(request)}),
    }
    return _private(_page(request, "mail/subscribe.html", context, status=status))


@router.post("/subscribe")
async def subscribe(request: Request) -> Response:
    """Note the wish and send the one confirmation mail. What is answered does not depend on who is known here."""
    values, days = await _form(request)
    return await run_in_threadpool(_subscribe, request, values, days)


def _subscribe(request: Request, values: dict[str, str], days: list[str]) -> Response:
    site = site_of(request)
    if request.app.state.mailer is None or site.db.read_only:
        return _form_page(request, values, days, status=503)
    wait = _limits(request).client(request)
    if wait:
        minutes = max(1, wait // 60)
        response = _form_page(
            request, values, days, problem=f"that was often enough: try again in {minutes} min", status=429
        )
        response.headers["Retry-After"] = str(wait)
        return response
    wrong = ""
    try:
        wanted, unknown = read_wanted({"language": _spoken(request), **values}, days, site.db)
        wrong = "address"
        address = read_address(values.get("address", ""))
    except InputError as error:
        return _form_page(request, values, days, problem=str(error), wrong=wrong, status=400)
    if _limits(request).address(address):
        _store(request).ask(address, wanted, _now())
    names = {"org": "organisation", "author": "author", "source": "source", "category": "venue or category"}
    notes = [
        f"No {names[name]} here is called “{values.get(name, '')}” yet."
        + (f" Did you mean {close}? Then subscribe anew." if close else "")
        for name, close in unknown.items()
    ]
    said = _said(
        title="Look into your mailbox",
        lede=f"A mail is on its way to {address}. The link in it starts {_lower(wanted.title())}.",
        lines=[*notes, "No mail within a few minutes? Look among the spam, and see that the address is right."],
    )
    return _private(_page(request, "mail/said.html", said))


@router.api_route("/subscribe/confirm/{token}", methods=_GET)
def confirm_page(request: Request, token: str) -> Response:
    """What the link would start, and the button that does."""
    identifier = _signer(request).read("mail-confirm", token, seconds=_CONFIRM)
    subscription = _store(request).asked(str(identifier))
    if subscription.state != "pending":
        return _confirmed(request, subscription)
    said = _said(
        title="Confirm your subscription",
        lede=f"{subscription.title()}, {subscription.schedule.said()}, at most {subscription.most} papers in a mail.",
        action=f"/subscribe/confirm/{token}",
        button="Confirm",
    )
    return _private(_page(request, "mail/said.html", said))


@router.post("/subscribe/confirm/{token}")
def confirm(request: Request, token: str) -> Response:
    """Start it."""
    identifier = _signer(request).read("mail-confirm", token, seconds=_CONFIRM)
    return _confirmed(request, _store(request).confirm(str(identifier), _now()))


def _confirmed(request: Request, subscription: Subscription) -> Response:
    manage = f"/subscriptions/{_signer(request).sign('mail-manage', subscription.reader)}"
    said = _said(
        title="You are subscribed",
        lede=f"{subscription.title()}: the first mail comes on ",
        first=_first(subscription),
        rest=f", at {subscription.schedule.at}, if there are papers for it.",
        links=[("Change or pause it", manage), ("The newest day", "/")],
    )
    return _private(_page(request, "mail/said.html", said))


def _first(subscription: Subscription) -> Period:
    return feed.day(next_slot(subscription.schedule, max(subscription.since or _now(), _now())).day)


# -- changing and ending ---------------------------------------------------------------------------------------------
@router.api_route("/subscriptions/{token}", methods=_GET)
def manage_page(request: Request, token: str) -> Response:
    """Everything that a reader has."""
    return _manage(request, token)


def _manage(request: Request, token: str, *, done: str = "", problem: str = "", status: int = 200) -> Response:
    store = _store(request)
    reader = store.reader(str(_signer(request).read("mail-manage", token)))
    context = {
        "token": token,
        "address": masked(reader.address),
        "suspended": reader.suspended is not None,
        "subscriptions": store.of_reader(reader.id),
        "done": done,
        "problem": problem[:1].upper() + problem[1:],
        **choices(),
    }
    return _private(_page(request, "mail/manage.html", context, status=status))


@router.post("/subscriptions/{token}")
async def manage(request: Request, token: str) -> Response:
    """Change, pause, resume or end one subscription, or forget the reader."""
    values, days = await _form(request)
    return await run_in_threadpool(_change, request, token, values, days)


def _change(request: Request, token: str, values: dict[str, str], days: list[str]) -> Response:
    store, now = _store(request), _now()
    reader = store.reader(str(_signer(request).read("mail-manage", token)))
    action = values.get("do", "")
    if action == "forget":
        store.forget(reader.id)
        lede = "Your address and everything noted beside it are deleted."
        return _private(_page(request, "mail/said.html", _said(title="Forgotten", lede=lede)))
    mine = {subscription.id: subscription for subscription in store.of_reader(reader.id)}
    subscription = mine.get(values.get("subscription", ""))
    if subscription is None:
        return _manage(request, token, problem="that subscription has ended already", status=400)
    if action == "change":
        try:
            changed = rescheduled(subscription, values, days)
            store.reschedule(changed)
        except BusyDatabaseError:
            raise
        except (InputError, ConflictError) as error:
            return _manage(request, token, problem=str(error), status=400)
        return _manage(request, token, done=f"{changed.title()} will come {changed.schedule.said()}.")
    if action in ("pause", "resume"):
        store.pause(subscription.id, now, paused=action == "pause")
        said = "is paused until you resume it" if action == "pause" else "goes on"
        return _manage(request, token, done=f"{subscription.title()} {said}.")
    if action == "end":
        store.end(subscription.id, now)
        if len(mine) == 1:
            return _ended(request)
        return _manage(request, token, done=f"{subscription.title()} has ended.")
    raise InputError(f"what to do is {action[:40]!r}; expected change, pause, resume, end or forget")


@router.api_route("/unsubscribe/{token}", methods=_GET)
def unsubscribe_page(request: Request, token: str) -> Response:
    """A button. The link alone ends nothing: programs that look at mails follow every link."""
    identifier = str(_signer(request).read("mail-unsubscribe", token))
    try:
        subscription = _store(request).subscription(identifier)
    except NotFoundError:
        return _ended(request)
    said = _said(
        title="Unsubscribe?",
        lede=f"{subscription.title()}, {subscription.schedule.said()}.",
        action=f"/unsubscribe/{token}",
        button="Unsubscribe",
        links=[
            (
                "Change or pause it instead",
                f"/subscriptions/{_signer(request).sign('mail-manage', subscription.reader)}",
            )
        ],
    )
    return _private(_page(request, "mail/said.html", said))


@router.post("/unsubscribe/{token}")
def unsubscribe(request: Request, token: str) -> Response:
    """End it, for the button and for mail programs (RFC 8058): no cookie, no further question, again and again."""
    identifier = str(_signer(request).read("mail-unsubscribe", token))
    _store(request).end(identifier, _now())
    return _ended(request)


def _ended(request: Request) -> Response:
    said = _said(
        title="You are unsubscribed",
        lede="No further mail comes from this subscription. An address without any is deleted here.",
        links=[("The newest day", "/"), ("Subscribe to something else", "/subscribe")],
    )
    return _private(_page(request, "mail/said.html", said))


def _said(
    *,
    title: str,
    lede: str,
    first: Period | None = None,
    rest: str = "",
    lines: list[str] | None = None,
    action: str = "",
    button: str = "",
    links: list[tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """``first``: a day that the template writes after ``lede``, and before ``rest``, in the reader's language."""
    return {
        "title": title,
        "lede": lede,
        "first": first,
        "rest": rest,
        "lines": lines or [],
        "action": action,
        "button": button,
        "links": links or [],
    }


def _private(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
