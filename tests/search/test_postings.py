"""Postings: what is stored is what was given, and rows are found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextvec.search import postings
from nextvec.search.postings import Segment, places, segments
from nextvec.search.words import tokenize

TEXTS = st.lists(st.none() | st.text("abc é-.'", max_size=25), max_size=30)


@given(texts=TEXTS, size=st.integers(1, 12))
def test_segments_hold_every_token(texts: list[str | None], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postings, "SEGMENT_ROWS", size)
        parts = list(segments((10 * i, text) for i, text in enumerate(texts)))
    assert [len(part) <= size for part in parts] == [True] * -(-len(texts) // size)
    assert [int(number) for part in parts for number in part.sequence] == [10 * i for i in range(len(texts))]
    tokens = [tokenize(text or "") for text in texts]
    assert [int(length) for part in parts for length in part.lengths] == [len(one) for one in tokens]
    for token in {*(token for one in tokens for token in one), "zzz"}:
        found = {}
        for i, part in enumerate(parts):
            rows, counts = part.find(token.encode())
            found |= {i * size + int(row): int(count) for row, count in zip(rows, counts, strict=True)}
        assert found == {i: one.count(token) for i, one in enumerate(tokens) if token in one}


def test_a_file_is_the_segment_or_refused(tmp_path: Path) -> None:
    (segment,) = segments(enumerate(["one two", None, "two two three", ""]))
    path = tmp_path / "s"
    with path.open("wb") as stream:
        crc = segment.write(stream)
    opened = Segment.open(path, segment.shape, crc)
    for name in Segment.__slots__:
        assert np.array_equal(getattr(opened, name), getattr(segment, name)), name
    rows, terms, pairs, letters = segment.shape
    for shape in ((rows + 1, terms, pairs, letters), (rows, terms, pairs, letters - 1), (-1, terms, pairs, letters)):
        with pytest.raises(ValueError):
            Segment.open(path, shape, crc)
    raw = path.read_bytes()
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])
        with pytest.raises(ValueError, match="not what was written"):
            Segment.open(path, segment.shape, crc)


@given(st.lists(st.integers(0, 30), unique=True).map(sorted), st.lists(st.integers(0, 30), unique=True).map(sorted))
def test_places(sequence: list[int], wanted: list[int]) -> None:
    found = places(np.array(sequence, np.int64), np.array(wanted, np.int64))
    assert found.tolist() == [sequence.index(one) if one in sequence else -1 for one in wanted]
