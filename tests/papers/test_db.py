from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import open_database, raw

from nextvec.papers import connection as module
from nextvec.papers import db as db_module
from nextvec.papers.db import Database, Filters
from nextvec.papers.migrations import MIGRATIONS, Migration, migrate, tables_made
from nextvec.papers.records import Paper
from nextvec.types import ConflictError, StorageError

pytestmark = pytest.mark.both

A = Paper(id="a", title="A", summary="one", upvotes=5, daily_date=date(2025, 1, 1), organization="Org", authors=("X",))
B = Paper(id="b", title="B", summary="two", upvotes=9, daily_date=date(2025, 1, 1), github_repo="https://g.io/b")
C = Paper(id="c", title="C", summary="three", upvotes=1, daily_date=date(2025, 1, 3), organization="O'Org")
D = Paper(id="d", title="D", summary="four")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path) as database:
        database.upsert([A, B, C, D])
        yield database


def test_what_went_in_comes_out(db: Database) -> None:
    assert [stored.paper for stored in db.get_many(["c", "a", "zzz", "b"])] == [C, A, B]
    assert db.get("zzz") is None and db.count() == 4
    assert [stored.paper.id for stored in db.select(Filters(), limit=3)] == ["b", "a", "c"]
    assert [stored.paper.id for stored in db.select(Filters(), order="newest", limit=9)] == ["c", "b", "a", "d"]


def test_filters(db: Database) -> None:
    assert db.ids(Filters(start=date(2025, 1, 2))) == {"c"}
    assert db.ids(Filters(end=date(2025, 1, 1))) == {"a", "b"}
    assert db.ids(Filters(organization="O'Org")) == {"c"}
    assert db.ids(Filters(votes=5)) == {"a", "b"} and db.ids(Filters(votes=5, code=True)) == {"b"}
    assert Filters(organization="O'Org", votes=2, code=True).where() == (
        "organization = 'O''Org' AND upvotes >= 2 AND has_code = true"
    )
    assert Filters().where() is None and not Filters() and Filters(code=True)


def test_totals_and_lists(db: Database) -> None:
    assert db.summary(Filters(end=date(2025, 1, 1))) == {
        "papers": 2, "votes": 14, "with_code": 1, "organizations": 1,
    }  # fmt: skip
    assert db.summary(Filters(votes=99)) == {"papers": 0, "votes": 0, "with_code": 0, "organizations": 0}
    assert db.day_counts() == {date(2025, 1, 1): 2, date(2025, 1, 3): 1}
    assert db.organizations() == [("O'Org", 1), ("Org", 1)]
    assert db.find_organization("ORG") == "Org" and db.find_organization("nope") is None
    assert db.close_organization("Orgg") == "Org"


def test_neighbours_are_those_of_the_day(db: Database) -> None:
    b, a = db.get_many(["b", "a"])
    assert db.neighbours(b) == (None, a) and db.neighbours(a) == (b, None)
    stored = db.get("d")
    assert stored is not None and db.neighbours(stored) == (None, None)


def test_one_connection_is_enough_for_a_question(tmp_path: Path) -> None:
    with open_database(tmp_path) as database:
        database.upsert([A])
        pool: Any = database._engine.pool
        pool._timeout = 0.1
        with ExitStack() as stack:
            # All but one: whoever needed two would wait for the others, and they for each other.
            for _ in range(pool.size() + pool._max_overflow - 1):
                stack.enter_context(database.read())
            stored = database.get("a")
            assert stored is not None and stored.line is None
            stack.enter_context(database.read())
            with pytest.raises(StorageError, match="all connections to it are in use"):
                database.count()


def test_upsert_counts_changes_and_marks_them_pending(db: Database) -> None:
    assert db.upsert([A, B]) == 0
    generation = db.fact("generation")
    db.mark_indexed([A, B, C, D], ["m"] * 4)
    assert db.pending(10) == [] and db.indexed_ids() == set("abcd")
    assert db.upsert([replace(A, upvotes=6), replace(B, summary="new"), C]) == 2
    assert [(pending.paper.id, pending.text_changed) for pending in db.pending(10)] == [("a", False), ("b", True)]
    assert [pending.paper.id for pending in db.pending(10, "a")] == ["b"] and db.pending_count() == 2
    assert db.fact("generation") != generation
    stored = db.get("a")
    assert stored is not None and stored.mark == "m", "a change of votes keeps the emblem"


def test_a_failed_write_leaves_nothing(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("killed here")

    monkeypatch.setattr(db_module, "upsert_statement", explode)
    with pytest.raises(RuntimeError):
        db.upsert([replace(A, upvotes=100)])
    monkeypatch.undo()
    stored = db.get("a")
    assert stored is not None and stored.paper.upvotes == 5


def test_migrations_run_once_and_forward_only(tmp_path: Path) -> None:
    with raw(tmp_path) as connection:
        assert migrate(connection, MIGRATIONS[:1]) == 1
        connection.execute(
            sa.text(
                "INSERT INTO papers (id, title, summary, authors, upvotes, num_comments) VALUES ('p','t','s','[]',1,0)"
            )
        )
    with open_database(tmp_path) as database:
        stored = database.get("p")
        assert stored is not None and stored.paper.title == "t", "rows survive the later steps"
    with raw(tmp_path) as connection:
        assert migrate(connection) == 0
        numbers = [row[0] for row in connection.execute(sa.text("SELECT version FROM schema_version ORDER BY version"))]
        assert set(tables_made()) <= set(sa.inspect(connection).get_table_names())
    assert numbers == [migration.number for migration in MIGRATIONS] == sorted(numbers)


def test_a_failing_migration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_database(tmp_path) as database:
        database.upsert([A])
    bad = (
        *MIGRATIONS,
        Migration(MIGRATIONS[-1].number + 1, "bad", ("CREATE TABLE extra (x INTEGER)", "SELECT nonsense()")),
    )
    monkeypatch.setattr(module, "migrate", lambda connection: migrate(connection, bad))
    with pytest.raises(StorageError):
        open_database(tmp_path)
    monkeypatch.undo()
    with open_database(tmp_path) as database, database.read() as connection:
        assert not sa.inspect(connection).has_table("extra") and database.count() == 1


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    with open_database(tmp_path) as database, database.write() as connection:
        connection.execute(sa.text("INSERT INTO schema_version VALUES (999, 'from the future')"))
    with pytest.raises(StorageError, match=r"schema version 999.*upgrade nextvec"):
        open_database(tmp_path)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough" * 50, b"SQLite format 3\x00" + b"\xff" * 4000]
)
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "papers.sqlite"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"papers\.sqlite.* is damaged") as caught:
        Database(path)
    assert "\n" not in str(caught.value)


@pytest.mark.sqlite
def test_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        Database(tmp_path / "file" / "papers.sqlite")


@pytest.mark.sqlite
def test_a_read_only_snapshot_can_be_read_but_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "papers.sqlite"
    with Database(path) as database:
        database.upsert([A])
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    with Database(path, read_only=True) as database:
        assert database.count() == 1
        with pytest.raises(StorageError, match="read-only"):
            database.upsert([B])


@pytest.mark.sqlite
def test_all_connections_together_keep_few_pages(tmp_path: Path) -> None:
    with Database(tmp_path / "papers.sqlite") as database, ExitStack() as stack:
        held = [
            stack.enter_context(database.read()).exec_driver_sql("PRAGMA cache_size").scalar_one() for _ in range(15)
        ]
        assert set(held) == {-8_000}, "in kilobytes: 120 MB for all that there can be"


@pytest.mark.sqlite
def test_a_second_writer_waits_or_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "papers.sqlite"
    with Database(path) as first, Database(path) as second:
        with second.read() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=10")
        with first.write(), pytest.raises(ConflictError, match="busy with another writer"):
            second.upsert([A])
        assert second.upsert([A]) == 1


@pytest.mark.sqlite
def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "papers.sqlite"
    with Database(path) as database:
        database.upsert([A])
        pages = path.stat().st_size // 4096
    connect = module._connect

    def small(address: str) -> object:
        connection = connect(address)
        connection.execute(f"PRAGMA max_page_count={pages + 3}")
        return connection

    monkeypatch.setattr(module, "_connect", small)
    with Database(path) as database:
        with pytest.raises(StorageError, match="the disk is full"):
            database.upsert([replace(B, id=f"b{i}", summary="x" * 10_000) for i in range(50)])
        assert database.ids(Filters()) == {"a"}
