"""A source into a site: batch by batch, each in one transaction with the place to go on from.

An interrupted harvest goes on where it stopped; a finished one that is asked for again without a first day takes what
has changed since. One process writes a site at a time (``Site.writing``); readers are never in its way.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from nextvec.papers.db import Database
from nextvec.papers.ingest import Report, Stage, Totals, finish, settle, take
from nextvec.papers.site import Site
from nextvec.papers.sources import snapshots
from nextvec.papers.sources.base import Batch, ExpiredCursorError, Request, Source, cut
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.tables import HARVESTS
from nextvec.types import NextvecError

__all__ = ["Harvest", "harvest", "harvests", "last_finished"]

_OVERLAP = timedelta(days=1)
"""What a source dates today may come into its list tomorrow."""
_H = HARVESTS.c


@dataclass(frozen=True, slots=True)
class Harvest:
    """How far a request to a source has come. Times are naive UTC."""

    source: str
    scope: str
    cursor: str | None
    start: date | None
    since: date | None
    taken: int
    began: datetime
    finished: datetime | None


def harvests(db: Database) -> list[Harvest]:
    """All that were ever begun, the latest first."""
    with db.read() as connection:
        rows = connection.execute(sa.select(HARVESTS).order_by(_H.began.desc())).all()
    return [Harvest(**row._mapping) for row in rows]


def last_finished(db: Database, source: str) -> datetime | None:
    """When a harvest of ``source`` last came to its end."""
    with db.read() as connection:
        return connection.execute(sa.select(sa.func.max(_H.finished)).where(_H.source == source)).scalar()


def harvest(
    site: Site, source: Source, request: Request, *, fetcher: Fetcher | None = None, stage: Stage | None = None
) -> Report:
    """Take in what ``request`` asks ``source`` for. Safe to interrupt and to repeat.

    Raises what the source raises; what was taken until then stays, and can be searched.
    """
    start = time.monotonic()
    say = stage or (lambda name: None)
    fetcher = fetcher or Fetcher(source.hosts)
    totals = Totals()
    with site.writing():
        totals.embedded += settle(site, say)
        try:
            _run(site, source, request, fetcher, say, totals)
        except NextvecError:
            if totals.changed:
                finish(site, say)
            raise
        finish(site, say)
        with site.db.write() as connection:
            snapshots.thin(connection)
    return totals.report(site, start)


def _run(site: Site, source: Source, request: Request, fetcher: Fetcher, say: Stage, totals: Totals) -> None:
    """All batches of a harvest that is begun or continued."""
    before = _load(site.db, source.name, request.scope()) if _remembered(request) else None
    if before and before.cursor:
        run = before
    else:
        first = request.start
        if first is None and source.incremental and before and before.since:
            first = before.since
        now = datetime.now(UTC).replace(tzinfo=None)
        run = Harvest(source.name, request.scope(), None, first, before.since if before else None, 0, now, None)
    asked = replace(request, start=run.start) if run.start and not request.query and not request.ids else request
    try:
        _batches(site, source, asked, fetcher, run, say, totals)
    except ExpiredCursorError:
        run = replace(run, cursor=None, taken=0)
        _batches(site, source, asked, fetcher, run, say, totals)


def _batches(
    site: Site, source: Source, request: Request, fetcher: Fetcher, run: Harvest, say: Stage, totals: Totals
) -> None:
    progress = say(f"taking in {source.name}")
    left = request.limit
    for given in source.batches(request, fetcher, run.cursor):
        batch = given if left is None else cut(given, left)
        run = replace(run, cursor=batch.cursor, taken=run.taken + len(batch.records) + len(batch.deleted))
        totals.read += len(batch.records)
        _take(site, source.name, batch, totals, run if _remembered(request) else None)
        if progress:
            progress(run.taken, given.total)
        if left is not None:
            left -= len(batch.records)
            if left <= 0:
                return  # not finished: there is more
    began = run.began.date() - _OVERLAP
    done = replace(run, cursor=None, since=began, finished=datetime.now(UTC).replace(tzinfo=None))
    if _remembered(request):
        with site.db.write() as connection:
            _save(connection, done)


def _remembered(request: Request) -> bool:
    """Whether there is anything to go on from: a file and a few ids are read again from their beginning."""
    return request.file is None and not request.ids


def _take(site: Site, source: str, batch: Batch, totals: Totals, run: Harvest | None) -> None:
    """``run``: noted in the same transaction, unless None."""
    if run is None:
        take(site, source, batch, totals)
    else:
        take(site, source, batch, totals, cursor=lambda connection: _save(connection, run))


def _load(db: Database, source: str, scope: str) -> Harvest | None:
    with db.read() as connection:
        query = sa.select(HARVESTS).where(_H.source == source, _H.scope == scope)
        row = connection.execute(query).one_or_none()
    return Harvest(**row._mapping) if row else None


def _save(connection: sa.Connection, run: Harvest) -> None:
    values: dict[str, Any] = {name: getattr(run, name) for name in Harvest.__slots__}
    connection.execute(HARVESTS.delete().where(_H.source == run.source, _H.scope == run.scope))
    connection.execute(HARVESTS.insert(), values)
