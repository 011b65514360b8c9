"""Rule 2: two processes give the gradient of one, for every objective that exists, sharded or not."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING

import pytest
import torch
import work

from nextvec.objectives.base import Objective, Scaled, Sum

if TYPE_CHECKING:
    from pool import Pool


def objectives() -> list[tuple[str, str]]:
    """Every objective of the package, found in the files of objectives/ and methods/."""
    found = []
    for package in ("nextvec.objectives", "nextvec.methods"):
        for entry in pkgutil.iter_modules(importlib.import_module(package).__path__):
            module = importlib.import_module(f"{package}.{entry.name}")
            for cls in vars(module).values():
                if not inspect.isclass(cls) or not issubclass(cls, Objective) or cls.__module__ != module.__name__:
                    continue
                if cls.forward is not Objective.forward:  # else a base class, of which there is no term
                    found.append((module.__name__, cls.__name__))
    general = {cls.__name__ for cls in (Objective, Sum, Scaled)}
    return [(module, name) for module, name in found if name not in general and not name.startswith("_")]


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.linalg.norm(found[name] - tensor) <= tolerance * torch.linalg.norm(tensor) + 1e-12, name


def test_collectives(pool: Pool) -> None:
    for rank, (rows, start, sums, sizes) in enumerate(pool.run("work", "gathered")):
        assert rows == [0, 1, 10, 11, 12]
        assert start == 2 * rank
        assert sums == [2.0, 1.0]
        assert sizes == [5, 6]


@pytest.mark.parametrize(("module", "name"), objectives(), ids=lambda value: str(value).rpartition(".")[2])
@pytest.mark.parametrize("micro", [None, 2])
def test_every_objective(pool: Pool, module: str, name: str, micro: int | None) -> None:
    expected = work.objective_gradient(module, name, 7, None)
    for found in pool.run("work", "objective_gradient", module, name, 7, micro):
        close(found, expected)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("micro", [None, 2, 1])
def test_mixed_terms(pool: Pool, strategy: str, micro: int | None) -> None:
    expected = work.towers_gradient("single", None)
    assert any("log_scale" in name for name in expected)
    for found in pool.run("work", "towers_gradient", strategy, micro):
        close(found, expected)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_ema_target_and_two_passes_over_several_steps(pool: Pool, strategy: str) -> None:
    """The riskiest combination: two-pass batch terms, a target that follows by EMA, parameters in shards."""
    expected = work.student_steps("single", None, 4)
    first = work.student_steps("single", None, 0)
    assert any(not torch.equal(expected[name], first[name]) for name in expected if name.startswith("target"))
    for found in pool.run("work", "student_steps", strategy, 2, 4):
        close(found, expected)
