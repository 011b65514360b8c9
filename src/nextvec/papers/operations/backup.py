"""A site into one file while it serves, and back.

Backup: VACUUM INTO copies the database as it is at one moment, from a read transaction that keeps no writer waiting
(WAL); what was deleted is not in the copy. Rows in PostgreSQL are written into such a file from one snapshot
(``transfer``), so that a backup can be restored into either. The file is packed beside its place, unpacked again and
checked, and only then takes its name. Vectors, words and topics are derived, so they are left out.

Restore: all checks, the migration and every change of rows happen to a copy aside. Then SQLite's backup interface
writes it over the old database in one transaction, so that neither a crash nor a process that has the old one open
sees a half; in PostgreSQL one transaction replaces all rows. Derived folders are stale from then on: the restored
database says that it has no index until an ingest makes one.

What was mailed between backup and restore is not known, and a mail that comes twice is the worse mistake: mails that
wait in the backup are noted as doubtful, and digests go on with the slots after the restore.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from nextvec import __version__
from nextvec.files import alone, refuse_special, storage_error, sync
from nextvec.papers.db import Database
from nextvec.papers.db_errors import errors_told
from nextvec.papers.mail.outbox import WAITING
from nextvec.papers.mail.sending import sending
from nextvec.papers.mail.tables import OUTBOX, SUBSCRIPTIONS
from nextvec.papers.migrations import MIGRATIONS
from nextvec.papers.operations.archive import DATABASE, SECRET, Manifest, digest_of, inspect, pack, raw, unpack
from nextvec.papers.operations.transfer import export, load
from nextvec.papers.place import Place, find, open_database
from nextvec.papers.signing import SECRET_VARIABLE
from nextvec.papers.site import remove_folder, writing
from nextvec.types import ConflictError, InputError, NotFoundError, StorageError

__all__ = ["DERIVED", "BackedUp", "Restored", "backup", "restore"]

DERIVED = ("vectors", "words", "insight")
"""Folders of a home that are made from the database."""
_WAIT = 60.0  # seconds that a restore waits for another writer to finish
_STEP = 256  # pages between two looks at the clock; the transaction is one


@dataclass(frozen=True, slots=True)
class BackedUp:
    """``bytes``: of the file; ``database``: of the database in it; ``tables``: rows of each; ``secret``: whether the
    site's secret is in it."""

    file: str
    bytes: int
    database: int
    schema: int
    tables: dict[str, int]
    secret: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Restored:
    """``made``: when the backup was; ``migrated``: from which schema, None where it was the newest; ``held``: mails
    that waited in it and are not sent; ``aside``: where the damaged database that was there lies now."""

    home: str
    made: str
    tables: dict[str, int]
    encoder: str | None
    migrated: int | None
    held: int
    secret: Literal["restored", "kept", "none"]
    aside: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


# -- backup --------------------------------------------------------------------------------------------------------
def backup(
    home: Path, file: Path, *, with_secret: bool = False, force: bool = False, database: str | None = None
) -> BackedUp:
    """Copy the site under ``home`` into ``file``, which only its owner can read: it holds addresses of readers.
    ``database``: where its rows lie, if not where the home says (``place``).

    NotFoundError where there is no site, ConflictError where ``file`` is there (unless ``force``) or is being written,
    InputError where the secret is asked for and is not in the home, StorageError where the disk refuses or what was
    written cannot be read back.
    """
    place = find(home, database)
    if not place.exists():
        raise NotFoundError(f"there is no paper site in {str(home)!r}: nothing to back up")
    secret = home / SECRET
    if with_secret and not secret.exists():
        where = (
            f"it comes from ${SECRET_VARIABLE}, keep that" if SECRET_VARIABLE in os.environ else "none was needed yet"
        )
        raise InputError(f"there is no secret in {str(home)!r} ({where}): leave out --with-secret")
    refuse_special(file)
    if file.exists() and not force:
        raise ConflictError(f"{str(file)!r} is there already: choose another name, or replace it with --force")
    with _aside(file.parent, f".{file.name}.part", file) as work:
        _copy(place, work / DATABASE)
        if with_secret:
            shutil.copyfile(secret, work / SECRET)
        schema, tables, encoder = inspect(work / DATABASE)
        names = (DATABASE, SECRET) if with_secret else (DATABASE,)
        manifest = Manifest(
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            nextvec=__version__,
            sqlite=sqlite3.sqlite_version,
            schema=schema,
            encoder=encoder,
            tables=tables,
            files={name: digest_of(work / name) for name in names},
        )
        packed = work / "packed"
        os.close(os.open(packed, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
        pack(packed, manifest, work)
        _checked(packed, work / "checked", manifest)
        sync(packed)
        packed.replace(file)
        sync(file.parent)
    size = manifest.files[DATABASE][0]
    return BackedUp(str(file), file.stat().st_size, size, schema, tables, with_secret)


def _copy(place: Place, target: Path) -> None:
    """The rows of a home as they are at this moment, into a new SQLite file."""
    if place.address is not None:
        with open_database(place.home, place.address, read_only=True) as db:
            export(db, target)
        return
    with errors_told(str(place.file)):
        options = "mode=ro" if os.access(place.home, os.W_OK) else "mode=ro&immutable=1"
        with raw(place.file, options) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))


def _checked(packed: Path, folder: Path, manifest: Manifest) -> None:
    """Read back what was written, as a restore would."""
    folder.mkdir()
    if unpack(packed, folder) != manifest:
        raise StorageError("the backup that was written says something else than it should: the disk may be failing")
    shutil.rmtree(folder)


@contextlib.contextmanager
def _aside(parent: Path, name: str, meant: Path) -> Iterator[Path]:
    """An empty folder that only its owner can look into, gone at the end. What a killed process left in it is removed;
    ConflictError while another one is using it."""
    work = parent / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        work.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise storage_error(error, parent) from error
    with alone(work / "lock", busy=f"another process is writing {str(meant)!r}: wait for it to end"):
        try:
            for old in work.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
                elif old.name != "lock":
                    old.unlink()
            yield work
        except OSError as error:
            if isinstance(error, StorageError | NotFoundError | InputError | ConflictError):
                raise
            raise storage_error(error, meant) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


# -- restore -------------------------------------------------------------------------------------------------------
def restore(file: Path, home: Path, *, force: bool = False, database: str | None = None) -> Restored:
    """Make ``home`` what ``file`` holds, without its search index, which ``ingest`` makes anew. ``database``: the
    address of a PostgreSQL database for its rows (``place``).

    ConflictError where ``home`` holds a site (unless ``force``) or somebody is writing to it; else what ``unpack``
    raises. Whatever it raises, and wherever it is killed, ``home`` is as it was or restored.
    """
    place = find(home, database)
    if place.exists() and not force:
        raise ConflictError(
            f"there is a paper site in {str(home)!r}: choose another --home, or replace what it holds with --force"
        )
    fresh = not home.exists()
    try:
        with _aside(home, ".restore", home) as work, writing(home), sending(home):
            manifest = unpack(file, work)
            held = _adapted(work / DATABASE)
            if SECRET in manifest.files:
                _place_secret(work / SECRET, home / SECRET)
            aside = _put(work / DATABASE, place)
            for name in DERIVED:
                remove_folder(home / name)
    except BaseException:
        if fresh and not find(home, database).exists():
            shutil.rmtree(home, ignore_errors=True)
        raise
    kept = (home / SECRET).exists() or SECRET_VARIABLE in os.environ
    return Restored(
        home=str(home),
        made=manifest.made,
        tables=manifest.tables,
        encoder=manifest.encoder,
        migrated=manifest.schema if manifest.schema < MIGRATIONS[-1].number else None,
        held=held,
        secret="restored" if SECRET in manifest.files else "kept" if kept else "none",
        aside=aside,
    )


def _adapted(staged: Path) -> int:
    """Bring the copy up to date and make it say what is true after a restore; how many mails are held back."""
    now = datetime.now(UTC).replace(tzinfo=None)
    with Database(staged) as db:
        db.forget_indexed()
        # Another generation: a process that has the site open must not answer from what it kept. No encoder: vectors
        # that lie in the home are of other papers.
        db.set_facts(changed=now.isoformat(), encoder="")
        with db.write() as connection:
            # Through the log: the index that is made of this state then follows the papers of the next ingest.
            db.renew(connection, [])
            waits = OUTBOX.update().where(OUTBOX.c.state.in_(WAITING))
            said = "restored from a backup: it may have been sent since"
            held = connection.execute(waits.values(state="doubtful", changed_at=now, error=said)).rowcount
            active = SUBSCRIPTIONS.update().where(SUBSCRIPTIONS.c.state != "pending")
            connection.execute(active.values(since=now, covered=now))
    with raw(staged, "mode=rw") as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # folds what Database wrote into the one file
    return int(held)


def _place_secret(staged: Path, target: Path) -> None:
    staged.chmod(0o600)
    sync(staged)
    staged.replace(target)


def _put(staged: Path, place: Place) -> str | None:
    """Make the copy the rows of the home; where a damaged SQLite file was laid, or None."""
    if place.address is None:
        return _replace(staged, place.file)
    with open_database(place.home, place.address) as db:
        load(staged, db)
    return None


def _replace(staged: Path, target: Path) -> str | None:
    """Put the copy in the place of the database; where a damaged one was laid, or None."""
    aside = None
    if target.exists():
        try:
            _overwrite(staged, target)
            return None
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StorageError(f"cannot write the paper database {str(target)!r}: {error}") from error
            aside = target.with_name(f"{target.name}.damaged-{time.time_ns()}")
    # The log of another database must not be read into this one, so it goes first.
    for ending in ("-wal", "-shm"):
        beside = target.with_name(target.name + ending)
        if beside.exists():
            beside.replace(aside.with_name(aside.name + ending)) if aside else beside.unlink()
    if aside:
        target.replace(aside)
    sync(staged)
    staged.replace(target)
    sync(target.parent)
    return str(aside) if aside else None


def _overwrite(staged: Path, target: Path) -> None:
    """In one transaction of the old database, so that whoever has it open sees the old or the new one."""
    deadline = time.monotonic() + _WAIT

    def waited(status: int, remaining: int, total: int) -> None:
        if remaining and time.monotonic() > deadline:
            raise ConflictError(f"the paper database {str(target)!r} is busy with another writer: try again")

    with raw(target, "mode=rw") as old:
        size = old.execute("PRAGMA page_size").fetchone()[0]
        with raw(staged, "mode=rw") as new:
            if new.execute("PRAGMA page_size").fetchone()[0] != size:
                new.execute(f"PRAGMA page_size = {int(size)}")
                new.execute("VACUUM")
            new.backup(old, pages=_STEP, progress=waited, sleep=0.1)
