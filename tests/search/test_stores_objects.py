"""``s3://``: what the store's errors say, writers that meet, writes cut off, and what a call asks of the store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from object_store import REQUESTS, Request, asking_for_keys, befallen

from nextvec.search.stores import create_collection, objects, objects_place, open_collection
from nextvec.search.stores.objects_place import memory_limit
from nextvec.types import ConflictError, InputError, NotFoundError, StorageError


def vectors(n: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def sequence(address: str) -> list[int]:
    """The sequence numbers in the table."""
    options = {"allow_http": "true"}
    return list(lance.dataset(address, storage_options=options).to_table(columns=["_seq"]).column(0).to_pylist())


def kinds(requests: list[Request]) -> Counter[str]:
    return Counter("LIST" if "list-type" in path else method for method, path in requests)


# What the store says


def test_no_bucket_no_table_and_a_foreign_one(bucket: str) -> None:
    with pytest.raises(NotFoundError, match="is not a collection \\(no table there\\): create it first"):
        open_collection(bucket + "nothing")
    for call in (open_collection, lambda address: create_collection(address, dim=2)):
        with pytest.raises(NotFoundError, match="names a bucket that does not exist"):
            call("s3://no-such-bucket/papers")
    lance.write_dataset(pa.table({"a": [1]}), bucket + "foreign", storage_options={"allow_http": "true"})
    for call in (open_collection, lambda address: create_collection(address, dim=2, exist_ok=True)):
        with pytest.raises(NotFoundError, match="not made by nextvec"):
            call(bucket + "foreign")
    assert lance.dataset(bucket + "foreign", storage_options={"allow_http": "true"}).version == 1


def test_keys_that_the_store_does_not_know(bucket: str) -> None:
    with create_collection(bucket + "locked", dim=8) as store:
        store.add(["a"], vectors(1))
        with asking_for_keys(os.environ["AWS_ENDPOINT_URL"]):
            for call in (
                lambda: open_collection(bucket + "locked"),
                lambda: create_collection(bucket + "other", dim=2),
                store.count,
                lambda: store.add(["b"], vectors(1)),
            ):
                with pytest.raises(
                    StorageError, match="refused \\(InvalidAccessKeyId\\): look at AWS_ACCESS"
                ) as caught:
                    call()
                assert "secret-of-tests" not in str(caught.value)
                assert "\n" not in str(caught.value)
        assert store.ids() == ["a"]


def test_nobody_answers(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setitem(objects_place._PATIENCE, "client_max_retries", "1")
    with pytest.raises(StorageError, match=r"no object store answers at 'http://127\.0\.0\.1:1'"):
        open_collection(bucket + "c")


# Writers that meet

WRITER = """
import sys
import numpy as np
from nextvec.search.stores import open_collection
from nextvec.types import ConflictError

address, me = sys.argv[1:]
rows, won = np.eye(8, dtype=np.float32), 0
with open_collection(address) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(6):
        store.add([f"{me}-{i}"], rows[:1], {"by": [me]})
        try:
            store.add([f"both-{i}"], rows[1:2], {"by": [me]})
            won += 1
        except ConflictError as error:
            assert "exists already" in str(error), error
        store.upsert(["last", f"{me}-last"], rows[2:4], {"by": [me, me]})
        assert store.delete([f"{me}-{i}"]) == 1
print(won)
"""


def test_two_processes_lose_and_double_nothing(bucket: str) -> None:
    address = bucket + "two"
    create_collection(address, dim=8, schema={"by": "string"}).close()
    # Where this package came from, whatever is installed beside it.
    environment = os.environ | {"PYTHONPATH": str(Path(objects.__file__).parents[3])}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, address, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for name in ("x", "y")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    won = [int(writer.communicate(timeout=120)[0]) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sum(won) == 6
    with open_collection(address) as store:
        assert sorted(store.ids()) == sorted(["last", "x-last", "y-last", *(f"both-{i}" for i in range(6))])
        assert [store.count(f"by = '{name}' AND id LIKE 'both%'") for name in ("x", "y")] == won
        numbers = sequence(address)
        assert len(set(numbers)) == len(numbers) == len(store)
        assert store.ids()[-1].endswith("last")


def test_threads_with_handles_of_their_own(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write meets others, and merging of pieces comes between them."""
    monkeypatch.setattr(objects, "MAX_SMALL_FRAGMENTS", 3)
    address = bucket + "threads"
    failures: list[BaseException] = []
    create_collection(address, dim=8, schema={"n": "int"}).close()

    def work(me: int) -> None:
        try:
            with open_collection(address) as store:
                for i in range(3):
                    store.add([f"{me}-{i}", f"{me}-{i}-gone"], vectors(2, seed=me), {"n": [i, -1]})
                    store.upsert([f"{me}-0"], vectors(1, seed=i), {"n": [i]})
                    assert store.delete([f"{me}-{i}-gone"]) == 1
                    assert store.search(vectors(1, seed=me)[0], 3).ids
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with open_collection(address) as store:
        assert sorted(store.ids()) == sorted(f"{me}-{i}" for me in range(3) for i in range(3))
        assert [row["n"] for row in store.get(["0-0", "1-0", "2-0"])] == [2, 2, 2]
        numbers = sequence(address)
        assert len(set(numbers)) == len(numbers) == 9
        for me in range(3):
            order = [name for name in store.ids() if name.startswith(f"{me}-")]
            assert order == [*(f"{me}-{i}" for i in range(1, 3)), f"{me}-0"]


def test_several_create_at_once(bucket: str) -> None:
    made: list[int] = []
    together = threading.Barrier(4)

    def work(me: int) -> None:
        together.wait()
        with create_collection(bucket + "born-once", dim=8, exist_ok=True) as store:
            store.add([f"r{me}"], vectors(1))
            made.append(me)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [0, 1, 2, 3]
    with open_collection(bucket + "born-once") as store:
        assert sorted(store.ids()) == ["r0", "r1", "r2", "r3"]
        assert len(set(sequence(bucket + "born-once"))) == 4


def test_a_writer_that_never_gets_its_turn(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "LOCK_TIMEOUT", 0.0)
    with create_collection(bucket + "turn", dim=8) as store, open_collection(bucket + "turn") as other:
        operation = objects.ObjectCollection._operation

        def late(self: Any, *arguments: Any) -> Any:
            if self is store:
                other.add([f"o{len(other)}"], vectors(1))
            return operation(self, *arguments)

        monkeypatch.setattr(objects.ObjectCollection, "_operation", late)
        with pytest.raises(ConflictError, match="other writers keep changing collection"):
            store.add(["a"], vectors(1))
        with pytest.raises(ConflictError, match="nothing was written"):
            store.upsert(["a"], vectors(1))
        assert store.ids() == ["o0", "o1"]


# Writes cut off


@pytest.mark.parametrize("part", ["data", "_transactions", "_versions"])
def test_a_write_that_does_not_reach_the_store_is_not_there(
    bucket: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(objects_place._PATIENCE, "client_max_retries", "1")
    address = f"{bucket}cut{part}"
    with create_collection(address, dim=8, schema={"n": "int"}) as store:
        store.add(["a", "b"], vectors(2), {"n": [1, 2]})

        def cut(request: Request) -> str:
            return "lost" if request[0] == "PUT" and f"/{part}/" in request[1] else ""

        with befallen(cut):
            for write in (lambda: store.add(["c"], vectors(1)), lambda: store.upsert(["a"], vectors(1, seed=9))):
                with pytest.raises(StorageError, match="cannot use"):
                    write()
        with open_collection(address) as reader:
            for one in (store, reader):
                assert one.ids() == ["a", "b"]
                assert one.search(vectors(2)[0], 2).ids[0] == "a"
                assert one.get(["a"])[0] == {"id": "a", "n": 1}
        store.upsert(["a", "c"], vectors(2, seed=3), {"n": [7, 8]})
        assert store.ids("n > 6") == ["a", "c"]


def test_a_creation_that_is_cut_off_is_not_there(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(objects_place._PATIENCE, "client_max_retries", "1")
    with (
        befallen(lambda request: "lost" if request[0] == "PUT" and "/_versions/" in request[1] else ""),
        pytest.raises(StorageError, match="cannot use"),
    ):
        create_collection(bucket + "born", dim=8)
    with pytest.raises(NotFoundError, match="create it first"):
        open_collection(bucket + "born")
    with create_collection(bucket + "born", dim=8) as store:
        assert store.ids() == []


def test_a_commit_whose_answer_is_lost_is_no_conflict(bucket: str) -> None:
    lost: list[Request] = []

    def deaf(request: Request) -> str:
        if request[0] == "PUT" and "/_versions/" in request[1] and request not in lost:
            lost.append(request)
            return "deaf"
        return ""

    with create_collection(bucket + "deaf", dim=8) as store:
        with befallen(deaf):
            store.add(["a", "b"], vectors(2))
            store.upsert(["b", "c"], vectors(2))
            assert store.delete(["a"]) == 1
        assert len(lost) == 3
        assert store.ids() == ["b", "c"]
        numbers = sequence(bucket + "deaf")
        assert len(numbers) == len(set(numbers)) == 2


# What a call asks of the store


def test_vectors_are_read_once(bucket: str) -> None:
    address = bucket + "once"
    rows = vectors(600, 64)
    with create_collection(address, dim=64, schema={"n": "int"}) as store:
        store.add([f"r{i}" for i in range(300)], rows[:300], {"n": list(range(300))})
        reader = open_collection(address)
        wanted = reader.search(rows[5], 7, where="n < 200").ids
        start = len(REQUESTS)
        assert reader.search(rows[5], 7, where="n < 200").ids == wanted
        assert len(reader.search(rows[:20], 7)) == 20
        assert reader.count("n < 100") == 100
        assert kinds(REQUESTS[start:]) == {"LIST": 3}  # is there a newer version?
        store.add([f"r{i}" for i in range(300, 600)], rows[300:])
        held = reader._vectors._last.index.rows.vectors
        assert reader.search(rows[400], 1).ids == ["r400"]
        grown = reader._vectors._last.index.rows.vectors
        assert np.array_equal(grown[:300], held)
        assert store.delete([f"r{i}" for i in range(100)]) == 100
        assert reader.search(rows[5], 600).ids == store.search(rows[5], 600).ids


def test_over_the_bound_vectors_are_read_past(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = bucket + "past"
    rows = vectors(3_000, 16)
    with create_collection(address, dim=16, schema={"n": "int"}, metric="dot") as store:
        for start in range(0, 3_000, 1_000):
            store.add(
                [f"r{i}" for i in range(start, start + 1_000)],
                rows[start : start + 1_000],
                {"n": list(range(start, start + 1_000))},
            )
        store.delete(where="n >= 500 AND n < 600")
        monkeypatch.setenv("NEXTVEC_REMOTE_MEMORY", "100kB")
        with open_collection(address) as small:
            assert (store.info()["vectors"], small.info()["vectors"]) == ("in memory", "read for each search")
            for where, plan in (
                ("n >= 0", "scan"),
                ("n < 700", "scan"),
                ("n IN (3, 550, 2999)", "gather"),
                (None, "scan"),
            ):
                one = small.search(rows[:3], 20, where=where, columns=["n"], explain=True)
                other = store.search(rows[:3], 20, where=where, columns=["n"])
                assert one[0].explain is not None
                assert one[0].explain["plan"] == f"{plan} in the store"
                for mine, theirs in zip(one, other, strict=True):
                    assert (mine.ids, mine.attributes) == (theirs.ids, theirs.attributes)
                    assert mine.scores.tolist() == theirs.scores.tolist()
            assert small._vectors._last is None


@pytest.mark.parametrize(
    ("given", "size"), [("", 4 * 10**9), ("0", 0), ("500MB", 5 * 10**8), ("1.5 g", 15 * 10**8), ("2tb", 2 * 10**12)]
)
def test_the_bound(given: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTVEC_REMOTE_MEMORY", given)
    assert memory_limit() == size


@pytest.mark.parametrize("given", ["much", "-1", "5 apples", "GB"])
def test_a_bound_that_is_none(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTVEC_REMOTE_MEMORY", given)
    with pytest.raises(InputError, match="expected a size such as 500MB or 8GB"):
        create_collection(f"file://{tmp_path}/c", dim=2)


def test_small_pieces_are_merged(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_SMALL_FRAGMENTS", 4)
    with create_collection(bucket + "pieces", dim=8) as store:
        for i in range(12):
            store.add([f"r{i}"], vectors(1, seed=i))
        assert store.info()["fragments"] <= 5
        assert store.ids() == [f"r{i}" for i in range(12)]
        assert store.search(vectors(1, seed=3)[0], 1).ids == ["r3"]
