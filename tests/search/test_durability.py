"""Killed writers, readers beside a writer, full and read-only disks, damaged derived files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from nextvec.search import store
from nextvec.search.collection import Collection
from nextvec.search.indexes import rows as row_files
from nextvec.types import ConflictError, StorageError

DIM = 16

WRITER = """
import sys, numpy as np
from nextvec.search import store
from nextvec.search.collection import Collection
store.MAX_SMALL_FRAGMENTS = 4
path, prefix, batches, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
collection = Collection.open(path)
print("ready", flush=True)
rng = np.random.default_rng(len(prefix))
for batch in range(batches):
    ids = [f"{prefix}-{batch}-{i}" for i in range(rows)]
    vectors = rng.standard_normal((rows, 16)).astype(np.float32)
    collection.add(ids, vectors, {"batch": [batch] * rows})
    if batch % 3 == 2:
        collection.upsert(ids[:2], vectors[:2], {"batch": [batch] * 2})
    if batch % 4 == 3:
        collection.search(vectors[0], 1)
    print(batch, flush=True)
"""


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def start(path: Path, prefix: str, *, batches: int, rows: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), prefix, str(batches), str(rows)],
        stdout=subprocess.PIPE,
        text=True,
    )


def check_search(collection: Collection) -> None:
    """The collection's search against brute force over what ``get`` returns."""
    ids = collection.ids()
    stored = np.array([row["vector"] for row in collection.get(ids, vectors=True) if row])
    query = vectors(1, 99)[0]
    query /= np.linalg.norm(query)
    scores = stored.astype(np.float64) @ query.astype(np.float64)
    hits = collection.search(query, 10)
    assert hits.scores == pytest.approx(np.sort(scores)[::-1][:10].astype(np.float32), abs=1e-6)
    assert hits.scores == pytest.approx([scores[ids.index(name)] for name in hits.ids], abs=1e-6)


def test_killed_writers_lose_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "c"
    Collection.create(path, dim=DIM, schema={"batch": "int"}).close()
    rng = np.random.default_rng(7)
    rows = 20
    for attempt in range(4):
        process = start(path, f"w{attempt}", batches=1000, rows=rows)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(float(rng.uniform(0.02, 0.5)))
        process.send_signal(signal.SIGKILL)
        acknowledged = [int(line) for line in process.stdout.read().splitlines() if line.isdigit()]
        process.wait()
        process.stdout.close()

        collection = Collection.open(path)
        ids = collection.ids()
        assert len(set(ids)) == len(ids)
        there = set(ids)
        for batch in acknowledged:
            assert {f"w{attempt}-{batch}-{i}" for i in range(rows)} <= there
        # Whole batches only, and at most one that was written but not yet acknowledged.
        mine = {name.rsplit("-", 1)[0] for name in ids if name.startswith(f"w{attempt}-")}
        assert len(acknowledged) <= len(mine) <= len(acknowledged) + 1
        assert len(ids) % rows == 0
        check_search(collection)
        collection.upsert([f"after-{attempt}-{i}" for i in range(rows)], vectors(rows))


def test_a_reader_sees_whole_versions_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "c"
    collection = Collection.create(path, dim=DIM, schema={"batch": "int"})
    process = start(path, "w", batches=40, rows=50)
    seen = 0
    while process.poll() is None:
        snapshot = Collection.open(path, version=collection.version)
        ids = snapshot.ids()
        assert len(ids) % 50 == 0
        assert len(ids) >= seen
        seen = len(ids)
        if ids:
            assert len(collection.search(vectors(1)[0], 7, where="batch >= 0")) == 7
            assert len(snapshot.search(vectors(1)[0], 10**6)) == len(ids)
    assert process.wait() == 0
    assert process.stdout is not None
    process.stdout.close()
    assert collection.count() == 2000
    check_search(collection)


def test_two_writing_processes_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "c"
    collection = Collection.create(path, dim=DIM, schema={"batch": "int"})
    processes = [start(path, prefix, batches=12, rows=10) for prefix in ("a", "bb")]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    ids = collection.ids()
    assert len(ids) == len(set(ids)) == 240
    check_search(collection)


def test_a_writer_that_waits_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Collection.create(tmp_path / "c", dim=DIM).close()
    monkeypatch.setattr(store, "LOCK_TIMEOUT", 0.05)
    collection = Collection.open(tmp_path / "c")
    held, done = threading.Event(), threading.Event()

    def other() -> None:
        with FileLock(tmp_path / "c" / "write.lock"):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait(10)
    with pytest.raises(ConflictError, match="another process has been writing"):
        collection.add(["a"], vectors(1))
    assert collection.ids() == []  # reading waits for nobody
    done.set()
    thread.join()
    collection.add(["a"], vectors(1))


def test_conflicts_with_a_writer_that_knows_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = Collection.create(tmp_path / "c", dim=DIM)
    collection.add(["a", "b"], vectors(2))
    replace = store.Store._replace
    calls = []

    def interrupted(self: store.Store, dataset: object, *rest: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("Retryable commit conflict for version 3")
        replace(self, dataset, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(store.Store, "_replace", interrupted)
    collection.upsert(["a"], vectors(1, 5))
    assert (len(calls), collection.ids()) == (2, ["b", "a"])

    def always(self: store.Store, *rest: object) -> None:
        raise OSError("Commit conflict for version 3")

    monkeypatch.setattr(store.Store, "_replace", always)
    with pytest.raises(ConflictError, match="another writer keeps changing"):
        collection.upsert(["a"], vectors(1, 5))
    assert collection.ids() == ["b", "a"]


@contextlib.contextmanager
def tiny_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk"):
        collection = Collection.create(tmp_path / "disk" / "c", dim=DIM)
        written = 0
        with pytest.raises(StorageError, match="disk is full") as caught:
            for batch in range(200):
                collection.add([f"{batch}-{i}" for i in range(500)], vectors(500, batch))
                written += 500
        assert "\n" not in str(caught.value)
        assert 0 < written < 200 * 500
        assert collection.count() == written
        reopened = Collection.open(tmp_path / "disk" / "c")
        assert reopened.search(vectors(1, 0)[0], 1).ids == ["0-0"]  # the derived files find no room: memory
        assert reopened.count() == written


def test_full_disk_told_by_the_lowest_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = Collection.create(tmp_path / "c", dim=DIM)
    collection.add(["a"], vectors(1))

    def full(*_: object, **__: object) -> None:
        raise OSError("LanceError(IO): write failed: No space left on device (os error 28), /x/rust/y.rs:1:2")

    monkeypatch.setattr(store.lance, "write_dataset", full)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        collection.add(["b"], vectors(1))
    assert caught.value.errno is None or caught.value.errno == errno.ENOSPC
    assert collection.ids() == ["a"]


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A bind mount that refuses writes, even to root."""
    if os.geteuid() != 0:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        return
    bind = ["mount", "--bind", str(folder), str(folder)]
    remount = ["mount", "-o", "remount,ro,bind", str(folder)]
    if subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("a read-only mount cannot be made here")
    try:
        subprocess.run(remount, check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_read_only_folder(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with Collection.create(path, dim=DIM, schema={"title": "string"}) as collection:
        collection.add(["a", "b"], vectors(2), {"title": ["one", "two"]})
    with read_only(path):
        collection = Collection.open(path)
        assert collection.search(vectors(1)[0], 1).ids == ["a"]
        assert collection.search(text="two", text_columns=["title"]).ids == ["b"]
        for write in (
            lambda: collection.add(["c"], vectors(1)),
            lambda: collection.delete(["a"]),
            lambda: collection.compact(),
            lambda: Collection.create(path / "new", dim=3),
        ):
            with pytest.raises(StorageError, match=r"read-only|permission denied") as caught:
                write()
            assert "\n" not in str(caught.value)
        assert collection.ids() == ["a", "b"]


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    """A collection whose derived files exist."""
    with Collection.create(tmp_path / "c", dim=DIM, schema={"n": "int"}) as collection:
        collection.add([f"r{i}" for i in range(3000)], vectors(3000), {"n": np.arange(3000)})
        collection.search(vectors(1)[0], 1)
    return tmp_path / "c"


def derived(path: Path, part: str) -> Path:
    return next((path / "derived").glob(f"exact-*.{part}"))


@pytest.mark.parametrize("damage", ["header", "folder", "rows", "codes", "stats", "short", "bits", "code bits"])
def test_damaged_derived_files_are_made_again(searched: Path, damage: str) -> None:
    if damage == "header":
        (searched / "derived" / "exact.json").write_text('{"format": 1, "name": "../x", "dim": 16')
    elif damage == "folder":
        for path in (searched / "derived").iterdir():
            path.unlink()
        (searched / "derived").rmdir()
    elif damage in ("rows", "codes", "stats"):
        derived(searched, damage).unlink()
    elif damage == "short":
        with derived(searched, "rows").open("r+b") as stream:
            stream.truncate(1000)
    else:
        with derived(searched, "codes" if damage == "code bits" else "rows").open("r+b") as stream:
            stream.write(b"\x01" * 64)
    for _ in range(2):  # made again, then found whole
        collection = Collection.open(searched)
        assert collection.search(vectors(1)[0], 1).ids == ["r0"]
        assert collection.search(vectors(1)[0], 3, where="n = 0").ids == ["r0"]
        header = json.loads((searched / "derived" / "exact.json").read_text())
        assert header["rows"] == 3000
        assert len(list((searched / "derived").glob("exact-*.rows"))) == 1


def test_derived_files_grow_and_are_made_anew_when_mostly_dead(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.search import derived as derived_module

    monkeypatch.setattr(derived_module, "_GARBAGE_ROWS", 100)
    collection = Collection.open(searched)
    first = derived(searched, "rows").name
    collection.add(["new"], vectors(1, 4), [{"n": -1}])
    assert collection.search(vectors(1, 4)[0], 1).ids == ["new"]
    assert derived(searched, "rows").name == first
    assert derived(searched, "rows").stat().st_size == 3001 * DIM * 4
    pinned = Collection.open(searched, version=collection.version)
    collection.delete(where="n >= 1000")
    collection.compact()
    assert collection.search(vectors(1, 4)[0], 1).ids == ["new"]
    check_search(collection)
    assert derived(searched, "rows").name != first
    assert derived(searched, "rows").stat().st_size == 1001 * DIM * 4
    assert pinned.search(vectors(3000)[2999], 1).ids == ["r2999"]  # from memory, the files stay as they are
    assert derived(searched, "rows").stat().st_size == 1001 * DIM * 4


def test_an_append_that_was_cut_off_is_overwritten(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = Collection.open(searched)
    collection.add(["new"], vectors(1, 4), [{"n": -1}])

    def cut(*_: object, **__: object) -> Iterator[None]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(row_files, "atomic_write", cut)
        with pytest.raises(KeyboardInterrupt):
            collection.search(vectors(1, 4)[0], 1)
    assert derived(searched, "rows").stat().st_size == 3001 * DIM * 4
    assert collection.search(vectors(1, 4)[0], 1).ids == ["new"]
    assert derived(searched, "rows").stat().st_size == 3001 * DIM * 4
    check_search(collection)
