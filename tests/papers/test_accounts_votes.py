"""Votes: once for each reader and paper, kept by an ingest, seen by every ranking, safe from a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import open_database
from fakes import HashEncoder
from people import DAY, join, of, papers

from nextvec.papers import ranking, trending, views
from nextvec.papers.accounts import comments, votes
from nextvec.papers.accounts.tables import VOTES
from nextvec.papers.db import Filters
from nextvec.papers.ingest import ingest, is_ready
from nextvec.papers.search import search
from nextvec.papers.site import Site
from nextvec.types import NotFoundError

pytestmark = pytest.mark.both


# -- votes ---------------------------------------------------------------------------------------------------------
def test_a_vote_counts_once_and_can_be_taken_back(site: Site) -> None:
    ada, bob = join(site.db, "ada@example.org").id, join(site.db, "bob@example.org").id
    assert votes.give(site.db, ada, "p1") and not votes.give(site.db, ada, "p1")
    assert of(site.db, "p1").upvotes == 2 and votes.voted(site.db, ada, ["p0", "p1"]) == {"p1"}
    assert votes.give(site.db, bob, "p1") and of(site.db, "p1").upvotes == 3
    assert votes.take_back(site.db, ada, "p1") and not votes.take_back(site.db, ada, "p1")
    assert of(site.db, "p1").upvotes == 2
    with pytest.raises(NotFoundError, match="no paper 'zzz'"):
        votes.give(site.db, ada, "zzz")
    with pytest.raises(NotFoundError, match="account was deleted"):
        votes.give(site.db, "nobody", "p1")
    with site.db.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(VOTES)).scalar_one() == 1


def test_many_votes_at_the_same_time_are_as_many(site: Site) -> None:
    everybody = [join(site.db, f"r{i}@example.org").id for i in range(6)]
    failed: list[BaseException] = []

    def vote(reader: str) -> None:
        try:
            for _ in range(4):
                votes.give(site.db, reader, "p0")
                votes.take_back(site.db, reader, "p2")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=vote, args=(reader,)) for reader in everybody for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and of(site.db, "p0").upvotes == 6 and of(site.db, "p2").upvotes == 2


def test_an_ingest_keeps_the_votes_of_the_site(site: Site) -> None:
    ada = join(site.db, "ada@example.org").id
    votes.give(site.db, ada, "p1")
    comments.write(site.db, ada, "p1", "Well.")
    assert is_ready(site) and site.db.pending_count() == 0, "a vote is no reason to index anew"
    assert ingest(site, papers()).changed == 0
    assert (of(site.db, "p1").upvotes, of(site.db, "p1").num_comments) == (2, 2)
    changed = [replace(paper, upvotes=paper.upvotes + 10) for paper in papers()]
    assert ingest(site, changed).changed == 8 and is_ready(site)
    assert (of(site.db, "p1").upvotes, of(site.db, "p1").num_comments) == (12, 2)
    row = site.collection.get(["p1"])[0]
    assert row is not None and row["upvotes"] == 11, "the index holds what came with the paper"
    votes.take_back(site.db, ada, "p1")
    assert of(site.db, "p1").upvotes == 11


def test_rankings_filters_and_trending_follow_the_votes(site: Site) -> None:
    everybody = [join(site.db, f"r{i}@example.org").id for i in range(9)]
    view = views.daily(views.Narrowing())
    at = datetime(2025, 3, 2)
    trend = views.read_view("trending", "", {"half": "365"}, site)[0]
    assert [one.paper.id for one in site.db.select(Filters(), limit=1)] == ["p7"]
    before = views.members(site, view, at)
    for reader in everybody:
        votes.give(site.db, reader, "p0")
    assert views.members(site, view, at) != before, "orders kept in memory notice a vote"
    assert [one.paper.id for one in site.db.select(Filters(), limit=1)] == ["p0"]
    assert views.listing(site, trend, at, limit=1).papers[0].paper.id == "p0"
    assert trending.rank(site.db.votes_since(DAY - timedelta(days=9)), at=at, half_life=365)[0].votes == 9
    assert site.db.summary(Filters())["votes"] == sum(range(8)) + 9


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_a_search_under_votes_counts_the_sites_own(site: Site, mode: str) -> None:
    everybody = [join(site.db, f"r{i}@example.org").id for i in range(7)]
    for reader in everybody:
        for paper in ("p0", "p3"):
            votes.give(site.db, reader, paper)
    found = search(site, "latent plans", Filters(votes=7), mode=mode)  # type: ignore[arg-type]
    assert {match.stored.paper.id for match in found.matches} == {"p0", "p3", "p7"} and found.candidates == 3
    under = search(site, "latent plans", Filters(votes=7, organization="Other Works"), mode=mode)  # type: ignore[arg-type]
    assert {match.stored.paper.id for match in under.matches} == {"p3", "p7"}
    narrow = search(site, "latent plans", Filters(votes=7), mode=mode, where="year < 2000")  # type: ignore[arg-type]
    assert narrow.matches == []
    scores = [match.meaning_score for match in found.matches if match.meaning_score is not None]
    ranks = [match.meaning_rank for match in found.matches if match.meaning_rank is not None]
    assert [score for _, score in sorted(zip(ranks, scores, strict=True))] == sorted(scores, reverse=True)


@pytest.mark.parametrize("few", [1_000, 2])
def test_more_lifted_papers_than_one_filter_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(ranking, "_FEW", few)
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, [replace(paper, upvotes=0) for paper in papers()])
    ada = join(site.db, "ada@example.org").id
    for i in range(7):
        votes.give(site.db, ada, f"p{i}")
    lifted = search(site, "latent plans of topic1", Filters(votes=1), mode="semantic")
    everything = search(site, "latent plans of topic1", mode="semantic")
    assert [match.stored.paper.id for match in lifted.matches] == [
        match.stored.paper.id for match in everything.matches if match.stored.paper.id != "p7"
    ]


SERVER = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from fakes import HashEncoder
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
import uvicorn, socket

app = create_app(Site(Path(sys.argv[1]), encoder=HashEncoder()), local_reader=True)

@app.middleware("http")
async def die(request, call_next):
    answer = await call_next(request)
    if request.url.path == "/vote" and "die" in request.headers:
        os.kill(os.getpid(), signal.SIGKILL)  # the vote is written, the answer is not sent
    return answer

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none")).run(sockets=[listener])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs kill -9")
def test_killed_between_vote_and_answer(site: Site) -> None:
    site.close()
    home = str(site.home)

    def start() -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", SERVER, home, str(Path(__file__).parent)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, f"http://127.0.0.1:{process.stdout.readline().strip()}"

    def ask(address: str, fields: dict[str, str] | None = None, **headers: str) -> str:
        body = urllib.parse.urlencode(fields).encode() if fields else None
        request = urllib.request.Request(address, body, headers)
        for _ in range(200):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return str(answer.read().decode())
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError) or fields:
                    raise
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    process, address = start()
    token = ask(f"{address}/papers/p1").partition('name="token" value="')[2].partition('"')[0]
    vote = {"paper": "p1", "up": "1", "token": token}
    with pytest.raises((ConnectionError, urllib.error.URLError, OSError)):
        ask(f"{address}/vote", vote, die="1")
    assert process.wait(timeout=30) == -signal.SIGKILL
    with open_database(site.home) as db:
        assert of(db, "p1").upvotes == 2, "what was written before the kill is there"
    process, address = start()
    try:
        page = ask(f"{address}/papers/p1")
        token = page.partition('name="token" value="')[2].partition('"')[0]
        assert '<b>2</b><span class="hidden">: take back your vote' in page
        assert '<b>2</b><span class="hidden">: take back your vote' in ask(
            f"{address}/vote", vote | {"token": token}
        ), "sent again: once"
    finally:
        process.kill()
        process.wait()
    with open_database(site.home) as db, db.read() as connection:
        assert of(db, "p1").upvotes == 2
        assert connection.execute(sa.select(sa.func.count()).select_from(VOTES)).scalar_one() == 1
