from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from fakes import HashEncoder
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nextvec.papers.pages import STATIC
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
from nextvec.types import StorageError

pytestmark = pytest.mark.both

VOID = {"meta", "link", "input", "img", "br", "hr", "path", "circle", "rect", "option"}


class Page(HTMLParser):
    """A page that must be well formed, with what a test wants to know about it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.sources: list[str] = []
        self.fields: set[str] = set()
        self.labels: set[str] = set()
        self.count: dict[str, int] = {}
        self.feed(text)
        self.close()
        assert not self.stack, f"left open: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.count[tag] = self.count.get(tag, 0) + 1
        assert "style" not in values and not any(name.startswith("on") for name in values), (tag, attrs)
        if "id" in values:
            self.ids.append(values["id"] or "")
        if tag == "a":
            self.targets.append(values.get("href") or "")
        if tag == "script" or (tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload")):
            self.sources.append(values.get("src") or values.get("href") or "")
        if tag == "label" and values.get("for"):
            self.labels.add(values["for"] or "")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack.pop() == tag


PATHS = [
    "/", "/papers/date/2026-08-21", "/papers/date/2026-08-21?sort=newest", "/papers/date/2026-08-21?code=1",
    "/papers/date/2030-01-01", "/papers/week/2026-W34", "/papers/week/2020-W53", "/papers/month/2026-08",
    "/papers/month/2026-08?page=2", "/papers/trending", "/papers/trending?half=30&page=2", "/search",
    "/papers/trending?half=0.5&org=NVIDIA", "/papers/discussed", "/papers/discussed?days=all&votes=5&page=2",
    "/papers/new",
    "/papers/new?topic=language+model&code=1", "/papers/new?author=Nobody+At+All&source=x", "/?org=NVIDIA&sort=newest",
    "/papers/discussed?org=O'Brien+%26+<Sons>&author=<i>Mallory</i>&topic=<script>", "/papers/week/2026-W34?votes=9999",
    "/search",
    "/search?q=language+model", "/search?q=language+model&page=2", "/search?q=%22language+model%22&sort=newest",
    "/search?like=evil/one", "/search?q=model&like=evil/one&text=Some+text&author=<i>Mallory</i>",
    "/search?q=langage+modl", "/search?topic=model&year=2026&sort=newest", "/search?q=%22zzzz+yyyy%22",
    "/search?author=Nobody+At+All&source=x&category=cs.CL,<i>", "/papers/new?category=Nowhere,<script>",
    "/search?q=zzzz&mode=keyword", "/about",
    "/search?org=NVIDIA", "/search?org=nvidia&votes=1000000", "/search?q=model&code=1&votes=10&from=2026-01-01",
    "/papers/evil/one", "/api", "/search?q=<script>&org=O'Brien+%26+<Sons>",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_every_page_is_well_formed_and_asks_nobody_else(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200, response.text
    page = Page(response.text)
    assert len(page.ids) == len(set(page.ids)), "ids are unique"
    assert page.count["h1"] == 1 and page.count["main"] == 1 and page.count["html"] == 1
    assert all(source.startswith("/static/") for source in page.sources)
    assert all(re.match(r"/|https?://|#", target) for target in page.targets), page.targets
    assert page.labels <= set(page.ids)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert client.head(path).status_code == 200


@pytest.mark.once
def test_local_links_lead_somewhere(client: TestClient) -> None:
    seen: set[str] = set()
    for path in (
        "/", "/papers/trending?half=9&code=1", "/search?q=video", "/papers/evil/one", "/papers/week/2026-W34?votes=3",
        "/papers/discussed", "/papers/new?topic=model&votes=2&org=NVIDIA",
    ):  # fmt: skip
        seen |= {target for target in Page(client.get(path).text).targets if target.startswith("/")}
    assert len(seen) > 60
    for target in sorted(seen)[::3]:
        assert client.get(target).status_code == 200, target
    for source in Page(client.get("/search").text).sources:
        assert client.get(source).status_code == 200, source


@pytest.mark.once
@pytest.mark.parametrize("path", ["/", "/papers/month/2026-08", "/papers/trending", "/papers/discussed", "/papers/new"])
def test_the_first_page_is_light(client: TestClient, path: str) -> None:
    page = client.get(path, headers={"accept-encoding": "gzip"})
    assert page.headers["content-encoding"] == "gzip"
    size = 0
    for source in [path, *Page(page.text).sources]:
        with client.stream("GET", source, headers={"accept-encoding": "gzip"}) as response:
            size += sum(len(part) for part in response.iter_raw())
    assert size < 100_000


def test_feed_is_by_votes_then_by_time(client: TestClient, few: list[Paper]) -> None:
    day = [paper for paper in few if str(paper.daily_date) == "2026-08-21"]
    ids = re.findall(r'class="paper-title"><a href="/papers/([^"]+)"', client.get("/").text)
    assert ids == re.findall(
        r'class="paper-title"><a href="/papers/([^"]+)"', client.get("/papers/date/2026-08-21").text
    )
    votes = {paper.id: paper.upvotes for paper in day}
    assert sorted(ids) == sorted(votes) and [votes[i] for i in ids] == sorted(votes.values(), reverse=True)
    coded = re.findall(r'class="paper-title"><a href="/papers/([^"]+)"', client.get("/?code=1").text)
    assert sorted(coded) == sorted(paper.id for paper in day if paper.has_code)


def test_previous_and_next_lead_through_the_days(client: TestClient) -> None:
    text = client.get("/papers/date/2026-08-20").text
    assert 'rel="prev" href="/papers/date/2026-08-19"' in text and 'rel="next" href="/papers/date/2026-08-21"' in text
    week = client.get("/papers/week/2026-W34").text
    assert 'rel="prev" href="/papers/week/2026-W33"' in week and "Later" in week


def test_paper_page(client: TestClient, few: list[Paper]) -> None:
    paper = max((paper for paper in few if paper.github_stars and paper.project_page), key=lambda one: one.upvotes)
    text = client.get(f"/papers/{paper.id}").text
    for part in (
        f"https://arxiv.org/abs/{paper.id}", f"https://arxiv.org/pdf/{paper.id}", paper.github_repo, paper.project_page,
        "Similar papers", "@misc{", paper.authors[0], f"/papers/{paper.id}.md",
    ):  # fmt: skip
        assert part and part.replace("&", "&amp;") in text
    assert len(re.findall(r'class="likeness"', text)) == 8


def test_markdown_by_ending_and_by_accept(client: TestClient) -> None:
    one = client.get("/papers/evil/one.md")
    two = client.get("/papers/evil/one", headers={"accept": "text/markdown"})
    assert one.text == two.text and one.headers["content-type"] == "text/markdown; charset=utf-8"
    assert (
        "## Abstract" in one.text and "\\<script\\>" in one.text and one.headers["x-content-type-options"] == "nosniff"
    )
    assert client.get("/papers/none.md").status_code == 404


def test_what_was_ingested_is_never_markup(client: TestClient) -> None:
    for path in ("/papers/evil/one", "/search?q=Mallory", "/search?q=alert&org=O%27Brien+%26+%3CSons%3E"):
        text = client.get(path).text
        assert "evil/one" in text
        assert "<script>alert" not in text and "<img src=x" not in text and "<i>Mallory" not in text
        assert 'href="javascript' not in text and "49" not in text.split("</title>")[0]


def test_what_was_asked_is_never_markup(client: TestClient) -> None:
    query = "\"><script>alert(1)</script>{{7*7}}' OR 1=1 --"
    response = client.get("/search", params={"q": query, "org": query, "mode": "hybrid"})
    assert response.status_code == 200 and "<script>alert" not in response.text and "{{7*7}}" in response.text


def test_search_shows_why(client: TestClient) -> None:
    text = client.get("/search", params={"q": "video generation"}).text
    assert "<mark>" in text and "cosine" in text and re.search(r"Words</span><b>#1</b>", text)


def test_no_hits_help(client: TestClient) -> None:
    text = client.get("/search?q=model&org=NVIDIA&votes=1000000").text
    assert "Nothing found" in text and "Without “1,000,000+ votes”" in text and "Without any filter" in text
    text = client.get("/search?q=model&org=NVIDA").text
    assert "Did you mean" in text and 'org=NVIDIA"' in text
    text = client.get("/search?q=zzzzqq&mode=keyword").text
    assert "none has these words" in text and "Search by meaning as well" in text
    assert "nearest by meaning" in client.get("/search?q=zzzzqq").text


def test_an_id_goes_to_its_paper(client: TestClient, few: list[Paper]) -> None:
    for query in (few[0].id, f"arXiv:{few[0].id}v2", f"https://arxiv.org/pdf/{few[0].id}.pdf"):
        response = client.get("/search", params={"q": query})
        assert (response.status_code, response.headers["location"]) == (303, f"/papers/{few[0].id}")
    response = client.get("/search", params={"q": few[0].id}, headers={"HX-Request": "true"})
    assert (response.status_code, response.headers["hx-redirect"]) == (200, f"/papers/{few[0].id}")
    response = client.get("/search?q=a+b&from=&to=&org=&mode=hybrid&text=&page=2")
    assert (response.status_code, response.headers["location"]) == (303, "/search?q=a+b&page=2")
    response = client.get("/search?q=a+b&org=&mode=hybrid&votes=2", headers={"HX-Request": "true"})
    assert (response.status_code, response.headers["hx-replace-url"]) == (200, "/search?q=a+b&votes=2")
    assert client.get(f"/papers/{few[0].id}v3").headers["location"] == f"/papers/{few[0].id}"
    assert "2001.99999 is not in this collection" in client.get("/search?q=2001.99999").text


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/search?q=" + "x" * 251, 400, "251 characters; at most 250"),
        ("/search?q=" + "x" * 60_000, 400, "60000 characters; at most 250"),
        ("/search?q=a&votes=many", 400, "Votes is &#39;many&#39;; expected a whole number"),
        ("/search?q=a&votes=-1", 400, "Votes is &#39;-1&#39;"),
        ("/search?q=a&votes=1e9", 400, "expected a whole number"),
        ("/search?q=a&from=2025-02-30", 400, "From: &#39;2025-02-30&#39; is not a day"),
        ("/search?q=a&from=2026-01-01&to=2025-01-01", 400, "exchange them"),
        ("/search?q=a&code=maybe", 400, "expected 1 or 0"),
        ("/search?q=a&mode=magic", 400, "expected one of hybrid, semantic, keyword"),
        ("/search?q=a&page=0", 400, "Page is &#39;0&#39;"),
        ("/search?q=a&page=-1", 400, "Page is &#39;-1&#39;"),
        ("/search?q=a&page=x", 400, "Page is &#39;x&#39;"),
        ("/search?q=a&page=1.5", 400, "Page is"),
        ("/search?q=a&page=1000000000", 404, "Page 1000000000 does not exist"),
        ("/search?q=a&page=9999", 404, "the last one is"),
        ("/search?q=a&page=" + "9" * 400, 400, "Page is"),
        ("/search?org=" + "x" * 301, 400, "at most 300"),
        ("/search?q=%ff", 400, "not UTF-8"),
        ("/search?org=%ff", 400, "not UTF-8"),
        ("/papers/date/2025-13-01", 400, "is not a day; expected the form 2025-02-28"),
        ("/papers/date/yesterday", 400, "is not a day"),
        ("/papers/week/2025-W54", 400, "is not a week"),
        ("/papers/month/2025-2", 400, "is not a month"),
        ("/papers/date/2026-08-21?page=99", 404, "the last one is 1"),
        ("/papers/date/2026-08-21?sort=magic", 400, "expected votes or newest"),
        ("/papers/trending?half=0.4", 400, "expected a number of days from 0.5 to 365"),
        ("/papers/trending?half=366", 400, "expected a number of days from 0.5 to 365"),
        ("/papers/trending?half=1e2", 400, "Half is &#39;1e2&#39;"),
        ("/papers/discussed?days=8", 400, "expected one of 7, 30, 365, all"),
        ("/papers/new?votes=many", 400, "Votes is &#39;many&#39;; expected a whole number"),
        ("/papers/new?code=maybe", 400, "expected 1 or 0"),
        ("/papers/new?from=2026-02-30", 400, "From: &#39;2026-02-30&#39; is not a day"),
        ("/papers/discussed?from=2026-01-02&to=2026-01-01", 400, "exchange them"),
        ("/papers/trending?topic=the+of", 400, "has no word to look for"),
        ("/papers/new?topic=" + "x" * 251, 400, "at most 250"),
        ("/papers/new?author=" + "x" * 301, 400, "at most 300"),
        ("/papers/new?author=%ff", 400, "not UTF-8"),
        ("/papers/new.atom?votes=x", 400, "expected a whole number"),
        ("/papers/date/2026-13-01.rss", 400, "is not a day"),
        ("/papers/new?page=9999", 404, "the last one is"),
        ("/papers/trending?page=77", 404, "does not exist"),
        ("/papers/9999.99999", 404, "There is no paper &#39;9999.99999&#39;"),
        ("/papers/../../etc/passwd", 404, ""),
        ("/papers/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404, ""),
        ("/papers/" + "a" * 5000, 404, "There is no paper"),
        ("/papers/%00", 404, "There is no paper"),
        ("/papers/%ff%fe", 404, "There is no paper"),
        ("/nowhere", 404, "no page at this address"),
        ("/static/../web.py", 404, ""),
        ("/static/%2e%2e/web.py", 404, ""),
    ],
)  # fmt: skip
def test_bad_addresses_get_one_clear_page(client: TestClient, path: str, status: int, message: str) -> None:
    response = client.get(path)
    assert response.status_code == status
    page = Page(response.text)
    assert message in response.text and page.count["h1"] == 1
    assert "q" in page.ids, "there is a search box"
    assert "content-security-policy" in response.headers and len(response.text) < 20_000


RAW = st.text(alphabet=st.characters(codec="utf-8"), max_size=60) | st.binary(max_size=40)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(
        [
            "q",
            "from",
            "to",
            "org",
            "votes",
            "code",
            "mode",
            "page",
            "sort",
            "half",
            "days",
            "topic",
            "author",
            "source",
            "category",
        ]
    ),
    value=RAW,
    path=st.sampled_from(
        [
            "/search",
            "/",
            "/papers/trending",
            "/papers/month/2026-08",
            "/papers/discussed",
            "/papers/new",
            "/papers/new.atom",
            "/papers/trending.rss",
            "/papers/daily.json",
        ]
    ),
)
@example(name="q", value=b"\xff\xfe\x00", path="/search")
@example(name="org", value="\ud7ff\x00\x1b[31m", path="/search")
def test_no_input_ever_breaks_the_site(client: TestClient, name: str, value: str | bytes, path: str) -> None:
    response = client.get(f"{path}?{name}={quote(value)}")
    assert response.status_code in (200, 303, 400, 404), response.text
    if response.headers.get("content-type", "").startswith("text/html"):
        Page(response.text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=RAW)
def test_no_path_ever_breaks_the_site(client: TestClient, tail: str | bytes) -> None:
    response = client.get(f"/papers/{quote(tail, safe='')}")
    assert response.status_code in (200, 301, 307, 400, 404), response.text


def test_markdown_goes_to_those_who_accept_it(client: TestClient, few: list[Paper]) -> None:
    for accept, kind in (("text/markdown", "markdown"), ("text/markdown;q=0, text/html", "html")):
        response = client.get(f"/papers/{few[0].id}", headers={"Accept": accept})
        assert response.headers["content-type"].startswith(f"text/{kind}")


def test_filters_are_folded_until_one_is_set(client: TestClient) -> None:
    assert '<details class="filter-box">' in client.get("/search?q=robots").text
    for setting in ("votes=5", "mode=keyword"):
        assert '<details class="filter-box" open>' in client.get(f"/search?q=robots&{setting}").text


def test_other_methods_are_refused(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        response = client.request(method, "/search")
        assert response.status_code == 405 and "<h1>" in response.text
        assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_theme_is_a_cookie_and_goes_back(client: TestClient, small: Site) -> None:
    browser = TestClient(create_app(small), follow_redirects=False)
    assert "data-theme" not in browser.get("/").text
    response = browser.post("/theme?to=dark&next=%2Fsearch%3Fq%3Dx")
    assert (response.status_code, response.headers["location"]) == (303, "/search?q=x")
    assert 'data-theme="dark"' in browser.get("/about").text
    for target in ("https://evil.io", "//evil.io", "/\\evil.io", "javascript:x", "", "/\n/evil.io", "//[evil"):
        assert browser.post("/theme", params={"to": "auto", "next": target}).headers["location"] == "/"
    assert "data-theme" not in browser.get("/about").text


def test_small_things(client: TestClient) -> None:
    assert (
        client.get("/healthz").json() == client.get("/health").json() and client.get("/health").json()["status"] == "ok"
    )
    assert "Disallow: /search" in client.get("/robots.txt").text
    assert client.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
    assert client.get("/papers").headers["location"] == "/"
    assert client.get("/openapi.json").status_code == 404 and client.get("/docs").status_code == 404
    style = re.search(r'href="(/static/site.css\?v=[^"]+)"', client.get("/").text)
    assert style and "immutable" in client.get(style.group(1)).headers["cache-control"]


def test_an_empty_site_says_what_to_do(tmp_path: Path) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    site.new_collection()
    browser = TestClient(create_app(site))
    assert "nextvec papers ingest" in browser.get("/").text
    for path in ("/search", "/search?q=x", "/papers/trending", "/about", "/papers/discussed", "/papers/new"):
        assert browser.get(path).status_code == 200
    site.close()


def test_trouble_with_the_disk_is_a_503_and_a_bug_a_500(
    small: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    browser = TestClient(create_app(small), raise_server_exceptions=False)

    def refuse(*_: object, **__: object) -> None:
        raise StorageError("cannot use '/srv/papers.db' at db.internal: the disk is full")

    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(type(small.db), "day_counts", refuse)
    response = browser.get("/")
    assert response.status_code == 503 and "/srv" not in response.text and "db.internal" not in response.text
    assert "The site cannot use its data at the moment: try again in a minute." in response.text
    assert "cannot use '/srv/papers.db' at db.internal: the disk is full" in caplog.text
    monkeypatch.setattr(type(small.db), "day_counts", crash)
    response = browser.get("/")
    assert response.status_code == 500 and "secret" not in response.text
    assert "content-security-policy" in response.headers


@pytest.mark.once
def test_style_and_scripts_ask_nobody_else() -> None:
    for path in STATIC.glob("*.*"):
        text = path.read_text(encoding="utf-8")
        assert "@import" not in text
        for address in re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]+", text):
            assert address == "http://www.w3.org", (path.name, address)


def _contrast(one: str, two: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((light(one), light(two)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.once
def test_colours_have_contrast_in_both_themes() -> None:
    style = (STATIC / "site.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{3,6}), (#[0-9a-f]{3,6})\);", style)
    assert len(pairs) == style.count(": light-dark(#"), "every colour is stated once, for both themes"
    for theme in (1, 2):
        colour = {pair[0]: pair[theme] for pair in pairs}
        for ink, ground in [
            ("ink", "paper"), ("ink", "card"), ("ink", "fill"), ("soft", "paper"), ("soft", "card"), ("soft", "fill"),
            ("accent", "paper"), ("accent", "card"), ("code", "code-fill"), ("paper", "navy"), ("mark-ink", "mark"),
        ]:  # fmt: skip
            assert _contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground, _contrast(colour[ink], colour[ground]))
