"""The papers as tools of a language model: a server of the Model Context Protocol over a ``Site``, or one elsewhere.

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
from nextvec.papers.reading import Found, Here, Reading
from nextvec.papers.search import Mode, check_query
from nextvec.papers.site import Site
from nextvec.types import InputError, NextvecError

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
    """The tools, one method each; what a user can act on comes out as NextvecError. ``papers``: here or elsewhere."""

    def __init__(self, papers: Site | Reading) -> None:
        self.papers: Reading = Here(papers) if isinstance(papers, Site) else papers

    def search(
        self,
        query: Annotated[str, Field(description="a question, words, a name or an arXiv id")],
        limit: Count = 10,
        start: Day = "",
        end: Day = "",
        organization: str = "",
        category: Annotated[
            str, Field(description="arXiv categories or venues, any of them, such as cs.CL,emnlp; empty for any")
        ] = "",
        votes: Annotated[int, Field(ge=0, le=10**9, description="at least so many votes")] = 0,
        code: Annotated[bool, Field(description="only papers with code")] = False,
        mode: Mode = "hybrid",
    ) -> list[Entry]:
        """Find machine-learning papers by meaning and by word, under exact filters, the best first."""
        if not check_query(query):
            raise InputError("the query is empty: say what to look for")
        values = {"from": start, "to": end, "org": organization, "category": category}
        values |= {"votes": str(votes or ""), "code": "1" if code else ""}
        given = {name: value for name, value in values.items() if value}
        return [_entry(one) for one in self.papers.search(query, given, mode=mode, limit=limit)]

    def similar(self, id: Identifier, limit: Count = 10) -> list[Entry]:
        """Find the papers that are nearest in meaning to one paper, the nearest first."""
        return [_entry(one) for one in self.papers.similar(id, limit)]

    def read(self, id: Identifier) -> str:
        """Read one paper as Markdown: authors, dates, votes, links, the whole abstract, similar papers and BibTeX."""
        return self.papers.markdown(id)

    def daily(
        self,
        period: Annotated[
            str, Field(description="a day, ISO week or month: 2025-02-28, 2025-W09, 2025-02; empty for the newest day")
        ] = "",
        limit: Count = 20,
        sort: Literal["votes", "newest"] = "votes",
    ) -> list[Entry]:
        """List the papers of the daily feed, of a day, a week or a month."""
        chosen = None
        if period:
            kind: feed.Kind = "week" if "W" in period else "month" if len(period) == 7 else "day"
            chosen = feed.parse_period(kind, period)
        return [_entry(one) for one in self.papers.daily(chosen, sort=sort, limit=limit)]


def create_server(papers: Site | Reading) -> Any:
    """An ``MCPServer`` with the tools over ``papers``. MissingExtraError without the ``mcp`` extra."""
    server_module = require("mcp.server", why="offering the papers as tools")
    tools = PaperTools(papers)
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


def _entry(found: Found) -> Entry:
    paper = found.paper
    return Entry(
        id=paper.id,
        title=markup.plain(paper.title),
        authors=list(paper.authors[:10]),
        day=paper.daily_date.isoformat() if paper.daily_date else None,
        votes=paper.upvotes,
        organization=paper.organization,
        code=paper.github_repo,
        summary=markup.teaser(paper.summary, _TEASER),
        why=found.why,
    )
