"""Positions against the papers' formulas, written out in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nextvec.types import InputError

torch = pytest.importorskip("torch", reason="positions need torch: pip install 'nextvec[hf]'")

from nextvec.nn.backbones.positions import (  # noqa: E402
    POSITIONS,
    Alibi,
    ContextRope,
    Learned,
    Rope,
    Sinusoidal,
    alibi_slopes,
    rotate,
)
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
    doors = {"alibi": "slopes", "learned": "add", "sinusoidal": "add", "none": None}
    door = doors.get(name, "rotation")
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


def test_context_rope_begins_as_rope() -> None:
    """Its first place has turned once already, which differences do not see."""
    context, plain = ContextRope(config()), Rope(config())
    places = torch.tensor([0, 1, 2, 3, 0, 1])
    ours = context.rotation(torch.randn(6, 24), places)
    theirs = plain.rotation(torch.zeros(6, 24), places + 1)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other.expand(6, 3, 4), atol=1e-5, rtol=0)


def test_context_rope_turns_by_the_papers_sums() -> None:
    rng = np.random.default_rng(0)
    context = ContextRope(config())
    h, weight, bias = rng.normal(size=(5, 24)), rng.normal(size=(24, 3)), rng.normal(size=3)
    with torch.no_grad():
        context.weight.copy_(torch.tensor(weight))
        context.bias.copy_(torch.tensor(bias))
        cos, sin = context.rotation(torch.tensor(h), torch.tensor([0, 1, 2, 0, 1]))
    for t, first in enumerate((0, 0, 0, 3, 3)):
        for head in range(3):
            for i in range(4):
                angle = sum(
                    (1 / (1 + np.log1p(np.exp(h[s] @ weight[:, head] + bias[head])))) ** i for s in range(first, t + 1)
                )
                assert float(cos[t, head, i]) == pytest.approx(np.cos(angle), abs=1e-5)
                assert float(sin[t, head, i]) == pytest.approx(np.sin(angle), abs=1e-5)


def test_context_rope_gradient() -> None:
    torch.manual_seed(0)
    context = ContextRope(config(dim=6, heads=3, head_dim=4)).double()
    h = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    places = torch.tensor([0, 1, 2, 0, 1])
    weight = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)

    def turned_by(x: Any, w: Any) -> Any:
        return torch.func.functional_call(context, {"weight": w}, (x, places))

    context.forward = context.rotation
    assert torch.autograd.gradcheck(turned_by, (h, weight))


def test_a_base_per_head_is_no_context() -> None:
    constant = POSITIONS["carope_constant"](config())
    assert [name for name, p in constant.named_parameters() if p.requires_grad] == ["bias"]
    places = torch.arange(4)
    one, other = (constant.rotation(torch.randn(4, 24), places) for _ in range(2))
    assert one is not None and other is not None
    assert torch.equal(one[0], other[0])


def test_heads_that_share_keys_cannot_turn_by_themselves() -> None:
    with pytest.raises(InputError, match="at its own pace"):
        Transformer(config(positions="carope", kv_heads=1))
