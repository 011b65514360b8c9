"""E-mail addresses: which ones are accepted, which are the same mailbox, and how they are shown to others."""

from __future__ import annotations

import re
from email.headerregistry import Address

from nextvec.papers.records import check_text, clean
from nextvec.types import InputError

__all__ = ["fold", "masked", "read_address", "read_sender"]

LONGEST = 254
"""Characters of an address (RFC 5321, 4.5.3.1)."""
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+[A-Za-z0-9-]*[A-Za-z][A-Za-z0-9-]*", re.ASCII)


def read_address(text: str, *, what: str = "the e-mail address") -> str:
    """``name@example.org``, checked; the domain in ASCII and lower case. InputError for what is no such address.

    Quoted local parts, address literals and letters beyond ASCII before the @ (RFC 6531, which few servers take) are
    refused.
    """
    check_text(text, what)
    value = text.strip(" \t")  # and nothing else: what hides a control character is no address
    local, at, domain = value.rpartition("@")
    if at and not domain.isascii():
        try:
            domain = domain.encode("idna").decode("ascii")
        except UnicodeError:
            domain = ""
    address = f"{local}@{domain.lower()}"
    if len(local) > 64 or len(address) > LONGEST or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
        raise InputError(f"{what} is {value[:60]!r}; expected the form name@example.org")
    return address


def read_sender(text: str) -> str:
    """``Papers <papers@example.org>`` or the address alone, as a ``From`` header holds it. InputError otherwise."""
    value = clean(text)
    match = re.fullmatch(r'"?([^"<>]*?)"?\s*<([^<>]+)>', value)
    name, address = (match.group(1), match.group(2)) if match else ("", value)
    return str(Address(name, addr_spec=read_address(address, what="the sender's address")))


def fold(address: str) -> str:
    """What is equal for one mailbox: servers may tell case apart before the @, in practice none does."""
    return address.lower()


def masked(address: str) -> str:
    """``a…@example.org``: enough to know one's own address by, for a page whose link may have been passed on."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}…@{domain}"
