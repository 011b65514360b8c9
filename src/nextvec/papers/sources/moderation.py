"""Taking papers away and putting them together, by hand: each act in one transaction, with a line in the audit log.

A paper that is hidden, or merged into another, leaves the table of papers, so that no feed, page, search or interface
can show it, from that moment on. What the sources said of it stays: from that it is made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from nextvec.papers.accounts.standing import move
from nextvec.papers.accounts.tables import READERS
from nextvec.papers.db import Database, stored_paper
from nextvec.papers.records import ID_PATTERN
from nextvec.papers.sources.base import Record, read_content
from nextvec.papers.sources.combine import EARLIER
from nextvec.papers.sources.ids import arxiv_id, names_of_id
from nextvec.papers.sources.intake import Given, given_to, rewrite, write_records
from nextvec.papers.sources.tables import AUDIT, NAMES, SOURCE_RECORDS, WITHDRAWN
from nextvec.papers.tables import FACTS, PAPERS
from nextvec.types import ConflictError, InputError, NotFoundError, StorageError

__all__ = [
    "MAX_REASON",
    "Act",
    "Away",
    "Withdrawn",
    "audit",
    "away",
    "check_reason",
    "hide",
    "log",
    "merge",
    "split",
    "unhide",
    "withdrawn",
    "withdrawn_ids",
]

MAX_REASON = 500
_W = WITHDRAWN.c


@dataclass(frozen=True, slots=True)
class Act:
    """One line of the log. ``actor``: who it was, by name; a reader's id became one."""

    at: datetime
    actor: str
    action: str
    paper: str
    reason: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Away:
    """Why a paper is not there. ``target``: the paper that a merged one is part of."""

    state: Literal["hidden", "merged", "deleted"]
    reason: str
    target: str | None


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A paper that is out of sight, as its sources call it."""

    paper: str
    title: str
    state: str
    reason: str
    target: str | None
    at: datetime


def away(db: Database, identifier: str) -> Away | None:
    """Why there is no paper under this id, or where it is now; None where nothing is known of it.

    Any other name of a paper (an id of the Anthology, a DOI, an arXiv id with its version) leads to it as well.
    """
    if not ID_PATTERN.fullmatch(identifier):
        return None
    with db.read() as connection:
        known = [identifier, arxiv_id(identifier) or identifier]
        row = connection.execute(sa.select(WITHDRAWN).where(_W.paper.in_(known)).limit(1)).one_or_none()
        if row is not None and row.state == "merged":
            return Away("merged", row.reason, _end(connection, row.target))
        if row is not None:
            return Away(row.state, row.reason, None)
        wanted = [*names_of_id(identifier), f"doi:{identifier.lower()}"]
        query = sa.select(NAMES.c.paper).where(NAMES.c.name.in_(wanted)).limit(1)
        named = connection.execute(query).scalar()
        if named is None or named == identifier:
            return None
        there = connection.execute(sa.select(PAPERS.c.id).where(PAPERS.c.id == named)).scalar()
    return Away("merged", "", there) if there else None


def _end(connection: sa.Connection, target: str) -> str:
    """Where a chain of merges ends."""
    seen = {target}
    while True:
        query = sa.select(_W.target).where(_W.paper == target, _W.state == "merged")
        following = connection.execute(query).scalar()
        if following is None or following in seen:
            return target
        seen.add(following)
        target = following


def withdrawn_ids(db: Database) -> frozenset[str]:
    """The ids under which nothing is shown; none in a database that is older than this and cannot be brought up to
    date, on a read-only disk."""
    try:
        with db.read() as connection:
            return frozenset(connection.execute(sa.select(_W.paper)).scalars())
    except StorageError:
        if db.read_only:
            return frozenset()
        raise


def withdrawn(db: Database, *, limit: int) -> list[Withdrawn]:
    """What is out of sight, the latest first."""
    query = sa.select(WITHDRAWN).where(_W.state != "deleted").order_by(_W.at.desc(), _W.paper).limit(limit)
    with db.read() as connection:
        rows = connection.execute(query).all()
        # A merged paper's records lie with the one that it is part of; what it would be alone is its home.
        c = SOURCE_RECORDS.c
        query = sa.select(c.home, c.key, c.content).where(c.home.in_([row.paper for row in rows]))
        titles = {one.home: read_content(one.key, one.content).paper.title for one in connection.execute(query)}
    return [Withdrawn(row.paper, titles.get(row.paper, ""), row.state, row.reason, row.target, row.at) for row in rows]


def hide(db: Database, identifier: str, *, reason: str, actor: str) -> None:
    """Take a paper out of sight until ``unhide``: its address answers 410 with the reason. NotFoundError where there is
    none, ConflictError where it is hidden already."""
    reason = check_reason(reason)
    with db.write() as connection:
        identifier = _there(connection, identifier)
        _adopt(connection, identifier)
        db.drop(connection, [identifier])
        _withdraw(connection, identifier, "hidden", reason)
        _note(connection, actor, "hide", identifier, reason)


def unhide(db: Database, identifier: str, *, actor: str) -> None:
    """Show a hidden paper again; the search has it after the next ingest."""
    with db.write() as connection:
        state = connection.execute(sa.select(_W.state).where(_W.paper == identifier)).scalar()
        if state != "hidden":
            raise NotFoundError(f"no paper {identifier[:80]!r} is hidden")
        connection.execute(WITHDRAWN.delete().where(_W.paper == identifier))
        rewrite(db, connection, [identifier])
        _note(connection, actor, "unhide", identifier, "")


def merge(db: Database, kept: str, gone: str, *, actor: str, reason: str = "") -> str:
    """Make ``gone`` a part of ``kept``: its records, its names, its address, which leads there, and what readers gave
    it, which stays there when the two are split; the id kept."""
    with db.write() as connection:
        kept, gone = _there(connection, kept), _there(connection, gone)
        if kept == gone:
            raise InputError(f"{kept!r} cannot be merged with itself")
        for identifier in (kept, gone):
            _adopt(connection, identifier)
        moved = [[given.source, given.record.key] for given in given_to(connection, [gone])]
        connection.execute(SOURCE_RECORDS.update().where(SOURCE_RECORDS.c.paper == gone).values(paper=kept))
        connection.execute(NAMES.update().where(NAMES.c.paper == gone).values(paper=kept))
        db.drop(connection, [gone])
        move(connection, gone, kept)
        _withdraw(connection, gone, "merged", reason, target=kept, moved=moved)
        rewrite(db, connection, [kept])
        _note(connection, actor, "merge", kept, reason, {"gone": gone})
    return kept


def split(db: Database, identifier: str, *, actor: str, reason: str = "") -> list[str]:
    """Undo a merge: of a paper that was merged away, this one merge; of a paper that holds others, all that joined it.

    The ids that are papers of their own again. What was taken apart stays apart, whatever its sources say later.
    ConflictError where there is nothing to take apart.
    """
    with db.write() as connection:
        row = connection.execute(sa.select(WITHDRAWN).where(_W.paper == identifier)).one_or_none()
        if row is not None and row.state == "merged":
            moved = json.loads(row.moved) if isinstance(row.moved, str) else row.moved
            apart = {identifier: [(source, key) for source, key in moved]}
            end = _end(connection, row.target)
        else:
            end = _there(connection, identifier)
            apart = {}
            for given in given_to(connection, [end]):
                if given.home != end:
                    apart.setdefault(given.home, []).append((given.source, given.record.key))
        if not apart:
            raise ConflictError(f"{identifier!r} is one paper for all its sources: there is nothing to take apart")
        for paper, keys in apart.items():
            for source, key in keys:
                mine = SOURCE_RECORDS.c.source == source, SOURCE_RECORDS.c.key == key
                connection.execute(SOURCE_RECORDS.update().where(*mine).values(paper=paper))
            connection.execute(WITHDRAWN.delete().where(_W.paper == paper))
        back = rewrite(db, connection, [*apart, end])
        if end not in back:  # everything that it was made of went away again
            db.drop(connection, [end])
        _note(connection, actor, "split", end, reason, {"apart": sorted(apart)})
    return sorted(set(apart) & set(back))


def audit(db: Database, *, limit: int = 50) -> list[Act]:
    """The log, the latest first."""
    with db.read() as connection:
        rows = connection.execute(sa.select(AUDIT).order_by(AUDIT.c.number.desc()).limit(limit)).all()
        known = sa.select(READERS.c.id, READERS.c.name).where(READERS.c.id.in_({row.actor for row in rows}))
        names = {row.id: row.name for row in connection.execute(known)}
    return [
        Act(
            row.at,
            names.get(row.actor, row.actor),
            row.action,
            row.paper,
            row.reason,
            json.loads(row.details) if isinstance(row.details, str) else row.details,
        )
        for row in rows
    ]


def log(db: Database, actor: str, action: str, paper: str, reason: str = "") -> None:
    """A line in the log, for acts of other parts of the site."""
    with db.write() as connection:
        _note(connection, actor, action, paper, reason)


def _there(connection: sa.Connection, identifier: str) -> str:
    """The id of a paper that is shown; NotFoundError, ConflictError (it is withdrawn)."""
    known = [identifier, arxiv_id(identifier) or identifier]
    found = connection.execute(sa.select(PAPERS.c.id).where(PAPERS.c.id.in_(known))).scalars().all()
    if found:
        return identifier if identifier in found else str(found[0])
    row = connection.execute(sa.select(WITHDRAWN).where(_W.paper == identifier)).one_or_none()
    if row is not None and row.state == "merged":
        raise ConflictError(f"{identifier!r} is part of {row.target!r}: name that one, or split it first")
    if row is not None:
        raise ConflictError(f"{identifier!r} is {row.state} already")
    raise NotFoundError(f"there is no paper {identifier[:80]!r} in this collection")


def _adopt(connection: sa.Connection, identifier: str) -> None:
    """A record for a paper that has none, so that it can be made again."""
    if given_to(connection, [identifier]):
        return
    row = connection.execute(sa.select(PAPERS).where(PAPERS.c.id == identifier)).one()
    record = Record(identifier, stored_paper(row), names_of_id(identifier))
    given = Given(EARLIER, record, identifier, identifier)
    write_records(connection, [given], {}, datetime.now(UTC).replace(tzinfo=None))


def _withdraw(
    connection: sa.Connection,
    identifier: str,
    state: str,
    reason: str,
    *,
    target: str | None = None,
    moved: Sequence[Sequence[str]] = (),
) -> None:
    connection.execute(WITHDRAWN.delete().where(_W.paper == identifier))
    now = datetime.now(UTC).replace(tzinfo=None)
    values = {"paper": identifier, "state": state, "reason": reason, "target": target, "moved": list(moved), "at": now}
    connection.execute(WITHDRAWN.insert(), values)


def _note(
    connection: sa.Connection, actor: str, action: str, paper: str, reason: str, details: dict[str, Any] | None = None
) -> None:
    """A line in the log, and a new epoch: an ingest that planned before has to plan anew."""
    now = datetime.now(UTC).replace(tzinfo=None)
    last = connection.execute(sa.select(sa.func.coalesce(sa.func.max(AUDIT.c.number), 0))).scalar_one()
    values = {"number": last + 1, "at": now, "actor": actor[:100], "action": action, "paper": paper[:64]}
    connection.execute(AUDIT.insert(), values | {"reason": reason[:MAX_REASON], "details": details or {}})
    connection.execute(FACTS.delete().where(FACTS.c.name == "moderated"))
    connection.execute(FACTS.insert(), {"name": "moderated", "value": str(last + 1)})


def check_reason(reason: str) -> str:
    """``reason`` in one line. InputError for none, and for one that is too long."""
    text = " ".join(reason.split())
    if not 1 <= len(text) <= MAX_REASON:
        raise InputError(f"the reason has {len(text)} characters; expected 1 to {MAX_REASON}: readers are shown it")
    return text
