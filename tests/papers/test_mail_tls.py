"""Mail through a server as providers run them: TLS, sign-in, a certificate that is checked, answers after the text,
and one that hangs up in the middle of a mail."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl
import subprocess
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from mail_fakes import MORNING, SENDER, made_post, made_site, parsed, smtp_server, states, subscribe, text_of, week
from test_mail_transport import mail

from nextvec.papers.mail.transport import DeferredError, DoubtfulError, RejectedSetupError, open_mailer

pytest.importorskip("aiosmtpd", reason="aiosmtpd is needed: pip install 'nextvec[mail]'")
pytest.importorskip("cryptography", reason="cryptography is needed to make a certificate")


@dataclass(frozen=True)
class Certificate:
    """A server's certificate that signs itself, and its key."""

    file: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.file, self.key)
        return made


def certified(folder: Path, *names: str) -> Certificate:
    """A new certificate for these host names; one that is an address is meant as such."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    said = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    moment = dt.datetime.now(dt.UTC)
    entries: list[Any] = [x509.DNSName(name) for name in names if not name[0].isdigit()]
    entries += [x509.IPAddress(ip_address(name)) for name in names if name[0].isdigit()]
    built = x509.CertificateBuilder(said, said, key.public_key(), x509.random_serial_number())
    built = built.not_valid_before(moment - dt.timedelta(days=1)).not_valid_after(moment + dt.timedelta(days=1))
    built = built.add_extension(x509.SubjectAlternativeName(entries), critical=False)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    made.file.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    kind = serialization.PrivateFormat.PKCS8
    made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    return made


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """One for this machine that everything here trusts."""
    made = certified(tmp_path, "localhost", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


class Guard:
    """Knows one user, and whether TLS was there when the password came."""

    def __init__(self) -> None:
        self.came: list[tuple[bytes, bytes, bool]] = []

    def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        from aiosmtpd.smtp import AuthResult

        self.came.append((data.login, data.password, session.ssl is not None))
        return AuthResult(success=(data.login, data.password) == (b"papers", b"hunter2"), handled=False)


# -- TLS and sign-in -------------------------------------------------------------------------------------------------
def test_a_provider_with_starttls_and_a_password(certificate: Certificate) -> None:
    guard = Guard()
    options = {"tls_context": certificate.context(), "require_starttls": True, "authenticator": guard}
    with smtp_server(**options, auth_required=True) as (server, url):
        mailer = open_mailer(url.replace("smtp://", "smtp+starttls://papers:hunter2@"), sender=SENDER)
        mailer.send(mail())
        mailer.send(mail("bob@example.org"))
        mailer.close()
        assert server.counts() == {"ada@example.org": 1, "bob@example.org": 1}
        assert guard.came == [(b"papers", b"hunter2", True)], "once for the connection, and inside TLS"
        wrong = open_mailer(url.replace("smtp://", "smtp+starttls://papers:hunter3@"), sender=SENDER)
        with pytest.raises(RejectedSetupError, match=r"refuses the user or the password \(535\)") as caught:
            wrong.send(mail())
        assert "hunter" not in str(caught.value)
        nobody = open_mailer(url.replace("smtp://", "smtp+starttls://"), sender=SENDER)
        with pytest.raises(RejectedSetupError, match="530"):
            nobody.send(mail())
        assert sum(server.counts().values()) == 2


def test_tls_from_the_first_byte(certificate: Certificate) -> None:
    guard = Guard()
    with smtp_server(ssl_context=certificate.context(), authenticator=guard, auth_require_tls=False) as (server, url):
        mailer = open_mailer(url.replace("smtp://", "smtps://papers:hunter2@"), sender=SENDER)
        mailer.send(mail())
        mailer.close()
        assert server.counts() == {"ada@example.org": 1} and len(guard.came) == 1


@pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps"])
@pytest.mark.parametrize("why", ["nobody vouches for it", "it is another one's"])
def test_a_certificate_that_is_not_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, why: str
) -> None:
    made = certified(tmp_path, "127.0.0.1" if why == "nobody vouches for it" else "mail.example.org")
    if why == "it is another one's":
        monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    guard = Guard()
    option = {"smtps": "ssl_context", "smtp+starttls": "tls_context"}[scheme]
    with smtp_server(**{option: made.context()}, authenticator=guard) as (server, url):
        mailer = open_mailer(url.replace("smtp://", f"{scheme}://papers:hunter2@"), sender=SENDER)
        with pytest.raises(RejectedSetupError, match="no trusted TLS connection") as caught:
            mailer.send(mail())
        assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)
        assert not guard.came and not server.received, "neither password nor mail"


def test_the_command_sends_one_mail_that_way(certificate: Certificate, tmp_path: Path) -> None:
    guard = Guard()
    with smtp_server(tls_context=certificate.context(), authenticator=guard, auth_required=True) as (server, url):
        environment = os.environ | {
            "NEXTVEC_MAIL": url.replace("smtp://127.0.0.1", "smtp+starttls://papers@localhost"),
            "NEXTVEC_MAIL_FROM": SENDER,
            "NEXTVEC_MAIL_PASSWORD": "hunter2",
            "NEXTVEC_HOME": str(tmp_path),
        }
        command = [sys.executable, "-m", "nextvec.cli.main", "papers", "mail", "--to", "ada@example.org"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert server.counts() == {"ada@example.org": 1} and guard.came == [(b"papers", b"hunter2", True)]


# -- answers after the text, and none --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answer", "unreachable"), [("452 4.3.1 the disk is full", False), ("421 4.3.2 shutting down", True)]
)
def test_a_mail_put_off_after_its_text(answer: str, unreachable: bool) -> None:
    with smtp_server() as (server, url):
        usual = server.handle_DATA

        async def handle(*given: Any) -> str:
            server.handle_DATA = usual  # type: ignore[method-assign]
            return answer

        server.handle_DATA = handle  # type: ignore[method-assign]
        mailer = open_mailer(url, sender=SENDER)
        with pytest.raises(DeferredError, match=answer[:3]) as caught:
            mailer.send(mail())
        assert caught.value.unreachable == unreachable and not server.received
        mailer.send(mail())
        assert server.counts() == {"ada@example.org": 1}


def hanging_up(after: int) -> Any:
    """A controller whose server hangs up when it has read so many bytes of a mail's text."""
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import SMTP

    class Impatient(SMTP):
        async def smtp_DATA(self, arg: str) -> None:
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            assert self._reader is not None and self.transport is not None
            await self._reader.readexactly(after)
            self.transport.abort()
            await asyncio.sleep(0)

    class Hanging(Controller):
        def factory(self) -> Any:
            return Impatient(self.handler, **self.SMTP_kwargs)

    return Hanging


def test_a_server_that_hangs_up_in_the_middle_of_a_mail(tmp_path: Path) -> None:
    with smtp_server(controller=hanging_up(1_000)) as (_, url):
        large = mail(text=("x" * 70 + "\n") * 200_000)  # more than a socket takes in advance
        with pytest.raises(DeferredError, match="hung up in the middle of a mail") as caught:
            open_mailer(url, sender=SENDER).send(large)
        assert caught.value.unreachable
        with pytest.raises((DeferredError, DoubtfulError)):
            open_mailer(url, sender=SENDER).send(mail(text="y" * 2_000))


def test_digests_over_tls_arrive_once_and_in_both_forms(certificate: Certificate, tmp_path: Path) -> None:
    """Two readers, two runs, a server that puts one of them off first."""
    site = made_site(tmp_path / "home", week())
    for address in ("ada@example.org", "once@example.org"):
        subscribe(site, address, kind="digest")
    post = made_post(site)
    assert post.prepare(MORNING) == 2
    with smtp_server(tls_context=certificate.context(), require_starttls=True) as (server, url):
        mailer = open_mailer(url.replace("smtp://", "smtp+starttls://"), sender=SENDER)
        assert post.send(mailer, MORNING).deferred == 1
        assert server.counts() == {"ada@example.org": 1} and states(site) == {"sent": 1, "queued": 1}
        for minutes in (10, 20):
            post.send(mailer, MORNING + dt.timedelta(minutes=minutes))
        assert server.counts() == {"ada@example.org": 1, "once@example.org": 1} and states(site) == {"sent": 2}
        for _, message in server.received:
            again = parsed(message.as_bytes())
            assert again["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
            assert "Paper" in text_of(again) and "<html" in text_of(again, "html")
        mailer.close()
    site.close()
