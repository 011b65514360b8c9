"""Where a home keeps its rows, and what is particular to PostgreSQL: one writer, snapshots, a server that goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import databases
import pytest
import sqlalchemy as sa
from databases import Server, open_database
from fakes import HashEncoder
from fastapi.testclient import TestClient
from people import join, papers, state

from command_line import run
from nextvec.papers import place, postgresql
from nextvec.papers.accounts import comments, votes
from nextvec.papers.db import Database, Filters
from nextvec.papers.ingest import ingest, is_ready
from nextvec.papers.operations.backup import backup, restore
from nextvec.papers.place import REMEMBERED, SQLITE, VARIABLE
from nextvec.papers.site import Site
from nextvec.papers.web import create_app
from nextvec.types import ConflictError, InputError, MissingExtraError, NotFoundError, StorageError

pytestmark = pytest.mark.both
PASSWORD = "s3cret"


@pytest.fixture
def server(database_server: Server | None) -> Server:
    """The server, where these tests have one."""
    if database_server is None:
        pytest.skip("about PostgreSQL: run with --papers-database=postgresql")
    return database_server


@pytest.fixture
def address(server: Server) -> Iterator[str]:
    """An empty database."""
    name, address = server.new(None)
    yield address
    server.remove(name)


# -- addresses -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "match"),
    [
        (f"mysql://ada:{PASSWORD}@host/papers", "begins with 'mysql'"), (f"ada:{PASSWORD}@host/papers", "no scheme"),
        (f"postgresql://ada:{PASSWORD}@host", "names no database"), ("postgresql://host:port/papers", "cannot be read"),
        (f"postgresql://ada:{PASSWORD}@{PASSWORD}@host/papers", "%40"),
        (f"postgresql://ada:x@y/{PASSWORD}@host/papers", "%2F"), (f"postgresql://ada:x y@{PASSWORD} /papers", "%20"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_told_without_its_password(text: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=match) as told:
        place.find(tmp_path, text)
    assert PASSWORD not in str(told.value) and "expected postgresql://user@host/database" in str(told.value)


def test_what_is_shown_has_no_password() -> None:
    text = f"postgres://ada:{PASSWORD}@h:5/papers?sslmode=require&password={PASSWORD}&sslpassword={PASSWORD}"
    assert postgresql.shown(postgresql.read_address(text)) == "postgresql://ada@h:5/papers?sslmode=require"


@pytest.mark.parametrize("where", ["127.0.0.1:1", "nowhere.invalid"])
def test_a_server_that_is_not_there_is_one_line_without_the_password(where: str, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    address = f"postgresql://ada:{PASSWORD}@{where}/papers?connect_timeout=2"
    done = run("papers", "ingest", "--source", "daily_papers", "--database", address, home=tmp_path / "new", code=1)
    assert "cannot use the paper database 'postgresql://ada@" in done.stderr and done.stderr.count("\n") == 1
    assert PASSWORD not in done.stdout + done.stderr and not (tmp_path / "new" / REMEMBERED).exists()


def test_without_the_driver_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str) -> None:
        raise ModuleNotFoundError(name=module)

    monkeypatch.setattr("nextvec.extras.import_module", absent)
    with pytest.raises(MissingExtraError, match=r"on PostgreSQL needs 'psycopg'.*nextvec\[postgres\]"):
        place.open_database(tmp_path, "postgresql://ada@host/papers")


# -- which one -----------------------------------------------------------------------------------------------------
def test_the_home_remembers_and_only_its_owner_can_read_it(address: str, tmp_path: Path) -> None:
    site = Site(tmp_path / "home", encoder=HashEncoder(), database=address)
    ingest(site, papers())
    site.close()
    kept = tmp_path / "home" / REMEMBERED
    assert kept.stat().st_mode & 0o777 == 0o600 and json.loads(kept.read_text())["address"] == address
    assert not (tmp_path / "home" / SQLITE).exists()
    again = Site(tmp_path / "home", encoder=HashEncoder(), must_exist=True)
    assert again.db.count() == 8 and is_ready(again)
    again.close()


def test_the_option_goes_before_the_variable(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "postgresql://ada@127.0.0.1:1/papers")
    assert place.find(tmp_path).shown == "postgresql://ada@127.0.0.1:1/papers"
    assert place.find(tmp_path, address).address == address
    monkeypatch.setenv(VARIABLE, address)
    with pytest.raises(NotFoundError, match="there is no paper site"):
        place.open_database(tmp_path, must_exist=True)
    with place.open_database(tmp_path) as db:
        assert db.location.startswith("postgresql://")
    monkeypatch.setenv(VARIABLE, " ")
    assert place.find(tmp_path).address == address, "remembered"


def test_another_home_is_refused(address: str, tmp_path: Path) -> None:
    place.open_database(tmp_path / "one", address).close()
    with pytest.raises(ConflictError, match=r"serves another home \(.*/one\)"):
        place.open_database(tmp_path / "two", address)
    assert not (tmp_path / "two").exists() or not list((tmp_path / "two").iterdir())
    with place.open_database(tmp_path / "one") as db, db.write() as connection:
        connection.exec_driver_sql("DELETE FROM facts WHERE name = 'home'")
    place.open_database(tmp_path / "two", address).close()
    with pytest.raises(ConflictError, match="serves another home"):
        place.open_database(tmp_path / "one")


def test_papers_do_not_disappear_behind_another_address(address: str, server: Server, tmp_path: Path) -> None:
    place.open_database(tmp_path / "home", address).close()
    name, other = server.new(None)
    with pytest.raises(ConflictError, match="does not hold them: move them with pg_dump"):
        place.open_database(tmp_path / "home", other)
    with place.open_database(tmp_path / "home", address.replace("postgres:@", "postgres@")) as db:
        assert db.count() == 0, "the same database by another name"
    server.remove(name)
    (tmp_path / "old").mkdir()
    Database(tmp_path / "old" / SQLITE).close()
    with pytest.raises(ConflictError, match=f"lie in its {SQLITE}.*nextvec papers restore"):
        place.open_database(tmp_path / "old", address)


@pytest.mark.parametrize(
    "content", ["", "{}", "postgresql://a@b/c", '{"address": "mysql://x", "home": "1"}', '[1, "2"]']
)
def test_a_note_that_cannot_be_read_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / REMEMBERED).write_text(content)
    with pytest.raises(StorageError, match="cannot be read as what nextvec wrote there"):
        place.find(tmp_path)


# -- from one to the other -----------------------------------------------------------------------------------------
def test_a_site_moves_from_sqlite_to_postgresql_and_back(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nextvec.papers.site.open_database", place.open_database)
    site = Site(tmp_path / "a", encoder=HashEncoder())
    ingest(site, papers())
    ada = join(site.db, "ada@example.org")
    votes.give(site.db, ada.id, "p1")
    comments.write(site.db, ada.id, "p1", "First: ünïcödé, \\ and 'quotes'.")
    backup(site.home, tmp_path / "1.zip")
    rows = [state(site)]
    site.close()
    restore(tmp_path / "1.zip", tmp_path / "b", database=address)
    assert not (tmp_path / "b" / SQLITE).exists()
    backup(tmp_path / "b", tmp_path / "2.zip")
    restore(tmp_path / "2.zip", tmp_path / "c")
    assert not (tmp_path / "c" / REMEMBERED).exists()
    for name in ("b", "c"):
        moved = Site(tmp_path / name, encoder=HashEncoder(), must_exist=True)
        assert (moved.db.count(), comments.thread(moved.db, "p1")[0].text[:12]) == (8, "First: ünïcö")
        ingest(moved, [])
        assert is_ready(moved)
        rows.append(state(moved))
        moved.close()
    assert set(rows[0]) == set(rows[1]) == set(rows[2])
    told = {name for name in rows[0] if rows[0][name] != rows[2][name]}
    assert told <= {"facts", "generations"}, "all that a restore changes on purpose"


# -- one writer, snapshots -----------------------------------------------------------------------------------------
def test_a_read_is_one_moment_and_cannot_write(server: Server, tmp_path: Path) -> None:
    with open_database(tmp_path) as db:
        with db.read() as connection:
            count = sa.text("SELECT count(*) FROM papers")
            assert connection.execute(count).scalar() == 0
            db.upsert(papers())
            assert connection.execute(count).scalar() == 0 and db.count() == 8
        with pytest.raises(StorageError, match="read-only"), db.read() as connection:
            connection.exec_driver_sql("DELETE FROM papers")


def test_writers_take_turns(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_database(tmp_path) as db:

        def add() -> None:
            for _ in range(20):
                with db.write() as connection:  # reads, then writes: lost where two do it at once
                    found = connection.exec_driver_sql("SELECT value FROM facts WHERE name = 'n'").scalar_one()
                    connection.exec_driver_sql(f"UPDATE facts SET value = '{int(found) + 1}' WHERE name = 'n'")

        db.set_facts(n="0")
        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert db.fact("n") == "80"
    monkeypatch.setattr(postgresql, "_WAIT", "20ms")
    with open_database(tmp_path) as db:
        with db.write(), pytest.raises(ConflictError, match="busy with another writer"):
            db.upsert(papers())
        assert db.upsert(papers()) == 8


HOLDS = """
import sys, time
from pathlib import Path
from nextvec.papers.place import open_database
with open_database(Path(sys.argv[1])) as db, db.write() as connection:
    connection.exec_driver_sql("DELETE FROM papers")
    print("deleted", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_nothing_and_holds_nobody_up(server: Server, tmp_path: Path) -> None:
    with open_database(tmp_path) as db:
        db.upsert(papers())
        process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "deleted\n"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        assert db.upsert([replace(papers()[0], title="Another")]) == 1 and db.count() == 8


def test_a_server_that_was_restarted_is_not_noticed(server: Server, tmp_path: Path) -> None:
    with open_database(tmp_path) as db:
        db.upsert(papers())
        server.disconnect()
        assert db.count() == 8, "what waited in the pool was ended"
        with pytest.raises(StorageError, match="cannot use the paper database"), db.write() as connection:
            connection.exec_driver_sql("DELETE FROM papers")
            server.disconnect()
            connection.exec_driver_sql("DELETE FROM facts")
        assert db.count() == 8, "the transaction is undone, the next one has a connection"


# -- the same answers ----------------------------------------------------------------------------------------------
def test_texts_are_ordered_by_their_characters_and_have_any_length(tmp_path: Path) -> None:
    names = ["Z", "a", "B", "é", "e", "-b", "b", "😀", "\uffee", "Ö"]
    with open_database(tmp_path) as db:
        db.upsert([replace(papers()[0], id=f"p{i}", organization=name) for i, name in enumerate(names)])
        assert [name for name, _ in db.organizations()] == sorted(names)
        assert db.find_organization("ö") is None and db.find_organization("z") == "Z", "only ASCII has cases"
        db.set_facts(**{"n" * 500: "x"})
        db.upsert([replace(papers()[0], id="many", upvotes=2**40)])
        assert db.ids(Filters(votes=2**39)) == {"many"}


def test_no_time_comes_last(tmp_path: Path) -> None:
    with open_database(tmp_path) as db:
        dated, undated = papers(1)[0], replace(papers(1)[0], id="none", daily_date=None)
        db.upsert([undated, dated])
        for order in ("newest", "moment", "days"):
            assert db.ordered(Filters(), order)[-1] == "none"


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "a\ud800b"])
def test_what_no_database_keeps_is_refused_as_input(text: str, tmp_path: Path, server: Server) -> None:
    with open_database(tmp_path) as db:
        for ask in (db.find_organization, db.get, lambda name: db.set_facts(x=name)):
            with pytest.raises(InputError):
                ask(text)


PATHS = (
    "/search?q=", "/search?votes=", "/search/suggest?q=", "/papers/new?org=", "/papers/new?author=", "/?org=",
    "/papers/", "/api/papers/", "/api/papers?limit=",
)  # fmt: skip


def test_no_address_makes_the_site_fail(site: Site) -> None:
    client = TestClient(create_app(site), raise_server_exceptions=False)
    for value in ("%00", "a%00b", "%ED%A0%80", "9" * 30, "2147483648", "%F0%9F%98%80", "'\"\\"):
        for path in PATHS:
            assert client.get(path + value).status_code < 500, path + value


def test_the_helper_of_these_tests_gives_each_home_its_own(server: Server, tmp_path: Path) -> None:
    with open_database(tmp_path / "a") as one, open_database(tmp_path / "b") as other:
        one.upsert(papers())
        assert other.count() == 0
    with place.open_database(databases.copy_home(tmp_path / "a", tmp_path / "c")) as copy:
        assert copy.count() == 8
