"""``fit``, run.yaml, and a training run killed again and again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from examples import examples
from nextvec.engine import checkpoint
from nextvec.training import fit, load_method, plan, read_plan
from nextvec.types import ConflictError, InputError, NotFoundError

HERE = Path(__file__).parent


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A catalogue of one: a file dropped into a folder is a method."""
    folder = tmp_path / "dropped_methods"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    text = (HERE / "small_methods.py").read_text()
    (folder / "small.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "dropped_methods"
    # Not by monkeypatch, which would put them back: other files of this process have a package of that name, too.
    for name in [name for name in sys.modules if name.startswith("dropped_methods")]:
        del sys.modules[name]


def test_a_run_writes_what_repeats_it(tmp_path: Path, package: str) -> None:
    out = tmp_path / "run"
    trained = fit("small", tmp_path, out=out, set=["steps=4", "width=8", "lr=0.01"], package=package, device="cpu")
    assert trained.report.step == 4
    values = yaml.safe_load((out / "run.yaml").read_text())
    assert values["config"]["width"] == 8
    assert values["train"]["optim"]["lr"] == 0.01
    assert values["train"]["schedule"]["warmup"] == 0
    again = fit(read_plan(out / "run.yaml", package=package), out=tmp_path / "again", package=package, device="cpu")
    left, right = trained.method.state_dict(), again.method.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)
    loaded = load_method(out, package=package)
    assert all(torch.equal(left[name], loaded.state_dict()[name]) for name in left)
    assert not loaded.training


def test_settings_find_their_place_and_unknown_ones_a_suggestion(package: str) -> None:
    made = plan("small", "data", ["width=9", "steps=7", "optim.name=muon", "train.seed=3", "warmup=5"], package=package)
    assert (made.config.width, made.train.steps, made.train.optim.name) == (9, 7, "muon")
    assert (made.train.seed, made.train.schedule.warmup) == (3, 5)
    with pytest.raises(InputError, match=r"unknown setting 'widht'.*did you mean 'width'"):
        plan("small", "data", ["widht=9"], package=package)
    with pytest.raises(InputError, match="expected key=value"):
        plan("small", "data", ["width"], package=package)
    with pytest.raises(NotFoundError, match=r"no 'smal' in .*did you mean 'small'"):
        plan("smal", "data", package=package)


def test_a_folder_with_a_run_is_never_mixed(tmp_path: Path, package: str) -> None:
    out = tmp_path / "run"
    fit("small", tmp_path, out=out, set=["steps=2"], package=package, device="cpu")
    with pytest.raises(ConflictError, match="holds a run: go on with --resume"):
        fit("small", tmp_path, out=out, set=["steps=2"], package=package, device="cpu")
    with pytest.raises(InputError, match="width was 6 and is now 7"):
        fit("small", tmp_path, out=out, set=["steps=2", "width=7"], resume=True, package=package, device="cpu")
    with pytest.raises(InputError, match="a run with data"):
        fit("small", tmp_path / "other", out=out, set=["steps=2"], resume=True, package=package, device="cpu")
    done = fit("small", tmp_path, out=out, set=["steps=2"], resume=True, package=package, device="cpu")
    assert done.report.step == 2
    for damaged in ("a: [", "[1, 2]", "method: small"):
        (tmp_path / "bad.yaml").write_text(damaged)
        with pytest.raises(InputError, match=r"bad\.yaml"):
            read_plan(tmp_path / "bad.yaml", package=package)


def test_data_that_cannot_be_used_leave_nothing_behind(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nextvec import catalog

    out = tmp_path / "run"

    def broken(data: Path, config: object, *, batch: int, seed: int, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "half").write_text("")
        raise InputError("these data will not do")

    with monkeypatch.context() as patch:
        patch.setattr(catalog.find(package, "small"), "prepare", broken)
        with pytest.raises(InputError, match="will not do"):
            fit("small", tmp_path, out=out, set=["steps=1"], package=package, device="cpu")
    assert not out.exists()
    fit("small", tmp_path, out=out, set=["steps=1", "width=7"], package=package, device="cpu")


def test_damaged_model_folders_are_told(tmp_path: Path, package: str) -> None:
    out = tmp_path / "run"
    fit("small", tmp_path, out=out, set=["steps=1"], package=package, device="cpu")
    with pytest.raises(NotFoundError, match="not the model/ folder"):
        load_method(tmp_path, package=package)
    weights = out / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(InputError, match="does not hold this method's weights"):
        load_method(out, package=package)
    (out / "model" / "method.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_method(out, package=package)


_SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from nextvec.training import fit
fit("small", ".", out=sys.argv[2], set=["steps=24", "save_every=1", "keep=2", "average=0.9", "micro=4"],
    resume=True, package="dropped_methods", device="cpu", on_step=lambda report: time.sleep(0.01))
"""


def test_killed_at_random_moments_and_resumed_it_ends_bit_equal(tmp_path: Path, package: str) -> None:
    straight = fit(
        "small",
        tmp_path,
        out=tmp_path / "straight",
        set=["steps=24", "save_every=1", "average=0.9", "micro=4"],
        package=package,
        device="cpu",
    )
    out = tmp_path / "killed"
    draws = random.Random(5)
    kills, steps = 0, []
    for attempt in range(40):
        command = [sys.executable, "-c", _SCRIPT, str(tmp_path), str(out)]
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(HERE)}, stderr=subprocess.PIPE, text=True
        )
        if attempt < examples(2, 3):
            # From the first checkpoint on the disk is busy all the time: a random moment hits every kind of work.
            _wait_for_progress(process, out, at_least=steps[-1] + 1 if steps else 1)
            time.sleep(draws.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors
        kills += 1
        newest = checkpoint.latest(out)
        assert newest is not None
        steps.append(int(checkpoint.read_info(newest)["step"]))
    assert kills >= 2
    assert len(set(steps)) > 1
    assert process.returncode == 0
    left = load_file(tmp_path / "straight" / "model" / "weights.safetensors")
    right = load_file(out / "model" / "weights.safetensors")
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert straight.report.step == 24
    assert int(right["moved"]) == 24


def _wait_for_progress(process: subprocess.Popen[str], out: Path, *, at_least: int) -> None:
    for _ in range(6000):
        names = [int(path.name.removeprefix("step-")) for path in out.glob("step-*")]
        if process.poll() is not None or (names and max(names) >= at_least):
            return
        time.sleep(0.01)
    raise AssertionError("the run made no progress in 60 s")
