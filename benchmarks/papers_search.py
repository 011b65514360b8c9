"""How long the site's search takes, over HTTP on loopback, with the bundled papers or in a home that is there.

    python benchmarks/papers_search.py --out docs/results/papers_search.json
    python benchmarks/papers_search.py --home FOLDER       # of `nextvec papers serve --corpus all --home FOLDER`, say

Starts ``nextvec papers serve`` in its own process on a home built from the bundled papers, asks real questions one
after the other on one connection, with and without filters, and times each answer from request to last byte (the
whole page, not compressed). The first round, in which every question is new to the server, is reported apart.
Prints one JSON document: milliseconds, median and percentiles, per filter and over all.
"""

from __future__ import annotations

import argparse
import http.client
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from _arms import machine, tell
from nextvec.papers.ingest import prepare
from nextvec.papers.site import Site
from nextvec.papers.web_search import EXAMPLES

QUESTIONS = (
    *EXAMPLES,
    "diffusion language models",
    "mixture of experts routing collapse",
    "Yann LeCun",
    "retrieval augmented generation with long context",
    "GPT-4o image generation",
    "reward hacking in reinforcement learning from human feedback",
)
FILTERS = {
    "none": "",
    "10 votes or more": "&votes=10",
    "has code": "&code=1",
    "half a year": "&from=2025-01-01&to=2025-06-30",
    "one organisation": "&org=NVIDIA",
    "words only": "&mode=keyword",
    "meaning only": "&mode=semantic",
}


def ask(connection: http.client.HTTPConnection, question: str, filters: str) -> float:
    """Milliseconds for one page."""
    start = time.perf_counter()
    connection.request("GET", f"/search?q={quote_plus(question)}{filters}")
    response = connection.getresponse()
    body = response.read()
    milliseconds = (time.perf_counter() - start) * 1000
    if response.status != 200 or b'class="paper"' not in body:
        raise SystemExit(f"no results for {question!r} with {filters!r}: status {response.status}")
    return milliseconds


def spread(values: list[float]) -> dict[str, float]:
    """Median, 5th and 95th percentile."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 2),
        "p5": round(ordered[len(ordered) // 20], 2),
        "p95": round(ordered[-1 - len(ordered) // 20], 2),
    }


def measure(port: int, repeats: int) -> dict[str, Any]:
    """All questions under all filters, ``repeats`` rounds after a first one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times: dict[str, list[float]] = {name: [] for name in FILTERS}
    first: list[float] = []
    for turn in range(repeats + 1):
        for name, filters in FILTERS.items():
            for question in QUESTIONS:
                milliseconds = ask(connection, question, filters)
                (times[name] if turn else first).append(milliseconds)
    everything = [value for values in times.values() for value in values]
    by_filter = {name: spread(values) for name, values in times.items()}
    return {"all": spread(everything), "first_round": spread(first), "by_filter": by_filter}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--home", type=Path, help="a site that is there; otherwise one of the bundled papers is made")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = arguments.home or Path(folder)
        site = Site(home, must_exist=arguments.home is not None)
        built = None if arguments.home else prepare(site)
        papers = site.db.count()
        site.close()
        command = [sys.executable, "-m", "nextvec.cli.main", "papers", "serve", "--home", str(home), "--port", "8400"]
        start = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            line = server.stdout.readline() if server.stdout else ""
            port = re.search(r":(\d+)/", line)
            if port is None:
                raise SystemExit("the server did not start")
            started = time.perf_counter() - start
            result = measure(int(port.group(1)), arguments.repeats)
        finally:
            server.terminate()
            server.wait(timeout=30)
    document = {
        "what": "search over HTTP on loopback, warm, milliseconds per page",
        "papers": papers,
        "questions": len(QUESTIONS),
        "repeats": arguments.repeats,
        "build_seconds": built.seconds if built else None,
        "serve_start_seconds": round(started, 2),
        **result,
        "machine": machine(),
    }
    tell(document, arguments.out)


if __name__ == "__main__":
    main()
