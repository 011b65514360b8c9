"""One paper from what several sources say of it: for each field, the first source in its order that says anything;
its venues and categories are those of all sources.

The order of the text (title, abstract, authors) begins with what a person gave by hand, then the place that the authors
themselves write to; the date is that of the first publication, which Daily Papers take from arXiv; the order of what
belongs to the daily feed (day, votes, links) begins with the feed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nextvec.papers.records import Paper
from nextvec.papers.sources.base import Record

__all__ = ["DATE", "EARLIER", "FEED", "TEXT", "combine"]

EARLIER = "earlier"
"""What the site held of a paper before it noted who said what."""
TEXT = ("file", "arxiv", "acl", "hf_daily", "daily_papers", EARLIER, "bibtex")
DATE = ("file", "arxiv", "hf_daily", "daily_papers", EARLIER, "acl", "bibtex")
FEED = ("hf_daily", "file", "daily_papers", EARLIER, "arxiv", "acl", "bibtex")
_TEXT_FIELDS = ("title", "summary", "authors", "source")
_FEED_FIELDS = (
    "upvotes", "num_comments", "listed_at", "daily_date", "submitted_by", "github_repo", "github_stars", "project_page",
    "organization",
)  # fmt: skip


def combine(identifier: str, given: Sequence[tuple[str, Record]]) -> tuple[Paper, dict[str, int]]:
    """(the paper under ``identifier``, field -> place in ``given`` of the record that it comes from).

    ``given``: (source, record), at least one; of two records of one source the earlier one counts first.
    """
    taken: dict[str, int] = {}
    values = {}
    for fields, order in ((_TEXT_FIELDS, TEXT), (("published_at",), DATE), (_FEED_FIELDS, FEED)):
        ranked = _ranked(given, order)
        for field in fields:
            for i in ranked:
                value = getattr(given[i][1].paper, field)
                if value not in (None, "", (), 0):
                    values[field] = value
                    taken[field] = i
                    break
    held = [i for i in _ranked(given, TEXT) if given[i][1].paper.categories]
    if held:
        values["categories"] = tuple(dict.fromkeys(name for i in held for name in given[i][1].paper.categories))
        taken["categories"] = held[0]
    empty = Paper(id=identifier, title=given[0][1].paper.title, summary="")
    return replace(empty, **values), taken


def _ranked(given: Sequence[tuple[str, Record]], order: Sequence[str]) -> list[int]:
    """The places in ``given``, the source that counts first in front."""
    places = {name: place for place, name in enumerate(order)}
    return sorted(range(len(given)), key=lambda i: (places.get(given[i][0], len(places)), i))
