"""BibTeX files: entries with a title; those that name an arXiv id, an id of the Anthology or a DOI find their paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nextvec.extras import require
from nextvec.files import storage_error
from nextvec.papers.markup import plain
from nextvec.papers.records import clean, safe_url
from nextvec.papers.sources.base import BATCH, Batch, Request, only_file, to_records
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.ids import acl_id, arxiv_id, names
from nextvec.types import InputError

__all__ = ["SOURCE", "Bibtex"]

_LARGEST = 64 << 20
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class Bibtex:
    """One file."""

    name = "bibtex"
    about = "a BibTeX file (.bib)"
    hosts: tuple[str, ...] = ()
    incremental = False

    def batches(self, request: Request, fetcher: Fetcher, cursor: str | None) -> Iterator[Batch]:
        return _read(only_file(self.name, request))


SOURCE = Bibtex()


def _read(path: Path) -> Iterator[Batch]:
    bibtexparser = require("bibtexparser", why="reading BibTeX")
    try:
        with path.open("rb") as stream:
            body = stream.read(_LARGEST + 1)
    except OSError as error:
        raise storage_error(error, path) from error
    if len(body) > _LARGEST:
        raise InputError(f"{path.name} has more than {_LARGEST:,} bytes: cut it into parts")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8: convert it first") from None
    library = bibtexparser.parse_string(text)
    broken = tuple(
        f"{path.name}:{block.start_line + 1}: {' '.join(str(block.error).split())[:150]}"
        for block in library.failed_blocks
    )
    entries = library.entries
    if not entries:
        raise InputError(f"{path.name}: no entry that can be read{f' ({broken[0]})' if broken else ''}")
    for i in range(0, len(entries), BATCH):
        rows = [_row(path.name, entry) for entry in entries[i : i + BATCH]]
        records, refused = to_records(rows)
        yield Batch(records, total=len(entries), refused=(*(broken if not i else ()), *refused))


def _row(where: str, entry: Any) -> tuple[str, dict[str, Any], tuple[str, ...], dict[str, str]]:
    values = {name.lower(): _text(str(field.value)) for name, field in entry.fields_dict.items()}
    links = f"{values.get('url', '')} {values.get('eprint', '')} {values.get('journal', '')} {values.get('note', '')}"
    found = re.search(r"(?:arxiv[.:/ ](?:org/(?:abs|pdf)/)?)?(\d{4}\.\d{4,5}|[a-z-]+/\d{7})", links, re.IGNORECASE)
    is_arxiv = "arxiv" in f"{links} {values.get('archiveprefix', '')}".lower()
    arxiv = arxiv_id(found[1]) if found and is_arxiv else None
    anthology = re.search(r"aclanthology\.(?:org|info)/(?:papers/)?([\w.-]+?)(?:\.pdf|/|$)", values.get("url", ""))
    acl = acl_id(anthology[1]) if anthology else None
    key = re.sub(r"[^A-Za-z0-9._/-]+", "-", entry.key).strip("._/-")[:50] or "entry"
    fields = {
        "id": arxiv or acl or f"bib/{key}",
        "title": values.get("title"),
        "summary": values.get("abstract", ""),
        "authors": _names(str(entry.fields_dict["author"].value)) if "author" in entry.fields_dict else [],
        "publishedAt": _day(values),
        "projectPage": None if arxiv or acl else safe_url(values.get("url")),
        "venue": values.get("booktitle"),
        "source": "bibtex",
    }
    dois = (values["doi"],) if values.get("doi") else ()
    details = {"venue": values.get("booktitle") or values.get("journal") or ""}
    named = names(arxiv=arxiv, acl=acl, dois=dois)
    return f"{where[:80]}: {entry.key[:100]}", fields, named, {name: value for name, value in details.items() if value}


def _text(value: str) -> str:
    """A value without the braces that only hold letters together; LaTeX accents as letters."""
    return clean(plain(value).replace("{", "").replace("}", ""))


def _names(value: str) -> list[str]:
    """``Gödel, Kurt and {Research and Development}`` -> two names, first name first."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"[{}]|\s+and\s+", value):
        if match[0] in "{}":
            depth += 1 if match[0] == "{" else -1
        elif depth == 0:
            parts.append(value[start : match.start()])
            start = match.end()
    parts.append(value[start:])
    found = []
    for part in parts:
        last, comma, first = part.partition(",")
        whole = part.strip().startswith("{") and part.strip().endswith("}")
        found.append(_text(f"{first} {last}" if comma and not whole else part))
    return [name for name in found if name and name.lower() != "others"]


def _day(values: dict[str, str]) -> str | None:
    found = re.match(r"(?:19|20)\d\d", values.get("year") or values.get("date", ""))
    if not found:
        return None
    month = values.get("month", "").lower()
    number = next((i for i, word in enumerate(_MONTHS, start=1) if month.startswith(word)), 0)
    if re.fullmatch(r"0?[1-9]|1[0-2]", month, re.ASCII):
        number = int(month)
    return f"{found[0]}-{number or 1:02d}-01"
