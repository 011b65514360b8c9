"""A paper as Markdown, for notes and for programs that read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nextvec.papers.bibtex import bibtex
from nextvec.papers.db import Stored
from nextvec.papers.markup import plain
from nextvec.papers.pages import links
from nextvec.papers.records import Paper

__all__ = ["markdown"]


def markdown(paper: Paper, similar: Sequence[tuple[Stored, float]] = ()) -> str:
    """Title, facts, abstract, links, similar papers (links within the site) and BibTeX."""
    facts = [("Authors", ", ".join(map(_escape, paper.authors)))]
    facts.append(("Organisation", _escape(paper.organization or "")))
    facts.append(("Published", paper.published_at.date().isoformat() if paper.published_at else ""))
    facts.append(("Daily feed", paper.daily_date.isoformat() if paper.daily_date else ""))
    facts.append(("Votes", str(paper.upvotes)))
    facts.append(("Comments", str(paper.num_comments)))
    for name, address, _ in links(paper):
        stars = f" ({paper.github_stars:,} stars)" if name == "Code" and paper.github_stars is not None else ""
        facts.append((name, f"<{address}>{stars}"))
    lines = [f"# {_escape(plain(paper.title))}", ""]
    lines += [f"- **{name}:** {value}" for name, value in facts if value]
    lines += ["", "## Abstract", "", _escape(plain(paper.summary)) or "(none)", ""]
    if similar:
        lines += ["## Similar papers", ""]
        for other, score in similar:
            title = _escape(plain(other.paper.title))
            lines.append(f"- [{title}](/papers/{other.paper.id}.md) ({score:.2f})")
        lines.append("")
    lines += ["## BibTeX", "", "```bibtex", bibtex(paper).rstrip().replace("```", "'''"), "```", ""]
    return "\n".join(lines)


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", text)
