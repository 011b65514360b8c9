"""How well papers find each other by title and authors: Daily Papers with hidden ids in arXiv, ACL in arXiv.

The two sets share 4,288 ids. Hidden, every daily paper is placed among the papers of arXiv: right is the one with its
id. A daily paper that arXiv's set does not have is right where it is placed nowhere; one that is placed although its id
differs is a false merge, or a paper that arXiv has twice: these are listed. For ACL there is no truth: the merges are
counted and a sample is written out to be read.

    NEXTVEC_DATA=... python benchmarks/papers_merging.py --out benchmarks/out/papers_merging.json
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from nextvec.data.readers import batched
from nextvec.papers.db import Database, Filters
from nextvec.papers.sources import titles
from nextvec.papers.sources.base import Record, Request, open_source
from nextvec.papers.sources.corpus import CORPORA, parts_of
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.matching import Matcher


def records(corpus: str, *, limit: int | None = None) -> list[Record]:
    """All records of a corpus."""
    found: list[Record] = []
    for part, path in parts_of(corpus):
        for batch in open_source(part.source).batches(Request(file=path), Fetcher(()), None):
            found += batch.records
            if limit and len(found) >= limit:
                return found[:limit]
    return found


def placed(db: Database, source: str, given: list[Record]) -> dict[str, str]:
    """key -> id of the paper that title and authors say it is."""
    found = {}
    for part in batched(given, 1_000):
        with db.read() as connection:
            matcher = Matcher(connection, source, part)
            for record in part:
                paper, by_title = matcher.place(record)
                if by_title:
                    found[record.key] = paper
    return found


def hidden(record: Record, number: int) -> Record:
    """The same without anything that names it."""
    return replace(record, names=(), paper=replace(record.paper, id=f"hidden/{number}"))


def compare(db: Database, daily: list[Record], known: set[str]) -> dict[str, Any]:
    """Daily Papers with hidden ids against arXiv."""
    found = placed(db, "hf_daily", [hidden(record, i) for i, record in enumerate(daily)])
    ids = {record.key: record.paper.id for record in daily}
    shared = [key for key, identifier in ids.items() if identifier in known]
    right = [key for key, paper in found.items() if ids[key] == paper]
    wrong = [key for key, paper in found.items() if ids[key] != paper]
    return {
        "shared": len(shared),
        "placed": len(found),
        "right": len(right),
        "precision": round(len(right) / max(len(found), 1), 5),
        "recall": round(len(right) / max(len(shared), 1), 5),
        "wrong": [[key, found[key]] for key in wrong],
        "missed": [key for key in shared if key not in found][:50],
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--home", type=Path, help="keep the database here, to be used again")
    parser.add_argument("--close", type=float, nargs="*", default=[titles.CLOSE], help="likenesses to try")
    parser.add_argument("--acl", type=int, default=None, help="only so many papers of the Anthology")
    options = parser.parse_args()
    home = options.home or Path(tempfile.mkdtemp(prefix="nextvec-merging-"))
    report: dict[str, Any] = {"corpora": sorted(CORPORA)}
    with Database(home / "papers.sqlite") as db:
        if db.fact("merging") != "complete":
            for part in batched(records("arxiv"), 2_000):
                db.upsert([record.paper for record in part])
            db.set_facts(merging="complete")
        daily = [record for record in records("daily") if record.paper.source == "daily_papers"]
        known = db.ids(Filters())
        for close in options.close:
            titles.same.__kwdefaults__["close"] = close
            report[f"daily at {close}"] = compare(db, daily, known)
        acl = records("acl", limit=options.acl)
        found = placed(db, "acl", acl)
        by_key = {record.key: record.paper for record in acl}
        sample = random.Random(0).sample(sorted(found), min(100, len(found)))
        near = [key for key in sorted(found) if titles.fold(by_key[key].title) != _title(db, found[key])]
        report["acl"] = {
            "papers": len(acl),
            "merged": len(found),
            "with another title": len(near),
            "sample": [[by_key[key].title, _paper_title(db, found[key]), key, found[key]] for key in sample],
            "sample of other titles": [
                [by_key[key].title, _paper_title(db, found[key]), key, found[key]]
                for key in random.Random(1).sample(near, min(60, len(near)))
            ],
        }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    print(text)


def _paper_title(db: Database, identifier: str) -> str:
    stored = db.get(identifier)
    return stored.paper.title if stored else ""


def _title(db: Database, identifier: str) -> str:
    return titles.fold(_paper_title(db, identifier))


if __name__ == "__main__":
    main()
