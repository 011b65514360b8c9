from __future__ import annotations

import gzip
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
from fakes import HashEncoder
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from nextvec.papers.db import Stored
from nextvec.papers.ingest import ingest
from nextvec.papers.pages import links
from nextvec.papers.records import Paper
from nextvec.papers.responses import check_base
from nextvec.papers.site import Site
from nextvec.papers.syndication import FORMATS, MOST, Feed, entries, stable_id
from nextvec.papers.web import create_app
from nextvec.types import InputError

ATOM = "{http://www.w3.org/2005/Atom}"
DUBLIN = "{http://purl.org/dc/elements/1.1/}"
SITE = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
PATHS = [
    "/papers/daily", "/papers/date/2026-08-21", "/papers/week/2026-W34", "/papers/month/2026-08", "/papers/trending",
    "/papers/discussed", "/papers/new",
]  # fmt: skip
FILTERS = ["", "?votes=2&code=1", "?topic=model&to=2026-08-21", "?org=O%27Brien+%26+%3CSons%3E"]
HOSTILE = Paper(
    id="2501.00001",
    title="]]> & <b>\x0b\ud800 \ufffe $\\alpha^2$ \U0001f600",
    summary="<script>alert(1)</script> ]]>]]&gt; \x00\x1b[31m \udfff $O(n^{2})$ \\emph{x} https://a.example/?a=1&b=2",
    authors=("<i>Mallory</i> & Sons\x01", 'O\'Brien "Q"', "\ud800"),
    organization="A & <B>\x02",
    published_at=datetime(2025, 1, 2, 3, 4, 5, 678),
    listed_at=datetime(2025, 1, 3, 3, 4, 5),
    daily_date=date(2025, 1, 3),
    github_repo="https://github.com/a/b?x=1&y=<2>".replace("<2>", "2"),
)
# What a database can hold of it.
STORED = replace(HOSTILE, title="]]> & <b>", summary="Text", authors=HOSTILE.authors[:2])


def one_feed(*papers: Paper, revised: dict[str, datetime] | None = None) -> Feed:
    """A feed of these papers."""
    made = entries([Stored(paper, None) for paper in papers], revised or {}, site=SITE, base="https://x.example")
    updated = max((entry.updated for entry in made), default=datetime(2025, 1, 1, tzinfo=UTC))
    return Feed(
        id=stable_id(SITE, "/papers/new"), title="T", subtitle="S", link="https://x.example/papers/new",
        address="https://x.example/papers/new.atom", icon="https://x.example/i.svg", updated=updated, entries=made,
    )  # fmt: skip


def instant(text: str | None) -> datetime:
    """An RFC 3339 instant, with its zone."""
    assert text and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text), text
    return datetime.fromisoformat(text)


def absolute(text: str | None) -> str:
    parts = urlsplit(text or "")
    assert parts.scheme in ("http", "https") and parts.netloc, text
    return text or ""


def check_atom(body: bytes) -> list[str]:
    """The rules of RFC 4287 for what we write; the ids of the entries."""
    root = ElementTree.fromstring(body)
    assert root.tag == f"{ATOM}feed"
    for name in ("id", "title", "updated"):
        assert len(root.findall(f"{ATOM}{name}")) == 1, "exactly one (4.1.1)"
    assert uuid.UUID((root.findtext(f"{ATOM}id") or "").removeprefix("urn:uuid:"))
    rels = {link.get("rel"): link.get("href") for link in root.findall(f"{ATOM}link")}
    assert set(rels) == {"self", "alternate"} and all(map(absolute, rels.values()))
    assert root.findtext(f"{ATOM}author/{ATOM}name"), "for entries without authors (4.1.1)"
    updated = instant(root.findtext(f"{ATOM}updated"))
    ids = []
    for entry in root.findall(f"{ATOM}entry"):
        for name in ("id", "title", "updated", "published", "content"):
            assert len(entry.findall(f"{ATOM}{name}")) == 1, "exactly one (4.1.2)"
        assert instant(entry.findtext(f"{ATOM}published")) <= instant(entry.findtext(f"{ATOM}updated")) <= updated
        ids.append(entry.findtext(f"{ATOM}id") or "")
        assert re.match(r"https://arxiv\.org/abs/|urn:uuid:", ids[-1]), "an absolute IRI (4.2.6)"
        assert len(entry.findall(f"{ATOM}link[@rel='alternate']")) == 1, "one of a type and language (4.1.2)"
        assert all(absolute(link.get("href")) for link in entry.findall(f"{ATOM}link"))
        assert all(author.findtext(f"{ATOM}name") for author in entry.findall(f"{ATOM}author"))
        assert all(category.get("term") for category in entry.findall(f"{ATOM}category"))
        content = entry.find(f"{ATOM}content")
        assert content is not None and content.get("type") == "html" and not len(content)
    assert len(ids) == len(set(ids)) <= MOST
    return ids


def check_rss(body: bytes) -> list[str]:
    """The rules of RSS 2.0 for what we write; the guids of the items."""
    root = ElementTree.fromstring(body)
    assert root.tag == "rss" and root.get("version") == "2.0" and [child.tag for child in root] == ["channel"]
    channel = root[0]
    for name in ("title", "link", "description"):
        assert len(channel.findall(name)) == 1 and channel.findtext(name), "required"
    absolute(channel.findtext("link"))
    built = parsedate_to_datetime(channel.findtext("lastBuildDate") or "")
    assert [link.get("rel") for link in channel.findall(f"{ATOM}link")] == ["self"]
    guids = []
    for item in channel.findall("item"):
        guid = item.find("guid")
        assert guid is not None and guid.text and guid.get("isPermaLink") == "false"
        guids.append(guid.text)
        assert item.findtext("title") and absolute(item.findtext("link"))
        published = item.findtext("pubDate") or ""
        assert published.endswith(" GMT") and parsedate_to_datetime(published) <= built
        assert len(item.findall("description")) == 1 and not len(item.findall("author")), "author is for e-mail"
    assert len(guids) == len(set(guids)) <= MOST
    return guids


def check_json(body: bytes) -> list[str]:
    """The rules of JSON Feed 1.1 for what we write; the ids of the items."""
    document: dict[str, Any] = json.loads(body)
    assert document["version"] == "https://jsonfeed.org/version/1.1" and document["title"]
    assert absolute(document["home_page_url"]) and absolute(document["feed_url"])
    ids = []
    for item in document["items"]:
        assert isinstance(item["id"], str) and item["id"] and ("content_html" in item or "content_text" in item)
        assert instant(item["date_published"]) <= instant(item["date_modified"])
        assert absolute(item["url"]) and absolute(item.get("external_url", "https://none.example"))
        assert all(set(author) == {"name"} and author["name"] for author in item.get("authors", []))
        assert all(isinstance(tag, str) and tag for tag in item.get("tags", []))
        ids.append(item["id"])
    assert len(ids) == len(set(ids)) <= MOST
    return ids


CHECKS = {"atom": check_atom, "rss": check_rss, "json": check_json}


# -- the documents -------------------------------------------------------------------------------------------------
def test_hostile_text_comes_out_as_the_text_it_is() -> None:
    feed = one_feed(HOSTILE)
    for ending, check in CHECKS.items():
        body = FORMATS[ending].write(feed)
        assert check(body) == ["https://arxiv.org/abs/2501.00001"]
        assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", body)
    root = ElementTree.fromstring(FORMATS["atom"].write(feed))
    entry = root.find(f"{ATOM}entry")
    assert entry is not None
    assert entry.findtext(f"{ATOM}title") == "]]> & <b> ?  α² \U0001f600"
    names = [author.findtext(f"{ATOM}name") for author in entry.findall(f"{ATOM}author")]
    assert names == ["<i>Mallory</i> & Sons", 'O\'Brien "Q"'], "a name of which nothing is left is left out"
    assert [category.get("term") for category in entry.findall(f"{ATOM}category")] == ["A & <B>", "has code"]
    content = entry.findtext(f"{ATOM}content") or ""
    assert "<script" not in content and "&lt;script&gt;" in content and "<sup>2</sup>" in content
    related = {link.get("title"): link.get("href") for link in entry.findall(f"{ATOM}link[@rel='related']")}
    assert related == {name: address for name, address, _ in links(HOSTILE)} and "Code" in related
    rss = ElementTree.fromstring(FORMATS["rss"].write(feed))
    assert [creator.text for creator in rss.iter(f"{DUBLIN}creator")] == names
    assert rss.findtext("channel/item/description") == content
    item = json.loads(FORMATS["json"].write(feed))["items"][0]
    assert item["content_html"] == content and item["external_url"] == "https://arxiv.org/abs/2501.00001"


@given(
    text=st.text(
        st.characters(exclude_categories=()) | st.sampled_from("<>&\"'$\\{}]\x00\x0b\ud800\udfff\ufffe\uffff"),
        max_size=80,
    )
)
def test_no_text_breaks_a_feed(text: str) -> None:
    paper = Paper(id="x", title=text, summary=text, authors=(text,), organization=text or None,
                  published_at=datetime(2025, 1, 1))  # fmt: skip
    for ending, check in CHECKS.items():
        assert check(FORMATS[ending].write(one_feed(paper))) == [stable_id(SITE, "paper x")]


def test_times() -> None:
    revised = HOSTILE.listed_at + timedelta(days=9, microseconds=5) if HOSTILE.listed_at else None
    assert revised
    plain, later = (one_feed(HOSTILE, revised=known).entries[0] for known in ({}, {HOSTILE.id: revised}))
    assert plain.published == plain.updated == datetime(2025, 1, 3, 3, 4, 5, tzinfo=UTC), "the listing"
    assert later.published == plain.published and later.updated == datetime(2025, 1, 12, 3, 4, 5, tzinfo=UTC)
    unlisted = one_feed(replace(HOSTILE, listed_at=None), revised={HOSTILE.id: datetime(2024, 1, 1)}).entries[0]
    assert unlisted.published == unlisted.updated == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), "the publication"
    untimed = one_feed(replace(HOSTILE, listed_at=None, published_at=None)).entries[0]
    assert untimed.published == datetime(2025, 1, 3, tzinfo=UTC), "the feed day"
    assert one_feed(replace(HOSTILE, listed_at=None, published_at=None, daily_date=None)).entries == []


def test_an_empty_feed_is_a_feed() -> None:
    for ending, check in CHECKS.items():
        assert check(FORMATS[ending].write(one_feed())) == []


def test_a_paper_of_thousands_stays_small() -> None:
    crowd = replace(HOSTILE, authors=tuple(f"Author {i}" for i in range(5_000)))
    assert len(one_feed(crowd).entries[0].authors) == 200


# -- over HTTP -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("ending", list(CHECKS))
def test_every_view_is_a_feed_under_every_filter(client: TestClient, path: str, ending: str) -> None:
    for filters in FILTERS:
        response = client.get(f"{path}.{ending}{filters}")
        assert response.status_code == 200
        assert response.headers["content-type"] == f"{FORMATS[ending].media_type}; charset=utf-8"
        assert response.headers["x-content-type-options"] == "nosniff"
        ids = CHECKS[ending](response.content)
        if path == "/papers/daily":
            continue
        page = client.get(f"{path}{filters}").text
        listed = re.findall(r'class="paper-title"><a href="/papers/([^"]+)"', page)
        if all(one.startswith("https:") for one in ids):
            assert [one.rpartition("/")[2] for one in ids[:40]] == listed


@pytest.mark.parametrize("path", ["/", *PATHS[1:]])
def test_pages_name_their_feeds(client: TestClient, path: str) -> None:
    text = client.get(f"{path}?votes=2").text
    stem = "/papers/daily" if path == "/" else path
    for ending, form in FORMATS.items():
        head = text.partition("</head>")[0]
        assert re.search(rf'<link rel="alternate" type="{re.escape(form.media_type)}" title="[^"]+" href="', head)
        assert text.count(f'href="{stem}.{ending}?votes=2"') == 2, "in the head and in the menu"
        assert client.get(f"{stem}.{ending}?votes=2").status_code == 200
    assert '<p class="feeds">' in text


def test_the_daily_feed_runs_over_days(client: TestClient, few: list[Paper]) -> None:
    days = {paper.id: paper.daily_date for paper in few}
    ids = [one.rpartition("/")[2] for one in check_atom(client.get("/papers/daily.atom").content)]
    assert len(ids) == MOST
    seen = [days[identifier] for identifier in ids]
    assert len(set(seen)) > 3 and seen == sorted(seen, reverse=True)  # type: ignore[type-var]


def test_ids_stay_where_the_site_moves(small: Site) -> None:
    def ids(host: str, base: str | None = None, path: str = "/papers/new.atom?q=evil") -> tuple[str | None, list[str]]:
        body = TestClient(create_app(small, base=base), base_url=f"http://{host}").get(path).content
        return ElementTree.fromstring(body).findtext(f"{ATOM}id"), check_atom(body)

    first = ids("127.0.0.1:8000")
    assert first == ids("papers.example.org:444") == ids("x", base="https://papers.example.org/")
    assert len({ids("x", path=f"{path}.atom{filters}")[0] for path in PATHS for filters in FILTERS}) == 28
    trending = [ids("x", path=f"/papers/trending.atom{query}")[0] for query in ("", "?half=2", "?half=7")]
    assert trending[0] == trending[1] != trending[2], "the default need not be said"


def test_whole_addresses(small: Site) -> None:
    def self_link(client: TestClient, **headers: str) -> str:
        document = client.get("/papers/new.json?votes=2", headers=headers).json()
        assert document["items"][0]["url"].startswith(document["feed_url"].partition("/papers/new")[0])
        return str(document["feed_url"])

    app = create_app(small)
    assert (
        self_link(TestClient(app), Host="Papers.Example:8123") == "http://papers.example:8123/papers/new.json?votes=2"
    )
    assert self_link(TestClient(app), Host="[::1]:8000").startswith("http://[::1]:8000/papers")
    fixed = TestClient(create_app(small, base="https://papers.example.org"))
    assert self_link(fixed, Host="evil.example").startswith("https://papers.example.org/papers/new.json")
    assert fixed.get("/papers/new.atom").headers["cache-control"] == "public, max-age=300"
    assert TestClient(app).get("/papers/new.atom").headers["cache-control"] == "private, max-age=300"
    for host in ('evil.example"><script>', "a b", "a/b", "user@evil.example", "evil.example:x", "", "a\\b", ".", "-"):
        response = TestClient(app, raise_server_exceptions=False).get("/papers/new.atom", headers={"Host": host})
        assert response.status_code == 400 and "Host header" in response.text, host


def test_the_address_of_a_site_is_checked(small: Site) -> None:
    with pytest.raises(InputError, match="address of the site"):
        create_app(small, base="")
    assert check_base("https://Papers.Example.org/") == "https://papers.example.org"
    assert check_base("http://[::1]:8000") == "http://[::1]:8000"
    bad = [
        "papers.example.org",
        "ftp://x",
        "https://",
        "https://x/papers",
        "https://u:p@x",
        "https://x:99999",
        "https://x?a",
    ]
    for text in [*bad, "https://x?a", "https://x#a", "javascript:alert(1)", "https://x:0", "https://[::1", ""]:
        with pytest.raises(InputError, match="address of the site"):
            check_base(text)


# -- conditional requests ------------------------------------------------------------------------------------------
@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, [STORED, replace(STORED, id="2501.00002", upvotes=3)])
    yield site
    site.close()


@pytest.mark.parametrize("ending", list(CHECKS))
def test_what_a_reader_has_is_not_sent_again(growing: Site, ending: str) -> None:
    client = TestClient(create_app(growing), headers={"Accept-Encoding": "identity"})
    growing.db.set_facts(changed="2025-03-01T10:00:00")  # not in this very second
    path = f"/papers/new.{ending}"
    first = client.get(path)
    tag, modified = first.headers["etag"], first.headers["last-modified"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag), "strong"
    assert parsedate_to_datetime(modified) <= datetime.now(UTC)
    early = format_datetime(parsedate_to_datetime(modified) - timedelta(seconds=1), usegmt=True)
    for headers, status in [
        ({"If-None-Match": tag}, 304), ({"If-None-Match": f'"x", W/{tag}'}, 304), ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"x"'}, 200), ({"If-Modified-Since": modified}, 304), ({"If-Modified-Since": early}, 200),
        ({"If-Modified-Since": "yesterday"}, 200), ({"If-Modified-Since": "Mon, 99 Foo 2025 00:00:00 GMT"}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": modified}, 200),
    ]:  # fmt: skip
        for method in ("GET", "HEAD"):
            response = client.request(method, path, headers=headers)
            assert response.status_code == status, headers
            assert response.headers["etag"] == tag and response.headers["last-modified"] == modified
            assert response.content == (first.content if (status, method) == (200, "GET") else b"")
    head = client.head(path)
    assert head.headers["content-length"] == str(len(first.content)) and head.headers["content-type"]
    growing.db.upsert([replace(STORED, upvotes=99)])
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304, "votes are not in a feed"
    growing.db.upsert([replace(STORED, title="Another")])
    changed = client.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200 and "Another" in changed.text and changed.headers["etag"] != tag
    assert CHECKS[ending](changed.content) == CHECKS[ending](first.content), "the same papers"


def test_a_packed_feed_has_its_own_tag(growing: Site) -> None:
    client = TestClient(create_app(growing))
    plain = client.get("/papers/new.atom", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    with client.stream("GET", "/papers/new.atom", headers={"Accept-Encoding": "gzip"}) as response:
        packed = b"".join(response.iter_raw())
    assert response.headers["content-encoding"] == "gzip" and gzip.decompress(packed) == plain.content
    assert response.headers["etag"] != plain.headers["etag"]
    assert all("accept-encoding" in one.headers["vary"].lower() for one in (plain, response))
    for tag in (plain.headers["etag"], response.headers["etag"]):
        assert client.get("/papers/new.atom", headers={"If-None-Match": tag}).status_code == 304


def test_a_live_ranking_has_a_time_of_its_own(growing: Site) -> None:
    today = datetime.now(UTC).replace(tzinfo=None)
    growing.db.upsert([replace(STORED, listed_at=today, daily_date=today.date())])
    growing.db.set_facts(changed=(today - timedelta(days=3)).isoformat())
    client = TestClient(create_app(growing))
    ranked, new = (
        parsedate_to_datetime(client.get(f"/papers/{name}.rss").headers["last-modified"])
        for name in ("trending", "new")
    )
    assert (ranked.minute, ranked.second) == (0, 0) and ranked - new > timedelta(days=2)


def test_feed_readers_read_them(client: TestClient) -> None:
    feedparser = pytest.importorskip("feedparser", reason="pip install feedparser")
    for path in PATHS:
        for ending in ("atom", "rss"):
            parsed = feedparser.parse(client.get(f"{path}.{ending}").content)
            assert not parsed.bozo, parsed.get("bozo_exception")
            assert parsed.version == {"atom": "atom10", "rss": "rss20"}[ending]
            assert parsed.feed.title.endswith("nextvec papers") and parsed.feed.link.startswith("http")
            assert parsed.entries
            for entry in parsed.entries:
                assert entry.id and entry.title and entry.link.startswith("http") and entry.published_parsed
                assert entry.author and (ending == "rss" or entry.updated_parsed >= entry.published_parsed)
