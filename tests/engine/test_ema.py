"""Moving averages and soups against hand-computed values."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the engine needs torch: pip install 'nextvec[hf]'")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from nextvec.engine.ema import WeightAverage, update  # noqa: E402
from nextvec.engine.soup import greedy_soup, soup  # noqa: E402
from nextvec.types import InputError, NotFoundError, StorageError  # noqa: E402


class One(nn.Module):
    def __init__(self, value: float, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), value, dtype=dtype))
        self.fixed = nn.Parameter(torch.full((2,), 5.0), requires_grad=False)
        self.register_buffer("count", torch.tensor(int(value)))
        self.register_buffer("cache", torch.zeros(int(value)), persistent=False)


def test_target_follows_by_hand() -> None:
    target, online = One(1.0), One(3.0)
    update(target, online, 0.9)  # 0.9 * 1 + 0.1 * 3
    assert target.weight.tolist() == pytest.approx([1.2, 1.2])
    update(target, online, 0.9)  # 0.9 * 1.2 + 0.1 * 3
    assert target.weight.tolist() == pytest.approx([1.38, 1.38])
    assert int(target.count) == 3 and len(target.cache) == 1  # saved buffers are copied, caches are not
    assert online.weight.tolist() == [3.0, 3.0] and target.weight.grad_fn is None


def test_decay_zero_copies_and_one_changes_nothing() -> None:
    target, online = One(1.0), One(1 / 3)
    update(target, online, 1.0)
    assert target.weight.tolist() == [1.0, 1.0]
    update(target, online, 0.0)
    assert torch.equal(target.weight, online.weight)
    target = One(1.0)
    update(target, One(3.0, dtype=torch.bfloat16), 0.5)
    assert target.weight.tolist() == [2.0, 2.0] and target.weight.dtype == torch.float32


def test_networks_that_differ_are_refused() -> None:
    target, online = One(1.0), One(3.0)
    online.extra = nn.Parameter(torch.zeros(1))
    with pytest.raises(InputError, match="only the online network has the parameter 'extra'"):
        update(target, online, 0.9)
    with pytest.raises(InputError, match=r"'weight' is \[3, 2\] in the target and \[4, 2\]"):
        update(nn.Linear(2, 3), nn.Linear(2, 4), 0.9)
    with pytest.raises(InputError, match=r"decay is 1\.5"):
        update(One(1.0), One(3.0), 1.5)
    assert target.weight.tolist() == [1.0, 1.0]


def test_weight_average_by_hand() -> None:
    model = One(0.0)
    average = WeightAverage(model, 0.25)
    expected = 0.0
    for step, value, decay in [(1, 11.0, 2 / 11), (2, 4.0, 0.25), (3, 8.0, 0.25)]:  # min(0.25, (1 + t) / (10 + t))
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(step)
        expected = decay * expected + (1 - decay) * value
        assert average.state_tensors()["weight"].tolist() == pytest.approx([expected] * 2)
    assert set(average.state_tensors()) == {"weight"}  # what is not trained is not averaged


def test_average_stands_in_and_steps_back_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    average = WeightAverage(model, 0.5)
    start = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    own = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match="inside"), average.applied():
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), start, strict=True))
        with pytest.raises(InputError, match="already stands in"), average.applied():
            pass
        with pytest.raises(InputError, match="asked to move"):
            average.update(1)
        raise RuntimeError("inside")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), own, strict=True))
    with average.applied():
        pass


def test_average_is_saved_and_taken_up() -> None:
    model = One(2.0)
    average = WeightAverage(model, 0.5)
    saved = {"weight": torch.tensor([7.0, 8.0])}
    average.load_state_tensors(saved)
    assert average.state_tensors()["weight"].tolist() == [7.0, 8.0]
    with average.applied():
        assert model.weight.tolist() == [7.0, 8.0]
    with pytest.raises(InputError, match="lacks 'weight'"):
        average.load_state_tensors({})
    with pytest.raises(InputError, match=r"\[3\]; expected \[2\]"):
        average.load_state_tensors({"weight": torch.zeros(3)})
    with pytest.raises(InputError, match="none of the parameters"):
        WeightAverage(nn.Identity(), 0.5)
    with pytest.raises(InputError, match="below 1"):
        WeightAverage(model, 1.0)


def test_average_of_half_precision_keeps_small_steps() -> None:
    model = One(1.0, dtype=torch.bfloat16)
    average = WeightAverage(model, 0.999)
    with torch.no_grad():
        model.weight.fill_(2.0)
    for _ in range(100):
        average.update(10**6)
    # In bfloat16 the first step, 0.001, would be below half a unit in the last place of 1.0 and be lost.
    assert average.state_tensors()["weight"].tolist() == pytest.approx([2 - 0.999**100] * 2, rel=1e-5)


def weights(a: float, b: float) -> dict[str, torch.Tensor]:
    return {
        "w": torch.tensor([a, b], dtype=torch.float32),
        "half": torch.tensor([a], dtype=torch.bfloat16),
        "n": torch.tensor(3),
    }


def test_soup_of_two_by_hand() -> None:
    mixed = soup([weights(1, 2), weights(3, 6)])
    assert mixed["w"].tolist() == [2, 4] and mixed["half"].tolist() == [2] and mixed["n"].item() == 3
    assert mixed["half"].dtype == torch.bfloat16
    assert soup([weights(1, 2), weights(3, 6)], [3, 1])["w"].tolist() == [1.5, 3]
    same = weights(0.1, 1 / 3)
    assert torch.equal(soup([same, same, same])["w"], same["w"])


def test_soup_of_folders(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 3.0)):
        (tmp_path / name).mkdir()
        save_file({"x": torch.tensor([value])}, tmp_path / name / "model-00001-of-00002.safetensors")
        save_file({"y": torch.tensor([value * 10])}, tmp_path / name / "model-00002-of-00002.safetensors")
    mixed = soup([tmp_path / "a", tmp_path / "b"])
    assert {key: value.tolist() for key, value in mixed.items()} == {"x": [2.0], "y": [20.0]}
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="empty"):
        soup([tmp_path / "empty"])
    save_file({"y": torch.tensor([1.0])}, tmp_path / "b" / "more.safetensors")
    with pytest.raises(InputError, match="'y' in two files"):
        soup([tmp_path / "b"])
    (tmp_path / "a" / "model-00001-of-00002.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(StorageError, match="00001"):
        soup([tmp_path / "a"])


def test_soups_that_do_not_mix() -> None:
    good = weights(1, 2)
    with pytest.raises(InputError, match="model 1 lacks 'w'"):
        soup([good, {k: v for k, v in good.items() if k != "w"}])
    with pytest.raises(InputError, match="model 1 has 'z'"):
        soup([good, {**good, "z": torch.zeros(1)}])
    with pytest.raises(InputError, match=r"'w' is torch.float32 \[2\] in model 0 and torch.float32 \[3\]"):
        soup([good, {**good, "w": torch.zeros(3)}])
    with pytest.raises(InputError, match=r"'n' .* differs between models 0 and 1"):
        soup([good, {**good, "n": torch.tensor(4)}])
    for bad in ([1.0], [1.0, -1.0], [0.0, 0.0], [float("nan"), 1.0]):
        with pytest.raises(InputError, match="for 2 models"):
            soup([good, good], bad)
    with pytest.raises(InputError, match="at least one"):
        soup([])


def test_greedy_soup_adds_what_does_not_harm() -> None:
    # Scores by distance to 0: alone 3 (-1.0) is best; with 1 (mean 0.5) better; 2 (mean of 2, -1, 9) worse.
    candidates = [{"w": torch.tensor([v])} for v in (12.0, 2.0, 9.0, -1.0)]
    mixed, chosen = greedy_soup(candidates, lambda model: -abs(model["w"].item()))
    assert chosen == [3, 1] and mixed["w"].tolist() == [0.5]
    with pytest.raises(InputError, match="NaN"):
        greedy_soup(candidates, lambda model: float("nan"))
