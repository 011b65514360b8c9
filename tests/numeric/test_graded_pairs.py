"""CoSENT and AnglE against sums over all comparisons, hand-computed cases, gradients and directions."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="objectives need torch: pip install 'nextvec[hf]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from nextvec.objectives.graded import AnglE, CoSENT  # noqa: E402
from nextvec.types import InputError, Ragged  # noqa: E402

BOTH = [CoSENT, AnglE]


def pairs(rows: int, width: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, width, generator=random, dtype=dtype) for name in ("one", "other")}


def similarity(cls: type[CoSENT], one: np.ndarray, other: np.ndarray) -> float:
    if cls is CoSENT:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    half = len(one) // 2
    z, w = (row[:half] + 1j * row[half:] for row in (one, other))
    # z / w, each value scaled by |w|^2 / (|z| |w|) so that vectors of any length compare.
    product = (z * np.conj(w)).sum() / np.linalg.norm(z) / np.linalg.norm(w)
    return abs(float(product.real + product.imag))


def reference(cls: type[CoSENT], out: dict[str, torch.Tensor], score: list[float], scale: float) -> float:
    one, other = (out[name].double().numpy() for name in ("one", "other"))
    s = [similarity(cls, a, b) for a, b in zip(one, other, strict=True)]
    n = range(len(score))
    total = sum(math.exp(scale * (s[j] - s[i])) for i in n for j in n if score[i] > score[j])
    return math.log1p(total)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(BOTH),
    st.lists(st.one_of(st.integers(0, 3), st.floats(-5, 5)), min_size=1, max_size=12),
    st.sampled_from([0.5, 5.0, 20.0]),
    st.integers(0, 1000),
)
def test_values_equal_the_sum_over_all_comparisons(
    cls: type[CoSENT], score: list[float], scale: float, seed: int
) -> None:
    out = pairs(len(score), seed=seed)
    term = cls(scale=scale)(out, {"score": torch.tensor(score, dtype=torch.float64)})
    assert float(term.mean) == pytest.approx(reference(cls, out, score, scale), rel=1e-9, abs=1e-12)
    assert term.count == len(score)
    assert term.logs == {"cosent" if cls is CoSENT else "angle": pytest.approx(float(term.mean))}


def test_hand_computed() -> None:
    """Cosines 0.6, 0.8 and 0.0; scores 1, 0 and 0: two comparisons."""
    one = torch.tensor([[1.0, 0.0]] * 3, dtype=torch.float64)
    other = torch.tensor([[3.0, 4.0], [4.0, -3.0], [0.0, 2.0]], dtype=torch.float64)
    score = torch.tensor([1.0, 0.0, 0.0])
    found = CoSENT(scale=2.0)({"one": one, "other": other}, {"score": score})
    expected = math.log(1 + math.exp(2 * (0.8 - 0.6)) + math.exp(2 * (0.0 - 0.6)))
    assert float(found.mean) == pytest.approx(expected)
    # (1 + 0i) times the conjugates of (.6 + .8i), (.8 - .6i) and i: real plus imaginary part -.2, 1.4 and -1.
    found = AnglE(scale=2.0)({"one": one, "other": other}, {"score": score})
    expected = math.log(1 + math.exp(2 * (1.4 - 0.2)) + math.exp(2 * (1.0 - 0.2)))
    assert float(found.mean) == pytest.approx(expected)


@pytest.mark.parametrize("cls", BOTH)
def test_equal_texts_are_most_similar_whatever_their_length(cls: type[CoSENT]) -> None:
    rows = pairs(5)["one"]
    assert torch.allclose(cls().similarity(rows, 3 * rows), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("score", [[0, 1, 2, 3, 4.0], [1, 1, 0, 0, 1.0], [0.5, 0.1, 0.5, 0.9, 0.1], [2, 2, 2, 2, 2.0]])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_gradients_equal_finite_differences(cls: type[CoSENT], score: list[float], scale: float) -> None:
    objective, given = cls(scale=scale), {"score": torch.tensor(score)}
    out = [rows.requires_grad_() for rows in pairs(5, seed=2).values()]
    assert torch.autograd.gradcheck(lambda a, b: objective({"one": a, "other": b}, given).mean, out)


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_scales_do_not_overflow(cls: type[CoSENT], dtype: torch.dtype) -> None:
    """All in the wrong order at a scale where exp overflows: the loss is the largest exponent, the gradient finite."""
    angle = torch.linspace(0, 0.6, 30, dtype=torch.float64)
    one = torch.zeros(30, 4, dtype=torch.float64)
    one[:, 0] = 1
    other = torch.stack([angle.cos(), angle.sin(), 0 * angle, 0 * angle], dim=1)
    out = {name: rows.to(dtype).requires_grad_() for name, rows in (("one", one), ("other", other))}
    term = cls(scale=1e4)(out, {"score": torch.arange(30)})
    term.mean.backward()
    assert float(term.mean.detach()) == pytest.approx(1e4 * (1 - math.cos(0.6)), rel=1e-3)
    assert bool(out["other"].grad.isfinite().all()) and bool(out["other"].grad.any())


@pytest.mark.parametrize("cls", BOTH)
def test_nothing_to_compare_is_a_loss_of_zero(cls: type[CoSENT]) -> None:
    for rows in (1, 4):
        out = {name: x.requires_grad_() for name, x in pairs(rows).items()}
        term = cls()(out, {"score": torch.full((rows,), 3)})
        term.mean.backward()
        assert float(term.mean.detach()) == 0
        assert not out["one"].grad.any()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(BOTH), st.permutations(range(8)), st.integers(0, 100))
def test_neither_order_of_pairs_nor_scale_of_scores_matters(cls: type[CoSENT], order: list[int], seed: int) -> None:
    out, score = pairs(8, seed=seed), torch.tensor([0, 1, 1, 2, 3, 3, 3, 5])
    moved = {name: rows[order] for name, rows in out.items()}
    plain = float(cls()(out, {"score": score}).mean)
    assert float(cls()(moved, {"score": score[order]}).mean) == pytest.approx(plain)
    assert float(cls()(out, {"score": score**3 - 40.0}).mean) == plain


@pytest.mark.parametrize("cls", BOTH)
def test_memory_grows_with_the_pairs_and_not_with_the_comparisons(cls: type[CoSENT]) -> None:
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            made = function(*args, **(kwargs or {}))
            self.numbers = max([self.numbers, *(t.numel() for t in tree_leaves(made) if isinstance(t, torch.Tensor))])
            return made

    out = {name: rows.requires_grad_() for name, rows in pairs(20_000, dtype=torch.float32).items()}
    score = torch.arange(20_000) % 997
    with Largest() as seen:
        cls()(out, {"score": score}).mean.backward()
    assert seen.numbers == 20_000 * 6


@pytest.mark.parametrize("cls", BOTH)
def test_optimising_orders_the_pairs(cls: type[CoSENT]) -> None:
    leaves = {name: rows.requires_grad_() for name, rows in pairs(20, 8, seed=3).items()}
    score = torch.arange(20) // 4
    objective = cls()
    optimiser = torch.optim.Adam(leaves.values(), lr=0.03)

    def ordered() -> float:
        s = objective.similarity(leaves["one"].detach(), leaves["other"].detach())
        higher = score[:, None] > score[None, :]
        return float((s[:, None] > s[None, :])[higher].double().mean())

    before = ordered()
    for _ in range(150):
        optimiser.zero_grad()
        objective(leaves, {"score": score}).mean.backward()
        optimiser.step()
    assert before < 0.7
    assert ordered() > 0.98


def test_wrong_use_is_told() -> None:
    out, score = pairs(3), torch.arange(3.0)
    with pytest.raises(InputError, match="scale is 0; expected a positive number"):
        CoSENT(scale=0)
    with pytest.raises(InputError, match=r"AnglE compares pairs \[B, D\]; got \[3, 6\] and \[2, 6\]"):
        AnglE()({**out, "other": out["other"][:2]}, {"score": score})
    with pytest.raises(InputError, match=r"AnglE reads vectors as complex numbers.* got 5"):
        AnglE()({name: rows[:, :5] for name, rows in out.items()}, {"score": score})
    for column, found in ((torch.ones(2), r"\[2\]"), (Ragged(torch.ones(3), torch.ones(3).long()), "ragged")):
        with pytest.raises(InputError, match=f"CoSENT needs a column 'score'.* 3 pairs; got {found}"):
            CoSENT()(out, {"score": column})
    with pytest.raises(InputError, match="got none"):
        CoSENT()(out, {})
    with pytest.raises(InputError, match="score 1 is NaN"):
        CoSENT()(out, {"score": torch.tensor([0, math.nan, 1])})
