"""Figures for monitors, in the text format of Prometheus (version 0.0.4).

Requests are counted by the template of their route, never by their address, which may hold what somebody looks for or
the words of a link. What lies in the database is counted when it is asked for. No figure is about one person.
"""

from __future__ import annotations

import math
import os
import platform
import sqlite3
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from nextvec import __version__
from nextvec.papers.accounts.tables import READERS
from nextvec.papers.mail import tables as mail
from nextvec.papers.mail.outbox import WAITING
from nextvec.papers.site import Site
from nextvec.papers.sources.tables import HARVESTS, SUBMISSIONS
from nextvec.papers.tables import FACTS, PAPERS
from nextvec.types import NextvecError

__all__ = ["BUCKETS", "CONTENT_TYPE", "Metrics", "page"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram of answers, in seconds."""
_METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}
_SEARCHES = {"/search": "page", "/api/papers/search": "api"}
_MAIL_STATES = (*WAITING, "sent", "failed", "doubtful", "cancelled")

Sample = tuple[str, Mapping[str, str], float]
"""What follows the name of its family (such as "_bucket"), labels, value."""


class Metrics:
    """Counts what one process answers. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.time()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._searches: Counter[str] = Counter()
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
        self._seconds: Counter[str] = Counter()

    def observe(self, method: str, route: str, status: int, seconds: float, *, searched: bool = False) -> None:
        """Note an answer. ``searched``: the request asked for something, as the route of a search can without."""
        with self._lock:
            self._requests[method if method in _METHODS else "other", route, status] += 1
            self._buckets[route][bisect_left(BUCKETS, seconds)] += 1
            self._seconds[route] += seconds  # type: ignore[assignment]
            if searched and status < 400 and (kind := search_kind(route)):
                self._searches[kind] += 1

    def families(self) -> Iterator[str]:
        """Requests and searches since the process began."""
        with self._lock:
            requests, searches = dict(self._requests), dict(self._searches)
            buckets = {route: list(counts) for route, counts in self._buckets.items()}
            seconds = dict(self._seconds)
        yield from family(
            "nextvec_http_requests_total",
            "counter",
            "Answers by method, template of the route and status.",
            (
                ("", {"method": method, "route": route, "status": str(status)}, count)
                for (method, route, status), count in sorted(requests.items())
            ),
        )
        yield from family(
            "nextvec_http_request_duration_seconds",
            "histogram",
            "Time from a request to the last byte of its answer.",
            (sample for route in sorted(buckets) for sample in _histogram(route, buckets[route], seconds[route])),
        )
        yield from family(
            "nextvec_searches_total",
            "counter",
            "Searches answered, by where they were asked.",
            (("", {"interface": kind}, searches.get(kind, 0)) for kind in ("page", "feed", "api")),
        )
        yield from family(
            "process_start_time_seconds", "gauge", "When the process began (Unix time).", [("", {}, self._began)]
        )


def search_kind(route: str) -> str | None:
    """Which kind of search a route is: page, feed or api; None for none."""
    return "feed" if route.startswith("/search.") else _SEARCHES.get(route)


def page(metrics: Metrics, site: Site) -> str:
    """All of it. What the database does not give (older, damaged, on a lost disk) is left out, and ``nextvec_up`` 0."""
    lines = list(metrics.families())
    lines += _process()
    told: list[str] = []
    up = 1
    try:
        told = list(_stored(site))
    except NextvecError:
        up = 0
    lines += family("nextvec_up", "gauge", "Whether the database can be read.", [("", {}, up)])
    return "\n".join([*lines, *told]) + "\n"


def family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of one family of figures."""
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for ending, labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{ending}{{{inside}}} {_number(value)}" if inside else f"{name}{ending} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _histogram(route: str, counts: list[int], seconds: float) -> Iterator[Sample]:
    total = 0
    for bound, count in zip((*BUCKETS, math.inf), counts, strict=True):
        total += count
        yield "_bucket", {"route": route, "le": _number(bound)}, total
    yield "_sum", {"route": route}, seconds
    yield "_count", {"route": route}, total


def _process() -> Iterator[str]:
    yield from family(
        "process_cpu_seconds_total", "counter", "Time of a core that was used.", [("", {}, time.process_time())]
    )
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        held = pages * os.sysconf("SC_PAGE_SIZE")
        yield from family("process_resident_memory_bytes", "gauge", "Memory in use.", [("", {}, held)])
    except (OSError, ValueError, IndexError):  # no Linux
        pass
    labels = {"version": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    yield from family("nextvec_build_info", "gauge", "What is running.", [("", labels, 1)])


def _stored(site: Site) -> Iterator[str]:
    """What the database counts; a part whose tables an older one lacks (on a read-only disk) is left out."""
    with site.db.read() as connection:
        tables = set(sa.inspect(connection).get_table_names())

        def counted(table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
            query = sa.select(sa.func.count()).select_from(table).where(*where)
            return int(connection.execute(query).scalar_one())

        def grouped(column: sa.Column[str]) -> dict[str, int]:
            rows = connection.execute(sa.select(column, sa.func.count()).group_by(column)).all()
            return {name: int(count) for name, count in rows}

        yield from family("nextvec_papers", "gauge", "Papers.", [("", {}, counted(PAPERS))])
        changed = connection.execute(sa.select(FACTS.c.value).where(FACTS.c.name == "changed")).scalar()
        if changed:
            yield from family(
                "nextvec_papers_changed_timestamp_seconds",
                "gauge",
                "When a paper last came, changed or went (Unix time).",
                [("", {}, _unix(datetime.fromisoformat(changed)))],
            )
        if READERS.name in tables:
            yield from family("nextvec_readers", "gauge", "Accounts.", [("", {}, counted(READERS))])
        if mail.OUTBOX.name in tables:
            subscribed = counted(mail.SUBSCRIPTIONS, mail.SUBSCRIPTIONS.c.state == "active")
            yield from family(
                "nextvec_mail_subscriptions", "gauge", "Subscriptions that get mail.", [("", {}, subscribed)]
            )
            suspended = counted(mail.READERS, mail.READERS.c.suspended_at.is_not(None))
            yield from family(
                "nextvec_mail_suspended", "gauge", "Mailboxes that bounced and get nothing.", [("", {}, suspended)]
            )
            states = grouped(mail.OUTBOX.c.state)
            yield from family(
                "nextvec_mail_outbox",
                "gauge",
                "Mails by state; those that are done with are remembered for 90 days.",
                (("", {"state": state}, states.get(state, 0)) for state in _MAIL_STATES),
            )
        if HARVESTS.name in tables:
            ended = sa.select(HARVESTS.c.source, sa.func.max(HARVESTS.c.finished)).group_by(HARVESTS.c.source)
            rows = [(source, at) for source, at in connection.execute(ended) if at is not None]
            yield from family(
                "nextvec_harvest_finished_timestamp_seconds",
                "gauge",
                "When a source was last read to its end (Unix time).",
                (("", {"source": source}, _unix(at)) for source, at in sorted(rows)),
            )
            handed = grouped(SUBMISSIONS.c.state)
            yield from family(
                "nextvec_submissions",
                "gauge",
                "Papers that readers handed in, by state.",
                (("", {"state": state}, count) for state, count in sorted(handed.items())),
            )


def _unix(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()
