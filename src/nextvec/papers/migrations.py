"""The database's shape, step by step. Forward only; each step runs in one transaction with its version number.

A step that has been released is never edited: a change is a new step at the end. The statements are the common
ground of SQLite and PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from nextvec.types import StorageError

__all__ = ["MIGRATIONS", "Migration", "migrate"]


@dataclass(frozen=True, slots=True)
class Migration:
    """``number`` counts from 1 without gaps."""

    number: int
    name: str
    statements: tuple[str, ...]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "papers and facts about the site",
        (
            """
            CREATE TABLE papers (
                id VARCHAR(64) PRIMARY KEY,
                title TEXT NOT NULL,
                summary TEXT NOT NULL,
                authors JSON NOT NULL,
                upvotes INTEGER NOT NULL,
                num_comments INTEGER NOT NULL,
                published_at TIMESTAMP,
                listed_at TIMESTAMP,
                daily_date DATE,
                submitted_by TEXT,
                github_repo TEXT,
                github_stars INTEGER,
                project_page TEXT,
                organization TEXT,
                source TEXT
            )
            """,
            "CREATE INDEX papers_by_day ON papers (daily_date, upvotes)",
            "CREATE INDEX papers_by_organization ON papers (organization)",
            "CREATE TABLE facts (name VARCHAR(64) PRIMARY KEY, value TEXT NOT NULL)",
        ),
    ),
    Migration(
        2,
        "what the search indexes hold of each paper",
        (
            "ALTER TABLE papers ADD COLUMN text_hash VARCHAR(24)",
            "ALTER TABLE papers ADD COLUMN facet_hash VARCHAR(24)",
            "ALTER TABLE papers ADD COLUMN indexed_text VARCHAR(24)",
            "ALTER TABLE papers ADD COLUMN indexed_facets VARCHAR(24)",
            "ALTER TABLE papers ADD COLUMN mark VARCHAR(24)",
        ),
    ),
)


def migrate(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring the database up to date inside the caller's transaction; the number of steps taken.

    Raises StorageError where the database was written by a newer nextvec.
    """
    connection.execute(
        text("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    )
    current = connection.execute(text("SELECT MAX(version) FROM schema_version")).scalar() or 0
    newest = migrations[-1].number if migrations else 0
    if current > newest:
        raise StorageError(
            f"the paper database has schema version {current}, this nextvec knows up to {newest}: upgrade nextvec"
        )
    pending = [migration for migration in migrations if migration.number > current]
    for migration in pending:
        for statement in migration.statements:
            connection.execute(text(statement))
        connection.execute(
            text("INSERT INTO schema_version (version, name) VALUES (:number, :name)"),
            {"number": migration.number, "name": migration.name},
        )
    return len(pending)
