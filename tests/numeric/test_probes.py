"""Linear probes against cases worked out by hand and an independent formula."""

from __future__ import annotations

import numpy as np
import pytest

from nextvec.evaluate.probes import fit_ridge, held_out_r2, r_squared
from nextvec.types import InputError


def test_r_squared_by_hand() -> None:
    # mean 2, spread 4 + 0 + 4 = 8; errors 1 + 0 + 1 = 2
    assert r_squared([0.0, 2.0, 4.0], [1.0, 2.0, 3.0]) == pytest.approx(0.75)
    assert r_squared([0.0, 2.0, 4.0], [2.0, 2.0, 2.0]) == 0
    assert r_squared([0.0, 2.0, 4.0], [4.0, 2.0, 0.0]) == -3
    # two outputs of very different scale weigh the same
    assert r_squared([[0, 0], [2, 200], [4, 400]], [[1, 0], [2, 200], [3, 400]]) == pytest.approx((0.75 + 1) / 2)


def test_ridge_by_hand() -> None:
    # x = -1, 0, 1 and y = 2 x + 5: variance of x is 2/3, so w = (4/3) / (2/3 + alpha 2/3) = 2 / (1 + alpha)
    for alpha in (0.0, 1.0, 3.0):
        probe = fit_ridge([-1.0, 0.0, 1.0], [3.0, 5.0, 7.0], alpha=alpha)
        assert probe.weights.item() == pytest.approx(2 / (1 + alpha))
        assert probe.bias.item() == pytest.approx(5)


def test_ridge_is_the_solution_of_the_augmented_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, y, alpha = rng.normal(size=(40, 5)) + 3, rng.normal(size=(40, 2)), 0.3
    probe = fit_ridge(x, y, alpha=alpha)
    centred = x - x.mean(axis=0)
    penalty = np.sqrt(len(x) * alpha * centred.var(axis=0).mean()) * np.eye(5)
    rows = np.vstack([centred, penalty])
    expected = np.linalg.lstsq(rows, np.vstack([y - y.mean(axis=0), np.zeros((5, 2))]), rcond=None)[0]
    np.testing.assert_allclose(probe.weights, expected, rtol=1e-9)
    np.testing.assert_allclose(probe.predict(x), centred @ expected + y.mean(axis=0), rtol=1e-9)


def test_held_out_r2_is_one_for_a_linear_map_and_not_above_zero_for_noise() -> None:
    rng = np.random.default_rng(1)
    x, other = rng.normal(size=(200, 8)), rng.normal(size=(200, 8))
    matrix = rng.normal(size=(8, 2))
    assert held_out_r2((x, x @ matrix + 4), (other, other @ matrix + 4), alpha=1e-9) == pytest.approx(1)
    assert held_out_r2((x, rng.normal(size=200)), (other, rng.normal(size=200))) < 0.05
    scaled = held_out_r2((100 * x, x @ matrix), (100 * other, other @ matrix), alpha=0.1)
    assert scaled == pytest.approx(held_out_r2((x, x @ matrix), (other, other @ matrix), alpha=0.1))


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="constant"):
        r_squared([1.0, 1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="same number"):
        fit_ridge(np.zeros((3, 2)), np.zeros(4))
    with pytest.raises(InputError, match="not finite"):
        fit_ridge([[np.nan], [1.0]], [1.0, 2.0])
    with pytest.raises(InputError, match="alpha"):
        fit_ridge([0.0, 1.0], [1.0, 2.0], alpha=-1)
    with pytest.raises(InputError, match="width 3"):
        fit_ridge([0.0, 1.0], [1.0, 2.0]).predict(np.zeros((2, 3)))
