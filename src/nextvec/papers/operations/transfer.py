"""Rows of a PostgreSQL database into a SQLite file of the same schema, and back: one format of backups for both, and
the way from the one to the other.

Both directions are one transaction on the side of PostgreSQL: what is written out is one moment, and what is read in is
there as a whole or not at all. Rows are counted on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nextvec.papers.db import Database
from nextvec.papers.migrations import MIGRATIONS, migrate, tables_made
from nextvec.papers.place import HOLDER
from nextvec.papers.tables import FACTS
from nextvec.types import InputError, StorageError

__all__ = ["export", "load"]

_BATCH = 500


def export(db: Database, file: Path) -> None:
    """Write the rows of ``db`` into the new SQLite database ``file``, but for the one that says whose they are."""
    engine = sa.create_engine(f"sqlite:///{file}")
    try:
        with db.read() as source, engine.begin() as target:
            schema = int(source.execute(sa.text("SELECT max(version) FROM schema_version")).scalar_one())
            steps = [migration for migration in MIGRATIONS if migration.number <= schema]
            migrate(target, steps)
            _copy(source, target, _tables(source, tables_made(steps)))
    finally:
        engine.dispose()


def load(file: Path, db: Database) -> None:
    """Replace the rows of ``db`` by those of the SQLite database ``file``, which has the newest schema. Which home
    ``db`` serves stays."""
    engine = sa.create_engine(f"sqlite:///{file}")
    try:
        with engine.begin() as source, db.write() as target:
            _copy(source, target, _tables(target, tables_made()))
    except InputError as error:  # a value that SQLite keeps and PostgreSQL does not
        raise StorageError(f"the backup cannot be kept in {db.location!r}: {error}") from error
    finally:
        engine.dispose()


def _tables(connection: sa.Connection, names: Sequence[str]) -> list[sa.Table]:
    """The tables as PostgreSQL, which knows their types, describes them."""
    metadata = sa.MetaData()

    @sa.event.listens_for(metadata, "column_reflect")
    def both(inspector: Any, table: sa.Table, column: dict[str, Any]) -> None:
        kind = column["type"].as_generic()
        column["type"] = sa.JSON(none_as_null=True) if isinstance(kind, sa.JSON) else kind

    metadata.reflect(connection, only=names)
    return [metadata.tables[name] for name in names]


def _copy(source: sa.Connection, target: sa.Connection, tables: Sequence[sa.Table]) -> None:
    """Replace the rows of ``tables`` in ``target``. StorageError where their numbers differ at the end."""
    for table in tables:
        ours = [table.c.name != HOLDER] if table.name == FACTS.name else []
        target.execute(table.delete().where(*ours))
        rows = source.execution_options(yield_per=_BATCH).execute(sa.select(table).where(*ours))
        for part in rows.partitions():
            _write(target, table, part)
        count = sa.select(sa.func.count()).select_from(table).where(*ours)
        there, here = source.execute(count).scalar_one(), target.execute(count).scalar_one()
        if there != here:
            raise StorageError(f"of {there:,} rows of {table.name!r} {here:,} were copied: nothing is changed")


def _write(target: sa.Connection, table: sa.Table, rows: Sequence[sa.Row[Any]]) -> None:
    target.execute(table.insert(), [dict(row._mapping) for row in rows])
