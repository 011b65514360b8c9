"""What a visitor's browser takes in before a page of the site is painted: the document and all that it names.

    python benchmarks/papers_weight.py --out benchmarks/out/papers_weight.json
    python benchmarks/papers_weight.py --home FOLDER             # of a site that is there

Takes the bundled papers into a home, asks for one page of each kind, packed as a browser asks for it, and then for
every style sheet, script, font and picture in it. Kilobytes of each, and in all on a first visit; on the next one the
files are in the browser's cache and only the document comes. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from _arms import machine, tell
from nextvec.papers.ingest import ingest, read_source
from nextvec.papers.site import Site
from nextvec.papers.web import create_app

PAGES = (
    "/", "/papers/trending", "/papers/new", "/papers/discussed?days=all", "/search", "/search?q=latent+reasoning",
    "/papers/2412.06769", "/map", "/topics", "/subscribe", "/about", "/api",
)  # fmt: skip
NAMED = re.compile(r'<(?:link|script|img)\b[^>]*?(?:href|src)="(/static/[^"]+)"')


def weigh(http: TestClient, pages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By page: kilobytes of the document, of the files that it names, and of both."""
    packed = {"accept-encoding": "gzip"}

    def size(address: str) -> tuple[int, str]:
        with http.stream("GET", address, headers=packed) as answer:
            if answer.status_code != 200:
                raise SystemExit(f"{address} answers {answer.status_code}; expected 200")
            raw = sum(len(part) for part in answer.iter_raw())
        return raw, http.get(address, headers=packed).text if "html" in answer.headers["content-type"] else ""

    found = {}
    for page in pages:
        document, text = size(page)
        files = {name.partition("?")[0]: size(name)[0] for name in dict.fromkeys(NAMED.findall(text))}
        found[page] = {
            "document": round(document / 1000, 1),
            "files": {name: round(one / 1000, 1) for name, one in files.items()},
            "first_visit": round((document + sum(files.values())) / 1000, 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="a site that is there; by itself one is made")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() if arguments.home is None else nullcontext(arguments.home) as folder:
        site = Site(Path(folder), must_exist=arguments.home is not None)
        if arguments.home is None:
            ingest(site, read_source("daily_papers"), source="daily_papers", understand=False)
        pages = weigh(TestClient(create_app(site)), PAGES)
        site.close()
    document = {
        "what": "kilobytes of a page, packed, with the files that it names",
        "pages": pages,
        "most_on_a_first_visit": max(page["first_visit"] for page in pages.values()),
        "machine": machine(),
    }
    tell(document, arguments.out)


if __name__ == "__main__":
    main()
