"""What a reader follows or mutes: topics, authors, organisations; and saved searches, which can only be followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import parse_qsl, urlencode

import sqlalchemy as sa

from nextvec.papers.accounts.tables import INTERESTS, as_reader, now
from nextvec.papers.authors import fold
from nextvec.papers.db import Database
from nextvec.papers.params import check_query, read_name
from nextvec.papers.search_form import SearchForm, read_form
from nextvec.search.words import tokenize
from nextvec.types import InputError

__all__ = ["KINDS", "STANCES", "Interest", "Kind", "Stance", "choose", "forget", "of_reader", "read_search"]

Kind = Literal["topic", "author", "org", "search"]
Stance = Literal["follow", "mute"]
KINDS: dict[Kind, str] = {"topic": "topic", "author": "author", "org": "organisation", "search": "search"}
"""The kinds, and what people call them."""
STANCES: tuple[Stance, ...] = ("follow", "mute")
MOST = 200
_I = INTERESTS.c


@dataclass(frozen=True, slots=True)
class Interest:
    """``said``: a topic's words, a name as the papers spell it, or what follows ``/search?``; ``folded``: its key."""

    kind: Kind
    said: str
    folded: str
    stance: Stance

    @property
    def address(self) -> str:
        """The page that shows all of it."""
        return f"/search?{self.said}" if self.kind == "search" else f"/papers/new?{urlencode([(self.kind, self.said)])}"

    @property
    def shown(self) -> str:
        """What people read: the words, the name, or what is searched for."""
        if self.kind != "search":
            return self.said
        values = dict(parse_qsl(self.said))
        query = values.pop("q", "")
        return f"{query} ({', '.join(f'{name} {value}' for name, value in values.items())})" if values else query


def choose(db: Database, reader: str, kind: str, said: str, stance: str) -> Interest:
    """Follow or mute; the last word counts. InputError for what cannot be followed, with a close name if any."""
    chosen = next((known for known in KINDS if known == kind), None)
    meant = next((known for known in STANCES if known == stance), None)
    if chosen is None or meant is None:
        expected = f"{', '.join(KINDS)}, to {' or '.join(STANCES)}"
        raise InputError(f"{stance[:20]!r} a {kind[:20]!r} is not known; expected one of {expected}")
    if (chosen, meant) == ("search", "mute"):
        raise InputError("a search cannot be muted: mute a topic, an author or an organisation")
    interest = _checked(db, chosen, said, meant)
    mine = (_I.reader == reader, _I.kind == interest.kind)
    with as_reader(db, reader) as connection:
        connection.execute(INTERESTS.delete().where(*mine, _I.folded == interest.folded))
        held = sa.select(sa.func.count()).select_from(INTERESTS).where(_I.reader == reader)
        if connection.execute(held).scalar_one() >= MOST:
            raise InputError(f"you follow and mute {MOST} things, the most there can be: take one away first")
        values = {"reader": reader, "kind": interest.kind, "folded": interest.folded, "said": interest.said}
        connection.execute(INTERESTS.insert().values(values | {"stance": stance, "created_at": now()}))
    return interest


def forget(db: Database, reader: str, kind: str, folded: str) -> None:
    """Neither follow nor mute any more."""
    with as_reader(db, reader) as connection:
        gone = INTERESTS.delete().where(_I.reader == reader, _I.kind == kind, _I.folded == folded)
        connection.execute(gone)


def of_reader(db: Database, reader: str) -> list[Interest]:
    """All that ``reader`` follows and mutes, in the order of kinds, then by name."""
    with db.read() as connection:
        rows = connection.execute(sa.select(INTERESTS).where(_I.reader == reader)).all()
    places = list(KINDS)
    found = [Interest(cast(Kind, row.kind), row.said, row.folded, cast(Stance, row.stance)) for row in rows]
    return sorted(found, key=lambda interest: (places.index(interest.kind), interest.folded))


def read_search(db: Database, said: str) -> SearchForm:
    """A saved search as the search page reads it. InputError."""
    pairs = parse_qsl(said.removeprefix("/search").removeprefix("?"))
    return read_form(dict(pairs), lambda name: [value for key, value in pairs if key == name], db)


def _checked(db: Database, kind: Kind, said: str, stance: Stance) -> Interest:
    if kind == "search":
        form = read_search(db, said)
        if not form.request.asks:
            raise InputError("there is no question in this search: a filter alone is followed as a topic or a name")
        said = form.address().removeprefix("/search?")
        return Interest(kind, said, said.lower()[:600], stance)
    if kind == "topic":
        topic = check_query(said).strip(" ,")
        if not tokenize(topic):
            raise InputError(
                f"topic is {topic[:40]!r}, which has no word to look for; expected words like world models"
            )
        return Interest(kind, topic, fold(topic)[:600], stance)
    name = read_name(said, KINDS[kind])
    known = (db.find_author if kind == "author" else db.find_organization)(name) if name else None
    if name is None or known is None:
        close = (db.close_author if kind == "author" else db.close_organization)(name) if name else None
        hint = f"; did you mean {close!r}?" if close else ""
        raise InputError(f"no paper here has the {KINDS[kind]} {name or ''!r}{hint}")
    return Interest(kind, known, fold(known)[:600], stance)
