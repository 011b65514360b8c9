"""What papers that come cost in processor time, part by part: in the ingest, and in a site that is served.

    python benchmarks/papers_following.py --home FOLDER --counts 1 100 --out benchmarks/out/papers_following.json

FOLDER is a site that is there, such as that of ``serve --corpus all``; it gets the papers and keeps them. Seconds of
processor time of this process, which other work on the machine changes least: of each list made of all papers
(``anew``), then for each count of each step of the ingest and of each list that follows. ``--readers 10``: also how
long a paper that comes takes to be found, from the start of ``nextvec papers ingest`` on, while the site is served to
so many readers who pause for about a second: seconds of the clock. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from _arms import machine, tell
from nextvec.papers import ingest, spelling, suggest
from nextvec.papers.db import Selection
from nextvec.papers.offered import offered
from nextvec.papers.ranking import papers_in
from nextvec.papers.site import Site
from papers_steered import processor_seconds, questions, reader, wait_until_ready

STEPS = ("settle", "take", "_index_words", "few_missing")


def seconds(work: Callable[[], object]) -> float:
    """Of processor time."""
    start = time.process_time()
    work()
    return round(time.process_time() - start, 3)


def lists(site: Site) -> dict[str, float]:
    """Bring to the papers as they are what a served site makes of them (``warmth``)."""
    return {
        "words": seconds(lambda: site.words(fresh=True)),
        "facets": seconds(site.load_columns),
        "count": seconds(lambda: papers_in(site)),
        "offered": seconds(lambda: offered(site, fresh=True)),
        "words of titles": seconds(lambda: spelling.title_words(site, fresh=True)),
        "suggestions": seconds(lambda: suggest.suggester(site, fresh=True)),
        "order by votes": seconds(lambda: site.ordered(Selection(), "votes")),
        "order by moment": seconds(lambda: site.ordered(Selection(dated=True), "moment")),
    }


def taken_in(home: Path, count: int) -> dict[str, float]:
    """Take in ``count`` papers that are not there, with texts of others; seconds of each step and in all."""
    word = "f" + secrets.token_hex(4)
    some = ingest.read_source("daily_papers")[:count]
    new = [replace(one, id=f"{word}.{i}", title=f"{one.title} {word} {i}", upvotes=0) for i, one in enumerate(some)]
    spent: dict[str, float] = dict.fromkeys(STEPS, 0.0)

    def timed(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return step(*given, **named)
            finally:
                spent[name] = round(spent[name] + time.process_time() - start, 3)

        return run

    site = Site(home, must_exist=True)
    site.encoder.encode_query(["made ready"])
    with mock.patch.multiple(ingest, **{name: timed(name, getattr(ingest, name)) for name in STEPS}):
        spent["in all"] = seconds(lambda: ingest.ingest(site, new))
    site.close()
    return {name.strip("_").replace("_", " "): value for name, value in spent.items()}


def found(home: Path, readers: int) -> dict[str, Any]:
    """Serve ``home`` to ``readers``, take a paper in, and ask for it until it is found by meaning and by its words."""
    command = [sys.executable, "-m", "nextvec.cli.main", "papers"]
    server = subprocess.Popen(
        [*command, "serve", "--home", str(home), "--port", "8700"], stdout=subprocess.PIPE, text=True
    )
    try:
        port = re.search(r":(\d+)/", server.stdout.readline() if server.stdout else "")
        if port is None:
            raise SystemExit("the server did not start")
        wait_until_ready(int(port.group(1)))
        with tempfile.TemporaryDirectory() as folder, looking(int(port.group(1)), readers):
            return _taken(command, Path(folder), home, int(port.group(1)), server.pid)
    finally:
        server.terminate()
        server.wait(timeout=60)


@contextmanager
def looking(port: int, readers: int) -> Iterator[None]:
    """Readers who look while the block runs."""
    asked, over = questions(0), threading.Event()
    threads = [
        threading.Thread(target=reader, args=(port, asked[i::readers], over.is_set, 1.0, [])) for i in range(readers)
    ]
    for thread in threads:
        thread.start()
    time.sleep(3)
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _taken(command: list[str], folder: Path, home: Path, port: int, server: int) -> dict[str, Any]:
    word = "f" + secrets.token_hex(4)
    paper = {
        "id": f"{word}.0",
        "title": f"Zebras that {word} through savannas",
        "summary": f"Of striped {word} horses.",
    }
    file = folder / "one.jsonl"
    file.write_text(json.dumps(paper) + "\n")
    ways = {"by_meaning": "q=striped+zebras+in+savannas&mode=semantic", "by_words": f"q={word}&mode=keyword"}
    busy, start = processor_seconds(server), time.perf_counter()
    ingesting = subprocess.Popen([*command, "ingest", str(file), "--home", str(home)], stdout=subprocess.DEVNULL)
    seconds: dict[str, Any] = {}
    while time.perf_counter() < start + 300 and (len(seconds) < 3):
        for name, query in ways.items():
            if name not in seconds and f"/papers/{word}.0" in _page(port, query):
                seconds[name] = round(time.perf_counter() - start, 1)
        if "ingest_ended" not in seconds and ingesting.poll() is not None:
            seconds["ingest_ended"] = round(time.perf_counter() - start, 1)
        time.sleep(0.1)
    return seconds | {"processor_seconds_of_the_site": round(processor_seconds(server) - busy, 1)}


def _page(port: int, query: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", f"/search?{query}")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--readers", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    site = Site(arguments.home, must_exist=True)
    papers = site.db.count()
    anew = lists(site)
    arrivals = []
    for count in arguments.counts:
        spent = taken_in(arguments.home, count)
        arrivals.append({"papers": count, "ingest": spent, "site": lists(site)})
    site.close()
    served = {"readers": arguments.readers, **found(arguments.home, arguments.readers)} if arguments.readers else None
    document = {
        "what": "seconds of processor time for papers that come: steps of the ingest, lists of a served site",
        "papers": papers,
        "anew": anew,
        "arrivals": arrivals,
        **({"seconds_until_one_is_found_while_served": served} if served else {}),
        "machine": machine(),
    }
    tell(document, arguments.out)


if __name__ == "__main__":
    main()
