"""Rule 1: the gradient of a step does not depend on how it was divided into micro-batches."""

from __future__ import annotations

import pytest
import torch
from small_models import Squares, Towers, batch, mixed
from torch import nn

from nextvec.engine.accumulate import backward, divide, tokens
from nextvec.engine.parallel import Parallel
from nextvec.objectives.base import Objective
from nextvec.objectives.info_nce import InfoNCE
from nextvec.types import Batch, InputError


def gradients(*modules: nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{i}.{name}": parameter.grad.clone()
        for i, module in enumerate(modules)
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def whole_batch(model: Towers, objective: Objective, micros: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    """The reference: every micro-batch's graph is held, outputs are joined, the objective is taken once."""
    outs = [model(micro) for micro in micros]
    joined = {name: torch.cat([out[name] for out in outs]) for name in outs[0]}
    group = torch.cat([micro.tensor("group") for micro in micros])
    loss = objective(joined, {"group": group, "text": Batch({"text": micros[0]["text"]})["text"]}).mean
    loss.backward()
    return float(loss.detach()), gradients(model, objective)


@pytest.mark.parametrize("sizes", [[7], [3, 2, 2], [1, 1, 5], [1] * 7])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_micro_batches_give_the_whole_batch_gradient(sizes: list[int], dropout: float) -> None:
    torch.manual_seed(1)
    model, objective = Towers(dropout=dropout).double(), mixed().double()
    micros = batch(7).split(sizes)
    torch.manual_seed(2)
    expected_loss, expected = whole_batch(model, objective, micros)
    for module in (model, objective):
        module.zero_grad()
    torch.manual_seed(2)
    losses = backward(Parallel(model), objective, micros)
    found = gradients(model, objective)
    assert losses.loss == pytest.approx(expected_loss, rel=1e-9)
    assert found.keys() == expected.keys()
    assert any("log_scale" in name for name in found)
    for name, gradient in expected.items():
        assert torch.linalg.norm(found[name] - gradient) <= 1e-6 * torch.linalg.norm(gradient) + 1e-12, name


def test_uneven_counts_are_not_averaged_micro_batch_by_micro_batch() -> None:
    """The control: the mean of the micro-batches' means is another gradient, so that the test above can fail."""
    model, objective = Towers(dropout=0.0).double(), Squares("odd").double()
    micros = batch(7).split([1, 1, 5])
    backward(Parallel(model), objective, micros)
    exact = gradients(model)["0.value.weight"]
    model.zero_grad()
    for micro in micros:
        (objective(model(micro), micro).mean / len(micros)).backward()
    wrong = gradients(model)["0.value.weight"]
    assert torch.linalg.norm(wrong - exact) > 0.01 * torch.linalg.norm(exact)


def test_random_numbers_go_on_as_in_one_pass() -> None:
    """The second pass must not leave the generator anywhere else than one pass would have."""
    model, objective = Towers().double(), mixed().double()
    torch.manual_seed(3)
    backward(Parallel(model), objective, batch(6).split([2, 2, 2]))
    after = torch.rand(3)
    torch.manual_seed(3)
    for micro in batch(6).split([2, 2, 2]):
        model(micro)
    assert torch.equal(after, torch.rand(3))


def test_a_known_count_spares_the_first_pass() -> None:
    calls = []
    model = Towers(dropout=0.0).double()
    model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    backward(Parallel(model), Squares("values", known=True).double(), batch(6).split([3, 3]))
    assert calls == [True, True]
    calls.clear()
    backward(Parallel(model), Squares("values").double(), batch(6).split([3, 3]))
    assert calls == [False, False, True, True]
    calls.clear()
    backward(Parallel(model), mixed().double(), [batch(6)])
    assert calls == [True]


def test_logs_are_those_of_the_whole_batch() -> None:
    model, objective = Towers(dropout=0.0).double(), mixed().double()
    one = backward(Parallel(model), objective, [batch(7)])
    many = backward(Parallel(model), objective, batch(7).split([4, 3]))
    assert many.logs["info_nce"] == pytest.approx(one.logs["info_nce"])
    assert many.loss == pytest.approx(one.loss)


def test_batches_are_divided_evenly() -> None:
    assert [part.size for part in divide(batch(7), 3)] == [3, 2, 2]
    assert [part.size for part in divide(batch(7), None)] == [7]
    assert sum(tokens(part) for part in divide(batch(7), 2)) == tokens(batch(7))
    with pytest.raises(InputError, match="micro is 0"):
        divide(batch(7), 0)


def test_what_cannot_be_trained_is_told() -> None:
    model = Towers().double()
    with pytest.raises(InputError, match="reads 'paper', which the outputs lack"):
        backward(Parallel(model), InfoNCE(document="paper"), [batch(3)])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    objective = InfoNCE().double()
    with pytest.raises(InputError, match="nothing to train"):
        backward(Parallel(model), objective, [batch(3)])
