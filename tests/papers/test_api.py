from __future__ import annotations

import base64
import gzip
import json
import re
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fakes import HashEncoder
from fastapi.testclient import TestClient

from nextvec.papers.api import specification
from nextvec.papers.api_queries import Cursor
from nextvec.papers.cursors import _check_sum
from nextvec.papers.ingest import ingest
from nextvec.papers.records import Paper
from nextvec.papers.search import search
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
from nextvec.types import InputError, StorageError

pytestmark = pytest.mark.both


def stamp(value: datetime | None) -> str | None:
    """The original's form of a time, written independently of the code."""
    return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z" if value else None


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["paper"]["id"] for item in items]


def newest_first(papers: list[Paper]) -> list[str]:
    def key(paper: Paper) -> tuple[Any, Any, str]:
        return paper.daily_date, paper.listed_at or paper.published_at, paper.id

    return [paper.id for paper in sorted(papers, key=key, reverse=True)]


@pytest.fixture(scope="module")
def feed(few: list[Paper]) -> list[Paper]:
    return [paper for paper in few if paper.daily_date]


def test_a_listed_paper_has_the_fields_of_the_original(client: TestClient, few: list[Paper]) -> None:
    paper = next(one for one in few if one.listed_at and one.github_repo and one.organization and one.submitted_by)
    day = client.get("/api/daily_papers", params={"date": str(paper.daily_date), "limit": 100}).json()
    item = next(one for one in day if one["paper"]["id"] == paper.id)
    who = {"user": paper.submitted_by, "name": paper.submitted_by}
    inner = item["paper"]
    assert item["publishedAt"] == stamp(paper.listed_at) == inner["submittedOnDailyAt"]
    assert inner["publishedAt"] == stamp(paper.published_at) != item["publishedAt"]
    assert item["title"] == inner["title"] == paper.title and item["summary"] == inner["summary"] == paper.summary
    assert item["submittedBy"] == inner["submittedOnDailyBy"] == who
    assert item["organization"] == inner["organization"] == {"fullname": paper.organization}
    assert (item["numComments"], inner["upvotes"]) == (paper.num_comments, paper.upvotes)
    assert inner["authors"] == [{"name": name} for name in paper.authors]
    assert inner["githubRepo"] == paper.github_repo and inner.get("githubStars") == paper.github_stars
    assert inner["dailyDate"] == str(paper.daily_date)


def test_what_is_not_known_is_null_or_left_out(client: TestClient) -> None:
    flat = client.get("/api/papers/evil/one").json()
    assert flat["publishedAt"] is None and flat["upvotes"] == 3
    absent = {"submittedOnDailyAt", "submittedOnDailyBy", "dailyDate", "githubRepo", "githubStars", "projectPage"}
    assert not absent & set(flat) and "discussionId" not in flat and "ai_summary" not in flat
    item = client.get("/api/papers/search", params={"q": "Mallory"}).json()[0]
    assert item["paper"]["id"] == "evil/one"
    assert item["publishedAt"] is None and item["submittedBy"] is None and "thumbnail" not in item
    links = ("linkedModels", "linkedDatasets", "linkedSpaces")
    assert [flat[name] for name in links] == [[], [], []] and flat["numTotalModels"] == flat["numTotalDatasets"] == 0


def test_days_weeks_and_months(client: TestClient, feed: list[Paper]) -> None:
    for name, key, within in (
        ("date", "2026-08-21", lambda day: str(day) == "2026-08-21"),
        ("week", "2026-W34", lambda day: day.isocalendar()[:2] == (2026, 34)),
        ("month", "2026-08", lambda day: (day.year, day.month) == (2026, 8)),
    ):
        wanted = newest_first([paper for paper in feed if within(paper.daily_date)])
        assert wanted and ids(client.get("/api/daily_papers", params={name: key}).json()) == wanted[:50]
        assert ids(client.get("/api/daily_papers", params={name: key, "p": 1, "limit": 7}).json()) == wanted[7:14]
    assert ids(client.get("/api/daily_papers").json()) == newest_first(feed)[:50]
    assert client.get("/api/daily_papers?date=2030-01-01").json() == []
    assert client.get("/api/daily_papers?p=100000").json() == []


def test_pages_of_the_feed_hold_every_paper_once(client: TestClient, feed: list[Paper]) -> None:
    seen: list[str] = []
    for page in range(20):
        found = ids(client.get("/api/daily_papers", params={"p": page, "limit": 33}).json())
        seen += found
        if not found:
            break
    assert seen == newest_first(feed)


def test_a_submitter_is_found_without_case(client: TestClient, feed: list[Paper]) -> None:
    name = next(paper.submitted_by for paper in feed if paper.submitted_by and paper.submitted_by.lower() != "taesiri")
    wanted = newest_first([paper for paper in feed if paper.submitted_by == name])
    for spelt in (name, name.upper()):
        assert ids(client.get("/api/daily_papers", params={"submitter": spelt, "limit": 100}).json()) == wanted
    assert client.get("/api/daily_papers", params={"submitter": "nobody' OR '1'='1"}).json() == []


def test_trending_is_that_of_the_page(client: TestClient, feed: list[Paper]) -> None:
    page = re.findall(r'class="paper-title"><a href="/papers/([^"]+)"', client.get("/papers/trending").text)
    found = ids(client.get("/api/daily_papers", params={"sort": "trending", "limit": 100}).json())
    assert len(page) > 10 and found[: len(page)] == page
    # All papers of an old day count, not only the recent ones: its order is that of votes among equal ages.
    old = min(paper.daily_date for paper in feed if paper.daily_date)
    of_day = {paper.id: paper.upvotes for paper in feed if paper.daily_date == old}
    found = ids(client.get("/api/daily_papers", params={"sort": "trending", "date": str(old)}).json())
    assert sorted(found) == sorted(of_day) and [of_day[one] for one in found] == sorted(of_day.values(), reverse=True)


def test_all_papers_by_cursor(client: TestClient, few: list[Paper]) -> None:
    seen: list[dict[str, Any]] = []
    url: str | None = "http://testserver/api/papers?limit=30"
    while url:
        response = client.get(url)
        assert len(response.json()) <= 30
        seen += response.json()
        url = response.links.get("next", {}).get("url")
    dated = sorted((paper for paper in few if paper.published_at), key=lambda one: (one.published_at, one.id))
    undated = sorted((paper.id for paper in few if not paper.published_at), reverse=True)
    assert [item["id"] for item in seen] == [paper.id for paper in reversed(dated)] + undated
    assert seen[0]["numComments"] == dated[-1].num_comments and "paper" not in seen[0]


@pytest.mark.parametrize("moment", [None, datetime(2025, 2, 28, 9, 30, 0, 123456)])
def test_a_cursor_is_read_back_and_anything_else_is_not(moment: datetime | None) -> None:
    word = Cursor(moment, "cs/0112017").word()
    assert Cursor.read(word) == Cursor(moment, "cs/0112017")
    bodies = [
        b"",
        b"{}",
        b"[" * 200,
        b"\xff",
        b'["9999-99-99", "x"]',
        b'[7, "x"]',
        b"[null, 7]",
        b'[null, "a b"]',
        b"[null]",
    ]
    forged = [base64.urlsafe_b64encode(_check_sum(body) + body).decode().rstrip("=") for body in bodies]
    for broken in (
        word[:-1], word + "A", word[:5] + ("A" if word[5] != "A" else "B") + word[6:], "x", "é", "A" * 500,
        base64.urlsafe_b64encode(b"123456" + bodies[4]).decode().rstrip("="), *forged,
    ):  # fmt: skip
        with pytest.raises(InputError, match="is not one of this site"):
            Cursor.read(broken)


def test_an_undated_paper_can_end_a_page(tmp_path: Path) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    same = datetime(2025, 1, 1)
    rows = [("d", same), ("c", same), ("b", None), ("a", None), ("e", None)]
    ingest(site, [Paper(id=name, title=f"Paper {name}", summary="", published_at=at) for name, at in rows])
    browser = TestClient(create_app(site))
    seen, url = [], "/api/papers?limit=1"
    while url:
        response = browser.get(url)
        seen += [item["id"] for item in response.json()]
        url = response.links.get("next", {}).get("url", "")
    assert seen == ["d", "c", "e", "b", "a"]
    site.close()


def test_search_is_that_of_the_site(client: TestClient, small: Site, few: list[Paper]) -> None:
    def wanted(query: str, size: int, **options: Any) -> list[str]:
        return [match.stored.paper.id for match in search(small, query, size=size, **options).matches]

    for params, options in (
        ({}, {}),
        ({"mode": "keyword"}, {"mode": "keyword"}),
        ({"mode": "semantic"}, {"mode": "semantic"}),
    ):
        found = client.get("/api/papers/search", params={"q": "video generation", "limit": 120} | params).json()
        assert ids(found) == wanted("video generation", 120, **options) and len(found) > 20
    strict = {"q": "model", "votes": 10, "code": "1", "from": "2026-08-17", "to": "2026-08-20", "limit": 120}
    found = client.get("/api/papers/search", params=strict).json()
    fits = {
        paper.id
        for paper in few
        if paper.upvotes >= 10 and paper.has_code and "2026-08-17" <= str(paper.daily_date) <= "2026-08-20"
    }
    assert found and set(ids(found)) <= fits
    assert ids(client.get("/api/papers/search", params={"q": f"arXiv:{few[5].id}v2"}).json())[0] == few[5].id
    org = client.get("/api/papers/search", params={"org": "o'brien & <sons>"}).json()
    assert ids(org) == ["evil/one"], "without a query: what satisfies the filter"
    assert client.get("/api/papers/search", params={"q": "model", "org": "nobody"}).json() == []


@pytest.mark.parametrize("params", ["", "&sort=newest", "&sort=votes", "&q=video", "&votes=3", "&q=model&mode=keyword"])
def test_a_search_by_cursor(client: TestClient, params: str) -> None:
    """Pages join to what one large page holds; only the last one leads nowhere."""
    whole = client.get(f"/api/papers/search?limit=120{params}")
    seen: list[str] = []
    url: str | None = f"http://testserver/api/papers/search?limit=17{params}"
    while url and len(seen) < 120:
        response = client.get(url)
        assert response.status_code == 200 and 1 <= len(response.json()) <= 17
        seen += ids(response.json())
        url = response.links.get("next", {}).get("url")
    assert len(seen) > 17 and seen[:120] == ids(whole.json()) and len(seen) == len(set(seen))
    assert ("next" in whole.links) == bool(url or len(seen) > 120)
    other = client.get("/api/papers/search?q=another&cursor=" + _cursor_of(client, params))
    assert other.status_code == 400 and "of another search" in other.json()["error"]
    broken = client.get("/api/papers/search?cursor=x")
    assert broken.status_code == 400 and "'x' is no cursor of this site" in broken.json()["error"]


def _cursor_of(client: TestClient, params: str) -> str:
    link = client.get(f"/api/papers/search?limit=1{params}").links["next"]["url"]
    return re.search(r"[?&]cursor=([\w-]+)", link)[1]  # type: ignore[index]


def test_similar_papers(client: TestClient, small: Site, few: list[Paper]) -> None:
    found = client.get(f"/api/papers/{few[0].id}/similar?limit=5").json()
    wanted = small.similar(few[0].id, 5)
    assert ids(found) == [stored.paper.id for stored, _ in wanted] and len(found) == 5 and few[0].id not in ids(found)
    assert [item["similarity"] for item in found] == pytest.approx([cosine for _, cosine in wanted], abs=1e-4)
    assert client.get("/api/papers/evil/one/similar").status_code == 200, "a slash belongs to the id"


def test_a_version_is_not_part_of_an_id(client: TestClient, few: list[Paper]) -> None:
    assert client.get(f"/api/papers/{few[0].id}v3").json() == client.get(f"/api/papers/{few[0].id}").json()


# -- errors --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/daily_papers?limit=0", 400, "limit is '0'; it should be greater than or equal to 1"),
        ("/api/daily_papers?limit=101", 400, "limit is '101'; it should be less than or equal to 100"),
        ("/api/daily_papers?limit=many", 400, "limit is 'many'; it should be a valid integer"),
        ("/api/daily_papers?p=-1", 400, "p is '-1'"),
        ("/api/daily_papers?p=" + "9" * 5000, 400, "p is '9999"),
        ("/api/daily_papers?sort=votes", 400, "it should be 'publishedAt' or 'trending'"),
        ("/api/daily_papers?date=2025-02-30", 400, "'2025-02-30' is not a day; expected the form 2025-02-28"),
        ("/api/daily_papers?week=2025-W54", 400, "is not a week; expected the form 2025-W09"),
        ("/api/daily_papers?month=2025-2", 400, "is not a month"),
        ("/api/daily_papers?date=2025-02-28&month=2025-02", 400, "exclude each other"),
        ("/api/daily_papers?submitter=%ff", 400, "submitter holds bytes that are not UTF-8"),
        ("/api/daily_papers?submitter=" + "x" * 301, 400, "submitter has 301 characters; at most 300"),
        ("/api/papers?cursor=x%00y", 400, "is not one of this site"),
        ("/api/papers?limit=101", 400, "less than or equal to 100"),
        ("/api/papers/search?q=" + "x" * 251, 400, "251 characters; at most 250"),
        ("/api/papers/search?q=%ed%a0%80", 400, "not UTF-8"),
        ("/api/papers/search?limit=121", 400, "less than or equal to 120"),
        ("/api/papers/search?from=2026-01-01&to=2025-01-01", 400, "exchange them"),
        ("/api/papers/search?mode=magic", 400, "it should be 'hybrid', 'semantic', 'keyword' or 'phrase'"),
        ("/api/papers/search?code=maybe", 400, "code is 'maybe'"),
        ("/api/papers/9999.99999", 404, "there is no paper '9999.99999'"),
        ("/api/papers/" + "a" * 5000, 404, "there is no paper"),
        ("/api/papers/%00", 404, "there is no paper"),
        ("/api/papers/%ff%fe/similar", 404, "there is no paper"),
        ("/api/papers/..%2f..%2fetc%2fpasswd", 404, "there is no paper"),
        ("/api/papers/'%20OR%201=1--", 404, "there is no paper"),
        ("/api/nowhere", 404, "/api lists what there is"),
        ("/api/", 404, "/api lists what there is"),
        ("/api/daily_papers/", 404, "/api lists what there is"),
    ],
)  # fmt: skip
def test_errors_are_one_line_of_json(client: TestClient, path: str, status: int, message: str) -> None:
    response = client.get(path)
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"] and message in body["error"] and "\n" not in body["error"]
    assert len(body["error"]) < 300 and response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store" and "etag" not in response.headers
    assert response.headers["access-control-allow-origin"] == "*"


def test_only_reading_is_possible(client: TestClient) -> None:
    for path in ("/api/daily_papers", "/api/papers", "/api/papers/search", "/api/papers/x", "/api/openapi.json"):
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            response = client.request(method, path)
            assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD"), (method, path)
            assert "use GET or HEAD" in response.json()["error"]


def test_trouble_is_a_503_and_a_bug_a_500(
    small: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    browser = TestClient(create_app(small), raise_server_exceptions=False)

    def refuse(*_: object, **__: object) -> None:
        raise StorageError("cannot use '/srv/papers.db' at db.internal: the disk is full")

    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(type(small.db), "get_many", refuse)
    response = browser.get("/api/daily_papers")
    identifier = response.headers["x-error-id"]
    told = f"the site cannot use its data at the moment: try again in a minute (error {identifier})"
    assert (response.status_code, response.json()) == (503, {"error": told})
    failed = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(failed) == 1 and identifier in failed[0]
    assert "cannot use '/srv/papers.db' at db.internal: the disk is full" in failed[0]
    monkeypatch.setattr(type(small.db), "get_many", crash)
    response = browser.get("/api/daily_papers")
    assert response.status_code == 500 and list(response.json()) == ["error"] and "secret" not in response.text
    assert "content-security-policy" in response.headers


def test_a_missing_index_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    site.db.upsert([Paper(id="a", title="A paper", summary="")])
    browser = TestClient(create_app(site))
    for path in ("/api/papers/search?q=paper", "/api/papers/a/similar"):
        response = browser.get(path)
        assert response.status_code == 503 and str(tmp_path) not in response.text
        assert "run the ingest again" in caplog.text and response.headers["x-error-id"] in caplog.text
    assert browser.get("/api/papers/a").json()["title"] == "A paper"
    site.close()


# -- HTTP ----------------------------------------------------------------------------------------------------------
READS = [
    "/api/daily_papers", "/api/daily_papers?sort=trending", "/api/papers", "/api/papers/search?q=video",
    "/api/papers/search?org=NVIDIA", "/api/papers/evil/one", "/api/papers/evil/one/similar", "/api/openapi.json",
]  # fmt: skip


@pytest.mark.parametrize("path", READS)
def test_an_unchanged_answer_is_not_sent_again(client: TestClient, path: str) -> None:
    plain = {"accept-encoding": "identity"}
    first = client.get(path, headers=plain)
    tag = first.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag) and first.headers["cache-control"] == "public, no-cache"
    for known in (tag, f'"other", W/{tag}', "*"):
        again = client.get(path, headers=plain | {"if-none-match": known})
        assert again.status_code == 304 and not again.content and again.headers["etag"] == tag
        assert again.headers["access-control-allow-origin"] == "*" and "Accept-Encoding" in again.headers["vary"]
    assert client.get(path, headers=plain | {"if-none-match": '"other"'}).content == first.content
    head = client.head(path, headers=plain)
    assert head.headers["etag"] == tag and head.headers["content-length"] == str(len(first.content))
    packed = client.get(path, headers={"accept-encoding": "gzip"})
    assert packed.headers["etag"] != tag, "another representation has another strong tag"
    assert packed.json() == first.json()
    if len(first.content) < 600:
        assert "content-encoding" not in packed.headers
        return
    assert packed.headers["content-encoding"] == "gzip" and packed.headers["vary"] == "Accept-Encoding"
    with client.stream("GET", path, headers={"accept-encoding": "gzip"}) as raw:
        assert gzip.decompress(b"".join(raw.iter_raw())) == first.content


def test_a_star_does_not_hide_that_nothing_is_there(client: TestClient) -> None:
    assert client.get("/api/papers/9999.99999", headers={"if-none-match": "*"}).status_code == 404


def test_tags_differ_by_address_and_change_with_the_papers(tmp_path: Path, few: list[Paper]) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, few[:20])
    browser = TestClient(create_app(site))
    paths = [
        "/api/daily_papers",
        "/api/daily_papers?limit=1",
        "/api/papers",
        "/api/papers/search?q=model",
        "/api/papers/search?q=models",
    ]
    before = {path: browser.get(path).headers["etag"] for path in paths}
    assert len(set(before.values())) == len(paths)
    assert {path: browser.get(path).headers["etag"] for path in paths} == before
    site.db.upsert([Paper(id="new", title="A new model", summary="Model.", daily_date=few[0].daily_date)])
    behind = {path: browser.get(path).headers["etag"] for path in paths}
    assert not set(behind.values()) & set(before.values())
    ingest(site, [])  # now the search finds it, though no paper has changed
    after = {path: browser.get(path).headers["etag"] for path in paths}
    assert after["/api/papers"] == behind["/api/papers"]
    assert after["/api/papers/search?q=model"] != behind["/api/papers/search?q=model"]
    assert "new" in ids(browser.get("/api/papers/search?q=new+model").json())
    site.close()


def test_other_origins_may_read_and_no_more(client: TestClient) -> None:
    ask = {"origin": "https://else.where", "access-control-request-method": "GET"}
    answer = client.options("/api/papers/search", headers=ask | {"access-control-request-headers": "if-none-match"})
    assert answer.status_code == 204 and not answer.content
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD"
    assert "If-None-Match" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    read = client.get("/api/papers", headers={"origin": "https://else.where"})
    assert read.headers["access-control-allow-origin"] == "*"
    assert {"ETag", "Link", "Retry-After"} <= set(read.headers["access-control-expose-headers"].split(", "))
    for path in ("/", "/search?q=x", "/papers/evil/one", "/healthz"):
        assert "access-control-allow-origin" not in client.get(path, headers=ask).headers, path


def test_a_client_may_not_ask_too_often(small: Site) -> None:
    browser = TestClient(create_app(small, rate=3), client=("10.0.0.1", 1))
    answers = [browser.get("/api/papers?limit=1") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    last = answers[-1]
    assert "more than 3 requests in a minute; try again in" in last.json()["error"]
    assert 1 <= int(last.headers["retry-after"]) <= 20 and last.headers["ratelimit-limit"] == "3"
    assert last.headers["access-control-allow-origin"] == "*" and "content-security-policy" in last.headers
    assert browser.get("/").status_code == 200, "pages are not limited"
    other = TestClient(create_app(small, rate=3), client=("10.0.0.2", 1))
    assert other.get("/api/papers?limit=1").status_code == 200
    free = TestClient(create_app(small))
    assert all("ratelimit-limit" not in free.get("/api/papers?limit=1").headers for _ in range(5))


def test_the_next_page_does_not_repeat_a_strange_host(client: TestClient) -> None:
    for host in ('evil>; rel="x", <http://evil', "evil.io/x?", "a b"):
        response = client.get("/api/papers?limit=1", headers={"host": host})
        assert "evil" not in response.headers.get("link", "") and "a b" not in response.headers.get("link", "")
    response = client.get("/api/papers?limit=1", headers={"host": "[::1]:8000"})
    assert response.headers["link"].startswith("<http://[::1]:8000/api/papers?limit=1&cursor=")


# -- the specification and its page --------------------------------------------------------------------------------
def test_the_specification_says_what_is_answered(client: TestClient) -> None:
    document = client.get("/api/openapi.json").json()
    assert document == json.loads(json.dumps(specification())) and document["openapi"].startswith("3.")
    assert set(document["paths"]) == {
        "/daily_papers", "/papers", "/papers/search", "/papers/search/facets", "/papers/{id}",
        "/papers/{id}/similar", "/papers/{id}/vote", "/lists", "/lists/{list}", "/lists/{list}/papers",
        "/lists/{list}/papers/{id}", "/views/{view}",
    }  # fmt: skip
    reading = {path: ops for path, ops in document["paths"].items() if not path.startswith("/lists") and "get" in ops}
    assert len(reading) == 7
    for operations in reading.values():
        assert set(operations) == {"get"} and operations["get"]["security"] == [{}, {"token": ["read"]}]
        answers = operations["get"]["responses"]
        assert "422" not in answers and {"200", "304", "400", "404", "429", "503"} <= set(answers)
        assert all(parameter["description"] for parameter in operations["get"].get("parameters", []))
    limits = {
        parameter["name"]: parameter["schema"] for parameter in document["paths"]["/daily_papers"]["get"]["parameters"]
    }
    assert (limits["limit"]["minimum"], limits["limit"]["maximum"], limits["limit"]["default"]) == (1, 100, 50)
    assert limits["sort"]["enum"] == ["publishedAt", "trending"]


def test_the_page_for_people_names_every_parameter(client: TestClient) -> None:
    response = client.get("/api")
    assert response.status_code == 200 and response.headers["content-type"] == "text/html; charset=utf-8"
    for path, operations in specification()["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} /api{path}" in response.text
            for parameter in operation.get("parameters", []):
                assert f"<code>{parameter['name']}</code>" in response.text
    examples = [unescape(line) for line in re.findall(r"curl 'http://testserver(/[^']*)'", response.text)]
    assert len(examples) == 7, "those without a token"
    for example in examples:  # the papers that they name are not in the small site
        assert client.get(example).status_code in (200, 404), example
    assert 'href="/api"' in client.get("/about").text


def test_times_are_utc(tmp_path: Path) -> None:
    from nextvec.papers.records import parse_record

    record = {"id": "a", "title": "T", "summary": "", "publishedAt": "2025-01-01T02:00:00.5+02:00"}
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, [parse_record(record, where="x")])
    text = TestClient(create_app(site)).get("/api/papers/a").json()["publishedAt"]
    assert text == "2025-01-01T00:00:00.500Z" and datetime.fromisoformat(text).tzinfo == UTC
    site.close()
