"""Packing: every token once, in its document, within the bounds; batches are full."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="batches need torch: pip install 'nextvec[hf]'")

from nextvec.data.packing import Packed, best_fit, fill_share, stream  # noqa: E402
from nextvec.types import InputError  # noqa: E402


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(20, 50))
def test_best_fit_places_everything_once_within_the_bound(lengths: list[int], tokens: int) -> None:
    groups = best_fit(lengths, tokens=tokens)
    assert sorted(i for group in groups for i in group.tolist()) == list(range(len(lengths)))
    used = [sum(lengths[i] for i in group) for group in groups]
    assert all(total <= tokens for total in used)
    # No two groups could be one: the second would have found room in the first.
    assert all(a + b > tokens or 0 in (a, b) for i, a in enumerate(used) for b in used[:i])


def naive_best_fit(lengths: list[int], tokens: int) -> list[int]:
    """The same rule, looking at every group for every example: how full each group gets."""
    used: list[int] = []
    for size in sorted(lengths, reverse=True):
        fitting = [total for total in used if total + size <= tokens]
        if fitting:
            used[used.index(max(fitting))] += size
        else:
            used.append(size)
    return sorted(used)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60), st.integers(20, 50))
def test_best_fit_equals_the_plain_rule(lengths: list[int], tokens: int) -> None:
    groups = best_fit(lengths, tokens=tokens)
    assert sorted(sum(lengths[i] for i in group) for group in groups) == naive_best_fit(lengths, tokens)


def test_best_fit_finds_the_perfect_packing_of_a_known_case() -> None:
    lengths = [6, 4, 7, 3, 5, 5, 10]
    groups = best_fit(lengths, tokens=10)
    assert len(groups) == 4 and fill_share(lengths, groups, tokens=10) == 1.0
    assert fill_share(lengths, groups, tokens=20) == 0.5
    for wrong in ([11], [-1]):
        with pytest.raises(InputError, match="to be packed into 10"):
            best_fit(wrong, tokens=10)


def test_packed_batches_are_fuller_than_greedy_ones_and_hold_all_examples() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 101, 2000)
    texts = [[i] * n for i, n in enumerate(lengths)]
    source = Packed({"text": texts}, tokens=200, seed=1, pool=500)
    assert Packed({"text": texts}, tokens=200, seed=1, pool=500).batch(40).ragged("text").values.tolist() == (
        source.batch(40).ragged("text").values.tolist()
    )
    seen: list[int] = []
    batches = 0
    while len(seen) < 2000:
        batch = source.batch(batches).ragged("text")
        assert len(batch.values) <= 200
        seen += [int(piece[0]) for piece in batch.values.split(batch.lengths.tolist())]
        batches += 1
    assert sorted(seen) == list(range(2000))
    assert lengths.sum() / (200 * batches) > 0.98
    assert seen != sorted(seen)


def runs(lengths: list[int], start: int, stop: int, longest: int) -> tuple[list[tuple[int, int]], list[int]]:
    """(document, place) of each token that the pieces cover, and the pieces' lengths."""
    documents, offsets, sizes = stream(np.cumsum(lengths), start, stop, longest=longest)
    covered = [(int(d), int(o) + i) for d, o, n in zip(documents, offsets, sizes, strict=True) for i in range(n)]
    return covered, sizes.tolist()


@settings(max_examples=200)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=15).filter(any), st.integers(1, 12), st.data())
def test_a_stream_of_pieces_covers_its_tokens_in_order(lengths: list[int], longest: int, data: st.DataObject) -> None:
    total = sum(lengths)
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start + 1, total))
    covered, sizes = runs(lengths, start, stop, longest)
    assert covered == [(d, i) for d, n in enumerate(lengths) for i in range(n)][start:stop]
    assert all(1 <= size <= longest for size in sizes)


def test_long_documents_are_cut_evenly() -> None:
    assert runs([13, 4], 0, 17, 12)[1] == [7, 6, 4]
    assert runs([13, 4], 1, 15, 5)[1] == [4, 4, 4, 2]
