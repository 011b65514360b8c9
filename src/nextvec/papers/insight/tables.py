"""The table of what is worked out about each paper; ``migrations`` makes it."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["INSIGHTS"]

INSIGHTS = sa.Table(
    "insights",
    sa.MetaData(),
    sa.Column("paper", sa.String(64), primary_key=True),
    sa.Column("text_hash", sa.String(24)),
    sa.Column("state", sa.String(24)),
    sa.Column("line", sa.Text),
    sa.Column("keywords", sa.JSON),
    sa.Column("vectors", sa.LargeBinary),
)
"""``text_hash``: of the text that this is of; ``state``: of the text and the encoder. ``vectors``: int8 [sentences, D],
the embedding of each sentence up to its length, as bytes."""
