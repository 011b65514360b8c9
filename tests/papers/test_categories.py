"""Venues and categories: where they come from, how a filter compares them, that views, searches and feeds know them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from arxiv_fake import Arxiv, Entry, serving
from databases import open_database, raw
from fakes import HashEncoder
from fastapi.testclient import TestClient
from people import copied, join
from test_web import Page

from nextvec.papers import categories
from nextvec.papers.accounts import interests
from nextvec.papers.facets import facets
from nextvec.papers.ingest import ingest
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.papers.params import read_category
from nextvec.papers.ranking import Request, rank
from nextvec.papers.records import Paper, parse_record
from nextvec.papers.site import Site
from nextvec.papers.sources.base import Record, open_source, read_content
from nextvec.papers.sources.base import Request as Wanted
from nextvec.papers.sources.combine import combine
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.harvest import harvest
from nextvec.papers.tables import Filters, alternatives
from nextvec.papers.web import create_app
from nextvec.types import InputError

pytestmark = pytest.mark.both

TODAY = datetime.now(UTC).date()


def paper(number: int, title: str, *names: str, **more: object) -> Paper:
    values: dict[str, object] = {
        "upvotes": 10 * number,
        "num_comments": number,
        "daily_date": TODAY - timedelta(days=1),
        "published_at": datetime(2025, 4, number),
    }
    return Paper(
        id=f"2504.0000{number}",
        title=title,
        summary="About zebras and memory.",
        categories=names,
        **(values | more),  # type: ignore[arg-type]
    )


PAPERS = [
    paper(1, "Zebra words", "cs.CL", "cs.LG"),
    paper(2, "Zebra pictures", "cs.CV"),
    paper(3, "Zebra meeting", "cs.CL", "emnlp", "Journées d'été"),
    paper(4, "Zebra alone"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with these papers, for tests that take a copy."""
    home = tmp_path_factory.mktemp("made")
    opened = Site(home, encoder=HashEncoder())
    ingest(opened, PAPERS)
    opened.close()
    return home


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Iterator[Site]:
    opened = copied(made, tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def client(site: Site) -> TestClient:
    return TestClient(create_app(site), follow_redirects=False)


def shown(text: str) -> set[int]:
    """The numbers of the papers that a page or feed names."""
    return {int(number) for number in re.findall(r"2504\.0000(\d)", text)}


# -- the database --------------------------------------------------------------------------------------------------
def test_they_are_kept_in_their_order_and_follow_the_paper(site: Site) -> None:
    stored = site.db.get("2504.00003")
    assert stored is not None and stored.paper.categories == ("cs.CL", "emnlp", "Journées d'été")
    stamp = site.stamp
    again = ingest(site, [replace(PAPERS[2], categories=("emnlp",))])
    assert (again.changed, again.embedded) == (1, 0), "a category is no reason to embed a text anew"
    assert site.stamp != stamp and site.db.count(Filters(category="cs.CL")) == 1
    with site.db.write() as connection:
        site.db.drop(connection, ["2504.00003"])
        assert categories.of(connection, ["2504.00003"]) == {}


@pytest.mark.parametrize(
    ("category", "numbers"),
    [
        ("cs.CL", {1, 3}),
        ("CS.cl", {1, 3}),
        ("journees d'ete", {3}),
        ("cs.CV,emnlp", {2, 3}),
        (" cs.CV , , cs.lg,CS.LG", {1, 2}),
        ("cs", set()),
    ],
)
def test_names_are_compared_as_wholes_and_any_will_do(site: Site, category: str, numbers: set[int]) -> None:
    assert shown(" ".join(site.db.ids(Filters(category=category)))) == numbers


def test_from_the_version_before(tmp_path: Path) -> None:
    with raw(tmp_path) as connection:
        migrate(connection, [step for step in MIGRATIONS if step.number < 9])
        assert not sa.inspect(connection).has_table("categories")
        statement = "INSERT INTO papers (id, title, summary, authors, upvotes, num_comments) VALUES "
        connection.execute(sa.text(statement + "('2504.00001', 'Zebra words', 'About.', '[]', 1, 0)"))
    with open_database(tmp_path) as db:
        stored = db.get("2504.00001")
        assert stored is not None and stored.paper.categories == ()
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, PAPERS)
    assert shown(" ".join(site.db.ids(Filters(category="cs.CL")))) == {1, 3}, "the next ingest fills them in"
    site.close()


def test_records_of_the_version_before_are_taken_again(site: Site) -> None:
    """What a source said was noted without categories: the same record with them is another one."""
    old = {"paper": {"id": "x", "title": "T", "summary": "", "authors": []}, "names": [], "details": {}}
    assert read_content("x", json.dumps(old)).paper.categories == ()
    bare = [replace(one, id=f"x{i}", categories=()) for i, one in enumerate(PAPERS)]
    ingest(site, bare)
    report = ingest(site, [replace(one, categories=("cs.AI",)) for one in bare])
    assert (report.changed, report.embedded) == (4, 0) and site.db.count(Filters(category="cs.AI")) == 4


@pytest.mark.sqlite
def test_an_older_home_on_a_read_only_disk_is_served_without(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.papers import connection as module

    with site.db.write() as connection:
        connection.execute(sa.text("DROP TABLE categories"))
        connection.execute(sa.text("DELETE FROM schema_version WHERE version >= 9"))
    site.close()
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    older = Site(site.home, encoder=HashEncoder(), must_exist=True)
    browser = TestClient(create_app(older))
    for path in ("/", "/papers/2504.00001", "/search?q=zebra", "/papers/new.atom", "/api/papers/search?q=zebra"):
        assert browser.get(path).status_code == 200, path
    assert browser.get("/search?category=cs.CL").status_code == 503
    older.close()


# -- records -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"categories": "cs.CL cs.LG"}, ("cs.CL", "cs.LG")),
        ({"categories": "cs.CL; cs.LG,stat.ML"}, ("cs.CL", "cs.LG", "stat.ML")),
        ({"categories": ["cs.CL", "cs.cl", " "]}, ("cs.CL",)),
        ({"venue": "Proc. of Things, 2020", "booktitle": "No"}, ("Proc. of Things 2020",)),
        ({"booktitle": "Proc. of Things"}, ("Proc. of Things",)),
        ({"categories": ["cs.CL"], "venue": ["acl", "findings"]}, ("cs.CL", "acl", "findings")),
        ({"categories": None, "venue": ""}, ()),
    ],
)
def test_records(record: dict[str, object], expected: tuple[str, ...]) -> None:
    found = parse_record({"id": "a", "title": "T", "summary": ""} | record, where="here")
    assert found.categories == expected


@pytest.mark.parametrize("value", [7, [1], {"a": "b"}, [f"c{i}" for i in range(51)]])
def test_records_that_cannot_be(value: object) -> None:
    with pytest.raises(InputError, match=r"^here: .*(expected a string or a list of strings|at most 50)"):
        parse_record({"id": "a", "title": "T", "summary": "", "categories": value}, where="here")


def test_what_sources_say(tmp_path: Path, site: Site) -> None:
    def read(source: str, name: str, text: str) -> list[tuple[str, ...]]:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        batches = open_source(source).batches(Wanted(file=path), Fetcher(()), None)
        return [record.paper.categories for batch in batches for record in batch.records]

    line = {"id": "2505.00001", "title": "T", "summary": "S", "categories": "cs.CL math.AG 68T50 I.2.7 q-bio.NC hep-th"}
    assert read("arxiv", "a.jsonl", json.dumps(line)) == [("cs.CL", "math.AG", "q-bio.NC", "hep-th")]
    line = {"id": "2024.emnlp-main.1", "title": "T", "abstract": "S", "venues": ["emnlp", "findings"]}
    assert read("acl", "a.jsonl", json.dumps(line)) == [("emnlp", "findings")]
    body = (
        '<collection id="2024.emnlp"><volume id="main"><meta><booktitle>B</booktitle><year>2024</year>'
        '<venue>emnlp</venue><venue>findings</venue></meta><paper id="1"><title>T</title><abstract>S</abstract>'
        "</paper></volume></collection>"
    )
    assert read("acl", "a.xml", body) == [("emnlp", "findings")]
    entry = "@inproceedings{a, title={T}, booktitle={Proceedings of Things, Part {II}}, journal={J}}"
    assert read("bibtex", "a.bib", entry) == [("Proceedings of Things Part II",)]
    table = "id,title,summary,venue\na,T,S,acl; emnlp\n"
    assert read("file", "a.csv", table) == [("acl", "emnlp")]
    with serving(Arxiv([Entry("2505.00001")])) as arxiv:
        for wanted in (
            Wanted(address=f"{arxiv.address}/oai"),
            Wanted(address=f"{arxiv.address}/api/query", ids=("2505.00001",)),
        ):
            harvest(site, open_source("arxiv"), wanted, fetcher=Fetcher((), loopback=True, interval=0.0))
            stored = site.db.get("2505.00001")
            assert stored is not None and stored.paper.categories[:1] == ("cs.CL",)


def test_a_paper_of_several_sources_is_in_the_categories_of_all() -> None:
    given = [
        ("bibtex", Record("b", replace(PAPERS[0], categories=("A meeting",)))),
        ("acl", Record("c", replace(PAPERS[0], categories=("emnlp",)))),
        ("arxiv", Record("a", replace(PAPERS[0], categories=("cs.CL", "emnlp")))),
    ]
    made, taken = combine("a", given)
    assert made.categories == ("cs.CL", "emnlp", "A meeting") and taken["categories"] == 2


# -- where it filters ----------------------------------------------------------------------------------------------
VIEWS = (
    "/",
    f"/papers/date/{TODAY - timedelta(days=1)}",
    "/papers/trending",
    "/papers/discussed?days=all",
    "/papers/new",
)
FEEDS = [f"/papers/{name}.{ending}" for name in ("new", "trending", "daily") for ending in ("atom", "rss", "json")]


SEARCHES = (
    *("/search", "/search.atom", "/search?q=zebra", "/search?q=zebra&sort=votes", "/search?q=zebra&mode=semantic"),
    *("/search?like=2504.00004", "/api/papers/search", "/api/papers/search?q=zebra"),
)


@pytest.mark.parametrize("path", [*VIEWS, *FEEDS, *SEARCHES])
def test_every_view_feed_and_search_knows_it(client: TestClient, path: str) -> None:
    joined = f"{path}{'&' if '?' in path else '?'}category="
    text = client.get(joined + "cs.CL").text.replace("like=2504.00004", "")
    text = re.sub(r'(?s)<p class="chips">.*?</p>|<form.*?</form>', "", text)  # they name examples of a search
    assert shown(text) == {1, 3}
    either = client.get(joined + "cs.cv%2Cemnlp").text
    assert {2, 3} <= shown(either) and 1 not in shown(either)


def test_the_page_says_what_is_chosen(client: TestClient) -> None:
    text = client.get("/papers/new?category=cs.cl%2C+EMNLP").text
    assert 'name="category" value="cs.CL,emnlp"' in text and "in cs.CL or emnlp" in text
    assert Page(text).labels <= set(Page(text).ids)
    text = client.get("/search?q=zebra&category=emnlp").text
    assert 'name="category" value="emnlp"' in text and "Remove the filter </span>in emnlp" in text
    text = client.get("/papers/2504.00003").text
    assert '<a href="/papers/new?category=emnlp">emnlp</a>' in text and "Venue or category" in text
    assert "Venue or category" not in client.get("/papers/2504.00004").text.partition("<aside")[2]


@pytest.mark.parametrize("path", ["/", "/papers/new", "/papers/trending", "/search", "/subscribe"])
def test_forms_offer_those_of_most_papers_first_without_a_script(client: TestClient, path: str) -> None:
    text = client.get(path).text
    field = re.search(r'<input type="text" name="category"[^>]*>', text)
    assert field and 'list="categories"' in field.group()
    (offered,) = re.findall(r'<datalist id="categories">(.*?)</datalist>', text)
    names = re.findall(r'<option value="([^"]*)">', offered)
    assert names == ["cs.CL", "cs.CV", "cs.LG", "emnlp", "Journées d&#39;été"]


def test_the_most_common_ones(site: Site) -> None:
    assert site.db.categories(limit=2) == [("cs.CL", 2), ("cs.CV", 1)]
    ingest(site, [paper(5, "Zebra five", "CS.CL", "CS.CV"), paper(6, "Zebra six", "CS.CV")])
    assert site.db.categories(limit=9)[:2] == [("cs.CL", 3), ("CS.CV", 3)], "as most papers spell it"


def test_a_subscription_is_narrowed_by_it(client: TestClient) -> None:
    text = client.get("/subscribe?category=cs.CL").text
    assert re.search(r'<input type="text" name="category" value="cs\.CL"', text)


def test_a_name_that_no_paper_has(client: TestClient) -> None:
    text = client.get("/papers/new?category=emnpl").text
    assert "No venue or category here is called “emnpl”" in text and 'href="/papers/new?category=emnlp"' in text
    text = client.get("/search?category=emnpl").text
    assert "No venue or category is called “emnpl”" in text and 'href="/search?category=emnlp"' in text
    assert client.get(f"/search?category={'x,' * 21}").status_code == 200, "the same name again is one name"
    answer = client.get("/search?category=" + ",".join(f"c{i}" for i in range(21)))
    assert answer.status_code == 400 and "at most 20 are accepted" in answer.text


def test_facets_count_it_and_turn_it_on_and_off(site: Site, client: TestClient) -> None:
    def of(filters: Filters) -> dict[str, tuple[int, str | None, bool]]:
        request = Request(query="zebra", filters=filters)
        found = next(one for one in facets(site, request, rank(site, request)) if one.name == "category")
        assert found.title == "Venue or category"
        return {one.value: (one.papers, one.filters.category, one.chosen) for one in found.counts}

    assert of(Filters())["cs.CL"] == (2, "cs.CL", False) and of(Filters())["cs.CV"] == (1, "cs.CV", False)
    chosen = of(Filters(category="cs.CL,emnlp"))
    assert chosen["cs.CL"] == (2, "emnlp", True) and chosen["emnlp"] == (1, "cs.CL", True)
    assert chosen["cs.LG"] == (1, "cs.CL,emnlp,cs.LG", False) and "cs.CV" not in chosen
    counted = client.get("/api/papers/search/facets?q=zebra").json()
    values = {one["facet"]: one["values"] for one in counted}
    assert {"value": "cs.CL", "papers": 2}.items() <= values["category"][0].items()
    assert "category=cs.CL" in client.get("/search?q=zebra").text


def test_the_interface_for_programs(client: TestClient) -> None:
    assert client.get("/api/papers/2504.00003").json()["categories"] == ["cs.CL", "emnlp", "Journées d'été"]
    assert "categories" not in client.get("/api/papers/2504.00004").json()
    parameters = client.get("/api/openapi.json").json()["paths"]["/papers/search"]["get"]["parameters"]
    (told,) = [one for one in parameters if one["name"] == "category"]
    assert told["description"] == "venue or category; commas separate alternatives"
    assert client.get("/api/papers/search?category=" + "x" * 301).status_code == 400


def test_a_feed_names_them_and_a_search_with_one_is_followed(site: Site, client: TestClient) -> None:
    assert '<category term="emnlp"' in client.get("/papers/new.atom").text
    reader = join(site.db, "ada@example.org").id
    saved = interests.choose(site.db, reader, "search", "/search?q=zebra&category=cs.cl", "follow")
    assert "category=cs.CL" in saved.said


def test_alternatives() -> None:
    assert alternatives(" b, a ,,B") == ["b", "a"]
    assert read_category(" , ") is None and read_category("x , y") == "x,y"
    assert categories.toggled("x,y", "X") == ("y", True) and categories.toggled("x", "x") == (None, True)
    assert categories.toggled(None, "x") == ("x", False)
