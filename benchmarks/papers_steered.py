"""How long a page of search results with its facets takes in a large collection, with ten readers at once.

    python benchmarks/papers_steered.py --copies 12 --out benchmarks/out/papers_steered.json

Makes a home of the bundled papers, each of them ``copies`` times under other ids (12 copies: 118,620 papers, all with
embeddings and words), starts ``nextvec papers serve`` on it and lets ten readers ask for whole pages over HTTP on
loopback: hybrid search with facets, with and without filters, half of the questions for the first time. Twice: readers
that look at a page for about a second before they ask again, and readers that never wait. Milliseconds from request to
last byte: median, 95th and 99th percentile; and the server's processor time for a page, which other work on the machine
changes least. Prints one JSON document. ``--home`` takes a site that is there, such as that of ``serve --corpus all``.

    python benchmarks/papers_steered.py --home FOLDER --inside 160 --out benchmarks/out/papers_steered_inside.json

asks the application for the same pages in this process, one after the other, without HTTP and readers: milliseconds of
processor time for each, with those of a PostgreSQL server on this machine beside them, where the rows lie in one. That
can be told on a machine that does other work.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import numpy as np

from _arms import machine, tell
from nextvec.papers.ingest import BATCH, read_source
from nextvec.papers.site import Site, encode_documents
from nextvec.papers.word_index import LexicalIndex

FILTERS = ("", "", "&votes=10", "&code=1", "&year=2026", "&org=NVIDIA", "&topic=language+model", "&sort=newest")


def build(home: Path, copies: int) -> int:
    """A collection whose every paper can be found; how many it has."""
    papers = read_source("daily_papers")
    site = Site(home)
    vectors = encode_documents(site.encoder, [paper.document() for paper in papers])
    whole = np.flatnonzero(vectors.any(axis=1))
    site.new_collection()
    noise = np.random.default_rng(0)
    for copy in range(copies):
        mine = [replace(papers[i], id=f"{copy}.{i}") for i in whole]
        for start in range(0, len(mine), BATCH):
            batch = mine[start : start + BATCH]
            rows = vectors[whole[start : start + BATCH]]
            rows = rows + noise.normal(0, 0.01, rows.shape).astype(np.float32)  # copies do not tie
            site.db.upsert(batch)
            site.collection.upsert([paper.id for paper in batch], rows, [paper.facets() for paper in batch])
            site.db.mark_indexed(batch, ["0" * 17] * len(batch))
    site.db.set_facts(encoder=site.encoder_state)
    LexicalIndex.build(site.db.lexical_rows(), stamp=site.stamp).save(site.words_path)
    count = site.db.count()
    site.close()
    return count


def questions(seed: int) -> list[str]:
    """Queries that people might type: runs of three to six words of the papers' titles."""
    choice = random.Random(seed)
    titles = [paper.title.split() for paper in read_source("daily_papers") if len(paper.title.split()) > 5]
    found = []
    for words in choice.sample(titles, 400):
        start = choice.randrange(len(words) - 3)
        found.append(" ".join(words[start : start + choice.randint(3, 6)])[:200])
    return found


def reader(port: int, asked: list[str], over: Callable[[], bool], pause: float, out: list[float]) -> None:
    """Ask and look until it is ``over``; every second question is one that was asked before."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    choice = random.Random(asked[0])
    time.sleep(pause * choice.random())
    for i in itertools.count():
        if over():
            return
        question = asked[(i if i % 2 else i // 4) % len(asked)]
        start = time.perf_counter()
        path = f"/search?q={quote_plus(question)}{FILTERS[i % len(FILTERS)]}"
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})  # as browsers do
        response = connection.getresponse()
        response.read()
        out.append((time.perf_counter() - start) * 1000)
        if response.status not in (200, 303):
            raise SystemExit(f"status {response.status} for {question!r}")
        time.sleep(pause * (0.5 + choice.random()))


def wait_until_ready(port: int) -> float:
    """Ask /readyz until it says yes; seconds since the server began to listen."""
    start = time.perf_counter()
    while time.perf_counter() < start + 300:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return round(time.perf_counter() - start, 1)
        time.sleep(0.2)
    raise SystemExit("the site was not ready within five minutes")


def processor_seconds(process: int) -> float:
    """What ``process`` has used so far; nan where the system has no /proc."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int, server: int, seconds: float, pause: float, readers: int, seed: int) -> dict[str, Any]:
    """``readers`` at once for ``seconds``; ``server``: the process that answers."""
    every = questions(seed)
    times: list[list[float]] = [[] for _ in range(readers)]
    busy = processor_seconds(server)
    until = time.perf_counter() + seconds

    def over() -> bool:
        return time.perf_counter() > until

    threads = [
        threading.Thread(target=reader, args=(port, every[i::readers], over, pause, times[i])) for i in range(readers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    busy = processor_seconds(server) - busy
    together = np.array([value for one in times for value in one])
    named = {"median": 50, "p95": 95, "p99": 99}
    return {
        "pause_seconds": pause,
        "pages": len(together),
        "pages_per_second": round(len(together) / seconds, 1),
        "processor_ms_per_page": round(1000 * busy / len(together), 1),
        **{name: round(float(np.percentile(together, share)), 1) for name, share in named.items()},
    }


def inside(home: Path, pages: int) -> dict[str, Any]:
    """Processor time of ``pages`` pages that ten readers would ask for in turn."""
    from nextvec.papers.warmth import Warmth
    from nextvec.papers.web import create_app

    site = Site(home, must_exist=True)
    app = create_app(site)
    warmth = Warmth(site, app)
    warmth.start()
    warmth.wait(600)
    every = [questions(0)[i::10] for i in range(10)]
    asked = [
        f"/search?q={quote_plus(own[(i if i % 2 else i // 4) % len(own)])}{FILTERS[i % len(FILTERS)]}"
        for i in range(-(-pages // 10))
        for own in every
    ][:pages]

    async def spent() -> list[float]:
        times = []
        for address in asked:
            start = time.process_time()
            await ask(app, address)
            times.append((time.process_time() - start) * 1000)
        return times

    before = servers_seconds()
    times = asyncio.run(spent())
    beside = servers_seconds() - before
    warmth.close()
    site.close()
    told = {"mean": np.mean(times), "median": np.median(times), "p95": np.percentile(times, 95), "most": max(times)}
    return {
        "pages": pages,
        "processor_ms_per_page": {name: round(float(value), 1) for name, value in told.items()},
        "processor_ms_per_page_of_postgresql": round(1000 * beside / pages, 1),
    }


async def ask(app: Any, address: str) -> None:
    """Have ``app`` answer a browser."""
    path, _, query = address.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "state": {},
        "headers": [(b"host", b"localhost"), (b"accept-encoding", b"gzip")], "client": None,
        "server": ("localhost", 80),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message.get("status", 200) not in (200, 303):
            raise SystemExit(f"status {message['status']} for {address!r}")

    await app(scope, receive, send)


def servers_seconds() -> float:
    """Processor time that all PostgreSQL servers of this machine have used so far; 0 where there are none."""
    found = (path for path in Path("/proc").glob("[0-9]*") if _name(path) == "postgres")
    return sum(processor_seconds(int(path.name)) for path in found)


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:  # it has ended
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=12)
    parser.add_argument("--readers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--inside", type=int, metavar="PAGES", help="processor time of so many pages, without HTTP")
    parser.add_argument("--home", type=Path, help="where to make the collection, or where one was made before")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = arguments.home or Path(folder)
        if (home / "words").exists():
            site = Site(home, must_exist=True)
            papers = site.db.count()
            where = "PostgreSQL" if "://" in site.db.location else "SQLite"
            site.close()
        else:
            papers, where = build(home, arguments.copies), "SQLite"
        if arguments.inside:
            told = inside(home, arguments.inside)
            what = "a page of a hybrid search with facets, in the process that asks, milliseconds of processor time"
            tell({"what": what, "papers": papers, "rows_in": where, **told, "machine": machine()}, arguments.out)
            return
        command = [sys.executable, "-m", "nextvec.cli.main", "papers", "serve", "--home", str(home), "--port", "8500"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            line = server.stdout.readline() if server.stdout else ""
            port = re.search(r":(\d+)/", line)
            if port is None:
                raise SystemExit("the server did not start")
            ready = wait_until_ready(int(port.group(1)))
            runs = [
                measure(int(port.group(1)), server.pid, arguments.seconds, pause, arguments.readers, seed)
                for seed, pause in enumerate((1.0, 0.0))
            ]
        finally:
            server.terminate()
            server.wait(timeout=30)
    document = {
        "what": "a page of a hybrid search with facets, over HTTP on loopback, milliseconds",
        "papers": papers,
        "rows_in": where,
        "readers": arguments.readers,
        "seconds_until_ready": ready,
        "runs": runs,
        "machine": machine(),
    }
    tell(document, arguments.out)


if __name__ == "__main__":
    main()
