"""Mining of hard negatives against a brute-force reference, ties included; what is never returned; complaints."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from nextvec.data import mining
from nextvec.data.mining import fill_random, mine
from nextvec.types import InputError


def candidates(
    queries: np.ndarray,
    documents: np.ndarray,
    positives: Sequence[Sequence[int]],
    i: int,
    *,
    rank: tuple[int, int | None] = (0, None),
    share: float | None = None,
    margin: float | None = None,
    query_keys: Sequence[str] | None = None,
    document_keys: Sequence[str] | None = None,
) -> list[int]:
    """All documents that satisfy the rules for query i, best first: a sort of everything, one document at a time."""
    scores = [float(queries[i] @ row) for row in documents]
    own = set(positives[i])
    keys = {document_keys[j] for j in own} if document_keys else set()
    keys |= {query_keys[i]} if query_keys else set()
    ranked = sorted(range(len(documents)), key=lambda j: (-scores[j], j))
    ranked = [j for j in ranked if j not in own and not (document_keys and document_keys[j] in keys)]
    ranked = ranked[rank[0] : rank[1]]
    if share is not None:
        limit = min(scores[j] - (1 - share) * abs(scores[j]) for j in own)
        ranked = [j for j in ranked if scores[j] < limit]
    if margin is not None:
        ranked = [j for j in ranked if scores[j] < min(scores[p] for p in own) - margin]
    return ranked


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[list[int]], int, dict[str, Any]]:
    """Few small whole numbers, so that scores are exact and many are equal."""
    width, many, few = draw(st.integers(1, 3)), draw(st.integers(1, 14)), draw(st.integers(1, 5))
    numbers = st.integers(-2, 2)
    vectors = [
        np.array(draw(st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=n, max_size=n)))
        for n in (few, many)
    ]
    options: dict[str, Any] = {
        "share": draw(st.sampled_from([None, 0.5, 0.75, 1.0, 1.5])),
        "margin": draw(st.sampled_from([None, -1.0, 0.0, 0.5, 2.0])),
    }
    limited = options["share"] is not None or options["margin"] is not None
    document = st.integers(0, many - 1)
    positives = draw(st.lists(st.lists(document, min_size=int(limited), max_size=3), min_size=few, max_size=few))
    k = draw(st.integers(1, many))
    begin = draw(st.integers(0, many - 1))
    options["rank"] = (begin, draw(st.one_of(st.none(), st.integers(begin + k, many + k + begin))))
    if draw(st.booleans()):
        options["document_keys"] = draw(st.lists(st.sampled_from("abcdef"), min_size=many, max_size=many))
        if draw(st.booleans()):
            options["query_keys"] = draw(st.lists(st.sampled_from("abcxyz"), min_size=few, max_size=few))
    return vectors[0], vectors[1], positives, k, options


@settings(max_examples=examples(120, 800), deadline=None)
@given(cases(), st.integers(1, 4), st.integers(1, 6))
def test_the_best_are_those_of_a_whole_sort(case: Any, rows: int, columns: int) -> None:
    queries, documents, positives, k, options = case
    with mock.patch.multiple(mining, _QUERIES=rows, _DOCUMENTS=columns):
        found = mine(queries, documents, positives, k, normalise=False, **options)
    assert (found.dtype, found.shape) == (np.int64, (len(queries), k))
    for i, row in enumerate(found.tolist()):
        expected = candidates(queries, documents, positives, i, **options)[:k]
        assert row == expected + [-1] * (k - len(expected))


@settings(max_examples=examples(80, 400), deadline=None)
@given(cases(), st.integers(1, 4), st.integers(1, 6), st.integers(0, 3))
def test_a_choice_by_chance_is_from_the_same_candidates(case: Any, rows: int, columns: int, seed: int) -> None:
    queries, documents, positives, k, options = case
    if options["rank"][1] is None:
        options["rank"] = (options["rank"][0], options["rank"][0] + len(documents) + k)
    whole = mine(queries, documents, positives, k, normalise=False, seed=seed, **options)
    with mock.patch.multiple(mining, _QUERIES=rows, _DOCUMENTS=columns):
        found = mine(queries, documents, positives, k, normalise=False, seed=seed, **options)
    assert np.array_equal(found, whole)
    for i, row in enumerate(found.tolist()):
        possible = candidates(queries, documents, positives, i, **options)
        taken = [j for j in row if j >= 0]
        assert len(taken) == min(k, len(possible)) == len(set(taken))
        assert row == sorted(taken, key=possible.index) + [-1] * (k - len(taken))


def test_every_candidate_of_the_window_is_drawn_as_often() -> None:
    documents = -np.arange(12.0)[:, None]
    queries, positives = np.ones((4000, 1)), [[0]] * 4000
    found = mine(queries, documents, positives, 2, rank=(3, 8), seed=1, normalise=False)
    times = np.bincount(found.ravel(), minlength=12)
    assert times[:4].sum() + times[9:].sum() == 0  # ranks 3 to 7 without document 0: 4 to 8
    assert abs(times[4:9] - 1600).max() < 150
    other = mine(queries, documents, positives, 2, rank=(3, 8), seed=2, normalise=False)
    assert not np.array_equal(found, other)


def test_cosines_and_dot_products() -> None:
    documents = np.array([[1.0, 0.0], [10.0, 10.0], [0.9, 0.1]])
    assert mine([[2.0, 0.0]], documents, [[]], 3).tolist() == [[0, 2, 1]]
    assert mine([[2.0, 0.0]], documents, [[]], 3, normalise=False).tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1.0, 1e30])
def test_the_length_of_a_vector_does_not_matter_to_cosines(size: float) -> None:
    rng = np.random.default_rng(0)
    queries, documents = rng.normal(size=(5, 8)), rng.normal(size=(40, 8))
    plain = mine(queries, documents, [[0]] * 5, 6, share=0.9)
    if size > 1e-38:  # below, float32 keeps too few digits of a value to compare orders
        assert np.array_equal(mine(queries * size, documents * size, [[0]] * 5, 6, share=0.9), plain)
    scaled = mine(queries * size, documents, [[0]] * 5, 40)
    assert np.array_equal(np.sort(scaled[:, :39], axis=1), np.tile(np.arange(1, 40), (5, 1)))


def test_random_vectors_in_many_blocks() -> None:
    """Scores of what is found are the largest there are, to the rounding of float32."""
    rng = np.random.default_rng(3)
    queries, documents = (rng.normal(size=(n, 16)) for n in (70, 900))
    positives = [rng.choice(900, 3, replace=False).tolist() for _ in range(70)]
    with mock.patch.multiple(mining, _QUERIES=32, _DOCUMENTS=128):
        found = mine(queries, documents, positives, 20, share=0.95)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, documents)]
    scores = unit[0] @ unit[1].T
    assert (found >= 0).sum() > 500
    for i, row in enumerate(found):
        lowest = scores[i, positives[i]].min()
        allowed = np.delete(scores[i], positives[i])
        allowed = np.sort(allowed[allowed < lowest - 0.05 * abs(lowest)])[::-1]
        got = scores[i, row[row >= 0]]
        np.testing.assert_allclose(got, allowed[: len(got)], atol=1e-6)
        assert len(got) == min(20, len(allowed))


def test_planted_answers_are_kept_out() -> None:
    """Unmarked answers score like the positive: top-k returns them, a share of the positive's score does not."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(30, 24))
    near, hard = (np.repeat(topics, n, axis=0) + s * rng.normal(size=(30 * n, 24)) for n, s in ((3, 0.1), (5, 0.9)))
    documents = np.concatenate([near, hard])  # of each topic a positive, two unmarked answers and five hard negatives
    positives = [[3 * i] for i in range(30)]
    naive = mine(topics, documents, positives, 4)
    safe = mine(topics, documents, positives, 4, share=0.95)
    answers = [{3 * i + 1, 3 * i + 2} for i in range(30)]
    assert all(own <= set(row) for own, row in zip(answers, naive.tolist(), strict=True))
    assert not any(own & set(row) for own, row in zip(answers, safe.tolist(), strict=True))
    hard_found = np.mean([[90 + 5 * i <= j < 95 + 5 * i for j in row] for i, row in enumerate(safe.tolist())])
    assert hard_found > 0.95


def test_texts_like_a_positive_or_the_query_are_kept_out() -> None:
    documents = np.array([[1.0], [0.9], [0.8], [0.7], [0.6]])
    texts = ["answer", "answer", "question", "other", "more"]
    assert mine([[1.0]], documents, [[0]], 2, normalise=False).tolist() == [[1, 2]]
    found = mine([[1.0]], documents, [[0]], 2, normalise=False, document_keys=texts)
    assert found.tolist() == [[2, 3]]
    found = mine([[1.0]], documents, [[0]], 2, normalise=False, document_keys=texts, query_keys=["question"])
    assert found.tolist() == [[3, 4]]


def test_memory_holds_blocks_of_scores_and_never_all() -> None:
    rng = np.random.default_rng(0)
    queries, documents = (rng.normal(size=(n, 2)).astype(np.float32) for n in (2000, 3000))
    with mock.patch.multiple(mining, _QUERIES=50, _DOCUMENTS=200):
        tracemalloc.start()
        mine(queries, documents, [[0]] * 2000, 5, share=0.9)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2000 * 3000 * 4 / 8


def test_progress_is_reported() -> None:
    seen: list[tuple[int, int | None]] = []
    with mock.patch.object(mining, "_QUERIES", 2):
        mine(np.eye(5), np.eye(5), [[i] for i in range(5)], 2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


# ------------------------------------------------------------------ filling up


@settings(max_examples=examples(80, 400), deadline=None)
@given(cases(), st.integers(0, 5))
def test_filling_keeps_what_was_mined_and_adds_no_positives(case: Any, seed: int) -> None:
    queries, documents, positives, k, options = case
    mined = mine(queries, documents, positives, k, normalise=False, **options)
    keys = {name: options[name] for name in ("document_keys", "query_keys") if name in options}
    allowed = [set(candidates(queries, documents, positives, i, **keys)) for i in range(len(queries))]
    fill = {"seed": seed, **keys}
    short = [i for i, own in enumerate(allowed) if len(own) < k]
    if short:
        with pytest.raises(InputError, match=f"query {short[0]} needs .* more negatives"):
            fill_random(mined, len(documents), positives, **fill)
        return
    filled = fill_random(mined, len(documents), positives, **fill)
    assert np.array_equal(filled[mined >= 0], mined[mined >= 0])
    for row, own in zip(filled.tolist(), allowed, strict=True):
        assert len(set(row)) == k
        assert set(row) <= own
    assert np.array_equal(filled, fill_random(mined, len(documents), positives, **fill))


def test_filling_draws_evenly() -> None:
    mined = np.full((6000, 2), -1)
    mined[:, 0] = 4
    filled = fill_random(mined, 8, [[0, 6]] * 6000, seed=0)
    times = np.bincount(filled[:, 1], minlength=8)
    assert times[[0, 4, 6]].sum() == 0
    assert abs(times[[1, 2, 3, 5, 7]] - 1200).max() < 150


# ------------------------------------------------------------------ complaints


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": 5}, "5 negatives asked for, of 4 documents; expected 1 to 4"),
        ({"k": 0}, "0 negatives asked for"),
        ({"queries": np.ones((2, 2))}, "queries are 2 wide and documents 3"),
        ({"queries": np.ones(3)}, r"queries is \[3\]; expected vectors"),
        ({"documents": np.ones((0, 3))}, r"documents is \[0, 3\]; expected vectors"),
        ({"queries": np.array([[1, 1, 1], [1, np.nan, 1]])}, r"queries: row 1 has a value that is not finite"),
        ({"documents": np.array([[1, 1, np.inf]])}, r"documents: row 0 has a value that is not finite"),
        ({"queries": np.full((2, 3), 1e30), "documents": np.full((4, 3), 1e30), "normalise": False}, "scale them"),
        ({"positives": [[0]]}, "1 lists of positives for 2 queries"),
        ({"positives": [[0], [4]]}, r"the positives of query 1 are \[4\]; expected numbers 0 to 3"),
        ({"positives": [[-1], [0]]}, "the positives of query 0"),
        ({"positives": [[0.5], [0]]}, "expected a list of document numbers"),
        ({"positives": [[0], []], "share": 0.9}, "query 1 has no positives"),
        ({"positives": [[], [0]], "margin": 0.1}, "query 0 has no positives"),
        ({"share": 0.0}, "share is 0.0; expected a positive number"),
        ({"margin": np.nan}, "margin is nan; expected a finite number"),
        ({"rank": (-1, None)}, "at least 2 ranks between them"),
        ({"rank": (1, 2)}, "at least 2 ranks between them"),
        ({"rank": (4, None)}, "4 documents have no rank 4"),
        ({"seed": 0}, "the ranks to draw from"),
        ({"query_keys": ["a", "b"]}, "give both, or document_keys alone"),
        ({"document_keys": ["a"]}, "1 document_keys for 4 documents; expected one for each"),
        ({"document_keys": list("abcd"), "query_keys": ["a"]}, "and 1 query_keys for 2 queries"),
    ],
)
def test_wrong_use_is_told(changed: dict[str, Any], message: str) -> None:
    given = {"queries": np.ones((2, 3)), "documents": np.eye(4, 3), "positives": [[0], [1]], "k": 2}
    assert mine(**given).shape == (2, 2)
    with pytest.raises(InputError, match=message):
        mine(**{**given, **changed})


def test_filling_what_was_not_mined_is_told() -> None:
    for mined in ([[4]], [[-2]], [1]):
        with pytest.raises(InputError, match=r"expected \[Q, k\] numbers of 4 documents, or -1"):
            fill_random(mined, 4, [[0]], seed=0)
