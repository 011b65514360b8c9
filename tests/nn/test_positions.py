"""Positions against the papers' formulas, written out in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nextvec.types import InputError

torch = pytest.importorskip("torch", reason="positions need torch: pip install 'nextvec[hf]'")

from nextvec.nn.backbones.positions import POSITIONS, Alibi, Learned, Rope, Sinusoidal, alibi_slopes, rotate  # noqa: E402
from nextvec.nn.backbones.transformer import Transformer, TransformerConfig  # noqa: E402
from nextvec.types import Ragged  # noqa: E402


def config(**changes: Any) -> TransformerConfig:
    return TransformerConfig(**{"vocab": 11, "dim": 24, "layers": 1, "heads": 3, "max_length": 10, **changes})


def turned(vector: np.ndarray, place: float, theta: float) -> np.ndarray:
    """``vector`` [d] at ``place``: every pair (i, i + d/2) as a complex number times e^(i place theta^-2i/d)."""
    half = len(vector) // 2
    pairs = vector[:half] + 1j * vector[half:]
    pairs = pairs * np.exp(1j * place * theta ** (-2 * np.arange(half) / len(vector)))
    return np.concatenate((pairs.real, pairs.imag))


@pytest.mark.parametrize(
    ("scaling", "factor", "at", "base"),
    [("none", 1.0, 1.0, 10_000.0), ("linear", 4.0, 0.25, 10_000.0), ("ntk", 4.0, 1.0, 10_000.0 * 4 ** (8 / 6))],
)
def test_rope_turns_pairs(scaling: str, factor: float, at: float, base: float) -> None:
    rng = np.random.default_rng(0)
    heads = rng.normal(size=(5, 2, 8))
    places = np.array([0, 1, 2, 7, 500])
    rope = Rope(config(rope_scaling=scaling, rope_factor=factor))
    rotation = rope.rotation(torch.zeros(5, 24), torch.tensor(places))
    ours = rotate(torch.tensor(heads), rotation).numpy()
    expected = [[turned(head, at * place, base) for head in row] for row, place in zip(heads, places, strict=True)]
    np.testing.assert_allclose(ours, expected, atol=2e-4)


def test_ntk_keeps_the_fastest_pair_and_stretches_the_slowest() -> None:
    plain = Rope(config()).frequencies
    scaled = Rope(config(rope_scaling="ntk", rope_factor=4.0)).frequencies
    assert scaled[0] == plain[0]
    torch.testing.assert_close(plain[-1] / scaled[-1], torch.tensor(4.0))


def test_rope_scores_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 8)
    rope = Rope(config())

    def score(i: int, j: int) -> float:
        at = [rope.rotation(torch.zeros(1, 24), torch.tensor([place])) for place in (i, j)]
        return float((rotate(q, at[0]) * rotate(k, at[1])).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-2)


def test_rotation_gradient() -> None:
    torch.manual_seed(0)
    heads = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    angles = torch.rand(3, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, a: rotate(x, (a.cos(), a.sin())), (heads, angles))


def test_sinusoidal_waves() -> None:
    places = np.arange(40)
    added = Sinusoidal(config()).add(torch.zeros(40, 24), torch.tensor(places)).numpy() * np.sqrt(24)
    for i in range(12):
        angle = places / 10_000 ** (2 * i / 24)
        np.testing.assert_allclose(added[:, 2 * i], np.sin(angle), atol=1e-5)
        np.testing.assert_allclose(added[:, 2 * i + 1], np.cos(angle), atol=1e-5)
    odd = Sinusoidal(config(dim=15, positions="sinusoidal")).add(
        torch.zeros(40, 15), torch.tensor(places)
    ).numpy() * np.sqrt(15)
    np.testing.assert_allclose(odd[:, 14], np.sin(places / 10_000 ** (14 / 15)), atol=1e-5)


def test_learned_rows_are_added_and_end() -> None:
    learned = Learned(config())
    h, places = torch.randn(4, 24), torch.tensor([0, 1, 0, 9])
    torch.testing.assert_close(learned.add(h, places), h + learned.table.weight[places])
    model = Transformer(config(positions="learned"))
    with pytest.raises(InputError, match="11 tokens, but learned positions end at max_length=10"):
        model(Ragged(torch.zeros(11, dtype=torch.long), torch.tensor([11])))


def test_alibi_slopes_are_the_papers() -> None:
    np.testing.assert_allclose(alibi_slopes(8), [2.0**-i for i in range(1, 9)])
    # 12 heads: those of 8, then every other one of 16 (2^-0.5, 2^-1, 2^-1.5, ...).
    np.testing.assert_allclose(alibi_slopes(12)[8:], [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5], rtol=1e-6)
    np.testing.assert_allclose(alibi_slopes(1), [2.0**-8])


@pytest.mark.parametrize("name", POSITIONS)
def test_doors_of_every_scheme(name: str) -> None:
    """A scheme leaves the doors that it does not need as they are."""
    scheme = POSITIONS[name](config(positions=name))
    h, places = torch.randn(3, 24), torch.tensor([0, 1, 2])
    opened = {
        "add": not torch.equal(scheme.add(h, places), h),
        "rotation": scheme.rotation(h, places) is not None,
        "slopes": scheme.slopes() is not None,
    }
    door = {"rope": "rotation", "alibi": "slopes", "learned": "add", "sinusoidal": "add"}.get(name)
    assert opened == {key: key == door for key in opened}


@pytest.mark.parametrize("name", POSITIONS)
def test_only_none_is_blind_to_order(name: str) -> None:
    torch.manual_seed(0)
    model = Transformer(config(positions=name, attention="bidirectional", layers=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        here = model(Ragged(torch.tensor([3, 1, 4, 5]), torch.tensor([4])))
        there = model(Ragged(torch.tensor([3, 5, 4, 1]), torch.tensor([4])))
    gap = float((here[0] - there[0]).abs().max())
    assert gap < 1e-5 if name == "none" else gap > 1e-3


def test_alibi_prefers_what_is_near() -> None:
    """With equal contents, the weights fall off by e^(-slope * distance)."""
    torch.manual_seed(0)
    model = Transformer(config(positions="alibi", heads=1, dim=4, attention="causal"))
    block = model.blocks[0]
    with torch.no_grad():
        block.qkv.weight.zero_()
        block.qkv.weight[8:] = torch.eye(4)
        block.out.weight.copy_(torch.eye(4))
        block.down.weight.zero_()
        model.final_norm = None
        x = torch.eye(4)[:3].contiguous()
        added = model(Ragged(x, torch.tensor([3]))) - x
    assert isinstance(model.positions, Alibi)
    slope = 2.0**-8
    weights = np.exp(-slope * np.array([2.0, 1.0, 0.0]))
    # The RMS norm turns a one-hot of width 4 into a 2 at its place.
    np.testing.assert_allclose(added[2, :3], 2 * weights / weights.sum(), atol=1e-5)
