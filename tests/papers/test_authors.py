from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import open_database, raw

from nextvec.papers.authors import fold
from nextvec.papers.db import Database, Selection
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.papers.records import Paper
from nextvec.types import StorageError

pytestmark = pytest.mark.both

NAMES = ("Yoshua Bengio", "José  Álvarez", "Łukasz Kaiser", "Kaiming He", "李飞飞")


def paper(identifier: str, *names: str) -> Paper:
    return Paper(id=identifier, title=identifier, summary="s", authors=names)


def by(db: Database, name: str) -> list[str]:
    return sorted(db.ordered(Selection(author=fold(name)), "votes"))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path) as database:
        database.upsert([paper("a", *NAMES), paper("b", "Yoshua Bengio", "yoshua bengio"), paper("c", "YOSHUA BENGIO")])
        yield database


def test_names_are_the_same_up_to_case_accents_and_spaces(db: Database) -> None:
    assert fold("  José Álvarez ") == fold("jose ALVAREZ") == "jose alvarez"
    assert by(db, "yoshua  bengio") == ["a", "b", "c"] and by(db, "Jose Alvarez") == ["a"] and by(db, "李飞飞") == ["a"]
    assert by(db, "Bengio") == [] and by(db, "") == []
    assert db.find_author("yoshua bengio") == "Yoshua Bengio", "as most papers spell it"
    assert db.find_author("Y. Bengio") is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Yoshua Bengo", "Yoshua Bengio"), ("Joshua Bengio", "Yoshua Bengio"), ("Bengio Yoshua", "Yoshua Bengio"),
        ("Kaiming Hee", "Kaiming He"), ("Jose Alvares", "José  Álvarez"), ("Nobody Atall", None), ("...", None),
    ],
)  # fmt: skip
def test_a_close_name_is_suggested(db: Database, typed: str, meant: str | None) -> None:
    assert db.close_author(typed) == meant


def test_a_paper_that_changes_hands_is_found_by_its_new_authors(db: Database) -> None:
    db.upsert([paper("a", "New Name")])
    assert by(db, "New Name") == ["a"] and by(db, "Kaiming He") == [] and by(db, "Yoshua Bengio") == ["b", "c"]


def test_an_interrupted_write_leaves_authors_as_they_were(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.papers import db as module

    def explode(*_: object) -> None:
        raise RuntimeError("killed here")

    monkeypatch.setattr(module.authors, "_rows", explode)
    with pytest.raises(RuntimeError):
        db.upsert([paper("a", "New Name")])
    assert by(db, "Kaiming He") == ["a"] and by(db, "New Name") == []


def test_a_changed_text_is_noted_and_a_changed_vote_is_not(db: Database) -> None:
    assert db.revisions(["a", "b"]) == {}
    changed = db.fact("changed")
    assert changed is not None
    db.upsert([replace(paper("a", *NAMES), upvotes=7), replace(paper("b"), summary="another")])
    assert set(db.revisions(["a", "b", "c"])) == {"b"}
    assert (db.fact("changed") or "") > changed


def old_database(home: Path) -> None:
    """A database as the version before authors had a table left it."""
    row = sa.text(
        "INSERT INTO papers (id, title, summary, authors, upvotes, num_comments, published_at, daily_date, text_hash) "
        "VALUES (:id, 't', 's', :authors, 1, 2, '2025-02-01 10:00:00.000000', '2025-02-03', 'x')"
    )
    with raw(home) as connection:
        migrate(connection, MIGRATIONS[:2])
        for i in range(2_500):  # more than one batch
            connection.execute(row, {"id": f"p{i}", "authors": json.dumps([*NAMES, f"Author {i}"], ensure_ascii=False)})


def test_an_old_database_learns_its_authors_and_its_name(tmp_path: Path) -> None:
    old_database(tmp_path)
    with open_database(tmp_path) as db:
        assert by(db, "author 2499") == ["p2499"] and len(by(db, "Kaiming He")) == 2_500
        assert db.find_author("jose alvarez") == "José  Álvarez"
        site, changed = db.fact("site"), db.fact("changed")
        assert site and changed
        latest = db.ordered(Selection(dated=True), "moment")
        assert latest[:2] == ["p999", "p998"], "one moment: by id"
    with open_database(tmp_path) as db:
        assert (db.fact("site"), db.fact("changed")) == (site, changed), "a second start changes nothing"
    with open_database(tmp_path / "other") as other:
        assert other.fact("site") != site, "every site has its own name"


def test_an_old_database_on_a_read_only_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.papers import connection as module

    old_database(tmp_path)
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    with open_database(tmp_path, must_exist=True) as db:
        assert db.read_only
        assert db.count() == 2_500, "all that it could do before still works"
        with pytest.raises(StorageError, match=r"older nextvec.*open it once"):
            db.find_author("Kaiming He")


@pytest.mark.sqlite
def test_the_sorted_index_serves_the_newest(db: Database) -> None:
    with db.read() as connection:
        text = "SELECT id FROM papers ORDER BY coalesce(listed_at, published_at, daily_date) DESC, id DESC LIMIT 5"
        plan = " ".join(str(row[-1]) for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {text}")))
    assert "papers_by_moment" in plan and "TEMP B-TREE" not in plan


def test_ids_are_one_parameter_in_both_dialects() -> None:
    from sqlalchemy.dialects import postgresql, sqlite

    query = sa.select(sa.literal(1)).where(*Selection(ids='["a"]').conditions())
    assert "SELECT value \nFROM json_each(?)" in str(query.compile(dialect=sqlite.dialect()))
    assert "json_array_elements_text(CAST(%(" in str(query.compile(dialect=postgresql.dialect()))
