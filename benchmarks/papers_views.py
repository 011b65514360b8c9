"""How long a view of the paper site takes under filters, in a large collection, beside the same view without them.

    python benchmarks/papers_views.py --copies 12 --out benchmarks/out/papers_views.json

Makes a home of the bundled papers, each of them ``copies`` times under other ids, with a third of the copies in the
daily feed (12 copies: 118,620 papers; no embeddings, which views do not use). Asks for each page in the same process,
not filtered and filtered in alternation. ``first`` is the first answer, which sorts what was not sorted yet; ``ratio``
the median of a filtered page over that of the plain one. Prints one JSON document, in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from _arms import machine, tell
from nextvec.papers.ingest import read_source
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
from nextvec.papers.word_index import LexicalIndex

PLAIN = ("/papers/month/2026-08", "/papers/trending?half=365", "/papers/discussed?days=all", "/papers/new")
FILTERS = {
    "a frequent topic": "topic=model",
    "a rare topic": "topic=zebra",
    "topic, votes and code": "topic=diffusion+model&votes=5&code=1",
    "an author": "author=Yang+Liu",
    "an unknown author": "author=Yann+Lecum",
    "an organisation and days": "org=NVIDIA&from=2025-01-01",
}


def build(home: Path, copies: int) -> int:
    """A collection; how many papers it has."""
    papers = read_source("daily_papers")
    site = Site(home)
    for copy in range(copies):
        listed = copy < max(copies // 3, 1)
        site.db.upsert(
            [
                replace(paper, id=f"{copy}.{i}", daily_date=paper.daily_date if listed else None)
                for i, paper in enumerate(papers)
            ]
        )
    LexicalIndex.build(site.db.lexical_rows(), stamp=site.stamp).save(site.words_path)
    count = site.db.count()
    site.close()
    return count


def ask(client: TestClient, address: str) -> float:
    """Milliseconds for one page."""
    start = time.perf_counter()
    response = client.get(address)
    milliseconds = (time.perf_counter() - start) * 1000
    if response.status_code != 200:
        raise SystemExit(f"{address}: status {response.status_code}")
    return milliseconds


def measure(home: Path, repeats: int) -> dict[str, Any]:
    """Every view: plain, and under each filter beside it."""
    site = Site(home)
    client = TestClient(create_app(site))
    site.words()
    result: dict[str, Any] = {}
    for plain in PLAIN:
        rows: dict[str, Any] = {}
        for name, filters in FILTERS.items():
            narrowed = f"{plain}{'&' if '?' in plain else '?'}{filters}"
            first = ask(client, narrowed)
            pairs = [(ask(client, plain), ask(client, narrowed)) for _ in range(repeats)]
            base, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            rows[name] = {
                "first": round(first, 1), "plain": round(base, 1), "narrowed": round(ours, 1),
                "ratio": round(ours / base, 2),
            }  # fmt: skip
        result[plain] = rows
    site.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        papers = build(Path(folder), arguments.copies)
        views = measure(Path(folder), arguments.repeats)
    document = {
        "what": "a page of a view in the server's process, milliseconds",
        "papers": papers,
        "repeats": arguments.repeats,
        "views": views,
        "machine": machine(),
    }
    tell(document, arguments.out)


if __name__ == "__main__":
    main()
