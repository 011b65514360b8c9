"""The commands, the server that catches mail, the scheduler inside the site, and the step of the database."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import copy_home, open_database, raw
from fastapi.testclient import TestClient
from mail_fakes import MORNING, SENDER, made_post, made_site, parsed, smtp_server, states, subscribe, week

from command_line import run
from nextvec.papers.db import Filters
from nextvec.papers.mail.catch import Mailbox, catching, create_page
from nextvec.papers.mail.scheduler import running
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.subscriptions import read_wanted
from nextvec.papers.mail.tables import OUTBOX
from nextvec.papers.mail.transport import open_mailer
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.papers.site import Site
from nextvec.types import InputError

pytestmark = pytest.mark.both

SEND = (
    "papers",
    "digest",
    "send",
    "--from",
    SENDER,
    "--url",
    "https://papers.example.org",
    "--now",
    "2026-03-03T08:00Z",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two readers."""
    home = tmp_path_factory.mktemp("commands") / "site"
    site = made_site(home, week(days=3))
    for name in ("ada", "bob"):
        subscribe(site, f"{name}@example.org", kind="digest", most="2")
    site.close()
    return home


@pytest.fixture
def home(prepared: Path, tmp_path: Path) -> Path:
    copy_home(prepared, tmp_path / "site")
    return tmp_path / "site"


def waited(condition: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


# -- commands --------------------------------------------------------------------------------------------------------
def test_send_for_cron(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    due = json.loads(run(*SEND, "--dry-run", "--json", home=home).stdout)
    assert {row["to"] for row in due} == {"ada@example.org", "bob@example.org"} and len(due[0]["papers"]) == 2
    assert "ada@example.org" in run(*SEND, "--dry-run", home=home).stdout and not out.exists()
    monkeypatch.setenv("NEXTVEC_MAIL", f"file://{out}")
    first = json.loads(run(*SEND, "--limit", "1", "--json", home=home).stdout)
    assert (first["prepared"], first["sent"], first["waiting"]) == (2, 1, 1)
    assert "0 prepared, 1 sent, 0 put off, 0 failed; 0 wait" in run(*SEND, home=home).stdout
    assert "0 prepared, 0 sent" in run(*SEND, home=home).stdout
    mails = [parsed(path.read_bytes()) for path in out.glob("*.eml")]
    assert sorted(mail["To"] for mail in mails) == ["ada@example.org", "bob@example.org"]
    assert "no digest is due" in run(*SEND, "--dry-run", home=home).stdout
    shown = json.loads(run("papers", "digest", "status", "--json", home=home).stdout)
    assert shown["mails"] == {"sent": 2} and shown["readers"]["readers"] == 2
    assert "sent" in run("papers", "digest", "status", home=home).stdout


def test_what_is_missing_is_one_line(home: Path, tmp_path: Path) -> None:
    for arguments, said in [
        (("papers", "digest", "send"), "--mail"),
        (("papers", "digest", "send", "--mail", "catch"), "--from"),
        (("papers", "digest", "send", "--mail", "catch", "--from", SENDER), "--url"),
        ((*SEND, "--mail", "ftp://x"), "expected smtp://"),
        ((*SEND[:-1], "tomorrow"), "2026-03-29T06:00Z"),
        (("papers", "digest", "bounce", str(tmp_path / "absent.eml")), "no such file"),
        (("papers", "mail"), "--catch or --to"),
        (("papers", "serve", "--mail", "catch"), "--mail-from"),
        (("papers", "serve", "--mail", "catch", "--mail-from", SENDER, "--host", "0.0.0.0"), "--url"),
    ]:
        done = run(*arguments, home=home, code=1)
        assert said in done.stderr and done.stderr.strip().count("\n") == 0, done.stderr


def test_a_server_that_is_away_is_an_exit_code(home: Path) -> None:
    done = run(*SEND, "--mail", "smtp://127.0.0.1:1", home=home, code=1)
    assert "2 prepared, 0 sent, 2 put off" in done.stdout


def test_one_mail_to_try_it_out(tmp_path: Path) -> None:
    done = run("papers", "mail", "--to", "ada@example.org", "--mail", f"file://{tmp_path}/out", "--from", SENDER)
    (path,) = (tmp_path / "out").glob("*.eml")
    assert "sent to ada@example.org" in done.stdout and parsed(path.read_bytes())["From"] == SENDER


# -- catching --------------------------------------------------------------------------------------------------------
@pytest.fixture
def caught(tmp_path: Path) -> Iterator[tuple[Mailbox, str]]:
    import socket

    pytest.importorskip("aiosmtpd", reason="aiosmtpd is needed: pip install 'nextvec[mail]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mailbox = Mailbox(tmp_path / "caught")
    server = catching(mailbox, port=port)
    with pytest.raises(InputError, match="choose another --port"):
        catching(mailbox, port=port)
    yield mailbox, f"smtp://127.0.0.1:{port}"
    server.stop()


def test_what_is_caught_is_kept_and_shown(home: Path, caught: tuple[Mailbox, str], tmp_path: Path) -> None:
    mailbox, url = caught
    run(*SEND, "--mail", url, home=home)
    assert [mail.number for mail in mailbox.mails] == [1, 2]
    assert [path.name for path in sorted(mailbox.folder.glob("*.eml"))] == ["0001.eml", "0002.eml"]
    client = TestClient(create_page(mailbox))
    first = client.get("/")
    assert (
        first.text.count("Papers of 3 Mar: Paper") == 2
        and "default-src 'none'" in first.headers["content-security-policy"]
    )
    page = client.get("/mail/1")
    assert 'src="/mail/1/html" title="The HTML part" sandbox></iframe>' in page.text
    assert "List-Unsubscribe-Post" in page.text and "1. Paper" in page.text
    html = client.get("/mail/1/html")
    assert "sandbox" in html.headers["content-security-policy"] and "<h1" in html.text
    assert client.get("/mail/1/raw").text.startswith("From: Papers") and client.get("/mail/9").status_code == 404
    assert Mailbox(mailbox.folder).add("a", ["b"], b"Subject: x\r\n\r\ny").path.name == "0003.eml"


def test_hostile_mail_is_shown_harmlessly(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    mailbox.add(
        "<script>",
        ["<img>"],
        b"Subject: <script>alert(1)</script>\r\nContent-Type: text/html; charset=nope\r\n\r\n<b>x",
    )
    mailbox.add("", [], b"\xff\x00")
    client = TestClient(create_page(mailbox))
    for address in ("/", "/mail/1", "/mail/2", "/mail/1/html", "/mail/2/html", "/mail/2/raw"):
        page = client.get(address)
        assert page.status_code == 200 and "<script>alert" not in page.text


# -- inside the site -------------------------------------------------------------------------------------------------
def test_the_scheduler_sends_a_confirmation_by_itself_and_stops(home: Path) -> None:
    site = Site(home, must_exist=True)
    with smtp_server() as (server, url):
        mailer = open_mailer(url, sender=SENDER)
        with running(made_post(site), mailer):
            wanted, _ = read_wanted({"kind": "digest"}, [], site.db)
            MailStore(site.db).ask("eve@example.org", wanted, datetime.now(UTC).replace(tzinfo=None))
            waited(lambda: server.counts() == {"eve@example.org": 1})
            waited(lambda: states(site).get("sent") == 1)
        assert not [thread for thread in threading.enumerate() if thread.name == "mail"]
    site.close()


def test_the_scheduler_gives_way_to_another_process(home: Path) -> None:
    from nextvec.papers.mail.sending import sending

    site = Site(home, must_exist=True)
    with smtp_server() as (server, url), sending(home), running(made_post(site), open_mailer(url, sender=SENDER)):
        made_post(site).prepare(MORNING)
        time.sleep(0.5)
        assert not server.received
    site.close()


# -- the database ----------------------------------------------------------------------------------------------------
def test_the_step_from_the_version_before(tmp_path: Path) -> None:
    before = [step for step in MIGRATIONS if step.number < 5]
    with raw(tmp_path) as connection:
        migrate(connection, before)
        connection.execute(
            sa.text(
                "INSERT INTO papers (id, title, summary, authors, upvotes, num_comments) VALUES ('p','t','s','[]',1,0)"
            )
        )
    with open_database(tmp_path) as db:
        assert db.ids(Filters()) == {"p"}
        store = MailStore(db)
        wanted, _ = read_wanted({"kind": "digest"}, [], db)
        assert store.ask("ada@example.org", wanted, MORNING) and store.counts()["readers"] == 1


def test_a_reader_period_and_kind_are_there_once(home: Path) -> None:
    site = Site(home, must_exist=True)
    made_post(site).prepare(MORNING)
    with site.db.read() as connection:
        row = dict(connection.execute(sa.select(OUTBOX).limit(1)).one()._mapping)
    with pytest.raises(sa.exc.IntegrityError), site.db.write() as connection:
        connection.execute(OUTBOX.insert(), row | {"id": "another"})
    site.close()
