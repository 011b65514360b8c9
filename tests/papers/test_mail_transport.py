"""Addresses, and how mail leaves: to a folder, to a server that takes it, puts it off, refuses it or hangs up."""

from __future__ import annotations

import os
import socket
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mail_fakes import SENDER, parsed, smtp_server, text_of

from nextvec.papers.mail.addresses import fold, masked, read_address, read_sender
from nextvec.papers.mail.transport import (
    PASSWORD_VARIABLE,
    POLICY,
    DeferredError,
    DoubtfulError,
    FolderMailer,
    RefusedError,
    RejectedSetupError,
    open_mailer,
)
from nextvec.types import InputError


def mail(to: str = "ada@example.org", text: str = "Hello\n.\n..dots\nÜber\n") -> EmailMessage:
    message = EmailMessage(policy=POLICY)
    message["To"], message["Subject"] = to, "Größe: 10⁻³ " + "word " * 30
    message.set_content(text)
    return message


# -- addresses -------------------------------------------------------------------------------------------------------
def test_addresses_that_are_taken() -> None:
    assert read_address(" Ada.Love+x@Example.ORG ") == "Ada.Love+x@example.org"
    assert read_address("ada@bücher.example") == "ada@xn--bcher-kva.example"
    assert fold("Ada@example.org") == fold("ada@example.org") and masked("ada@example.org") == "a…@example.org"
    assert read_sender("papers@example.org") == "papers@example.org"
    assert read_sender('"Papers, daily" <papers@example.org>') == '"Papers, daily" <papers@example.org>'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@localhost",
        "a b@example.org",
        "ada@exa mple.org",
        "ada@@example.org",
        "ada@example.org, bob@example.org",
        "ada@example.org\nBcc: bob@example.org",
        "<ada@example.org>",
        ".a@example.org",
        "a..b@example.org",
        '"a b"@example.org',
        "ada@[127.0.0.1]",
        "ada@127.0.0.1",
        "ä@example.org",
        "a" * 65 + "@x.org",
        "ada@-x.org",
        "ada@" + "x" * 64 + ".org",
        "ada@" + "x." * 130 + "org",
        "ada@example.org;bob",
        "ada@ex_ample.org",
    ],
)
def test_addresses_that_are_not(text: str) -> None:
    with pytest.raises(InputError, match=r"e-mail address is .*expected the form name@example\.org") as caught:
        read_address(text)
    assert "\n" not in str(caught.value)


@settings(deadline=None, derandomize=True, database=None)
@given(st.text(max_size=80))
def test_no_text_gets_into_a_header_as_another_one(text: str) -> None:
    try:
        address = read_address(f"{text}@example.org")
    except InputError:
        return
    message = mail(address)
    again = parsed(message.as_bytes(policy=POLICY))
    assert [name.lower() for name in again.keys()].count("to") == 1 and "Bcc" not in again  # noqa: SIM118
    assert again["To"].addresses[0].addr_spec == address


def test_a_line_break_in_a_header_is_refused() -> None:
    for name in ("Subject", "List-Id", "From"):
        with pytest.raises(ValueError):
            EmailMessage(policy=POLICY)[name] = "x\r\nBcc: eve@example.org"
    with pytest.raises(InputError):
        read_sender("Papers\r\nBcc: eve@example.org <papers@example.org, eve@example.org>")
    # What comes through the sender's form is cleaned to one line before it is a header.
    assert read_sender("Papers\r\nBcc: x <papers@example.org>").count("\n") == 0


# -- the address of a mailer -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("smtp://mail.example.org", 25),
        ("smtps://u:p@mail.example.org", 465),
        ("catch", 8025),
        ("smtp+starttls://u%40x:p%3A@mail.example.org", 587),
        ("smtp://u:p@localhost:2525", 2525),
    ],
)
def test_ports(url: str, port: int) -> None:
    mailer = open_mailer(url, sender=SENDER)
    assert getattr(mailer, "port", None) == port
    assert "p%3A" not in repr(mailer) and ":p@" not in repr(mailer)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "expected smtp://"),
        ("http://example.org", "expected smtp://"),
        ("smtp://", "expected smtp://"),
        ("smtp://host:99999", "port"),
        ("smtp://host/path", "expected smtp://"),
        ("file://", "expected file:///folder"),
        ("file://host/x", "expected file:///folder"),
        ("smtps://u@host", "set $NEXTVEC_MAIL_PASSWORD"),
        ("smtp://u:p@mail.example.org", "unencrypted"),
        ("smtps://u:hunter2@host/x", "expected smtp://"),
    ],
)
def test_what_is_no_mailer_is_told_in_one_line(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    with pytest.raises(InputError) as caught:
        open_mailer(url, sender=SENDER)
    assert said in str(caught.value) and "\n" not in str(caught.value) and "hunter2" not in str(caught.value)


def test_the_password_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "hunter2")
    mailer = open_mailer("smtps://ada@example.org", sender=SENDER)
    assert "hunter2" not in repr(mailer) and mailer._password == "hunter2"  # type: ignore[attr-defined]


# -- a folder --------------------------------------------------------------------------------------------------------
def test_a_folder_holds_each_mail_once(tmp_path: Path) -> None:
    mailer = open_mailer(f"file://{tmp_path}/out%20here", sender=SENDER)
    message = mail()
    mailer.send(message)
    mailer.send(message)
    (path,) = (tmp_path / "out here").iterdir()
    kept = parsed(path.read_bytes())
    assert kept["From"] == SENDER and kept["Date"] and text_of(kept) == "Hello\n.\n..dots\nÜber\n"
    assert mailer.holds(str(message["Message-ID"])) and not mailer.holds("<other@example.org>")
    mailer.close()


def test_a_message_id_cannot_leave_the_folder(tmp_path: Path) -> None:
    message = mail()
    message["Message-ID"] = "<../../../escape@example.org>"
    FolderMailer(tmp_path / "a" / "b", sender=SENDER).send(message)
    assert [path.parent for path in tmp_path.rglob("*.eml")] == [tmp_path / "a" / "b"]


def test_a_folder_that_cannot_be_written_puts_the_mail_off(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeferredError, match="cannot use"):
        FolderMailer(tmp_path / "file", sender=SENDER).send(mail())


def test_mail_to_nobody() -> None:
    message = EmailMessage(policy=POLICY)
    message.set_content("x")
    with pytest.raises(InputError, match="no To header"):
        FolderMailer(Path("/nowhere"), sender=SENDER).send(message)


# -- a server --------------------------------------------------------------------------------------------------------
def test_what_was_sent_arrives_unchanged() -> None:
    with smtp_server() as (server, url):
        mailer = open_mailer(url, sender=SENDER)
        for _ in range(3):
            mailer.send(mail())
        assert server.counts() == {"ada@example.org": 3}
        for _, got in server.received:
            assert text_of(got) == "Hello\n.\n..dots\nÜber\n"
            assert got["Subject"].startswith("Größe: 10⁻³ word word")
            assert all(len(line) < 998 for line in got.as_bytes().splitlines()) and got.as_bytes().isascii()
        mailer.close()


def test_each_answer_is_told_apart() -> None:
    with smtp_server() as (server, url):
        mailer = open_mailer(url, sender=SENDER)
        with pytest.raises(RefusedError, match=r"550 5\.1\.1 no such user") as refused:
            mailer.send(mail("gone@example.org"))
        assert refused.value.gone
        with pytest.raises(RefusedError) as refused:
            mailer.send(mail("policy@example.org"))
        assert not refused.value.gone
        with pytest.raises(RefusedError) as refused:
            mailer.send(mail("spam@example.org"))
        assert not refused.value.gone
        with pytest.raises(DeferredError, match="451") as deferred:
            mailer.send(mail("later@example.org"))
        assert not deferred.value.unreachable
        with pytest.raises(DeferredError, match="hung up") as deferred:
            mailer.send(mail("hangup@example.org"))
        assert deferred.value.unreachable
        with pytest.raises(DoubtfulError, match="did not say"):
            mailer.send(mail("lost@example.org"))
        mailer.send(mail("ada@example.org"))
        server.refuse_sender = True
        with pytest.raises(RejectedSetupError, match="refuses the sender's address"):
            mailer.send(mail("ada@example.org"))
        assert server.counts() == {"lost@example.org": 1, "ada@example.org": 1}


def test_a_connection_that_went_away_is_made_anew() -> None:
    with smtp_server() as (server, url):
        mailer = open_mailer(url, sender=SENDER)
        mailer.send(mail())
        mailer._smtp.sock.close()  # type: ignore[attr-defined]
        mailer.send(mail())
        assert server.counts() == {"ada@example.org": 2}


def test_what_is_taken_back_before_the_final_dot_does_not_arrive() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with smtp_server() as (server, url):
        mailer = open_mailer(url, sender=SENDER)
        with pytest.raises(KeyboardInterrupt):
            mailer.deliver(mail(), stop)
        mailer.send(mail("bob@example.org"))
        assert server.counts() == {"bob@example.org": 1}


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mailer = open_mailer(f"smtp://127.0.0.1:{port}", sender=SENDER)
    with pytest.raises(DeferredError, match="cannot be reached") as caught:
        mailer.send(mail())
    assert caught.value.unreachable and "\n" not in str(caught.value)


def test_tls_is_not_left_out_and_a_wrong_password_stops_everything() -> None:
    class Knows:
        def __call__(self, server: object, session: object, envelope: object, mechanism: str, data: object) -> object:
            from aiosmtpd.smtp import AuthResult

            return AuthResult(success=False, handled=False)

    with smtp_server() as (server, url):
        mailer = open_mailer(url.replace("smtp://", "smtp+starttls://u:hunter2@"), sender=SENDER)
        with pytest.raises(RejectedSetupError, match="lacks what is needed") as caught:
            mailer.send(mail())
        assert "hunter2" not in str(caught.value) and not server.received
    with smtp_server(authenticator=Knows(), auth_require_tls=False) as (server, url):
        mailer = open_mailer(url.replace("smtp://", "smtp://u:hunter2@"), sender=SENDER)
        with pytest.raises(RejectedSetupError, match="refuses the user or the password") as caught:
            mailer.send(mail())
        assert "hunter2" not in str(caught.value) and not server.received


def test_no_environment_is_needed_for_a_plain_server() -> None:
    assert os.environ.get(PASSWORD_VARIABLE) is None
    assert repr(open_mailer("smtp://mail.example.org", sender=SENDER)) == "SmtpMailer(smtp://mail.example.org:25)"
