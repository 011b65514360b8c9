"""The engine: state moves once per step, resuming is exact, numbers that are not finite stop it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_methods import Rows, Small

from nextvec.engine import checkpoint
from nextvec.engine.engine import Engine, Report, TrainConfig
from nextvec.engine.guard import NonFiniteError
from nextvec.engine.optim import OptimConfig
from nextvec.types import InputError


def engine(**settings: object) -> Engine:
    torch.manual_seed(0)
    config = TrainConfig(**({"steps": 8, "batch": 6, "optim": OptimConfig(lr=0.02)} | settings))  # type: ignore[arg-type]
    return Engine(Small(Small.Config()), config, device="cpu")


def equal(one: Engine, other: Engine) -> bool:
    left, right = one.state(), other.state()
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


def test_training_lowers_the_loss() -> None:
    losses: list[float] = []
    engine(steps=200).fit(Rows(16), on_step=lambda report: losses.append(report.loss))
    assert len(losses) == 200
    assert sum(losses[-20:]) < 0.75 * sum(losses[:20])


@pytest.mark.parametrize("micro", [None, 1, 4])
def test_ema_queue_and_counters_move_once_per_step(micro: int | None) -> None:
    trained = engine(micro=micro, steps=3)
    before = trained.method.target[0].weight.clone()
    online = []
    for step in range(3):
        trained.step(Rows(6).batch(step))
        online.append(trained.method.online[0].weight.detach().clone())
    assert int(trained.method.moved) == 3
    expected = before
    for weight in online:
        expected = 0.9 * expected + 0.1 * weight
    assert torch.allclose(trained.method.target[0].weight, expected, atol=1e-6)
    assert int((trained.objective.seen.abs().sum(1) > 0).sum()) == 4


def test_resuming_is_bit_for_bit(tmp_path: Path) -> None:
    straight = engine(steps=8, average=0.9, micro=4)
    straight.fit(Rows(6), folder=tmp_path / "straight")
    stopped = engine(steps=8, average=0.9, micro=4, save_every=3)

    def stop(report: Report) -> None:
        if report.step == 5:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        stopped.fit(Rows(6), folder=tmp_path / "stopped", on_step=stop)
    resumed = engine(steps=8, average=0.9, micro=4, save_every=3)
    torch.rand(7)  # wherever the generator stands, resuming puts it back
    resumed.fit(Rows(6), folder=tmp_path / "stopped")
    assert equal(resumed, straight)
    lines = [json.loads(line)["step"] for line in (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()]
    assert lines == sorted(set(lines))
    other = engine(steps=8, average=0.9, micro=4)
    other.fit(Rows(6, seed=1))
    assert not equal(other, straight)  # the comparison can fail


def test_interrupting_saves(tmp_path: Path) -> None:
    def interrupt(report: Report) -> None:
        if report.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine().fit(Rows(6), folder=tmp_path, on_step=interrupt)
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    assert checkpoint.read_info(newest)["step"] == 2


def test_numbers_that_are_not_finite_stop_before_anything_moves(tmp_path: Path) -> None:
    trained = engine()
    trained.step(Rows(6).batch(0))
    before = {name: value.clone() for name, value in trained.state().items()}
    with torch.no_grad():
        trained.method.online[2].weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"step 2: .*first bad: online\.2 \(Linear\)"):
        trained.step(Rows(6).batch(1))
    assert trained.done == 1
    assert torch.equal(trained.method.online[0].weight, before["method.online.0.weight"])


def test_gradients_are_clipped_to_the_norm() -> None:
    trained = engine(clip=0.01)
    norm = trained.step(Rows(6).batch(0)).logs["grad_norm"]
    clipped = torch.nn.utils.get_total_norm([p.grad for p in trained.method.parameters() if p.grad is not None])
    assert norm > 0.01
    assert float(clipped) == pytest.approx(0.01, rel=1e-3)


def test_bf16_is_close_to_fp32() -> None:
    fp32, bf16 = (engine(precision=precision).gradients(Rows(6).batch(0)).loss for precision in ("fp32", "bf16"))
    assert bf16 == pytest.approx(fp32, rel=0.05)
    assert bf16 != fp32


def test_settings_and_checkpoints_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"precision is 'bf61'.*did you mean 'bf16'"):
        TrainConfig(precision="bf61")
    for wrong in ({"steps": 0}, {"batch": 0}, {"average": 1.0}, {"clip": -1.0}):
        with pytest.raises(InputError):
            TrainConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="strategy 'fsdp' needs several processes"):
        engine(strategy="fsdp")
    trained = engine()
    trained.step(Rows(6).batch(0))
    trained.save(tmp_path)
    other = engine()
    other.method.card = Small.card.__class__(**{**vars(Small.card), "name": "another"})  # type: ignore[misc]
    with pytest.raises(InputError, match=r"of method 'small', expected 'another'"):
        other.resume(tmp_path)
    short = engine(steps=8)
    short.config.steps = 1
    trained.step(Rows(6).batch(1))
    trained.save(tmp_path)
    with pytest.raises(InputError, match="at step 2, after the 1 steps"):
        short.resume(tmp_path)
