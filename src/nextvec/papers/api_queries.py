"""The lists that only the interface for programs asks the database for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import sqlalchemy as sa

from nextvec.papers import cursors, trending
from nextvec.papers.db import Database, Stored
from nextvec.papers.feed import Period
from nextvec.papers.records import ID_PATTERN
from nextvec.papers.search import paper_id
from nextvec.papers.site import Site
from nextvec.papers.sources import web as sources
from nextvec.papers.tables import PAPERS
from nextvec.types import InputError, NotFoundError

__all__ = ["Cursor", "Sort", "all_papers", "daily_papers", "find_paper"]

Sort = Literal["publishedAt", "trending"]
_P = PAPERS.c
_HALF_LIFE = trending.HALF_LIVES["2"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last paper of a page of ``all_papers``; the next page begins behind it."""

    published_at: datetime | None
    id: str

    def word(self) -> str:
        """The cursor as one opaque word of an address, with a check sum that finds a cut or changed one."""
        return cursors.pack([self.published_at and self.published_at.isoformat(), self.id])

    @classmethod
    def read(cls, word: str) -> Cursor:
        """The cursor that ``word`` stands for. InputError for any word that ``word()`` did not give."""
        try:
            day, identifier = cursors.unpack(word)
            if not ID_PATTERN.fullmatch(identifier):
                raise ValueError
            return cls(datetime.fromisoformat(day) if day else None, identifier)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"cursor {word[:40]!r} is not one of this site; take it from the Link header of the page before, whole"
            ) from error


def find_paper(site: Site, identifier: str) -> Stored:
    """The paper with this id, with or without a version, or the one that it became. NotFoundError, GoneError."""
    if ID_PATTERN.fullmatch(identifier):
        stored = site.db.get(identifier) or site.db.get(paper_id(identifier) or identifier)
        if stored is not None:
            return stored
        elsewhere = sources.find(site, identifier)
        if elsewhere is not None and (stored := site.db.get(elsewhere)) is not None:
            return stored
    raise NotFoundError(f"there is no paper {identifier[:80]!r} in this collection")


def all_papers(db: Database, after: Cursor | None, limit: int) -> tuple[list[Stored], Cursor | None]:
    """Every paper, newest arXiv date first (those without one last), and where the next page begins."""
    query = sa.select(_P.id, _P.published_at)
    if after is not None:
        query = query.where(_behind(after))
    query = query.order_by(_P.published_at.desc().nulls_last(), _P.id.desc()).limit(limit + 1)
    with db.read() as connection:
        rows = connection.execute(query).all()
    following = Cursor(rows[limit - 1].published_at, rows[limit - 1].id) if len(rows) > limit else None
    return db.get_many([row.id for row in rows[:limit]]), following


def _behind(cursor: Cursor) -> sa.ColumnElement[bool]:
    if cursor.published_at is None:
        return sa.and_(_P.published_at.is_(None), _P.id < cursor.id)
    return sa.or_(
        _P.published_at < cursor.published_at,
        sa.and_(_P.published_at == cursor.published_at, _P.id < cursor.id),
        _P.published_at.is_(None),
    )


def daily_papers(
    db: Database,
    period: Period | None,
    submitter: str | None,
    *,
    sort: Sort,
    at: datetime,
    limit: int,
    offset: int,
) -> list[Stored]:
    """Papers of the daily feed. ``at``: the moment that trending counts ages from.

    ``publishedAt``: the newest day first, within it the latest listing. ``trending``: votes that halve every 2 days; of
    a period all papers, without one those of the last 20 days before ``at``.
    """
    conditions: list[sa.ColumnElement[bool]] = [_P.daily_date.is_not(None)]
    if period is not None:
        conditions.append(_P.daily_date.between(period.start, period.end))
    if submitter is not None:
        conditions.append(sa.func.lower(_P.submitted_by) == submitter.lower())
    if sort == "trending":
        if period is None:
            conditions.append(_P.daily_date >= trending.horizon(at, _HALF_LIFE))
        ranked = trending.rank(_votes(db, conditions), at=_close(period, at), half_life=_HALF_LIFE)
        return db.get_many([trend.id for trend in ranked[offset : offset + limit]])
    moment = sa.func.coalesce(_P.listed_at, _P.published_at)
    newest = (_P.daily_date.desc().nulls_last(), moment.desc().nulls_last(), _P.id.desc())
    query = sa.select(_P.id).where(*conditions).order_by(*newest).limit(limit).offset(offset)
    with db.read() as connection:
        identifiers = list(connection.execute(query).scalars())
    return db.get_many(identifiers)


def _votes(db: Database, conditions: list[sa.ColumnElement[bool]]) -> list[tuple[str, int, Any, date]]:
    query = sa.select(_P.id, _P.upvotes, _P.listed_at, _P.daily_date).where(*conditions)
    with db.read() as connection:
        return [tuple(row) for row in connection.execute(query)]


def _close(period: Period | None, at: datetime) -> datetime:
    """``at``, but no later than the end of ``period``: seen from far away all its weights would round to zero."""
    return at if period is None else trending.reference(period.end, at)
