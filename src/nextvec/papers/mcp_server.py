"""The papers as tools of a language model: a server of the Model Context Protocol over a ``Site``.

The ``mcp`` package speaks the protocol; its import is left to ``create_server``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from nextvec import __version__
from nextvec.extras import require
from nextvec.papers import feed, markup
from nextvec.papers.db import Filters, Order, Stored
from nextvec.papers.markdown import markdown
from nextvec.papers.params import read_filters
from nextvec.papers.records import ID_PATTERN
from nextvec.papers.search import Mode, check_query, paper_id
from nextvec.papers.search import search as search_site
from nextvec.papers.site import Site
from nextvec.types import InputError, NextvecError, NotFoundError

__all__ = ["Entry", "PaperTools", "create_server"]

_TEASER = 400
Count = Annotated[int, Field(ge=1, le=50, description="how many papers at most")]
Identifier = Annotated[str, Field(description="arXiv id, such as 2412.06769")]
Day = Annotated[str, Field(description="a day, such as 2025-02-28; empty for any")]


class Entry(BaseModel):
    """A paper in a list: what one needs to choose. ``summary`` is the beginning of the abstract."""

    id: str
    title: str
    authors: list[str]
    day: str | None = Field(description="the day of the feed")
    votes: int
    organization: str | None
    code: str | None
    summary: str
    why: str | None = Field(None, description="why a search found it, or how near it is")


class PaperTools:
    """The tools, one method each; what a user can act on comes out as NextvecError."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def search(
        self,
        query: Annotated[str, Field(description="a question, words, a name or an arXiv id")],
        limit: Count = 10,
        start: Day = "",
        end: Day = "",
        organization: str = "",
        votes: Annotated[int, Field(ge=0, le=10**9, description="at least so many votes")] = 0,
        code: Annotated[bool, Field(description="only papers with code")] = False,
        mode: Mode = "hybrid",
    ) -> list[Entry]:
        """Find machine-learning papers by meaning and by word, under exact filters, the best first."""
        if not check_query(query):
            raise InputError("the query is empty: say what to look for")
        values = {"from": start, "to": end, "org": organization, "votes": str(votes), "code": str(int(code))}
        filters, suggestion = read_filters(values, self.site.db)
        if suggestion:
            raise NotFoundError(f"no paper is of the organisation {organization!r}; did you mean {suggestion!r}?")
        results = search_site(self.site, query, filters, mode=mode, size=limit)
        return [_entry(match.stored, match.why()) for match in results.matches]

    def similar(self, id: Identifier, limit: Count = 10) -> list[Entry]:
        """Find the papers that are nearest in meaning to one paper, the nearest first."""
        found = self.site.similar(self._paper(id).paper.id, limit)
        return [_entry(stored, f"cosine {cosine:.2f}") for stored, cosine in found]

    def read(self, id: Identifier) -> str:
        """Read one paper as Markdown: authors, dates, votes, links, the whole abstract, similar papers and BibTeX."""
        stored = self._paper(id)
        return markdown(stored.paper, self.site.similar(stored.paper.id, 5))

    def daily(
        self,
        period: Annotated[
            str, Field(description="a day, ISO week or month: 2025-02-28, 2025-W09, 2025-02; empty for the newest day")
        ] = "",
        limit: Count = 20,
        sort: Literal["votes", "newest"] = "votes",
    ) -> list[Entry]:
        """List the papers of the daily feed, of a day, a week or a month."""
        if period:
            kind: feed.Kind = "week" if "W" in period else "month" if len(period) == 7 else "day"
            chosen = feed.parse_period(kind, period)
        else:
            days = self.site.db.day_counts()
            if not days:
                return []
            chosen = feed.day(max(days))
        order: Order = sort
        found = self.site.db.select(Filters(start=chosen.start, end=chosen.end), order=order, limit=limit)
        return [_entry(stored) for stored in found]

    def _paper(self, identifier: str) -> Stored:
        known = paper_id(identifier) or identifier
        stored = self.site.db.get(known) if ID_PATTERN.fullmatch(known) else None
        if stored is None:
            raise NotFoundError(f"there is no paper {identifier[:80]!r} in this collection; search for it by its title")
        return stored


def create_server(site: Site) -> Any:
    """An ``MCPServer`` with the tools over ``site``. MissingExtraError without the ``mcp`` extra."""
    server_module = require("mcp.server", why="offering the papers as tools")
    tools = PaperTools(site)
    server = server_module.MCPServer(
        "nextvec papers",
        version=__version__,
        instructions="Machine-learning papers: search and daily find some, read gives one, similar its neighbours.",
        log_level="WARNING",
    )
    only_reads = require("mcp.types", why="offering the papers as tools").ToolAnnotations(read_only_hint=True)
    for tool in (tools.search, tools.similar, tools.read, tools.daily):
        server.add_tool(_told(tool), annotations=only_reads)
    return server


def _told(tool: Callable[..., Any]) -> Callable[..., Any]:
    """``tool`` with errors that the model may read and act on; any other error stays hidden from it."""
    expected = require("mcp.server.mcpserver.exceptions", why="offering the papers as tools").ToolError

    @functools.wraps(tool)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return tool(*arguments, **named)
        except NextvecError as error:
            raise expected(str(error)) from error

    return call


def _entry(stored: Stored, why: str | None = None) -> Entry:
    paper = stored.paper
    return Entry(
        id=paper.id,
        title=markup.plain(paper.title),
        authors=list(paper.authors[:10]),
        day=paper.daily_date.isoformat() if paper.daily_date else None,
        votes=paper.upvotes,
        organization=paper.organization,
        code=paper.github_repo,
        summary=markup.teaser(paper.summary, _TEASER),
        why=why,
    )
