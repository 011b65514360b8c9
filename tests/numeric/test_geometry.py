"""The effective rank against cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nextvec.evaluate.geometry import effective_rank
from nextvec.types import InputError


def test_equal_directions_count_fully() -> None:
    assert effective_rank(np.eye(5)) == pytest.approx(5.0)
    assert effective_rank(np.outer([1.0, -2.0, 3.0], [0.5, 2.0])) == pytest.approx(1.0)


def test_by_hand() -> None:
    """Singular values 3 and 1: shares 3/4 and 1/4."""
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]) == pytest.approx(expected)


def test_neither_scale_nor_rotation_matters() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20, 6)) * np.array([5, 3, 1, 0.5, 0.1, 0])
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert effective_rank(7.0 * vectors @ turn) == pytest.approx(effective_rank(vectors))
    assert 1 < effective_rank(vectors.astype(np.float32)) < 5


@pytest.mark.parametrize("bad", [np.zeros((3, 2)), np.ones(4), np.ones((0, 3)), [[1.0, np.nan]], [[np.inf, 1.0]]])
def test_refusals(bad: object) -> None:
    with pytest.raises(InputError, match="effective rank"):
        effective_rank(bad)  # type: ignore[arg-type]
