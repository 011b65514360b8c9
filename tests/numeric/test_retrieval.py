"""Retrieval measures against cases worked out by hand, and intervals against what is known of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextvec.evaluate.lexical import bm25_ranks
from nextvec.evaluate.retrieval import (
    bootstrap,
    dense_ranks,
    mrr,
    ndcg,
    paired_bootstrap,
    ranks_from_lists,
    recall,
    single_relevant,
    summarise,
)
from nextvec.types import InputError

LISTS = [["a", "b", "c", "d"], ["b", "a"], ["d", "c"]]
RELEVANT = [{"b", "d"}, {"b"}, {"x", "y"}]
COUNTS = [2, 1, 2]


def test_measures_worked_out_by_hand() -> None:
    ranks = ranks_from_lists(LISTS, RELEVANT)
    assert ranks == [[2, 4], [1], []]
    assert recall(ranks, COUNTS, 1).tolist() == [0, 1, 0]
    assert recall(ranks, COUNTS, 2).tolist() == [0.5, 1, 0]
    assert recall(ranks, COUNTS, 4).tolist() == [1, 1, 0]
    assert mrr(ranks, 10).tolist() == [0.5, 1, 0]
    assert mrr(ranks, 1).tolist() == [0, 1, 0]
    best = 1 / math.log2(2) + 1 / math.log2(3)
    assert ndcg(ranks, COUNTS, 10) == pytest.approx([(1 / math.log2(3) + 1 / math.log2(5)) / best, 1, 0])
    assert ndcg(ranks, COUNTS, 3) == pytest.approx([1 / math.log2(3) / best, 1, 0])
    assert ndcg([[1, 2]], [5], 2).tolist() == [1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_single_relevant_agrees_with_the_general_measures(places: list[int]) -> None:
    short = single_relevant(places)
    ranks = [[place] for place in places]
    ones = [1] * len(places)
    assert short["recall@1"].tolist() == recall(ranks, ones, 1).tolist()
    assert short["recall@10"].tolist() == recall(ranks, ones, 10).tolist()
    assert short["mrr@10"] == pytest.approx(mrr(ranks, 10))
    assert short["ndcg@10"] == pytest.approx(ndcg(ranks, ones, 10))


def test_dense_ranks_equal_sorting() -> None:
    generator = np.random.default_rng(0)
    queries = generator.normal(size=(37, 5)).astype(np.float32)
    documents = generator.normal(size=(50, 5)).astype(np.float32)
    targets = generator.integers(0, 50, 37)
    order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")
    expected = [int(np.flatnonzero(row == target)[0]) + 1 for row, target in zip(order, targets, strict=True)]
    assert dense_ranks(queries, documents, targets, block=10).tolist() == expected


def test_ties_are_broken_by_position() -> None:
    documents = np.ones((4, 2), np.float32)
    assert dense_ranks(np.ones((2, 2), np.float32), documents, [0, 2]).tolist() == [1, 3]


def test_bm25_finds_the_document_with_the_rare_word() -> None:
    documents = ["the cat sat on the mat", "a dog and a cat", "zebras run", "mats and dogs"]
    assert bm25_ranks(["zebras", "dog", "unheard"], documents, [2, 1, 0], k=2).tolist()[:2] == [1, 1]


def test_bootstrap_covers_and_repeats() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.2, 400)
    interval = bootstrap(values, samples=500)
    assert interval == bootstrap(values, samples=500)
    assert interval.low < interval.mean < interval.high
    # The normal approximation: 1.96 standard errors on either side.
    error = values.std() / math.sqrt(len(values))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert bootstrap([1.0] * 5).as_dict() == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_paired_bootstrap_sees_what_two_intervals_do_not() -> None:
    generator = np.random.default_rng(4)
    hardness = generator.normal(0, 1, 300)
    one, two = hardness + 0.1, hardness + generator.normal(0, 0.1, 300)
    assert bootstrap(one).low < bootstrap(two).high
    difference = paired_bootstrap(one, two)
    assert 0 < difference.low < 0.1 < difference.high + 0.03
    assert paired_bootstrap(one, one).as_dict() == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_summarise() -> None:
    summary = summarise(single_relevant([1, 1, 20, 2]))
    assert summary["recall@1"]["mean"] == 0.5
    assert summary["mrr@10"]["mean"] == 0.625


def test_wrong_use_is_told() -> None:
    with pytest.raises(InputError, match="non-empty"):
        bootstrap([])
    with pytest.raises(InputError, match="one shape"):
        paired_bootstrap([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="one target per query"):
        dense_ranks(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), [0])
    with pytest.raises(InputError, match="one target per query"):
        bm25_ranks(["a"], ["a"], [0, 0])
    with pytest.raises(InputError, match="ranked lists"):
        ranks_from_lists([["a"]], [])
