"""Step 6 of the database's shape: who said what of a paper, its names, votes by day, what was taken away, the queue."""

from __future__ import annotations

from datetime import UTC, date, datetime

from sqlalchemy import Connection, text

__all__ = ["NAME", "STATEMENTS", "fill"]

NAME = "sources: who said what, names, votes by day, what was taken away, the queue"

STATEMENTS = (
    """
    CREATE TABLE source_records (
        source VARCHAR(32) NOT NULL,
        key VARCHAR(200) NOT NULL,
        paper VARCHAR(64) NOT NULL,
        home VARCHAR(64) NOT NULL,
        content JSON NOT NULL,
        digest VARCHAR(24) NOT NULL,
        fields JSON NOT NULL,
        first_seen TIMESTAMP NOT NULL,
        last_seen TIMESTAMP NOT NULL,
        PRIMARY KEY (source, key)
    )
    """,
    "CREATE INDEX source_records_by_paper ON source_records (paper)",
    "CREATE TABLE names (name VARCHAR(220) PRIMARY KEY, paper VARCHAR(64) NOT NULL)",
    "CREATE INDEX names_by_paper ON names (paper)",
    "CREATE TABLE titles (paper VARCHAR(64) PRIMARY KEY, folded VARCHAR(300) NOT NULL)",
    "CREATE INDEX titles_by_text ON titles (folded)",
    """
    CREATE TABLE snapshots (
        paper VARCHAR(64) NOT NULL,
        day DATE NOT NULL,
        votes INTEGER NOT NULL,
        comments INTEGER NOT NULL,
        PRIMARY KEY (paper, day)
    )
    """,
    "CREATE INDEX snapshots_by_day ON snapshots (day)",
    """
    CREATE TABLE withdrawn (
        paper VARCHAR(64) PRIMARY KEY,
        state VARCHAR(16) NOT NULL,
        reason TEXT NOT NULL,
        target VARCHAR(64),
        moved JSON,
        at TIMESTAMP NOT NULL
    )
    """,
    """
    CREATE TABLE harvests (
        source VARCHAR(32) NOT NULL,
        scope VARCHAR(500) NOT NULL,
        cursor TEXT,
        start DATE,
        since DATE,
        taken INTEGER NOT NULL,
        began TIMESTAMP NOT NULL,
        finished TIMESTAMP,
        PRIMARY KEY (source, scope)
    )
    """,
    """
    CREATE TABLE submissions (
        id VARCHAR(64) PRIMARY KEY,
        state VARCHAR(16) NOT NULL,
        note TEXT NOT NULL,
        tries INTEGER NOT NULL,
        at TIMESTAMP NOT NULL,
        changed TIMESTAMP NOT NULL
    )
    """,
    "CREATE INDEX submissions_by_state ON submissions (state, at)",
    """
    CREATE TABLE audit (
        number INTEGER PRIMARY KEY,
        at TIMESTAMP NOT NULL,
        actor TEXT NOT NULL,
        action VARCHAR(16) NOT NULL,
        paper VARCHAR(64) NOT NULL,
        reason TEXT NOT NULL,
        details JSON NOT NULL
    )
    """,
)


def fill(connection: Connection) -> None:
    """The titles of the papers that are there, and their votes as of the day when the papers last changed."""
    from nextvec.papers.sources.titles import fold

    changed = connection.execute(text("SELECT value FROM facts WHERE name = 'changed'")).scalar()
    day: date = (datetime.fromisoformat(changed) if changed else datetime.now(UTC)).date()
    papers = connection.execute(text("SELECT id, title, upvotes, num_comments FROM papers")).all()
    if papers:
        connection.execute(
            text("INSERT INTO titles (paper, folded) VALUES (:paper, :folded)"),
            [{"paper": row.id, "folded": fold(row.title)} for row in papers],
        )
    voted = [row for row in papers if row.upvotes or row.num_comments]
    if voted:
        connection.execute(
            text("INSERT INTO snapshots (paper, day, votes, comments) VALUES (:paper, :day, :votes, :comments)"),
            [
                {"paper": row.id, "day": day.isoformat(), "votes": row.upvotes, "comments": row.num_comments}
                for row in voted
            ],
        )
