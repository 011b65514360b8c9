"""How mail leaves: an SMTP server, or a folder of files. One address says which.

=====================================  ==================================================================
address                                what
=====================================  ==================================================================
``smtp://host[:25]``                   SMTP without encryption (a relay on this machine)
``smtp+starttls://user@host[:587]``    SMTP that turns to TLS before anything is said
``smtps://user@host[:465]``            SMTP inside TLS from the first byte
``file:///folder``                     each mail an ``.eml`` file of that folder
``catch``                              the capture server of ``nextvec papers mail --catch``
=====================================  ==================================================================

A password stands in the address (percent-encoded) or, better, in ``NEXTVEC_MAIL_PASSWORD``; it is in no message and no
``repr``. What goes wrong is a ``DeferredError`` (later may work), a ``RefusedError`` (it will not), a
``DoubtfulError`` (nobody knows whether it arrived) or a ``RejectedSetupError`` (no mail at all would go).
"""

from __future__ import annotations

import contextlib
import email.policy
import os
import re
import smtplib
import ssl
import threading
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid, parseaddr
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import SplitResult, unquote, urlsplit

from nextvec.files import atomic_write
from nextvec.papers.mail.addresses import read_sender
from nextvec.papers.mail.replies import (
    DeferredError,
    DoubtfulError,
    RefusedError,
    RejectedSetupError,
    check_recipient,
    check_sender,
    check_text,
    told,
)
from nextvec.types import InputError, StorageError

__all__ = [
    "CATCH_PORT",
    "PASSWORD_VARIABLE",
    "POLICY",
    "DeferredError",
    "DoubtfulError",
    "FolderMailer",
    "Mailer",
    "RefusedError",
    "RejectedSetupError",
    "SmtpMailer",
    "TracedMailer",
    "open_mailer",
]

PASSWORD_VARIABLE = "NEXTVEC_MAIL_PASSWORD"
CATCH_PORT = 8025
"""Where ``catch`` looks for the capture server."""

_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_FORMS = "smtp://, smtps:// or smtp+starttls:// with user@host:port, file:///folder, or catch"
_IDLE = 60.0  # seconds after which a server may have hung up without a word
_PER_CONNECTION = 100  # mails; many servers close a connection soon after that


class _Policy(email.policy.EmailPolicy):
    """Addresses in headers stay in one piece: folded, they would become encoded words, which nobody takes for links.

    So do plain subjects, which would be folded before their first word if they just do not fit.
    """

    _WHOLE = ("list-unsubscribe", "list-id", "message-id")

    def fold(self, name: str, value: Any) -> str:
        text, lower = str(value), name.lower()
        whole = lower in self._WHOLE or (lower == "subject" and text.isascii() and len(text) < 300)
        return f"{name}: {text}{self.linesep}" if whole else str(super().fold(name, value))

    def fold_binary(self, name: str, value: Any) -> bytes:
        return self.fold(name, value).encode("ascii", "surrogateescape")


POLICY = _Policy(linesep="\r\n", cte_type="7bit", utf8=False, raise_on_defect=False)
"""CRLF, 7 bits only (any server takes that), no line break in a header: what holds one raises ValueError."""


class Mailer(Protocol):
    """What sends one mail, or raises."""

    def send(self, message: EmailMessage) -> None:
        """Send ``message`` to the addresses in its ``To``."""


@runtime_checkable
class TracedMailer(Mailer, Protocol):
    """A mailer that says when it is about to pass the point of no return, so that a crash can be told apart.

    ``sender``: what ``From`` says where a message has none.
    """

    sender: str

    def deliver(self, message: EmailMessage, handing: Callable[[], None]) -> None:
        """Send; call ``handing`` when everything but the final dot is with the server."""

    def holds(self, message_id: str) -> bool | None:
        """Whether a mail was delivered, for one that may have been; None where that cannot be looked up."""

    def close(self) -> None:
        """Let go of the connection."""


def open_mailer(url: str, *, sender: str, timeout: float = 30.0) -> TracedMailer:
    """A mailer for an address (see the table above). InputError for what is none.

    ``sender`` (``Papers <papers@example.org>``) is what mails say they come from where they do not say so themselves;
    ``timeout`` in seconds, of every step with a server. Nothing is connected before the first mail.
    """
    sender = read_sender(sender)
    text = url.strip()
    if text == "catch":
        return SmtpMailer("smtp", "127.0.0.1", CATCH_PORT, sender=sender, timeout=timeout)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InputError(f"the port in the mail address {_public(text)!r} is not one; expected {_FORMS}") from None
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or parts.path.strip("/") == "":
            raise InputError(f"the mail address is {text[:80]!r}; expected file:///folder, with a whole path")
        return FolderMailer(Path(unquote(parts.path)), sender=sender)
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise InputError(f"the mail address is {_public(text)!r}; expected {_FORMS}")
    user = unquote(parts.username) if parts.username else None
    password = _password(parts, user)
    return SmtpMailer(
        parts.scheme,
        parts.hostname,
        port or _PORTS[parts.scheme],
        user=user,
        password=password,
        sender=sender,
        timeout=timeout,
    )


def _password(parts: SplitResult, user: str | None) -> str | None:
    if user is None:
        return None
    password = unquote(parts.password) if parts.password else os.environ.get(PASSWORD_VARIABLE)
    if password is None:
        raise InputError(f"the mail address names the user {user[:40]!r} and no password: set ${PASSWORD_VARIABLE}")
    if parts.scheme == "smtp" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise InputError("smtp:// would send the password unencrypted: use smtp+starttls:// or smtps://")
    return password


def _public(url: str) -> str:
    """``url`` without a password, for messages."""
    return re.sub(r"(//[^/@:]*):[^/]*@", r"\1:***@", url)[:120]


def completed(message: EmailMessage, sender: str) -> tuple[str, list[str], bytes]:
    """(envelope sender, recipients, bytes of the mail) with From, Date and Message-ID where they were missing.

    InputError for a mail that goes to nobody.
    """
    if "From" not in message:
        message["From"] = sender
    if "Date" not in message:
        message["Date"] = format_datetime(localtime())
    origin = parseaddr(str(message["From"]))[1]
    if "Message-ID" not in message:
        message["Message-ID"] = make_msgid(domain=origin.rpartition("@")[2])
    recipients = [address.addr_spec for header in message.get_all("To", []) for address in header.addresses]
    if not recipients:
        raise InputError("the mail has no To header: say whom it is for")
    return origin, recipients, message.as_bytes(policy=POLICY)


class FolderMailer:
    """Each mail is one ``.eml`` file, named by its Message-ID: the same mail again is the same file."""

    def __init__(self, folder: Path, *, sender: str) -> None:
        self.folder = folder
        self.sender = sender

    def __repr__(self) -> str:
        return f"FolderMailer({str(self.folder)!r})"

    def send(self, message: EmailMessage) -> None:
        """Write ``message``. DeferredError where the disk refuses."""
        self.deliver(message, lambda: None)

    def deliver(self, message: EmailMessage, handing: Callable[[], None]) -> None:
        """Write ``message``, all of it or nothing. DeferredError where the disk refuses."""
        _, _, body = completed(message, self.sender)
        handing()
        try:
            with atomic_write(self._path(str(message["Message-ID"]))) as stream:
                stream.write(body)
        except StorageError as error:
            raise DeferredError(str(error), unreachable=True) from error

    def holds(self, message_id: str) -> bool:
        """Whether the file is there."""
        return self._path(message_id).exists()

    def close(self) -> None:
        """Nothing to let go of."""

    def _path(self, message_id: str) -> Path:
        name = re.sub(r"[^A-Za-z0-9.@_-]", "_", message_id.strip().strip("<>")).strip(".")
        return self.folder / f"{name[:150] or 'mail'}.eml"


class SmtpMailer:
    """One connection to an SMTP server, kept between mails. Several threads may share it."""

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int,
        *,
        sender: str,
        user: str | None = None,
        password: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.scheme, self.host, self.port, self.user, self.sender = scheme, host, port, user, sender
        self._password, self._timeout = password, timeout
        self._lock = threading.Lock()
        self._smtp: smtplib.SMTP | None = None
        self._used, self._sent = 0.0, 0

    def __repr__(self) -> str:
        return f"SmtpMailer({self.scheme}://{self.user + '@' if self.user else ''}{self.host}:{self.port})"

    def send(self, message: EmailMessage) -> None:
        """Send ``message``; see the module for what it raises."""
        self.deliver(message, lambda: None)

    def deliver(self, message: EmailMessage, handing: Callable[[], None]) -> None:
        """Send; ``handing`` is called before the final dot. What it raises takes the mail back."""
        origin, recipients, body = completed(message, self.sender)
        with self._lock:
            smtp = self._envelope(origin, recipients)
            try:
                self._data(smtp, body, handing)
            except BaseException:
                self._drop()  # in the middle of a mail there is no way back but to hang up
                raise
            self._used, self._sent = time.monotonic(), self._sent + 1

    def holds(self, message_id: str) -> None:
        """Nobody can ask an SMTP server that."""

    def close(self) -> None:
        """Say goodbye."""
        with self._lock:
            if self._smtp is not None:
                with contextlib.suppress(smtplib.SMTPException, OSError):
                    self._smtp.quit()
            self._drop()

    # -- one mail ----------------------------------------------------------------------------------------------
    def _envelope(self, origin: str, recipients: list[str]) -> smtplib.SMTP:
        """A connection on which the server waits for the text of a mail."""
        while True:
            kept = self._smtp is not None
            smtp = self._connected()
            try:
                check_sender(*smtp.mail(origin))
                for address in recipients:
                    check_recipient(*smtp.rcpt(address))
                check_text(*smtp.docmd("DATA"), wanted=354)
                return smtp
            except RefusedError:
                with contextlib.suppress(smtplib.SMTPException, OSError):
                    smtp.rset()
                raise
            except (smtplib.SMTPServerDisconnected, OSError) as error:
                self._drop()
                if not kept:  # a kept connection may have been closed in the meantime: once more with a new one
                    raise DeferredError(f"{self!r} hung up: {told(error)}", unreachable=True) from None
            except BaseException:
                self._drop()
                raise

    def _data(self, smtp: smtplib.SMTP, body: bytes, handing: Callable[[], None]) -> None:
        text = re.sub(rb"(?m)^\.", b"..", body)
        try:
            smtp.send(text if text.endswith(b"\r\n") else text + b"\r\n")
        except (smtplib.SMTPException, OSError) as error:
            raise DeferredError(f"{self!r} hung up in the middle of a mail: {told(error)}", unreachable=True) from None
        handing()
        try:
            smtp.send(b".\r\n")
            code, reply = smtp.getreply()
        except (smtplib.SMTPException, OSError) as error:
            raise DoubtfulError(f"{self!r} did not say whether it took the mail: {told(error)}") from None
        check_text(code, reply, wanted=250)

    # -- the connection ----------------------------------------------------------------------------------------
    def _connected(self) -> smtplib.SMTP:
        if self._smtp is not None:
            if time.monotonic() - self._used < _IDLE and self._sent < _PER_CONNECTION:
                return self._smtp
            with contextlib.suppress(smtplib.SMTPException, OSError):
                self._smtp.quit()
            self._drop()
        try:
            self._smtp = self._open()
        except smtplib.SMTPAuthenticationError as error:
            self._drop()
            raise RejectedSetupError(f"{self!r} refuses the user or the password ({error.smtp_code})") from None
        except smtplib.SMTPNotSupportedError as error:
            self._drop()
            raise RejectedSetupError(f"{self!r} lacks what is needed: {error}") from None
        except ssl.SSLError as error:
            self._drop()
            raise RejectedSetupError(f"{self!r}: no trusted TLS connection: {told(error)}") from None
        except (smtplib.SMTPException, OSError) as error:
            self._drop()
            raise DeferredError(f"{self!r} cannot be reached: {told(error)}", unreachable=True) from None
        self._used, self._sent = time.monotonic(), 0
        return self._smtp

    def _open(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self.scheme == "smtps":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(self.host, self.port, timeout=self._timeout, context=context)
        else:
            smtp = smtplib.SMTP(self.host, self.port, timeout=self._timeout)
        try:
            smtp.ehlo_or_helo_if_needed()
            if self.scheme == "smtp+starttls":
                smtp.starttls(context=context)
                smtp.ehlo()
            if self.user is not None and self._password is not None:
                smtp.login(self.user, self._password)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
        self._smtp = None
