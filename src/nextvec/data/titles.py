"""Titles that look for their own abstracts: arXiv, ACL Anthology, Daily Papers.

The papers are those that nextvec-mini's recipe holds out, by the same rule: all Daily Papers, and of arXiv and the ACL
Anthology (from 2016 on, CC BY 4.0) those whose hashed id is smallest, none of them a Daily Paper. So figures here are
figures on papers that the bundled model was not trained on; of other models that is not known. Legend: n papers.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nextvec.data.bundled import daily_papers
from nextvec.data.catalog import dataset, locate
from nextvec.data.readers import read_records
from nextvec.data.relevance import Relevance, relevance_of_pairs
from nextvec.types import InputError

__all__ = [
    "FIRST_ACL_YEAR",
    "Paper",
    "acl_titles",
    "arxiv_titles",
    "daily_titles",
    "in_order",
    "papers_of",
    "title_key",
]

FIRST_ACL_YEAR = 2016
_MIN_ABSTRACT = 200  # characters
_MIN_TITLE = 8  # letters and digits


class Paper(NamedTuple):
    """One paper: its id, title and abstract with whitespace runs collapsed to single spaces."""

    id: str
    title: str
    abstract: str


def daily_titles() -> Relevance:
    """The bundled Daily Papers with an abstract: about 9,800 titles, each looking for its abstract among all."""
    return _search(_daily())


def arxiv_titles(*, folder: Path | None = None, size: int = 5000) -> Relevance:
    """``size`` papers of arXiv's daily listings. folder: where the catalogued file of "arxiv_daily" lies (None: the
    catalogued set). NotFoundError where it is not on this machine, InputError where it is damaged or too small."""
    place = folder or locate("arxiv_daily")
    paths = [place / file.path for file in dataset("arxiv_daily").files]
    return _search(_held_out(papers_of(_records(paths, ("id", "title")), "summary"), size))


def acl_titles(*, folder: Path | None = None, size: int = 2000) -> Relevance:
    """``size`` papers of the ACL Anthology. folder: where the files of "acl_anthology_2025" lie. Otherwise as
    ``arxiv_titles``."""
    place = folder or locate("acl_anthology_2025")
    paths = [place / file.path for file in dataset("acl_anthology_2025").files]
    records = (r for r in _records(paths, ("id", "title", "year")) if int(r["year"]) >= FIRST_ACL_YEAR)
    return _search(_held_out(papers_of(records, "abstract"), size))


def _records(paths: Iterable[Path], fields: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield from read_records(path, fields=fields)


def _daily() -> list[Paper]:
    records = daily_papers(columns=["id", "title", "summary", "source"]).to_pylist()
    return papers_of((record for record in records if record["source"] == "daily_papers"), "summary")


def papers_of(records: Iterable[dict[str, Any]], abstract: str) -> list[Paper]:
    """The records with a title and an abstract worth the name, once per title."""
    seen: set[str] = set()
    papers = []
    for record in records:
        title, text = (" ".join(str(record.get(name) or "").split()) for name in ("title", abstract))
        key = title_key(title)
        if len(text) >= _MIN_ABSTRACT and len(key) >= _MIN_TITLE and key not in seen:
            seen.add(key)
            papers.append(Paper(str(record["id"]), title, text))
    return papers


def _held_out(papers: list[Paper], size: int) -> list[Paper]:
    fresh = in_order(papers, besides=_daily())
    if len(fresh) < size:
        raise InputError(f"{len(fresh)} papers with an abstract; {size} are needed: is the file whole?")
    return fresh[:size]


def in_order(papers: Iterable[Paper], *, besides: Iterable[Paper]) -> list[Paper]:
    """The papers that share neither id nor title with one of ``besides``, by their hashed ids: the first are held out,
    in whatever order a set lists them."""
    known = list(besides)
    ids, titles = {paper.id for paper in known}, {title_key(paper.title) for paper in known}
    fresh = [paper for paper in papers if paper.id not in ids and title_key(paper.title) not in titles]
    return sorted(fresh, key=lambda paper: hashlib.sha256(paper.id.encode()).digest())


def title_key(title: str) -> str:
    """Letters and digits alone, without case: the same paper in two sets compares equal."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", title).casefold())


def _search(papers: list[Paper]) -> Relevance:
    return relevance_of_pairs(*zip(*papers, strict=True)) if papers else relevance_of_pairs((), (), ())
