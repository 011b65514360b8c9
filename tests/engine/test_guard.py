"""The guard names what went wrong first."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="the engine needs torch: pip install 'nextvec[hf]'")

from torch import Tensor, nn  # noqa: E402

from nextvec.engine.guard import NonFiniteError, first_bad  # noqa: E402
from nextvec.types import Batch, NextvecError, Ragged  # noqa: E402


@dataclasses.dataclass
class Pair:
    hidden: Tensor
    more: list[Tensor]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ffn = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.kind = "plain"

    def forward(self, x: Tensor) -> Tensor | Pair | tuple[Tensor, None]:
        x = self.drop(self.ffn(x))
        if self.kind == "pair":
            return Pair(x, [x / 0])
        if self.kind == "fails":
            return torch.linalg.inv(torch.zeros(4, 4))
        return x


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.unused = nn.Linear(2, 2)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x = batch.tensor("x")
        for block in self.blocks:
            y = block(x)
            x = y.hidden if isinstance(y, Pair) else y
        return {"hidden": x, "log": x.square().log() if self.training else x}


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


@pytest.fixture
def batch() -> Batch:
    return Batch({"x": torch.ones(3, 4), "ids": Ragged(torch.arange(5), torch.tensor([2, 2, 1]))})


def test_nothing_bad_leaves_the_objective(model: Model, batch: Batch) -> None:
    assert first_bad(model, batch).startswith("the objective")


def test_the_first_module_and_its_parameter(model: Model, batch: Batch) -> None:
    with torch.no_grad():
        model.blocks[1].ffn.weight[2, 1] = float("nan")
    assert first_bad(model, batch) == (
        "blocks.1.ffn (Linear): output has 3 NaN and 0 inf of 12 values; its parameter weight is not finite"
    )


def test_overflow_is_told_from_nan(model: Model, batch: Batch) -> None:
    with torch.no_grad():
        model.blocks[0].ffn.weight.fill_(3e38)
    assert first_bad(model, batch) == "blocks.0.ffn (Linear): output has 0 NaN and 12 inf of 12 values"


def test_outputs_of_every_kind_are_looked_into(model: Model, batch: Batch) -> None:
    model.blocks[0].kind = "pair"
    assert first_bad(model, batch).startswith("blocks.0 (Block): output has 0 NaN and 12 inf of 24 values")


def test_what_the_method_itself_computes(model: Model, batch: Batch) -> None:
    with torch.no_grad():
        model.blocks[1].ffn.weight.zero_()
        model.blocks[1].ffn.bias.zero_()
    model.train()
    assert first_bad(model, batch) == "the method (Model): output has 0 NaN and 12 inf of 24 values"


def test_the_batch_comes_first(model: Model) -> None:
    for column in (
        torch.tensor([[1.0, float("inf"), 0.0, 0.0]]),
        Ragged(torch.tensor([float("nan")]), torch.tensor([1])),
    ):
        bad = Batch({"x": column})
        assert first_bad(model, bad).startswith("column 'x' of the batch: ")


def test_parameters_then_gradients(model: Model, batch: Batch) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    model.blocks[0].ffn.bias.grad[1] = float("nan")
    assert first_bad(model, batch) == "the gradient of blocks.0.ffn.bias: 1 NaN and 0 inf of 4 values"
    with torch.no_grad():
        model.unused.weight.fill_(float("inf"))
    assert first_bad(model, batch) == "parameter unused.weight: 0 NaN and 4 inf of 4 values"


def test_a_forward_that_fails_is_told(model: Model, batch: Batch) -> None:
    model.blocks[1].kind = "fails"
    found = first_bad(model, batch)
    assert found.startswith("the forward pass fails: _LinAlgError: ") and "\n" not in found
    with torch.no_grad():
        model.blocks[0].ffn.bias[0] = float("nan")
    assert first_bad(model, batch).startswith("blocks.0.ffn (Linear)")


def test_looking_moves_nothing(model: Model, batch: Batch) -> None:
    model.train()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first_bad(model, batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert issubclass(NonFiniteError, NextvecError)
