"""The ACL Anthology: its own XML, a folder of it, or JSON lines made from it.

Papers from 2016 on are CC BY 4.0; older ones (CC BY-NC-SA 3.0 and before) may be read, not passed on: this source reads
files on the user's own disk and asks nobody. Source of the form: https://github.com/acl-org/acl-anthology, schema.rnc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextvec.papers.records import clean
from nextvec.papers.sources.base import BATCH, Batch, Request, only_file, to_records
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.ids import acl_id, names
from nextvec.papers.sources.xml import parse, text_of, under
from nextvec.types import InputError, NotFoundError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["SOURCE", "Acl"]

_LARGEST = 64 << 20
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_Row = tuple[str, dict[str, Any], tuple[str, ...], dict[str, str]]


class Acl:
    """A file or a folder; the records of a retracted paper are deletions."""

    name = "acl"
    about = "ACL Anthology: an XML file, a folder of them, or JSON lines, from your own disk"
    hosts: tuple[str, ...] = ()
    incremental = False

    def batches(self, request: Request, fetcher: Fetcher, cursor: str | None) -> Iterator[Batch]:
        path = only_file(self.name, request)
        if path.is_dir():
            found = sorted(path.rglob("*.xml"))
            if not found:
                raise NotFoundError(f"{str(path)!r} holds no XML file of the Anthology")
            return (batch for one in found for batch in _from_xml(one))
        return _from_xml(path) if path.suffix == ".xml" else _from_lines(path)


SOURCE = Acl()


def _from_lines(path: Path) -> Iterator[Batch]:
    """JSON lines with id, title, abstract, year, month, venues, booktitle, authors, doi, award."""
    from nextvec.data.readers import batched, read_located

    for part in batched(read_located(path, fields=("id", "title")), BATCH):
        records, refused = to_records(row for where, record in part for row in _line(where, record))
        yield Batch(records, refused=refused)


def _line(where: str, record: Mapping[str, Any]) -> Iterable[_Row]:
    identifier = acl_id(str(record["id"]))
    if identifier is None:  # to_records says so, with the place
        return [(where, {"id": None, "title": record["title"], "summary": ""}, (), {})]
    venues = record.get("venues") or []
    details = {
        "venue": " ".join(map(str, venues)) if isinstance(venues, list) else str(venues),
        "book": str(record.get("booktitle") or ""),
        "award": str(record.get("award") or ""),
    }
    day = _day(str(record.get("year") or ""), str(record.get("month") or ""))
    return [
        _row(
            identifier, record["title"], record.get("abstract"), record.get("authors"), day, record.get("doi"), details
        )
    ]


def _from_xml(path: Path) -> Iterator[Batch]:
    """One collection: its volumes, their papers."""
    try:
        size = path.stat().st_size
    except OSError:
        raise NotFoundError(f"{str(path)!r} does not exist") from None
    if size > _LARGEST:
        raise InputError(f"{path.name} has more than {_LARGEST:,} bytes: that is no collection of the Anthology")
    root = parse(path.read_bytes(), path.name)
    if root.tag != "collection":
        raise InputError(f"{path.name}: the root is {root.tag[:40]!r}; expected <collection> of the ACL Anthology")
    rows: list[_Row] = []
    deleted = []
    for volume in root.findall("volume"):
        for paper in volume.findall("paper"):
            identifier = _identifier(root, volume, paper)
            if identifier and (paper.find("retracted") is not None or paper.find("removed") is not None):
                deleted.append(identifier)
            else:
                rows.append(_described(volume, paper, identifier, path.name))
    for i in range(0, max(len(rows), 1), BATCH):
        records, refused = to_records(rows[i : i + BATCH])
        yield Batch(records, tuple(deleted) if not i else (), refused=refused)


def _identifier(root: Element, volume: Element, paper: Element) -> str | None:
    """What stands in its address, else what collection, volume and paper make."""
    collection, part, number = root.get("id", ""), volume.get("id", ""), paper.get("id", "")
    made = f"{collection}-{part}.{number}"
    return acl_id(under(paper, "url")) or acl_id(made)


def _described(volume: Element, paper: Element, identifier: str | None, where: str) -> _Row:
    title = " ".join(text_of(paper.find("title")).split())
    if identifier is None:
        return f"{where}: {title[:60]!r}", {"id": None, "title": title, "summary": ""}, (), {}
    meta = volume.find("meta")
    authors = []
    for author in paper.findall("author"):
        parts = [under(author, part) for part in ("first", "last")]
        authors.append(" ".join(part for part in parts if part))
    told = {
        "venue": " ".join(text_of(one).strip() for one in meta.findall("venue")) if meta is not None else "",
        "book": under(meta, "booktitle") if meta is not None else "",
        "award": under(paper, "award"),
    }
    year, month = (under(meta, tag) if meta is not None else "" for tag in ("year", "month"))
    abstract = " ".join(text_of(paper.find("abstract")).split())
    return _row(identifier, title, abstract, authors, _day(year, month), under(paper, "doi"), told)


def _row(
    identifier: str,
    title: Any,
    abstract: Any,
    authors: Any,
    day: str | None,
    doi: Any,
    details: Mapping[str, str],
) -> _Row:
    """``details``: a word of ``venue`` is a venue (``findings acl``)."""
    fields = {
        "id": identifier,
        "title": title,
        "summary": abstract or "",
        "authors": authors,
        "publishedAt": day,
        "venue": details["venue"].split(),
        "source": "acl",
    }
    kept = {name: clean(value) for name, value in details.items() if value}
    return identifier, fields, names(acl=identifier, dois=(str(doi),) if doi else ()), kept


def _day(year: str, month: str) -> str | None:
    """The first day of the month, or of the year where the month is not told in a word of English or a number."""
    if not re.fullmatch(r"(?:19|20)\d\d", year, re.ASCII):
        return None
    named = next((i for i, word in enumerate(_MONTHS, start=1) if word in month.lower()), 1)
    number = int(month) if re.fullmatch(r"0?[1-9]|1[0-2]", month.strip(), re.ASCII) else named
    return f"{year}-{number:02d}-01"
