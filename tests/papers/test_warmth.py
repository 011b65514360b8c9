"""A served site makes its lists before it is ready and, after an ingest, beside the answers; what readers see then."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from fastapi.testclient import TestClient
from people import make_app, papers

from nextvec.papers.accounts import comments, votes
from nextvec.papers.accounts.readers import local_reader
from nextvec.papers.db import Filters, Selection
from nextvec.papers.facets import facets
from nextvec.papers.ingest import ingest
from nextvec.papers.ranking import Request, rank
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation
from nextvec.papers.suggest import suggester, suggestions
from nextvec.papers.warmth import PAGES, Warmth
from nextvec.papers.web import create_app
from nextvec.types import StorageError

NEW = replace(papers()[0], id="p99", title="Zebras all over", authors=("Zoe Zed",), upvotes=0)


class Later:
    """Notes what is to be made, and makes it when it is told to."""

    def __init__(self, site: Site) -> None:
        self.jobs: dict[Hashable, Callable[[], object]] = {}
        site.refresher = self.jobs.__setitem__

    def do(self) -> None:
        for name in list(self.jobs):
            self.jobs.pop(name)()


@pytest.fixture
def later(site: Site) -> Later:
    return Later(site)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds; a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


# -- what an ingest leaves behind ------------------------------------------------------------------------------------
def test_an_ingest_leaves_the_older_list_until_the_new_one_is_made(site: Site, later: Later) -> None:
    every = Selection(dated=True)
    before, names = site.ordered(every, "moment"), suggester(site)
    listed = rank(site, Request(filters=Filters(votes=0), sort="newest"))
    assert not later.jobs, "the first one is waited for"
    ingest(site, [NEW])
    for _ in range(3):
        assert site.ordered(every, "moment") is before and suggester(site) is names
        assert rank(site, Request(filters=Filters(votes=0), sort="newest")) is listed
    assert len(later.jobs) == 3, "each once"
    later.do()
    assert (
        "p99" in site.ordered(every, "moment")
        and "p99" in rank(site, Request(filters=Filters(votes=0), sort="newest")).ids
    )
    assert "Zoe Zed" in [one.text for one in suggestions(site, "zoe")]
    assert not later.jobs


@pytest.mark.parametrize(
    "path", ["/api/papers/search?sort=newest&votes=0", "/api/views/new", "/api/views/new?topic=zebras"]
)
def test_a_program_that_asks_again_is_not_left_with_the_older_list(site: Site, later: Later, path: str) -> None:
    """An entity tag that said "as it is now" of a list of before would be answered with 304 from then on."""
    client = TestClient(create_app(site))

    def ids(response: httpx.Response) -> set[str]:
        return {item["paper"]["id"] for item in response.json()}

    before = client.get(path)
    ingest(site, [NEW])
    meanwhile = client.get(path, headers={"if-none-match": before.headers["etag"]})
    assert meanwhile.status_code == 200 and ids(meanwhile) == ids(before)
    assert "etag" not in meanwhile.headers and meanwhile.headers["cache-control"] == "no-store"
    after = meanwhile
    while later.jobs:  # the words first, then what they are looked up for
        later.do()
        after = client.get(path, headers={"if-none-match": before.headers["etag"]})
    assert after.status_code == 200 and "p99" in ids(after)
    assert client.get(path, headers={"if-none-match": after.headers["etag"]}).status_code == 304


def test_a_search_by_words_and_meaning_never_waits(site: Site, later: Later) -> None:
    request = Request(query="Zebras all over", mode="semantic")
    rank(site, request)
    ingest(site, [NEW])
    assert "p99" in rank(site, request).ids, "found by its meaning at once"
    found = facets(site, request, rank(site, request), most=1_000)
    assert "Zoe Zed" in [one.value for facet in found if facet.name == "author" for one in facet.counts]
    site.words()
    later.do()
    assert "p99" in rank(site, Request(query="zebras", mode="keyword")).ids, "by its words when they are read"


def test_a_list_of_another_filter_is_made_at_once(site: Site, later: Later) -> None:
    ingest(site, [NEW])
    assert "p99" in site.ordered(Selection(code=NEW.has_code), "moment") and not later.jobs


def test_votes_comments_and_moderators_wait_for_nobody(site: Site, later: Later) -> None:
    reader = local_reader(site.db).id
    every = Selection()
    site.ordered(every, "comments")
    last = site.ordered(every, "votes")[-1]
    votes.give(site.db, reader, last)
    raised = next(one for one in site.db.get_many(site.ordered(every, "votes")) if one.paper.id == last)
    order = site.ordered(every, "votes")
    assert all(one.paper.upvotes >= raised.paper.upvotes for one in site.db.get_many(order[: order.index(last)]))
    comments.write(site.db, reader, last, "A thought.")
    assert site.ordered(Selection(discussed=True), "comments") and not later.jobs
    moderation.hide(site.db, last, reason="twice", actor="me")
    assert last not in site.ordered(every, "votes") and last not in site.ordered(every, "comments")
    ingest(site, [NEW])
    other = next(name for name in site.ordered(every, "votes") if name != "p99")
    moderation.hide(site.db, other, reason="twice", actor="me")
    assert other not in site.ordered(every, "votes"), "also while an ingest is ahead of the lists"


def test_columns_of_before_serve_for_many_papers_only(site: Site, later: Later) -> None:
    site.load_columns()
    ingest(site, [NEW])
    assert site.columns(10) is None and site.columns(10**5) is not None
    moderation.hide(site.db, "p99", reason="twice", actor="me")
    assert site.columns(10**5) is None, "not after an act of a moderator"


# -- the thread ------------------------------------------------------------------------------------------------------
@pytest.fixture
def warm(site: Site) -> Iterator[tuple[TestClient, Warmth]]:
    app = create_app(site, metrics=True)
    app.state.warmth = warmth = Warmth(site, app, look=0.05, rest=0.0)
    yield TestClient(app), warmth
    warmth.close()
    assert site.refresher is None


def test_ready_when_the_first_lists_are_there(site: Site, warm: tuple[TestClient, Warmth]) -> None:
    browser, warmth = warm
    answer = browser.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
    assert answer.json()["checks"]["lists"] == "being made"
    assert browser.get("/search?q=one").status_code == 200, "it answers all the same"
    warmth.start()
    assert warmth.wait(60)
    answer = browser.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["lists"]) == (200, "ok")
    assert site.columns() is not None
    figures = browser.get("/metrics").text
    assert 'route="/search"' in figures and 'route="/papers/trending"' not in figures, "its own requests are nobody's"


def test_what_an_ingest_brings_appears_by_itself(site: Site, warm: tuple[TestClient, Warmth]) -> None:
    browser, warmth = warm
    warmth.start()
    assert warmth.wait(60)
    assert "Zebras" not in browser.get("/papers/new").text
    ingest(site, [NEW])
    until(lambda: "Zebras all over" in browser.get("/papers/new").text, "the new paper does not appear")
    until(lambda: "Zoe Zed" in browser.get("/search/suggest?q=zoe").text, "its author is not offered")
    until(lambda: site.columns() is not None, "the columns are not made anew")
    until(lambda: "Zebras all over" in browser.get("/search?q=zebras&mode=keyword").text, "its words are not read")
    moderation.hide(site.db, "p99", reason="twice", actor="me")
    for address in ("/papers/new", "/search?q=zebras", "/search?votes=0&sort=newest", "/"):
        assert "Zebras all over" not in browser.get(address).text, address


def test_a_failure_is_logged_and_the_rest_is_made(
    site: Site, warm: tuple[TestClient, Warmth], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(site, "load_columns", fail)
    browser, warmth = warm
    warmth.start()
    assert warmth.wait(60) and site.columns() is None
    assert "the disk is gone" in caplog.text
    assert browser.get("/search?q=one").status_code == 200
    assert browser.get("/readyz").status_code == 200, "without them pages are slower, and right"


def test_the_pages_that_are_made_ready_are_pages(site: Site) -> None:
    browser = TestClient(create_app(site))
    assert {address: browser.get(address).status_code for address in PAGES} == dict.fromkeys(PAGES, 200)


def test_closing_ends_the_thread(site: Site) -> None:
    app = make_app(site)
    warmth = Warmth(site, app)
    warmth.start()
    warmth.close()
    assert "warmth" not in [thread.name for thread in threading.enumerate()]
    assert re.search(r"<article", TestClient(app).get("/papers/new").text)


def test_what_was_asked_for_twice_is_made_once(site: Site) -> None:
    warmth = Warmth(site, create_app(site))
    made: list[int] = []
    for _ in range(5):
        warmth.soon("name", lambda: made.append(1))
    warmth.soon("other", lambda: made.append(2))
    warmth.start()
    until(lambda: 2 in made, "it is not made")
    warmth.close()
    assert made == [1, 2]


def test_readers_at_once_have_a_list_made_once_and_a_change_meanwhile_is_not_lost(site: Site) -> None:
    warmth = Warmth(site, create_app(site), look=600)
    warmth.start()
    until(lambda: warmth.ready, "the first lists")
    made: list[str] = []
    hold, held = threading.Event(), threading.Event()

    def make() -> str:
        made.append(site.stamp)
        if len(made) > 1:
            held.set()
            assert hold.wait(60)
        return f"of {made[-1]}"

    def ask(_: int = 0) -> str:
        return str(site.steady("a list", make))

    first = ask()
    ingest(site, [NEW])
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(40))) == {first}, "nobody waits for the new one"
        assert held.wait(60)
        second = site.stamp
        ingest(site, [replace(NEW, id="p98", title="More zebras")])
        assert set(pool.map(ask, range(40))) == {first}
    assert made == [first.removeprefix("of "), second] and warmth._jobs.qsize() == 1, "forty readers, one list"
    hold.set()
    until(lambda: ask() == f"of {site.stamp}", "the change that came meanwhile is lost")
    warmth.close()
    assert made[1:] in ([second, site.stamp], [second, second, site.stamp])
    assert [key for key in site.kept._values if key[0] == "a list"] == [("a list", site.kept.get(("last", "a list")))]
