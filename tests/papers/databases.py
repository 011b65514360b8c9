"""Homes for tests whose rows lie in SQLite or in PostgreSQL, as ``pytest --papers-database`` says.

On PostgreSQL every home has a database of its own, made from a template and given to another test after this one.
"""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from nextvec.papers import place
from nextvec.papers.db import Database
from nextvec.papers.place import REMEMBERED, SQLITE
from nextvec.papers.postgresql import make_engine, read_address

TEMPLATE = "template_of_papers"
_COPY = """
CREATE FUNCTION copy_tables(source text, target text) RETURNS void AS $$
DECLARE name text;
BEGIN
    EXECUTE format('CREATE SCHEMA %%I', target);
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = source LOOP
        EXECUTE format('CREATE TABLE %%I.%%I (LIKE %%I.%%I INCLUDING ALL)', target, name, source, name);
        EXECUTE format('INSERT INTO %%I.%%I SELECT * FROM %%I.%%I', target, name, source, name);
    END LOOP;
END $$ LANGUAGE plpgsql
"""
_FILL = """
CREATE FUNCTION shape(place text) RETURNS text AS $$
    SELECT string_agg(concat_ws(' ', c.relname, c.relkind, a.attname, a.atttypid, a.attnotnull), ',' ORDER BY
                      c.relname, a.attnum)
           || (SELECT count(*) FROM pg_class WHERE relnamespace = place::regnamespace AND relkind = 'i')
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = place::regnamespace AND c.relkind <> 'i'
$$ LANGUAGE sql;
CREATE FUNCTION fill_tables(source text, target text) RETURNS boolean AS $$
DECLARE name text;
BEGIN
    IF shape(source) IS DISTINCT FROM shape(target) THEN RETURN false; END IF;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = source LOOP
        EXECUTE format('DELETE FROM %%I.%%I', target, name);
        EXECUTE format('INSERT INTO %%I.%%I SELECT * FROM %%I.%%I', target, name, source, name);
    END LOOP;
    RETURN true;
END $$ LANGUAGE plpgsql
"""
RESTING = 8
"""How many databases rest before one is used again: what a killed process left behind is over by then."""


class Server:
    """The databases of one PostgreSQL server. Each is a schema of one database, which is copied and dropped faster."""

    def __init__(self, address: str) -> None:
        self._url = read_address(address)
        self._engine = make_engine(self._url).execution_options(isolation_level="AUTOCOMMIT")
        self._made: dict[Path, str] = {}
        self._left: deque[str] = deque()
        self._number = 0
        self._say(_COPY)
        self._say(_FILL)
        self._say(f"CREATE SCHEMA {TEMPLATE}")
        Database(self._address(TEMPLATE)).close()

    def _say(self, statement: str) -> None:
        with self._engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def _refilled(self, template: str, name: str) -> bool:
        """Whether ``name``, which nobody needs any more, now holds what ``template`` does; else it goes."""
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("SET lock_timeout = '2s'")
                if connection.exec_driver_sql(f"SELECT fill_tables('{template}', '{name}')").scalar_one():
                    return True
        except sa.exc.DBAPIError:  # somebody holds it still
            pass
        self.remove(name)
        return False

    def _address(self, name: str) -> str:
        return self._url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(hide_password=False)

    def new(self, template: str | None = TEMPLATE) -> tuple[str, str]:
        """(name, address) of a database that nobody else has: a copy of ``template``, or empty.

        Rows are emptied and written faster than tables are made and dropped.
        """
        while template and len(self._left) > RESTING:
            if self._refilled(template, name := self._left.popleft()):
                return name, self._address(name)
        self._number += 1
        name = f"papers_{self._number}"
        self._say(f"SELECT copy_tables('{template}', '{name}')" if template else f"CREATE SCHEMA {name}")
        return name, self._address(name)

    def give(self, home: Path, template: str | None = TEMPLATE, home_id: str = "") -> None:
        """Let ``home`` have a database."""
        name, address = self.new(template)
        home.mkdir(parents=True, exist_ok=True)
        (home / REMEMBERED).write_text(json.dumps({"address": address, "home": home_id or f"of{name}"}))
        self._made[home] = name

    def reserve(self, home: Path) -> str:
        """The address of an empty database for ``home``, the same one whenever it is asked for."""
        if home not in self._made:
            self._made[home] = self.new(None)[0]
        return self._address(self._made[home])

    def copy(self, home: Path, other: Path) -> None:
        """Let ``other``, a copy of ``home``, have a copy of its database."""
        self.give(other, self._made[home], json.loads((home / REMEMBERED).read_text())["home"])

    def drop(self, folder: Path) -> None:
        """Let others have what the homes in ``folder`` had."""
        self._left.extend(self._made.pop(home) for home in list(self._made) if home.is_relative_to(folder))

    def remove(self, name: str) -> None:
        """Drop one database."""
        self._say(f"DROP SCHEMA IF EXISTS {name} CASCADE")

    def disconnect(self) -> None:
        """End all connections, as a restart does."""
        self._say(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )

    def close(self) -> None:
        self._engine.dispose()


_server: Server | None = None


@contextmanager
def on(server: Server | None) -> Iterator[None]:
    """While the block runs, homes that are made keep their rows on ``server``."""
    global _server
    _server = server
    with pytest.MonkeyPatch.context() as patch:
        if server is not None:
            patch.setattr("nextvec.papers.site.open_database", open_database)
        try:
            yield
        finally:
            _server = None


def open_database(home: Path, address: str | None = None, *, must_exist: bool = False) -> Database:
    """The database of ``home``, which gets one where it has none."""
    if not must_exist and address is None:
        prepare(home)
    return place.open_database(home, address, must_exist=must_exist)


def prepare(home: Path) -> Path:
    """``home``, with a place for its rows that a command will find."""
    if _server is not None and not (home / REMEMBERED).exists():
        assert not (home / SQLITE).exists(), "something made this home without being given a database"
        _server.give(home)
    return home


def address_for(home: Path) -> str | None:
    """The address of an empty database for a home that has none yet; None where the home knows what it has."""
    if _server is None or (home / REMEMBERED).exists():
        return None
    return _server.reserve(home)


def copy_home(home: Path, other: Path) -> Path:
    """``other``, now a copy of ``home`` with a database of its own."""
    shutil.copytree(home, other)
    if _server is not None:
        _server.copy(home, other)
    return other


@contextmanager
def raw(home: Path) -> Iterator[sa.Connection]:
    """A transaction on the rows of ``home`` from below: nothing is migrated, a new home has no table."""
    if _server is not None:
        if not (home / REMEMBERED).exists():
            _server.give(home, None)
        engine = make_engine(read_address(json.loads((home / REMEMBERED).read_text())["address"]))
    else:
        engine = sa.create_engine(f"sqlite:///{home / SQLITE}")
    with engine.begin() as connection:
        yield connection
    engine.dispose()
