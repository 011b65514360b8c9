"""Signing in without a password: a link by mail that works once, and the sessions that it opens.

A link's token is two random words. The first finds the row; of the second the database holds only the hash, which is
compared in constant time: who reads the database cannot sign in, and who measures answers learns nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import timedelta
from email.message import EmailMessage
from email.utils import make_msgid
from typing import Any

import sqlalchemy as sa

from nextvec.papers.accounts.readers import Reader, enter, read
from nextvec.papers.accounts.tables import READERS, SESSIONS, SIGN_INS, new_id, now
from nextvec.papers.db import Database
from nextvec.papers.mail.addresses import fold, read_address
from nextvec.types import InputError

__all__ = [
    "LINK_MINUTES",
    "OPEN_LINKS",
    "SESSION_DAYS",
    "check_email",
    "check_link",
    "close_session",
    "close_sessions",
    "letter",
    "make_link",
    "redeem",
    "session_reader",
    "withdraw",
]

LINK_MINUTES = 15
SESSION_DAYS = 90
OPEN_LINKS = 3
"""Links to one address that can be open at the same time: nobody's mailbox is filled by somebody else."""
_TOKEN = re.compile(r"([\w-]{22})\.([\w-]{43})", re.ASCII)
_INVALID = "this link was used already, has expired, or was cut short: ask for a new one"
_S, _T = SIGN_INS.c, SESSIONS.c


def check_email(text: str) -> str:
    """An address in lower case. InputError for what is none (no line breaks, no names, no lists)."""
    return fold(read_address(text, what="the address"))


def make_link(db: Database, email: str, leads_to: str) -> str | None:
    """The token of a new link for ``email``, an address that ``check_email`` gave; None where too many are open.

    The same for an address that has an account and for one that has none.
    """
    selector, word = new_id(), secrets.token_urlsafe(32)
    moment = now()
    with db.write() as connection:
        connection.execute(SIGN_INS.delete().where(_S.expires_at <= moment))
        query = sa.select(sa.func.count()).select_from(SIGN_INS).where(_S.email == email)
        if connection.execute(query).scalar_one() >= OPEN_LINKS:
            return None
        values = {"selector": selector, "token_hash": _hash(word), "email": email, "leads_to": leads_to}
        times = {"created_at": moment, "expires_at": moment + timedelta(minutes=LINK_MINUTES)}
        connection.execute(SIGN_INS.insert().values(values | times))
    return f"{selector}.{word}"


def withdraw(db: Database, token: str) -> None:
    """Take back a link whose mail could not be sent."""
    with db.write() as connection:
        connection.execute(SIGN_INS.delete().where(_S.selector == token.partition(".")[0]))


def check_link(db: Database, token: str) -> str:
    """The address that ``token`` would sign in; nothing changes. InputError where it is not good any more."""
    with db.read() as connection:
        return str(_open_link(connection, token).email)


def redeem(db: Database, token: str) -> tuple[Reader, str, str]:
    """(reader, id of the new session, where the link leads). InputError where the link was used, expired or forged."""
    moment = now()
    with db.write() as connection:
        row = _open_link(connection, token)
        # Of two who come at the same time, only one takes the row away.
        if connection.execute(SIGN_INS.delete().where(_S.selector == row.selector)).rowcount != 1:
            raise InputError(_INVALID)
        reader = enter(connection, row.email)
        connection.execute(SESSIONS.delete().where(_T.expires_at <= moment))
        session = new_id()
        expires = moment + timedelta(days=SESSION_DAYS)
        values = {"id": session, "reader": reader.id, "created_at": moment, "expires_at": expires}
        connection.execute(SESSIONS.insert().values(values))
    return reader, session, row.leads_to


def _open_link(connection: sa.Connection, token: str) -> sa.Row[Any]:
    match = _TOKEN.fullmatch(token)
    selector, word = match.groups() if match else ("", "")
    row = connection.execute(sa.select(SIGN_INS).where(_S.selector == selector)).first()
    good = hmac.compare_digest(row.token_hash if row else _hash("-"), _hash(word))
    if row is None or not good or row.expires_at <= now():
        raise InputError(_INVALID)
    return row


def _hash(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


def session_reader(db: Database, session: str) -> Reader | None:
    """Whose open session this is, or None."""
    query = sa.select(READERS).join(SESSIONS, _T.reader == READERS.c.id).where(_T.id == session, _T.expires_at > now())
    with db.read() as connection:
        row = connection.execute(query).first()
    return read(row) if row else None


def close_session(db: Database, session: str) -> None:
    """Sign out here."""
    with db.write() as connection:
        connection.execute(SESSIONS.delete().where(_T.id == session))


def close_sessions(db: Database, reader: str) -> None:
    """Sign out everywhere."""
    with db.write() as connection:
        connection.execute(SESSIONS.delete().where(_T.reader == reader))


def letter(email: str, base: str, token: str) -> EmailMessage:
    """The mail with the link. The mailer adds the sender."""
    message = EmailMessage()
    message["To"] = email
    message["Subject"] = "Your link to sign in"
    message["Message-ID"] = make_msgid(domain=base.partition("://")[2].partition(":")[0] or None)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        f"Somebody, most likely you, asked to sign in at {base} with this address.\n\n"
        f"Open this link and press the button there:\n\n{base}/sign-in/link?token={token}\n\n"
        f"It works once, within {LINK_MINUTES} minutes. If it was not you, do nothing: "
        "without the link nobody gets in.\n"
    )
    return message
