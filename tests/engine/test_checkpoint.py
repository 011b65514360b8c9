"""Checkpoints: exact, whole or not there, and never loaded where a byte is wrong."""

from __future__ import annotations

import errno
import gc
import json
import logging
import multiprocessing
import os
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine needs torch: pip install 'nextvec[hf]'")

from torch import Tensor  # noqa: E402

from nextvec import __version__  # noqa: E402
from nextvec.engine import checkpoint  # noqa: E402
from nextvec.types import InputError, NotFoundError, StorageError  # noqa: E402

INFO = {"method": "small", "train": {"lr": 0.1}}


def state(value: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    matrix = torch.randn(6, 4, generator=generator) * value
    return {
        "method.matrix": matrix,
        "method.tied": matrix.detach(),
        "method.turned": torch.randn(3, 5, generator=generator).T,
        "method.half": torch.randn(7, generator=generator).bfloat16(),
        "method.none": torch.zeros(0, 3),
        "method.mask": torch.tensor([True, False]),
        "method.count": torch.tensor(2**53 + 1),
        "optim.matrix.step": torch.tensor(value),
        **checkpoint.rng_tensors(),
    }


def blank(like: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(value) for name, value in like.items()}


def assert_holds(path: Path, expected: dict[str, Tensor]) -> None:
    found = blank(expected)
    checkpoint.load(path, found)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_every_kind_of_tensor_comes_back_and_nothing_is_said(tmp_path: Path) -> None:
    saved = state()
    gc.collect()  # what earlier tests left open would be reported below as ours
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = checkpoint.save(tmp_path / "run", 12, saved, INFO)
        assert_holds(path, saved)
        assert checkpoint.latest(tmp_path / "run") == path
    assert path == tmp_path / "run" / "step-00000012"
    info = checkpoint.read_info(path, method="small")
    expected = {**INFO, "step": 12, "format": checkpoint.FORMAT, "nextvec": __version__, "world": 1}
    assert {key: info[key] for key in expected} == expected
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}  # no pickles
    assert all(stored["bytes"] == (path / name).stat().st_size for name, stored in info["files"].items())


def test_parameters_are_filled_in_place(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    path = checkpoint.save(tmp_path, 1, layer.state_dict(), INFO)
    other = torch.nn.Linear(3, 2)
    checkpoint.load(path, dict(other.named_parameters()))
    assert torch.equal(layer.weight, other.weight) and torch.equal(layer.bias, other.bias)


def test_the_newest_are_kept_and_leftovers_go(tmp_path: Path) -> None:
    left = tmp_path / ".step-00000001.part"
    left.mkdir()
    (left / "half").write_text("torn")
    (tmp_path / "log.jsonl").write_text("{}\n")
    assert checkpoint.scan(tmp_path) == (None, [])
    for step in (1, 2, 10, 3):
        checkpoint.save(tmp_path, step, state(), INFO, keep=2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.jsonl", "step-00000003", "step-00000010"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000010"
    assert checkpoint.latest(tmp_path / "nowhere") is None


def test_damaged_ones_do_not_count_among_those_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, state(step), INFO, keep=3)
    (tmp_path / "step-00000003" / "info.json").unlink()
    checkpoint.save(tmp_path, 4, state(4), INFO, keep=2)
    assert (tmp_path / "step-00000002").exists() and not (tmp_path / "step-00000001").exists()


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 5, state(1), INFO)
    path = checkpoint.save(tmp_path, 5, state(2), INFO)
    assert_holds(path, state(2))
    assert [file.name for file in tmp_path.iterdir()] == ["step-00000005"]


def shard(path: Path) -> Path:
    return next(path.glob("*.safetensors"))


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "cut short": lambda path: os.truncate(shard(path), shard(path).stat().st_size - 1),
    "emptied": lambda path: os.truncate(shard(path), 0),
    "a bit flipped": lambda path: flip(shard(path), shard(path).stat().st_size // 2),
    "no shard": lambda path: shard(path).unlink(),
    "another shard": lambda path: (path / "shard-00009-model.safetensors").write_bytes(shard(path).read_bytes()),
    "no info": lambda path: (path / "info.json").unlink(),
    "info cut short": lambda path: os.truncate(path / "info.json", 40),
    "info is a list": lambda path: (path / "info.json").write_text("[1]"),
    "info emptied": lambda path: (path / "info.json").write_text(""),
    "another step in info": lambda path: (path / "info.json").write_text(
        (path / "info.json").read_text().replace('"step": 2', '"step": 3')
    ),
    "only a folder": lambda path: [file.unlink() for file in path.iterdir()],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_one_is_skipped_and_never_loaded(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint.save(tmp_path, 1, state(1), INFO)
    torn = checkpoint.save(tmp_path, 2, state(2), INFO)
    DAMAGE[kind](torn)
    newest, notes = checkpoint.scan(tmp_path)
    assert newest == tmp_path / "step-00000001"
    assert len(notes) == 1 and "step-00000002" in notes[0] and "skipped" in notes[0]
    assert_holds(newest, state(1))
    found = blank(state())
    with pytest.raises(StorageError, match="step-00000002") as caught:
        checkpoint.load(torn, found)
    assert "\n" not in str(caught.value)
    assert all(not value.any() for value in found.values())
    with caplog.at_level(logging.WARNING):
        assert checkpoint.latest(tmp_path) == newest
    assert notes[0] in caplog.text
    replaced = checkpoint.save(tmp_path, 2, state(3), INFO)
    assert_holds(replaced, state(3))


def test_no_byte_goes_unseen(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {"w": torch.arange(4.0)}, INFO)
    generator = np.random.default_rng(0)
    for file in path.iterdir():
        whole = file.read_bytes()
        for place in generator.integers(0, len(whole), 60):
            if whole[place : place + 1].isspace():
                continue  # between the values of info.json it says nothing
            flip(file, int(place))
            assert checkpoint.scan(tmp_path)[0] is None, (file.name, place)
            file.write_bytes(whole)
    assert checkpoint.scan(tmp_path)[0] == path


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refuses at every place in turn at which the code asks it for something."""
    checkpoint.save(tmp_path, 1, state(1), INFO)
    owner: Any = os if call == "fsync" else Path
    real, calls, failed = getattr(owner, call), [0], 0

    def refuse(*args: Any) -> Any:
        calls[0] -= 1
        if calls[0] == -1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(owner, call, refuse)
    for place in range(20):
        calls[0] = place
        try:
            checkpoint.save(tmp_path, 2, state(2), INFO)
        except StorageError as error:
            assert "the disk is full" in str(error) and "\n" not in str(error)
            failed += 1
        else:
            break
        assert not list(tmp_path.glob(".*"))
        calls[0] = 1000
        newest = checkpoint.latest(tmp_path)
        # The last request comes when the new one is already in place.
        assert newest is not None and newest.name in ("step-00000001", "step-00000002")
        assert_holds(newest, state(int(newest.name[-1])))
        assert_holds(tmp_path / "step-00000001", state(1))
    assert failed >= {"fsync": 4, "rename": 1}[call]
    assert_holds(tmp_path / "step-00000002", state(2))


def test_a_limit_on_file_size_is_one_clear_line(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, state(1), INFO)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StorageError, match=r"(?i)too large"):
            checkpoint.save(tmp_path, 2, {**state(2), "big": torch.zeros(100_000)}, INFO)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert_holds(path, state(1))


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(StorageError, match="run"):
        checkpoint.save(tmp_path / "run", 1, state(), INFO)
    assert (tmp_path / "run").read_text() == "mine"


def test_an_interrupt_while_writing_is_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.save(tmp_path, 1, state(1), INFO)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.HuggingFaceStorageWriter, "write_data", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 2, state(2), INFO)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def save_on_and_on(folder: Path) -> None:
    torch.set_num_threads(1)
    newest = checkpoint.latest(folder)
    first = 1 + (checkpoint.read_info(newest)["step"] if newest else 0)
    for step in range(first, first + 100_000):
        checkpoint.save(folder, step, {"w": torch.full((20_000,), float(step))}, INFO)


def test_killed_while_saving(tmp_path: Path) -> None:
    """SIGKILL at ten moments: what is found is whole, holds what its step says, and the run goes on from there."""
    generator = np.random.default_rng(1)
    last = 0
    for _ in range(10):
        process = multiprocessing.get_context("fork").Process(target=save_on_and_on, args=(tmp_path,))
        process.start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (tmp_path / f"step-{last + 1:08d}").exists():
            time.sleep(0.002)
        time.sleep(float(generator.uniform(0, 0.05)))
        process.kill()
        process.join()
        newest, notes = checkpoint.scan(tmp_path)
        assert newest is not None and notes == []
        step = checkpoint.read_info(newest)["step"]
        assert step > last and checkpoint.read(newest)["w"].unique().tolist() == [float(step)]
        last = step
    checkpoint.save(tmp_path, last + 1, {"w": torch.zeros(1)}, INFO)
    assert not list(tmp_path.glob(".*"))


def rewrite(path: Path, **changes: Any) -> None:
    """Change info.json as another version would have written it."""
    info = {**json.loads((path / "info.json").read_text()), **changes}
    (path / "info.json").write_text(json.dumps({**info, "digest": checkpoint._digest(info)}))


def test_what_does_not_fit_is_named_and_changes_nothing(tmp_path: Path) -> None:
    saved = state()
    path = checkpoint.save(tmp_path, 3, saved, INFO)
    cases: list[tuple[str, dict[str, Tensor]]] = [
        (r"lacks 'method\.matrx'; did you mean 'method\.matrix'", {"method.matrx": torch.zeros(6, 4)}),
        (
            r"'method\.matrix' as torch\.float32 \[6, 4\]; expected torch\.float32 \[6, 5\]",
            {"method.matrix": torch.zeros(6, 5)},
        ),
        (r"expected torch\.float64 \[6, 4\]", {"method.matrix": torch.zeros(6, 4, dtype=torch.float64)}),
        (r"lacks 'rng\.cpu\.7': it was saved by 1 process", {"rng.cpu.7": torch.zeros(3, dtype=torch.uint8)}),
    ]
    for message, changed in cases:
        found = blank(saved) | changed
        with pytest.raises(InputError, match=message):
            checkpoint.load(path, found)
        assert all(not value.any() for value in found.values())
    part = {"method.count": torch.tensor(0)}
    with pytest.raises(InputError, match="which is not expected here"):
        checkpoint.load(path, part)
    checkpoint.load(path, part, partial=True)
    assert part["method.count"].item() == 2**53 + 1
    with pytest.raises(InputError, match="is of method 'small', expected 'large'"):
        checkpoint.load(path, blank(saved), method="large")
    with pytest.raises(NotFoundError, match="no checkpoint"):
        checkpoint.load(tmp_path / "step-00000009", blank(saved))


def test_another_format_is_refused_not_skipped(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 3, state(), INFO)
    rewrite(path, format=2, nextvec="9.9")
    for look in (checkpoint.latest, checkpoint.scan):
        with pytest.raises(InputError, match=r"has format 2 \(of nextvec '9\.9'\)"):
            look(tmp_path)
    with pytest.raises(InputError, match="format 2"):
        checkpoint.load(path, blank(state()))


def test_unusable_arguments_write_nothing(tmp_path: Path) -> None:
    for step, keep, info, message in [
        (-1, 2, INFO, "step -1"),
        (1, 0, INFO, "keep 0"),
        (1, 2, {}, "must hold 'method'"),
        (1, 2, {**INFO, "at": Path("x")}, "must be JSON"),
    ]:
        with pytest.raises(InputError, match=message):
            checkpoint.save(tmp_path / "run", step, state(), info, keep=keep)
    assert not (tmp_path / "run").exists()


def test_read_gives_what_begins_so(tmp_path: Path) -> None:
    saved = state()
    path = checkpoint.save(tmp_path, 3, saved, INFO)
    found = checkpoint.read(path, prefix="method.")
    assert {f"method.{name}" for name in found} == {name for name in saved if name.startswith("method.")}
    assert all(torch.equal(value, saved[f"method.{name}"]) for name, value in found.items())
    with pytest.raises(NotFoundError, match="'model'"):
        checkpoint.read(path, prefix="model")


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    torch.manual_seed(3)
    path = checkpoint.save(tmp_path, 1, checkpoint.rng_tensors(), INFO)
    expected = torch.rand(4)
    torch.manual_seed(4)
    found = checkpoint.rng_tensors()
    checkpoint.load(path, found)
    checkpoint.set_rng({**found, "rng.cpu.5": torch.zeros(1, dtype=torch.uint8)})
    assert torch.equal(torch.rand(4), expected)
    with pytest.raises(InputError, match=r"rng\.cpu\.0"):
        checkpoint.set_rng({})
