"""The tables as the queries see them, and the one filter that feed and search share.

``migrations`` makes these tables; a column here needs a step there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import sqlalchemy as sa

__all__ = ["FACTS", "PAPERS", "Filters"]

_METADATA = sa.MetaData()
PAPERS = sa.Table(
    "papers",
    _METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("title", sa.Text),
    sa.Column("summary", sa.Text),
    sa.Column("authors", sa.JSON),
    sa.Column("upvotes", sa.Integer),
    sa.Column("num_comments", sa.Integer),
    sa.Column("published_at", sa.DateTime),
    sa.Column("listed_at", sa.DateTime),
    sa.Column("daily_date", sa.Date),
    sa.Column("submitted_by", sa.Text),
    sa.Column("github_repo", sa.Text),
    sa.Column("github_stars", sa.Integer),
    sa.Column("project_page", sa.Text),
    sa.Column("organization", sa.Text),
    sa.Column("source", sa.Text),
    sa.Column("text_hash", sa.String(24)),
    sa.Column("facet_hash", sa.String(24)),
    sa.Column("indexed_text", sa.String(24)),
    sa.Column("indexed_facets", sa.String(24)),
    sa.Column("mark", sa.String(24)),
)
FACTS = sa.Table("facts", _METADATA, sa.Column("name", sa.String(64), primary_key=True), sa.Column("value", sa.Text))
_P = PAPERS.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What narrows a feed or a search. ``start`` and ``end`` are feed days, both included."""

    start: date | None = None
    end: date | None = None
    organization: str | None = None
    votes: int | None = None
    code: bool = False

    def __bool__(self) -> bool:
        return self != Filters()

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """The same filter as SQL."""
        found: list[sa.ColumnElement[bool]] = []
        if self.start is not None:
            found.append(_P.daily_date >= self.start)
        if self.end is not None:
            found.append(_P.daily_date <= self.end)
        if self.organization is not None:
            found.append(_P.organization == self.organization)
        if self.votes is not None:
            found.append(_P.upvotes >= self.votes)
        if self.code:
            found.append(_P.github_repo.is_not(None))
        return found

    def where(self) -> str | None:
        """The same filter in the language of ``Collection.search``; None when there is nothing to filter."""
        parts = []
        if self.start is not None:
            parts.append(f"daily_date >= date '{self.start.isoformat()}'")
        if self.end is not None:
            parts.append(f"daily_date <= date '{self.end.isoformat()}'")
        if self.organization is not None:
            parts.append("organization = '{}'".format(self.organization.replace("'", "''")))
        if self.votes is not None:
            parts.append(f"upvotes >= {self.votes}")
        if self.code:
            parts.append("has_code = true")
        return " AND ".join(parts) or None
