"""Pairs of texts that belong together, from a user's file or at hand, as batches of token ids.

Legend: n pairs.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextvec.data.readers import Record, read_located
from nextvec.data.sources import Columns, ragged
from nextvec.data.tokenizers import Tokenizer
from nextvec.types import InputError

__all__ = ["DOCUMENTS", "NEGATIVES", "QUERIES", "Pairs", "field_text", "pair_columns", "read_pairs"]

QUERIES = ("query", "anchor", "question", "title")
DOCUMENTS = ("document", "positive", "answer", "body", "summary", "abstract")
NEGATIVES = ("neg", "negative")


@dataclass(frozen=True, slots=True)
class Pairs:
    """n queries and the document of each; ``negatives``: per query a document that is not an answer, or None;
    ``owners``: [n], pairs with one owner (of one page, say) are no negatives of each other."""

    queries: list[str]
    documents: list[str]
    negatives: list[str] | None = None
    owners: Sequence[Hashable] = ()

    def __len__(self) -> int:
        return len(self.queries)

    def groups(self) -> NDArray[np.int64]:
        """int64 [n]: pairs that share a query, a document or an owner, directly or through others, have one number.

        The documents of one's own group are no negatives (``InfoNCE``): a query with two answers must not be taught
        that one of them is wrong.
        """
        parent = list(range(len(self)))

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for shared in (self.queries, self.documents, self.owners):
            first: dict[Hashable, int] = {}
            for i, key in enumerate(shared):
                parent[root(i)] = root(first.setdefault(key, i))
        return np.array([root(i) for i in range(len(self))], dtype=np.int64)

    def answers(self) -> list[list[int]]:
        """For every pair the numbers of those of its group: whose documents are no negatives of its query."""
        groups = self.groups().tolist()
        members: dict[int, list[int]] = {}
        for i, group in enumerate(groups):
            members.setdefault(group, []).append(i)
        return [members[group] for group in groups]


def read_pairs(path: str | os.PathLike[str], *, limit: int | None = None) -> Pairs:
    """The pairs of a file or folder (jsonl, csv, tsv, parquet; see ``readers``), at most ``limit`` of them.

    A record has a query (a field of ``QUERIES``), a document (of ``DOCUMENTS``) and, in every record or in none, one of
    ``NEGATIVES``: a document that does not answer the query. Runs of whitespace become single spaces.
    Raises InputError with file and line for a record without them, or with an empty one.
    """
    queries: list[str] = []
    documents: list[str] = []
    negatives: list[str] = []
    for place, record in read_located(path):
        if limit is not None and len(queries) >= limit:
            break
        queries.append(field_text(record, QUERIES, place))
        documents.append(field_text(record, DOCUMENTS, place))
        if any(record.get(name) is not None for name in NEGATIVES):
            negatives.append(field_text(record, NEGATIVES, place))
        if negatives and len(negatives) != len(queries):
            raise InputError(f"{place}: some records have a 'neg' and some have none: give it to all or to none")
    if len(queries) < 2:
        raise InputError(f"{os.fspath(path)!r} holds {len(queries)} pairs; at least 2 are needed to compare them")
    return Pairs(queries, documents, negatives or None)


def field_text(record: Record, names: Sequence[str], place: str) -> str:
    """The text in the first of the fields ``names`` that ``record`` has, runs of whitespace as single spaces.
    InputError with ``place`` where there is none, or an empty one."""
    name = next((name for name in names if record.get(name) is not None), None)
    if name is None:
        found = ", ".join(sorted(map(str, record))[:12]) or "none"
        raise InputError(f"{place}: no field {' or '.join(map(repr, names))} (fields found: {found})")
    text = record[name]
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{place}: field {name!r} is {text!r:.40}; expected a text")
    return " ".join(text.split())


def pair_columns(
    pairs: Pairs, tokenizer: Tokenizer, *, max_length: int, extra: Mapping[str, Any] | None = None
) -> Columns:
    """The pairs as columns for ``sources.Shuffled``: ragged "query", "document" and, where there are negatives,
    "neg0", cut to ``max_length`` tokens; "group" int64 [n]; and ``extra`` columns by name (scores, vectors,
    more texts), as ``sources.columns`` takes them.

    InputError for a text of which the tokeniser leaves nothing.
    """
    texts = {"query": pairs.queries, "document": pairs.documents}
    if pairs.negatives is not None:
        texts["neg0"] = pairs.negatives
    made = {name: tokenizer.encode(own, max_length=max_length) for name, own in texts.items()}
    for name, sequences in made.items():
        if empty := [i for i, ids in enumerate(sequences) if not ids]:
            raise InputError(f"pair {empty[0]}: its {name} has no token left ({texts[name][empty[0]]!r:.60})")
    return Columns({**{name: ragged(ids) for name, ids in made.items()}, "group": pairs.groups(), **(extra or {})})
