"""Search by words: BM25 over title, abstract and names of all papers.

The index is one of a state of the papers (``stamp``). ``follow`` brings it to the state that they are in now, which
costs as much as the papers that changed since; scores use the statistics of all papers, so that nothing found says
whether it followed or was made from nothing. Where the words lie, ``word_parts`` says.

Shapes: N rows, of which some are gone; T query tokens.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextvec.files import storage_error
from nextvec.papers import word_parts
from nextvec.papers.db import Database
from nextvec.papers.word_parts import FIELDS, Gone, Part, Row, digest, parts_of, tidied
from nextvec.search.postings import Bm25
from nextvec.search.words import WORD, tokenize, tokens_of
from nextvec.types import Progress, StorageError

__all__ = ["LexicalIndex", "follow"]


def _ways(word: str) -> list[list[str]]:
    """The sets of tokens any of which stands for ``word``: all its parts, or the whole written in one."""
    tokens = list(tokens_of(word))
    if "-" in word and len(tokens) > 1:
        return [tokens[:-1], tokens[-1:]]
    return [tokens] if tokens else []


def follow(
    db: Database, index: LexicalIndex | None, say: Callable[[str], Progress | None] | None = None
) -> LexicalIndex:
    """The index of the papers as they are now, out of an older one, or of nothing where that is less work.

    ``say``: called with the name of the step where it takes all papers in.
    """
    with db.read() as connection:
        change = db.changed(connection, index.stamp if index else None)
        if index is not None and index.stamp == change.stamp:
            return index
        if index is not None and change.papers is not None and change.few(len(index)):
            return index.updated(db.texts(change.papers, connection), change.papers, stamp=change.stamp)
        progress = say("indexing words") if say else None
        total = db.count() if progress else None
        return LexicalIndex.build(db.lexical_rows(connection), stamp=change.stamp, progress=progress, total=total)


class LexicalIndex:
    """BM25 of the papers in ``parts``, but for those that are ``gone``. Never changes."""

    def __init__(self, parts: Sequence[Part], gone: Sequence[Gone], stamp: str) -> None:
        self.stamp = stamp
        self._parts, self._gone = list(parts), list(gone)
        sizes = [len(part) for part in self._parts]
        self._begins = np.cumsum([0, *sizes])
        self._ids = [name for part in self._parts for name in part.ids]
        self._alive = ~np.concatenate([np.zeros(0, bool), *self._gone])
        at = [
            np.where(dead, -1, np.arange(begin, begin + len(dead)))
            for begin, dead in zip(self._begins.tolist(), self._gone, strict=False)
        ]
        self._fields = {field: Bm25([part.fields[field] for part in self._parts], at) for field in FIELDS}
        self._place = dict(zip(self._ids, range(len(self._ids)), strict=True))
        for row in np.flatnonzero(~self._alive).tolist():
            if self._place.get(self._ids[row]) == row:
                del self._place[self._ids[row]]
        self._masks: list[tuple[frozenset[str], NDArray[np.bool_]]] = []

    def __len__(self) -> int:
        """How many papers can be found."""
        return len(self._place)

    @property
    def ids(self) -> list[str]:
        """Their ids, in order."""
        return sorted(self._place)

    @classmethod
    def build(
        cls, rows: Iterable[Row], *, stamp: str, progress: Progress | None = None, total: int | None = None
    ) -> LexicalIndex:
        """Of nothing but rows (id, title, summary, authors, organisation), each id once. ``stamp`` says which state of
        the data this is."""

        def counted() -> Iterable[Row]:
            done = 0
            for done, row in enumerate(rows, start=1):
                yield row
                if progress and done % 500 == 0:
                    progress(done, total)
            if progress:
                progress(done, total)

        parts = list(parts_of(counted()))
        return cls(parts, [np.zeros(len(part), bool) for part in parts], stamp)

    def updated(self, rows: Iterable[Row], changed: Collection[str], *, stamp: str) -> LexicalIndex:
        """With the papers ``changed`` as ``rows`` have them; those that are not among the rows are gone."""
        gone = [dead.copy() for dead in self._gone]
        left = set(changed)

        def forget(identifier: str) -> None:
            row = self._place.get(identifier)
            if row is not None:
                part = int(np.searchsorted(self._begins, row, side="right")) - 1
                gone[part][row - self._begins[part]] = True

        def fresh() -> Iterable[Row]:
            for row in rows:
                left.discard(row[0])
                if self._digest(row[0]) != digest(row):  # votes and the like are none of its words
                    forget(row[0])
                    yield row

        parts = [*self._parts, *parts_of(fresh())]
        for identifier in left:
            forget(identifier)
        gone += [np.zeros(len(part), bool) for part in parts[len(gone) :]]
        return LexicalIndex(*tidied(parts, gone), stamp)

    def _digest(self, identifier: str) -> int | None:
        """Of the texts of this paper as they are here."""
        row = self._place.get(identifier)
        if row is None:
            return None
        part = int(np.searchsorted(self._begins, row, side="right")) - 1
        return int(self._parts[part].digests[row - self._begins[part]])

    def scores(self, query: str) -> NDArray[np.float32]:
        """float32 [N]: the weighted sum over the fields; 0 for papers without any query word."""
        total = np.zeros(len(self._ids))
        tokens = tokenize(query)
        for field, words in self._fields.items():
            words.add_scores(tokens, FIELDS[field], total)
        return total.astype(np.float32)

    def search(
        self, query: str, k: int, *, allowed: Collection[str] | None = None
    ) -> tuple[list[str], list[float], int]:
        """The best ``k`` ids with scores, level ones in the order of their ids, and how many papers match at all;
        ``allowed`` restricts both exactly."""
        scores = self.scores(query)
        if allowed is not None:
            scores[~self._mask(allowed)] = 0.0
        matches = np.flatnonzero(scores > 0)
        total = len(matches)
        if total > k:
            least = np.partition(scores[matches], total - k)[total - k]
            level = matches[scores[matches] == least]
            matches = matches[scores[matches] > least]
            last = heapq.nsmallest(k - len(matches), level.tolist(), key=self._ids.__getitem__)
            matches = np.concatenate([matches, np.array(last, np.int64)])
        found = [
            (-score, self._ids[row]) for score, row in zip(scores[matches].tolist(), matches.tolist(), strict=True)
        ]
        found.sort()
        return [name for _, name in found], [-score for score, _ in found], total

    def _mask(self, allowed: Collection[str]) -> NDArray[np.bool_]:
        """bool [N]: which rows are in ``allowed``. Of sets that cannot change the last ones are remembered."""
        for known, mask in self._masks:
            if known is allowed:
                return mask
        mask = np.zeros(len(self._ids), bool)
        rows = np.fromiter(map(self._place.get, allowed, repeat(-1)), np.int64, len(allowed))
        mask[rows[rows >= 0]] = True
        if isinstance(allowed, frozenset):
            self._masks = [(allowed, mask), *self._masks[:15]]
        return mask

    def terms(self, query: str, identifiers: Sequence[str]) -> dict[str, list[str]]:
        """``matched_terms`` of these papers as they were indexed, by id; only of those that are here."""
        places = {name: self._place[name] for name in identifiers if name in self._place}
        at = np.fromiter(places.values(), np.int64, len(places))
        words = dict.fromkeys(WORD.findall(query))
        there = {token: self._among(token, at) for word in words for token in tokens_of(word)}
        return {
            name: [word for word in words if any(there[token][i] for token in tokens_of(word))]
            for i, name in enumerate(places)
        }

    def _among(self, token: str, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool [len(places)]: which of these rows have ``token`` in some field."""
        found = np.zeros(len(places), bool)
        for words in self._fields.values():
            for begin, segment in zip(self._begins.tolist(), words.segments, strict=False):
                rows, _ = segment.find(token.encode())
                if len(rows):
                    wanted = places - begin
                    here = np.flatnonzero((wanted >= 0) & (wanted < len(segment)))
                    sought = wanted[here].astype(rows.dtype)  # of another type, all rows would be copied
                    near = np.minimum(np.searchsorted(rows, sought), len(rows) - 1)
                    found[here[rows[near] == sought]] = True
        return found

    def holding(self, topic: str) -> list[str]:
        """The ids of the papers with every word of ``topic`` in title or abstract; commas separate alternatives.

        Words are compared by the rules of the search; of a word with a hyphen (``multi-modal``) the paper may have
        its parts or the whole (``multimodal``).
        """
        there = np.zeros(len(self._ids), bool)
        for alternative in topic.split(","):
            words = [ways for ways in map(_ways, WORD.findall(alternative)) if ways]
            if words:
                there |= np.logical_and.reduce([self._any(ways) for ways in words])
        return self._named(there)

    def sharing(self, text: str) -> list[str]:
        """The ids of the papers that have every token of ``text`` in some field; all of them for a text without any."""
        there = self._alive.copy()
        for token in set(tokenize(text)):
            there &= self._with(token, tuple(FIELDS))
        return self._named(there)

    def knows(self, token: str) -> bool:
        """Whether any paper has ``token``."""
        return any(words.texts_with(token) for words in self._fields.values())

    def _named(self, there: NDArray[np.bool_]) -> list[str]:
        """The ids of those rows that count."""
        return [self._ids[row] for row in np.flatnonzero(there & self._alive).tolist()]

    def _any(self, ways: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
        """bool [N]: which rows have all tokens of one of ``ways`` in title or abstract."""
        found: NDArray[np.bool_] = np.zeros(len(self._ids), bool)
        for tokens in ways:
            found |= np.logical_and.reduce([self._with(token) for token in tokens])
        return found

    def _with(self, token: str, fields: Sequence[str] = ("title", "summary")) -> NDArray[np.bool_]:
        """bool [N]: which rows have ``token`` in one of ``fields``."""
        found: NDArray[np.bool_] = np.zeros(len(self._ids), bool)
        for field in fields:
            for begin, segment in zip(self._begins.tolist(), self._fields[field].segments, strict=False):
                rows, _ = segment.find(token.encode())
                found[rows + np.int64(begin)] = True
        return found

    # -- on disk ---------------------------------------------------------------------------------------------------
    def save(self, folder: Path) -> None:
        """Write to ``folder`` what is not there of it; who reads there has the old or the new index. Raises
        StorageError when the disk refuses."""
        try:
            word_parts.write(folder, self.stamp, self._parts, self._gone)
        except OSError as error:
            raise storage_error(error, folder) from error

    @classmethod
    def load(cls, folder: Path, known: LexicalIndex | None = None) -> LexicalIndex:
        """Read what ``save`` wrote, but for what ``known`` has of it; StorageError where it is missing or damaged
        (build it again then)."""
        try:
            stamp, parts, gone = word_parts.read(folder, known._parts if known else ())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"the word index at {str(folder)!r} is missing or damaged: {error}") from error
        return cls(parts, gone, stamp)
