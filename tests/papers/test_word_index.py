"""The word index follows what changes; nothing that it finds says so: it is the index that would be made of nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from people import papers

from nextvec.papers import changes, word_index, word_parts
from nextvec.papers.db import Filters
from nextvec.papers.ingest import ingest
from nextvec.papers.ranking import Request, rank
from nextvec.papers.site import Site
from nextvec.papers.sources import moderation
from nextvec.papers.word_index import LexicalIndex, follow
from nextvec.papers.word_parts import Row
from nextvec.search import postings
from nextvec.types import StorageError

WORDS = [
    "latent",
    "model",
    "models",
    "GPT-4o",
    "gpt",
    "4o",
    "robot",
    "vision",
    "the",
    "zebra",
    "multi-modal",
    "café",
    "x1",
]
QUERIES = ["latent", "models for robots", "GPT-4o", "zebra vision cafe", "multimodal", "the", "", "nobody", "x1 x1"]


def assert_same(index: LexicalIndex, rows: Sequence[Row]) -> None:
    """``index`` gives what one made of ``rows`` alone gives."""
    anew = LexicalIndex.build(sorted(rows), stamp=index.stamp)
    assert index.ids == anew.ids and len(index) == len(anew)
    some = anew.ids[::3]
    for query in QUERIES:
        for k in (1, 3, 1_000):
            for allowed in (None, frozenset(some)):
                names, scores, total = index.search(query, k, allowed=allowed)
                wanted, expected, count = anew.search(query, k, allowed=allowed)
                assert (names, total) == (wanted, count), query
                assert scores == pytest.approx(expected, abs=1e-6)
        assert sorted(index.holding(query)) == sorted(anew.holding(query))
        assert sorted(index.sharing(query)) == sorted(anew.sharing(query))
        assert index.terms(query, [*anew.ids, "no paper"]) == anew.terms(query, anew.ids)
    for token in ("latent", "zebra", "gpt4o", "nobody"):
        assert index.knows(token) == anew.knows(token)


TEXT = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
PAPER = st.tuples(st.integers(0, 30), TEXT, TEXT, st.lists(st.sampled_from(["Ada", "Bo Xu"]), max_size=2), st.none())
STEP = st.tuples(st.lists(PAPER, max_size=6), st.lists(st.integers(0, 30), max_size=4), st.booleans())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=12), full=st.sampled_from([4, 16, 65_536]))
def test_following_is_making_anew(steps: list[tuple[list[Row], list[int], bool]], full: int, tmp_path: Path) -> None:
    held: dict[str, Row] = {}
    with pytest.MonkeyPatch.context() as patch:
        for module in (postings, word_parts):
            patch.setattr(module, "SEGMENT_ROWS", full)
        index = LexicalIndex.build([], stamp="0")
        for number, (came, went, stored) in enumerate(steps, start=1):
            rows = {f"p{row[0]:02}": (f"p{row[0]:02}", *row[1:]) for row in came}
            gone = {f"p{one:02}" for one in went} - rows.keys()
            held = {name: row for name, row in held.items() if name not in gone} | rows
            index = index.updated(sorted(rows.values()), {*rows, *gone}, stamp=str(number))
            assert_same(index, list(held.values()))
            if stored:
                index.save(tmp_path / "words")
                index = LexicalIndex.load(tmp_path / "words", index)
                assert_same(LexicalIndex.load(tmp_path / "words"), list(held.values()))
        assert all(len(part) <= full for part in index._parts)


def test_one_paper_after_the_other_makes_few_parts_and_few_files(tmp_path: Path) -> None:
    index, rows = LexicalIndex.build([], stamp="0"), []
    written = 0
    before: set[str] = set()
    for number in range(200):
        row = (f"{number:03}", f"Title {number}", "An abstract.", ["Ada"], None)
        rows.append(row)
        index = index.updated([row], [row[0]], stamp=str(number))
        written += sum(len(part) for part in index._parts if part.name not in before)
        before = {part.name for part in index._parts}
        assert len(index._parts) <= 6
        index.save(tmp_path / "words")
        assert len(list((tmp_path / "words").iterdir())) == 1 + 4 * len(index._parts)
    assert written < 200 * 12, "a paper is written again a few times, not once for every one that comes"
    assert_same(LexicalIndex.load(tmp_path / "words"), rows)


def test_a_paper_whose_words_are_as_they_were_is_not_read_again() -> None:
    rows: list[Row] = [(f"{n}", f"Title {n}", "An abstract.", ["Ada"], None) for n in range(9)]
    index = LexicalIndex.build(rows, stamp="1")
    after = index.updated(rows, [row[0] for row in rows], stamp="2")
    assert after.stamp == "2" and after._parts == index._parts


def test_who_has_an_index_open_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    rows: list[Row] = [(f"{n}", f"Title {n}", "An abstract.", ["Ada"], None) for n in range(9)]
    LexicalIndex.build(rows[:8], stamp="1").save(folder)
    before = LexicalIndex.load(folder)
    before.updated(rows[8:], ["8", "0", "1", "2", "3", "4"], stamp="2").save(folder)
    assert before.search("title", 20)[2] == 8, "its files are gone, and it has them"
    after = LexicalIndex.load(folder, before)
    assert_same(after, [rows[number] for number in (5, 6, 7, 8)])


def test_a_header_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "words"
    first = LexicalIndex.build([("a", "Zebra", "", [], None)], stamp="1")
    second = LexicalIndex.build([("b", "Zebra", "", [], None)], stamp="2")
    first.save(folder)
    opened, later = word_parts._opened, [second]

    def slow(place: Path, entry: dict[str, object]) -> word_parts.Part:
        if later:
            later.pop().save(folder)
        return opened(place, entry)

    monkeypatch.setattr(word_parts, "_opened", slow)
    found = LexicalIndex.load(folder)
    assert (found.stamp, found.ids) == ("2", ["b"])


@pytest.mark.parametrize("what", ["index.json", "*.papers", "*-title.postings"])
@pytest.mark.parametrize("how", ["gone", "cut", "changed"])
def test_a_damaged_index_is_told_and_made_anew(site: Site, what: str, how: str) -> None:
    path = next(site.words_path.glob(what))
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if how == "cut" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(StorageError, match="missing or damaged"):
        LexicalIndex.load(site.words_path)
    ingest(site, [])
    assert_same(LexicalIndex.load(site.words_path), list(site.db.lexical_rows()))


# -- what changes in the database ------------------------------------------------------------------------------------
@pytest.mark.both
@pytest.mark.parametrize("seed", range(4))
def test_adds_changes_votes_hides_merges_and_deletes(site: Site, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = random.Random(seed)
    known = {paper.id: paper for paper in papers()}
    monkeypatch.setattr(LexicalIndex, "build", lambda *_, **__: pytest.fail("made of nothing"))
    for number in range(12):
        there = sorted(site.db.ids(Filters()))
        act = choice.choice(["add", "change", "vote", "hide", "unhide", "merge", "split", "drop"])
        one = choice.choice(there)
        away = [paper.paper for paper in moderation.withdrawn(site.db, limit=9) if paper.state == "hidden"]
        merged = [paper.target for paper in moderation.withdrawn(site.db, limit=9) if paper.state == "merged"]
        text = " ".join(choice.choices(WORDS, k=5))
        if act == "add":
            known[f"n{number}"] = replace(papers()[0], id=f"n{number}", title=text, authors=("Ada",))
            ingest(site, [known[f"n{number}"]])
        elif act == "change" and one in known:
            known[one] = replace(known[one], summary=text)
            ingest(site, [known[one]])
        elif act == "vote" and one in known:
            known[one] = replace(known[one], upvotes=choice.randrange(1_000))
            ingest(site, [known[one]])
        elif act == "hide" and len(there) > 3:
            moderation.hide(site.db, one, reason="twice", actor="me")
        elif act == "unhide" and away:
            moderation.unhide(site.db, away[0], actor="me")
        elif act == "merge" and len(there) > 3:
            moderation.merge(site.db, one, choice.choice([other for other in there if other != one]), actor="me")
        elif act == "split" and merged and merged[0] in there:
            moderation.split(site.db, merged[0], actor="me")
        elif act == "drop" and len(there) > 3:
            with site.db.write() as connection:
                site.db.drop(connection, [one])
        if choice.random() < 0.5:
            ingest(site, [])  # several acts are followed at once
    ingest(site, [])
    index = LexicalIndex.load(site.words_path)
    monkeypatch.undo()
    assert index.stamp == site.stamp
    assert_same(index, list(site.db.lexical_rows()))


@pytest.mark.both
def test_the_log_says_what_changed_since(site: Site) -> None:
    with site.db.read() as connection:
        start = changes.generation(connection)
        assert site.db.changed(connection, start) == changes.Changed(start, [])
        assert site.db.changed(connection, "another").papers is None
        assert site.db.changed(connection, None).papers is None
    one, other = papers()[:2]
    site.db.upsert([replace(one, upvotes=one.upvotes + 1)])
    middle = site.stamp
    site.db.upsert([replace(other, title="Another"), replace(one, upvotes=one.upvotes + 1)])
    with site.db.read() as connection:
        assert site.db.changed(connection, start) == changes.Changed(site.stamp, sorted([one.id, other.id]))
        assert site.db.changed(connection, middle).papers == [other.id], "the other one came as it was"
    with site.db.write() as connection:
        site.db.drop(connection, [one.id])
    with site.db.read() as connection:
        assert site.db.changed(connection, middle).papers == sorted([one.id, other.id])


def test_generations_are_forgotten_after_a_while(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_REMEMBERED", 3)
    start = site.stamp
    for votes in range(100, 104):
        site.db.upsert([replace(papers()[0], upvotes=votes)])
    with site.db.read() as connection:
        assert site.db.changed(connection, start).papers is None
    ingest(site, [])
    assert LexicalIndex.load(site.words_path).stamp == site.stamp


def test_a_database_of_before_is_followed_from_its_last_state(site: Site) -> None:
    import sqlalchemy as sa

    if site.db._engine.dialect.name != "sqlite":
        pytest.skip("statements of SQLite")
    with site.db.write() as connection:
        for statement in (
            "DROP TABLE generations",
            "DROP TABLE changes",
            "DROP INDEX papers_by_state",
            "ALTER TABLE mail_subscriptions DROP COLUMN language",
            "DELETE FROM schema_version WHERE version >= 10",
        ):
            connection.execute(sa.text(statement))
    site.close()
    again = Site(site.home, encoder=site.encoder, must_exist=True)
    with again.db.read() as connection:
        assert again.db.changed(connection, again.stamp).papers == []
    again.db.upsert([replace(papers()[0], title="Zebras everywhere")])
    index = follow(again.db, LexicalIndex.load(again.words_path))
    assert index.search("zebras", 5)[0] == [papers()[0].id]
    again.close()


def test_a_site_that_starts_behind_its_papers_follows_them(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.db.upsert([replace(papers()[0], title="Zebras everywhere")])  # no ingest has written the words
    monkeypatch.setattr(word_index.LexicalIndex, "build", lambda *_, **__: pytest.fail("made of nothing"))
    assert rank(site, Request(query="zebras", mode="keyword")).ids == (papers()[0].id,)
