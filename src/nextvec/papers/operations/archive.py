"""The file that a backup is: a ZIP of three names at most, read as if somebody hostile had made it.

manifest.json    what made it and when, rows of each table, bytes and SHA-256 of the others
papers.sqlite    the database
secret           only where it was asked for

ZIP and not a packed tar: its directory is read without unpacking anything, so that sizes and names are judged before
the first byte is written. Members are written to names of ours; their own are compared, never used as paths.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
import zipfile
import zlib
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import sqlalchemy as sa

from nextvec.files import human_bytes, sha256, storage_error
from nextvec.papers.migrations import MIGRATIONS, migrate
from nextvec.types import InputError, NotFoundError, StorageError

__all__ = ["DATABASE", "SECRET", "Manifest", "digest_of", "inspect", "pack", "raw", "unpack"]

DATABASE, SECRET = "papers.sqlite", "secret"
_MANIFEST = "manifest.json"
_FORMAT, _VERSION = "nextvec-papers-backup", 1
_BLOCK = 1 << 20
_MOST = {_MANIFEST: 64_000, SECRET: 4_096}
_RATIO, _FLOOR = 100, 64_000_000
"""A database packs to a third or so, an empty one to a fiftieth. What grows more than that is made to fill a disk."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """``made``: aware UTC, ISO 8601; ``schema``: of the database; ``tables``: rows of each; ``files``: name ->
    (bytes, SHA-256 in hex); ``encoder``: name, width and fingerprint of the one that the site's vectors were of."""

    made: str
    nextvec: str
    sqlite: str
    schema: int
    encoder: str | None
    tables: dict[str, int]
    files: dict[str, tuple[int, str]]


def raw(path: Path, options: str) -> closing[sqlite3.Connection]:
    """A plain connection to a SQLite file that is there; what its schema says is not trusted."""
    connection = sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?{options}", uri=True, isolation_level=None, timeout=30
    )
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return closing(connection)


def inspect(path: Path) -> tuple[int, dict[str, int], str | None]:
    """(schema, rows of each table, encoder) of a database at rest, after looking at all of it.

    StorageError where it is damaged or of a newer nextvec, InputError where it is not a database of papers: another
    table, a trigger or a view (which would run when something is written) is nothing that this library makes.
    """
    try:
        with raw(path, "mode=ro&immutable=1") as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                raise StorageError(f"the database in the backup is damaged: {' '.join(str(found).split())[:200]}")
            shape = _shape(connection)
            if "schema_version" not in shape:
                raise InputError("the database in the backup is not one of papers: it has no schema_version")
            schema = connection.execute("SELECT max(version) FROM schema_version").fetchone()[0]
            newest = MIGRATIONS[-1].number
            if not isinstance(schema, int) or schema < 1:
                raise InputError(f"the database in the backup has schema {schema!r}; expected 1 to {newest}")
            if schema > newest:
                raise StorageError(
                    f"the backup has schema version {schema}, this nextvec knows up to {newest}: upgrade nextvec"
                )
            _compare(connection, shape, schema)
            # The names of tables are ours by now.
            counts = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in shape}
            encoder = connection.execute("SELECT value FROM facts WHERE name = 'encoder'").fetchone()
    except sqlite3.Error as error:
        raise StorageError(f"the database in the backup is damaged: {error}") from error
    return schema, counts, (encoder[0] or None) if encoder else None


def _shape(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Table -> names of its columns."""
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_'"
    ).fetchall()
    columns = "SELECT name FROM pragma_table_xinfo(?) ORDER BY cid"
    return {name: [column for (column,) in connection.execute(columns, (name,))] for (name,) in sorted(tables)}


def _compare(connection: sqlite3.Connection, shape: dict[str, list[str]], schema: int) -> None:
    acting = connection.execute(
        "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index') OR sql LIKE 'create virtual%'"
    ).fetchone()
    if acting:
        raise InputError(f"the database in the backup has a {acting[0]} {acting[1]!r}, which no nextvec makes: refused")
    engine = sa.create_engine("sqlite://")
    with engine.begin() as made:
        migrate(made, [migration for migration in MIGRATIONS if migration.number <= schema])
        inspector = sa.inspect(made)
        names = inspector.get_table_names()
        expected = {name: [column["name"] for column in inspector.get_columns(name)] for name in names}
    engine.dispose()
    for name in sorted(shape.keys() | expected.keys()):
        if shape.get(name) != expected.get(name):
            raise InputError(
                f"the database in the backup is not one of papers with schema {schema}: table {name[:60]!r} differs"
            )


def pack(target: Path, manifest: Manifest, folder: Path) -> None:
    """Write ``target`` from the manifest and the files of ``folder`` that it names."""
    document = {"format": _FORMAT, "version": _VERSION} | asdict(manifest)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr(_entry(_MANIFEST), json.dumps(document, indent=1))
        for name, (size, _) in manifest.files.items():
            large = size > 1 << 31
            with (folder / name).open("rb") as source, archive.open(_entry(name), "w", force_zip64=large) as out:
                shutil.copyfileobj(source, out, _BLOCK)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


def unpack(file: Path, folder: Path) -> Manifest:
    """Check a backup, all of it, and lay its files into ``folder``, which is empty.

    NotFoundError for no such file, InputError for what is not a backup, StorageError for a damaged, a newer or a
    hostile one, and for a disk without the space.
    """
    if not file.exists():
        raise NotFoundError(f"there is no backup {str(file)!r}")
    if not file.is_file():
        raise InputError(f"{str(file)!r} is not a file: expected one that `nextvec papers backup` made")
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _entries(archive, file)
            manifest = _manifest(archive, entries, file)
            _judge(manifest, entries, file, folder)
            for name, (size, digest) in manifest.files.items():
                with archive.open(entries[name]) as source, (folder / name).open("xb") as out:
                    _copy(source, out, size, name, file)
                if sha256(folder / name) != digest:
                    raise StorageError(f"{name} in {str(file)!r} is damaged: its SHA-256 is not what was noted")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, UnicodeError) as error:
        raise StorageError(f"{str(file)!r} is damaged or not a backup of a papers site: {error}") from error
    except (StorageError, NotFoundError):
        raise
    except OSError as error:
        raise storage_error(error, file) from error
    schema, tables, _ = inspect(folder / DATABASE)
    if (schema, tables) != (manifest.schema, manifest.tables):
        raise StorageError(f"the database in {str(file)!r} holds other rows than its manifest says: refused")
    return manifest


def _entries(archive: zipfile.ZipFile, file: Path) -> dict[str, zipfile.ZipInfo]:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    known = {_MANIFEST, DATABASE, SECRET}
    strange = next((name for name in names if name not in known), None)
    if strange is None and len(names) > len(set(names)):
        strange = names[-1]  # one of them twice
    if strange is not None:
        raise InputError(f"{str(file)!r} holds {strange[:80]!r}, which a backup of a papers site does not: refused")
    if not {_MANIFEST, DATABASE} <= set(names):
        raise InputError(f"{str(file)!r} is not a backup of a papers site: it has no {_MANIFEST} and {DATABASE}")
    for entry in entries:
        kind = (entry.external_attr >> 16) & 0o170000
        plain = kind in (0, 0o100000) and entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if entry.flag_bits & 1 or not plain:
            raise InputError(f"{entry.filename} in {str(file)!r} is a link, encrypted or packed strangely: refused")
        if entry.file_size > _MOST.get(entry.filename, entry.file_size):
            raise StorageError(f"{entry.filename} in {str(file)!r} is {human_bytes(entry.file_size)} long: refused")
    return {entry.filename: entry for entry in entries}


def _manifest(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], file: Path) -> Manifest:
    with archive.open(entries[_MANIFEST]) as stream:
        text = stream.read(_MOST[_MANIFEST] + 1)
    try:
        document = json.loads(text)
        if document["format"] != _FORMAT:
            raise ValueError("another format")
        if document["version"] != _VERSION:
            raise StorageError(
                f"{str(file)!r} has format {document['version']!r}, this nextvec reads {_VERSION}: upgrade nextvec"
            )
        return _read_manifest(document)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{str(file)!r} is not a backup of a papers site: its {_MANIFEST} does not say so") from error


def _read_manifest(document: dict[str, Any]) -> Manifest:
    encoder = document["encoder"]
    return Manifest(
        made=str(document["made"])[:40],
        nextvec=str(document["nextvec"])[:40],
        sqlite=str(document["sqlite"])[:40],
        schema=int(document["schema"]),
        encoder=None if encoder is None else str(encoder)[:200],
        tables={str(name): int(rows) for name, rows in document["tables"].items()},
        files={str(name): (int(size), str(digest)) for name, (size, digest) in document["files"].items()},
    )


def _judge(manifest: Manifest, entries: dict[str, zipfile.ZipInfo], file: Path, folder: Path) -> None:
    """Sizes, before anything is unpacked."""
    if set(manifest.files) != set(entries) - {_MANIFEST}:
        raise StorageError(f"the manifest of {str(file)!r} names other files than it holds: refused")
    for name, (size, _) in manifest.files.items():
        if size != entries[name].file_size:
            raise StorageError(f"{name} in {str(file)!r} has another length than its manifest says: refused")
    needed = sum(size for size, _ in manifest.files.values())
    packed = file.stat().st_size
    if needed > _FLOOR and needed > _RATIO * packed:
        raise StorageError(f"{str(file)!r} would grow from {human_bytes(packed)} to {human_bytes(needed)}: refused")
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(f"unpacking {str(file)!r} needs {human_bytes(needed)}, {human_bytes(free)} are free")


def _copy(source: IO[bytes], out: IO[bytes], size: int, name: str, file: Path) -> None:
    left = size
    while left:
        block = source.read(min(_BLOCK, left))
        if not block:
            raise StorageError(f"{name} in {str(file)!r} ends too early: it is damaged")
        out.write(block)
        left -= len(block)
    if source.read(1):
        raise StorageError(f"{name} in {str(file)!r} is longer than its manifest says: refused")


def digest_of(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a file."""
    return path.stat().st_size, sha256(path)
