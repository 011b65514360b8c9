"""How long it takes to prepare the digests of many readers: choose, note in the outbox, and make the mails.

    OMP_NUM_THREADS=1 python benchmarks/papers_digest.py --readers 10000 --out benchmarks/out/papers_digest.json

Makes a home of the bundled papers of the last days, and readers with daily digests, weekly ones, topics, authors,
organisations and saved searches, in a dozen time zones, all of them due within the last hour. Each repeat begins with
an outbox and a memory of nothing; ``choose`` ends when the outbox holds the mails, ``compose`` makes each of them as
the bytes that a server gets (nothing is sent). One process. Prints one JSON document, in seconds; ``cpu`` is
what a machine with nothing else to do would take.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from _arms import machine, tell
from nextvec.papers.ingest import ingest, read_source
from nextvec.papers.mail.compose import Composer
from nextvec.papers.mail.sending import Post
from nextvec.papers.mail.subscriptions import read_wanted
from nextvec.papers.mail.tables import OUTBOX, READERS, SEEN, SUBSCRIPTIONS
from nextvec.papers.mail.transport import POLICY
from nextvec.papers.signing import Signer
from nextvec.papers.site import Site

WISHES: tuple[dict[str, str], ...] = (
    *({"kind": "digest", "most": str(most)} for most in (5, 10, 12, 20, 40)),
    {"kind": "digest", "every": "week", "weekday": "4", "most": "20"},
    *({"kind": "topic", "topic": topic} for topic in ("agents", "world models, robots", "diffusion", "benchmark")),
    {"kind": "author", "author": "Yang Liu", "every": "week", "weekday": "4"},
    {"kind": "org", "org": "NVIDIA"},
    {"kind": "search", "q": "a model that thinks in latent space instead of words"},
)
ZONES = (
    "UTC", "Europe/Berlin", "Europe/London", "America/New_York", "America/Los_Angeles", "America/Sao_Paulo",
    "Asia/Kolkata", "Asia/Tokyo", "Asia/Shanghai", "Australia/Sydney", "Africa/Nairobi", "Pacific/Auckland",
)  # fmt: skip
DAYS = 30


def build(home: Path, readers: int) -> tuple[Site, datetime]:
    """A site with readers, and the moment at which all of them are due (naive UTC)."""
    papers = [paper for paper in read_source("daily_papers") if paper.daily_date]
    newest = max(paper.daily_date or date.min for paper in papers)
    while newest.weekday() != 4:  # a Friday has the weekly ones, too
        newest -= timedelta(days=1)
    first = newest - timedelta(days=DAYS)
    site = Site(home)
    ingest(site, [paper for paper in papers if first < (paper.daily_date or date.min) <= newest])
    now = datetime.combine(newest, datetime.min.time()) + timedelta(hours=11)  # the same day in all of the zones
    since = now - timedelta(days=10)
    rows, subscriptions = [], []
    for i in range(readers):
        zone = ZONES[i // len(WISHES) % len(ZONES)]
        due = (now - timedelta(minutes=1 + i % 59)).replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
        form = WISHES[i % len(WISHES)] | {"zone": zone, "at": f"{due:%H:%M}"}
        wanted, _ = read_wanted(form, list("01234"), site.db)
        schedule = wanted.schedule
        rows.append(
            {"id": f"r{i:08}", "address": f"r{i}@example.org", "folded": f"r{i}@example.org", "created_at": since}
        )
        subscriptions.append(
            {"id": f"s{i:08}", "reader": f"r{i:08}", "kind": wanted.about.kind, "query": wanted.about.address(),
             "stream": wanted.stream, "every": schedule.every, "days": schedule.days, "at": schedule.at,
             "zone": schedule.zone, "weekend": schedule.weekend, "most": wanted.most, "state": "active",
             "created_at": since, "since": since}
        )  # fmt: skip
    with site.db.write() as connection:
        connection.execute(READERS.insert(), rows)
        connection.execute(SUBSCRIPTIONS.insert(), subscriptions)
    return site, now


def once(site: Site, now: datetime) -> dict[str, Any]:
    """One preparation of everything, from nothing."""
    with site.db.write() as connection:
        connection.execute(OUTBOX.delete())
        connection.execute(SEEN.delete())
        connection.execute(SUBSCRIPTIONS.update().values(covered=sa.null()))
    signer = Signer(b"a secret for measuring, and for nothing else")
    post = Post(site, Composer(site, base="https://papers.example.org", sender="papers@example.org", signer=signer))
    start, busy = time.perf_counter(), time.process_time()
    prepared = post.prepare(now)
    chosen = time.perf_counter()
    sizes = []
    for mail in post.outbox.in_state("queued"):
        sizes.append(len(post.composer.outgoing(mail, now).as_bytes(policy=POLICY)))
    end = time.perf_counter()
    return {
        "mails": prepared,
        "choose": round(chosen - start, 2),
        "compose": round(end - chosen, 2),
        "total": round(end - start, 2),
        "cpu": round(time.process_time() - busy, 2),
        "largest_kb": round(max(sizes) / 1000, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site, now = build(Path(folder), arguments.readers)
        runs = [once(site, now) for _ in range(arguments.repeats)]
        papers = site.db.count()
        site.close()
    totals = [run["total"] for run in runs]
    document = {
        "what": "digests prepared (chosen, noted, made) in one process, seconds",
        "readers": arguments.readers,
        "papers": papers,
        "median": statistics.median(totals),
        "median_cpu": statistics.median(run["cpu"] for run in runs),
        "spread": [min(totals), max(totals)],
        "milliseconds_each": round(statistics.median(totals) / max(runs[0]["mails"], 1) * 1000, 2),
        "runs": runs,
        "machine": machine(),
    }
    tell(document, arguments.out)


if __name__ == "__main__":
    main()
