"""What the site works out about papers: phrases, keywords, sentences, lines, pairs, people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from databases import open_database, raw
from fakes import HashEncoder
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from nextvec.papers.ingest import ingest
from nextvec.papers.insight import build, keywords, store, summary
from nextvec.papers.insight.about import about, best_sentences, pairs
from nextvec.papers.insight.candidates import candidates, count, normal_form
from nextvec.papers.insight.people import build_people, coauthors, load_people
from nextvec.papers.insight.sentences import sentences, split
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.papers.records import Paper
from nextvec.papers.site import Site
from nextvec.papers.suggest import suggestions
from nextvec.papers.web import create_app

ABSTRACT = (
    "Language models forget long documents. In this paper, we introduce MemoryTree (MT), a retrieval index for long "
    "documents. It halves the cost of inference, e.g. on books. Code is at https://github.com/x/y."
)


def test_sentences_end_where_they_end() -> None:
    assert split("We see e.g. Fig. 3 and J. Smith et al. It works! Does it? Yes it does. 10.5 percent better.") == [
        "We see e.g. Fig. 3 and J. Smith et al. It works!", "Does it?", "Yes it does.", "10.5 percent better.",
    ]  # fmt: skip
    assert sentences("It costs $10^{-3}$ of it. Then \\alpha \\leq 1 holds.") == [
        "It costs 10⁻³ of it.",
        "Then α ≤ 1 holds.",
    ]
    assert split("") == [] and split("Word") == []


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=400))
def test_splitting_loses_no_word(text: str) -> None:
    kept = " ".join(split(text)).split()
    words = text.split()
    assert all(word in words for word in kept) and len(kept) <= len(words)


def test_candidates_are_phrases_between_breaks() -> None:
    found = {
        one.key: one
        for one in candidates(
            "Sparse autoencoders",
            "We propose sparse auto-encoders for vision-language models. They are significantly better, and sparse.",
        )
    }
    assert "vision language model" in found and found["vision language model"].text == "vision-language models"
    assert found["sparse auto encoder"].alone and found["sparse autoencoder"].in_title
    assert not {"propose", "better", "significantly better", "we"} & set(found)
    assert all(1 <= len(one.text.split()) <= 4 for one in found.values())
    twice = {one.key: one for one in candidates("", "Latent space. A latent space of latents.")}
    assert twice["latent space"].times == 2 and 0 <= twice["latent space"].first < 0.1
    assert candidates("", "") == [] and normal_form("Vision-Language Models") == "vision language model"


def test_counts_say_how_many_papers_have_a_phrase() -> None:
    papers = [
        candidates("", text) for text in ("A latent space.", "The latent space matters.", "Big latent space models.")
    ]
    counts = count(papers)
    from nextvec.papers.insight.candidates import bucket

    place = bucket("latent space")
    assert (counts.papers, counts.having[place], counts.alone[place]) == (3, 3, 1)


def test_keywords_do_not_repeat_each_other() -> None:
    found = candidates(
        "", "Diffusion models. Video diffusion models. Video generation. Motion control. Diffusion models."
    )
    counts = count([found])
    listed = keywords.shortlist(found, counts)
    assert [score for score, _ in listed] == sorted((score for score, _ in listed), reverse=True)
    encoder = HashEncoder()
    vectors = encoder.encode_document([one.text for _, one in listed])
    chosen = keywords.choose(listed, vectors, encoder.encode_document(["video diffusion"])[0])
    keys = [f" {normal_form(word)} " for word in chosen]
    assert chosen and not any(one in other for one in keys for other in keys if one != other)
    same = np.tile(vectors[:1], (len(listed), 1))
    assert len(keywords.choose(listed, same, vectors[0])) == 1, "what says the same is said once"


def test_the_line_is_the_sentence_that_announces() -> None:
    found = sentences(ABSTRACT)
    assert len(found) == 4
    encoder = HashEncoder()
    vectors, whole = encoder.encode_document(found), encoder.encode_document([ABSTRACT])[0]
    chosen = summary.choose(found, vectors, whole)
    assert summary.shorten(found[chosen]) == "We introduce MemoryTree (MT), a retrieval index for long documents."


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("However, we show that it fails.", "We show that it fails."),
        ("Motivated by the lack of tests, and by the many that we lack, we then propose a test.", "We propose a test."),
        ("A short sentence.", "A short sentence."),
    ],
)
def test_lines_lose_what_leads_in(sentence: str, expected: str) -> None:
    assert summary.shorten(sentence) == expected


def test_long_lines_end_at_a_clause() -> None:
    long = (
        "We present a system that reads very long documents with a small memory, which keeps only what matters, "
        + "and more " * 20
    )
    assert (
        summary.shorten(long)
        == "We present a system that reads very long documents with a small memory, which keeps only what matters …"
    )
    plain = "We present " + "word " * 80
    assert len(summary.shorten(plain)) <= summary.LONGEST and summary.shorten(plain).endswith("word …")


@settings(max_examples=80, deadline=None)
@given(st.text(alphabet="abc ,;:()—-WeTo", min_size=1, max_size=500))
def test_lines_are_short_and_of_the_sentence(text: str) -> None:
    line = summary.shorten(text)
    assert len(line) <= summary.LONGEST + 2
    assert line.removesuffix(" …").lower().lstrip() in text.lower() or summary._ADVERB.match(text)


# -- of a site -----------------------------------------------------------------------------------------------------
def test_an_ingest_understands_what_is_new_and_only_that(tmp_path: Path, few: list[Paper]) -> None:
    encoder = HashEncoder()
    site = Site(tmp_path, encoder=encoder)
    ingest(site, few[:30])
    assert store.insights(site.db) == 30 and store.missing(site.db, site.encoder_state) == []
    lines = {stored.paper.id: stored.line for stored in site.db.get_many([paper.id for paper in few[:30]])}
    assert all(lines.values())
    changed = replace(few[0], summary="We introduce something else entirely. It is good.")
    before = encoder.embedded
    ingest(site, [changed, *few[1:31]])
    assert encoder.embedded - before < 120, "two papers, their sentences and phrases"
    stored = site.db.get(few[0].id)
    assert stored is not None and stored.line == "We introduce something else entirely."
    assert store.insights(site.db) == 31
    site.close()


def test_an_older_text_has_no_line(tmp_path: Path, few: list[Paper]) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, few[:5])
    site.db.upsert([replace(few[0], summary="Other words.")])
    stored = site.db.get(few[0].id)
    assert stored is not None and stored.line is None
    assert store.missing(site.db, site.encoder_state) == [few[0].id]
    assert len(store.missing(site.db, "another encoder")) == 5
    site.close()


def test_an_interrupted_update_goes_on(tmp_path: Path, few: list[Paper], monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, few[:60], understand=False)
    assert store.insights(site.db) == 0
    monkeypatch.setattr(build, "BATCH", 20)
    work_out, calls = build.work_out, [0]

    def fail(*arguments: object) -> object:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return work_out(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "work_out", fail)
    with pytest.raises(KeyboardInterrupt):
        build.update(site)
    assert store.insights(site.db) == 20
    report = build.update(site)
    assert (report.papers, report.made) == (60, 40) and build.update(site).made == 0
    assert build.update(site, again=True).made == 60
    site.close()


def test_damaged_counts_are_made_again(tmp_path: Path, few: list[Paper]) -> None:
    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, few[:10])
    build.counts_path(site).write_bytes(b"garbage")
    ingest(site, few[:12])
    assert build._read(site) is not None and store.insights(site.db) == 12
    site.close()


def test_packed_vectors_keep_their_direction() -> None:
    vectors = np.random.default_rng(0).standard_normal((7, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    again = store.unpack(store.pack(vectors), 64)
    assert float(np.sum(again * vectors, axis=1).min()) > 0.999
    assert store.unpack(store.pack(np.zeros((2, 64), np.float32)), 64).shape == (2, 64)
    assert store.unpack(store.pack(np.zeros((0, 64), np.float32)), 64).shape == (0, 64)


def test_the_table_comes_to_an_older_database(tmp_path: Path) -> None:
    with raw(tmp_path) as connection:
        migrate(connection, [one for one in MIGRATIONS if one.number < 7])
        connection.execute(
            sa.text(
                "INSERT INTO papers (id, title, summary, authors, upvotes, num_comments) VALUES ('p','t','s','[]',1,0)"
            )
        )
    with open_database(tmp_path) as database:
        stored = database.get("p")
        assert stored is not None and stored.line is None and store.insights(database) == 0


def test_an_older_site_on_a_read_only_disk_is_served_as_before(
    tmp_path: Path, few: list[Paper], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nextvec.papers import connection as module

    site = Site(tmp_path, encoder=HashEncoder())
    ingest(site, few[:20])
    with site.db.write() as connection:
        connection.execute(sa.text("DROP TABLE insights"))
        connection.execute(sa.text("DELETE FROM schema_version WHERE version >= 7"))
    site.close()
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    site = Site(tmp_path, encoder=HashEncoder(), must_exist=True)
    browser = TestClient(create_app(site))
    day = few[0].daily_date
    for path in (f"/papers/{few[0].id}", f"/papers/date/{day}", "/search?q=model", "/search/suggest?q=mod", "/map"):
        assert browser.get(path).status_code == 200, path
    site.close()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    def paper(number: int, text: str, authors: tuple[str, ...], organization: str) -> Paper:
        return Paper(
            id=f"p{number}",
            title=f"Paper {number}",
            summary=text,
            authors=authors,
            organization=organization,
            daily_date=date(2025, 1, 1),
        )

    robots = "Robots walk over rough ground. We train robots to grasp cups with cameras. Nothing else matters here."
    memory = "Memory is short in language models. We train a tree of notes for language models. Nothing else matters."
    papers = [
        paper(i, robots.replace("cups", f"cups number {i}"), ("Ada", "Ben") if i < 3 else ("Ada", "Cem"), "Lab R")
        for i in range(4)
    ]
    papers += [paper(10 + i, memory.replace("notes", f"notes number {i}"), ("Dora",), "Lab M") for i in range(4)]
    site = Site(tmp_path_factory.mktemp("insight"), encoder=HashEncoder())
    ingest(site, papers)
    build_people(site)
    yield site
    site.close()


def test_similar_papers_show_the_nearest_sentences(shelf: Site) -> None:
    one = shelf.db.get("p0")
    assert one is not None
    found = pairs(shelf, one, shelf.db.get_many(["p1", "p10"]))
    assert found["p1"].mine == found["p1"].theirs and found["p1"].cosine > 0.99
    held = store.vectors_of(shelf.db, ["p0", "p10"], 64)
    assert found["p10"].cosine == pytest.approx(float((held["p0"] @ held["p10"].T).max()), abs=1e-5)
    vector = shelf.encoder.encode_query(["grasp cups"])[0]
    assert "grasp cups" in best_sentences(shelf, [one], vector)["p0"]


def test_who_works_on_similar_things(shelf: Site) -> None:
    one = shelf.db.get("p10")
    assert one is not None
    known = about(shelf, one, [])
    assert {other.name for other in known.authors} == {"Ada", "Ben"}, "not Dora herself, and Cem has too few papers"
    assert [other.name for other in known.organizations] == ["Lab R"] and known.keywords and known.topic is None
    assert [(other.name, other.papers) for other in coauthors(shelf, ["Ben"])] == [("Ada", 3)]
    people = load_people(shelf)
    assert people is not None and people.papers["author"].tolist() == [4, 4, 3]


def test_keywords_are_suggested(shelf: Site) -> None:
    assert ("keyword", "language models") in [(one.kind, one.text.lower()) for one in suggestions(shelf, "language")]


def test_pages_show_what_is_known(shelf: Site) -> None:
    browser = TestClient(create_app(shelf))
    text = browser.get("/papers/p0").text
    assert 'class="pair"' in text and 'aria-label="Keywords"' in text and "Organisations with similar papers" in text
    listed = browser.get("/").text
    assert re.search(r'class="teaser">We train', listed), "the line stands in place of the first lines"
    for path in ("/map", "/topics"):
        assert "nextvec papers insight" in browser.get(path).text
    assert browser.get("/topics/none").status_code == 404
