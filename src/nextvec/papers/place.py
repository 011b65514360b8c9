"""Where the rows of a home lie: in its own SQLite file, or in a PostgreSQL database that serves this home alone.

The first of these decides: the address that was asked for (``--database``), ``$NEXTVEC_PAPERS_DATABASE``, the one that
the home remembers (``home/database``, which only its owner can read), the file ``home/papers.sqlite``.

Vectors, words and topics stay in the home and belong to the rows, so that two homes over one database would each see
what the other one has not indexed. The database therefore notes which home it serves, by an id that the home keeps, and
any other home is refused. Rows move from one database to another by ``backup`` and ``restore`` into another home.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from nextvec.files import atomic_write, storage_error
from nextvec.papers import postgresql as pg
from nextvec.papers.db import Database
from nextvec.papers.tables import FACTS
from nextvec.types import ConflictError, InputError, NotFoundError, StorageError

__all__ = ["HOLDER", "REMEMBERED", "SQLITE", "VARIABLE", "Place", "find", "open_database"]

VARIABLE = "NEXTVEC_PAPERS_DATABASE"
SQLITE, REMEMBERED = "papers.sqlite", "database"
HOLDER = "home"
"""The fact that names the home which a PostgreSQL database serves: its id, then where it was when it began."""


@dataclass(frozen=True, slots=True)
class Place:
    """``address``: of a PostgreSQL database, None for the SQLite file; ``home_id``: how that database knows the home;
    ``remembered``: the address in the home, None where it has none."""

    home: Path
    address: str | None
    home_id: str
    remembered: str | None = None

    @property
    def file(self) -> Path:
        return self.home / SQLITE

    @property
    def shown(self) -> str:
        return str(self.file) if self.address is None else pg.shown(pg.read_address(self.address))

    def exists(self) -> bool:
        """Whether the home was given its rows."""
        return self.file.exists() if self.address is None else self.remembered is not None


def find(home: Path, address: str | None = None) -> Place:
    """Where the rows of ``home`` lie. InputError for an address that is none, ConflictError for a home that has a
    SQLite file already, StorageError where what it remembers cannot be read."""
    asked = address or os.environ.get(VARIABLE, "").strip() or None
    remembered, home_id = _remembered(home)
    if asked is not None:
        pg.read_address(asked)
        if remembered is None and (home / SQLITE).exists():
            raise ConflictError(
                f"the papers of {str(home)!r} lie in its {SQLITE}, and another database was named: move them with "
                "`nextvec papers backup`, then `nextvec papers restore` into another --home with --database"
            )
    return Place(home, asked or remembered, home_id or secrets.token_hex(12), remembered)


def open_database(
    home: Path, address: str | None = None, *, must_exist: bool = False, read_only: bool = False
) -> Database:
    """The database of ``home``, ready. ``read_only``: as it is, as in a home that cannot be written to.

    NotFoundError with ``must_exist`` where nothing was ingested yet; ConflictError where the database serves another
    home.
    """
    place = find(home, address)
    if must_exist and not place.exists():
        raise NotFoundError(
            f"there is no paper site in {str(home)!r}: make one with `nextvec papers ingest --source daily_papers`"
        )
    read_only = read_only or (place.exists() and not os.access(home, os.W_OK))
    if place.address is None:
        return Database(place.file, read_only=read_only)
    if read_only:
        db = Database(place.address, read_only=True)
        try:
            with db.read() as connection:
                _check(place, _holder(connection))
        except BaseException:
            db.close()
            raise
        return db
    return Database(place.address, settle=lambda connection: _settle(place, connection))


def _settle(place: Place, connection: sa.Connection) -> None:
    """Make home and database each other's, within the transaction that migrates."""
    holder = _holder(connection)
    _check(place, holder)
    # The home first: were the transaction lost, the next one would find a home that knows its own id.
    if place.address != place.remembered:
        _remember(place)
    if holder is None:
        where = f"{place.home_id} {socket.gethostname()}:{place.home.resolve()}"
        connection.execute(FACTS.insert(), {"name": HOLDER, "value": where})


def _check(place: Place, holder: str | None) -> None:
    if holder is None:
        if place.remembered is not None and not _same(place.remembered, place.address):
            raise ConflictError(
                f"the papers of {str(place.home)!r} lie in {_shown(place.remembered)!r}, and {place.shown!r} does not "
                "hold them: move them with pg_dump, or with `nextvec papers backup` and `restore` into another --home"
            )
        return
    known, _, where = holder.partition(" ")
    if known != place.home_id:
        raise ConflictError(
            f"the database {place.shown!r} serves another home ({where}): give each home a database of its own. Where "
            f"that home is lost, this lets another one take its place: DELETE FROM facts WHERE name = '{HOLDER}'"
        )


def _holder(connection: sa.Connection) -> str | None:
    return connection.execute(sa.select(FACTS.c.value).where(FACTS.c.name == HOLDER)).scalar()


def _same(one: str, other: str | None) -> bool:
    """Whether two addresses lead to one database, whoever asks for it with whatever password."""
    if other is None:
        return False
    first, second = pg.read_address(one), pg.read_address(other)
    return (first.host, first.port or 5432, first.database, first.query) == (
        second.host,
        second.port or 5432,
        second.database,
        second.query,
    )


def _shown(address: str) -> str:
    return pg.shown(pg.read_address(address))


def _remembered(home: Path) -> tuple[str | None, str | None]:
    """(address, id) that the home keeps."""
    path = home / REMEMBERED
    try:
        held = json.loads(path.read_text("utf-8"))
        address, home_id = held["address"], held["home"]
        if not isinstance(address, str) or not isinstance(home_id, str) or not home_id:
            raise ValueError("other types")
        pg.read_address(address)
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        raise storage_error(error, path) from error
    except (ValueError, KeyError, TypeError, InputError) as error:
        raise StorageError(
            f"{str(path)!r} cannot be read as what nextvec wrote there, the address of the home's database and the "
            "home's id: put it back from a backup of the home"
        ) from error
    return address, home_id


def _remember(place: Place) -> None:
    path = place.home / REMEMBERED
    with atomic_write(path, "w", private=True) as stream:
        json.dump({"address": place.address, "home": place.home_id}, stream)
