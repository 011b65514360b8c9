"""What every method of the catalogue must satisfy. Each contract is a function of a method's class; a test runs every
contract on every file of methods/, so that a new file is held to all of them without being named anywhere."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nextvec.data.samples import KINDS, write_sample
from nextvec.engine.accumulate import backward
from nextvec.engine.engine import Engine, TrainConfig
from nextvec.engine.method import Method
from nextvec.engine.parallel import Parallel
from nextvec.types import Batch, Ragged, Run

Contract = Callable[[type[Method]], None]
BRIEF: dict[str, Any] = {"depth": 2, "teacher_steps": 3}
"""What a method that is only to read its data is made with, where it has such a setting."""


def toy(cls: type[Method], *, seed: int = 0, double: bool = False) -> tuple[Method, Batch]:
    """The method's toy instance and batch, in float64 where asked."""
    torch.manual_seed(seed)
    method, batch = cls.toy(seed)
    method.train()
    return (method.double(), widen(batch)) if double else (method, batch)


def widen(batch: Batch) -> Batch:
    """Floating-point columns in float64."""

    def wide(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    columns = {n: Ragged(wide(c.values), c.lengths) if isinstance(c, Ragged) else wide(c) for n, c in batch.items()}
    return Batch(columns, task=batch.task)


def loss_and_gradient(method: Method, micros: list[Batch]) -> tuple[float, dict[str, Tensor]]:
    """One step's loss and gradients by parameter name, through the engine's accumulation."""
    objective = method.objective().to(next(method.parameters()).dtype)
    losses = backward(Parallel(method), objective, micros)
    found = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    return losses.loss, found


def close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Equal names, and each gradient within ``tolerance`` of the largest."""
    assert found.keys() == expected.keys()
    scale = max(float(torch.linalg.norm(gradient)) for gradient in expected.values())
    assert scale > 0
    for name, gradient in expected.items():
        assert float(torch.linalg.norm(found[name] - gradient)) <= tolerance * scale, name


def contract_finite_loss(cls: type[Method]) -> None:
    method, batch = toy(cls)
    assert batch.size >= 6, "the toy batch needs six examples: it is divided unevenly"
    loss, gradients = loss_and_gradient(method, [batch])
    assert math.isfinite(loss)
    assert gradients
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values())


def contract_reads_its_sample(cls: type[Method]) -> None:
    """The sample of the format that the method names is one it learns from; those on a trained model read it alike."""
    assert cls.sample in KINDS
    needed = [field.name for field in fields(cls.Config) if field.name in ("base", "model") and field.default == ""]
    if needed:
        return
    with tempfile.TemporaryDirectory() as folder:
        data = write_sample(cls.sample, Path(folder) / "sample")
        known = {field.name: field.default for field in fields(cls.Config)}
        small = {name: value for name, value in BRIEF.items() if name in known}
        small |= dict(setting.split("=") for setting in cls.begins)
        own = dict(setting.split("=") for setting in cls.train_settings)
        batch = int(own.get("batch", TrainConfig().batch))
        method, source = cls.prepare(data, cls.Config(**small), batch=batch, seed=0, folder=Path(folder))
        whole = source.batch(0)  # as large as in a training; what is learned from it shows with a few examples
        few = whole.split([4, whole.size - 4])[0] if whole.size > 4 else whole
        loss, _ = loss_and_gradient(method, [few])
    assert math.isfinite(loss)


def contract_overfits_its_toy_batch_in_the_direction_it_says(cls: type[Method]) -> None:
    """Within 150 steps the loss falls by 30 %; who halves it earlier, with every figure on its way, need not go on."""
    method, batch = toy(cls)
    objective = method.objective()
    assert cls.direction, "name the figures that training must move: direction = {'accuracy': 'up'}"
    assert set(cls.direction.values()) <= {"up", "down"}
    optimiser = torch.optim.Adam([*method.parameters(), *objective.parameters()], lr=5e-3)
    losses: list[float] = []
    logs: list[dict[str, float]] = []
    for step in range(150):
        optimiser.zero_grad()
        result = backward(Parallel(method), objective, [batch])
        optimiser.step()
        objective.commit()
        method.after_step(step + 1)
        losses.append(result.loss)
        logs.append(result.logs)
        if step % 30 == 29 and fell(losses, 0.5) and not astray(logs, cls.direction):
            return
    assert fell(losses, 0.3), f"loss {losses[:5]} -> {losses[-5:]}"
    assert not astray(logs, cls.direction), astray(logs, cls.direction)


def fell(losses: list[float], share: float) -> bool:
    """Whether the mean of the last five lies below that of the first five by ``share`` of it."""
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    return last < first - share * abs(first)


def astray(logs: list[dict[str, float]], direction: Mapping[str, str]) -> list[str]:
    """The figures that did not move as ``direction`` says, from the first five steps to the last five."""
    found = []
    for name, way in direction.items():
        before, after = (sum(entry[name] for entry in part) / 5 for part in (logs[:5], logs[-5:]))
        if (after > before) != (way == "up"):
            found.append(f"{name} {before:.4f} -> {after:.4f}, expected {way}")
    return found


def contract_order_of_examples_does_not_matter(cls: type[Method]) -> None:
    method, batch = toy(cls, double=True)
    order = torch.randperm(batch.size, generator=torch.Generator().manual_seed(3)).tolist()
    assert order != list(range(batch.size))
    parts = batch.split([1] * batch.size)
    shuffled = join([parts[i] for i in order])
    assert abs(loss_and_gradient(method, [shuffled])[0] / loss_and_gradient(method, [batch])[0] - 1) < 1e-5


def join(parts: list[Batch]) -> Batch:
    """The examples of the parts, in order, as one batch."""
    columns: dict[str, Any] = {}
    for name, column in parts[0].items():
        if isinstance(column, Ragged):
            ragged = [part.ragged(name) for part in parts]
            columns[name] = Ragged(torch.cat([r.values for r in ragged]), torch.cat([r.lengths for r in ragged]))
        else:
            columns[name] = torch.cat([part.tensor(name) for part in parts])
    return Batch(columns, task=parts[0].task)


def contract_micro_batches_equal_the_whole(cls: type[Method]) -> None:
    method, batch = toy(cls, double=True)
    whole_loss, whole = loss_and_gradient(method, [batch])
    for sizes in ([1, 2, batch.size - 3], [batch.size - 1, 1]):
        loss, found = loss_and_gradient(method, batch.split(sizes))
        assert abs(loss - whole_loss) <= 1e-6 * max(1.0, abs(whole_loss))
        close(found, whole, 1e-6)


def contract_bf16_is_close_to_fp32(cls: type[Method]) -> None:
    method, batch = toy(cls)
    objective = method.objective()
    fp32 = backward(Parallel(method), objective, [batch]).loss
    bf16 = backward(
        Parallel(method), objective, [batch], autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    ).loss
    assert abs(bf16 - fp32) <= 0.05 * max(abs(fp32), 0.1)


def contract_saved_and_loaded_it_gives_the_same(cls: type[Method]) -> None:
    method, batch = toy(cls)
    method.eval()
    with tempfile.TemporaryDirectory() as folder:
        method.save(Path(folder) / "model")
        loaded = cls.load(Path(folder) / "model")
    with torch.no_grad():
        one, other = method(batch), loaded(batch)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    assert loaded.config == method.config


def contract_the_card_is_complete(cls: type[Method]) -> None:
    card = cls.card
    assert card.name == cls.__module__.rpartition(".")[2]
    for field in fields(card):
        if field.name != "arxiv":
            assert getattr(card, field.name), f"the card lacks {field.name}"
    assert re.fullmatch(r"\d{4}\.\d{4,5}|", card.arxiv)
    assert 1990 <= card.year <= 2100
    assert all(len(line) > 10 for line in card.differs)
    assert len(card.claim) > 20
    module = __import__(cls.__module__, fromlist=["__doc__"])
    assert module.__doc__, "the file's docstring holds idea, equations, shapes and source"
    assert "Legend" in module.__doc__, "the file's docstring lacks its Legend of symbols and shapes"
    assert card.arxiv in module.__doc__


def contract_the_exported_encoder_opens_elsewhere(cls: type[Method]) -> None:
    method, _ = toy(cls)
    encoder = method.eval().encoder()
    if encoder is None:
        assert "encoder" in (cls.encoder.__doc__ or ""), "say in encoder()'s docstring why there is none"
        return
    import numpy as np
    from sentence_transformers import SentenceTransformer

    texts = ["a small text", "and another one, somewhat longer than the first"]
    with tempfile.TemporaryDirectory() as folder:
        saved = encoder.save(Path(folder) / "encoder")
        other = SentenceTransformer(str(saved), device="cpu").encode(texts, normalize_embeddings=True)
    ours = encoder.encode(texts, precision="fp32")
    assert np.allclose(ours, other, atol=1e-4)


def contract_its_claim_runs_in_seconds(cls: type[Method]) -> None:
    claim = cls.claim("smoke")
    for scale in ("cpu", "gpu"):
        assert set(cls.claim(scale).arms) >= set(claim.arms)
    assert len(claim.arms) >= 2, "a claim needs a baseline or a control"
    started, measures, saved = time.process_time(), {}, set[str]()

    def first(engine: Engine, _: bool) -> bool:
        new = engine.done == engine.config.steps and engine.method.card.name not in saved
        saved.update([engine.method.card.name] if new else [])
        return new

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        # Checkpoints after each of a few steps take longer than the steps; what they are for has tests of its own. That
        # there can be one of this method is seen once.
        patch.setattr(Engine, "_save_now", first)
        shared = Path(name) / "shared"
        shared.mkdir()
        if claim.prepare is not None:
            claim.prepare(shared)
        for arm, run in claim.arms.items():
            folder = Path(name) / arm
            folder.mkdir()
            measures[arm] = run(Run(seed=0, shared=shared, folder=folder, progress=lambda done, total: None))
    # Not a promise about speed: a smoke claim that trains for minutes would make every test run wait. Of this process
    # alone, however busy the machine.
    assert time.process_time() - started < 120
    for arm, values in measures.items():
        assert values, arm
        assert all(math.isfinite(value) for value in values.values()), (arm, values)
    for check in claim.checks:
        for side in (check.better, check.worse):
            if isinstance(side, str):
                arm, _, measure = side.partition(".")
                assert measure in measures[arm], f"the check {check.says!r} reads {side!r}, which no arm measured"


def contracts() -> dict[str, Contract]:
    """Every contract of this file, by name."""
    return {name.removeprefix("contract_"): f for name, f in sorted(globals().items()) if name.startswith("contract_")}
