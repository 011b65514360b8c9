"""What is worked out about each paper, in and out of the database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from nextvec.papers.connection import rows_among, rows_of
from nextvec.papers.db import Database
from nextvec.papers.insight.tables import INSIGHTS
from nextvec.papers.records import Paper
from nextvec.papers.tables import FACTS, PAPERS

__all__ = [
    "Insight",
    "insights",
    "keyword_rows",
    "keywords_of",
    "lacking",
    "missing",
    "note_whole",
    "state",
    "vectors_of",
    "write",
]

_I = INSIGHTS.c
_P = PAPERS.c
_WHOLE = "understood"
"""The fact that says of which generation of the papers, and under which encoder, no insight was missing."""


@dataclass(frozen=True, slots=True)
class Insight:
    """Of one paper: keywords, the line, and the embeddings of its sentences, float32 [sentences, D], unit length."""

    paper: Paper
    keywords: list[str]
    line: str
    vectors: NDArray[np.float32]


def state(text_hash: str, encoder: str) -> str:
    """What an insight is of: this text, this encoder."""
    return hashlib.sha256(f"{text_hash}\x1f{encoder}".encode()).hexdigest()[:24]


def missing(db: Database, encoder: str) -> list[str]:
    """The ids of the papers whose insight is not there or of another state, in order. Looked at are those that changed
    since it was noted that none is missing (``note_whole``), or all."""
    query = sa.select(_P.id, _P.text_hash, _I.state)
    query = query.outerjoin(INSIGHTS, _I.paper == _P.id)
    generation, _, whole = (db.fact(_WHOLE) or "").partition(" ")
    without = lacking(db)
    with db.read() as connection:
        changed = db.changed(connection, generation).papers if whole == encoder else None
        if changed is not None and without > len(changed):
            changed = None  # some were taken away since
        rows = rows_of(connection, query) if changed is None else rows_among(connection, query, _P.id, changed)
    return sorted(row[0] for row in rows if row[2] != state(row[1], encoder))


def lacking(db: Database) -> int:
    """How many papers have no insight at all, at least: two counts, where ``missing`` may look at every paper."""
    return db.count() - insights(db)


def note_whole(db: Database, encoder: str, generation: str) -> None:
    """None is missing of the papers of ``generation``, under this encoder."""
    text = f"{generation} {encoder}"
    if db.fact(_WHOLE) != text:
        db.set_facts(**{_WHOLE: text})


def write(db: Database, found: Sequence[Insight], encoder: str) -> None:
    """Store, in one transaction; what was there of these papers is replaced."""
    rows = [
        {
            "paper": one.paper.id,
            "text_hash": one.paper.text_hash(),
            "state": state(one.paper.text_hash(), encoder),
            "line": one.line,
            "keywords": one.keywords,
            "vectors": pack(one.vectors),
        }
        for one in found
    ]
    if not rows:
        return
    with db.write() as connection:
        connection.execute(INSIGHTS.delete().where(_I.paper.in_([row["paper"] for row in rows])))
        connection.execute(INSIGHTS.insert(), rows)


def forget(db: Database) -> None:
    """Everything is to be worked out anew; and what was of papers that are gone, goes."""
    with db.write() as connection:
        connection.execute(INSIGHTS.delete())
        connection.execute(FACTS.delete().where(FACTS.c.name == _WHOLE))


def pack(vectors: NDArray[np.float32]) -> bytes:
    """float32 [n, D] -> int8 [n, D] as bytes: each row up to its length, to about one part in 250 of its largest."""
    largest = np.abs(vectors).max(axis=1, keepdims=True) if vectors.size else np.ones((len(vectors), 1), np.float32)
    return bytes(np.rint(vectors / np.maximum(largest, 1e-12) * 127).astype(np.int8).tobytes())


def unpack(packed: bytes, dim: int) -> NDArray[np.float32]:
    """float32 [n, D] of unit length, from ``pack``."""
    rows = np.frombuffer(packed, np.int8).reshape(-1, dim).astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12), np.float32)


def vectors_of(db: Database, identifiers: Sequence[str], dim: int) -> dict[str, NDArray[np.float32]]:
    """The sentence embeddings of those papers that have them in their present state of text, by id."""
    if not db.has_insights:
        return {}
    query = sa.select(_I.paper, _I.vectors).where(_I.paper.in_(identifiers))
    with db.read() as connection:
        rows = connection.execute(query).all()
    return {row.paper: unpack(row.vectors, dim) for row in rows if len(row.vectors) % dim == 0}


def keywords_of(db: Database, identifiers: Sequence[str]) -> dict[str, list[str]]:
    """The keywords of those papers that have any, by id."""
    if not db.has_insights:
        return {}
    query = sa.select(_I.paper, _I.keywords).where(_I.paper.in_(identifiers))
    with db.read() as connection:
        return {row.paper: row.keywords for row in connection.execute(query) if row.keywords}


def keyword_rows(db: Database) -> Iterator[tuple[str, list[str]]]:
    """(id, keywords) of every paper that has them."""
    if not db.has_insights:
        return
    query = sa.select(_I.paper, _I.keywords).order_by(_I.paper)
    with db.read() as connection:
        for row in connection.execute(query.execution_options(yield_per=1_000)):
            yield row.paper, row.keywords


def insights(db: Database) -> int:
    """How many papers have an insight."""
    with db.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(INSIGHTS)).scalar_one())
