"""Writers killed at any moment, again and again, on one collection: in an add, an upsert, a delete, while pieces are
merged and while derived files are swapped. What was acknowledged is there; what was not is there whole or not at all.

``NEXTVEC_KILLS`` sets how often (5 by default, 8 with ``--thorough``; hundreds before a release).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from killed_writer import DIM, SCHEMA, Model, writes

from examples import examples
from nextvec.search.checkup import check_collection
from nextvec.search.collection import Collection

KILLS = int(os.environ.get("NEXTVEC_KILLS", examples(5, 8)))
SEED = 5


def held_by(collection: Collection) -> list[tuple[str, int, str]]:
    ids = collection.ids()
    return [(name, row["n"], row["words"]) for name, row in zip(ids, collection.get(ids), strict=True) if row]


def after(model: Model, count: int, skipped: int) -> Model:
    """The model after the writes ``skipped`` to ``count`` - 1."""
    model = dict(model)
    for number, (_, apply) in zip(range(count), writes(SEED), strict=False):
        if number >= skipped:
            apply(model)
    return model


def check_answers(collection: Collection, model: Model) -> None:
    """Searches by vector, with and without a filter, and by words, against brute force."""
    names = list(model)
    rows = np.array([model[name][0] for name in names]) if names else np.zeros((0, DIM))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for query in np.random.default_rng(len(names)).standard_normal((3, DIM)).astype(np.float32):
        for where, chosen in (
            (None, range(len(names))),
            ("n >= 20", [i for i, name in enumerate(names) if model[name][1] >= 20]),
        ):
            scores = {names[i]: float(rows[i] @ query / np.linalg.norm(query)) for i in chosen}
            hits = collection.search(query, 10, where=where)
            assert len(hits.ids) == len(set(hits.ids)) == min(10, len(scores))
            assert hits.scores == pytest.approx([scores[name] for name in hits.ids], abs=1e-5)
            assert hits.scores == pytest.approx(sorted(scores.values(), reverse=True)[:10], abs=1e-5)
    with_word = {name for name in names if "large" in model[name][2]}
    found = collection.search(text="large", text_columns=["words"], k=10_000).ids
    assert len(found) == len(with_word) and set(found) == with_word


def test_writers_killed_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "c"
    Collection.create(path, dim=DIM, schema=SCHEMA).close()
    script = str(Path(__file__).with_name("killed_writer.py"))
    rng, model, done = np.random.default_rng(11), Model(), 0
    for _ in range(KILLS):
        command = [sys.executable, script, str(path), str(SEED), str(done)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        time.sleep(float(rng.uniform(0.0, 0.3)))
        writer.send_signal(signal.SIGKILL)
        acknowledged = [int(line) for line in writer.stdout.read().splitlines()]
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        assert acknowledged == list(range(done, done + len(acknowledged)))
        told = done + len(acknowledged)
        with Collection.open(path) as collection:
            there = held_by(collection)
            for count in (told, told + 1):  # the write that was cut off may have been whole already
                expected = after(model, count, done)
                if there == [(name, n, words) for name, (_, n, words) in expected.items()]:
                    break
            else:
                pytest.fail(f"after write {told - 1} was acknowledged, the collection holds something else")
            model, done = expected, count
            check_answers(collection, model)
    assert check_collection(path) == []
