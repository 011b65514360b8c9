"""Graded retrieval measures: by hand, beside a reference written from the definitions, and beside trec_eval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextvec.evaluate.graded import graded_measures, top_documents
from nextvec.types import InputError

NAMES = ("ndcg@1", "ndcg@5", "ndcg@10", "recall@5", "recall@10", "precision@5", "mrr@10", "map@10")


def reference(order: list[int], gains: dict[int, int], name: str) -> float:
    """One query, one place after another."""
    kind, at = name.split("@")
    k, relevant = int(at), [gain for gain in gains.values() if gain > 0]
    total, hits, first = 0.0, 0, 0.0
    for place, document in enumerate(order[:k], 1):
        gain = gains.get(document, 0)
        if gain <= 0:
            continue
        hits += 1
        first = first or 1 / place
        total += {"ndcg": gain / math.log2(1 + place), "map": hits / place}.get(kind, 1.0)
    if kind == "mrr":
        return first
    if kind == "ndcg":
        return total / sum(g / math.log2(i + 2) for i, g in enumerate(sorted(relevant, reverse=True)[:k]))
    return total / (k if kind == "precision" else len(relevant))


def test_by_hand() -> None:
    # Gains 3, 0, 1 found; one of gain 2 is missed.
    found = graded_measures(np.array([[7, 1, 4]]), [{7: 3, 4: 1, 9: 2}], ("ndcg@3", "recall@3", "map@3", "precision@2"))
    best = 3 + 2 / math.log2(3) + 1 / 2
    assert found["ndcg@3"][0] == pytest.approx((3 + 1 / 2) / best)
    assert found["recall@3"][0] == pytest.approx(2 / 3)
    assert found["map@3"][0] == pytest.approx((1 + 2 / 3) / 3)
    assert found["precision@2"][0] == 0.5
    assert graded_measures(np.array([[5, 7, -1]]), [{7: 3}], ("mrr@10", "mrr@1")) == {"mrr@10": [0.5], "mrr@1": [0]}


def test_a_negative_judgement_is_none() -> None:
    one = graded_measures(np.array([[1, 2]]), [{1: -1, 2: 1}], NAMES)
    assert one == graded_measures(np.array([[1, 2]]), [{2: 1}], NAMES)


Judged = st.dictionaries(st.integers(0, 11), st.integers(0, 4), min_size=1).filter(lambda own: any(own.values()))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.permutations(range(12)), Judged), min_size=1, max_size=5), st.integers(1, 12))
def test_beside_the_reference(queries: list[tuple[list[int], dict[int, int]]], width: int) -> None:
    ranked = np.array([order[:width] for order, _ in queries])
    measured = graded_measures(ranked, [gains for _, gains in queries], NAMES)
    for name, values in measured.items():
        wanted = [reference(order[:width], gains, name) for order, gains in queries]
        np.testing.assert_allclose(values, wanted, atol=1e-12)
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(12)), Judged, st.integers(0, 10))
def test_moving_a_better_document_up_never_hurts(order: list[int], gains: dict[int, int], place: int) -> None:
    swapped = list(order)
    swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
    one, two = (graded_measures(np.array([own]), [gains], NAMES) for own in (order, swapped))
    if gains.get(order[place + 1], 0) > gains.get(order[place], 0):
        assert all(two[name][0] >= one[name][0] - 1e-12 for name in NAMES)


def random_run() -> tuple[list[list[int]], list[dict[int, int]]]:
    rng = np.random.default_rng(0)
    orders = [rng.permutation(40).tolist() for _ in range(30)]
    gains = [{int(i): int(rng.integers(1, 4)) for i in rng.choice(40, rng.integers(1, 9))} for _ in range(30)]
    return orders, gains


def test_beside_pytrec_eval() -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    orders, gains = random_run()
    judged = {f"q{i}": {f"d{j}": gain for j, gain in own.items()} for i, own in enumerate(gains)}
    run = {f"q{i}": {f"d{j}": float(-place) for place, j in enumerate(order)} for i, order in enumerate(orders)}
    names = {"ndcg@10": "ndcg_cut_10", "recall@5": "recall_5", "precision@5": "P_5", "map@10": "map_cut_10"}
    theirs = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut", "recall", "P", "map_cut"}).evaluate(run)
    ours = graded_measures(np.array(orders), gains, tuple(names))
    for name, known in names.items():
        np.testing.assert_allclose(ours[name], [theirs[f"q{i}"][known] for i in range(30)], atol=1e-6)


def test_beside_ir_measures() -> None:
    ir_measures = pytest.importorskip("ir_measures")
    orders, gains = random_run()
    judged = [ir_measures.Qrel(f"q{i}", f"d{j}", gain) for i, own in enumerate(gains) for j, gain in own.items()]
    run = [
        ir_measures.ScoredDoc(f"q{i}", f"d{j}", -place) for i, own in enumerate(orders) for place, j in enumerate(own)
    ]
    ours = graded_measures(np.array(orders), gains, ("ndcg@10", "mrr@10", "recall@5"))
    for name, known in (("ndcg@10", "nDCG@10"), ("mrr@10", "RR@10"), ("recall@5", "R@5")):
        theirs = {m.query_id: m.value for m in ir_measures.iter_calc([ir_measures.parse_measure(known)], judged, run)}
        np.testing.assert_allclose(ours[name], [theirs[f"q{i}"] for i in range(30)], atol=1e-6)


def test_ndcg_beside_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    orders, gains = random_run()
    truth = np.array([[own.get(j, 0) for j in range(40)] for own in gains])
    scores = np.array([[-order.index(j) for j in range(40)] for order in orders])
    ours = graded_measures(np.array(orders), gains, ("ndcg@10",))["ndcg@10"]
    assert ours.mean() == pytest.approx(metrics.ndcg_score(truth, scores, k=10), abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 17, 60])
def test_top_documents_equal_sorting(k: int) -> None:
    rng = np.random.default_rng(1)
    queries = rng.integers(-2, 3, (23, 4)).astype(np.float32)  # many equal scores
    documents = rng.integers(-2, 3, (50, 4)).astype(np.float32)
    wanted = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(top_documents(queries, documents, k, block=10), wanted)


def test_what_is_passed_over() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert top_documents(vectors, vectors, 3, own=[0, -1, 2]).tolist() == [[1, 2, -1], [1, 0, 2], [0, 1, -1]]
    assert top_documents(vectors[:1], vectors, 1, own=[0]).tolist() == [[1]]


def test_wrong_use_is_told() -> None:
    vectors = np.ones((2, 2), np.float32)
    with pytest.raises(InputError, match="one width and k >= 1"):
        top_documents(vectors, np.ones((2, 3), np.float32), 1)
    with pytest.raises(InputError, match="vectors of the documents hold a value that is not finite"):
        top_documents(vectors, vectors * np.nan, 1)
    with pytest.raises(InputError, match="did you mean 'ndcg@10'"):
        graded_measures(np.zeros((1, 1), int), [{0: 1}], ["ncdg@10"])
    with pytest.raises(InputError, match="query 1 has no relevant document"):
        graded_measures(np.zeros((2, 1), int), [{0: 1}, {0: 0}], NAMES)
    with pytest.raises(InputError, match="2 ranked rows for the judgements of 1"):
        graded_measures(np.zeros((2, 1), int), [{0: 1}], NAMES)
