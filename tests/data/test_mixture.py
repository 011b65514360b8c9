"""Several tasks in one training: what a step draws, what is joined, and that a resumed run sees the same."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="batches are torch tensors: pip install 'nextvec[hf]'")

from nextvec.data.mixture import ByTask, Mixed  # noqa: E402
from nextvec.data.sources import Shuffled  # noqa: E402
from nextvec.types import InputError  # noqa: E402


def source(first: int, count: int, batch: int) -> Shuffled:
    """Examples numbered from ``first``; each is a text of its number, once or twice."""
    texts = [[first + i] * (1 + i % 2) for i in range(count)]
    return Shuffled({"text": texts, "group": np.arange(count)}, batch=batch, seed=1)


def test_a_step_is_one_task_and_every_task_goes_through_its_own_batches() -> None:
    sources = {"a": source(0, 12, 4), "b": source(100, 12, 3)}
    mixture = ByTask(sources, weights={"a": 3.0, "b": 1.0}, seed=5)
    seen = {"a": 0, "b": 0}
    for step in range(10_000):  # over more than one block
        name, number = mixture.place(step)
        assert number == seen[name]
        seen[name] += 1
    assert seen["a"] / 10_000 == pytest.approx(0.75, abs=0.02)
    for step in (0, 7, 4097):
        name, number = mixture.place(step)
        made, own = mixture.batch(step), sources[name].batch(number)
        assert made.task == name
        assert made.ragged("text").values.tolist() == own.ragged("text").values.tolist()


def test_what_a_step_draws_depends_on_the_step_alone() -> None:
    made = {"a": source(0, 12, 4), "b": source(100, 12, 3)}
    straight = ByTask(made, seed=5)
    before = [straight.place(step) for step in range(5000)]
    assert [ByTask(made, seed=5).place(step) for step in (4999, 4095, 4096, 3)] == [
        before[step] for step in (4999, 4095, 4096, 3)
    ]
    assert [ByTask(made, seed=6).place(step) for step in range(50)] != before[:50]
    whole = straight.batch(3)
    parts = [straight.batch(3, part=i, parts=3).tensor("group") for i in range(3)]
    assert torch.cat(parts).tolist() == whole.tensor("group").tolist()


def test_mixed_batches_hold_all_tasks_in_their_shares() -> None:
    mixture = Mixed({"a": source(0, 12, 4), "b": source(100, 12, 2)}, temperatures={"a": 0.02, "b": 0.1})
    batch = mixture.batch(1)
    assert batch.tensor("task").tolist() == [0, 0, 0, 0, 1, 1]
    assert batch.tensor("temperature").tolist() == pytest.approx([0.02] * 4 + [0.1] * 2)
    text = batch.ragged("text")
    firsts = [rows[0].item() for rows in torch.split(text.values, text.lengths.tolist())]
    assert all(value < 12 for value in firsts[:4]) and all(value >= 100 for value in firsts[4:])
    groups = batch.tensor("group").tolist()
    assert len(set(groups)) == 6  # equal numbers in two tasks are not one group
    assert [value % (1 << 40) for value in groups[:4]] == firsts[:4]
    one, other = (mixture.batch(1, part=i, parts=2) for i in range(2))
    assert one.tensor("task").tolist() + other.tensor("task").tolist() == [0, 0, 0, 0, 1, 1]


def test_tasks_of_other_columns_are_refused() -> None:
    plain = Shuffled({"text": [[1], [2]], "score": np.zeros(2)}, batch=1, seed=0)
    with pytest.raises(InputError, match="task 'b' has the columns"):
        Mixed({"a": source(0, 4, 2), "b": plain}).batch(0)
    with pytest.raises(InputError, match="temperatures are given for"):
        Mixed({"a": source(0, 4, 2)}, temperatures={"b": 1.0})
    with pytest.raises(InputError, match="weights are"):
        ByTask({"a": source(0, 4, 2)}, weights={"a": 0.0})
    with pytest.raises(InputError, match="no source"):
        ByTask({})
