"""Steps 4 and 8 of the database: the common ground of SQLite and PostgreSQL, released and never edited."""

from __future__ import annotations

__all__ = ["ACCOUNTS", "TOKENS"]

ACCOUNTS = (
    """
    CREATE TABLE readers (
        id VARCHAR(32) PRIMARY KEY,
        email VARCHAR(254) UNIQUE,
        name VARCHAR(60) NOT NULL,
        name_key VARCHAR(120) NOT NULL UNIQUE,
        role VARCHAR(16) NOT NULL,
        created_at TIMESTAMP NOT NULL
    )
    """,
    """
    CREATE TABLE sign_ins (
        selector VARCHAR(32) PRIMARY KEY,
        token_hash VARCHAR(64) NOT NULL,
        email VARCHAR(254) NOT NULL,
        leads_to TEXT NOT NULL,
        created_at TIMESTAMP NOT NULL,
        expires_at TIMESTAMP NOT NULL
    )
    """,
    "CREATE INDEX sign_ins_by_email ON sign_ins (email)",
    """
    CREATE TABLE sessions (
        id VARCHAR(32) PRIMARY KEY,
        reader VARCHAR(32) NOT NULL,
        created_at TIMESTAMP NOT NULL,
        expires_at TIMESTAMP NOT NULL
    )
    """,
    "CREATE INDEX sessions_by_reader ON sessions (reader)",
    """
    CREATE TABLE votes (
        reader VARCHAR(32) NOT NULL,
        paper VARCHAR(64) NOT NULL,
        created_at TIMESTAMP NOT NULL,
        PRIMARY KEY (reader, paper)
    )
    """,
    "CREATE INDEX votes_by_paper ON votes (paper)",
    """
    CREATE TABLE comments (
        id VARCHAR(32) PRIMARY KEY,
        paper VARCHAR(64) NOT NULL,
        parent VARCHAR(32),
        reader VARCHAR(32),
        text TEXT NOT NULL,
        state VARCHAR(16) NOT NULL,
        hidden_by VARCHAR(32),
        created_at TIMESTAMP NOT NULL,
        edited_at TIMESTAMP
    )
    """,
    "CREATE INDEX comments_by_paper ON comments (paper, created_at)",
    "CREATE INDEX comments_by_reader ON comments (reader)",
    "CREATE INDEX comments_by_parent ON comments (parent)",
    """
    CREATE TABLE lists (
        id VARCHAR(32) PRIMARY KEY,
        reader VARCHAR(32) NOT NULL,
        name VARCHAR(80) NOT NULL,
        address VARCHAR(64) UNIQUE,
        created_at TIMESTAMP NOT NULL
    )
    """,
    "CREATE INDEX lists_by_reader ON lists (reader)",
    """
    CREATE TABLE list_papers (
        list VARCHAR(32) NOT NULL,
        paper VARCHAR(64) NOT NULL,
        note TEXT NOT NULL,
        created_at TIMESTAMP NOT NULL,
        PRIMARY KEY (list, paper)
    )
    """,
    "CREATE INDEX list_papers_by_paper ON list_papers (paper)",
    """
    CREATE TABLE interests (
        reader VARCHAR(32) NOT NULL,
        kind VARCHAR(16) NOT NULL,
        folded VARCHAR(600) NOT NULL,
        said TEXT NOT NULL,
        stance VARCHAR(8) NOT NULL,
        created_at TIMESTAMP NOT NULL,
        PRIMARY KEY (reader, kind, folded)
    )
    """,
    "ALTER TABLE papers ADD COLUMN site_votes INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE papers ADD COLUMN site_comments INTEGER NOT NULL DEFAULT 0",
    "INSERT INTO facts (name, value) VALUES ('activity', '')",
)
TOKENS = (
    """
    CREATE TABLE tokens (
        id VARCHAR(32) PRIMARY KEY,
        token_hash VARCHAR(64) NOT NULL,
        reader VARCHAR(32) NOT NULL,
        name VARCHAR(60) NOT NULL,
        scopes VARCHAR(60) NOT NULL,
        created_at TIMESTAMP NOT NULL,
        ends_on DATE,
        used_on DATE,
        UNIQUE (reader, name)
    )
    """,
)
