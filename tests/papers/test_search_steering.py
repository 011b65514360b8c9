"""What steers a search: facets, phrases, spelling, suggestions, order, cursors, examples; its feeds."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import feedparser
import numpy as np
import pytest
from fakes import HashEncoder
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextvec.papers import cursors
from nextvec.papers.db import Filters
from nextvec.papers.examples import direction, read_examples, read_text
from nextvec.papers.facets import facets
from nextvec.papers.ingest import ingest
from nextvec.papers.kept import Kept
from nextvec.papers.phrases import matcher, quoted
from nextvec.papers.ranking import Request, rank
from nextvec.papers.records import Paper
from nextvec.papers.search import answer, search
from nextvec.papers.search_form import read_form
from nextvec.papers.site import Site
from nextvec.papers.spelling import meant
from nextvec.papers.suggest import suggestions
from nextvec.papers.tables import fold
from nextvec.types import InputError


def day(number: int) -> date:
    return date(2025, 1, number)


def paper(identifier: str, title: str, **more: object) -> Paper:
    values = {"summary": f"{title} explained.", "daily_date": day(1), "listed_at": datetime(2025, 1, 1), **more}
    return Paper(id=identifier, title=title, **values)  # type: ignore[arg-type]


SHELF = [
    paper("2501.00001", "Chain of thought for robots", authors=("Ada Lovelace", "Alan Turing"), upvotes=5,
          organization="NVIDIA", source="one", github_repo="https://g.io/a"),
    paper("2501.00002", "Chain-of-thought without words", authors=("Ada Lovelace",), upvotes=50, source="one",
          organization="NVIDIA", published_at=datetime(2024, 12, 30)),
    paper("2501.00003", "A thought about a chain of robots", authors=("Grace Hopper",), upvotes=7, source="two",
          organization="Tsinghua University", listed_at=datetime(2025, 1, 9)),
    paper("2501.00004", "Robots that walk", authors=("Élodie Dupont",), upvotes=1, source="two",
          listed_at=datetime(2025, 1, 5)),
    paper("2501.00005", "Diffusion models", authors=("Alan Turing",), upvotes=9, organization="NVIDIA"),
    paper("2501.00006", "Diffusion models for video", authors=("Alan Turing",), upvotes=2),
]  # fmt: skip


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "shelf", encoder=HashEncoder())
    ingest(site, SHELF)
    yield site
    site.close()


def ids(results: object) -> list[str]:
    return [match.stored.paper.id[-1] for match in results.matches]  # type: ignore[attr-defined]


# -- filters and facets --------------------------------------------------------------------------------------------
NEW_FILTERS = st.builds(
    Filters,
    author=st.sampled_from([None, "Yang Liu", "yang  LIU", "<i>Mallory</i>", "nobody"]),
    source=st.sampled_from([None, None, "daily_papers", "x"]),
    category=st.sampled_from([None, None, "cs.CL", "cs.CL,emnlp"]),
    topic=st.sampled_from([None, None, "language model", "video, robot", "zebra"]),
    year=st.sampled_from([None, 2024, 2025, 2026]),
    votes=st.none() | st.integers(0, 30),
)


def _satisfies(one: Paper, filters: Filters, about: set[str]) -> bool:
    return (
        (filters.author is None or fold(filters.author) in {fold(name) for name in one.authors})
        and (filters.source is None or one.source == filters.source)
        and (filters.category is None or not {*one.categories}.isdisjoint(filters.category.split(",")))
        and (filters.topic is None or one.id in about)
        and (filters.year is None or one.year == filters.year)
        and (filters.votes is None or one.upvotes >= filters.votes)
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters=NEW_FILTERS, mode=st.sampled_from(("hybrid", "semantic", "keyword")))
def test_filters_that_the_collection_does_not_know_are_exact(
    small: Site, few: list[Paper], filters: Filters, mode: str
) -> None:
    about = set(small.words().holding(filters.topic)) if filters.topic else set()
    allowed = {one.id for one in few if _satisfies(one, filters, about)}
    results = search(small, "language model reasoning video", filters, mode=mode, size=400)  # type: ignore[arg-type]
    found = {match.stored.paper.id for match in results.matches}
    assert results.candidates == len(allowed) and found <= allowed
    if mode == "semantic":
        vector = small.query_vector("language model reasoning video")
        near = [name for name in small.collection.search(vector, 10_000).ids if name in allowed][:200]
        assert [match.stored.paper.id for match in results.matches] == near, "the nearest of all that match"


def test_facets_count_the_whole_result_set(small: Site, few: list[Paper]) -> None:
    request = Request(query="language model")
    ranking = rank(small, request)
    papers = {one.id: one for one in few}
    found = {facet.name: facet for facet in facets(small, request, ranking, most=10_000)}
    assert len(ranking.ids) > 40, "more than a page"
    chosen = [papers[name] for name in ranking.ids]
    assert {one.value: one.papers for one in found["org"].counts} == Counter(
        one.organization for one in chosen if one.organization
    )
    assert {int(one.value): one.papers for one in found["year"].counts} == Counter(
        one.year for one in chosen if one.year
    )
    names = Counter(name for one in chosen for name in {fold(name) for name in one.authors})
    assert {fold(one.value): one.papers for one in found["author"].counts} == names
    assert found["code"].counts[0].papers == sum(one.has_code for one in chosen)
    assert [one.papers for one in found["org"].counts] == sorted(
        (one.papers for one in found["org"].counts), reverse=True
    )


def test_a_filter_finds_at_least_what_its_facet_counts(small: Site) -> None:
    request = Request(query="language model reasoning")
    for facet in facets(small, request, rank(small, request), most=4):
        for one in facet.counts:
            assert len(rank(small, replace(request, filters=one.filters)).ids) >= one.papers, (facet.name, one.value)


def test_a_facet_that_is_set_takes_itself_away(shelf: Site) -> None:
    request = Request(query="robots", filters=Filters(source="two"))
    source = next(one for one in facets(shelf, request, rank(shelf, request)) if one.name == "source")
    assert [(one.value, one.chosen, one.filters) for one in source.counts] == [("two", True, Filters())]
    assert (
        facets(shelf, Request(query="zebra", mode="keyword"), rank(shelf, Request(query="zebra", mode="keyword"))) == []
    )


def test_facets_of_a_listing_are_of_all_its_papers(shelf: Site) -> None:
    for filters, expected in (
        (Filters(votes=2), {"NVIDIA": 3, "Tsinghua University": 1}),
        (Filters(topic="chain"), None),
    ):
        request = Request(filters=filters)
        ranking = rank(shelf, request)
        org = next(one for one in facets(shelf, request, ranking) if one.name == "org")
        counts = {one.value: one.papers for one in org.counts}
        assert counts == (expected or {"NVIDIA": 2, "Tsinghua University": 1})


# -- phrases -------------------------------------------------------------------------------------------------------
def test_phrases_are_words_side_by_side(shelf: Site) -> None:
    assert quoted('a "chain of thought" and “so on”, "" "!"') == ("chain of thought", "so on")
    fits = matcher("Chain of thought")
    assert fits("a chain-of-thought") and not fits("chain of thoughts") and not fits("toolchain of thought")
    assert sorted(ids(search(shelf, '"chain of thought"'))) == ["1", "2"]
    assert sorted(ids(search(shelf, "chain of thought", mode="phrase"))) == ["1", "2"]
    assert ids(search(shelf, '"chain of" thought robots', mode="keyword"))[0] in "13"
    assert ids(search(shelf, '"elodie dupont"')) == ["4"] and ids(search(shelf, '"of"', mode="phrase")) == [
        "2",
        "3",
        "1",
    ]
    assert search(shelf, '"chain robots"').total == 0
    for mode in ("hybrid", "semantic", "keyword", "phrase"):
        assert set(ids(search(shelf, '"diffusion models"', mode=mode))) <= {"5", "6"}  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 300), start=st.integers(0, 30), length=st.integers(1, 4))
def test_what_stands_in_a_paper_is_found_as_a_phrase(
    small: Site, few: list[Paper], number: int, start: int, length: int
) -> None:
    one = few[number % len(few)]
    words = re.findall(r"[^\W_]+", one.summary)
    part = " ".join(words[start : start + length])
    if part:
        expected = {other.id for other in few if any(matcher(part)(fold(text)) for text in _texts(other))}
        ranking = rank(small, Request(query=part, mode="phrase"))
        assert one.id in expected and ranking.candidates == len(expected) and set(ranking.ids) <= expected


def _texts(one: Paper) -> list[str]:
    return [one.title, one.summary, *one.authors, one.organization or ""]


# -- names and suggestions -----------------------------------------------------------------------------------------
def test_did_you_mean(shelf: Site) -> None:
    assert [(one.kind, one.text) for one in meant(shelf, "Ada Lovelase")] == [("author", "Ada Lovelace")]
    assert ("organisation", "NVIDIA") in [(one.kind, one.text) for one in meant(shelf, "NVIDA")]
    assert [(one.kind, one.text) for one in meant(shelf, "Alain Turing")] == [("author", "Alan Turing")]
    assert [(one.kind, one.text) for one in meant(shelf, "difusion model")] == [("words", "diffusion model")]
    for right in ("Ada Lovelace", "diffusion models", "xqzt", "", "a b c d e f g", "robots that walk"):
        assert meant(shelf, right) == []
    assert meant(shelf, "Ada Lovelase")[0].address == "/search?author=Ada+Lovelace"


def test_suggestions_by_prefix(shelf: Site) -> None:
    def said(text: str) -> list[tuple[str, str]]:
        return [(one.kind, one.text) for one in suggestions(shelf, text)]

    assert said("lov") == [("author", "Ada Lovelace")] and said("ADA L") == [("author", "Ada Lovelace")]
    assert said("elod") == [("author", "Élodie Dupont")] and said("tsin") == [("organisation", "Tsinghua University")]
    titles = [one for one in suggestions(shelf, "diff") if one.kind == "title"]
    assert [one.text for one in titles] == ["Diffusion models", "Diffusion models for video"], "by votes"
    assert ("keyword", "Diffusion models") in said("diff"), "what several papers are about"
    assert said("a") == [] and said("zzz") == [] and said("of thought") == []
    assert titles[0].address == "/papers/2501.00005"
    shelf.db.upsert([paper("2501.00009", "Diffractive optics", upvotes=99)])
    assert ("title", "Diffractive optics") in said("diff"), "new papers are suggested at once"


def test_options_are_a_piece_of_a_page(client: TestClient) -> None:
    text = client.get("/search/suggest?q=mallory").text
    assert 'role="option"' in text and "&lt;i&gt;Mallory" in text and "<i>Mallory" not in text and "<html" not in text
    assert client.get("/search/suggest?q=x").text.strip() == ""
    assert client.get("/search/suggest?q=" + "x" * 300).status_code == 400


# -- order and cursors ---------------------------------------------------------------------------------------------
def test_orders_of_the_same_result_set(small: Site) -> None:
    by = {sort: rank(small, Request(query="video generation", sort=sort)) for sort in ("relevance", "newest", "votes")}  # type: ignore[arg-type]
    assert set(by["relevance"].ids) == set(by["newest"].ids) == set(by["votes"].ids)
    votes = [stored.paper.upvotes for stored in small.db.get_many(by["votes"].ids)]
    assert votes == sorted(votes, reverse=True)
    times = [one.paper.listed_at or one.paper.published_at for one in small.db.get_many(by["newest"].ids)]
    known = [one for one in times if one is not None]
    assert known == sorted(known, reverse=True) and len(known) > 20


def _walk(site: Site, request: Request, size: int, between: object = None) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        results = answer(site, request, size=size, after=after)
        found += [match.stored.paper.id for match in results.matches]
        if results.following is None:
            return found
        after = results.following
        if callable(between):
            between(len(found))


def test_cursors_walk_through_everything_once(small: Site) -> None:
    for request in (Request(query="language"), Request(filters=Filters(votes=3), sort="newest")):
        assert tuple(_walk(small, request, 7)) == rank(small, request).ids
    second = answer(
        small, Request(query="language"), size=7, after=answer(small, Request(query="language"), size=7).following
    )
    assert second.page == 2 and second.previous is None
    third = answer(small, Request(query="language"), size=7, after=second.following)
    back = answer(small, Request(query="language"), size=7, after=third.previous)
    assert [match.stored.paper.id for match in back.matches] == [match.stored.paper.id for match in second.matches]


def test_a_walk_is_not_disturbed_by_new_papers(tmp_path: Path, few: list[Paper]) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, few[:120])
    request = Request(query="language model")
    expected = rank(site, request).ids

    def more(done: int) -> None:
        ingest(site, [paper(f"n{done}", "Language model language model", upvotes=done)])

    assert tuple(_walk(site, request, 9, more)) == expected
    assert len(rank(site, request).ids) > len(expected)
    # Another process, or long after: the walk goes on behind the same paper in the ranking as it is now.
    first = answer(site, request, size=9)
    site.kept = Kept()
    ingest(site, [paper("last", "Language model language model again")])
    site.kept = Kept()
    following = answer(site, request, size=9, after=first.following)
    now = rank(site, request).ids
    place = now.index(first.matches[-1].stored.paper.id)
    assert tuple(match.stored.paper.id for match in following.matches) == now[place + 1 : place + 10]
    site.close()


def test_cursors_are_checked(small: Site, client: TestClient) -> None:
    word = answer(small, Request(query="language"), size=20).following
    assert word and re.fullmatch(r"[\w-]+", word)
    broken = (word[:-1], word + "A", "x", "é", "A" * 500, cursors.pack([1]), cursors.pack(["a", "b", "c", "d", "e"]))
    for one in broken:
        with pytest.raises(InputError, match="is no cursor of this site"):
            answer(small, Request(query="language"), after=one)
    with pytest.raises(InputError, match="another search"):
        answer(small, Request(query="video"), after=word)
    assert client.get("/search", params={"q": "language", "after": word}).status_code == 200
    assert client.get("/search?q=language&after=nonsense").status_code == 400


def test_kept_results_are_bounded() -> None:
    kept = Kept(most=10)
    for i in range(20):
        kept.put(i, str(i), weight=3)
    assert kept.get(19) == "19" and kept.get(17) == "17" and kept.get(16) is None
    kept.put("heavy", "x", weight=11)
    assert kept.get("heavy") is None and kept.get(19) == "19"
    assert kept.made("m", lambda: "made") == "made" == kept.made("m", lambda: "again")


# -- examples ------------------------------------------------------------------------------------------------------
def test_like_this_not_like_that(shelf: Site) -> None:
    alone = answer(shelf, Request(like=("2501.00005",)))
    assert ids(alone)[0] == "6" and "5" not in ids(alone), "what was named is left out"
    both = answer(shelf, Request(like=("2501.00001",), unlike=("2501.00004",)))
    assert {"1", "4"}.isdisjoint(ids(both))
    score = {match.stored.paper.id[-1]: match.meaning_score for match in both.matches}
    plain = {
        match.stored.paper.id[-1]: match.meaning_score for match in answer(shelf, Request(like=("2501.00001",))).matches
    }
    assert score["2"] - score["3"] > plain["2"] - plain["3"], "what shares words with the unliked one falls"  # type: ignore[operator]
    with pytest.raises(InputError, match="unlike alone"):
        rank(shelf, Request(unlike=("2501.00001",)))


def test_the_direction_is_rocchios(shelf: Site) -> None:
    rows = shelf.collection.get(["2501.00001", "2501.00002", "2501.00004"], vectors=True)
    one, two, bad = (np.asarray(row["vector"]) for row in rows if row)
    base = shelf.encoder.encode_query(["robots"])[0]
    request = Request(query="robots", like=("2501.00001", "2501.00002"), unlike=("2501.00004",))
    np.testing.assert_allclose(direction(shelf, request), base + 0.75 * (one + two) / 2 - 0.25 * bad, atol=1e-5)
    text = shelf.encoder.encode_document(["some text"])[0]
    np.testing.assert_allclose(direction(shelf, Request(text="some text")), text, atol=1e-6)
    np.testing.assert_allclose(direction(shelf, Request(like=("2501.00001",))), one, atol=1e-6)
    assert direction(shelf, Request(like=("nothing",))) is None and direction(shelf, Request(text="!!!")) is None


def test_examples_in_an_address() -> None:
    values = ["https://arxiv.org/pdf/2501.00001v2", " 2501.00001 ", "", "arXiv:2501.00002"]
    assert read_examples(values, "like") == ("2501.00001", "2501.00002")
    with pytest.raises(InputError, match="expected the id of a paper or its address"):
        read_examples(["a b"], "like")
    with pytest.raises(InputError, match="at most 20"):
        read_examples([f"p{i}" for i in range(21)], "like")
    with pytest.raises(InputError, match=r"5,001 characters; at most 5,000"):
        read_text("x" * 5_001)


def test_a_pasted_abstract_finds_its_paper(whole: Site, bundled: list[Paper]) -> None:
    chosen = [one for one in bundled[::397] if len(one.summary) > 600][:20]
    first = [answer(whole, Request(text=read_text(one.summary[:5_000])), size=1).matches[0] for one in chosen]
    assert sum(match.stored.paper.id == one.id for match, one in zip(first, chosen, strict=True)) >= 18


@pytest.mark.parametrize("pasted", ["https://arxiv.org/abs/{}", " arXiv:{}v2\n", "https://arxiv.org/pdf/{}v1"])
def test_an_address_in_place_of_an_abstract_is_the_paper(client: TestClient, few: list[Paper], pasted: str) -> None:
    identifier = next(paper.id for paper in few if paper.is_arxiv)
    listed = re.compile(r'class="paper-title"><a href="/papers/([^"]+)"')
    found = client.get("/search", params={"text": pasted.format(identifier)}).text
    assert listed.findall(found) == listed.findall(client.get("/search", params={"like": identifier}).text) != []
    unknown = client.get("/search", params={"text": pasted.format("2999.99999")}).text
    assert "arXiv:2999.99999 is not in this collection" in unknown


def test_links_build_the_query_up_and_take_it_apart(client: TestClient, few: list[Paper]) -> None:
    one, two = few[0].id, few[1].id
    assert f'href="/search?like={one}"' in client.get(f"/papers/{one}").text
    text = client.get(f"/search?like={one}&unlike={two}").text
    assert 'class="liked" href="/search"' in text, "without the liked one nothing is left"
    assert f'class="unliked" href="/search?like={one}"' in text
    assert re.search(rf'href="/search\?like={one}&amp;like=[^"&]+&amp;unlike={two}"', text)
    assert re.search(rf'href="/search\?like={one}&amp;unlike={two}&amp;unlike=[^"&]+"', text)
    assert f'name="like" value="{one}"' in text, "the form keeps what is set"
    assert "arXiv:2001.99999 is not in this collection" in client.get(f"/search?like={one}&like=2001.99999").text
    assert client.get("/search?text=" + "x" * 5_001).status_code == 400


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.sampled_from(["", "a & b", '"x y"']),
    filters=NEW_FILTERS,
    like=st.lists(st.sampled_from(["2501.00001", "evil/one"]), unique=True),
    sort=st.sampled_from(["relevance", "newest", "votes"]),
    text=st.sampled_from(["", "some text"]),
)
def test_an_address_says_what_the_form_says(
    small: Site, query: str, filters: Filters, like: list[str], sort: str, text: str
) -> None:
    request = Request(query=query, filters=filters, like=tuple(like), sort=sort, text=text)  # type: ignore[arg-type]
    from nextvec.papers.search_form import SearchForm

    pairs = parse_qsl(urlsplit(SearchForm(request).address()).query)
    again = read_form(dict(pairs), lambda name: [value for key, value in pairs if key == name], small.db)
    author = small.db.find_author(filters.author) or filters.author if filters.author else None
    assert again.request == replace(request, filters=replace(filters, author=author, votes=filters.votes or None))


# -- feeds and the interface for programs --------------------------------------------------------------------------
@pytest.mark.parametrize("ending", ["atom", "rss", "json"])
def test_feeds_of_a_search(client: TestClient, small: Site, ending: str) -> None:
    response = client.get(f"/search.{ending}?q=video+generation&votes=2&sort=newest")
    assert response.status_code == 200 and response.headers["etag"]
    wanted = rank(small, Request(query="video generation", filters=Filters(votes=2), sort="newest")).ids[:100]
    if ending == "json":
        links = [item["url"] for item in json.loads(response.text)["items"]]
    else:
        feed = feedparser.parse(response.content)
        assert not feed.bozo and "“video generation”, 2+ votes" in feed.feed.title
        links = [entry.link for entry in feed.entries]
    dated = [
        one.paper.id
        for one in small.db.get_many(wanted)
        if one.paper.listed_at or one.paper.published_at or one.paper.daily_date
    ]
    assert [link.split("/papers/")[1] for link in links] == dated
    again = client.get(
        f"/search.{ending}?q=video+generation&votes=2&sort=newest", headers={"If-None-Match": response.headers["etag"]}
    )
    assert again.status_code == 304
    assert client.get(f"/search.{ending}").status_code == 400
    page = client.get("/search?q=video+generation&votes=2&sort=newest").text
    assert f"/search.{ending}?q=video+generation&amp;sort=newest&amp;votes=2" in page


def test_the_interface_narrows_sorts_and_counts(client: TestClient, small: Site, few: list[Paper]) -> None:
    found = client.get("/api/papers/search?q=model&year=2026&sort=votes&limit=50").json()
    votes = [one["paper"]["upvotes"] for one in found]
    assert votes == sorted(votes, reverse=True) and votes
    counted = client.get("/api/papers/search/facets?q=model&year=2026").json()
    org = next(one for one in counted if one["facet"] == "org")
    request = Request(query="model", filters=Filters(year=2026))
    expected = next(one for one in facets(small, request, rank(small, request), most=20) if one.name == "org")
    assert org["values"] == [{"value": one.value, "papers": one.papers} for one in expected.counts]
    like = client.get(f"/api/papers/search?like={few[0].id}&limit=3").json()
    assert [one["paper"]["id"] for one in like] == list(rank(small, Request(like=(few[0].id,))).ids[:3])
    assert client.get(f"/api/papers/search?unlike={few[0].id}").status_code == 400
