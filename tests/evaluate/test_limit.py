"""LIMIT's free embeddings and the vectors that need no optimiser, by brute force, linear programs and theory."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from nextvec.evaluate import limit
from nextvec.evaluate.limit import (
    PAPER,
    FreeSettings,
    critical_n,
    curve,
    fit_cubic,
    least_width,
    optimise_free,
)
from nextvec.evaluate.limit_exact import (
    all_subsets,
    circle_embeddings,
    margins,
    moment_documents,
    moment_query,
    moment_realised,
    realised,
)
from nextvec.types import InputError

QUICK = FreeSettings(max_steps=1500, patience=300)


def separable(documents: np.ndarray, subset: tuple[int, ...]) -> bool:
    """Whether any query at all puts ``subset`` first: a linear program, q (v_i - v_j) >= 1 for i inside, j outside."""
    others = [j for j in range(len(documents)) if j not in subset]
    differences = np.array([documents[j] - documents[i] for i in subset for j in others])
    free = [(None, None)] * documents.shape[1]
    return linprog(np.zeros(documents.shape[1]), differences, -np.ones(len(differences)), bounds=free).status == 0


# ---------------------------------------------------------------- the measure


def test_margins_by_hand() -> None:
    documents = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    queries = [[1.0, 0.5], [0.0, 1.0], [0.0, 1.0]]
    assert margins(queries, documents, [[0, 1], [1, 0], [0, 2]]).tolist() == [1.5, 0.0, -1.0]


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 7), st.integers(1, 3), st.integers(0, 10**6))
def test_a_positive_margin_is_a_right_top_k(n: int, k: int, seed: int) -> None:
    k = min(k, n - 1)
    generator = np.random.default_rng(seed)
    wanted = all_subsets(n, k)
    queries, documents = generator.normal(size=(len(wanted), 3)), generator.normal(size=(n, 3))
    own = margins(queries, documents, wanted)
    for query, subset, margin in zip(queries, wanted, own, strict=True):
        best = np.argsort(-(documents @ query))[:k]
        assert (margin > 0) == (set(best.tolist()) == set(subset.tolist()))


def test_margins_refuse_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="fewer than all"):
        margins(np.ones((1, 2)), np.ones((2, 2)), [[0, 1]])
    with pytest.raises(InputError, match=r"expected \[Q, d\]"):
        margins(np.ones((1, 2)), np.ones((2, 3)), [[0]])
    with pytest.raises(InputError, match="subsets of 3 of 2"):
        all_subsets(2, 3)


def test_least_width_is_the_papers_table() -> None:
    table = {10**3: [6, 23, 135], 10**5: [10, 42, 329, 2334], 10**7: [14, 61, 521, 4257], 10**9: [17, 81, 713, 6177]}
    for n, expected in table.items():
        assert [least_width(n, k, 0.1) for k in (2, 10, 100, 1000)[: len(expected)]] == expected
    with pytest.raises(InputError, match="margin=0"):
        least_width(10, 2, 0)


# ---------------------------------------------------------------- free embeddings


def test_the_written_gradient_is_autograds() -> None:
    wanted = torch.from_numpy(all_subsets(5, 2))
    generator = torch.Generator().manual_seed(3)
    both = torch.randn(15, 3, generator=generator)
    both = (both / both.norm(dim=1, keepdim=True)).requires_grad_()
    adam = torch.optim.Adam([both], lr=0.01)
    for _ in range(10):
        scores = both[:10] @ both[10:].T / 0.1
        loss = -scores.log_softmax(1).gather(1, wanted).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            both /= both.norm(dim=1, keepdim=True)
    scores = both[:10] @ both[10:].T / 0.1
    found = optimise_free(wanted.numpy(), 5, 3, seed=3, settings=FreeSettings(max_steps=10))
    assert found.steps == 10
    assert found.loss == pytest.approx(-scores.log_softmax(1).gather(1, wanted).mean().item(), rel=1e-5)
    np.testing.assert_allclose(found.queries, both[:10].detach(), atol=1e-5)
    np.testing.assert_allclose(found.documents, both[10:].detach(), atol=1e-5)


def test_what_is_solved_is_solved() -> None:
    wanted = all_subsets(8, 2)
    found = optimise_free(wanted, 8, 4)
    assert found.solved and found.share == 1 and found.steps % 50 == 0
    for query, subset in zip(found.queries, wanted, strict=True):
        assert set(np.argsort(-(found.documents @ query))[:2].tolist()) == set(subset.tolist())
    np.testing.assert_allclose(np.linalg.norm(found.queries, axis=1), 1, atol=1e-5)
    assert least_width(8, 2, found.margin / 2) <= 4  # the theorem
    again = optimise_free(wanted, 8, 4)
    assert np.array_equal(again.documents, found.documents)
    assert not np.array_equal(optimise_free(wanted, 8, 4, seed=1).documents, found.documents)


def test_longer_training_lowers_the_loss() -> None:
    short, long = (optimise_free(all_subsets(9, 2), 9, 3, settings=FreeSettings(max_steps=steps)) for steps in (5, 500))
    assert long.loss < short.loss and long.share > short.share


@pytest.mark.parametrize(("dim", "most"), [(2, 3), (3, 4)])
def test_below_four_dimensions_theory_knows_the_answer(dim: int, most: int) -> None:
    """d + 1 documents for k = 2: a simplex has them all; of d + 2 on a sphere two segments or more cross (Radon)."""
    found = [critical_n(dim, seed=seed, settings=QUICK, sweep=2) for seed in (0, 1, 2)]
    assert max(run.n for run in found) == most
    assert all(run.n <= most for run in found)
    run = found[0]
    assert [tried["n"] for tried in run.tried] == sorted({tried["n"] for tried in run.tried})
    assert all(0 <= tried["share"] <= 1 and tried["solved"] == (tried["margin"] > 0) for tried in run.tried)


def test_four_dimensions() -> None:
    run = critical_n(4, settings=QUICK, sweep=1)
    assert 6 <= run.n <= 12
    assert run.n == max(tried["n"] for tried in run.tried if tried["solved"])


def test_more_relevant_documents() -> None:
    assert optimise_free(all_subsets(6, 3), 6, 8).solved
    assert critical_n(2, k=1, settings=QUICK, sweep=1).n > 8  # one relevant document needs two dimensions, for any n


def test_free_embeddings_refuse_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="names document 3 of 3"):
        optimise_free([[0, 3]], 3, 2)
    with pytest.raises(InputError, match="names document -1"):
        optimise_free([[0, -1]], 3, 2)
    with pytest.raises(InputError, match="1 <= k < 2"):
        optimise_free([[0, 1]], 2, 2)
    with pytest.raises(InputError, match="at least 1"):
        optimise_free([[0, 1]], 3, 2, settings=FreeSettings(max_steps=0))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_five_points_in_space_leave_a_pair_out(seed: int) -> None:
    """Radon, by an independent linear program: no query exists for some pair, whatever the five unit documents."""
    documents = np.random.default_rng(seed).normal(size=(5, 3))
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    assert not all(separable(documents, pair) for pair in itertools.combinations(range(5), 2))


def test_length_makes_room_for_one_more() -> None:
    """The bound n <= d + k is met without unit length: a tetrahedron and its centre, whose pairs all exist."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    documents = np.vstack([corners, np.zeros(3)])
    assert all(separable(documents, pair) for pair in itertools.combinations(range(5), 2))
    six = np.vstack([documents, [0.3, 0.2, -0.1]])
    assert not all(separable(six, pair) for pair in itertools.combinations(range(6), 2))


def test_the_linear_program_agrees_with_what_was_built() -> None:
    _, documents = circle_embeddings(9, all_subsets(9, 2))
    assert all(separable(documents, pair) for pair in itertools.combinations(range(9), 2))
    assert not separable(documents[:, :2], (0, 4))


# ---------------------------------------------------------------- vectors that need no optimiser


def test_moment_query_by_hand() -> None:
    assert moment_documents(3, 1) == [(0, 0), (1, 1), (2, 4)]
    assert moment_query([3]) == (6, -1)  # -(t - 3)^2 = -9 + 6 t - t^2
    assert moment_query([1, 2]) == (12, -13, 6, -1)  # -(t^2 - 3 t + 2)^2


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(1, 3))
def test_every_subset_exists_in_twice_k_dimensions(n: int, k: int) -> None:
    k = min(k, n - 1)
    assert moment_realised(n, k) == math.comb(n, k)
    wanted = all_subsets(n, k)
    queries, documents = circle_embeddings(n, wanted)
    np.testing.assert_allclose(np.linalg.norm(documents, axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1)
    own = margins(queries, documents, wanted)
    assert (own > 0).all()
    assert least_width(n, k, float(own.min()) / 2) <= 2 * k  # and the theorem on margins is kept


@pytest.mark.parametrize("k", [1, 2, 3])
def test_one_dimension_fewer_is_not_enough(k: int) -> None:
    """The control: the same check, with the last coordinate taken away, fails."""
    assert moment_realised(9, k, dim=2 * k - 1) < math.comb(9, k)
    wanted = all_subsets(9, k)
    queries, documents = circle_embeddings(9, wanted)
    assert (margins(queries[:, : 2 * k - 1], documents[:, : 2 * k - 1], wanted) <= 0).any()


def test_a_polynomial_has_its_roots_where_it_was_told() -> None:
    queries, documents = circle_embeddings(12, [[2, 7]])
    scores = documents @ queries[0]
    assert scores[2] == pytest.approx(scores[7], abs=1e-12)
    angles = 2 * np.pi * np.arange(12) / 12
    expected = -(1 - np.cos(angles - angles[2])) * (1 - np.cos(angles - angles[7]))
    assert np.corrcoef(scores, expected)[0, 1] == pytest.approx(1, abs=1e-12)


def test_existence_beyond_what_descent_finds() -> None:
    found = realised(60, 2)
    assert (found.dim, found.queries, found.exact, found.share_float64) == (4, 1770, 1770, 1.0)
    assert found.documents > 2 * PAPER[4]
    assert found.margin < realised(20, 2).margin / 50  # n^-4: 3^4 = 81


def test_float32_is_where_it_ends() -> None:
    """Neighbouring pairs of 1,000 documents, the hardest: right in float64, some wrong once stored in float32."""
    pairs = [[i, i + 1] for i in range(999)]
    queries, documents = circle_embeddings(1000, pairs)
    assert (margins(queries, documents, pairs) > 0).all()
    assert (margins(queries.astype(np.float32), documents.astype(np.float32), pairs) <= 0).any()


def test_the_construction_refuses_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="below 5"):
        circle_embeddings(5, [[1, 5]])
    with pytest.raises(InputError, match="has 1 to 4 coordinates"):
        moment_realised(5, 2, dim=5)
    with pytest.raises(InputError, match="expected 1 <= k < documents"):
        moment_documents(2, 2)


# ---------------------------------------------------------------- the curve


def test_the_cubic_is_the_papers() -> None:
    fit = fit_cubic(list(PAPER), list(PAPER.values()))
    assert fit.coefficients == pytest.approx((-10.5322, 4.0309, 0.0520, 0.0037), abs=1e-4)
    assert fit.r2 == pytest.approx(0.9986, abs=1e-4)
    assert [round(fit.at(dim) / 1e6, 1) for dim in (512, 768, 1024)] == [0.5, 1.7, 4.0]
    assert [round(fit.at(dim) / 1e6) for dim in (3072, 4096)] == [107, 253]


def test_the_cubic_of_a_cubic() -> None:
    dims = [2, 3, 5, 8, 9, 11]
    fit = fit_cubic(dims, [1 - 2 * d + 0.5 * d**2 + 0.25 * d**3 for d in dims])
    assert fit.coefficients == pytest.approx((1, -2, 0.5, 0.25))
    assert fit.r2 == pytest.approx(1)
    assert fit_cubic(dims, [3.0] * 6).coefficients == pytest.approx((3, 0, 0, 0), abs=1e-9)
    with pytest.raises(InputError, match="five different widths"):
        fit_cubic([1, 2, 3, 4, 4], [1, 2, 3, 4, 5])


def test_curve_and_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(dim: int, *, k: int, seed: int, **_: object) -> limit.Critical:
        return limit.Critical(dim, k, seed, 3 * dim + seed, ())

    monkeypatch.setattr(limit, "critical_n", searched)
    monkeypatch.setattr(limit, "realised", lambda n, k: realised(min(n, 10), k))  # test_command has them all
    found = curve([3, 4, 5, 6, 7, 8], [0, 1])
    assert [row["mean"] for row in found["curve"]] == [3 * d + 0.5 for d in range(3, 9)]
    assert found["curve"][1]["paper"] == 10 and found["curve"][0]["paper"] is None
    assert found["fit"]["extrapolated"]["512"] == pytest.approx(1536.5)
    assert curve([3, 4, 5, 6, 7], [0])["fit"] is None  # four widths from 2 k on
    with pytest.raises(InputError, match="at least one width"):
        curve([], [0])


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "limit.json"
    limit.main(["--dims", "2", "--seeds", "0", "--max-steps", "300", "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["curve"][0]["critical_n"] == {"0": 3}
    assert found["settings"]["max_steps"] == 300
    assert [row["exact"] for row in found["existence"]] == [45, 1225, 19900]
    assert "width 2: n {'0': 3}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="at least 1"):
        limit.main(["--dims", "0", "--out", str(out)])
    assert json.loads(out.read_text()) == found
