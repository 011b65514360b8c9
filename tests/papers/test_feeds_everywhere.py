"""Whatever lists papers is a feed: every address of the site is looked at, not a list of those that came to mind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from html import unescape

import pytest
from fakes import HashEncoder
from fastapi.testclient import TestClient
from people import make_app, routes
from test_syndication import CHECKS
from test_topics import SUBJECTS, paper

from installed import need
from nextvec.papers import web_feeds
from nextvec.papers.accounts import lists
from nextvec.papers.accounts.readers import local_reader
from nextvec.papers.ingest import ingest
from nextvec.papers.insight.topics import build_topics, load_topics
from nextvec.papers.site import Site
from nextvec.papers.syndication import FORMATS
from nextvec.papers.web import create_app

need("sklearn")
KEYS = {"/papers/date/": "2025-01-01", "/papers/week/": "2025-W01", "/papers/month/": "2025-01"}
VIEWS = {
    "/", "/papers/date/2025-01-01", "/papers/week/2025-W01", "/papers/month/2025-01", "/papers/trending",
    "/papers/rising", "/papers/discussed", "/papers/new", "/search", "/topics/{slug}",
}  # fmt: skip
"""What lists papers for everybody. What is one reader's (own lists, following, for you) is no feed: a program that
fetches it is nobody the site knows."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("feeds"), encoder=HashEncoder())
    made = [paper(subject, i) for subject in SUBJECTS for i in range(1, 13)]
    ingest(site, [replace(one, num_comments=1, published_at=datetime(2025, 1, 1), authors=("A",)) for one in made])
    build_topics(site, count=4)
    yield site
    site.close()


def address(path: str, slug: str) -> str:
    for folder, key in KEYS.items():
        if path.startswith(folder):
            return path.replace("{key}", key)
    return {"/search": "/search?q=robots"}.get(path, path.replace("{slug}", slug))


def test_every_view_has_its_feeds(shelf: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # In the second in which the papers came, a date cannot tell whether there were more.
    monkeypatch.setattr(web_feeds, "_now", lambda: datetime.now(UTC) + timedelta(seconds=10))
    topics = load_topics(shelf)
    assert topics is not None
    slug = topics.topics[0].slug
    app = create_app(shelf)
    client = TestClient(app, follow_redirects=False)
    seen = set()
    for method, path in routes(app):
        if method != "GET" or path.startswith("/api/") or re.search(r"\.\w+$|\{(?!key|slug)", path):
            continue
        response = client.get(address(path, slug))
        if response.status_code != 200 or not re.search(r'<(?:div|ol) class="list', response.text):
            continue
        head = response.text.partition("</head>")[0]
        found = dict(re.findall(r'<link rel="alternate" type="([^"]+)" title="[^"]+" href="([^"]+)"', head))
        assert set(found) == {form.media_type for form in FORMATS.values()}, path
        listed = set(re.findall(r'class="paper-title"><a href="/papers/([^"]+)"', response.text))
        for ending, form in FORMATS.items():
            feed = client.get(unescape(found[form.media_type]))
            assert feed.status_code == 200, (path, ending)
            assert feed.headers["content-type"].startswith(form.media_type)
            ids = CHECKS[ending](feed.content)
            assert len(ids) >= len(listed) > 0, path
            tag, changed = feed.headers["etag"], feed.headers["last-modified"]
            same = client.get(unescape(found[form.media_type]), headers={"if-none-match": tag})
            assert same.status_code == 304 and not same.content
            since = client.get(unescape(found[form.media_type]), headers={"if-modified-since": changed})
            assert since.status_code == 304
        seen.add(path.replace("{key}", KEYS.get(path.partition("{")[0], "")))
    assert seen == VIEWS


@pytest.mark.parametrize("sort", ["votes", "newest"])
def test_a_topic_is_a_feed_in_the_order_of_its_page(shelf: Site, sort: str) -> None:
    topics = load_topics(shelf)
    assert topics is not None
    client = TestClient(create_app(shelf), follow_redirects=False)
    for topic in topics.topics:
        asked = "" if sort == "votes" else "?sort=newest"
        page = client.get(f"/topics/{topic.slug}{asked}").text
        items = client.get(f"/topics/{topic.slug}.json{asked}").json()["items"]
        listed = re.findall(r'class="paper-title"><a href="/papers/([^"]+)"', page)
        assert [item["url"].rpartition("/")[2] for item in items] == listed
        assert page.count(f'href="/topics/{topic.slug}.rss{asked}"') == 2, "in the head and in the menu"
    assert client.get("/topics/no-such-topic.atom").status_code == 404
    assert client.get(f"/topics/{topics.topics[0].slug}.atom?sort=odd").status_code == 400


def test_a_shared_list_is_a_feed_as_long_as_it_is_shared(site: Site) -> None:
    client = TestClient(make_app(site), follow_redirects=False)
    reader = local_reader(site.db)
    made = lists.create(site.db, reader.id, "To <read> & think")
    for paper_id in ("p1", "p2"):
        lists.add(site.db, reader.id, made, paper_id, name="", note="a note")
    lists.share(site.db, reader.id, made, on=True)
    address = f"/shared/{lists.own(site.db, reader.id, made).address}"
    page = client.get(address).text
    found = dict(re.findall(r'<link rel="alternate" type="([^"]+)" title="[^"]+" href="([^"]+)"', page))
    assert set(found) == {form.media_type for form in FORMATS.values()}
    for ending, form in FORMATS.items():
        assert page.count(f'href="{found[form.media_type]}"') == 2, "in the head and in the menu"
        feed = client.get(found[form.media_type])
        assert feed.headers["content-type"].startswith(form.media_type) and len(CHECKS[ending](feed.content)) == 2
        assert "noindex" in feed.headers["x-robots-tag"]
        assert feed.headers["cache-control"] == "private, no-cache"
        same = {"if-none-match": feed.headers["etag"]}
        assert client.get(found[form.media_type], headers=same).status_code == 304
        lists.remove(site.db, reader.id, made, "p2")
        assert len(CHECKS[ending](client.get(found[form.media_type], headers=same).content)) == 1
        lists.add(site.db, reader.id, made, "p2", name="", note="")
    assert client.get(f"{address}.json").json()["papers"], "the list itself, as before"
    lists.share(site.db, reader.id, made, on=False)
    assert [client.get(one).status_code for one in found.values()] == [404] * 3


def test_who_asks_by_the_date_alone_gets_what_changed_and_no_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that sends If-Modified-Since and no tag. Nobody notes when a paper was taken out of a list."""
    clock = [datetime(2030, 1, 1, 12, tzinfo=UTC)]
    monkeypatch.setattr(web_feeds, "_now", lambda: clock[0])
    client = TestClient(make_app(site), follow_redirects=False)
    reader = local_reader(site.db)
    made = lists.create(site.db, reader.id, "To read")
    lists.share(site.db, reader.id, made, on=True)
    address = f"/shared/{lists.own(site.db, reader.id, made).address}.atom"

    def changed() -> bool:
        """Whether the feed is sent to who has what was there at the last call, ten seconds ago."""
        nonlocal since
        answer = client.get(address, headers={"if-modified-since": since})
        since, clock[0] = answer.headers["last-modified"], clock[0] + timedelta(seconds=10)
        return answer.status_code == 200

    since = format_datetime(clock[0] - timedelta(days=1), usegmt=True)
    assert changed() and changed(), "the date of the first answer may still be that of another change"
    assert not changed() and not changed(), "a list without papers, too"
    for change in (
        lambda: lists.add(site.db, reader.id, made, "p1", name="", note=""),
        lambda: lists.rename(site.db, reader.id, made, "Read"),
        lambda: lists.remove(site.db, reader.id, made, "p1"),
    ):
        change()
        assert changed() and changed() and not changed()
    lists.add(site.db, reader.id, made, "p2", name="", note="")
    tag = {"if-none-match": '"another"', "if-modified-since": since}
    assert client.get(address, headers=tag).status_code == 200, "where both are there, the tag counts"


def test_two_changes_in_one_second_are_two(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A date has whole seconds: what is sent within that of a change must not pass for what comes later in it."""
    monkeypatch.setattr(web_feeds, "_now", lambda: moment + timedelta(milliseconds=300))
    client = TestClient(make_app(site))
    moment = web_feeds.changed_at(site)
    early = {"if-modified-since": client.get("/papers/new.rss").headers["last-modified"]}
    site.db.set_facts(changed=(moment + timedelta(milliseconds=600)).replace(tzinfo=None).isoformat())
    assert client.get("/papers/new.rss", headers=early).status_code == 200
    monkeypatch.setattr(web_feeds, "_now", lambda: moment + timedelta(seconds=2))
    late = {"if-modified-since": client.get("/papers/new.rss").headers["last-modified"]}
    assert client.get("/papers/new.rss", headers=late).status_code == 304
