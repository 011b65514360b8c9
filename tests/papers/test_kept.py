"""What is dear and kept: bounded, made once however many ask at the same time, and not made anew for nothing."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nextvec.papers.accounts import votes
from nextvec.papers.accounts.readers import local_reader
from nextvec.papers.insight.topics import topics_path
from nextvec.papers.kept import Kept
from nextvec.papers.site import Site
from nextvec.papers.suggest import suggester


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


def test_a_vote_makes_no_suggestions_anew_but_topics_do(site: Site) -> None:
    before, state = suggester(site), site.state
    votes.give(site.db, local_reader(site.db).id, "p1")
    assert site.state != state and suggester(site) is before
    topics_path(site).parent.mkdir(exist_ok=True)
    topics_path(site).write_bytes(b"")
    assert suggester(site) is not before
