"""What tests of mail share: a site with papers of known days, readers, an SMTP server that misbehaves on request."""

from __future__ import annotations

import email
import email.policy
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from fakes import HashEncoder

from nextvec.papers.ingest import ingest
from nextvec.papers.mail.compose import Composer
from nextvec.papers.mail.sending import Post
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.subscriptions import Subscription, read_wanted
from nextvec.papers.mail.tables import OUTBOX, READERS, SUBSCRIPTIONS
from nextvec.papers.records import Paper
from nextvec.papers.signing import Signer
from nextvec.papers.site import Site

SECRET = b"a secret of the tests, and of nobody else"
BASE = "https://papers.example.org"
SENDER = "Papers <papers@example.org>"
MONDAY = date(2026, 3, 2)
MORNING = datetime(2026, 3, 3, 8)  # a Tuesday, in UTC


def paper(number: int, day: date, **values: Any) -> Paper:
    """A paper listed at noon of its day; a higher number has more votes."""
    known: dict[str, Any] = {
        "id": f"2603.{number:05d}",
        "title": f"Paper {number} on latent planning",
        "summary": f"We study agents, part {number}.",
        "authors": ("Ada Lovelace", f"Author {number}"),
        "upvotes": number,
        "listed_at": datetime(day.year, day.month, day.day, 12),
        "daily_date": day,
        "organization": "Lab A" if number % 2 else "Lab B",
    }
    return Paper(**(known | values))


def week(first: date = MONDAY, *, days: int = 7, each: int = 3) -> list[Paper]:
    """``each`` papers on each of these days."""
    return [paper(10 * i + j + 1, first + timedelta(days=i)) for i in range(days) for j in range(each)]


def made_site(home: Path, papers: list[Paper]) -> Site:
    """A site of these papers."""
    site = Site(home, encoder=HashEncoder())
    ingest(site, papers)
    return site


def made_post(site: Site) -> Post:
    """What prepares and sends for it."""
    return Post(site, Composer(site, base=BASE, sender=SENDER, signer=Signer(SECRET)))


def subscribe(
    site: Site, address: str, since: datetime = datetime(2026, 1, 1), days: str = "01234", **form: str
) -> Subscription:
    """A confirmed subscription, without the mail that comes first."""
    store = MailStore(site.db)
    wanted, _ = read_wanted(form, list(days), site.db)
    assert store.ask(address, wanted, since, most=1_000)
    with site.db.write() as connection:
        query = sa.select(SUBSCRIPTIONS.c.id).join(READERS, READERS.c.id == SUBSCRIPTIONS.c.reader)
        query = query.where(SUBSCRIPTIONS.c.state == "pending", READERS.c.folded == address.lower())
        identifier = connection.execute(query).scalar_one()
        connection.execute(OUTBOX.delete().where(OUTBOX.c.kind == "confirm", OUTBOX.c.subscription == identifier))
    return store.confirm(identifier, since)


def states(site: Site) -> dict[str, int]:
    """How many mails are in each state."""
    query = sa.select(OUTBOX.c.state, sa.func.count()).group_by(OUTBOX.c.state)
    with site.db.read() as connection:
        return dict(connection.execute(query).all())  # type: ignore[arg-type]


def parsed(content: bytes) -> EmailMessage:
    return email.message_from_bytes(content, policy=email.policy.default)  # type: ignore[return-value]


def text_of(message: EmailMessage, kind: str = "plain") -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def link(message: EmailMessage, path: str) -> str:
    """The address in a mail's text that begins with ``path``, from there on."""
    found = re.search(rf"https?://[^/\s]+({re.escape(path)}\S+)", text_of(message))
    assert found, path
    return found.group(1)


class Server:
    """A handler for aiosmtpd. What a recipient is called decides what happens, by the part before a plus sign."""

    def __init__(self) -> None:
        self.received: list[tuple[str, EmailMessage]] = []
        self.asked: Counter[str] = Counter()
        self.refuse_sender = False

    def counts(self) -> Counter[str]:
        """How many mails each recipient got."""
        return Counter(to for to, _ in self.received)

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if self.refuse_sender:
            return "550 5.7.1 who are you"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        self.asked[address] += 1
        name = address.partition("@")[0].partition("+")[0]
        answers: Mapping[str, str] = {
            "gone": "550 5.1.1 no such user",
            "policy": "550 5.7.1 not wanted here",
            "later": "451 4.7.1 greylisted, come again",
        }
        if name == "once" and self.asked[address] == 1:
            return "450 4.2.0 mailbox busy"
        if name == "hangup":
            server.transport.abort()
            return "421 bye"
        if name in answers:
            return answers[name]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        name = envelope.rcpt_tos[0].partition("@")[0].partition("+")[0]
        if name == "spam":
            return "554 5.7.1 looks like spam"
        for address in envelope.rcpt_tos:
            self.received.append((address, parsed(envelope.original_content)))
        if name == "lost":  # taken, and the answer never came
            server.transport.abort()
        return "250 OK"


@contextmanager
def smtp_server(*, controller: Any = None, **options: Any) -> Iterator[tuple[Server, str]]:
    """(the handler, its address) of a server on a free port of this machine; ``controller``: another class of it."""
    import socket

    import pytest

    controllers = pytest.importorskip("aiosmtpd.controller", reason="aiosmtpd is needed: pip install 'nextvec[mail]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    handler = Server()
    running = (controller or controllers.Controller)(handler, hostname="127.0.0.1", port=port, **options)
    running.start()
    try:
        yield handler, f"smtp://127.0.0.1:{port}"
    finally:
        running.stop()
