"""A BibTeX entry for a paper."""

from __future__ import annotations

import re
import unicodedata

from nextvec.papers.markup import plain
from nextvec.papers.records import Paper

__all__ = ["bibtex", "citation_key"]

_SMALL_WORDS = {"a", "an", "the", "on", "of", "in", "for", "to", "and", "with", "from", "is", "are", "towards"}
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def citation_key(paper: Paper) -> str:
    """``lastname`` + year + first weighty word of the title, ASCII letters and digits only."""
    last = paper.authors[0].split()[-1] if paper.authors and paper.authors[0].split() else "anonymous"
    words = re.findall(r"[a-z0-9]+", _ascii(plain(paper.title)).lower())
    word = next((word for word in words if word not in _SMALL_WORDS), "paper")
    name = re.sub(r"[^a-z0-9]", "", _ascii(last).lower()) or "anonymous"
    return f"{name}{paper.year or ''}{word}"


def bibtex(paper: Paper) -> str:
    """``@misc{...}`` with title, authors, year, and for arXiv papers eprint and url. Braces always balance."""
    fields = {"title": "{" + _escape(plain(paper.title)) + "}"}
    if paper.authors:
        # Braces keep a name such as "Research and Development" from being split at its "and".
        names = [_escape(name) for name in paper.authors]
        fields["author"] = " and ".join("{" + name + "}" if re.search(r"\band\b", name) else name for name in names)
    if paper.year:
        fields["year"] = str(paper.year)
    if paper.is_arxiv:
        fields |= {"eprint": paper.id, "archivePrefix": "arXiv", "url": f"https://arxiv.org/abs/{paper.id}"}
    elif paper.project_page:
        fields["url"] = paper.project_page.replace("{", "%7B").replace("}", "%7D")
    width = max(len(name) for name in fields)
    lines = [f"  {name.ljust(width)} = {{{value}}}" for name, value in fields.items()]
    return f"@misc{{{citation_key(paper)},\n" + ",\n".join(lines) + "\n}\n"


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _escape(text: str) -> str:
    return "".join(_SPECIAL.get(char) or (f"\\{char}" if char in "{}%&#_$" else char) for char in text)
