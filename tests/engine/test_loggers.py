"""Records: lines of JSON that survive a resume, and the two extras through stand-ins."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("torch", reason="the engine needs torch: pip install 'nextvec[hf]'")

from nextvec.engine.loggers import FILE, Loggers
from nextvec.engine.meter import Meter, measured_peak
from nextvec.types import InputError, MissingExtraError, NextvecError, StorageError


def entries(folder: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / FILE).read_text().splitlines()]


def test_each_line_is_json_and_readable_at_once(tmp_path: Path) -> None:
    log = Loggers.open(tmp_path / "run", run_info={})
    log.log(1, {"loss": 0.5, "count": 3})
    assert entries(tmp_path / "run") == [{"step": 1, "loss": 0.5, "count": 3.0}]
    log.log(2, {"loss": math.nan, "norm": math.inf, "step": 99})
    log.log(2, {"accuracy": 1.0})
    log.close()
    log.close()
    assert entries(tmp_path / "run")[1:] == [{"step": 2, "loss": None, "norm": None}, {"step": 2, "accuracy": 1.0}]
    with pytest.raises(InputError, match="step 1 was logged after step 2"):
        log.log(1, {})


def test_a_resumed_run_records_no_step_twice(tmp_path: Path) -> None:
    log = Loggers.open(tmp_path, run_info={})
    for step in range(1, 8):
        log.log(step, {"loss": 1.0 / step})
    log.close()
    with (tmp_path / FILE).open("a") as stream:
        stream.write(
            'not JSON\n{"loss": 2.0}\n{"step": "x"}\n[3]\n{"step": 3, "lo'
        )  # the last one cut short by a crash
    log = Loggers.open(tmp_path, resumed=4, run_info={})
    for step in range(5, 9):
        log.log(step, {"loss": 0.0})
    log.close()
    assert [(e["step"], e["loss"]) for e in entries(tmp_path)] == [
        *((step, 1.0 / step) for step in range(1, 5)),
        *((step, 0.0) for step in range(5, 9)),
    ]
    Loggers.open(tmp_path, run_info={}).close()  # a new run in the same folder
    assert entries(tmp_path) == []


def test_a_cut_line_at_the_resumed_step_is_dropped(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"step": 1}\n{"step": 2}')
    Loggers.open(tmp_path, resumed=2, run_info={}).close()
    assert entries(tmp_path) == [{"step": 1}]


def test_what_the_disk_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        Loggers.open(tmp_path / "file", run_info={})
    if Path("/dev/full").exists():
        (tmp_path / FILE).symlink_to("/dev/full")
        with pytest.raises(StorageError):
            Loggers.open(tmp_path, run_info={}).log(1, {"loss": 1.0})


class Board:
    made: ClassVar[list[Board]] = []

    def __init__(self, folder: str, **settings: Any) -> None:
        self.folder, self.settings, self.calls = folder, settings, []
        Board.made.append(self)

    def add_scalar(self, *values: Any) -> None:
        self.calls.append(values)

    def add_text(self, *values: Any) -> None:
        self.calls.append(values[:1])

    def close(self) -> None:
        self.calls.append("closed")


def test_tensorboard_gets_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Board  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    for resumed in (0, 4):
        log = Loggers.open(tmp_path, resumed=resumed, tensorboard=True, run_info={"lr": 0.1})
        log.log(resumed + 1, {"loss": 0.5})
        log.close()
    first, second = Board.made
    assert first.folder == str(tmp_path / "tensorboard") and first.settings == {"purge_step": 1}
    assert first.calls == [("run",), ("loss", 0.5, 1), "closed"]
    assert second.settings == {"purge_step": 5} and second.calls == [("loss", 0.5, 5), "closed"]
    assert [entry["step"] for entry in entries(tmp_path)] == [1, 5]  # JSON lines always


class Run:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def log(self, values: dict[str, float], *, step: int) -> None:
        self.calls.append((step, values))

    def finish(self) -> None:
        self.calls.append("finished")


def test_wandb_goes_on_under_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, starts, run = types.ModuleType("wandb"), [], Run()

    def init(**settings: Any) -> Run:
        starts.append(settings)
        return run

    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    for resumed in (0, 1):
        log = Loggers.open(tmp_path, resumed=resumed, wandb=True, run_info={"lr": 0.1})
        log.log(resumed + 1, {"loss": 0.5})
        log.close()
    assert run.calls == [(1, {"loss": 0.5}), "finished", (2, {"loss": 0.5}), "finished"]
    assert starts[0] == starts[1] and starts[0]["config"] == {"lr": 0.1} and starts[0]["project"] == "nextvec"
    assert starts[0]["id"] and starts[0]["resume"] == "allow"

    def refuse(**_: Any) -> None:
        raise RuntimeError("api_key not configured\nmore")

    fake.init = refuse  # type: ignore[attr-defined]
    with pytest.raises(NextvecError, match=r"api_key not configured; .*WANDB_MODE=offline") as caught:
        Loggers.open(tmp_path, resumed=2, wandb=True, run_info={})
    assert "\n" not in str(caught.value)
    assert [entry["step"] for entry in entries(tmp_path)] == [1, 2]


@pytest.mark.parametrize("module", ["tensorboard", "wandb"])
def test_an_absent_logger_names_its_extra(tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hidden:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.partition(".")[0] == module:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"pip install 'nextvec\[log\]'"):
        Loggers.open(tmp_path, run_info={}, **{module: True})


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_meter_by_hand() -> None:
    clock = Clock()
    meter = Meter(clock=clock)
    assert meter.read() == {}
    meter.add(tokens=30, examples=2)
    clock.now += 1
    meter.add(tokens=70, examples=3)
    clock.now += 1
    with meter.paused():
        clock.now += 1000
    values = meter.read("cpu")
    assert values.pop("peak_memory_bytes") > 10_000_000
    assert values == {"tokens_per_second": 50.0, "examples_per_second": 2.5}
    clock.now += 3
    assert meter.read() == {}
    meter.add(tokens=8, examples=1)
    clock.now += 1
    assert meter.read()["tokens_per_second"] == 2.0  # 3 s without work count too


def test_utilisation_is_of_the_measured_peak() -> None:
    import torch

    clock = Clock()
    peak = measured_peak("cpu", torch.float32)
    assert peak > 1e8 and measured_peak("cpu", torch.float32) == peak
    meter = Meter(peak / 10, clock=clock)
    meter.add(tokens=5, examples=1)
    clock.now += 1
    assert meter.read()["mfu"] == pytest.approx(0.5)
