"""Recurrent networks: what reset, ragged and all_states mean, each against sequences run one by one."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="recurrent networks need torch: pip install 'nextvec[hf]'")

from nextvec.nn.backbones.recurrent import Recurrent  # noqa: E402
from nextvec.types import InputError, Ragged  # noqa: E402

KINDS = ["lstm", "gru"]


def network(kind: str, **options: object) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(3, 5, kind=kind, layers=2, **options).double().eval()  # type: ignore[arg-type]


def vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_is_every_step_by_itself(kind: str) -> None:
    reset, whole = network(kind, reset=True), network(kind)
    x = vectors(2, 4, 3)
    states = reset(x, all_states=True)
    for t in range(4):
        alone = whole(x[:, t : t + 1], all_states=True)  # the same weights, a sequence of one step
        for layer in range(2):
            torch.testing.assert_close(states[layer][:, t], alone[layer][:, 0])
    assert not torch.allclose(states[-1][:, 1:], whole(x)[:, 1:])
    ragged = reset(Ragged(x.flatten(0, 1), torch.tensor([3, 5])))
    torch.testing.assert_close(ragged, states[-1].flatten(0, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [[2, 5, 1, 5, 3], [4, 4]])
def test_ragged_equals_each_sequence_alone(kind: str, lengths: list[int]) -> None:
    model, x = network(kind), vectors(sum(lengths), 3).requires_grad_()
    states = model(Ragged(x, torch.tensor(lengths)), all_states=True)
    for layer in range(2):
        alone = torch.cat([model(part[None], all_states=True)[layer][0] for part in x.split(lengths)])
        torch.testing.assert_close(states[layer], alone)
    (gradient,) = torch.autograd.grad(states[-1][: lengths[0]].sum(), x)
    assert gradient[: lengths[0]].abs().sum() > 0
    assert gradient[lengths[0] :].abs().sum() == 0  # nothing leaks between sequences


def test_the_future_does_not_change_the_past_and_the_past_the_future() -> None:
    model, x = network("lstm"), vectors(1, 4, 3)
    changed = x.clone()
    changed[:, 2] += 1
    one, other = model(x), model(changed)
    torch.testing.assert_close(one[:, :2], other[:, :2])
    assert (one[:, 3] - other[:, 3]).abs().max() > 1e-4


def test_all_states_end_with_the_output_and_the_forget_gate_is_open() -> None:
    model, x = network("lstm"), vectors(2, 4, 3)
    assert torch.equal(model(x, all_states=True)[-1], model(x))
    biases = [sum(p for n, p in layer.named_parameters() if "bias" in n) for layer in model.layers]
    for bias in biases:
        assert bias.tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10


def test_bad_input_is_one_line() -> None:
    model = network("gru")
    for bad in (vectors(2, 4, 4), vectors(4, 3), Ragged(vectors(2, 3, 3).flatten(0, 1)[:, :2], torch.tensor([6]))):
        with pytest.raises(InputError, match="expected"):
            model(bad)
    with pytest.raises(InputError, match="empty"):
        model(Ragged(vectors(3, 3), torch.tensor([3, 0])))
    with pytest.raises(InputError, match="did you mean 'lstm'"):
        Recurrent(3, 5, kind="lstn")
    with pytest.raises(InputError, match="dropout"):
        Recurrent(3, 5, dropout=1.0)
