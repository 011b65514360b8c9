"""A site into one file and back: nothing lost, nothing half, nothing that somebody else made."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import address_for, open_database, raw
from fakes import HashEncoder
from people import copied, join, papers, state

from command_line import run
from nextvec.papers.accounts import comments, interests, lists, votes
from nextvec.papers.ingest import ingest, is_ready
from nextvec.papers.mail.outbox import Outbox
from nextvec.papers.mail.store import MailStore
from nextvec.papers.mail.subscriptions import read_wanted
from nextvec.papers.mail.tables import OUTBOX, SUBSCRIPTIONS
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.papers.operations import archive
from nextvec.papers.operations.backup import Restored, backup
from nextvec.papers.operations.backup import restore as restore_into
from nextvec.papers.search import search
from nextvec.papers.signing import load_secret
from nextvec.papers.site import Site
from nextvec.types import ConflictError, InputError, NextvecError, NotFoundError, StorageError

pytestmark = pytest.mark.both

KILLED = Path(__file__).parent / "backup_killed.py"


@pytest.fixture
def lived(site: Site) -> Site:
    """A site where people have voted, written, kept, followed and subscribed."""
    ada, bob = join(site.db, "ada@example.org"), join(site.db, "bob@example.org")
    for reader, paper in ((ada, "p1"), (ada, "p2"), (bob, "p1")):
        votes.give(site.db, reader.id, paper)
    parent = comments.write(site.db, ada.id, "p1", "First.")
    comments.write(site.db, bob.id, "p1", "An answer.", parent)
    kept = lists.add(site.db, ada.id, None, "p3", name="To read", note="soon")
    lists.share(site.db, ada.id, kept, on=True)
    interests.choose(site.db, bob.id, "author", "Ada Lovelace", "follow")
    now = datetime.now(UTC).replace(tzinfo=None)
    store = MailStore(site.db)
    wanted, _ = read_wanted({"kind": "topic", "topic": "plans"}, "01234", site.db)
    store.ask("ada@example.org", wanted, now - timedelta(days=3))
    (mail,) = Outbox(store).in_state("queued")
    store.confirm(mail.subscription.id, now - timedelta(days=2))
    load_secret(site.home)
    return site


def restore(file: Path, home: Path, *, force: bool = False) -> Restored:
    """Restore, on PostgreSQL into a database of its own."""
    return restore_into(file, home, force=force, database=address_for(home))


CHANGED = ("facts", "generations", "mail_outbox", "mail_subscriptions", "papers")
"""Tables in which a restore changes rows on purpose."""


def test_everything_comes_back(lived: Site, tmp_path: Path) -> None:
    done = backup(lived.home, tmp_path / "b.zip", with_secret=True)
    assert (done.tables["papers"], done.tables["votes"], done.tables["mail_outbox"], done.secret) == (8, 3, 1, True)
    assert (tmp_path / "b.zip").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"b.zip", "site"}, "nothing is left beside it"
    before, seen = state(lived), lived.db.get_many(["p1", "p2", "p3"])
    told = restore(tmp_path / "b.zip", tmp_path / "new")
    assert (told.migrated, told.secret, told.held) == (None, "restored", 1)
    assert load_secret(tmp_path / "new") == load_secret(lived.home)
    assert (tmp_path / "new" / "secret").stat().st_mode & 0o777 == 0o600
    with open_database(tmp_path / "new") as db:
        assert [replace(one, mark=None) for one in db.get_many(["p1", "p2", "p3"])] == [
            replace(one, mark=None) for one in seen
        ]
    site = Site(tmp_path / "new", encoder=HashEncoder(), must_exist=True)
    after = state(site)
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} <= set(CHANGED)
    assert not is_ready(site)
    ingest(site, [])
    assert is_ready(site) and site.encoder.embedded >= 8  # type: ignore[attr-defined]
    assert search(site, "plans").total == 8
    site.close()


def test_what_is_made_of_a_restored_site_follows_its_papers(site: Site, tmp_path: Path) -> None:
    backup(site.home, tmp_path / "b.zip")
    restore(tmp_path / "b.zip", tmp_path / "new")
    new = Site(tmp_path / "new", encoder=HashEncoder(), must_exist=True)
    ingest(new, [])
    made = new.stamp
    assert made != site.stamp, "whoever had it open answers from nothing that was kept"
    new.db.upsert([replace(papers()[0], title="Entirely about zebras")])
    with new.db.read() as connection:
        assert new.db.changed(connection, made).papers == [papers()[0].id]
    new.close()


def test_a_restored_site_sends_nothing_twice(lived: Site, tmp_path: Path) -> None:
    start = datetime.now(UTC).replace(tzinfo=None)
    backup(lived.home, tmp_path / "b.zip")
    restore(tmp_path / "b.zip", tmp_path / "new")
    with open_database(tmp_path / "new") as db, db.read() as connection:
        assert connection.execute(sa.select(OUTBOX.c.state)).scalars().all() == ["doubtful"]
        row = connection.execute(sa.select(SUBSCRIPTIONS)).one()
        assert row.state == "active" and row.since >= start and row.covered >= start


def test_a_backup_while_the_site_is_written(site: Site, tmp_path: Path) -> None:
    """Each transaction puts in a pair and counts it; a copy that is not of one moment would have an odd one."""
    stop, errors = threading.Event(), []
    written = threading.Event()

    def write() -> None:
        try:
            number = 0
            while not stop.is_set():
                pair = [replace(papers(1)[0], id=f"w{number}{side}", title=f"Pair {number}") for side in "ab"]
                site.db.upsert(pair)
                number += 1
                written.set()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write)]
    threads[0].start()
    written.wait(20)
    counts = []
    try:
        for i in range(4):
            backup(site.home, tmp_path / f"{i}.zip")
            (tmp_path / str(i)).mkdir()
            counts.append(archive.unpack(tmp_path / f"{i}.zip", tmp_path / str(i)).tables["papers"])
            with sqlite3.connect(tmp_path / str(i) / "papers.sqlite") as copy:
                odd = copy.execute("SELECT title FROM papers WHERE id LIKE 'w%' GROUP BY title HAVING count(*) <> 2")
                assert odd.fetchall() == []
            copy.close()
    finally:
        stop.set()
        threads[0].join(30)
    assert not errors and counts == sorted(counts) and counts[-1] > counts[0] and all(n % 2 == 0 for n in counts)


def test_what_was_deleted_is_not_in_the_file(lived: Site, tmp_path: Path) -> None:
    from nextvec.papers.accounts.personal import delete_account

    delete_account(lived.db, join(lived.db, "bob@example.org"))
    backup(lived.home, tmp_path / "b.zip")
    folder = tmp_path / "x"
    folder.mkdir()
    archive.unpack(tmp_path / "b.zip", folder)
    assert b"bob@example.org" not in (folder / "papers.sqlite").read_bytes()


# -- kill -9 -------------------------------------------------------------------------------------------------------
def killed(action: str, home: Path, file: Path, point: str) -> None:
    database = address_for(home) if action == "restore" else None
    command = [sys.executable, str(KILLED), action, str(home), str(file), point, *([database] if database else [])]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr


@pytest.mark.parametrize("point", ["copied", *(pytest.param(p, marks=pytest.mark.once) for p in ("packed", "checked"))])
def test_a_killed_backup_leaves_the_old_one(site: Site, tmp_path: Path, point: str) -> None:
    folder = tmp_path / "backups"
    backup(site.home, folder / "b.zip")
    before = (folder / "b.zip").read_bytes()
    killed("backup", site.home, folder / "b.zip", point)
    assert (folder / "b.zip").read_bytes() == before
    backup(site.home, folder / "b.zip", force=True)
    assert [path.name for path in folder.iterdir()] == ["b.zip"], "what the killed one left is gone"


@pytest.mark.parametrize("point", ["unpacked", "adapted", "placed", "half", "replaced"])
def test_a_killed_restore_leaves_the_old_site_or_the_new_one(lived: Site, tmp_path: Path, point: str) -> None:
    backup(lived.home, tmp_path / "b.zip", with_secret=True)
    other = Site(tmp_path / "other", encoder=HashEncoder())
    ingest(other, [replace(paper, id=f"other-{paper.id}") for paper in papers(300)])
    other.close()
    killed("restore", tmp_path / "other", tmp_path / "b.zip", point)
    again = Site(tmp_path / "other", encoder=HashEncoder(), must_exist=True)
    new = point == "replaced"
    assert again.db.count() == (8 if new else 300)
    with again.db.read() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert (again.usable_collection() is None) == new, "vectors of other papers are not taken for these"
    again.close()
    restore(tmp_path / "b.zip", tmp_path / "other", force=True)
    again = Site(tmp_path / "other", encoder=HashEncoder(), must_exist=True)
    ingest(again, [])
    assert again.db.count() == 8 and is_ready(again) and not (tmp_path / "other" / ".restore").exists()
    again.close()


def test_a_killed_restore_into_a_new_home_can_be_run_again(lived: Site, tmp_path: Path) -> None:
    backup(lived.home, tmp_path / "b.zip", with_secret=True)
    killed("restore", tmp_path / "new", tmp_path / "b.zip", "placed")
    assert restore(tmp_path / "b.zip", tmp_path / "new").tables["papers"] == 8


# -- over a site that is there -------------------------------------------------------------------------------------
def test_a_site_that_is_there_is_replaced_only_by_force(lived: Site, tmp_path: Path) -> None:
    backup(lived.home, tmp_path / "b.zip")
    with pytest.raises(ConflictError, match="--force"):
        backup(lived.home, tmp_path / "b.zip")
    with pytest.raises(ConflictError, match="--force"):
        restore(tmp_path / "b.zip", lived.home)
    lived.db.upsert([replace(papers(1)[0], id="later")])
    stamp = lived.stamp
    restore(tmp_path / "b.zip", lived.home, force=True)
    # The open site sees it, and knows that what it kept is of another state.
    assert lived.db.get("later") is None and lived.db.count() == 8 and lived.stamp != stamp
    assert (
        not (lived.home / "vectors").exists() and restore(tmp_path / "b.zip", lived.home, force=True).secret == "kept"
    )


def test_nobody_writes_at_the_same_time(lived: Site, tmp_path: Path) -> None:
    backup(lived.home, tmp_path / "b.zip")
    with lived.writing(), pytest.raises(ConflictError, match="another process is writing"):
        restore(tmp_path / "b.zip", lived.home, force=True)
    assert lived.db.count() == 8


@pytest.mark.sqlite
def test_a_damaged_database_is_laid_aside(lived: Site, tmp_path: Path) -> None:
    backup(lived.home, tmp_path / "b.zip")
    home = tmp_path / "broken"
    home.mkdir()
    (home / "papers.sqlite").write_bytes(b"garbage" * 1_000)
    (home / "papers.sqlite-wal").write_bytes(b"more" * 100)
    done = restore(tmp_path / "b.zip", home, force=True)
    assert done.aside and Path(done.aside).read_bytes().startswith(b"garbage")
    with open_database(home) as db:
        assert db.count() == 8


# -- older and newer ones ------------------------------------------------------------------------------------------
def old_home(folder: Path, schema: int) -> Path:
    """A home as an older nextvec left it: three papers, by statements of that time."""
    folder.mkdir()
    with raw(folder) as connection:
        migrate(connection, MIGRATIONS[:2])
        for number in (1, 2, 3):
            row = {"id": f"2501.0000{number}", "title": f"Old paper {number}", "authors": json.dumps(["Ada Lovelace"])}
            statement = "INSERT INTO papers (id, title, summary, authors, upvotes, num_comments, daily_date) "
            connection.execute(sa.text(statement + "VALUES (:id, :title, 'Old.', :authors, 5, 0, '2025-01-02')"), row)
        migrate(connection, MIGRATIONS[:schema])
    return folder


@pytest.mark.parametrize("schema", [2, 3, 5])
def test_an_older_backup_is_brought_up_to_date(tmp_path: Path, schema: int) -> None:
    home = old_home(tmp_path / "old", schema)
    assert backup(home, tmp_path / "b.zip").schema == schema
    with raw(home) as connection:
        assert connection.execute(sa.text("SELECT max(version) FROM schema_version")).scalar() == schema, (
            "left as it was"
        )
    assert restore(tmp_path / "b.zip", tmp_path / "new").migrated == schema
    site = Site(tmp_path / "new", encoder=HashEncoder(), must_exist=True)
    ingest(site, [])
    assert is_ready(site) and site.db.find_author("ada lovelace") == "Ada Lovelace"
    assert search(site, "old paper").total == 3
    site.close()


# -- what is refused -----------------------------------------------------------------------------------------------
Change = Callable[[dict[str, bytes]], Any]


def remade(good: Path, bad: Path, change: Change) -> Path:
    """A backup whose members are changed; its manifest is made to fit unless the change is about that."""
    with zipfile.ZipFile(good) as source:
        members = {name: source.read(name) for name in source.namelist()}
    change(members)
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return bad


def manifest(**more: Any) -> Change:
    def change(members: dict[str, bytes]) -> None:
        document = json.loads(members["manifest.json"]) | more
        members["manifest.json"] = json.dumps(document).encode()

    return change


def database(statement: str) -> Change:
    """Run a statement in the database, and tell the truth about it in the manifest."""

    def change(members: dict[str, bytes]) -> None:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.deserialize(members["papers.sqlite"])
        connection.executescript(statement)
        members["papers.sqlite"] = connection.serialize()
        connection.close()
        fits(members)

    return change


def fits(members: dict[str, bytes]) -> None:
    import hashlib

    data = members["papers.sqlite"]
    files = {"papers.sqlite": [len(data), hashlib.sha256(data).hexdigest()]}
    manifest(files=files)(members)


def flipped(members: dict[str, bytes]) -> None:
    data = bytearray(members["papers.sqlite"])
    data[len(data) // 2] ^= 0xFF
    members["papers.sqlite"] = bytes(data)


def torn(members: dict[str, bytes]) -> None:
    data = bytearray(members["papers.sqlite"])
    data[5_000:9_000] = os.urandom(4_000)
    members["papers.sqlite"] = bytes(data)
    fits(members)


def bomb(members: dict[str, bytes]) -> None:
    members["papers.sqlite"] = members["papers.sqlite"] + bytes(70_000_000)
    fits(members)


NEWER = f"INSERT INTO schema_version VALUES ({MIGRATIONS[-1].number + 1}, 'later')"
REFUSED: dict[str, tuple[Change, str]] = {
    "outside": (lambda members: members.update({"../../evil": b"x"}), "holds '../../evil'"),
    "absolute": (lambda members: members.update({"/etc/cron.d/evil": b"x"}), "holds '/etc/cron.d/evil'"),
    "more": (lambda members: members.update({"vectors/x": b"x"}), "holds 'vectors/x'"),
    "empty": (lambda members: members.clear(), "has no manifest.json"),
    "foreign": (manifest(format="something"), "is not a backup"),
    "no manifest": (lambda members: members.update({"manifest.json": b"[" * 60_000}), "is not a backup"),
    "long manifest": (lambda members: members.update({"manifest.json": b" " * 65_000}), "long: refused"),
    "newer format": (manifest(version=2), "upgrade nextvec"),
    "newer schema": (database(NEWER), "upgrade nextvec"),
    "flipped": (flipped, "SHA-256"),
    "torn": (torn, "is damaged"),
    "other length": (manifest(files={"papers.sqlite": [5, "0"]}), "another length"),
    "secret unnamed": (lambda members: members.update({"secret": b"x" * 40}), "names other files"),
    "long secret": (lambda members: members.update({"secret": b"x" * 5_000}), "long: refused"),
    "bomb": (bomb, "would grow"),
    "trigger": (
        database("CREATE TRIGGER evil AFTER UPDATE ON papers BEGIN DELETE FROM papers; END"),
        "has a trigger 'evil'",
    ),
    "view": (database("CREATE VIEW evil AS SELECT 1"), "has a view 'evil'"),
    "table": (database("CREATE TABLE evil (x)"), "table 'evil' differs"),
    "column": (database("ALTER TABLE facts ADD COLUMN evil"), "table 'facts' differs"),
    "no papers": (database("DROP TABLE papers"), "table 'papers' differs"),
    "rows": (database("DELETE FROM papers WHERE id = 'p1'"), "other rows"),
    "not sqlite": (lambda members: (members.update({"papers.sqlite": b"x" * 9_000}), fits(members)), "is damaged"),
}


@pytest.fixture(scope="module")
def good(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    site = copied(filled, folder / "site")
    site.close()
    backup(folder / "site", folder / "good.zip")
    return folder / "good.zip"


def refused(file: Path, folder: Path, match: str) -> None:
    """``file`` is refused for a new home and for one that is there, and neither is touched."""
    there = folder / "there"
    there.mkdir(exist_ok=True)
    (there / "papers.sqlite").write_bytes(b"here")
    for home in (folder / "new", there):
        with pytest.raises((InputError, StorageError), match=match) as told:
            restore(file, home, force=True)
        assert isinstance(told.value, NextvecError) and "\n" not in str(told.value)
    assert {path.name for path in there.iterdir()} - {"ingest.lock", "mail.lock"} == {"papers.sqlite"}
    assert (there / "papers.sqlite").read_bytes() == b"here"
    assert not (folder / "new").exists()


@pytest.mark.sqlite
@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_should_restore(name: str, good: Path, tmp_path: Path) -> None:
    change, match = REFUSED[name]
    refused(remade(good, tmp_path / "bad.zip", change), tmp_path, match)


@pytest.mark.sqlite
def test_links_doubles_and_ciphers(good: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(good) as source:
        members = {name: source.read(name) for name in source.namelist()}
    for kind in ("link", "double", "packed strangely"):
        with zipfile.ZipFile(tmp_path / f"{kind}.zip", "w") as out:
            out.writestr("manifest.json", members["manifest.json"])
            entry = zipfile.ZipInfo("papers.sqlite")
            entry.external_attr = (0o120777 if kind == "link" else 0o100600) << 16
            entry.compress_type = zipfile.ZIP_LZMA if kind == "packed strangely" else zipfile.ZIP_DEFLATED
            out.writestr(entry, b"/etc/passwd" if kind == "link" else members["papers.sqlite"])
            if kind == "double":
                with pytest.warns(UserWarning, match="Duplicate"):
                    out.writestr("papers.sqlite", b"another")
        refused(tmp_path / f"{kind}.zip", tmp_path, "holds 'papers.sqlite'" if kind == "double" else "is a link")


@pytest.mark.sqlite
def test_a_file_cut_short_anywhere(good: Path, tmp_path: Path) -> None:
    whole = good.read_bytes()
    for size in (0, 10, len(whole) // 3, len(whole) - 1):
        (tmp_path / "cut.zip").write_bytes(whole[:size])
        refused(tmp_path / "cut.zip", tmp_path, "damaged or not a backup")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr("papers.csv", "id")
    (tmp_path / "other.zip").write_bytes(buffer.getvalue())
    refused(tmp_path / "other.zip", tmp_path, "does not: refused")


@pytest.mark.sqlite
def test_a_length_that_lies_fills_no_disk(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    refused(good, tmp_path, "are free")


@pytest.mark.once
def test_no_such_file_or_site(tmp_path: Path, site: Site) -> None:
    with pytest.raises(NotFoundError, match="there is no backup"):
        restore(tmp_path / "none.zip", tmp_path / "new")
    with pytest.raises(InputError, match="is not a file"):
        restore(tmp_path, tmp_path / "new")
    with pytest.raises(NotFoundError, match="there is no paper site"):
        backup(tmp_path / "none", tmp_path / "b.zip")
    with pytest.raises(InputError, match="none was needed yet"):
        backup(site.home, tmp_path / "b.zip", with_secret=True)
    with pytest.raises(StorageError, match="folder, device or pipe"):
        backup(site.home, tmp_path, force=True)
    assert not (tmp_path / "b.zip").exists()


# -- the commands --------------------------------------------------------------------------------------------------
def test_the_commands(tmp_path: Path) -> None:
    from nextvec.encoder import bundled_models

    if "nextvec-mini" not in bundled_models():
        pytest.skip("the bundled encoder nextvec-mini is not in this checkout")
    home = old_home(tmp_path / "old", 3)
    text = run("papers", "backup", str(tmp_path / "b.zip"), home=home).stdout
    assert "3 papers" in text and "without the secret" in text
    assert "--force" in run("papers", "backup", str(tmp_path / "b.zip"), home=home, code=1).stderr
    address = address_for(tmp_path / "new")
    told = ["--database", address] if address else []
    done = json.loads(run("papers", "restore", str(tmp_path / "b.zip"), "--json", *told, home=tmp_path / "new").stdout)
    assert (done["migrated"], done["indexed"], done["tables"]["papers"]) == (3, True, 3)
    found = json.loads(run("papers", "search", "old paper", "--json", home=tmp_path / "new").stdout)
    assert len(found["results"]) == 3
    (tmp_path / "bad").write_bytes(b"SQLite format 3")
    bad = run("papers", "restore", str(tmp_path / "bad"), home=tmp_path / "other", code=1)
    assert bad.stderr.count("\n") == 1 and "not a backup" in bad.stderr
