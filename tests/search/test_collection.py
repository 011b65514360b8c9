"""The collection's face: what it returns, and what it says about bad input."""

from __future__ import annotations

import datetime as dt
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bad_calls import BAD_CALLS, SCHEMA, vectors

from nextvec.search import store
from nextvec.search.collection import Collection
from nextvec.types import ConflictError, InputError, NotFoundError, StorageError


@pytest.fixture
def small(tmp_path: Path) -> Collection:
    collection = Collection.create(tmp_path / "c", dim=4, schema=SCHEMA)
    collection.add(
        ["a", "b", "c"],
        [[1, 0, 0, 0], [3, 4, 0, 0], [0, 0, 0, 2]],
        [
            {"year": 2020, "venue": "ACL", "tags": ["x", "y"], "day": "2024-01-02"},
            {"year": 2021, "tags": [], "a b": 1},
            {"venue": "EMNLP", "day": dt.date(2023, 5, 6)},
        ],
    )
    return collection


def test_round_trip(small: Collection) -> None:
    assert (small.dim, small.metric, small.schema, len(small)) == (4, "cosine", SCHEMA, 3)
    hits = small.search([1, 0, 0, 0], 2, columns=["year", "venue", "day"], explain=True)
    assert hits.ids == ["a", "b"]
    assert hits.scores.dtype == np.float32
    assert hits.scores.tolist() == pytest.approx([1.0, 0.6])
    assert hits.attributes[0] == {"year": 2020, "venue": "ACL", "day": dt.date(2024, 1, 2)}
    assert hits.attributes[1] == {"year": 2021, "venue": None, "day": None}
    assert hits.explain is not None
    assert (hits.explain["matches"], hits.explain["rows"], hits.explain["plan"]) == (3, 3, "direct")
    assert small.search([1, 0, 0, 0]).attributes == []
    got = small.get(["c", "nope", "a", "c"], vectors=True)
    assert got[1] is None
    assert got[0]["vector"].tolist() == [0, 0, 0, 1]  # type: ignore[index]
    assert got[2]["tags"] == ["x", "y"]  # type: ignore[index]
    assert small.get([]) == []


def test_filters(small: Collection) -> None:
    assert small.ids("year >= 2020") == ["a", "b"]
    assert small.ids("'x' IN tags") == ["a"]
    assert small.count("venue IS NULL") == 1
    assert small.ids('"a b" = 1') == ["b"]
    assert small.ids("id IN ('c', 'a')") == ["a", "c"]
    assert small.ids("day < '2024-01-01'") == ["c"]
    hits = small.search([[1, 0, 0, 0], [0, 0, 0, 1]], 5, where="year = 2021")
    assert [one.ids for one in hits] == [["b"], ["b"]]
    none = small.search([1, 0, 0, 0], 5, where="year = 1900", explain=True)
    assert (none.ids, len(none.scores), none.scores.dtype) == ([], 0, np.float32)


def test_upsert_and_delete(small: Collection) -> None:
    small.upsert(["b", "d"], vectors(2), {"year": [1999, 2000]})
    assert small.ids() == ["a", "c", "b", "d"]  # a replaced row counts as inserted now
    assert small.get(["b"])[0] == {"id": "b", "year": 1999, "venue": None, "tags": None, "day": None, "a b": None}
    assert small.delete(["a", "zzz", "a"]) == 1
    assert small.delete(where="year < 2000") == 1
    assert small.ids() == ["c", "d"]
    assert small.delete(["c", "d"]) == 2
    assert small.count() == 0
    assert small.search([1, 0, 0, 0]).ids == []
    small.add(["a"], vectors(1))
    assert small.ids() == ["a"]


def test_columns_arrow_and_numpy(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "c", dim=4, schema={"n": "int", "t": "timestamp", "ok": "bool"})
    table = pa.table({"n": pa.array([1, None], pa.int32()), "t": [dt.datetime(2024, 1, 1), None]})
    collection.add(pa.array(["a", "b"]), vectors(2), table)
    collection.add(np.array(["c"]), vectors(1), {"n": np.array([7]), "ok": np.array([True])})
    assert [row["n"] for row in collection.get(["a", "b", "c"]) if row] == [1, None, 7]
    assert collection.ids("ok AND n > 3") == ["c"]
    assert collection.ids("t = '2024-01-01T01:00:00+01:00'") == ["a"]


def test_dot_keeps_lengths(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "c", dim=2, metric="dot")
    collection.add(["a", "b", "zero"], [[1, 0], [5, 5], [0, 0]])
    hits = collection.search([2, 0])
    assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == [("b", 10.0), ("a", 2.0), ("zero", 0.0)]
    with pytest.raises(InputError, match="vector 0 has length 1e\\+20"):
        collection.add(["x"], [[1e20, 0]])


def test_more_ids_than_one_call_can_take(small: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    array = pa.array
    with monkeypatch.context() as patch:
        # More than 2 GB come back from Arrow in pieces; so many are too much for a test.
        patch.setattr(pa, "array", lambda values, *kind: pa.chunked_array([array(values, *kind)]))
        with pytest.raises(InputError, match="ids hold more than 2 GB"):
            small.add(["d", "e"], vectors(2))
    assert len(small) == 3


def test_huge_k_and_empty(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "c", dim=4)
    assert collection.search(vectors(1)[0], 10**12).ids == []
    assert collection.search(vectors(3), 2)[2].ids == []
    assert collection.search(np.zeros((0, 4), np.float32)) == []
    collection.add([], np.zeros((0, 4)))
    collection.add([], [])
    assert (collection.count(), collection.ids()) == (0, [])
    collection.add([f"r{i}" for i in range(1000)], vectors(1000))
    hits = collection.search(vectors(1)[0], 10**12)
    assert len(hits) == 1000
    assert sorted(hits.ids) == sorted(collection.ids())
    assert np.all(np.diff(hits.scores) <= 0)


@pytest.mark.parametrize(("call", "error", "said"), BAD_CALLS)
def test_bad_input_is_told_and_nothing_is_written(small: Collection, call: Any, error: type, said: str) -> None:
    before = small.version
    with pytest.raises(error, match=said) as caught:
        call(small)
    assert "\n" not in str(caught.value)
    assert small.version == before
    assert small.ids() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"dim": 4.0}, "dim is 4.0"),
        ({"dim": 10**9}, "dim is"),
        ({"dim": 4, "metric": "l2"}, "expected 'cosine' or 'dot'"),
        ({"dim": 4, "schema": {"id": "string"}}, "reserved"),
        ({"dim": 4, "schema": {"a.b": "string"}}, "not usable"),
        ({"dim": 4, "schema": {"_seq": "string"}}, "not usable"),
        ({"dim": 4, "schema": {"a`": "string"}}, "not usable"),
        ({"dim": 4, "schema": {"a": "strng"}}, "did you mean 'string'?"),
        ({"dim": 4, "schema": {"a": "int", "A": "int"}}, "only by case"),
        ({"dim": 4, "schema": ["a"]}, "expected a mapping"),
    ],
)
def test_bad_schemas(tmp_path: Path, options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Collection.create(tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


def test_create_and_open(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with pytest.raises(NotFoundError, match="no such folder"):
        Collection.open(path)
    with Collection.create(path, dim=4) as made:
        made.add(["a"], vectors(1))
    with pytest.raises(InputError, match="closed"):
        made.count()
    with pytest.raises(ConflictError, match="exists"):
        Collection.create(path, dim=4)
    assert Collection.create(path, dim=4, exist_ok=True).count() == 1
    with pytest.raises(ConflictError, match="dim 4"):
        Collection.create(path, dim=5, exist_ok=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(NotFoundError, match=r"no collection\.json"):
        Collection.open(tmp_path / "other")
    with pytest.raises(ConflictError, match="not empty"):
        Collection.create(tmp_path / "other", dim=4)
    with pytest.raises(StorageError, match="is a file"):
        Collection.create(tmp_path / "other" / "file" / "c", dim=4)


def test_versions(small: Collection) -> None:
    first = small.version
    pinned = Collection.open(small.path, version=first)
    other = Collection.open(small.path)
    small.delete(["a"])
    small.upsert(["d"], vectors(1))
    small.compact()
    assert pinned.ids() == ["a", "b", "c"]
    assert pinned.search([1, 0, 0, 0], 1).ids == ["a"]
    assert other.ids() == ["b", "c", "d"]
    assert other.version > first
    with pytest.raises(InputError, match="pinned to version"):
        pinned.add(["z"], vectors(1))
    with pytest.raises(NotFoundError, match="keeps no version 999"):
        Collection.open(small.path, version=999)
    with pytest.raises(InputError, match="version is 0"):
        Collection.open(small.path, version=0)


def test_many_small_writes_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_SMALL_FRAGMENTS", 5)
    collection = Collection.create(tmp_path / "c", dim=4, schema={"n": "int"})
    for i in range(20):
        collection.add([f"r{i}"], vectors(1, seed=i), [{"n": i}])
        assert collection.ids(f"n = {i}") == [f"r{i}"]
        assert collection.search(vectors(1, seed=i)[0], 1).ids == [f"r{i}"]
    assert collection.ids() == [f"r{i}" for i in range(20)]
    collection.close()
    assert Collection.open(tmp_path / "c").info()["fragments"] <= 6


def test_rows_that_were_deleted_are_dropped_from_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SMALL_FRAGMENT", 100)
    monkeypatch.setattr(store, "RETENTION", dt.timedelta(0))
    with Collection.create(tmp_path / "c", dim=4, schema={"n": "int"}) as collection:
        collection.add([f"r{i}" for i in range(1_000)], vectors(1_000), {"n": np.arange(1_000)})
        before = collection.info()["bytes"]
        collection.delete(where="n < 200")
    with Collection.open(tmp_path / "c") as collection:
        assert collection.info()["bytes"] >= before  # a fifth is not worth it
        collection.delete(where="n < 900")
    with Collection.open(tmp_path / "c") as collection:
        assert collection.info()["bytes"] < before / 2
        assert collection.ids() == [f"r{i}" for i in range(900, 1_000)]


def test_searches_go_on_while_pieces_are_merged_and_writes_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_SMALL_FRAGMENTS", 3)
    began, go_on = threading.Event(), threading.Event()
    compact = store.Store.compact

    def slow(self: store.Store) -> None:
        began.set()
        assert go_on.wait(30)
        compact(self)

    monkeypatch.setattr(store.Store, "compact", slow)
    collection = Collection.create(tmp_path / "c", dim=4)
    for i in range(4):
        collection.add([f"r{i}"], vectors(1, seed=i))
    assert began.wait(30)
    assert collection.search(vectors(1, seed=2)[0], 1).ids == ["r2"] and collection.info()["fragments"] == 4
    writer = threading.Thread(target=collection.add, args=(["late"], vectors(1, seed=9)))
    writer.start()
    assert collection.count() == 4
    go_on.set()
    writer.join(30)
    assert collection.ids() == ["r0", "r1", "r2", "r3", "late"]
    collection.close()
    assert Collection.open(tmp_path / "c").info()["fragments"] == 2


def test_merging_that_fails_is_no_failure_of_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_SMALL_FRAGMENTS", 1)

    def full(self: store.Store) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(store.Store, "compact", full)
    with Collection.create(tmp_path / "c", dim=4) as collection:
        for i in range(4):
            collection.add([f"r{i}"], vectors(1, seed=i))
        assert collection.ids() == [f"r{i}" for i in range(4)]


def test_damaged_pieces_are_named(small: Collection) -> None:
    header = small.path / "collection.json"
    good = header.read_text()
    for bad, said in (("{", "damaged"), ("[]", "damaged"), (json.dumps({"format": 99}), "format 99")):
        header.write_text(bad)
        with pytest.raises(StorageError, match=said):
            Collection.open(small.path)
    header.write_text(json.dumps({**json.loads(good), "schema": {"other": "int"}}))
    with pytest.raises(StorageError, match="do not name the same columns"):
        Collection.open(small.path)
    header.write_text(good)
    assert Collection.open(small.path).count() == 3
    (small.path / "data.lance").rename(small.path / "gone")
    with pytest.raises(StorageError, match=r"'data\.lance' is missing"):
        Collection.open(small.path)
    header.unlink()
    (small.path / "gone").rename(small.path / "data.lance")
    with pytest.raises((ConflictError, StorageError)):
        Collection.create(small.path, dim=4)


def test_damaged_table_and_expired_version(small: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    small.delete(["a"])
    pinned = Collection.open(small.path, version=small.version - 1)
    following = Collection.open(small.path)
    monkeypatch.setattr(store, "RETENTION", dt.timedelta(0))
    small.compact()
    with pytest.raises(StorageError, match="damaged or gone") as caught:
        pinned.ids()
    assert "\n" not in str(caught.value) and "rust" not in str(caught.value)
    assert following.ids() == ["b", "c"]
    (data,) = (small.path / "data.lance" / "data").iterdir()
    with data.open("r+b") as stream:
        stream.truncate(20)
    for call in (Collection.ids, lambda c: c.search([1, 0, 0, 0]), lambda c: c.add(["x"], vectors(1))):
        with pytest.raises(StorageError, match="damaged or gone") as caught:
            call(Collection.open(small.path))
        assert "\n" not in str(caught.value) and "rust" not in str(caught.value)


def test_one_handle_in_many_threads(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "c", dim=8, schema={"n": "int"})
    collection.add([f"s{i}" for i in range(500)], vectors(500, 8), {"n": list(range(500))})
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for i in range(30):
                hits = collection.search(vectors(1, 8, seed=i)[0], 5, where="n >= 0", columns=["n"])
                assert len(hits) == 5
        except BaseException as error:
            failures.append(error)

    def write(name: int) -> None:
        try:
            for i in range(8):
                collection.add([f"t{name}-{i}"], vectors(1, 8, seed=i), [{"n": i}])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    threads += [threading.Thread(target=write, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert collection.count() == 516
