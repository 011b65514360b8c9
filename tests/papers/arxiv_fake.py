"""A small arXiv on this machine: OAI-PMH with resumption tokens, the Atom API, and every way to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, dict[str, str], bytes]
XML = {"Content-Type": "text/xml; charset=utf-8"}
_OAI = '<?xml version="1.0" encoding="UTF-8"?>\n<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/">'


@dataclass
class Entry:
    """A paper as arXiv has it."""

    id: str
    title: str = ""
    abstract: str = "We study a thing and find it to be so."
    authors: list[tuple[str, str]] = field(default_factory=lambda: [("Ada", "Lovelace"), ("Kurt", "Gödel")])
    created: str = "2025-04-01"
    deleted: bool = False
    doi: str = ""

    def __post_init__(self) -> None:
        self.title = self.title or f"On the matter of number {self.id.replace('.', '')}"


def oai_record(entry: Entry, prefix: str = "arXiv") -> str:
    header = f"<identifier>oai:arXiv.org:{entry.id}</identifier><datestamp>2025-04-02</datestamp><setSpec>cs</setSpec>"
    if entry.deleted:
        return f'<record><header status="deleted">{header}</header></record>'
    if prefix == "oai_dc":
        people = "".join(f"<dc:creator>{last}, {first}</dc:creator>" for first, last in entry.authors)
        inner = (
            '<oai_dc:dc xmlns:oai_dc="http://www.openarchives.org/OAI/2.0/oai_dc/" '
            f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{entry.title}</dc:title>{people}'
            f"<dc:subject>Computer Science</dc:subject><dc:description>{entry.abstract}</dc:description>"
            f"<dc:description>Comment: 9 pages</dc:description><dc:date>2025-05-01</dc:date><dc:date>{entry.created}"
            f"</dc:date><dc:identifier>http://arxiv.org/abs/{entry.id}</dc:identifier></oai_dc:dc>"
        )
    else:
        people = "".join(
            f"<author><keyname>{last}</keyname><forenames>{first}</forenames></author>" for first, last in entry.authors
        )
        doi = f"<doi>{entry.doi}</doi>" if entry.doi else ""
        inner = (
            f'<arXiv xmlns="http://arxiv.org/OAI/arXiv/"><id>{entry.id}</id><created>{entry.created}</created>'
            f"<authors>{people}</authors><title>{entry.title}</title><categories>cs.CL cs.LG</categories>"
            f"<comments>9 pages</comments>{doi}<license>http://creativecommons.org/licenses/by/4.0/</license>"
            f"<abstract>\n  {entry.abstract}\n</abstract></arXiv>"
        )
    return f"<record><header>{header}</header><metadata>{inner}</metadata></record>"


def oai_answer(records: list[str], token: str | None = None, total: int = 0) -> bytes:
    tail = f'<resumptionToken cursor="0" completeListSize="{total}">{token or ""}</resumptionToken>'
    head = f"{_OAI}<responseDate>2025-04-03T00:00:00Z</responseDate>"
    return f"{head}<ListRecords>{''.join(records)}{tail}</ListRecords></OAI-PMH>".encode()


def oai_error(code: str) -> bytes:
    return f'{_OAI}<error code="{code}">no</error></OAI-PMH>'.encode()


def atom(entries: list[Entry], total: int) -> bytes:
    parts = "".join(
        f"<entry><id>http://arxiv.org/abs/{one.id}v2</id><published>{one.created}T10:00:00Z</published>"
        f"<title>{one.title}</title><summary>{one.abstract}</summary>"
        + "".join(f"<author><name>{first} {last}</name></author>" for first, last in one.authors)
        + '<category term="cs.CL" scheme="http://arxiv.org/schemas/atom"/></entry>'
        for one in entries
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><feed xmlns="http://www.w3.org/2005/Atom" '
        'xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">'
        f"<opensearch:totalResults>{total}</opensearch:totalResults>{parts}</feed>"
    ).encode()


@dataclass
class Arxiv:
    """``entries`` in pages of ``size``. ``trouble``: asked before each answer; what it gives is sent instead."""

    entries: list[Entry]
    size: int = 3
    trouble: Callable[[int, str], Answer | None] | None = None
    asked: list[str] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    forgotten: set[str] = field(default_factory=set)
    address: str = ""

    def answer(self, path: str) -> Answer:
        self.asked.append(path)
        if self.trouble is not None:
            told = self.trouble(len(self.asked), path)
            if told is not None:
                return told
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        return 200, XML, self._oai(query) if parts.path == "/oai" else self._api(query)

    def _oai(self, query: dict[str, str]) -> bytes:
        token = query.get("resumptionToken")
        if token in self.forgotten:
            return oai_error("badResumptionToken")
        start, prefix = 0, query.get("metadataPrefix", "arXiv")
        if token:
            prefix, _, place = token.partition("|")
            start = int(place)
        page = self.entries[start : start + self.size]
        if not page:
            return oai_error("noRecordsMatch")
        following = start + self.size
        more = f"{prefix}|{following}" if following < len(self.entries) else None
        return oai_answer([oai_record(entry, prefix) for entry in page], more, len(self.entries))

    def _api(self, query: dict[str, str]) -> bytes:
        found = self.entries
        if query.get("id_list"):
            wanted = query["id_list"].split(",")
            found = [entry for entry in self.entries if entry.id in wanted]
        start = int(query.get("start", 0))
        return atom(found[start : start + int(query.get("max_results", 10))], len(found))


@contextmanager
def serving(arxiv: Any) -> Iterator[Any]:
    """``arxiv`` (anything with ``answer``) on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if hasattr(arxiv, "agents"):
                arxiv.agents.append(self.headers.get("User-Agent", ""))
            status, headers, body = arxiv.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers and "X-Endless" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
                for _ in range(200 if "X-Endless" in headers else 0):  # 13 MB: more than anybody here takes
                    self.wfile.write(b"<!-- more -->" * 5_000)
            except OSError:
                pass
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    arxiv.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield arxiv
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
