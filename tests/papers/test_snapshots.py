"""What makes questions to the database fewer changes no answer: filters in memory, and one snapshot for a page."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from people import join, papers

from nextvec.papers import api
from nextvec.papers.accounts import votes
from nextvec.papers.columns import Columns
from nextvec.papers.db import Filters
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation
from nextvec.papers.web import create_app
from nextvec.types import NextvecError

NARROWED = [
    Filters(code=True), Filters(year=2026), Filters(year=1990), Filters(votes=3), Filters(votes=10**6),
    Filters(start=date(2025, 3, 1)), Filters(end=date(2026, 1, 31)),
    Filters(start=date(2025, 1, 1), end=date(2026, 5, 1)),
    Filters(source="hf_daily"), Filters(source="nowhere"),
    Filters(organization="NVIDIA"), Filters(organization="Nobody"),
    Filters(author="YANN lecun"), Filters(author="Nobody Atall"),
    Filters(category="CS.cl,EMNLP"), Filters(category="x"),
    Filters(votes=2, code=True, year=2025, end=date(2026, 1, 1)),
]  # fmt: skip


def narrowed(few: list[Paper]) -> list[Filters]:
    """``NARROWED``, and filters by what is there."""
    there = few[:: len(few) // 12]
    found = [Filters(author=one.authors[-1].upper()) for one in there if one.authors]
    found += [Filters(organization=one.organization, votes=1) for one in there if one.organization]
    return NARROWED + found + [Filters(category=one.categories[0]) for one in few if one.categories][:3]


def test_filters_in_memory_take_what_the_database_takes(small: Site, few: list[Paper]) -> None:
    columns, sizes = Columns.read(small.db), set()
    for filters in narrowed(few):
        found = columns.satisfying(filters)
        assert found == small.db.ids(filters), filters
        sizes.add(len(found))
    assert len(sizes) > 8, "the filters are not all alike"


@pytest.mark.parametrize("seed", range(2))
def test_filters_in_memory_follow_papers_and_votes(site: Site, seed: int) -> None:
    choice = random.Random(seed)
    site.load_columns()
    for number in range(12):
        name = choice.choice([f"n{number}", "n1", "p1", "p2"])
        new = replace(
            papers()[0], id=name, upvotes=number, authors=tuple(choice.sample(["Ada Bo", "Zoe Zed", "Élodie"], 2)),
            categories=choice.choice([(), ("x.Y", "Z")]), github_repo=choice.choice([None, "https://github.com/a/b"]),
            daily_date=choice.choice([None, date(2026, 1, 1 + number)]), source=choice.choice([None, "a", "b"]),
        )  # fmt: skip
        site.db.upsert([new])
        if number == 6:
            moderation.hide(site.db, "p3", reason="twice", actor="me")
        site.load_columns()
        votes.give(site.db, join(site.db, f"r{number}@example.org").id, choice.choice(["p4", "p5", name]))
        assert site.columns() is not None
        for filters in (
            Filters(votes=1), Filters(votes=3), Filters(votes=3, code=True),
            Filters(author="ada bo"), Filters(category="z"),
            Filters(end=date(2026, 1, 5)), Filters(source="a"), Filters(votes=2, author="ELODIE", category="x.y,w"),
        ):  # fmt: skip
            assert site.allowed(filters) == site.db.ids(filters), filters


def test_a_topic_under_filters_is_the_topic_and_the_filters(site: Site) -> None:
    site.load_columns()
    topic, code = Filters(topic="latent"), Filters(code=True)
    assert site.allowed(replace(topic, code=True)) == site.allowed(topic) & site.allowed(code)
    assert site.allowed(topic) == set(site.words().holding("latent"))
    gone = next(iter(site.allowed(topic)))
    moderation.hide(site.db, gone, reason="twice", actor="me")
    assert gone in site.words().holding("latent") and gone not in site.allowed(topic), "the words are a moment behind"


# -- one snapshot for a page ---------------------------------------------------------------------------------------
def test_what_is_read_while_a_snapshot_is_held_is_of_its_beginning(site: Site) -> None:
    begun: list[object] = []
    sa.event.listen(site.db._engine, "begin", begun.append)
    with site.db.snapshot_held():
        before = site.db.get("p1")
        with site.db.snapshot_held(), site.db.read() as one, site.db.read() as other:
            assert one is other
        changing = threading.Thread(target=site.db.upsert, args=([replace(papers()[0], id="p1", title="Changed")],))
        changing.start()
        changing.join()
        assert site.db.get("p1") == before and site.db.count() and len(begun) == 2, "ours, and the one that writes"
    after = site.db.get("p1")
    assert after is not None and after.paper.title == "Changed"


@pytest.mark.parametrize("path", ["/api/papers/search", "/api/papers/search/facets"])
def test_an_answer_of_the_interface_is_of_one_moment(site: Site, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """A paper that changes after the tag was made is in neither the tag nor the answer."""
    client = TestClient(create_app(site), headers={"accept-encoding": "identity"})
    before = client.get(path, params={"author": "Ada Bo"})
    state = api._state

    def changing(*given: Any) -> str:
        found = state(*given)
        new = replace(papers()[0], id="n2", authors=("Ada Bo",))
        writer = threading.Thread(target=site.db.upsert, args=([new],))
        writer.start()
        writer.join()
        return found

    monkeypatch.setattr(api, "_state", changing)
    during = client.get(path, params={"author": "Ada Bo"})
    monkeypatch.setattr(api, "_state", state)
    after = client.get(path, params={"author": "Ada Bo"})
    assert (during.json(), during.headers["etag"]) == (before.json(), before.headers["etag"])
    assert after.json() != before.json() and after.headers["etag"] != before.headers["etag"]


def test_what_a_holder_writes_it_reads(site: Site) -> None:
    with site.db.snapshot_held():
        assert site.db.get("n1") is None
        site.db.upsert([replace(papers()[0], id="n1")])
        assert site.db.get("n1") is not None


def test_a_held_transaction_that_had_an_error_is_asked_nothing_more(site: Site) -> None:
    with site.db.snapshot_held():
        with pytest.raises(NextvecError), site.db.read() as connection:
            connection.execute(sa.text("SELECT nothing FROM nowhere"))
        assert site.db.get("p1") is not None


def test_more_holders_than_connections_wait_for_nobody(site: Site) -> None:
    """They all wait for one who works something out, which takes a connection more."""
    count = 40
    together, made = threading.Barrier(count), []

    def ask() -> None:
        with site.db.snapshot_held():
            together.wait(timeout=30)
            made.append(site.kept.made("slowly", site.db.count))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert made == [site.db.count()] * count
