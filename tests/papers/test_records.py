from __future__ import annotations

import re
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextvec.papers.bibtex import bibtex, citation_key
from nextvec.papers.markdown import markdown
from nextvec.papers.records import Paper, is_arxiv_id, parse_record, parse_records, safe_url
from nextvec.papers.search import paper_id
from nextvec.types import InputError

GOOD = {"id": "2501.00001", "title": "A title", "summary": "An abstract."}


def test_a_full_record() -> None:
    paper = parse_record(
        {
            **GOOD, "upvotes": 3, "num_comments": 0, "publishedAt": "2025-01-02T04:05:06.000Z",
            "submittedOnDailyAt": datetime(2025, 1, 3, tzinfo=UTC), "daily_date": "2025-01-03",
            "authors": ["Ada  Lovelace", " "], "githubRepo": " https://github.com/a/b ", "githubStars": 5,
            "projectPage": "javascript:alert(1)", "organization": "", "source": "x", "unknown": object(),
        },
        where="f, record 1",
    )  # fmt: skip
    assert paper.published_at == datetime(2025, 1, 2, 4, 5, 6) and paper.listed_at == datetime(2025, 1, 3)
    assert paper.daily_date == date(2025, 1, 3) and paper.authors == ("Ada Lovelace",)
    assert paper.github_repo == "https://github.com/a/b" and paper.project_page is None
    assert paper.organization is None and paper.has_code and paper.is_arxiv and paper.year == 2025


def test_csv_strings_are_read() -> None:
    paper = parse_record({**GOOD, "upvotes": "12", "githubStars": "", "authors": "A B; C D"}, where="x")
    assert paper.upvotes == 12 and paper.github_stars is None and paper.authors == ("A B", "C D")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": None}, "field 'title' is missing"),
        ({"summary": None, "sumary": "x"}, r"field 'summary' is missing \(the record has 'sumary'\)"),
        ({"title": " "}, "field 'title' is empty"),
        ({"title": 5}, "field 'title' is a int"),
        ({"title": "x" * 2000}, "field 'title' has 2000 characters; at most 1000"),
        ({"id": "../../etc"}, "field 'id'"),
        ({"id": "a b"}, "field 'id'"),
        ({"id": "week/x"}, "field 'id'"),
        ({"id": "a..b"}, "field 'id'"),
        ({"id": "x.md"}, "field 'id'"),
        ({"id": ""}, "field 'id'"),
        ({"upvotes": -1}, "field 'upvotes' is -1; expected a whole number"),
        ({"upvotes": 1.5}, "field 'upvotes'"),
        ({"upvotes": True}, "field 'upvotes'"),
        ({"upvotes": float("nan")}, "field 'upvotes'"),
        ({"upvotes": 2**40}, "field 'upvotes'"),
        ({"authors": [1]}, "field 'authors'"),
        ({"authors": {"a": 1}}, "field 'authors'"),
        ({"publishedAt": "yesterday"}, "field 'publishedAt' is 'yesterday'; expected a time"),
        ({"daily_date": "2025-02-30"}, "field 'daily_date'"),
        ({"daily_date": 20250101}, "field 'daily_date'"),
        ({"daily_date": "9999-12-31"}, "field 'daily_date' is '9999-12-31'"),
        ({"daily_date": "0001-01-01"}, "field 'daily_date'"),
        ({"publishedAt": "0001-01-01T00:00:00+14:00"}, "field 'publishedAt'"),
        ({"publishedAt": "9999-12-31T23:00:00-14:00"}, "field 'publishedAt'"),
        ({"id": "trending"}, "field 'id' is 'trending', the name of a page of the site"),
    ],
)
def test_a_bad_record_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"^papers.jsonl:2: {message}"):
        list(parse_records([("papers.jsonl:1", GOOD), ("papers.jsonl:2", {**GOOD, **change})]))


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "data:text/html,x", "//x.io", "ftp://x.io", "https://", "http://x y", 'https://x"onload=',
     "https://x<b>", "HTTPS://X", "", None, "https://" + "x" * 3000],
)  # fmt: skip
def test_only_plain_web_addresses_become_links(address: str | None) -> None:
    assert safe_url(address) is None


def test_arxiv_ids() -> None:
    assert is_arxiv_id("2405.13729") and is_arxiv_id("cs/0112017") and is_arxiv_id("math.GT/0309136")
    assert not is_arxiv_id("2405.137") and not is_arxiv_id("evil/one") and not is_arxiv_id("2405.13729v2")


@pytest.mark.parametrize(
    "query",
    ["2405.13729", " 2405.13729v3 ", "arXiv:2405.13729", "https://arxiv.org/abs/2405.13729v1",
     "http://arxiv.org/pdf/2405.13729.pdf", "arxiv.org/abs/2405.13729?x=1", "https://huggingface.co/papers/2405.13729",
     "www.arxiv.org/html/2405.13729v2#S1"],
)  # fmt: skip
def test_an_id_or_address_as_query_is_recognised(query: str) -> None:
    assert paper_id(query) == "2405.13729"


@pytest.mark.parametrize("query", ["", "GPT-4", "2405.13729 and more", "model 2405", "https://example.com/x"])
def test_other_queries_are_not_ids(query: str) -> None:
    assert paper_id(query) is None


def test_bibtex() -> None:
    paper = Paper(
        id="2501.06252", title="The Transformer$^2$: 100% {Self}-adaptive & more", summary="",
        authors=("Qi Sün", "Research and Development"), published_at=datetime(2025, 1, 9),
    )  # fmt: skip
    entry = bibtex(paper)
    assert citation_key(paper) == "sun2025transformer2"
    assert "title         = {{The Transformer²: 100\\% Self-adaptive \\& more}}" in entry
    assert "author        = {Qi Sün and {Research and Development}}" in entry
    assert "eprint        = {2501.06252}" in entry and "https://arxiv.org/abs/2501.06252" in entry


@settings(max_examples=150)
@given(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=3))
def test_bibtex_braces_always_balance(title: str, authors: list[str]) -> None:
    entry = bibtex(Paper(id="x", title=title, summary="", authors=tuple(authors)))
    bare = re.sub(r"\\[{}]", "", entry)
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0
    assert re.match(r"@misc\{[a-z0-9]+,\n", entry)


def test_markdown_is_escaped() -> None:
    text = markdown(Paper(id="x", title="<b> # *x*", summary="![i](javascript:1)", authors=("A_B",)))
    assert text.startswith(r"# \<b\> \# \*x\*") and r"!\[i\](javascript:1)" in text and r"A\_B" in text
