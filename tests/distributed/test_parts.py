"""Optimisers, moving averages and checkpoints under FSDP2: as in one process, and from one number of processes to
another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import parts_work
import pytest
import torch

from nextvec.engine import checkpoint
from nextvec.types import InputError

if TYPE_CHECKING:
    from pool import Pool


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_sharded_training_is_that_of_one_process(pool: Pool) -> None:
    """Muon, AdamW, the EMA target and the weight average."""
    expected = parts_work.trained(shard=False, steps=4)
    start = parts_work.trained(shard=False, steps=0)
    assert not torch.equal(start["method.blocks.0.weight"], expected["method.blocks.0.weight"])
    for found in pool.run("parts_work", "trained_sharded", 4):
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_averaged_weights_stand_in_when_sharded(pool: Pool) -> None:
    expected = parts_work.averaged_output(shard=False)
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    for found in pool.run("parts_work", "averaged_sharded"):
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert torch.equal(found[0], found[2])


def test_sharded_training_resumes_bit_for_bit(pool: Pool, tmp_path: Path) -> None:
    for whole, resumed in pool.run("parts_work", "interrupted", str(tmp_path)):
        equal(resumed, whole)
    # What two processes wrote in parts opens in one.
    path = tmp_path / "step-00000003"
    assert checkpoint.read_info(path)["world"] == 2
    expected = pool.run("parts_work", "trained_sharded", 3)[0]
    parts = parts_work.built(shard=False, seed=4)
    state = {name: value for name, value in parts_work.tensors(*parts).items() if name != "rng.cpu.0"}
    checkpoint.load(path, state)
    equal(parts_work.comparable(state), expected)
    equal(checkpoint.read(path, prefix="average."), checkpoint_part(expected, "average."))


def checkpoint_part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def test_replicas_are_written_once_and_one_process_writes_for_two(pool: Pool, tmp_path: Path) -> None:
    path = Path(pool.run("parts_work", "plain_saved", str(tmp_path / "two"))[0])
    parts = parts_work.built(shard=False)
    expected = parts_work.tensors(*parts)
    held = sum(value.numel() * value.element_size() for value in expected.values())
    written = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    assert written < held + 5056 + 20_000  # a second random state, and the headers
    equal(checkpoint.read(path, prefix="method."), checkpoint_part(expected, "method."))
    tensors = {name: value for name, value in expected.items() if name != "rng.cpu.0"}
    own = checkpoint.save(tmp_path / "one", 1, tensors, parts_work.INFO)
    for found in pool.run("parts_work", "loaded_sharded", str(own)):
        equal(found, parts_work.comparable(expected))


def test_a_failure_in_one_process_is_told_in_both(pool: Pool, tmp_path: Path) -> None:
    for told, files in pool.run("parts_work", "refusals", str(tmp_path)):
        (first, message, changed), (second, full, _) = told
        assert (first, second) == ("InputError", "StorageError") and changed == 0
        assert "lacks 'rng.cpu.1'" in message and "the disk is full" in full
        assert files == ["step-00000001"]


def test_more_processes_than_saved_is_told(pool: Pool, tmp_path: Path) -> None:
    state = checkpoint.rng_tensors()
    path = checkpoint.save(tmp_path, 1, state, {"method": "small"})
    with pytest.raises(InputError, match=r"rng\.cpu\.1.* saved by 1 process"):
        checkpoint.load(path, {"rng.cpu.1": torch.zeros_like(state["rng.cpu.0"])})
