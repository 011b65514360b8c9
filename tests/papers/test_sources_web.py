"""The pages of papers in: what was taken away, handing in, what rises, where a paper comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arxiv_fake import Arxiv, Entry, serving
from databases import copy_home
from fakes import HashEncoder
from fastapi.testclient import TestClient
from people import copied
from test_web import Page

from nextvec.papers.db_errors import BusyDatabaseError
from nextvec.papers.ingest import ingest
from nextvec.papers.rate import RateLimit
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation, queue, snapshots
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.web import PER_MINUTE
from nextvec.papers.web import create_app
from nextvec.types import ConflictError, NotFoundError, OfflineError

TODAY = datetime.now(UTC).date()
PAPERS = [
    Paper(
        id=f"2504.0000{i}",
        title=f"Zebra study {i}",
        summary="About zebras and memory.",
        authors=("Ada Lovelace",),
        upvotes=10 * i,
        daily_date=TODAY - timedelta(days=20 * i),
        organization="Lab",
    )
    for i in range(1, 5)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with these papers, for tests that take a copy."""
    home = tmp_path_factory.mktemp("made")
    opened = Site(home, encoder=HashEncoder())
    ingest(opened, PAPERS, source="hf_daily")
    opened.close()
    return home


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Iterator[Site]:
    opened = copied(made, tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def client(site: Site) -> TestClient:
    return TestClient(create_app(site), follow_redirects=False, raise_server_exceptions=False)


def page(client: TestClient, path: str, status: int = 200) -> str:
    response = client.get(path)
    assert response.status_code == status, response.text
    found = Page(response.text)
    assert len(found.ids) == len(set(found.ids)) and found.count["h1"] == 1
    assert not found.fields - found.labels
    return response.text


def test_a_hidden_paper_vanishes_everywhere_at_once(client: TestClient, site: Site) -> None:
    seen = [
        "/", f"/papers/date/{PAPERS[0].daily_date}", "/papers/trending", "/papers/new", "/papers/rising?last=30",
        "/search?q=zebra+study", "/search?q=zebra&mode=keyword", "/search?q=zebra&mode=semantic", "/search?org=Lab",
        "/papers/2504.00002", "/papers/new.atom", "/papers/new.rss", "/papers/new.json", "/papers/new?topic=zebra",
        "/papers/trending.atom", "/papers/new?author=Ada+Lovelace", "/api/papers", "/api/daily_papers",
        "/api/papers/search?q=zebra", "/api/papers/2504.00002/similar",
    ]  # fmt: skip
    assert all("2504.00001" in client.get(path).text for path in seen), "they all show it before"
    moderation.hide(site.db, "2504.00001", reason="a <b>copy</b>", actor="me")
    for path in seen:
        answer = client.get(path)
        assert answer.status_code == 200 and "2504.00001" not in answer.text, path
    for path in ("/papers/2504.00001", "/papers/2504.00001v2", "/papers/2504.00001.md"):
        text = page(client, path, 410)
        assert "taken away" in text.lower() and "a &lt;b&gt;copy" in text
    answer = client.get("/api/papers/2504.00001")
    assert answer.status_code == 410 and "a <b>copy" in answer.json()["error"]
    moderation.unhide(site.db, "2504.00001", actor="me")
    assert page(client, "/papers/2504.00001")


def test_a_merged_paper_leads_to_the_other(client: TestClient, site: Site) -> None:
    moderation.merge(site.db, "2504.00002", "2504.00003", actor="me")
    for path in ("/papers/2504.00003", "/papers/2504.00003.md"):
        answer = client.get(path)
        assert answer.status_code == 301 and answer.headers["location"] == path.replace("00003", "00002")
    assert client.get("/api/papers/2504.00003").json()["id"] == "2504.00002"
    assert "2504.00003" not in client.get("/papers/new.json").text
    assert client.get("/papers/nothing-of-it").status_code == 404


def test_a_papers_page_tells_its_sources_and_draws_its_votes(client: TestClient, site: Site) -> None:
    ingest(site, [replace(PAPERS[0], title="Zebra study 1, by hand")], source="file")
    text = page(client, "/papers/2504.00001")
    assert "Where this comes from" in text and "Hugging Face Daily Papers" in text and "a file</b>: " in text
    assert 'class="spark"' not in text
    with site.db.write() as connection:
        for i in range(3):
            row = {"id": "2504.00001", "upvotes": 10 + i, "num_comments": 0}
            snapshots.note(connection, [row], day=TODAY + timedelta(days=i + 1))
    text = page(client, "/papers/2504.00001")
    assert 'class="spark"' in text and 'role="img"' in text and "style=" not in text


def test_what_rises(client: TestClient, site: Site) -> None:
    with site.db.write() as connection:
        connection.exec_driver_sql("DELETE FROM snapshots")
        for i, paper in enumerate(PAPERS):
            if i >= 2:  # the others came later, and began with none
                row = {"id": paper.id, "upvotes": paper.upvotes - i, "num_comments": 0}
                snapshots.note(connection, [row], day=TODAY - timedelta(days=55))
            row = {"id": paper.id, "upvotes": paper.upvotes, "num_comments": 0}
            snapshots.note(connection, [row], day=TODAY)
    text = page(client, "/papers/rising?last=30")
    assert re.findall(r"<b>\+(\d+)</b>", text) == ["20", "10", "3", "2"]
    assert 'aria-current="page">Trending' in text
    assert re.findall(r"<b>\+(\d+)</b>", page(client, "/papers/rising?last=30&votes=15")) == ["20", "3", "2"]
    assert "no paper" in page(client, "/papers/rising?last=1&votes=9999").lower()
    assert "2504.00003" in client.get("/papers/rising.atom?last=30").text
    assert json.loads(client.get("/papers/rising.json?last=30&votes=35").text)["items"][0]["url"].endswith("2504.00004")
    assert "/papers/rising" in page(client, "/papers/trending")
    for bad in ("0", "91", "x"):
        assert client.get(f"/papers/rising?last={bad}").status_code == 400


# -- handing in ----------------------------------------------------------------------------------------------------
def test_a_link_becomes_a_paper(client: TestClient, site: Site) -> None:
    assert "Hand in a paper" in page(client, "/") and "required" in page(client, "/submit")
    answer = client.post("/submit", data={"link": "https://arxiv.org/abs/2505.00001v2"})
    assert answer.status_code == 303 and answer.headers["location"] == "/submit/2505.00001"
    assert "It waits" in page(client, "/submit/2505.00001") and "2505.00001" in page(client, "/submit")
    assert client.post("/submit", data={"link": "2505.00001"}).headers["location"] == "/submit/2505.00001"
    assert client.post("/submit", data={"link": "2504.00002"}).headers["location"] == "/papers/2504.00002"
    queue.submit(site.db, "2505.99999")
    with serving(Arxiv([Entry("2505.00001", title="Submitted zebras")])) as arxiv:
        fetcher = Fetcher((), loopback=True, interval=0.0)
        done, failed, report = queue.run(site, address=f"{arxiv.address}/api/query", fetcher=fetcher)
        assert (done, failed) == (1, 1) and report is not None and report.papers == 5
        assert queue.run(site, fetcher=fetcher) == (0, 0, None) and len(arxiv.asked) == 1
    assert "read it" in page(client, "/submit/2505.00001") and page(client, "/papers/2505.00001")
    assert "arXiv has no paper with this id" in page(client, "/submit/2505.99999")
    assert client.post("/submit", data={"link": "2505.99999"}).status_code == 303, "a failed one may be tried again"
    assert client.get("/submit/nothing").status_code == 404


def test_the_queue_is_decided_upon(site: Site, client: TestClient) -> None:
    for i in (1, 2, 3):
        queue.submit(site.db, f"2505.0000{i}")
    queue.decide(site.db, "2505.00001", "approved", actor="me")
    queue.decide(site.db, "2505.00002", "rejected", actor="me", reason="off <topic>")
    assert "off &lt;topic&gt;" in page(client, "/submit/2505.00002")
    assert queue.submit(site.db, "2505.00002").state == "rejected"
    entries = [Entry(f"2505.0000{i}") for i in (1, 2, 3)]
    with serving(Arxiv(entries)) as arxiv:
        fetcher = Fetcher((), loopback=True, interval=0.0)
        asked = {"address": f"{arxiv.address}/api/query", "fetcher": fetcher}
        assert queue.run(site, approved_only=True, **asked)[0] == 1  # type: ignore[arg-type]
        assert queue.run(site, **asked)[0] == 1  # type: ignore[arg-type]
        arxiv.trouble = lambda number, path: (500, {}, b"")
        queue.submit(site.db, "2505.00009")
        patient = Fetcher((), loopback=True, interval=0.0, sleep=lambda _: None)
        for _ in range(3):
            with pytest.raises(OfflineError):
                queue.run(site, address=asked["address"], fetcher=patient)  # type: ignore[arg-type]
    assert [one.state for one in queue.listed(site.db)].count("done") == 2
    broken = queue.get(site.db, "2505.00009")
    assert broken is not None and (broken.state, broken.tries) == ("failed", 3)
    told = page(client, "/submit/2505.00009")
    assert "arXiv did not answer" in told and "127.0.0.1" not in told
    assert site.db.get("2505.00002") is None
    assert [act.action for act in moderation.audit(site.db)] == ["reject", "approve"]
    with pytest.raises(ConflictError):
        queue.decide(site.db, "2505.00001", "rejected", actor="me", reason="late")
    with pytest.raises(NotFoundError):
        queue.decide(site.db, "2505.77777", "approved", actor="me")


def test_a_paper_that_was_hidden_is_not_handed_in_again(site: Site, client: TestClient) -> None:
    moderation.hide(site.db, "2504.00001", reason="spam", actor="me")
    answer = client.post("/submit", data={"link": "2504.00001"})
    assert answer.status_code == 409 and "was taken away here: spam" in answer.text


@pytest.mark.parametrize(
    "link",
    [
        "", "javascript:alert(1)", "https://user:pw@arxiv.org/abs/2504.00001", "http://[::1]/abs/2504.00001",
        "https://xn--arxv-8cd.org/abs/2504.00001", "http://169.254.169.254/", "x" * 1_000,
        '"><script>alert(1)</script>',
    ],
)  # fmt: skip
def test_hostile_links_are_refused_on_the_form(client: TestClient, site: Site, link: str) -> None:
    answer = client.post("/submit", data={"link": link})
    found = Page(answer.text)
    assert answer.status_code == 400 and 'role="alert"' in answer.text and "<script>alert" not in answer.text
    assert found.count["h1"] == 1 and queue.listed(site.db) == []


def test_forms_that_are_none(client: TestClient) -> None:
    assert client.post("/submit", json={"link": "2504.00001"}).status_code == 400
    assert client.post("/submit", data={"link": "x" * 10_000}).status_code == 400
    assert client.post("/submit", data={str(i): "x" for i in range(50)}).status_code == 400
    crossed = client.post("/submit", data={"link": "2505.00001"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert crossed.status_code == 400 and "own page only" in crossed.text


def test_a_client_can_hand_in_only_so_many(client: TestClient) -> None:
    client.app.state.submit_limit = RateLimit(PER_MINUTE, clock=lambda: 0.0)  # type: ignore[attr-defined]
    answers = [client.post("/submit", data={"link": f"2505.0000{i}"}) for i in range(8)]
    assert [answer.status_code for answer in answers] == [303] * 6 + [429] * 2
    assert answers[-1].headers["Retry-After"] and "try again in" in answers[-1].text


def test_the_queue_has_an_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST", 2)
    queue.submit(site.db, "2505.00001")
    queue.submit(site.db, "2505.00002")
    with pytest.raises(ConflictError, match="2 papers are waiting already"):
        queue.submit(site.db, "2505.00003")


def test_a_read_only_site_takes_nothing(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.papers import place as module

    with site.db.write() as connection:  # as an older nextvec left it
        for table in ("snapshots", "withdrawn", "source_records", "names", "submissions"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
    site.close()
    home = tmp_path / "copy"
    copy_home(site.home, home)
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    reading = Site(home, encoder=HashEncoder(), must_exist=True)
    client = TestClient(create_app(reading), follow_redirects=False, raise_server_exceptions=False)
    assert "/submit" not in page(client, "/") and "read-only disk" in page(client, "/submit")
    assert "read-only disk" in client.post("/submit", data={"link": "2505.00001"}).text
    assert page(client, "/papers/2504.00001") and client.get("/search?q=zebra").status_code == 200
    assert client.get("/papers/2504.77777").status_code == 404
    assert client.get("/submit/2504.00001").status_code == 404
    reading.close()


def test_a_busy_database_is_told_without_its_place(
    site: Site, client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(*_: object) -> None:
        raise BusyDatabaseError("the paper database '/srv/papers.db' is busy with another writer: try again")

    monkeypatch.setattr(queue, "submit", busy)
    answer = client.post("/submit", data={"link": "2505.00042"})
    assert answer.status_code == 503 and "/srv" not in answer.text
    assert "The site is busy with another writer: try again in a moment." in answer.text
    assert "'/srv/papers.db' is busy" in caplog.text
