"""Sources that read files, and what a paper is called: ids, links, titles."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest
from databases import open_database
from fakes import HashEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from nextvec.papers.db import Filters
from nextvec.papers.ingest import Report
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.sources import ids
from nextvec.papers.sources.base import Record, Request, open_source
from nextvec.papers.sources.corpus import corpus, parts_of
from nextvec.papers.sources.fetch import Fetcher
from nextvec.papers.sources.harvest import harvest
from nextvec.papers.sources.links import read_link
from nextvec.papers.sources.matching import Matcher
from nextvec.papers.sources.titles import Known, fold, likeness, people, same
from nextvec.types import InputError, NotFoundError


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path / "home", encoder=HashEncoder())
    yield opened
    opened.close()


def take(site: Site, source: str, path: Path) -> Report:
    return harvest(site, open_source(source), Request(file=path))


def paper(site: Site, identifier: str) -> Paper:
    stored = site.db.get(identifier)
    assert stored is not None, identifier
    return stored.paper


ACL = """<?xml version='1.0' encoding='UTF-8'?>
<collection id="2025.acl">
  <volume id="long" type="proceedings">
    <meta><booktitle>Proceedings of the ACL</booktitle><month>July</month><year>2025</year><venue>acl</venue></meta>
    <frontmatter><url>2025.acl-long.0</url></frontmatter>
    <paper id="1">
      <title>Learning to <fixed-case>U</fixed-case>nderstand <tex-math>x^2</tex-math> in <b>Text</b></title>
      <author><first>Ada</first><last>Lovelace</last><affiliation>Lab</affiliation></author>
      <author><last>Plato</last></author>
      <abstract>We <i>learn</i> it.</abstract>
      <url hash="ab">2025.acl-long.1</url><doi>10.18653/v1/2025.acl-long.1</doi><award>Best Paper</award>
    </paper>
    <paper id="2"><title>Gone</title><retracted date="2025-09-01">wrong</retracted><url>2025.acl-long.2</url></paper>
    <paper id="3"><title></title><url>2025.acl-long.3</url></paper>
  </volume>
</collection>
"""
OLD = """<collection id="P18"><volume id="1"><meta><year>2018</year><month>07</month></meta>
<paper id="22"><title>An Old One</title><author><first>A</first><last>B</last></author></paper></volume></collection>"""


def test_anthology_xml(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "xml"
    folder.mkdir()
    (folder / "2025.acl.xml").write_text(ACL, encoding="utf-8")
    (folder / "P18.xml").write_text(OLD, encoding="utf-8")
    report = take(site, "acl", folder)
    assert (report.papers, report.refused) == (2, 1)
    found = paper(site, "2025.acl-long.1")
    assert found.title == "Learning to Understand x^2 in Text" and found.summary == "We learn it."
    assert found.authors == ("Ada Lovelace", "Plato") and found.published_at == datetime(2025, 7, 1)
    assert found.source == "acl" and paper(site, "P18-1022").published_at == datetime(2018, 7, 1)
    (folder / "2025.acl.xml").write_text(ACL.replace("<doi>", "<retracted/><doi>"), encoding="utf-8")
    assert take(site, "acl", folder / "2025.acl.xml").deleted == 1 and site.db.get("2025.acl-long.1") is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<!DOCTYPE c [<!ENTITY a 'b'>]><collection/>", "document type"),
        ("<collection>", "broken or cut off"),
        ("<volumes/>", "expected <collection>"),
    ],
)
def test_anthology_xml_that_cannot_be_used(site: Site, tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "x.xml").write_text(body)
    with pytest.raises(InputError, match=message):
        take(site, "acl", tmp_path / "x.xml")
    with pytest.raises(NotFoundError):
        take(site, "acl", tmp_path / "none.xml")


def test_anthology_lines_and_their_other_spelling_of_ids(site: Site, tmp_path: Path) -> None:
    rows = [
        {"id": "X98-1.22", "title": "An NTU Approach", "year": "1998", "venues": ["tipster"], "authors": ["A B"]},
        {"id": "2025.acl-long.1", "title": "New", "abstract": "Text.", "year": "2025", "month": "17-20 June"},
        {"id": "not an id", "title": "?"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = take(site, "acl", tmp_path / "a.jsonl")
    assert (report.papers, report.refused) == (2, 1)
    assert paper(site, "X98-1022").published_at == datetime(1998, 1, 1)
    assert paper(site, "2025.acl-long.1").published_at == datetime(2025, 6, 1)


BIB = r"""
@comment{ nobody reads this }
@inproceedings{lovelace:1843,
  title = {The {BERT} of {\'E}mile: {$\alpha$} and more},
  author = {Lovelace, Ada and {Research and Development} and Kurt G{\"o}del and others},
  year = 2025, month = mar, booktitle = "Proceedings", abstract = {We look at \emph{letters}.},
  url = {https://aclanthology.org/2025.acl-long.7.pdf}, doi = {10.18653/v1/2025.acl-long.7}
}
@misc{vaswani, title = "Attention", author = "A. Vaswani", eprint = {1706.03762}, archivePrefix = {arXiv}, year = 2017}
@book{weird key!, title={A Book}, author={Only One}, year={n.d.}, url={javascript:alert(1)}}
@article{untitled, author={X}, year=2020}
@article{cut, title={never closed
@misc{after, title={After the Broken One}}
"""


def test_bibtex(site: Site, tmp_path: Path) -> None:
    (tmp_path / "refs.bib").write_text(BIB, encoding="utf-8")
    report = take(site, "bibtex", tmp_path / "refs.bib")
    assert report.papers == 4 and report.refused == 2
    first = paper(site, "2025.acl-long.7")
    assert first.title == "The BERT of Émile: α and more" and first.summary == "We look at letters."
    assert first.authors == ("Ada Lovelace", "Research and Development", "Kurt Gödel")
    assert first.published_at == datetime(2025, 3, 1)
    assert paper(site, "1706.03762").is_arxiv and paper(site, "bib/after").title == "After the Broken One"
    book = paper(site, "bib/weird-key")
    assert book.published_at is None and book.project_page is None
    assert take(site, "bibtex", tmp_path / "refs.bib").changed == 0


@pytest.mark.parametrize("body", [b"", b"no entries here", b"\xff\xfe@misc{a, title={b}}"])
def test_bibtex_that_cannot_be_used(site: Site, tmp_path: Path, body: bytes) -> None:
    (tmp_path / "x.bib").write_bytes(body)
    with pytest.raises(InputError, match=r"x\.bib"):
        take(site, "bibtex", tmp_path / "x.bib")


def test_daily_papers_from_files_flat_and_as_the_hub_writes_them(site: Site, tmp_path: Path) -> None:
    nested = {"paper": {"id": "2501.00001", "title": "T", "summary": "S", "upvotes": 3}, "numComments": 1}
    (tmp_path / "day.json").write_text(json.dumps([nested]))
    flat = {
        "id": "2501.00002",
        "title": "U",
        "summary": "S",
        "upvotes": 4,
        "daily_date": "2025-01-02",
        "ai_summary": "x",
    }
    (tmp_path / "days.jsonl").write_text(json.dumps(flat))
    assert take(site, "hf_daily", tmp_path / "day.json").papers == 1
    assert take(site, "hf_daily", tmp_path / "days.jsonl").papers == 2
    assert paper(site, "2501.00002").daily_date == date(2025, 1, 2) and paper(site, "2501.00001").upvotes == 3
    (tmp_path / "bad.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="expected a list of papers"):
        take(site, "hf_daily", tmp_path / "bad.json")


def test_arxiv_lines(site: Site, tmp_path: Path) -> None:
    rows = [
        {"id": "2503.00001v2", "title": "A", "summary": "S", "first_listed": "2025-03-04", "categories": ["cs.CL"]},
        {"id": "1812.06145", "title": "B", "summary": "S", "first_listed": "2025-10-13"},
        {"id": "what", "title": "C", "summary": "S"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = take(site, "arxiv", tmp_path / "a.jsonl")
    assert (report.papers, report.refused) == (2, 1)
    assert paper(site, "2503.00001").published_at == datetime(2025, 3, 4)
    assert paper(site, "1812.06145").published_at == datetime(2018, 12, 1), "a listing of a revision is no date"


@pytest.mark.skipif("NEXTVEC_DATA" not in os.environ, reason="NEXTVEC_DATA is not set: the real data sets are needed")
def test_a_slice_of_all_real_sets_and_once_more(site: Site) -> None:
    report = corpus(site, "all", limit=300)
    assert report is not None and report.refused == 0 and report.papers > 900
    assert {name for name, _ in site.db.sources()} == {"daily_papers", "arxiv", "acl"}
    assert corpus(site, "all", limit=300) is None, "what is in costs nothing"
    assert all(stored.mark for stored in site.db.select(Filters(), limit=2_000))


@pytest.mark.skipif("NEXTVEC_DATA" not in os.environ, reason="NEXTVEC_DATA is not set: the real data sets are needed")
def test_daily_papers_find_themselves_in_arxiv_without_their_ids(tmp_path: Path) -> None:
    bundled = open_source("daily_papers").batches(Request(), Fetcher(()), None)
    daily = [one.paper for batch in bundled for one in batch.records]
    by_id = {paper.id: paper for paper in daily if paper.source == "daily_papers"}
    (_, path), *_ = parts_of("arxiv")
    batches = open_source("arxiv").batches(Request(file=path), Fetcher(()), None)
    arxiv = [one.paper for batch in itertools.islice(batches, 20) for one in batch.records]
    with open_database(tmp_path) as db:
        shared = [paper for paper in arxiv if paper.id in by_id]
        db.upsert([*shared, *[paper for paper in arxiv if paper.id not in by_id][:3_000]])
        hidden = [Record(paper.id, replace(paper, id=f"hidden/{i}"), ()) for i, paper in enumerate(by_id.values())]
        with db.read() as connection:
            matcher = Matcher(connection, "hf_daily", hidden)
            placed = {record.key: matcher.place(record) for record in hidden}
    found = {key: paper for key, (paper, by_title) in placed.items() if by_title}
    right = sum(key == paper for key, paper in found.items())
    assert len(shared) > 500 and right >= 0.99 * len(shared) and right >= 0.995 * len(found)


# -- ids and links -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2405.13729", "2405.13729"), ("arXiv:2405.13729v12", "2405.13729"), ("cs/0112017v1", "cs/0112017"),
        ("math.GT/0309136", "math/0309136"), ("2413.00001", None), ("0601.0001", None), ("hello", None), ("", None),
        ("2405.137290", None),
    ],
)  # fmt: skip
def test_arxiv_ids(text: str, found: str | None) -> None:
    assert ids.arxiv_id(text) == found


def test_names_of_one_paper_meet() -> None:
    assert ids.names(acl="X98-1.22") == ("acl:X98-1022",) and ids.acl_id("W05-2.3") == "W05-0203"
    assert ids.names(dois=("https://doi.org/10.18653/V1/2025.ACL-LONG.7",)) == (
        "acl:2025.acl-long.7", "doi:10.18653/v1/2025.acl-long.7",
    )  # fmt: skip
    assert ids.names(dois=("10.18653/v1/P18-1022",))[0] == "acl:P18-1022"
    assert ids.names(dois=("10.48550/arXiv.2405.13729",)) == ("arxiv:2405.13729",)
    assert ids.names(dois=("nonsense", "")) == () and ids.names_of_id("my/own") == ()


@pytest.mark.parametrize(
    "text",
    [
        "2405.13729", " arXiv:2405.13729v3 ", "https://arxiv.org/abs/2405.13729", "http://arxiv.org/pdf/2405.13729v2.pdf",
        "https://www.arxiv.org/html/2405.13729v1", "arxiv.org/abs/2405.13729", "https://arxiv.org/abs/2405.13729?x=1#s",
        "https://huggingface.co/papers/2405.13729", "https://doi.org/10.48550/arXiv.2405.13729",
    ],
)  # fmt: skip
def test_links_that_are_understood(text: str) -> None:
    assert read_link(text) == "2405.13729"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("javascript:alert(1)", "links that begin with javascript: cannot be used"),
        ("data:text/html,<script>", "links that begin with data:"),
        ("file:///etc/passwd", "links that begin with file:"),
        ("ftp://arxiv.org/abs/2405.13729", "links that begin with ftp:"),
        ("https://user:secret@arxiv.org/abs/2405.13729", "names a user"),
        ("https://arxiv.org@evil.org/abs/2405.13729", "names a user"),
        ("https://arxiv.org:8080/abs/2405.13729", "names a port"),
        ("https://[::1]/abs/2405.13729", "not a place that papers come from"),
        ("https://127.0.0.1/abs/2405.13729", "not a place that papers come from"),
        ("http://169.254.169.254/latest/meta-data", "not a place that papers come from"),
        ("https://xn--arxv-8cd.org/abs/2405.13729", "other letters than it seems"),
        ("https://аrxiv.org/abs/2405.13729", "other letters than it seems"),
        ("https://arxiv.org.evil.org/abs/2405.13729", "not a place that papers come from"),
        ("https://evil.org/?u=https://arxiv.org/abs/2405.13729", "not a place that papers come from"),
        ("https://arxiv.org/abs/../../etc/passwd", "names no paper"),
        ("https://arxiv.org/list/cs.CL/recent", "names no paper"),
        ("https://arxiv.org/abs/" + "1" * 300, "at most 200"),
        ("https://[", "is not an address"),
        ("just words", "cannot be used here"),
    ],
)
def test_links_that_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_link(text)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_is_an_id_or_an_error(text: str) -> None:
    with contextlib.suppress(InputError):
        assert ids.arxiv_id(read_link(text))


# -- titles --------------------------------------------------------------------------------------------------------
def test_titles_are_folded() -> None:
    assert fold(r"$\alpha$-QE: Émile's  {BERT}!") == fold("α QE — emile s bert")
    assert len(fold("word " * 500)) <= 300 and fold("???") == ""
    assert people(("Yoshua Bengio", "Y. Bengio", "Bengio, Yoshua")) == {("bengio", "y")}
    assert likeness("a b c d", "a b c e") == 3 / 5 and likeness("", "") == 0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Lifelong Model Editing with Graph-Based Memory", "Model Editing with Graph-Based Memory", True),
        ("Automatic Assessment of Answers by Large Generative Models and People in Schools and Elsewhere",
         "Automatic Assessment of Answers by Large Generative Model and People in Schools and Elsewhere", True),
        ("Super 3 an Open and Efficient Hybrid Model for Agents of Many Kinds",
         "Nano 3 an Open and Efficient Hybrid Model for Agents of Many Kinds", False),
        ("A Long Study of Many Things Part 1", "A Long Study of Many Things Part 2", False),
        ("Quite another title", "Nothing in common here", False),
    ],
)  # fmt: skip
def test_nearly_equal_titles_of_the_same_people(one: str, other: str, expected: bool) -> None:
    who = people(("Ada Lovelace", "Kurt Gödel"))
    assert same(Known(fold(one), who, 2025), Known(fold(other), who, 2025)) is expected
    assert not same(Known(fold(one), who, 2025), Known(fold(other), people(("Somebody Else",)), 2025))


def test_equal_titles_are_not_enough() -> None:
    ada, kurt = people(("Ada Lovelace",)), people(("Kurt Gödel",))
    title = fold("Overview of the Shared Task")
    assert not same(Known(title, ada, 2020), Known(title, kurt, 2020))
    assert same(Known(title, ada, 2020), Known(title, ada, 2021))
    assert not same(Known(title, ada, 2020), Known(title, ada, 2024)), "a series has the same title every year"
    assert same(Known(title, ada, 2020), Known(title, frozenset(), 2020))
    assert not same(Known("preface", ada, 2020), Known("preface", frozenset(), 2020))
