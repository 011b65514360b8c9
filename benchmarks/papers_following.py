"""What papers that come cost in processor time, part by part: in the ingest, and in a site that is served.

    python benchmarks/papers_following.py --home FOLDER --counts 1 100 --out benchmarks/out/papers_following.json

FOLDER is a site that is there, such as that of ``serve --corpus all``; it gets the papers and keeps them. Seconds of
processor time of this process, which other work on the machine changes least: of each list made of all papers
(``anew``), then for each count of each step of the ingest and of each list that follows. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Callable
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

STEPS = ("settle", "take", "_index_words", "missing_insights")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 100])
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
    document = {
        "what": "seconds of processor time for papers that come: steps of the ingest, lists of a served site",
        "papers": papers,
        "anew": anew,
        "arrivals": arrivals,
        "machine": machine(),
    }
    tell(document, arguments.out)


if __name__ == "__main__":
    main()
