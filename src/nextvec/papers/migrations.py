"""The database's shape, step by step. Forward only; each step runs in one transaction with its version number.

A step that has been released is never edited: a change is a new step at the end. The statements are the common
ground of SQLite and PostgreSQL; what types mean there is evened out behind them (``postgresql.even_out``).
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from nextvec.papers import postgresql
from nextvec.papers.accounts.schema import ACCOUNTS, TOKENS
from nextvec.papers.authors import note
from nextvec.papers.changes import STATEMENTS as CHANGES
from nextvec.papers.mail.tables import LANGUAGES
from nextvec.papers.mail.tables import STATEMENTS as MAIL
from nextvec.papers.sources import schema as sources
from nextvec.types import StorageError

__all__ = ["MIGRATIONS", "Migration", "migrate", "tables_made"]


@dataclass(frozen=True, slots=True)
class Migration:
    """``number`` counts from 1. ``fill`` writes what statements cannot say, after them."""

    number: int
    name: str
    statements: tuple[str, ...]
    fill: Callable[[Connection], None] | None = None


def _name_site_and_authors(connection: Connection) -> None:
    """The authors of the papers that are there, the site's own name in feeds, and the moment of this change."""
    rows = connection.execute(text("SELECT id, authors FROM papers")).all()
    # A driver may give JSON as text or already read.
    note(connection, ((row.id, json.loads(row[1]) if isinstance(row[1], str) else row[1]) for row in rows))
    facts = {"site": str(uuid.uuid4()), "changed": datetime.now(UTC).replace(tzinfo=None).isoformat()}
    for name, value in facts.items():
        connection.execute(
            text("INSERT INTO facts (name, value) VALUES (:name, :value)"), {"name": name, "value": value}
        )


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
    Migration(
        3,
        "authors by name, papers by the moment they came, when a text was revised",
        (
            """
            CREATE TABLE authors (
                paper VARCHAR(64) NOT NULL,
                place INTEGER NOT NULL,
                name TEXT NOT NULL,
                folded TEXT NOT NULL,
                last TEXT NOT NULL,
                PRIMARY KEY (paper, place)
            )
            """,
            "CREATE INDEX authors_by_name ON authors (folded, name, paper)",
            "CREATE INDEX authors_by_last ON authors (last, folded, name)",
            "CREATE TABLE revisions (paper VARCHAR(64) PRIMARY KEY, at TIMESTAMP NOT NULL)",
            "CREATE INDEX papers_by_moment ON papers ((coalesce(listed_at, published_at, daily_date)), id)",
            # With all that the view of the most discussed reads, so that it never touches the long rows themselves.
            "CREATE INDEX papers_by_comments ON papers "
            "(num_comments, upvotes, listed_at, published_at, daily_date, id)",
            "CREATE INDEX papers_by_source ON papers (source)",
        ),
        _name_site_and_authors,
    ),
    Migration(4, "readers, and what they vote for, write, keep and follow", ACCOUNTS),
    Migration(5, "readers of mail, what they subscribed to, what is sent to them", MAIL),
    Migration(6, sources.NAME, sources.STATEMENTS, sources.fill),
    Migration(
        7,
        "what is worked out about each paper: keywords, the line that sums it up, embeddings of its sentences",
        (
            # BYTEA is what PostgreSQL calls bytes; SQLite takes any name and keeps them as they are.
            """
            CREATE TABLE insights (
                paper VARCHAR(64) PRIMARY KEY,
                text_hash VARCHAR(24) NOT NULL,
                state VARCHAR(24) NOT NULL,
                line TEXT NOT NULL,
                keywords JSON NOT NULL,
                vectors BYTEA NOT NULL
            )
            """,
        ),
    ),
    Migration(8, "tokens with which the programs of readers ask in their name", TOKENS),
    Migration(
        9,
        "venues and categories of papers",
        (
            """
            CREATE TABLE categories (
                paper VARCHAR(64) NOT NULL,
                place INTEGER NOT NULL,
                name TEXT NOT NULL,
                folded TEXT NOT NULL,
                PRIMARY KEY (paper, place)
            )
            """,
            "CREATE INDEX categories_by_name ON categories (folded, name, paper)",
        ),
    ),
    Migration(
        10,
        "which papers changed since a generation; what the indexes hold of each paper, to look at without its texts",
        (
            *CHANGES,
            "CREATE INDEX papers_by_state ON papers (id, text_hash, indexed_text, facet_hash, indexed_facets, mark)",
        ),
    ),
    Migration(11, "the language in which mails write days and numbers", LANGUAGES),
)


def tables_made(migrations: Sequence[Migration] = MIGRATIONS) -> list[str]:
    """The names of the tables that these steps make, and of the one that counts them."""
    said = [statement for migration in migrations for statement in migration.statements]
    return ["schema_version", *(name for one in said for name in re.findall(r"CREATE TABLE (\w+)", one))]


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
        if migration.fill:
            migration.fill(connection)
        connection.execute(
            text("INSERT INTO schema_version (version, name) VALUES (:number, :name)"),
            {"number": migration.number, "name": migration.name},
        )
    if pending and connection.dialect.name == "postgresql":
        postgresql.even_out(connection, tables_made(migrations))
    return len(pending)
