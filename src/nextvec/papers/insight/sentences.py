"""An abstract as sentences."""

from __future__ import annotations

import re

from nextvec.papers import markup

__all__ = ["sentences", "split"]

_END = re.compile(r"(?<=[.!?])[\"”’)\]]*\s+(?=[\"“(\[]?[A-Z0-9À-Þ$\\])")
_SHORT = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|et al|etc|cf|vs|viz|resp|approx|Figs?|Eqs?|Sec|Tab|Refs?|No|Dr|Prof|St|Mr|Ms|[A-Z])\.$"
)
MOST = 40


def split(text: str) -> list[str]:
    """The sentences of plain text, without what is no sentence (fewer than two words); abbreviations do not end one."""
    found: list[str] = []
    start = 0
    for match in _END.finditer(text):
        part = text[start : match.end()].strip()
        if _SHORT.search(part):
            continue
        found.append(part)
        start = match.end()
    found.append(text[start:].strip())
    return [part for part in found if len(part.split()) > 1][:MOST]


def sentences(abstract: str) -> list[str]:
    """The sentences of an abstract as readable text (LaTeX as Unicode), at most forty."""
    return split(markup.plain(abstract))
