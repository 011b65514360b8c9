"""What readers gave papers here, as the database of papers needs it: counted, and moved when papers become one.

It stands below ``tables``, which stands on that database.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

__all__ = ["given_here", "move", "voted_here"]

_VOTES = sa.table("votes", sa.column("reader"), sa.column("paper"))
_COMMENTS = sa.table("comments", sa.column("paper"), sa.column("state"))
_LISTED = sa.table("list_papers", sa.column("list"), sa.column("paper"))


def given_here(connection: sa.Connection, papers: Sequence[str]) -> dict[str, tuple[int, int]]:
    """(votes, comments that everybody can read) of those of these papers that have any."""
    votes = sa.select(_VOTES.c.paper, sa.func.count()).where(_VOTES.c.paper.in_(papers)).group_by(_VOTES.c.paper)
    shown = _COMMENTS.c.paper.in_(papers), _COMMENTS.c.state == "shown"
    comments = sa.select(_COMMENTS.c.paper, sa.func.count()).where(*shown).group_by(_COMMENTS.c.paper)
    voted = {paper: int(count) for paper, count in connection.execute(votes)}
    said = {paper: int(count) for paper, count in connection.execute(comments)}
    return {paper: (voted.get(paper, 0), said.get(paper, 0)) for paper in voted | said}


def voted_here(paper: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Whether ``paper`` has a vote of a reader: as a rule a few have, and the others need not be looked at."""
    return paper.in_(sa.select(_VOTES.c.paper))


def move(connection: sa.Connection, gone: str, kept: str) -> None:
    """Votes, comments and places in lists of ``gone`` become those of ``kept``; who gave both the same gave it once.

    The counts of ``kept`` follow when it is written anew."""
    for table, who in ((_VOTES, "reader"), (_LISTED, "list")):
        same = sa.select(table.c[who]).where(table.c.paper == kept)
        mine = table.c.paper == gone
        connection.execute(table.update().where(mine, table.c[who].not_in(same)).values(paper=kept))
        connection.execute(table.delete().where(mine))
    connection.execute(_COMMENTS.update().where(_COMMENTS.c.paper == gone).values(paper=kept))
