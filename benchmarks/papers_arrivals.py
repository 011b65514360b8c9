"""What papers that arrive cost a large served collection: until they are found, in processor time, to those who read.

    python benchmarks/papers_arrivals.py --home FOLDER --out benchmarks/out/papers_arrivals.json

Serves FOLDER (such as that of ``serve --corpus all``; it gets the papers and keeps them) and lets ten readers ask for
pages of search results, with pauses, all the time (``papers_steered``). After a while, ``nextvec papers ingest`` takes
in one paper, later a hundred, each from a file and in a process of its own, as a timer would. For each:

- seconds from the start of that process until the last of its papers is found by a word that only it has, and until
  the lists know it (the suggestion of its author);
- seconds of processor time of that process, and of the server beyond what the pages alone had cost it;
- milliseconds of the pages from the start until ``--settle`` seconds later.

Prints one JSON document.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from _arms import machine, tell
from nextvec.papers.ingest import read_source
from nextvec.papers.site import Site
from papers_steered import processor_seconds, questions, reader, wait_until_ready

COUNTS = (1, 100)


def write_papers(file: Path, count: int, word: str) -> None:
    """``count`` papers that are not there, with texts of others; the last has ``word`` and an author so named."""
    kept = [paper for paper in read_source("daily_papers") if len(paper.summary) > 800][:count]
    records = []
    for number, paper in enumerate(kept, start=1):
        last = number == count
        records.append(
            {
                "id": f"{word}.{number}",
                "title": f"{paper.title} {word if last else number}",
                "summary": paper.summary,
                "authors": [*paper.authors[:6], *([f"{word.capitalize()} Arrived"] if last else [])],
            }
        )
    file.write_text("\n".join(map(json.dumps, records)))


class Readers:
    """Ten readers with pauses until ``stop``; ``taken``: the milliseconds since it was last asked."""

    def __init__(self, port: int, readers: int, pause: float, seconds: float) -> None:
        self.times: list[list[float]] = [[] for _ in range(readers)]
        self._seen = [0] * readers
        every = questions(7)
        until = time.perf_counter() + seconds
        self._threads = [
            threading.Thread(target=reader, args=(port, every[i::readers], until, pause, self.times[i]), daemon=True)
            for i in range(readers)
        ]
        for thread in self._threads:
            thread.start()

    def taken(self) -> list[float]:
        found = [value for one, seen in zip(self.times, self._seen, strict=True) for value in one[seen:]]
        self._seen = [len(one) for one in self.times]
        return found


def said(times: list[float]) -> dict[str, Any]:
    named = {"median": 50, "p95": 95, "p99": 99}
    return {"pages": len(times)} | {name: round(float(np.percentile(times, share)), 1) for name, share in named.items()}


def answers(port: int, path: str, text: str) -> bool:
    """Whether the site's answer to ``path`` has ``text``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    body = connection.getresponse().read().decode()
    connection.close()
    return text in body


def until_there(port: int, path: str, text: str, start: float, most: float = 300) -> float:
    """Seconds from ``start`` until the answer has it. Asked five times a second, which costs a search of one word."""
    while time.perf_counter() - start < most:
        if answers(port, path, text):
            return round(time.perf_counter() - start, 2)
        time.sleep(0.2)
    raise SystemExit(f"{path} did not show {text!r} within {most} s")


def arrival(
    home: Path, port: int, server: int, people: Readers, count: int, settle: float, idle: float
) -> dict[str, Any]:
    """Take ``count`` papers in; ``idle``: processor seconds that the server needs in a second for its readers alone."""
    word = "zq" + secrets.token_hex(4).translate(str.maketrans("0123456789", "ghijklmnop"))
    people.taken()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "papers.jsonl"
        write_papers(file, count, word)
        busy, start = processor_seconds(server), time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "nextvec.cli.main",
            "papers",
            "ingest",
            str(file),
            "--home",
            str(home),
            "--json",
        ]
        ended: list[tuple[float, float]] = []

        def run() -> None:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            if status:
                raise SystemExit("the ingest failed")
            ended.append((time.perf_counter() - start, used.ru_utime + used.ru_stime))

        thread = threading.Thread(target=run)
        thread.start()
        last = f"{word}.{count}"
        found = until_there(port, f"/api/papers/search?q={word}&mode=keyword", last, start)
        listed = until_there(port, f"/search/suggest?q={word}", "Arrived", start)
        thread.join()
        wait = start + settle - time.perf_counter()
        time.sleep(max(0.0, wait))
        took = time.perf_counter() - start
    wall, ingest = ended[0]
    return {
        "papers": count,
        "seconds_until_found_by_words": found,
        "seconds_until_in_lists": listed,
        "ingest": {"seconds": round(wall, 2), "processor_seconds": round(ingest, 2)},
        "server_processor_seconds_beyond_pages": round(processor_seconds(server) - busy - idle * took, 2),
        "pages_meanwhile": said(people.taken()) | {"seconds": round(took, 1)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--home", type=Path, required=True, help="a site that is there; it keeps the papers that arrive"
    )
    parser.add_argument("--readers", type=int, default=10)
    parser.add_argument("--settle", type=float, default=60, help="seconds from the start of each ingest")
    parser.add_argument("--quiet", type=float, default=30, help="seconds of readers alone, at first")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    site = Site(arguments.home, must_exist=True)
    papers = site.db.count()
    site.close()
    command = [
        sys.executable,
        "-m",
        "nextvec.cli.main",
        "papers",
        "serve",
        "--home",
        str(arguments.home),
        "--port",
        "8700",
    ]
    server = subprocess.Popen([*command, "--rate", "0"], stdout=subprocess.PIPE, text=True)
    try:
        port = re.search(r":(\d+)/", server.stdout.readline() if server.stdout else "")
        if port is None:
            raise SystemExit("the server did not start")
        at = int(port.group(1))
        ready = wait_until_ready(at)
        people = Readers(at, arguments.readers, 1.0, 3_600)
        time.sleep(5)
        people.taken()
        busy, start = processor_seconds(server.pid), time.perf_counter()
        time.sleep(arguments.quiet)
        idle = (processor_seconds(server.pid) - busy) / (time.perf_counter() - start)
        alone = said(people.taken())
        runs = [arrival(arguments.home, at, server.pid, people, count, arguments.settle, idle) for count in COUNTS]
    finally:
        server.terminate()
        server.wait(timeout=60)
    document = {
        "what": "papers that arrive at a served collection; pages of hybrid searches over HTTP, milliseconds",
        "papers": papers,
        "readers": arguments.readers,
        "seconds_until_ready": ready,
        "pages_before": alone | {"server_processor_share": round(idle, 3)},
        "arrivals": runs,
        "machine": machine(),
    }
    tell(document, arguments.out)


if __name__ == "__main__":
    main()
