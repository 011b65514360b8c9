"""oneDNN's products are the plain ones: values, gradients, and the cases that are left to PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextvec.nn import linear as module
from nextvec.nn.linear import Linear, linear


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products take oneDNN's way too, on any processor that has it."""
    if not (torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(module, "_WORTH", 1)
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)


def _given(*shape: int, bias: bool, seed: int = 0) -> list[Tensor | None]:
    random = torch.Generator().manual_seed(seed)
    sizes = [shape, (9, shape[-1]), (9,)]
    made: list[Tensor | None] = [torch.randn(size, generator=random, requires_grad=True) for size in sizes]
    return made if bias else [*made[:2], None]


@pytest.mark.parametrize("shape", [(1, 7), (33, 7), (4, 5, 7), (0, 7), (2, 1, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_float64(shape: tuple[int, ...], bias: bool) -> None:
    x, weight, added = _given(*shape, bias=bias)
    inputs = [t for t in (x, weight, added) if t is not None]
    assert x is not None and weight is not None
    found = linear(x, weight, added)
    exact = F.linear(x.double(), weight.double(), None if added is None else added.double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    pull = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    for one, two in zip(
        torch.autograd.grad(found, inputs, pull), torch.autograd.grad(exact, inputs, pull.double()), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_inputs_that_are_views_or_transposed_give_the_same() -> None:
    x, weight, _ = _given(12, 14, bias=False)
    assert x is not None and weight is not None
    for left, right in [(x[::2], weight), (x.t()[:, :10].t(), weight), (x, torch.randn(14, 9).t())]:
        torch.testing.assert_close(linear(left, right), F.linear(left, right), rtol=1e-5, atol=1e-5)


def test_only_the_gradients_that_are_asked_for_are_made() -> None:
    x, weight, bias = _given(6, 7, bias=True)
    assert x is not None and weight is not None and bias is not None
    torch.autograd.backward(linear(x.detach(), weight, bias.detach()).sum())
    assert x.grad is None and bias.grad is None and weight.grad is not None
    torch.testing.assert_close(weight.grad, x.detach().sum(0).expand(9, 7), rtol=1e-5, atol=1e-5)


def test_second_derivatives() -> None:
    x, weight, _ = _given(6, 7, bias=False)
    assert x is not None and weight is not None
    found = []
    for function, y, w in [(linear, x, weight), (F.linear, x.double(), weight.double())]:
        first = torch.autograd.grad(function(y, w).pow(3).sum(), (y, w), create_graph=True)
        found.append(torch.autograd.grad(sum((f.square().sum() for f in first), torch.zeros(())), (x, weight)))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_pytorchs(dtype: torch.dtype) -> None:
    x, weight = torch.randn(5, 7, dtype=dtype), torch.randn(9, 7, dtype=dtype)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_autocast_and_transforms_are_pytorchs() -> None:
    x, weight = torch.randn(5, 7), torch.randn(9, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    rows = torch.func.vmap(lambda row: linear(row[None], weight)[0])(x)
    torch.testing.assert_close(rows, F.linear(x, weight))
    tangent = torch.func.jvp(lambda x: linear(x, weight), (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(tangent, F.linear(torch.ones_like(x), weight))


def test_the_module_has_pytorchs_parameters_and_is_one() -> None:
    torch.manual_seed(0)
    ours = Linear(7, 9)
    theirs = nn.Linear(7, 9)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 7)
    assert isinstance(ours, nn.Linear)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    if not torch._C.has_mkl:
        assert not module.onednn_is_faster()
        return
    for name, faster in [("vendor_id : GenuineIntel", False), ("vendor_id : AuthenticAMD", True)]:
        monkeypatch.setattr(module, "_processor", lambda name=name: name)
        module.onednn_is_faster.cache_clear()
        assert module.onednn_is_faster() is faster
    module.onednn_is_faster.cache_clear()
