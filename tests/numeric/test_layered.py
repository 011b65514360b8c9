"""Objectives on several layers: the mean of the inner one on each, by hand, and what is refused."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="objectives need torch: pip install 'nextvec[hf]'")

from nextvec.objectives.distill import Distill  # noqa: E402
from nextvec.objectives.info_nce import InfoNCE  # noqa: E402
from nextvec.objectives.layers import Layers  # noqa: E402
from nextvec.objectives.matryoshka import Matryoshka  # noqa: E402
from nextvec.types import InputError  # noqa: E402

B, L, D = 5, 4, 8


def outputs(*names: str) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {f"{n}_layers": torch.randn(B, L, D, generator=random, dtype=torch.float64) for n in names}


def test_it_is_the_mean_over_the_layers_asked_for() -> None:
    out, inner = outputs("query", "document"), InfoNCE(temperature=0.2)
    term = Layers(inner, layers=(1, 4))(out, {})
    alone = [inner({n: out[f"{n}_layers"][:, i] for n in ("query", "document")}, {}).mean for i in (0, 3)]
    torch.testing.assert_close(term.mean, (alone[0] + alone[1]) / 2)
    assert term.logs["info_nce/l4"] == pytest.approx(float(alone[1]))


def test_it_wraps_nested_widths_and_objectives_of_examples() -> None:
    out = outputs("query", "document")
    nested, second = Matryoshka(InfoNCE(), dims=(2, 8)), {n: out[f"{n}_layers"][:, 1] for n in ("query", "document")}
    torch.testing.assert_close(Layers(nested, layers=(2,))(out, {}).mean, nested(second, {}).mean)
    assert Layers(Distill(), layers=(1,)).scope == "example"
    assert torch.autograd.gradcheck(
        lambda one, other: Layers(InfoNCE(), layers=(1, 3))({"query_layers": one, "document_layers": other}, {}).mean,
        [x.requires_grad_() for x in out.values()],
    )


def test_only_the_layers_asked_for_move() -> None:
    out = {name: x.requires_grad_() for name, x in outputs("query", "document").items()}
    Layers(InfoNCE(), layers=(2,))(out, {}).mean.backward()
    moved = out["query_layers"].grad.abs().sum((0, 2))
    assert (moved > 0).tolist() == [False, True, False, False]


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(InputError, match=r"different numbers from 1, got \[0\]"):
        Layers(InfoNCE(), layers=(0,))
    with pytest.raises(InputError, match=r"Layers needs \[B, L, D\] of one L >= 5"):
        Layers(InfoNCE(), layers=(5,))(outputs("query", "document"), {})
    with pytest.raises(InputError, match="reads 'query_layers'"):
        Layers(InfoNCE(), layers=(1,))({"query": torch.zeros(B, D)}, {})
