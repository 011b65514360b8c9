"""What the database keeps beside a paper for the sources: its title as titles are compared, its votes by day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nextvec.papers.sources import snapshots
from nextvec.papers.sources.tables import TITLES
from nextvec.papers.sources.titles import fold

__all__ = ["forget", "note"]


def note(connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Follow papers (rows of ``PAPERS``) that are new or changed, within the caller's transaction."""
    changed = list(rows)
    forget(connection, [row["id"] for row in changed])
    if changed:
        values = [{"paper": row["id"], "folded": fold(row["title"])} for row in changed]
        connection.execute(TITLES.insert(), values)
    snapshots.note(connection, changed)


def forget(connection: sa.Connection, identifiers: Sequence[str]) -> None:
    """Their titles are no longer compared; their votes by day stay, in case they come back."""
    connection.execute(TITLES.delete().where(TITLES.c.paper.in_(identifiers)))
