from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pytest
from fakes import HashEncoder
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextvec.papers import trending, views
from nextvec.papers.authors import fold
from nextvec.papers.ingest import ingest
from nextvec.papers.narrowing import PARTS, Narrowing
from nextvec.papers.records import Paper, parse_record
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
from nextvec.papers.word_index import LexicalIndex
from nextvec.search.words import tokenize
from nextvec.types import InputError

VIEWS = ["/papers/month/2026-08", "/papers/week/2026-W34", "/papers/trending", "/papers/discussed", "/papers/new"]


def shown(text: str) -> list[str]:
    """The ids of the papers that a page lists."""
    return re.findall(r'class="paper-title"><a href="/papers/([^"]+)"', text)


def everything(client: TestClient, address: str) -> list[str]:
    """The ids on all pages of a view, following its links."""
    ids: list[str] = []
    following: str | None = address
    while following:
        text = client.get(following).text
        ids += shown(text)
        link = re.search(r'<nav class="pager".*?rel="next" href="([^"]+)"', text, re.DOTALL)
        following = unescape(link.group(1)) if link else None
    return ids


def moment(paper: Paper) -> datetime | None:
    day = datetime.combine(paper.daily_date, datetime.min.time()) if paper.daily_date else None
    return paper.listed_at or paper.published_at or day


def day_of(paper: Paper) -> date | None:
    came = moment(paper)
    return paper.daily_date or (came.date() if came else None)


def about(paper: Paper, topic: str) -> bool:
    """The definition of a topic, word by word."""
    present = set(tokenize(paper.title)) | set(tokenize(paper.summary))
    alternatives = [set(tokenize(part)) for part in topic.split(",")]
    return any(words and words <= present for words in alternatives)


def satisfies(paper: Paper, chosen: Narrowing) -> bool:
    """A narrowing, part by part."""
    day = day_of(paper)
    return (
        (chosen.topic is None or about(paper, chosen.topic))
        and (chosen.organization is None or paper.organization == chosen.organization)
        and (chosen.author is None or fold(chosen.author) in map(fold, paper.authors))
        and (chosen.source is None or paper.source == chosen.source)
        and (chosen.category is None or not {*paper.categories}.isdisjoint(chosen.category.split(",")))
        and (chosen.votes is None or paper.upvotes >= chosen.votes)
        and (not chosen.code or paper.has_code)
        and (chosen.start is None or (day is not None and day >= chosen.start))
        and (chosen.end is None or (day is not None and day <= chosen.end))
    )


NARROWINGS = st.builds(
    Narrowing,
    topic=st.sampled_from([None, None, "model", "language model", "video, robot", "agents", "diffusion"]),
    organization=st.sampled_from([None, None, "NVIDIA", "Google", "O'Brien & <Sons>"]),
    author=st.sampled_from([None, None, None, "<i>Mallory</i>", "Yang Liu"]),
    source=st.sampled_from([None, None, "daily_papers", "arxiv"]),
    category=st.sampled_from([None, None, "cs.CL", "cs.CL,emnlp"]),
    votes=st.sampled_from([None, 1, 3, 20]),
    code=st.booleans(),
    start=st.sampled_from([None, date(2025, 6, 1), date(2026, 8, 18)]),
    end=st.sampled_from([None, date(2026, 8, 19), date(2026, 8, 30)]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=NARROWINGS, kind=st.sampled_from(["month", "daily", "trending", "discussed", "new"]))
def test_every_filter_is_exact_on_every_view(
    small: Site, few: list[Paper], chosen: Narrowing, kind: views.Kind
) -> None:
    values = chosen.pairs() | {"days": "all"}
    view, _ = views.read_view(kind, "2026-08", values, small)
    assert view.narrowing == chosen, "an address is read as it was written"
    at, _ = views.clock(small)
    member: dict[str, Callable[[Paper], bool]] = {
        "month": lambda paper: paper.daily_date is not None and f"{paper.daily_date:%Y-%m}" == "2026-08",
        "daily": lambda paper: paper.daily_date is not None,
        "trending": lambda paper: paper.daily_date is not None and paper.daily_date >= trending.horizon(at, 2),
        "discussed": lambda paper: paper.num_comments > 0 and moment(paper) is not None,
        "new": lambda paper: moment(paper) is not None,
    }
    expected = {paper.id for paper in few if member[kind](paper) and satisfies(paper, chosen)}
    ids = views.members(small, view, at)
    assert len(ids) == len(set(ids)) and set(ids) == expected
    listed = views.listing(small, view, at, limit=10_000)
    assert {stored.paper.id for stored in listed.papers} == expected or len(expected) > views.DEEPEST
    if not expected and chosen:
        for _, _, address, count in views.ways(small, view, at):
            assert address != view.address() and count > 0


def test_orders(client: TestClient, few: list[Paper]) -> None:
    papers = {paper.id: paper for paper in few}
    new = everything(client, "/papers/new")
    times = [moment(papers[identifier]) for identifier in new]
    assert times == sorted((time for time in map(moment, few) if time), reverse=True), (
        "all that have a time, latest first"
    )
    talked = everything(client, "/papers/discussed?days=all")
    ranks = [(papers[identifier].num_comments, papers[identifier].upvotes) for identifier in talked]
    assert ranks == sorted(ranks, reverse=True) and {rank[0] for rank in ranks} > {1}
    newest = everything(client, "/papers/week/2026-W34?sort=newest")
    days = [papers[identifier].daily_date for identifier in newest]
    assert len(days) > 40 and days == sorted(days, reverse=True)  # type: ignore[type-var]


def test_discussed_counts_days_back_from_the_end_of_the_collection(client: TestClient, few: list[Paper]) -> None:
    last = max(paper.daily_date for paper in few if paper.daily_date)
    for days in (7, 30, 365):
        first = last - timedelta(days=days - 1)
        expected = {
            paper.id for paper in few if paper.num_comments and moment(paper) and (day_of(paper) or date.min) >= first
        }
        assert set(everything(client, f"/papers/discussed?days={days}")) == expected
    assert everything(client, "/papers/discussed") == everything(client, "/papers/discussed?days=30")


@pytest.mark.parametrize("path", VIEWS)
def test_pages_and_choices_keep_the_filters(client: TestClient, path: str) -> None:
    kept = {"votes": "1", "to": "2026-08-30"}
    text = client.get(f"{path}?{urlencode(kept)}").text
    own = [
        unescape(link)
        for link in re.findall(r'<a (?:class="toggle" )?(?:rel="next" )?href="([^"]+)"', text)
        if unescape(link).startswith(f"{path}?") and any(word in link for word in ("page=", "half=", "days=", "sort="))
    ]
    assert own and all("votes=1" in link and "to=2026-08-30" in link for link in own), own
    assert "Remove the filter </span>1+ votes</a>" in text
    assert 'Remove the filter </span>to <time datetime="2026-08-30">30 Aug 2026</time></a>' in text
    for form in re.findall(r"<form (?:class=\"half\" )?action=\"/papers.*?</form>", text, re.DOTALL):
        assert 'name="votes"' in form and 'value="1"' in form


def test_each_chip_takes_its_filter_away(client: TestClient) -> None:
    asked = {
        "topic": "language model", "org": "NVIDIA", "author": "Nobody", "source": "daily_papers",
        "category": "cs.CL", "votes": "2", "code": "1", "from": "2025-01-01", "to": "2026-08-30",
    }  # fmt: skip
    assert set(asked) == set(PARTS)
    text = client.get(f"/papers/trending?{urlencode({'half': '9', **asked})}").text
    chips = re.search(r'<p class="chips">(.*?)</p>', text, re.DOTALL)
    assert chips
    links = [unescape(link) for link in re.findall(r'href="([^"]+)"', chips.group(1))]
    expected = [
        f"/papers/trending?{urlencode({'half': '9', **{k: v for k, v in asked.items() if k != name}})}"
        for name in asked
    ]
    assert links == [*expected, "/papers/trending?half=9"]


def test_empty_fields_of_a_form_leave_the_address(client: TestClient) -> None:
    response = client.get("/papers/new?topic=&author=&org=NVIDIA&votes=&from=&to=&source=&page=2")
    assert (response.status_code, response.headers["location"]) == (303, "/papers/new?org=NVIDIA&page=2")
    assert client.get("/?org=&code=1").headers["location"] == "/?code=1"
    assert client.get("/papers/daily?code=1").headers["location"] == "/?code=1"


def test_two_narrowings_of_a_view_have_two_titles(client: TestClient) -> None:
    for path in (*VIEWS, "/"):
        titles = [
            re.findall(r"<title>(.*?)</title>", client.get(path + asked).text)[0]
            for asked in ("", "?votes=1", "?votes=1&code=1")
        ]
        assert len(set(titles)) == 3 and "(1+ votes, has code) · nextvec papers" in titles[2], titles
    head = r"<h1>(.*?)</h1>"
    assert re.findall(head, client.get("/papers/new?author=Ada+Bo&org=A+%26+B").text) == [
        "Papers by Ada Bo from A &amp; B"
    ]
    assert re.findall(head, client.get("/papers/discussed?author=Ada+Bo").text) == ["Most discussed"]


def test_a_day_without_papers_says_so_alone(client: TestClient) -> None:
    text = client.get("/papers/date/2001-01-01").text
    assert "The feed has nothing for this day" in text
    assert 'class="totals"' not in text and 'class="strip"' not in text, "no zeros, no days of another year"


def test_filters_are_folded_and_counted(client: TestClient) -> None:
    for path in (*VIEWS, "/"):
        text = client.get(f"{path}?votes=1&code=1").text
        assert text.count('<details class="narrow">') == 1 and "<summary>Filters <span>2</span></summary>" in text
        assert "<summary>Filters</summary>" in client.get(path).text


def test_nothing_left_helps(client: TestClient) -> None:
    text = client.get("/papers/new?org=NVIDA").text
    assert "No organisation here is called “NVIDA”" in text and 'href="/papers/new?org=NVIDIA"' in text
    text = client.get("/papers/discussed?author=i+Mallory&days=all").text
    assert "No author here is called" in text
    text = client.get("/papers/trending?half=30&votes=999999&topic=model").text
    assert "No papers under these filters" in text and "Without “999,999+ votes”" in text
    assert 'href="/papers/trending?half=30&amp;topic=model"' in text and "/search?q=model" in text
    text = client.get("/papers/new?source=Daily_Papers").text
    assert "No source here is called “Daily_Papers”" in text and 'href="/papers/new?source=daily_papers"' in text


def test_names_may_be_typed_in_any_case(client: TestClient) -> None:
    assert everything(client, "/papers/new?org=nvidia") == everything(client, "/papers/new?org=NVIDIA") != []
    assert everything(client, "/papers/new?topic=LANGUAGE+Models") == everything(
        client, "/papers/new?topic=language+model"
    )


def test_topics() -> None:
    rows = [
        ("a", "Multi-modal agents", "", [], None),
        ("b", "Multimodal", "an agent", [], None),
        ("c", "Multi agents, one modal verb", "", [], None),
        ("d", "Nothing", "of it", ["Agent Smith"], "Multimodal Agents Inc"),
        ("e", "GPT 4o", "", [], None),
    ]
    index = LexicalIndex.build(rows, stamp="1")
    assert index.holding("multi-modal agent") == ["a", "b", "c"], "parts or the whole"
    assert index.holding("multimodal") == ["a", "b"]
    assert index.holding("agent") == ["a", "b", "c"], "names are not topics"
    assert index.holding("GPT-4o, verbs") == ["c", "e"] and index.holding("agent verb, nothing") == ["c", "d"]
    assert index.holding("the") == [] and index.holding("") == [] and index.holding("zebra") == []


# -- trending ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A collection that grows today: old papers with famous repositories and many votes, and new ones."""
    site = Site(tmp_path_factory.mktemp("growing"), encoder=HashEncoder())
    today = datetime.now(UTC).date()
    papers = [
        Paper(
            id=f"old/{i}",
            title=f"Old {i}",
            summary="words",
            upvotes=250 - i,
            daily_date=today - timedelta(days=45 + i),
            github_repo="https://github.com/a/b",
            github_stars=100_000,
        )
        for i in range(60)
    ]
    papers += [
        Paper(id=f"new/{i}", title=f"New {i}", summary="words", upvotes=1 + i, daily_date=today) for i in range(50)
    ]
    ingest(site, papers)
    yield site
    site.close()


def test_old_repositories_never_bury_new_papers(growing: Site) -> None:
    browser = TestClient(create_app(growing))
    first = everything(browser, "/papers/trending")[:50]
    assert first == [f"new/{i}" for i in range(49, -1, -1)], "the new ones fill the first places, by their votes"
    before = {half: everything(browser, f"/papers/trending?half={half}") for half in ("0.5", "7", "365")}
    starred = [
        replace(stored.paper, github_repo="https://github.com/a/b", github_stars=10**6)
        for stored in growing.db.get_many([f"old/{i}" for i in range(60)])
    ]
    growing.db.upsert(starred)
    for half, ids in before.items():
        assert everything(browser, f"/papers/trending?half={half}") == ids, "stars play no part at any half-life"


def test_the_half_life_is_free_and_shown(client: TestClient) -> None:
    for half, days in (("0.5", 0.5), ("3.25", 3.25), ("365", 365.0), ("7.000", 7.0)):
        assert trending.read_half_life(half) == days
        assert f"−age/{days:g}<" in client.get(f"/papers/trending?half={half}").text
    assert 'aria-current="true">7 days' in client.get("/papers/trending?half=7.0").text
    for bad in ("0.49", "365.001", "-2", "2e1", "nan", "inf", "２", "2.5.1", "1,5"):
        with pytest.raises(InputError, match=r"half is .*; expected a number of days from 0\.5 to 365"):
            trending.read_half_life(bad)


def test_the_best_of_a_ranking_are_the_same_as_all_of_it() -> None:
    rows = [
        (f"{i}", (i * 37) % 50, datetime(2026, 1, 1 + i % 28, i % 24), date(2026, 1, 1 + i % 28)) for i in range(300)
    ]
    at = datetime(2026, 1, 30)
    assert trending.rank(rows, at=at, half_life=3, limit=40) == trending.rank(rows, at=at, half_life=3)[:40]


@pytest.mark.parametrize("name", ["new", "discussed", "daily", "trending", "new.atom", "trending.json", "daily.rss"])
def test_no_paper_takes_the_address_of_a_view(name: str) -> None:
    with pytest.raises(InputError, match="name of a page of the site"):
        parse_record({"id": name, "title": "t", "summary": ""}, where="x")
    assert parse_record({"id": f"{name}x", "title": "t", "summary": ""}, where="x").id == f"{name}x"


def test_new_papers_are_seen_at_once(tmp_path: Path) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    one = Paper(id="a", title="Whales", summary="sing", published_at=datetime(2026, 1, 1), num_comments=1)
    ingest(site, [one])
    browser = TestClient(create_app(site))
    addresses = ("/papers/new", "/papers/new?topic=whale", "/papers/discussed?days=all")
    assert all(shown(browser.get(address).text) == ["a"] for address in addresses)
    ingest(site, [replace(one, id="b", num_comments=2, published_at=datetime(2026, 1, 2))])
    assert all(shown(browser.get(address).text) == ["b", "a"] for address in addresses)
    site.close()
