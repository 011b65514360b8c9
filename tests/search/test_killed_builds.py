"""Builds of the approximate index killed at any moment, and writers beside them: no wrong hit, nothing half-made used.

``NEXTVEC_KILLS`` sets how often a build is killed (5 by default, 8 with ``--thorough``; hundreds before a release).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from examples import examples
from nextvec.search import calibration
from nextvec.search.collection import Collection

pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")

DIM, ROWS = 16, 6_000
KILLS = int(os.environ.get("NEXTVEC_KILLS", examples(5, 8)))

BUILDER = """
import sys
from nextvec.search.collection import Collection
from nextvec.search import calibration
from nextvec.search.indexes import approximate, graph
approximate._SAVE_EVERY, graph._CHUNK = 0.0, 500
calibration.QUERIES = 64  # else it is what nearly every kill meets
collection = Collection.open(sys.argv[1])
print("ready", flush=True)
while True:
    print(collection.index()["rows"], flush=True)
"""


def vectors(n: int, seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def check(path: Path, truth: dict[str, np.ndarray]) -> bool:
    """Hits of approximate searches are rows that exist, with their true scores; whether an index was there."""
    with Collection.open(path) as collection:
        assert set(collection.ids()) == set(truth)
        for query in vectors(5, 77):
            hits = collection.search(query, 10, recall=0.9)
            assert len(hits.ids) == len(set(hits.ids)) == 10
            assert hits.scores == pytest.approx([float(truth[name] @ query) for name in hits.ids], abs=1e-5)
        return collection.info()["index"] is not None


def test_builds_killed_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "c"
    truth = dict(zip((str(i) for i in range(ROWS)), vectors(ROWS, 0), strict=True))
    with Collection.create(path, dim=DIM) as collection:
        collection.add(list(truth), np.stack(list(truth.values())))
        collection.search(vectors(1, 1)[0])
    rng = np.random.default_rng(3)
    for attempt in range(KILLS):
        builder = subprocess.Popen([sys.executable, "-c", BUILDER, str(path)], stdout=subprocess.PIPE, text=True)
        assert builder.stdout is not None and builder.stdout.readline() == "ready\n"
        time.sleep(float(rng.uniform(0.0, 1.5)))
        if attempt % 2:  # rows come and go between two builds
            name, vector = f"new{attempt}", vectors(1, 1_000 + attempt)
            with Collection.open(path) as collection:
                collection.add([name], vector)
                collection.delete([str(attempt)])
            truth[name] = vector[0]
            del truth[str(attempt)]
        builder.send_signal(signal.SIGKILL)
        builder.wait()
        builder.stdout.close()
        check(path, truth)
    with Collection.open(path) as collection:
        collection.index()
        assert not (path / "derived" / "building").exists()
        names = {file.name.split(".")[0] for file in (path / "derived").glob("approximate-*")}
        assert len(names) == 1  # what killed builds had left is gone
    assert check(path, truth)


def test_searches_are_right_while_an_index_is_built_and_rows_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "QUERIES", 64)  # how near the recall comes is not looked at here
    path = tmp_path / "c"
    rows = vectors(ROWS, 0)
    with Collection.create(path, dim=DIM, schema={"kind": "string"}) as collection:
        collection.add([str(i) for i in range(ROWS)], rows, {"kind": ["old"] * ROWS})
        failed: list[BaseException] = []
        done = threading.Event()

        def build() -> None:
            try:
                for _ in range(2):  # from nothing, and over rows that came and went meanwhile
                    collection.index()
            except BaseException as error:
                failed.append(error)
            finally:
                done.set()

        builder = threading.Thread(target=build)
        builder.start()
        turn = 0
        while not done.is_set() or turn < 5:
            turn += 1
            new = vectors(3, 5_000 + turn)
            names = [f"{turn}-{i}" for i in range(3)]
            collection.add(names, new, {"kind": ["new"] * 3})
            assert collection.search(new[0], 1, recall=0.9).ids == names[:1]
            collection.delete(names[:1])
            hits = collection.search(new[0], 2 * turn, where="kind = 'new'", recall=0.9)
            assert len(hits.ids) == 2 * turn and names[0] not in hits.ids
        builder.join()
        assert not failed
