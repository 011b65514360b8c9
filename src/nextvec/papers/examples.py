"""Search by example: like these papers, not like those, like this text.

    direction = base + 0.75 * mean(like) - 0.25 * mean(unlike)

over unit vectors (Rocchio 1971): ``base`` is the sum of the query's and the pasted text's vector, where there are any;
without them the liked papers are the base, with weight 1. Papers are then ranked by the cosine with ``direction``, and
those that were named are left out. A text goes through the encoder of documents, a query through that of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nextvec.papers.records import ID_PATTERN, check_text, clean, is_arxiv_id
from nextvec.papers.site import Site, encode_documents
from nextvec.types import InputError

if TYPE_CHECKING:
    from nextvec.papers.ranking import Request

__all__ = ["MAX_EXAMPLES", "MAX_TEXT", "direction", "read_examples", "read_text"]

LIKE, UNLIKE = 0.75, 0.25
MAX_EXAMPLES = 20
MAX_TEXT = 5_000


def read_examples(values: Sequence[str], name: str) -> tuple[str, ...]:
    """The ids in an address, each an id or an arXiv address, each once. InputError for what cannot be one."""
    from nextvec.papers.search import paper_id

    found = []
    for value in values:
        check_text(value, name)
        text = clean(value)
        if not text:
            continue
        identifier = paper_id(text) or text
        if not ID_PATTERN.fullmatch(identifier):
            raise InputError(f"{name} is {text[:60]!r}; expected the id of a paper or its address on arXiv")
        found.append(identifier)
    if len(found) > MAX_EXAMPLES:
        raise InputError(f"{name} names {len(found)} papers; at most {MAX_EXAMPLES} are accepted")
    return tuple(dict.fromkeys(found))


def read_text(text: str) -> str:
    """A pasted abstract, cleaned. InputError above 5,000 characters."""
    check_text(text, "text")
    cleaned = clean(text)
    if len(cleaned) > MAX_TEXT:
        raise InputError(
            f"text has {len(cleaned):,} characters; at most {MAX_TEXT:,} are accepted: paste the abstract only"
        )
    return cleaned


def direction(site: Site, request: Request) -> NDArray[np.float32] | None:
    """float32 [D]: where the nearest papers are looked for; None where nothing says so.

    InputError for unlike alone; examples that have no vector are passed over.
    """
    base = [vector for vector in (_query(site, request.query), _text(site, request.text)) if vector is not None]
    like, unlike = _vectors(site, request.like), _vectors(site, request.unlike)
    if request.unlike and not (request.query or request.text or request.like):
        raise InputError("unlike alone gives no direction: add words, a text or a paper that is liked")
    if not base and not len(like):
        return None
    total = np.sum(base, axis=0) if base else np.zeros(like.shape[1], np.float32)
    if len(like):
        total = total + (LIKE if base else 1.0) * like.mean(axis=0)
    if len(unlike):
        total = total - UNLIKE * unlike.mean(axis=0)
    return np.asarray(total, np.float32) if np.any(total) else None


def missing(site: Site, request: Request) -> list[str]:
    """The examples that are not in the collection."""
    named = [*request.like, *request.unlike]
    there = {stored.paper.id for stored in site.db.get_many(named)}
    return [name if not is_arxiv_id(name) else f"arXiv:{name}" for name in named if name not in there]


def _query(site: Site, query: str) -> NDArray[np.float32] | None:
    vector = site.query_vector(query) if query else None
    return None if vector is None else _units(vector[None])[0]


def _text(site: Site, text: str) -> NDArray[np.float32] | None:
    if not text:
        return None
    vector = encode_documents(site.encoder, [text])
    return _units(vector)[0] if np.isfinite(vector).all() and vector.any() else None


def _vectors(site: Site, identifiers: Sequence[str]) -> NDArray[np.float32]:
    """float32 [n, D], unit length."""
    rows = site.collection.get(list(identifiers), vectors=True) if identifiers else []
    held = [row["vector"] for row in rows if row is not None]
    return _units(np.asarray(held, np.float32)) if held else np.zeros((0, 0), np.float32)


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    out = np.zeros(vectors.shape, np.float32)
    np.divide(vectors, norms, out=out, where=norms > 0)
    return out
