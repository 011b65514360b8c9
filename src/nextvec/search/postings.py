"""Postings of texts, and BM25 over them with the statistics of the moment.

    score(row) = sum over query tokens t of idf(t) * tf / (tf + k1 * (1 - b + b * length / average length))
    idf(t) = ln(1 + (n - df(t) + 0.5) / (df(t) + 0.5))

Lucene's variant of BM25 (Robertson and Zaragoza 2009; Kamphuis et al. 2020), k1 1.2, b 0.75; n counts the texts with at
least one token. Term counts are stored and scores are worked out when asked for, since n, df and the average
length move with every write: so rows can come and go without touching what is stored.

Shapes: N rows, V different tokens, P pairs of token and row.
"""

from __future__ import annotations

import bisect
import itertools
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nextvec.search.words import Numbering

__all__ = ["SEGMENT_ROWS", "Bm25", "Builder", "Segment", "Shape", "merged", "places", "segments"]

K1 = 1.2
B = 0.75
SEGMENT_ROWS = 65_536  # so that a row fits 16 bits
_MOST = 65_535  # occurrences of a token in a text; more count as this many
_FOUND = 2_048  # tokens whose place a segment remembers: one search asks for each of its tokens several times

Int64 = NDArray[np.int64]
Shape = tuple[int, int, int, int]
"""Rows, tokens, pairs and bytes of letters: what the length of each array follows from."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The postings of up to 65,536 texts. Never changes.

    sequence: int64 [N], ascending; lengths: uint32 [N], tokens of each text; starts: int64 [V + 1], where the pairs of
    each token begin; rows, counts: uint16 [P], ascending rows within a token; ends: int64 [V + 1] into letters: the
    tokens in UTF-8, sorted, end to end.
    """

    sequence: Int64
    starts: Int64
    ends: Int64
    lengths: NDArray[np.uint32]
    rows: NDArray[np.uint16]
    counts: NDArray[np.uint16]
    letters: NDArray[np.uint8]
    _found: dict[bytes, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.sequence)

    @property
    def shape(self) -> Shape:
        """What ``open`` needs to know."""
        return len(self.sequence), len(self.starts) - 1, len(self.rows), len(self.letters)

    def find(self, token: bytes) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """(rows, counts) of a token; both empty where it does not occur."""
        place = self._found.get(token)
        if place is None:
            place = self._look_up(token)
            if len(self._found) >= _FOUND:
                self._found.clear()
            self._found[token] = place
        if place < 0:
            return self.rows[:0], self.counts[:0]
        start, stop = int(self.starts[place]), int(self.starts[place + 1])
        return self.rows[start:stop], self.counts[start:stop]

    def _look_up(self, token: bytes) -> int:
        """The place of a token among all of them, -1 where it does not occur."""
        terms = len(self.starts) - 1
        place = bisect.bisect_left(range(terms), token, key=self._term)
        return place if place < terms and self._term(place) == token else -1

    def _term(self, place: int) -> bytes:
        return self.letters[self.ends[place] : self.ends[place + 1]].tobytes()

    def terms(self) -> list[bytes]:
        """All tokens, sorted."""
        letters, ends = self.letters.tobytes(), self.ends.tolist()
        return [letters[start:stop] for start, stop in itertools.pairwise(ends)]

    def write(self, stream: BinaryIO) -> int:
        """Write all arrays, the widest first; their CRC-32."""
        crc = 0
        for part in (self.sequence, self.starts, self.ends, self.lengths, self.rows, self.counts, self.letters):
            data = np.ascontiguousarray(part, part.dtype.newbyteorder("<")).data
            stream.write(data)
            crc = zlib.crc32(data, crc)
        return crc

    @classmethod
    def open(cls, path: Path, shape: Sequence[int], crc: int) -> Segment:
        """Map what ``write`` wrote. ValueError where it is not what was written, OSError where it cannot be read."""
        rows, terms, pairs, letters = (int(size) for size in shape)
        if not 0 <= rows <= SEGMENT_ROWS or min(terms, pairs, letters) < 0:
            raise ValueError(f"impossible shape {shape}")
        layout: list[tuple[str, int]] = [("<i8", rows), ("<i8", terms + 1), ("<i8", terms + 1), ("<u4", rows)]
        layout += [("<u2", pairs), ("<u2", pairs), ("|u1", letters)]
        data = np.memmap(path, np.uint8, "r").view(np.ndarray)
        if len(data) != sum(np.dtype(kind).itemsize * size for kind, size in layout) or zlib.crc32(data.data) != crc:
            raise ValueError("not what was written")
        arrays: list[Any] = []
        at = 0
        for kind, size in layout:
            stop = at + np.dtype(kind).itemsize * size
            arrays.append(data[at:stop].view(kind))
            at = stop
        return cls(*arrays)


class Builder:
    """Collects texts, segment by segment."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._numbering = Numbering()
        self._sequence = array("q")
        self._lengths = array("I")
        self._tokens = array("I")

    def add(self, sequence: int, text: str | None) -> Segment | None:
        """Take in one text, with a higher sequence number than the last (None has no tokens); a segment once one is
        full."""
        numbers = self._numbering.of(text) if text else []
        self._sequence.append(sequence)
        self._lengths.append(len(numbers))
        self._tokens.extend(numbers)
        return self.rest() if len(self._sequence) == SEGMENT_ROWS else None

    def rest(self) -> Segment | None:
        """The texts since the last full segment; None where there are none."""
        if not self._sequence:
            return None
        segment = self._sealed()
        self._restart()
        return segment

    def _sealed(self) -> Segment:
        vocabulary = sorted((token.encode(), number) for token, number in self._numbering.vocabulary.items())
        rank = np.empty(len(vocabulary), np.int64)
        rank[[number for _, number in vocabulary]] = np.arange(len(vocabulary))
        lengths = np.array(self._lengths, np.uint32)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        keys, counts = np.unique(rank[np.array(self._tokens, np.int64)] * SEGMENT_ROWS + rows, return_counts=True)
        sequence = np.array(self._sequence, np.int64)
        return _assembled(sequence, lengths, [token for token, _ in vocabulary], keys, np.minimum(counts, _MOST))


def _assembled(
    sequence: Int64, lengths: NDArray[np.uint32], vocabulary: Sequence[bytes], keys: Int64, counts: NDArray[Any]
) -> Segment:
    """``vocabulary``: sorted; ``keys``: int64 [P], ascending, token number times SEGMENT_ROWS plus row."""
    return Segment(
        sequence=sequence,
        starts=np.searchsorted(keys, np.arange(len(vocabulary) + 1) * SEGMENT_ROWS).astype(np.int64),
        ends=np.cumsum([0, *map(len, vocabulary)], dtype=np.int64),
        lengths=lengths,
        rows=(keys % SEGMENT_ROWS).astype(np.uint16),
        counts=counts.astype(np.uint16),
        letters=np.frombuffer(b"".join(vocabulary), np.uint8),
    )


def merged(parts: Sequence[tuple[Segment, NDArray[np.bool_]]]) -> Segment:
    """One segment of those rows of several that are wanted (bool [N] beside each), in order, numbered from 0.

    What ``Builder`` makes of the same texts, without reading them again. ValueError for more than 65,536 rows.
    """
    total = sum(int(np.count_nonzero(wanted)) for _, wanted in parts)
    if total > SEGMENT_ROWS:
        raise ValueError(f"{total:,} rows do not fit one segment; expected at most {SEGMENT_ROWS:,}")
    terms = [segment.terms() for segment, _ in parts]
    number = {term: i for i, term in enumerate(sorted(set().union(*terms)))}
    keys, counts, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.uint16)], [np.zeros(0, np.uint32)]
    rows = 0
    for (segment, wanted), own in zip(parts, terms, strict=True):
        place = np.cumsum(wanted, dtype=np.int64) - 1 + rows
        code = np.fromiter(map(number.__getitem__, own), np.int64, len(own))
        live = wanted[segment.rows]
        of_pairs = np.repeat(code, np.diff(segment.starts))[live]
        keys.append(of_pairs * SEGMENT_ROWS + place[segment.rows[live]])
        counts.append(segment.counts[live])
        lengths.append(segment.lengths[wanted])
        rows += int(np.count_nonzero(wanted))
    together = np.concatenate(keys)
    order = np.argsort(together, kind="stable")
    together = together[order]
    used, dense = np.unique(together // SEGMENT_ROWS, return_inverse=True)  # tokens of unwanted rows alone are gone
    vocabulary = list(number)
    return _assembled(
        np.arange(rows),
        np.concatenate(lengths),
        [vocabulary[i] for i in used.tolist()],
        dense.astype(np.int64) * SEGMENT_ROWS + together % SEGMENT_ROWS,
        np.concatenate(counts)[order],
    )


def segments(texts: Iterable[tuple[int, str | None]]) -> Iterator[Segment]:
    """Segments of (sequence number, text), which come in ascending order."""
    builder = Builder()
    made = (builder.add(sequence, text) for sequence, text in texts)
    yield from (segment for segment in made if segment is not None)
    last = builder.rest()
    if last is not None:
        yield last


def places(sequence: Int64, wanted: Int64) -> Int64:
    """Where each of the ascending numbers ``wanted`` [n] is in the ascending ``sequence``, -1 where it is not."""
    if not len(wanted):
        return np.zeros(0, np.int64)
    first = int(np.searchsorted(sequence, wanted[0]))
    if np.array_equal(sequence[first : first + len(wanted)], wanted):  # as a rule nothing was deleted between
        return np.arange(first, first + len(wanted))
    place = np.searchsorted(sequence, wanted)
    there = place < len(sequence)
    there[there] = sequence[place[there]] == wanted[there]
    return np.where(there, place, -1)


class Bm25:
    """BM25 of some rows of segments; ``at``: int64 [N] for each segment, where its rows are in this view, -1 where
    they are not in it."""

    def __init__(self, parts: Sequence[Segment], at: Sequence[Int64]) -> None:
        self.segments = list(parts)
        self._places: list[tuple[Int64, bool]] = []  # whether all are there
        texts = tokens = 0
        for segment, place in zip(self.segments, at, strict=True):
            lengths = segment.lengths[place >= 0]
            self._places.append((place, len(lengths) == len(place)))
            texts += int(np.count_nonzero(lengths))
            tokens += int(lengths.sum(dtype=np.int64))
        self.texts = texts
        average = tokens / texts if texts else 1.0
        self._norms = [K1 * (1 - B + B * segment.lengths / average) for segment in self.segments]

    def add_scores(self, tokens: Iterable[str], weight: float, total: NDArray[np.float64]) -> None:
        """Add ``weight`` times the score of every row to ``total``, float64 [N]. A token counts once."""
        for token in sorted(set(tokens)):
            found = [self._live(i, token.encode()) for i in range(len(self.segments))]
            df = sum(len(rows) for rows, _, _ in found)
            if df == 0:
                continue
            idf = np.log1p((self.texts - df + 0.5) / (df + 0.5))
            for i, (rows, places, counts) in enumerate(found):
                # A row occurs once in a token's list: no sum is lost by adding through an index.
                total[places] += weight * idf * (counts / (counts + self._norms[i][rows]))

    def texts_with(self, token: str) -> int:
        """How many rows of this view have ``token``."""
        return sum(len(self._live(i, token.encode())[0]) for i in range(len(self.segments)))

    def _live(self, i: int, token: bytes) -> tuple[NDArray[np.uint16], Int64, NDArray[np.uint16]]:
        """(rows of the segment, rows of this view, counts) of a token, without the rows that are gone."""
        rows, counts = self.segments[i].find(token)
        places, whole = self._places[i]
        at = places[rows]
        if not whole:
            live = at >= 0
            rows, at, counts = rows[live], at[live], counts[live]
        return rows, at, counts
