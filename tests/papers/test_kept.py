"""What is dear and kept: bounded, made once however many ask at the same time, and not made anew for nothing."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from people import papers

from nextvec.papers.accounts import votes
from nextvec.papers.accounts.readers import local_reader
from nextvec.papers.db import Filters, Order, Selection
from nextvec.papers.facets import facets
from nextvec.papers.ingest import ingest
from nextvec.papers.insight.topics import topics_path
from nextvec.papers.kept import Kept
from nextvec.papers.ranking import Request, rank
from nextvec.papers.site import Site
from nextvec.papers.suggest import suggester

ORDERS: tuple[Order, ...] = ("moment", "newest", "votes")


def test_readers_at_once_wait_for_one_who_makes() -> None:
    kept, begun, calls = Kept(), threading.Barrier(8), []

    def make() -> object:
        calls.append(1)
        time.sleep(0.1)  # the others arrive meanwhile
        return kept.made("a part", object)

    def ask(_: int) -> object:
        begun.wait()
        return kept.made("whole", make)

    with ThreadPoolExecutor(8) as pool:
        assert len({id(one) for one in pool.map(ask, range(8))}) == 1
    assert len(calls) == 1


def test_one_who_fails_lets_the_next_try() -> None:
    kept = Kept()

    def fail() -> None:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            kept.made("x", fail)
    assert kept.made("x", lambda: 3) == 3


def test_what_votes_do_not_touch_is_not_sorted_and_counted_anew(site: Site) -> None:
    dated, filters = Selection(dated=True), Filters(code=True)
    request = Request(filters=filters, sort="newest")
    orders = [site.ordered(dated, order) for order in ORDERS]
    counted = facets(site, request, rank(site, request))
    last = orders[2][-1]
    votes.give(site.db, local_reader(site.db).id, last)
    assert [site.ordered(dated, order) is kept for order, kept in zip(ORDERS, orders, strict=True)] == [
        True,
        True,
        False,
    ]
    assert facets(site, request, rank(site, request)) is counted
    assert last not in site.ordered(Selection(votes=10**6), "moment"), "and a filter of votes is asked again"
    ingest(site, [replace(papers()[0], id="p99", github_repo="https://github.com/a/b")])
    assert "p99" in site.ordered(dated, "moment") and facets(site, request, rank(site, request)) is not counted


def test_a_vote_makes_no_suggestions_anew_but_topics_do(site: Site) -> None:
    before, state = suggester(site), site.state
    votes.give(site.db, local_reader(site.db).id, "p1")
    assert site.state != state and suggester(site) is before
    topics_path(site).parent.mkdir(exist_ok=True)
    topics_path(site).write_bytes(b"")
    assert suggester(site) is not before
