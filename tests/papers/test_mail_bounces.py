"""Delivery reports (RFC 3464): which ones count, and what follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from mail_fakes import MORNING, SENDER, made_post, made_site, states, subscribe, week

from nextvec.papers.mail.bounces import note_bounce, read_bounce
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.tables import OUTBOX
from nextvec.papers.mail.transport import open_mailer
from nextvec.papers.site import Site
from nextvec.types import InputError, NotFoundError, StorageError

REPORT = """From: MAILER-DAEMON@mx.example.org (Mail Delivery System)
To: papers@example.org
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="B"

--B
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.

--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.org
Arrival-Date: Tue, 3 Mar 2026 08:00:02 +0000

Final-Recipient: rfc822; {recipient}
Original-Recipient: rfc822;{recipient}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 550 5.1.1 <{recipient}>: Recipient address
    rejected: User unknown

--B
Content-Type: {kind}

Return-Path: <papers@example.org>
Message-ID: <{message}@example.org>
Subject: Papers of 3 Mar

--B--
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site that sent Ada one digest."""
    made = made_site(tmp_path / "site", week(days=3))
    subscribe(made, "ada@example.org", kind="digest")
    post = made_post(made)
    post.prepare(MORNING)
    post.send(open_mailer(f"file://{tmp_path}/out", sender=SENDER), MORNING)
    yield made
    made.close()


def report(site: Site, tmp_path: Path, **changes: str) -> Path:
    with site.db.read() as connection:
        message = connection.execute(sa.select(OUTBOX.c.message_id)).scalar_one()
    values = {"recipient": "ada@example.org", "action": "failed", "status": "5.1.1", "kind": "text/rfc822-headers",
              "message": message} | changes  # fmt: skip
    path = tmp_path / "bounce.eml"
    path.write_bytes(REPORT.format(**values).replace("\n", "\r\n").encode())
    return path


@pytest.mark.parametrize("kind", ["text/rfc822-headers", "message/rfc822"])
def test_an_address_that_is_not_there_gets_nothing_more(site: Site, tmp_path: Path, kind: str) -> None:
    store = MailStore(site.db)
    said, suspended = note_bounce(store, read_bounce(report(site, tmp_path, kind=kind)), MORNING)
    assert suspended and said.startswith("ada@example.org: suspended (5.1.1 550 5.1.1 <ada@example.org>: Recipient")
    assert store.counts()["suspended"] == 1 and states(site) == {"failed": 1}
    assert made_post(site).prepare(MORNING.replace(day=4)) == 0
    again, _ = note_bounce(store, read_bounce(report(site, tmp_path)), MORNING)
    assert "suspended" in again and store.counts()["suspended"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "delayed", "status": "4.4.1"},
        {"action": "failed", "status": "4.2.2"},
        {"action": "failed", "status": "5.7.1"},
        {"action": "delivered", "status": "2.0.0"},
    ],
)
def test_what_may_pass_changes_nothing(site: Site, tmp_path: Path, changes: dict[str, str]) -> None:
    said, suspended = note_bounce(MailStore(site.db), read_bounce(report(site, tmp_path, **changes)), MORNING)
    assert not suspended and "nothing is changed" in said and MailStore(site.db).counts()["suspended"] == 0


def test_a_forwarded_mail_is_that_of_its_reader(site: Site, tmp_path: Path) -> None:
    bounce = read_bounce(report(site, tmp_path, recipient="old@elsewhere.example"))
    said, suspended = note_bounce(MailStore(site.db), bounce, MORNING)
    assert suspended and said.startswith("ada@example.org: suspended") and "forwarded to old@elsewhere.example" in said


def test_a_report_about_a_mail_that_was_never_sent_counts_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no mail <digest"):
        note_bounce(MailStore(site.db), read_bounce(report(site, tmp_path, message="digest." + "0" * 32)), MORNING)
    with pytest.raises(InputError, match="does not bring back the Message-ID"):
        read_bounce(report(site, tmp_path, message="somebody-else"))
    assert MailStore(site.db).counts()["suspended"] == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected a delivery report"),
        (b"Subject: hi\r\n\r\nhi", "expected a delivery report"),
        (
            b'Content-Type: multipart/report; report-type=delivery-status; boundary="B"\r\n\r\n--B--',
            "no part that names",
        ),
        (
            b'Content-Type: multipart/report; report-type=disposition-notification; boundary="B"\r\n\r\n',
            "expected a delivery",
        ),
        (b"\xff\xfe" * 500, "expected a delivery report"),
    ],
)
def test_what_is_no_report(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.eml").write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_bounce(tmp_path / "x.eml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        read_bounce(tmp_path / "absent.eml")
