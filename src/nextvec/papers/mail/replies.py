"""What a mail server's answers mean: taken, put off, refused for good, or no mail of this site at all."""

from __future__ import annotations

import re

from nextvec.types import NextvecError

__all__ = [
    "DeferredError",
    "DoubtfulError",
    "RefusedError",
    "RejectedSetupError",
    "check_recipient",
    "check_sender",
    "check_text",
    "told",
]


class DeferredError(NextvecError):
    """Not taken now (4xx, no connection): the same mail may be taken later. ``unreachable``: no answer at all."""

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


class RefusedError(NextvecError):
    """Refused for good (5xx). ``gone``: the server said so of the address and not of this mail."""

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


class DoubtfulError(NextvecError):
    """The connection broke between the end of the mail and the server's answer to it."""


class RejectedSetupError(NextvecError):
    """The server refuses this site as a sender (sign-in, sender address, TLS): no mail would go, whoever it is for."""


def check_sender(code: int, reply: bytes) -> None:
    """Raises where MAIL FROM was not taken: a refusal is of the whole site."""
    if 500 <= code < 600:
        raise RejectedSetupError(f"the mail server refuses the sender's address: {code} {_line(reply)}")
    check_text(code, reply, wanted=250)


def check_recipient(code: int, reply: bytes) -> None:
    """Raises where RCPT TO was not taken: for good, or for now."""
    if code in (250, 251):
        return
    if 500 <= code < 600:
        # 5.7.x is a matter of policy (RFC 3463): the address may well be there.
        policy = re.match(r"5\.7\.|5\.3\.", _line(reply)) is not None
        raise RefusedError(f"{code} {_line(reply)}", gone=not policy)
    raise DeferredError(f"{code} {_line(reply)}")


def check_text(code: int, reply: bytes, *, wanted: int) -> None:
    """Raises where DATA, or the text itself, was not answered with ``wanted``."""
    if code == wanted:
        return
    if 500 <= code < 600:
        raise RefusedError(f"{code} {_line(reply)}", gone=re.match(r"5\.1\.|5\.2\.1", _line(reply)) is not None)
    raise DeferredError(f"{code} {_line(reply)}", unreachable=code == 421)


def _line(reply: bytes) -> str:
    return " ".join(reply.decode("utf-8", "replace").split())[:200]


def told(error: Exception) -> str:
    """What smtplib or the network say, in one line."""
    code = getattr(error, "smtp_code", None)
    text = " ".join(str(getattr(error, "smtp_error", b"").decode("utf-8", "replace") if code else error).split())
    return f"{code} {text}"[:200] if code else text[:200] or type(error).__name__
