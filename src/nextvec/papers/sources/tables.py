"""The tables of papers in, as the queries see them. ``schema`` makes them; a column here needs a step there."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["AUDIT", "HARVESTS", "NAMES", "SNAPSHOTS", "SOURCE_RECORDS", "SUBMISSIONS", "TITLES", "WITHDRAWN"]

_METADATA = sa.MetaData()
SOURCE_RECORDS = sa.Table(
    "source_records",
    _METADATA,
    sa.Column("source", sa.String(32), primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("paper", sa.String(64)),  # the paper that it is part of
    sa.Column("home", sa.String(64)),  # the paper that it would be alone
    sa.Column("content", sa.JSON),
    sa.Column("digest", sa.String(24)),
    sa.Column("fields", sa.JSON),  # the fields of the paper that come from it
    sa.Column("first_seen", sa.DateTime),
    sa.Column("last_seen", sa.DateTime),
)
NAMES = sa.Table(
    "names", _METADATA, sa.Column("name", sa.String(220), primary_key=True), sa.Column("paper", sa.String(64))
)
TITLES = sa.Table(
    "titles", _METADATA, sa.Column("paper", sa.String(64), primary_key=True), sa.Column("folded", sa.String(300))
)
SNAPSHOTS = sa.Table(
    "snapshots",
    _METADATA,
    sa.Column("paper", sa.String(64), primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("votes", sa.BigInteger),
    sa.Column("comments", sa.BigInteger),
)
WITHDRAWN = sa.Table(
    "withdrawn",
    _METADATA,
    sa.Column("paper", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(16)),  # hidden, merged, deleted
    sa.Column("reason", sa.Text),
    sa.Column("target", sa.String(64)),  # of a merged one
    sa.Column("moved", sa.JSON),  # of a merged one: [source, key] of the records that went along
    sa.Column("at", sa.DateTime),
)
HARVESTS = sa.Table(
    "harvests",
    _METADATA,
    sa.Column("source", sa.String(32), primary_key=True),
    sa.Column("scope", sa.String(500), primary_key=True),
    sa.Column("cursor", sa.Text),  # of an interrupted one
    sa.Column("start", sa.Date),  # the first day that it asks for
    sa.Column("since", sa.Date),  # the first day that the next one has to ask for
    sa.Column("taken", sa.BigInteger),
    sa.Column("began", sa.DateTime),
    sa.Column("finished", sa.DateTime),
)
SUBMISSIONS = sa.Table(
    "submissions",
    _METADATA,
    sa.Column("id", sa.String(64), primary_key=True),  # the arXiv id
    sa.Column("state", sa.String(16)),  # waiting, approved, done, failed, rejected
    sa.Column("note", sa.Text),
    sa.Column("tries", sa.BigInteger),
    sa.Column("at", sa.DateTime),
    sa.Column("changed", sa.DateTime),
)
AUDIT = sa.Table(
    "audit",
    _METADATA,
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.DateTime),
    sa.Column("actor", sa.Text),
    sa.Column("action", sa.String(16)),
    sa.Column("paper", sa.String(64)),
    sa.Column("reason", sa.Text),
    sa.Column("details", sa.JSON),
)
