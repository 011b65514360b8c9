"""Tokens: words with which a reader's programs ask in their name, each for as much as its scopes allow.

A token is two random words behind a sign. The first finds the row; of the second the database holds only the hash,
which is compared in constant time: who reads the database cannot use a token, and who measures answers learns nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import sqlalchemy as sa

from nextvec.papers.accounts.readers import Reader, read
from nextvec.papers.accounts.tables import READERS, TOKENS, as_reader, new_id, now
from nextvec.papers.db import Database
from nextvec.papers.records import read_name
from nextvec.types import InputError, NextvecError, NotFoundError

__all__ = ["MAX_NAME", "MAX_TOKENS", "SCOPES", "SIGN", "Scope", "Token", "check", "make", "of_reader", "revoke"]

Scope = Literal["read", "vote", "lists"]
SCOPES: dict[Scope, str] = {
    "read": "Read the papers at a higher rate than without a token",
    "vote": "Vote for papers and take votes back",
    "lists": "See, make, change and delete reading lists",
}
"""What a token may be for -> in words."""
MAX_NAME, MAX_TOKENS = 60, 20
SIGN = "nvp_"
"""What every token begins with: a search through files or a log finds one that was left there."""
_FORM = re.compile(rf"{SIGN}([\w-]{{22}})\.([\w-]{{43}})", re.ASCII)
_UNKNOWN = "this token is not known here: it was revoked, or cut short; its owner makes another one at /account"
_T = TOKENS.c


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token. ``ends_on``: the last day (UTC) on which it works, or None; ``used_on``: the last day on
    which it was used, or None."""

    id: str
    reader: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    ends_on: date | None
    used_on: date | None

    @property
    def ended(self) -> bool:
        return self.ends_on is not None and self.ends_on < now().date()


def make(
    db: Database, reader: str, name: str, scopes: Collection[str], ends_on: date | None = None
) -> tuple[Token, str]:
    """A new token and its word, which nobody can be shown again. InputError for a name that is taken, no or unknown
    scopes, a last day that is over, and above 20 tokens."""
    kept = read_name(name, "the name of the token", most=MAX_NAME)
    chosen = _scopes(scopes)
    moment = now()
    if ends_on is not None and ends_on < moment.date():
        raise InputError(f"the last day of the token is {ends_on}, which is over: choose a later one, or none")
    word = secrets.token_urlsafe(32)
    token = Token(new_id(), reader, kept, chosen, moment, ends_on, None)
    with as_reader(db, reader) as connection:
        names = set(connection.execute(sa.select(_T.name).where(_T.reader == reader)).scalars())
        if len(names) >= MAX_TOKENS:
            raise InputError(f"you have {len(names)} tokens, the most there can be: revoke one first")
        if kept in names:
            raise InputError(f"you have a token called {kept!r} already: revoke it first, or choose another name")
        values = {name: getattr(token, name) for name in Token.__slots__ if name != "scopes"}
        values |= {"scopes": " ".join(chosen), "token_hash": _hash(word)}
        connection.execute(TOKENS.insert().values(values))
    return token, f"{SIGN}{token.id}.{word}"


def of_reader(db: Database, reader: str) -> list[Token]:
    """Somebody's tokens, the newest first."""
    query = sa.select(TOKENS).where(_T.reader == reader).order_by(_T.created_at.desc(), _T.id)
    with db.read() as connection:
        return [_token(row) for row in connection.execute(query)]


def revoke(db: Database, reader: str, identifier: str) -> None:
    """End a token at once. NotFoundError where ``reader`` has no such one."""
    with as_reader(db, reader) as connection:
        if connection.execute(TOKENS.delete().where(_T.id == identifier, _T.reader == reader)).rowcount != 1:
            raise NotFoundError("there is no such token of yours: it was revoked already")


def check(db: Database, text: str) -> tuple[Token, Reader]:
    """The token that ``text`` is, and whose it is; the day is noted. InputError for one that does not work."""
    match = _FORM.fullmatch(text)
    identifier, word = match.groups() if match else ("", "")
    with db.read() as connection:
        row = connection.execute(sa.select(TOKENS).where(_T.id == identifier)).first()
        good = hmac.compare_digest(row.token_hash if row else _hash("-"), _hash(word))
        owner = connection.execute(sa.select(READERS).where(READERS.c.id == row.reader)).first() if row else None
    if row is None or owner is None or not good:
        raise InputError(_UNKNOWN)
    token = _token(row)
    if token.ended:
        raise InputError(f"this token ended on {token.ends_on}: its owner makes another one at /account")
    _note_use(db, token)
    return token, read(owner)


def _note_use(db: Database, token: Token) -> None:
    """Write the day down, once a day: a busy token is no reason for a write with each request."""
    today = now().date()
    if token.used_on == today:
        return
    try:
        with db.write() as connection:
            connection.execute(TOKENS.update().where(_T.id == token.id).values(used_on=today))
    except NextvecError:  # who only reads need not wait until something can be written again
        return


def _token(row: sa.Row[Any]) -> Token:
    held = set(row.scopes.split())
    scopes = tuple(scope for scope in SCOPES if scope in held)
    return Token(row.id, row.reader, row.name, scopes, row.created_at, row.ends_on, row.used_on)


def _scopes(given: Iterable[str]) -> tuple[Scope, ...]:
    asked = set(given)
    if unknown := sorted(asked - set(SCOPES)):
        raise InputError(f"scope {unknown[0][:40]!r} is not known; expected some of {', '.join(SCOPES)}")
    if not asked:
        raise InputError(f"the token would be for nothing: tick at least one of {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in asked)


def _hash(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()
