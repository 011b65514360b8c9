"""What a served site makes before it is asked for it: at its start, and when an ingest has left behind what was made.

In a collection of 120,000 papers the lists behind pages, facets and suggestions take ten seconds to make. A site that
has just begun says that it is not ready until they are there; after an ingest, the older ones are shown on until the
new ones have been made beside the answers (``Site.steady``).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable
from queue import Empty, SimpleQueue
from typing import Any

from fastapi import FastAPI

from nextvec.papers import spelling, suggest
from nextvec.papers.insight.people import load_people
from nextvec.papers.insight.topics import topics_path
from nextvec.papers.offered import offered
from nextvec.papers.operations.watch import INSIDE
from nextvec.papers.ranking import papers_in
from nextvec.papers.site import Site
from nextvec.types import NextvecError

__all__ = ["PAGES", "Warmth"]

_log = logging.getLogger("nextvec.papers")
_LOOK = 2.0
"""Seconds between two looks whether papers have changed."""
_REST = 3.0
"""After work: rest so many times as long as it took, so that an ingest that goes on for an hour leaves the processor to
those who read."""
_SWITCH = 0.0005
"""Seconds after which this thread lets others run, while it works; 5 ms otherwise."""
PAGES = (
    "/", "/papers/trending", "/papers/rising", "/papers/discussed", "/papers/new", "/search",
    "/search?q=language+models", "/search?q=language+models&sort=newest", "/search/suggest?q=le", "/map", "/topics",
)  # fmt: skip
"""What readers ask for first."""
_WHERE = ("upvotes >= 1", "year = 2000", "organization = ''", "has_code = true", "daily_date >= date '2000-01-01'")


class Warmth:
    """Makes ready, in a thread of its own, what the pages of a site need. ``close`` ends it."""

    def __init__(self, site: Site, app: FastAPI, *, look: float = _LOOK, rest: float = _REST) -> None:
        self.site = site
        self._app = app
        self._look, self._rest = look, rest
        self._ready = threading.Event()
        self._closing = False
        self._waiting: set[Hashable] = set()
        self._jobs: SimpleQueue[tuple[Hashable, Callable[[], object]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="warmth", daemon=True)

    def start(self) -> None:
        """Begin. From now on ``Site.steady`` leaves it to this thread to make anew what it has."""
        self.site.refresher = self.soon
        self._thread.start()

    def close(self) -> None:
        """End after the job in hand."""
        self.site.refresher = None
        self._closing = True
        self._jobs.put(None)
        self._thread.join(timeout=30)

    @property
    def ready(self) -> bool:
        """Whether all that was to be made at the start is there."""
        return self._ready.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for that at most so long; ``ready`` then."""
        return self._ready.wait(seconds)

    def soon(self, name: Hashable, make: Callable[[], object]) -> None:
        """Call ``make`` in the thread, once for all who ask for ``name`` meanwhile."""
        if name not in self._waiting:
            self._waiting.add(name)
            self._jobs.put((name, make))

    # -- in the thread ---------------------------------------------------------------------------------------------
    def _run(self) -> None:
        made = self._state()
        self._make_all()
        gc.collect()
        gc.freeze()  # what is there now stays: no later collection of garbage has to walk through it
        self._ready.set()
        rested = time.monotonic()
        while not self._closing:
            try:
                job = self._jobs.get(timeout=self._look)
            except Empty:
                job = None
            began = time.monotonic()
            if job is not None:
                name, make = job
                self._waiting.discard(name)
                self._do(make)
            elif not self._closing and began >= rested and (now := self._state()) != made:
                made = now
                self._make_all()
                rested = time.monotonic() + self._rest * (time.monotonic() - began)

    def _state(self) -> tuple[Any, ...]:
        """Changes when there is something to make anew."""
        found: tuple[Any, ...] = ()
        with contextlib.suppress(NextvecError, OSError):
            facts = self.site.db.facts("generation", "moderated")
            path = topics_path(self.site)
            found = (facts, path.stat().st_mtime_ns if path.exists() else 0, self.site.words().stamp)
        return found

    def _make_all(self) -> None:
        """What is dear first; then the first pages, which make the rest."""
        site = self.site
        jobs: tuple[Callable[[], object], ...] = (
            lambda: site.words(fresh=True),
            self._search,
            site.load_columns,
            lambda: papers_in(site),
            lambda: offered(site, fresh=True),
            lambda: spelling.title_words(site, fresh=True),
            lambda: suggest.suggester(site, fresh=True),
            lambda: load_people(site),
            *(lambda address=address: self._ask(address) for address in PAGES),
        )
        for job in jobs:
            if self._closing:
                return
            self._do(job)

    def _do(self, job: Callable[[], object]) -> None:
        before = sys.getswitchinterval()
        # An answer gives the interpreter away at each look into the database, and has to wait so long to get it back.
        sys.setswitchinterval(_SWITCH)
        try:
            job()
        except NextvecError as error:  # the page itself tells its reader, /readyz whoever runs the site
            _log.warning("could not make ready what pages need: %s", error)
        except Exception:
            _log.exception("could not make ready what pages need")
        finally:
            sys.setswitchinterval(before)

    def _search(self) -> None:
        vector = self.site.query_vector("language models")
        if vector is not None:
            self.site.collection.search(vector, 1)
            for where in _WHERE:  # reads the columns that filters look at
                self.site.collection.search(vector, 1, where=where)

    def _ask(self, address: str) -> None:
        """Have a page made, inside: neither counted nor logged."""
        path, _, query = address.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "state": {},
            "headers": [(b"host", b"warmth.invalid")], "client": None, "server": ("warmth.invalid", 80),
            INSIDE: True,
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            pass

        asyncio.run(self._app(scope, receive, send))
