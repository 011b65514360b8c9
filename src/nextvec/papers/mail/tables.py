"""The tables of mail as the queries see them, and the statements of the migration that makes them."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["LANGUAGES", "OUTBOX", "READERS", "SEEN", "STATEMENTS", "SUBSCRIPTIONS"]

_METADATA = sa.MetaData()
READERS = sa.Table(
    "mail_readers",
    _METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("address", sa.Text),
    sa.Column("folded", sa.Text),
    sa.Column("suspended_at", sa.DateTime),
    sa.Column("reason", sa.Text),
    sa.Column("created_at", sa.DateTime),
)
"""One row for each mailbox. ``suspended_at``: it bounced, and gets nothing until it is confirmed anew."""
SUBSCRIPTIONS = sa.Table(
    "mail_subscriptions",
    _METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("reader", sa.String(32)),
    sa.Column("kind", sa.String(16)),
    sa.Column("query", sa.Text),
    sa.Column("stream", sa.String(64)),
    sa.Column("every", sa.String(8)),
    sa.Column("days", sa.String(8)),
    sa.Column("at", sa.String(8)),
    sa.Column("zone", sa.String(64)),
    sa.Column("weekend", sa.String(8)),
    sa.Column("most", sa.BigInteger),
    sa.Column("state", sa.String(16)),
    sa.Column("created_at", sa.DateTime),
    sa.Column("since", sa.DateTime),
    sa.Column("covered", sa.DateTime),
    sa.Column("language", sa.String(35)),
)
"""``stream``: kind and what it is about; a reader has one active subscription to each. ``since``: when it was confirmed
or resumed; ``covered``: the moment of the last digest; ``language``: how days and numbers are written, "" the
site's own form."""
OUTBOX = sa.Table(
    "mail_outbox",
    _METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("reader", sa.String(32)),
    sa.Column("subscription", sa.String(32)),
    sa.Column("kind", sa.String(64)),
    sa.Column("period", sa.String(40)),
    sa.Column("state", sa.String(16)),
    sa.Column("slot", sa.DateTime),
    sa.Column("papers", sa.JSON),
    sa.Column("found", sa.BigInteger),
    sa.Column("message_id", sa.Text),
    sa.Column("attempts", sa.BigInteger),
    sa.Column("next_at", sa.DateTime),
    sa.Column("error", sa.Text),
    sa.Column("created_at", sa.DateTime),
    sa.Column("changed_at", sa.DateTime),
)
"""One row for each mail, under the unique key (reader, kind, period). ``papers``: [id, why it is there] in order;
``found``: how many there were to choose from."""
SEEN = sa.Table(
    "mail_papers",
    _METADATA,
    sa.Column("reader", sa.String(32), primary_key=True),
    sa.Column("paper", sa.String(64), primary_key=True),
)
"""Which papers a reader was sent, or will be."""

STATEMENTS = (
    """
    CREATE TABLE mail_readers (
        id VARCHAR(32) PRIMARY KEY,
        address TEXT NOT NULL,
        folded TEXT NOT NULL UNIQUE,
        suspended_at TIMESTAMP,
        reason TEXT,
        created_at TIMESTAMP NOT NULL
    )
    """,
    """
    CREATE TABLE mail_subscriptions (
        id VARCHAR(32) PRIMARY KEY,
        reader VARCHAR(32) NOT NULL,
        kind VARCHAR(16) NOT NULL,
        query TEXT NOT NULL,
        stream VARCHAR(64) NOT NULL,
        every VARCHAR(8) NOT NULL,
        days VARCHAR(8) NOT NULL,
        at VARCHAR(8) NOT NULL,
        zone VARCHAR(64) NOT NULL,
        weekend VARCHAR(8) NOT NULL,
        most INTEGER NOT NULL,
        state VARCHAR(16) NOT NULL,
        created_at TIMESTAMP NOT NULL,
        since TIMESTAMP,
        covered TIMESTAMP
    )
    """,
    "CREATE INDEX mail_subscriptions_by_reader ON mail_subscriptions (reader, stream)",
    "CREATE INDEX mail_subscriptions_by_state ON mail_subscriptions (state, id)",
    """
    CREATE TABLE mail_outbox (
        id VARCHAR(32) PRIMARY KEY,
        reader VARCHAR(32) NOT NULL,
        subscription VARCHAR(32) NOT NULL,
        kind VARCHAR(64) NOT NULL,
        period VARCHAR(40) NOT NULL,
        state VARCHAR(16) NOT NULL,
        slot TIMESTAMP NOT NULL,
        papers JSON NOT NULL,
        found INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        next_at TIMESTAMP NOT NULL,
        error TEXT,
        created_at TIMESTAMP NOT NULL,
        changed_at TIMESTAMP NOT NULL,
        UNIQUE (reader, kind, period)
    )
    """,
    "CREATE INDEX mail_outbox_by_state ON mail_outbox (state, next_at)",
    "CREATE INDEX mail_outbox_by_message ON mail_outbox (message_id)",
    """
    CREATE TABLE mail_papers (
        reader VARCHAR(32) NOT NULL,
        paper VARCHAR(64) NOT NULL,
        PRIMARY KEY (reader, paper)
    )
    """,
)

LANGUAGES = ("ALTER TABLE mail_subscriptions ADD COLUMN language VARCHAR(35) NOT NULL DEFAULT ''",)
"""A later step: who subscribed before it gets the site's own form."""
