from __future__ import annotations

import random
from datetime import date

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextvec.papers.db import Filters
from nextvec.papers.lexical import highlighter, matched_terms, snippet
from nextvec.papers.records import Paper
from nextvec.papers.search import MODES, RRF_K, loosened, search
from nextvec.papers.site import Site
from nextvec.papers.word_index import LexicalIndex
from nextvec.search.words import tokenize
from nextvec.types import InputError


def test_highlighting_marks_words_and_escapes_the_rest() -> None:
    mark = highlighter("latent <models>")
    assert mark is not None
    assert mark("<b> Latent-space Model & co") == "&lt;b&gt; <mark>Latent-space</mark> <mark>Model</mark> &amp; co"
    assert highlighter("the") is None
    assert matched_terms("big Latent models", "a latent model") == ["Latent", "models"]


def test_snippet_takes_the_part_with_most_words() -> None:
    text = "Nothing here. " * 30 + "The latent space matters. Reasoning follows. " + "End of it. " * 30
    part, from_start = snippet("latent reasoning", text)
    assert part.startswith("The latent space matters. Reasoning") and not from_start
    assert snippet("zzz", text)[1] and snippet("x", "") == ("", True)


def test_word_index_survives_a_round_trip(tmp_path: object, few: list[Paper]) -> None:
    rows = [(paper.id, paper.title, paper.summary, paper.authors, paper.organization) for paper in few[:40]]
    index = LexicalIndex.build(rows, stamp="7")
    index.save(tmp_path / "w")  # type: ignore[operator]
    index.save(tmp_path / "w")  # type: ignore[operator]
    loaded = LexicalIndex.load(tmp_path / "w")  # type: ignore[operator]
    assert loaded.stamp == "7" and loaded.search("language model", 5) == index.search("language model", 5)
    assert loaded.search("zzzzzz", 5) == ([], [], 0) and loaded.search("", 5) == ([], [], 0)
    assert LexicalIndex.build([], stamp="0").search("x", 5) == ([], [], 0)
    only = LexicalIndex.build([("a", "One title", "", [], None)], stamp="0")
    assert only.search("title", 5)[0] == ["a"]


def _satisfies(paper: Paper, filters: Filters) -> bool:
    day = paper.daily_date
    return (
        (filters.start is None or (day is not None and day >= filters.start))
        and (filters.end is None or (day is not None and day <= filters.end))
        and (filters.organization is None or paper.organization == filters.organization)
        and (filters.votes is None or paper.upvotes >= filters.votes)
        and (not filters.code or paper.has_code)
    )


FILTERS = st.builds(
    Filters,
    start=st.none() | st.dates(date(2024, 5, 1), date(2026, 9, 1)),
    end=st.none() | st.dates(date(2024, 5, 1), date(2026, 9, 1)),
    organization=st.sampled_from([None, None, "NVIDIA", "O'Brien & <Sons>", "Tencent", "nope'; --"]),
    votes=st.none() | st.integers(0, 60),
    code=st.booleans(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters=FILTERS, mode=st.sampled_from(("hybrid", "semantic", "keyword")))
def test_filters_are_exact_on_both_sides(small: Site, few: list[Paper], filters: Filters, mode: str) -> None:
    allowed = {paper.id for paper in few if _satisfies(paper, filters)}
    results = search(small, "language model reasoning video", filters, mode=mode, size=400)  # type: ignore[arg-type]
    found = {match.stored.paper.id for match in results.matches}
    assert results.candidates == len(allowed) == small.db.count(filters)
    assert found <= allowed
    if mode == "semantic":
        embedded = set(small.collection.ids(filters.where()))
        assert embedded == allowed and len(found) == min(200, len(allowed)), "the nearest of all that match"
    if mode == "keyword":
        words = {paper.id for paper in few if paper.id in allowed and _has_word(paper)}
        assert found == words if len(words) <= 200 else len(found) == 200
        assert results.with_words == len(words)


def _has_word(paper: Paper) -> bool:
    text = " ".join([paper.title, paper.summary, *paper.authors, paper.organization or ""])
    return not {"language", "model", "reasoning", "video"}.isdisjoint(tokenize(text))


def test_fusion_and_why(small: Site) -> None:
    results = search(small, "video generation")
    for match in results.matches:
        expected = sum(1 / (RRF_K + rank) for rank in (match.word_rank, match.meaning_rank) if rank)
        assert match.score == pytest.approx(expected)
        assert match.why() and (match.terms or match.word_rank is None)
    scores = [match.score for match in results.matches if not match.exact_title]
    assert scores == sorted(scores, reverse=True)


def test_pages_are_disjoint_and_complete(small: Site) -> None:
    whole = search(small, "language", size=500).matches
    parts = [match for page in range(1, 60) for match in search(small, "language", page=page, size=7).matches]
    assert [match.stored.paper.id for match in parts] == [match.stored.paper.id for match in whole]


def test_where_is_parsed_on_its_own(small: Site) -> None:
    narrow = Filters(votes=10)
    results = search(small, "model", narrow, where="year >= 2026 OR year < 2025", size=400)
    papers = [match.stored.paper for match in results.matches]
    assert papers and all(paper.upvotes >= 10 and paper.year != 2025 for paper in papers)
    with pytest.raises(InputError):
        search(small, "model", narrow, where="year >= 2026) OR (year > 0")
    with pytest.raises(InputError, match="did you mean 'upvotes'"):
        search(small, "model", where="upvote > 3")


@pytest.mark.parametrize(
    "query", ["", "   ", "\x00", "???", "zzzzqqqq", "'; DROP TABLE papers;--", "<b>", "x" * 250, "🙂"]
)
def test_odd_queries_give_results_or_none(small: Site, query: str) -> None:
    for mode in MODES:
        results = search(small, query, mode=mode)
        assert results.total >= len(results.matches)
    assert small.db.count() > 100


def test_too_long_a_query_is_refused(small: Site) -> None:
    with pytest.raises(InputError, match="251 characters; at most 250"):
        search(small, "x" * 251)


def test_loosening_a_filter(small: Site, few: list[Paper]) -> None:
    nvidia = sum(paper.organization == "NVIDIA" for paper in few)
    leave_out, ways = loosened(small, Filters(organization="NVIDIA", votes=100_000))
    assert leave_out and [(name, count) for name, _, count in ways] == [("votes", nvidia)]
    keep, alone = loosened(small, Filters(organization="NVIDIA", votes=10**6, start=date(2030, 1, 1)))
    assert not keep and [(name, count) for name, _, count in alone] == [("org", nvidia)]


# -- on all bundled papers -----------------------------------------------------------------------------------------
def test_known_items_are_found_by_their_title(whole: Site, bundled: list[Paper]) -> None:
    chosen = random.Random(0).sample(bundled, 150)
    ranks = []
    for paper in chosen:
        ids = [match.stored.paper.id for match in search(whole, paper.title[:250], size=10).matches]
        ranks.append(ids.index(paper.id) + 1 if paper.id in ids else 0)
    assert sum(rank == 1 for rank in ranks) >= 0.97 * len(ranks)
    assert all(ranks), "every title finds its paper among ten"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("reasoning in a continuous latent space", "2412.06769"),
        ("training language models to think in hidden states instead of writing out steps", "2412.06769"),
        ("GPT 4o system card", "2410.21276"),
        ("gpt4o system card", "2410.21276"),
        ("transformers without layernorm", "2503.10622"),
    ],
)
def test_people_find_what_they_mean(whole: Site, query: str, wanted: str) -> None:
    ids = [match.stored.paper.id for match in search(whole, query, size=10).matches]
    assert wanted in ids


def test_authors_are_found_by_name(whole: Site) -> None:
    results = search(whole, "Yann LeCun", mode="keyword", size=20)
    top = [match.stored.paper.authors for match in results.matches[:5]]
    assert all(any("LeCun" in name for name in authors) for authors in top)


def test_similar_papers_are_others_and_sorted(whole: Site) -> None:
    similar = whole.similar("2412.06769", 8)
    scores = [score for _, score in similar]
    assert len(similar) == 8 and scores == sorted(scores, reverse=True) and scores[0] > 0.5
    assert "2412.06769" not in {stored.paper.id for stored, _ in similar}
