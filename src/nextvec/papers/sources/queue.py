"""What readers hand in, until it is a paper: waiting, approved, done, failed or rejected.

A link becomes an arXiv id and nothing else of it is kept. ``run`` asks arXiv for the ids, by the same source and the
same way in as every ingest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

import sqlalchemy as sa

from nextvec.papers.db import Database
from nextvec.papers.ingest import Report, Stage
from nextvec.papers.site import Site
from nextvec.papers.sources.base import Request, open_source
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.harvest import harvest
from nextvec.papers.sources.moderation import away, log
from nextvec.papers.sources.tables import SUBMISSIONS
from nextvec.types import ConflictError, InputError, NextvecError, NotFoundError, OfflineError

__all__ = ["MOST", "State", "Submission", "decide", "get", "listed", "run", "submit"]

State = Literal["waiting", "approved", "done", "failed", "rejected"]
MOST = 1_000
"""How many may wait: beyond that the queue is full."""
_TRIES = 3
_AT_ONCE = 100
_S = SUBMISSIONS.c


@dataclass(frozen=True, slots=True)
class Submission:
    """``id``: the arXiv id; ``note``: why it failed or was rejected. Times are naive UTC."""

    id: str
    state: State
    note: str
    tries: int
    at: datetime
    changed: datetime


def submit(db: Database, identifier: str) -> Submission:
    """Put an arXiv id into the queue; one that is there stays as it is, but a failed one may be tried again.

    ConflictError: the queue is full, or a moderator has taken this paper away.
    """
    gone = away(db, identifier)
    if gone and gone.state == "hidden":
        raise ConflictError(f"{identifier} was taken away here: {gone.reason}")
    now = _now()
    with db.write() as connection:
        row = connection.execute(sa.select(SUBMISSIONS).where(_S.id == identifier)).one_or_none()
        if row is not None and row.state not in ("failed", "done"):
            return _read(row)
        waiting = connection.execute(
            sa.select(sa.func.count()).where(_S.state.in_(("waiting", "approved")))
        ).scalar_one()
        if waiting >= MOST:
            raise ConflictError(f"{waiting:,} papers are waiting already: come back when some of them are in")
        connection.execute(SUBMISSIONS.delete().where(_S.id == identifier))
        values = {"id": identifier, "state": "waiting", "note": "", "tries": 0, "at": now, "changed": now}
        connection.execute(SUBMISSIONS.insert(), values)
    return Submission(identifier, "waiting", "", 0, now, now)


def get(db: Database, identifier: str) -> Submission | None:
    """What became of a submission."""
    with db.read() as connection:
        row = connection.execute(sa.select(SUBMISSIONS).where(_S.id == identifier)).one_or_none()
    return _read(row) if row else None


def listed(db: Database, *states: State, limit: int = 100) -> list[Submission]:
    """Submissions in these states (none: in any), the latest change first."""
    query = sa.select(SUBMISSIONS).order_by(_S.changed.desc(), _S.id).limit(limit)
    if states:
        query = query.where(_S.state.in_(states))
    with db.read() as connection:
        return [_read(row) for row in connection.execute(query)]


def decide(db: Database, identifier: str, state: State, *, actor: str, reason: str = "") -> None:
    """Approve or reject a submission. NotFoundError, ConflictError (it is a paper already)."""
    if state not in ("approved", "rejected"):
        raise InputError(f"a submission can be approved or rejected, not made {state!r}")
    found = get(db, identifier)
    if found is None:
        raise NotFoundError(f"{identifier[:80]!r} is not in the queue")
    if found.state == "done":
        raise ConflictError(f"{identifier} is a paper of the site already: `nextvec papers hide` takes it away")
    _set(db, [identifier], state, " ".join(reason.split())[:500])
    log(db, actor, "approve" if state == "approved" else "reject", identifier, reason)


def run(
    site: Site,
    *,
    approved_only: bool = False,
    address: str | None = None,
    fetcher: Fetcher | None = None,
    stage: Stage | None = None,
) -> tuple[int, int, Report | None]:
    """Fetch what is in the queue: (papers that are in, submissions that failed, the report of the ingest).

    A failed one is tried again by the next run, three times in all. Raises what the source raises.
    """
    states: tuple[State, ...] = ("approved",) if approved_only else ("approved", "waiting")
    waiting = [one.id for one in reversed(listed(site.db, *states, limit=_AT_ONCE))]
    if not waiting:
        return 0, 0, None
    source = open_source("arxiv")
    try:
        report = harvest(site, source, Request(ids=tuple(waiting), address=address), fetcher=fetcher, stage=stage)
    except NextvecError as error:
        with site.db.write() as connection:
            connection.execute(SUBMISSIONS.update().where(_S.id.in_(waiting)).values(tries=_S.tries + 1))
            worn = sa.select(_S.id).where(_S.id.in_(waiting), _S.tries >= _TRIES)
            given_up = list(connection.execute(worn).scalars())
        # Anybody may read this: the message itself, which may name a path or a host, is for the caller.
        told = "arXiv did not answer" if isinstance(error, OfflineError) else "the site could not take it in"
        _set(site.db, given_up, "failed", told)
        raise
    done = [one for one in waiting if site.db.get(one) is not None or away(site.db, one) is not None]
    failed = sorted(set(waiting) - set(done))
    _set(site.db, done, "done", "")
    _set(site.db, failed, "failed", "arXiv has no paper with this id")
    return len(done), len(failed), report


def _set(db: Database, ids: Sequence[str], state: State, note: str) -> None:
    if ids:
        with db.write() as connection:
            statement = SUBMISSIONS.update().where(_S.id.in_(ids))
            connection.execute(statement.values(state=state, note=note, changed=_now()))


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _read(row: sa.Row[tuple[object, ...]]) -> Submission:
    state = cast(State, row.state)
    return Submission(row.id, state, row.note, row.tries, row.at, row.changed)
