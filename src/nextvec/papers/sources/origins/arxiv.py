"""arXiv: the whole of a set by OAI-PMH, single papers and queries by its API, or records in a file (CC0 metadata).

Sources: https://info.arxiv.org/help/oa/index.html (sets, one request every three seconds, resumption tokens) and
https://info.arxiv.org/help/api/user-manual.html (Atom).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from nextvec.papers.records import clean
from nextvec.papers.sources.base import BATCH, Batch, ExpiredCursorError, Record, Request, to_records
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.ids import arxiv_id, names
from nextvec.papers.sources.origins import _arxiv_xml as forms
from nextvec.types import InputError

__all__ = ["SOURCE", "Arxiv"]

OAI = "https://oaipmh.arxiv.org/oai"
API = "https://export.arxiv.org/api/query"
_CATEGORY = re.compile(r"[a-z-]+(?:\.[A-Za-z-]+)?")
_TYPES = ("text/xml", "application/xml", "application/atom+xml")
_PAGE = 100  # papers of one answer of the API
_MOST = 2_000  # papers of one query: more is what OAI-PMH is for


class Arxiv:
    """``--set`` (default cs), ``--prefix`` arXiv or oai_dc, ``--from``, ``--until``; or ``--query``, or ``--ids``."""

    name = "arxiv"
    about = "arXiv by OAI-PMH (--set, --from, --until), by its API (--query, --ids), or a file of records"
    hosts: tuple[str, ...] = ("oaipmh.arxiv.org", "export.arxiv.org")
    incremental = True

    def batches(self, request: Request, fetcher: Fetcher, cursor: str | None) -> Iterator[Batch]:
        if request.file is not None:
            request.refuse(self.name, "file")
            return _from_file(request)
        if request.query is not None or request.ids:
            request.refuse(self.name, "query", "ids")
            return _from_api(request, fetcher, cursor)
        request.refuse(self.name, "set", "prefix", "start", "until")
        return _harvest(request, fetcher, cursor)


SOURCE = Arxiv()


def _harvest(request: Request, fetcher: Fetcher, token: str | None) -> Iterator[Batch]:
    """OAI-PMH 2.0, ListRecords: batches as the place divides them, each with the token that the next one needs."""
    prefix = request.prefix or "arXiv"
    if prefix not in forms.READERS:
        raise InputError(f"prefix is {prefix!r}; expected one of {', '.join(forms.READERS)}")
    first = {"verb": "ListRecords", "metadataPrefix": prefix, "set": request.set or "cs"}
    first |= {"from": request.start.isoformat()} if request.start else {}
    first |= {"until": request.until.isoformat()} if request.until else {}
    seen: set[str] = set()
    while True:
        asked = {"verb": "ListRecords", "resumptionToken": token} if token else first
        body = fetcher.get(f"{request.address or OAI}?{urlencode(asked)}", types=_TYPES)
        answer = forms.read_oai(body, prefix)
        if answer.error == "badResumptionToken":
            raise ExpiredCursorError("arXiv does not know the place any more where the harvest stopped")
        if answer.error == "noRecordsMatch":
            return
        if answer.error:
            raise InputError(f"arXiv refuses the request: {answer.error} {answer.message}".strip())
        records, refused = to_records(map(_row, answer.papers))
        yield Batch(records, answer.deleted, answer.token, answer.total, (*answer.refused, *refused))
        if not answer.token:
            return
        if answer.token in seen:
            raise InputError("arXiv gives the same resumption token twice: the harvest would never end")
        seen.add(answer.token)
        token = answer.token


def _from_api(request: Request, fetcher: Fetcher, cursor: str | None) -> Iterator[Batch]:
    ids = []
    for text in request.ids:
        identifier = arxiv_id(text)
        if identifier is None:
            raise InputError(f"{text[:60]!r} is no arXiv id; expected one such as 2405.13729")
        ids.append(identifier)
    start, total = int(cursor or 0), len(ids) if request.query is None else _MOST
    while start < min(total, request.limit or _MOST, _MOST):
        asked: dict[str, Any] = {"search_query": request.query} if request.query is not None else {}
        if ids and request.query is None:
            asked |= {"id_list": ",".join(ids[start : start + _PAGE]), "max_results": _PAGE}
        else:
            asked |= {"start": start, "max_results": _PAGE, "sortBy": "submittedDate", "sortOrder": "descending"}
            asked |= {"id_list": ",".join(ids)} if ids else {}
        answer = forms.read_atom(fetcher.get(f"{request.address or API}?{urlencode(asked)}", types=_TYPES))
        records, refused = to_records(map(_row, answer.papers))
        start += _PAGE
        total = total if request.query is None else min(answer.total or 0, _MOST)
        more = start < total and bool(answer.papers)
        yield Batch(records, (), str(start) if more else None, total, refused)
        if not more:
            return


def _categories(text: str) -> list[str]:
    """Those of arXiv; classes of mathematics and of the ACM, which may stand among them, are left out."""
    return [word for word in text.split() if _CATEGORY.fullmatch(word)]


def _row(paper: forms.Described) -> tuple[str, dict[str, Any], tuple[str, ...], dict[str, str]]:
    fields = {
        "id": paper.id,
        "title": paper.title,
        "summary": paper.summary,
        "authors": paper.authors,
        "publishedAt": paper.published,
        "categories": _categories(paper.details.get("categories", "")),
        "source": "arxiv",
    }
    return paper.id, fields, names(arxiv=paper.id, dois=paper.dois), paper.details


def _from_file(request: Request) -> Iterator[Batch]:
    """JSON lines or Parquet with id, title, summary, authors, categories, comment, first_listed."""
    from nextvec.data.readers import batched, read_located

    assert request.file is not None
    located = read_located(request.file, fields=("id", "title", "summary"))
    for part in batched(located, BATCH):
        found: list[Record] = []
        refused: list[str] = []
        for where, record in part:
            identifier = arxiv_id(str(record["id"]))
            if identifier is None:
                refused.append(f"{where}: {str(record['id'])[:60]!r} is no arXiv id")
                continue
            records, told = to_records([_file_row(identifier, record)])
            found += records
            refused += told
        yield Batch(found, refused=tuple(refused), cursor=None)


def _file_row(
    identifier: str, record: Mapping[str, Any]
) -> tuple[str, dict[str, Any], tuple[str, ...], dict[str, str]]:
    categories = record.get("categories") or ""
    details = {
        "categories": categories if isinstance(categories, str) else " ".join(map(str, categories)),
        "comment": str(record.get("comment") or ""),
    }
    fields = {
        "id": identifier,
        "title": record["title"],
        "summary": record["summary"],
        "authors": record.get("authors"),
        "publishedAt": record.get("publishedAt") or forms.published(identifier, record.get("first_listed")),
        "categories": _categories(details["categories"]),
        "source": "arxiv",
    }
    dois = (str(record["doi"]),) if record.get("doi") else ()
    kept = {name: clean(value) for name, value in details.items() if value}
    return identifier, fields, names(arxiv=identifier, dois=dois), kept
