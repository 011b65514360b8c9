"""How a paper lies in a row of the database: what is kept of it, back again, and in which orders rows come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa

from nextvec.papers.records import Paper
from nextvec.papers.tables import MOMENT, PAPERS, SITE

__all__ = [
    "CONTENT",
    "NO_VECTOR",
    "Order",
    "Pending",
    "Stored",
    "as_row",
    "as_stored",
    "ordering",
    "same",
    "stored_paper",
]

Order = Literal["votes", "newest", "comments", "moment", "days"]
"""By votes; newest feed day first; most comments first; latest to come first; by day, then by votes."""

NO_VECTOR = "-"
"""The emblem of a paper whose text has no token the encoder knows: it is found by its words only."""

_OURS = ("indexed_text", "indexed_facets", "mark", *SITE)
CONTENT = [column.name for column in PAPERS.columns if column.name not in _OURS]
"""The columns that hold what a paper's source says."""
_PLACES = {column.name: place for place, column in enumerate(PAPERS.columns)}
_SAID = [(name, _PLACES[name]) for name in CONTENT if name not in ("text_hash", "facet_hash")]
_MARK = _PLACES["mark"]
_P = PAPERS.c


@dataclass(frozen=True, slots=True)
class Stored:
    """A paper as it lies in the database. ``mark`` is its emblem, drawn from its embedding (None: not indexed).

    ``line``: the sentence that sums it up (None: not worked out yet, or of an older text).
    """

    paper: Paper
    mark: str | None
    line: str | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """A paper that the vector collection does not hold yet, or holds in an older state."""

    paper: Paper
    text_changed: bool


def ordering(order: Order) -> list[sa.ColumnElement[Any]]:
    # What has no time comes last; PostgreSQL would have it first.
    newest = [sa.func.coalesce(_P.listed_at, _P.published_at).desc().nulls_last(), _P.id.desc()]
    if order == "newest":
        return [_P.daily_date.desc().nulls_last(), *newest]
    if order == "moment":
        return [MOMENT.desc().nulls_last(), _P.id.desc()]
    if order == "comments":
        return [_P.num_comments.desc(), _P.upvotes.desc(), *newest]
    if order == "days":
        return [_P.daily_date.desc().nulls_last(), _P.upvotes.desc(), *newest]
    return [_P.upvotes.desc(), *newest]


def as_row(paper: Paper) -> dict[str, Any]:
    row = {name: getattr(paper, name) for name in CONTENT if name not in ("text_hash", "facet_hash")}
    return row | {"authors": list(paper.authors), "text_hash": paper.text_hash(), "facet_hash": paper.facet_hash()}


def as_stored(row: sa.Row[Any], line: str | None = None, filed: tuple[str, ...] = ()) -> Stored:
    """The paper of a row of all columns of ``PAPERS``, read by their places: by name it takes three times as long."""
    values = {name: row[place] for name, place in _SAID}
    values["authors"] = tuple(values["authors"])
    return Stored(Paper(**values, categories=filed), row[_MARK], line)


def stored_paper(row: sa.Row[Any]) -> Paper:
    """The paper of a row of ``PAPERS``, with the votes and comments that came with it and not those given here."""
    paper = as_stored(row).paper
    votes, comments = row.upvotes - row.site_votes, row.num_comments - row.site_comments
    return replace(paper, upvotes=votes, num_comments=comments)


def same(row: Mapping[str, Any], known: sa.Row[Any]) -> bool:
    return all(row[name] == getattr(known, name) for name in (*CONTENT, *SITE))
