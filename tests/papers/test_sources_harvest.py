"""A small arXiv on this machine, harvested: pages, interruptions, deletions, and everything that may go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arxiv_fake import XML, Answer, Arxiv, Entry, oai_answer, oai_error, oai_record, serving
from fakes import HashEncoder

from nextvec.papers.db import Filters
from nextvec.papers.ingest import is_ready
from nextvec.papers.search import search
from nextvec.papers.site import Site
from nextvec.papers.sources.base import Request, open_source, source_names
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.harvest import harvest, harvests
from nextvec.types import InputError, NextvecError, OfflineError

pytestmark = pytest.mark.both


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path / "home", encoder=HashEncoder())
    yield opened
    opened.close()


def entries(count: int) -> list[Entry]:
    return [Entry(f"2504.{i:05d}", title=f"Study number{i} of topic{i % 5}") for i in range(1, count + 1)]


def take(site: Site, arxiv: Arxiv, source: str = "arxiv", **asked: object) -> object:
    path = "/api/query" if asked.keys() & {"ids", "query"} else "/oai"
    fetcher = Fetcher((), loopback=True, interval=0.0, sleep=lambda _: None)
    request = Request(address=f"{arxiv.address}{path}", **asked)  # type: ignore[arg-type]
    return harvest(site, open_source(source), request, fetcher=fetcher)


def test_the_registry_knows_every_file() -> None:
    assert source_names() == ["acl", "arxiv", "bibtex", "daily_papers", "file", "hf_daily"]
    for name in source_names():
        source = open_source(name)
        assert source.name == name and source.about and isinstance(source.hosts, tuple)
    with pytest.raises(InputError, match=r"known: acl, arxiv.*did you mean 'arxiv'"):
        open_source("arxif")


@pytest.mark.parametrize("prefix", ["arXiv", "oai_dc"])
def test_all_pages_of_a_set(site: Site, prefix: str) -> None:
    with serving(Arxiv(entries(8))) as arxiv:
        report = take(site, arxiv, prefix=prefix)
        again = take(site, arxiv, prefix=prefix)
    assert (report.read, report.changed, report.embedded, report.papers) == (8, 8, 8, 8)  # type: ignore[attr-defined]
    assert (again.changed, again.embedded) == (0, 0)  # type: ignore[attr-defined]
    assert "metadataPrefix=" + prefix in arxiv.asked[0] and "set=cs" in arxiv.asked[0]
    assert "resumptionToken" in arxiv.asked[1] and "set=" not in arxiv.asked[1]
    stored = site.db.get("2504.00002")
    assert stored is not None and stored.paper.authors == ("Ada Lovelace", "Kurt Gödel")
    assert stored.paper.summary == "We study a thing and find it to be so."
    assert stored.paper.published_at == datetime(2025, 4, 1) and stored.paper.source == "arxiv"
    assert is_ready(site) and search(site, "number4").matches[0].stored.paper.id == "2504.00004"


def test_the_next_harvest_asks_for_what_is_new(site: Site) -> None:
    with serving(Arxiv(entries(2))) as arxiv:
        take(site, arxiv)
        take(site, arxiv)
    day = (datetime.now(UTC) - timedelta(days=1)).date()
    assert "from=" not in arxiv.asked[0] and f"from={day}" in arxiv.asked[1], "a day of overlap"


def test_an_interrupted_harvest_goes_on_where_it_was(site: Site) -> None:
    def fail(number: int, path: str) -> Answer | None:
        return (500, {}, b"") if number >= 3 else None

    with serving(Arxiv(entries(9), trouble=fail)) as arxiv:
        with pytest.raises(OfflineError):
            take(site, arxiv)
        assert site.db.count() == 6 and harvests(site.db)[0].cursor == "arXiv|6"
        assert is_ready(site), "what came can be searched"
        arxiv.trouble = None
        before = len(arxiv.asked)
        report = take(site, arxiv)
    assert [path.partition("?")[2] for path in arxiv.asked[before:]] == ["verb=ListRecords&resumptionToken=arXiv%7C6"]
    assert site.db.count() == 9 and report.read == 3  # type: ignore[attr-defined]
    assert harvests(site.db)[0].cursor is None and harvests(site.db)[0].taken == 9


def test_a_token_that_is_forgotten_begins_again(site: Site) -> None:
    with serving(Arxiv(entries(9))) as arxiv:
        arxiv.trouble = lambda number, path: (500, {}, b"") if number >= 2 else None
        with pytest.raises(OfflineError):
            take(site, arxiv)
        arxiv.trouble, arxiv.forgotten = None, {"arXiv|3"}
        before = len(arxiv.asked)
        arxiv.forgotten = {"arXiv|3"}

        def forgive(number: int, path: str) -> Answer | None:
            if number == before + 2:
                arxiv.forgotten = set()
            return None

        arxiv.trouble = forgive
        take(site, arxiv)
    assert site.db.count() == 9 and harvests(site.db)[0].taken == 9


def test_a_deleted_record_takes_its_paper_away_and_brings_it_back(site: Site) -> None:
    with serving(Arxiv(entries(3))) as arxiv:
        take(site, arxiv)
        arxiv.entries[1].deleted = True
        report = take(site, arxiv)
        assert report.deleted == 1 and site.db.ids(Filters()) == {"2504.00001", "2504.00003"}  # type: ignore[attr-defined]
        assert set(site.collection.ids()) == site.db.ids(Filters()) and is_ready(site)
        assert not search(site, "number2", mode="keyword").matches
        arxiv.entries[1].deleted = False
        take(site, arxiv)
    assert site.db.count() == 3 and is_ready(site)


def test_a_revised_abstract_is_embedded_anew(site: Site) -> None:
    with serving(Arxiv(entries(3))) as arxiv:
        take(site, arxiv)
        arxiv.entries[0].abstract = "Now it is about zebrafish."
        report = take(site, arxiv)
    assert (report.changed, report.embedded) == (1, 1)  # type: ignore[attr-defined]
    assert search(site, "zebrafish").matches[0].stored.paper.id == "2504.00001"


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/">&a;</OAI-PMH>'


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, XML, BOMB), "document type or entities"),
        ((200, XML, oai_answer([oai_record(Entry("2504.1"))])[:200]), "broken or cut off"),
        ((200, XML, b"<html/>"), "expected OAI-PMH"),
        ((200, {"Content-Type": "text/html"}, b"<html/>"), "gives 'text/html'"),
        ((200, XML, oai_error("badArgument")), "arXiv refuses the request: badArgument no"),
        ((200, XML, oai_error("badResumptionToken")), "does not know the place"),
        ((200, XML, oai_answer([], "same")), "same resumption token twice"),
    ],
)
def test_what_arxiv_may_do_wrong_is_one_line_and_harms_nothing(site: Site, answer: Answer, message: str) -> None:
    with serving(Arxiv(entries(6))) as arxiv:
        take(site, arxiv)
        arxiv.trouble = lambda number, path: answer
        with pytest.raises(NextvecError, match=message) as caught:
            take(site, arxiv, set="math")
    assert "\n" not in str(caught.value) and site.db.count() == 6 and is_ready(site)


def test_records_that_cannot_be_used_are_counted_and_passed_over(site: Site) -> None:
    broken = [Entry("nonsense"), Entry("2504.00008", title=" "), Entry("2513.00001"), Entry("2504.00009")]
    with serving(Arxiv(broken, size=9)) as arxiv:
        broken[1].title = " "
        report = take(site, arxiv)
    assert report.refused == 3 and site.db.ids(Filters()) == {"2504.00009"}  # type: ignore[attr-defined]


def test_nothing_new_is_no_error(site: Site) -> None:
    with serving(Arxiv([])) as arxiv:
        assert take(site, arxiv).read == 0  # type: ignore[attr-defined]
    assert harvests(site.db)[0].finished is not None


def test_the_api_by_ids_and_by_query(site: Site) -> None:
    with serving(Arxiv(entries(250))) as arxiv:
        take(site, arxiv, ids=("2504.00003", "arXiv:2504.00005v2", "2504.99999"))
        assert site.db.ids(Filters()) == {"2504.00003", "2504.00005"}
        take(site, arxiv, query="cat:cs.CL", limit=120)
        assert site.db.count() == 120 and "sortBy=submittedDate" in arxiv.asked[1] and "start=100" in arxiv.asked[2]
        with pytest.raises(InputError, match="'nope' is no arXiv id"):
            take(site, arxiv, ids=("nope",))
        with pytest.raises(InputError, match="has no --set"):
            take(site, arxiv, query="x", set="cs")
    stored = site.db.get("2504.00005")
    assert stored is not None and stored.paper.published_at == datetime(2025, 4, 1, 10)


def test_a_limit_is_no_end(site: Site) -> None:
    with serving(Arxiv(entries(9), size=4)) as arxiv:
        take(site, arxiv, limit=5)
        assert site.db.count() == 5 and harvests(site.db)[0].finished is None
        take(site, arxiv)
    assert site.db.count() == 9


class Hub:
    """The Daily Papers of the Hub: three papers on each day asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.votes = 5
        self.body: bytes | None = None
        self.address = ""

    def answer(self, path: str) -> Answer:
        import json

        self.asked.append(path)
        day = path.partition("date=")[2][:10]
        papers = [
            {
                "paper": {
                    "id": f"25{day[5:7]}.{int(day[8:]):02d}00{i}",
                    "title": f"Paper {i} of {day}",
                    "summary": "Short.",
                    "authors": [{"name": "Ada"}, {"name": "Bob", "hidden": True}],
                    "upvotes": self.votes + i,
                    "publishedAt": f"{day}T01:00:00.000Z",
                    "submittedOnDailyAt": f"{day}T05:00:00.000Z",
                    "githubRepo": "javascript:alert(1)" if i else "https://github.com/a/b",
                    "githubStars": 7,
                    "organization": {"name": "lab", "fullname": "The Lab"},
                },
                "numComments": 2,
                "submittedBy": {"name": "someone", "fullname": "Some One"},
            }
            for i in range(3)
        ]
        body = self.body if self.body is not None else json.dumps(papers).encode()
        return 200, {"Content-Type": "application/json"}, body


def test_daily_papers_by_day(site: Site) -> None:
    from datetime import date

    with serving(Hub()) as hub:
        fetcher = Fetcher((), loopback=True, interval=0.0)
        request = Request(address=f"{hub.address}/api/daily_papers", start=date(2025, 3, 1), until=date(2025, 3, 3))
        report = harvest(site, open_source("hf_daily"), request, fetcher=fetcher)
        assert report.papers == 9 and len(hub.asked) == 3
        stored = site.db.get("2503.02000")
        assert stored is not None and stored.paper.daily_date == date(2025, 3, 2) and stored.paper.upvotes == 5
        assert stored.paper.organization == "The Lab" and stored.paper.submitted_by == "Some One"
        assert stored.paper.authors == ("Ada",) and stored.paper.github_repo == "https://github.com/a/b"
        other = site.db.get("2503.02001")
        assert other is not None and other.paper.github_repo is None, "only plain addresses become links"
        for body in (b"[{", b"{}", b"[1]", b"[" * 100_000):
            hub.body = body
            with pytest.raises(InputError, match="daily papers of"):
                harvest(site, open_source("hf_daily"), request, fetcher=fetcher)
        hub.body, hub.votes = None, 50
        harvest(site, open_source("hf_daily"), request, fetcher=fetcher)
    stored = site.db.get("2503.02000")
    assert stored is not None and stored.paper.upvotes == 50
    with pytest.raises(InputError, match="expected 1 to 400"):
        harvest(site, open_source("hf_daily"), Request(start=date(2020, 1, 1)))
