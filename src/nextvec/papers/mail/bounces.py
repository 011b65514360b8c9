"""Bounces: what a mail server sends back, later, when it could not deliver (RFC 3464), and what follows from it.

Anybody can write such a report. It counts only where it brings back the Message-ID of a mail that was sent to this
very reader, which nobody else knows.
"""

from __future__ import annotations

import email.policy
import re
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage, Message
from email.parser import BytesParser
from pathlib import Path

from nextvec.files import storage_error
from nextvec.papers.mail.addresses import fold
from nextvec.papers.mail.outbox import Outbox
from nextvec.papers.mail.store import MailStore
from nextvec.papers.records import clean
from nextvec.types import InputError, NotFoundError

__all__ = ["Bounce", "note_bounce", "read_bounce"]

_LARGEST = 10_000_000  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounce:
    """``recipient`` as the report names it; ``message``: the Message-ID before the @."""

    recipient: str
    action: str
    status: str
    diagnostic: str
    message: str

    @property
    def hard(self) -> bool:
        """Whether it is about the address, for good: 5.3.x is about a system, 5.7.x about policy (RFC 3463)."""
        return self.action == "failed" and self.status.startswith("5.") and not self.status.startswith(("5.3.", "5.7."))


def read_bounce(path: Path) -> Bounce:
    """The report in an ``.eml`` file. InputError for what is none, StorageError for a file that cannot be read."""
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{str(path)!r} has more than {_LARGEST:,} bytes; expected a delivery report")
        with path.open("rb") as stream:
            mail = BytesParser(policy=email.policy.default).parse(stream)
    except OSError as error:
        raise storage_error(error, path) from error
    where = repr(str(path))
    if mail.get_content_type() != "multipart/report" or mail.get_param("report-type") != "delivery-status":
        raise InputError(f"{where} is {mail.get_content_type()}; expected a delivery report (RFC 3464)")
    status = next((part for part in mail.walk() if part.get_content_type() == "message/delivery-status"), None)
    fields = _recipient(status) if status is not None else None
    if fields is None:
        raise InputError(f"{where} has no part that names a recipient and a status; expected one (RFC 3464, 2.3)")
    return Bounce(
        recipient=_typed(fields, "Original-Recipient") or _typed(fields, "Final-Recipient"),
        action=clean(str(fields.get("Action", ""))).lower(),
        status=clean(str(fields.get("Status", ""))).partition(" ")[0],
        diagnostic=_typed(fields, "Diagnostic-Code")[:200],
        message=_original(mail, where),
    )


def _recipient(status: Message) -> Message | None:
    """The fields of the first recipient: the blocks after the first one are one for each."""
    blocks = status.get_payload()
    blocks = blocks if isinstance(blocks, list) else []
    found = [block for block in blocks if isinstance(block, Message) and "Final-Recipient" in block]
    return next((block for block in found if "Status" in block), None)


def _typed(fields: Message, name: str) -> str:
    """The value of ``rfc822; ada@example.org``."""
    return clean(str(fields.get(name, ""))).partition(";")[2].strip()


def _original(mail: EmailMessage, where: str) -> str:
    """The Message-ID of the mail that came back, from its headers at the end of the report."""
    for part in mail.walk():
        kind, text = part.get_content_type(), ""
        if kind == "text/rfc822-headers":
            payload = part.get_payload(decode=True)
            text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
        elif kind == "message/rfc822":
            inner = part.get_payload()
            first = inner[0] if isinstance(inner, list) and inner else None
            text = f"Message-ID: {first.get('Message-ID', '')}" if isinstance(first, Message) else ""
        if match := re.search(r"^Message-ID:\s*<((?:digest|confirm)\.[0-9a-f]{24,32})@", text, re.IGNORECASE | re.M):
            return match.group(1)
    raise InputError(f"{where} does not bring back the Message-ID of a mail from here: nothing follows from it")


def note_bounce(store: MailStore, bounce: Bounce, now: datetime) -> tuple[str, bool]:
    """(what happened, whether the address was suspended). NotFoundError where no such mail was sent."""
    found = Outbox(store).by_message(bounce.message)
    if found is None:
        raise NotFoundError(f"no mail <{bounce.message}@…> was sent from here, or its reader is gone")
    mail, identifier = found
    reader = store.reader(identifier)
    said = f"{bounce.status or 'no status'} {bounce.diagnostic}".strip()
    if not bounce.hard:
        return f"{reader.address}: {bounce.action or 'no action'} ({said}); nothing is changed", False
    if bounce.recipient and fold(bounce.recipient) != fold(reader.address):
        said += f", forwarded to {bounce.recipient[:80]}"
    Outbox(store).move(mail, "sent", "failed", now, error=said[:300])
    store.suspend(identifier, said, now)
    return f"{reader.address}: suspended ({said})", True
