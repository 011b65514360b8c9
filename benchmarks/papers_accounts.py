"""How long what readers do takes on the paper site, with the 9,885 bundled papers.

    python benchmarks/papers_accounts.py --out benchmarks/out/papers_accounts.json

Makes a home of the bundled papers under the bundled encoder, and a reader who likes 120 of them, follows 20 things and
mutes one. Prints one JSON document: for each thing the median and the worst of the repetitions in milliseconds, and the
processor time of one, which says less about what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from _arms import machine, tell
from nextvec.papers import views
from nextvec.papers.accounts import comments, following, for_you, interests, readers, votes
from nextvec.papers.db import Filters
from nextvec.papers.ingest import prepare
from nextvec.papers.site import Site
from nextvec.papers.web import create_app

TOPICS = (
    "agents", "speech", "video generation", "world models", "proof", "retrieval", "safety", "robot", "diffusion",
    "memory", "graph", "medical",
)  # fmt: skip
SEARCHES = ("latent reasoning", "robots that learn from human videos")
PAGES = ("/", "/papers/trending", "/for-you", "/following", "/lists", "/account")


def populate(site: Site) -> str:
    """The reader, with likes, interests and a paper of 300 comments; the id of that paper."""
    reader = readers.local_reader(site.db).id
    ids = site.db.ordered(Filters(), "votes")
    for identifier in ids[:: len(ids) // 120][:120]:
        votes.give(site.db, reader, identifier)
    for topic in TOPICS:
        interests.choose(site.db, reader, "topic", topic, "follow")
    for name, _ in site.db.organizations(limit=6):
        interests.choose(site.db, reader, "org", name, "follow")
    for query in SEARCHES:
        interests.choose(site.db, reader, "search", f"q={query.replace(' ', '+')}", "follow")
    interests.choose(site.db, reader, "topic", "benchmark", "mute")
    for i in range(300):
        comments.write(site.db, reader, ids[0], f"Comment *{i}* on this paper.")
    return ids[0]


def measure(what: Callable[[], Any], repetitions: int) -> dict[str, float]:
    what()
    walls = []
    processor = time.process_time()
    for _ in range(repetitions):
        began = time.perf_counter()
        what()
        walls.append((time.perf_counter() - began) * 1000)
    spent = (time.process_time() - processor) * 1000 / repetitions
    return {"median": round(statistics.median(walls), 2), "worst": round(max(walls), 2), "processor": round(spent, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        prepare(site)
        discussed = populate(site)
        reader = readers.LOCAL
        at, _ = views.clock(site)
        chosen = interests.of_reader(site.db, reader)
        liked = for_you.likes(site.db, reader)
        client = TestClient(create_app(site, local_reader=True), base_url="http://127.0.0.1")
        things: dict[str, Callable[[], Any]] = {
            "a vote and its undoing": lambda: (
                votes.take_back(site.db, reader, discussed),
                votes.give(site.db, reader, discussed),
            ),
            "proposals": lambda: for_you.propose(site, liked, chosen, at),
            "following": lambda: following.following(site, chosen, at),
            "a thread of 300": lambda: comments.thread(site.db, discussed),
        }
        for path in (*PAGES, f"/papers/{discussed}"):
            things[f"GET {path}"] = lambda path=path: client.get(path).raise_for_status()  # type: ignore[misc]
        report = {
            "papers": site.db.count(),
            "liked": len(liked),
            "interests": len(chosen),
            "machine": machine(),
            "milliseconds": {name: measure(what, arguments.repetitions) for name, what in things.items()},
        }
        site.close()
    tell(report, arguments.out)


if __name__ == "__main__":
    main()
