"""The forms in which arXiv describes papers: OAI-PMH with ``arXiv`` or ``oai_dc`` inside, and Atom."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from nextvec.papers.sources.ids import arxiv_id
from nextvec.papers.sources.xml import parse, text_of, under
from nextvec.types import InputError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["READERS", "Described", "OaiAnswer", "published", "read_atom", "read_oai"]

_OAI = "{http://www.openarchives.org/OAI/2.0/}"
_RAW = "{http://arxiv.org/OAI/arXiv/}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_ATOM = "{http://www.w3.org/2005/Atom}"
_MORE = "{http://arxiv.org/schemas/atom}"
_SEARCH = "{http://a9.com/-/spec/opensearch/1.1/}"


@dataclass(frozen=True, slots=True)
class Described:
    """One paper. ``published``: a day or moment, as text."""

    id: str
    title: str
    summary: str
    authors: list[str]
    published: str | None
    dois: tuple[str, ...] = ()
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OaiAnswer:
    """One answer. ``error``: its code; ``token``: of the next answer; ``deleted``: ids."""

    papers: list[Described]
    deleted: tuple[str, ...] = ()
    token: str | None = None
    total: int | None = None
    error: str = ""
    message: str = ""
    refused: tuple[str, ...] = ()


def read_oai(body: bytes, prefix: str) -> OaiAnswer:
    """An answer to ListRecords. InputError for what is none."""
    root = parse(body, "the answer of arXiv")
    if root.tag != f"{_OAI}OAI-PMH":
        raise InputError(f"the answer of arXiv is {root.tag[:60]!r}; expected OAI-PMH")
    error = root.find(f"{_OAI}error")
    if error is not None:
        return OaiAnswer([], error=error.get("code", "error"), message=" ".join(text_of(error).split())[:200])
    listed = root.find(f"{_OAI}ListRecords")
    if listed is None:
        raise InputError("the answer of arXiv has neither records nor an error")
    papers, deleted, refused = [], [], []
    for record in listed.findall(f"{_OAI}record"):
        header = record.find(f"{_OAI}header")
        named = under(header, f"{_OAI}identifier") if header is not None else ""
        identifier = arxiv_id(named.removeprefix("oai:arXiv.org:"))
        if identifier is None or header is None:
            refused.append(f"a record called {named[:60]!r} is no paper of arXiv")
        elif header.get("status") == "deleted":
            deleted.append(identifier)
        else:
            inner = record.find(f"{_OAI}metadata")
            described = READERS[prefix](inner[0], identifier) if inner is not None and len(inner) else None
            papers += [described] if described else []
            refused += [] if described else [f"{identifier}: no metadata in the form {prefix}"]
    token = listed.find(f"{_OAI}resumptionToken")
    size = token.get("completeListSize", "") if token is not None else ""
    total = int(size) if re.fullmatch(r"\d{1,9}", size, re.ASCII) else None
    return OaiAnswer(papers, tuple(deleted), text_of(token).strip() or None, total, refused=tuple(refused))


def _read_raw(root: Element, identifier: str) -> Described | None:
    if root.tag != f"{_RAW}arXiv":
        return None
    authors = []
    for author in root.findall(f"{_RAW}authors/{_RAW}author"):
        parts = [under(author, f"{_RAW}{part}") for part in ("forenames", "keyname", "suffix")]
        authors.append(" ".join(part for part in parts if part))
    details = {"categories": under(root, f"{_RAW}categories"), "comment": under(root, f"{_RAW}comments")}
    details |= {"journal": under(root, f"{_RAW}journal-ref"), "licence": under(root, f"{_RAW}license")}
    return Described(
        identifier,
        under(root, f"{_RAW}title"),
        under(root, f"{_RAW}abstract"),
        authors,
        under(root, f"{_RAW}created") or None,
        tuple(under(root, f"{_RAW}doi").split()),
        {name: value for name, value in details.items() if value},
    )


def _read_dublin(root: Element, identifier: str) -> Described | None:
    """Dublin Core: the abstract is the first description, the day of the first version the first date."""
    texts = [" ".join(text_of(one).split()) for one in root.findall(f"{_DC}description")]
    dates = sorted(" ".join(text_of(one).split()) for one in root.findall(f"{_DC}date"))
    dois = [text_of(one).strip() for one in root.findall(f"{_DC}identifier")]
    if not root.findall(f"{_DC}title"):
        return None
    comment = next((text.removeprefix("Comment: ") for text in texts[1:] if text.startswith("Comment: ")), "")
    return Described(
        identifier,
        under(root, f"{_DC}title"),
        texts[0] if texts else "",
        [_turned(" ".join(text_of(one).split())) for one in root.findall(f"{_DC}creator")],
        dates[0] if dates else None,
        tuple(text for text in dois if text.startswith("doi:")),
        {"comment": comment} if comment else {},
    )


def _turned(name: str) -> str:
    """``Dreyer, Olaf`` -> ``Olaf Dreyer``."""
    last, comma, first = name.partition(", ")
    return f"{first} {last}" if comma else name


READERS: dict[str, Callable[[Element, str], Described | None]] = {"arXiv": _read_raw, "oai_dc": _read_dublin}
"""By metadata prefix."""


def read_atom(body: bytes) -> OaiAnswer:
    """An answer of the API, as papers and how many there are. InputError for an error that it tells, another form."""
    root = parse(body, "the answer of arXiv")
    if root.tag != f"{_ATOM}feed":
        raise InputError(f"the answer of arXiv is {root.tag[:60]!r}; expected an Atom feed")
    papers = []
    for entry in root.findall(f"{_ATOM}entry"):
        address = under(entry, f"{_ATOM}id")
        if "/api/errors" in address:
            raise InputError(f"arXiv refuses the request: {under(entry, f'{_ATOM}summary')[:200]}")
        identifier = arxiv_id(re.sub(r"^https?://arxiv\.org/abs/", "", address))
        if identifier is None:
            continue  # an id that arXiv does not have comes back as an entry without one
        categories = [one.get("term", "") for one in entry.findall(f"{_ATOM}category")]
        details = {"categories": " ".join(categories), "comment": under(entry, f"{_MORE}comment")}
        papers.append(
            Described(
                identifier,
                under(entry, f"{_ATOM}title"),
                under(entry, f"{_ATOM}summary"),
                [under(author, f"{_ATOM}name") for author in entry.findall(f"{_ATOM}author")],
                under(entry, f"{_ATOM}published") or None,
                tuple(under(entry, f"{_MORE}doi").split()),
                {name: value for name, value in details.items() if value},
            )
        )
    total = under(root, f"{_SEARCH}totalResults")
    return OaiAnswer(papers, total=int(total) if re.fullmatch(r"\d{1,9}", total, re.ASCII) else None)


def published(identifier: str, listed: object) -> str | None:
    """The day of a paper's first version: the day when it was listed, if that lies in the month that its id names (a
    listing also shows old papers that were revised), else the first of that month; None for an old id."""
    found = re.match(r"(\d\d)(\d\d)\.", identifier)
    if not found:
        return None
    first = date(2000 + int(found[1]), int(found[2]), 1)
    return str(listed) if str(listed or "").startswith(f"{first:%Y-%m}-") else first.isoformat()
