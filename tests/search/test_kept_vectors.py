"""Vectors in fewer bytes: what a row is then, that it stays so on every way it can go, and what headers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from examples import examples
from nextvec.cli.collection import app
from nextvec.search.checkup import check_collection
from nextvec.search.collection import Collection
from nextvec.search.inputs import as_kept
from nextvec.search.schema import Schema
from nextvec.search.sizes import sizes
from nextvec.search.stores import create_collection, open_collection
from nextvec.search.stores.moving import checksum, copy_rows
from nextvec.types import ConflictError, InputError, StorageError

DIM, ROWS = 48, 3_000
KEEPS = ["float32", "float16", "int8"]


def vectors(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def held(collection: Any) -> np.ndarray:
    return np.stack([row["vector"] for row in collection.get(collection.ids(), vectors=True)])


def filled(path: Path, **options: Any) -> Collection:
    collection = Collection.create(path, dim=DIM, schema={"n": "int"}, **options)
    collection.add([str(i) for i in range(ROWS)], vectors(ROWS), {"n": list(range(ROWS))})
    return collection


def check_search(collection: Any, rows: np.ndarray, names: list[str], query: np.ndarray, k: int = 10) -> None:
    scores = (rows.astype(np.float64) @ (query / np.linalg.norm(query)).astype(np.float64)).astype(np.float32)
    hits = collection.search(query, k)
    assert hits.ids == [names[i] for i in np.argsort(-scores, kind="stable")[:k]]
    assert hits.scores == pytest.approx(np.sort(scores)[::-1][:k], abs=1e-6)


@pytest.mark.parametrize("keep", KEEPS)
@settings(max_examples=examples(40, 200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_taking_it_twice_changes_nothing(keep: Any, data: st.DataObject) -> None:
    dim = data.draw(st.integers(1, 40))
    value = st.floats(-1e3, 1e3, width=32) | st.sampled_from([0.0, 1.0, -1.0, 1e-6])
    row = st.lists(value, min_size=dim, max_size=dim).filter(lambda values: any(abs(x) > 1e-12 for x in values))
    rows = np.array(data.draw(st.lists(row, min_size=1, max_size=5)), np.float32)
    schema = Schema(dim, "cosine", {}, keep)
    once = as_kept(rows, schema, "vector")
    assert np.array_equal(as_kept(once, schema, "vector"), once)
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    step = {"float32": 1e-7, "float16": 2.0**-11, "int8": 1 / 127}[keep]
    assert np.abs(once - unit).max() <= step * max(1.0, np.sqrt(dim) / 2)


@pytest.mark.parametrize("keep", KEEPS)
def test_a_row_is_what_is_left_of_it_and_stays_so(tmp_path: Path, keep: Any) -> None:
    rows = as_kept(vectors(ROWS), Schema(DIM, "cosine", {}, keep), "vector")
    names = [str(i) for i in range(ROWS)]
    with filled(tmp_path / "c", keep=keep) as collection:
        assert (collection.keep, collection.info()["keep"]) == (keep, keep)
        assert np.array_equal(held(collection), rows)
        for query in vectors(5, 9):
            check_search(collection, rows, names, query)
        collection.delete(["7"])
        collection.upsert(["7"], rows[7:8], {"n": [7]})  # what was read goes in again
        collection.compact()
        assert np.array_equal(collection.get(["7"], vectors=True)[0]["vector"], rows[7])  # type: ignore[index]
    assert check_collection(tmp_path / "c") == []
    with Collection.open(tmp_path / "c") as collection:
        check_search(collection, np.delete(rows, 7, 0), names[:7] + names[8:], vectors(1, 3)[0], 5)


@pytest.mark.parametrize("keep", ["float16", "int8"])
def test_fewer_bytes(tmp_path: Path, keep: Any) -> None:
    with filled(tmp_path / "a") as whole, filled(tmp_path / "b", keep=keep) as small:
        saved = {"float16": 2, "int8": 3}[keep] * DIM * ROWS
        assert whole.info()["bytes"] - small.info()["bytes"] >= 0.95 * saved


@pytest.mark.parametrize("keep", KEEPS)
def test_copies_between_all_of_them(tmp_path: Path, keep: Any) -> None:
    with filled(tmp_path / "a", keep=keep) as source:
        for place, other in enumerate(KEEPS):
            address = f"file://{tmp_path}/{place}" if place % 2 else str(tmp_path / str(place))
            options: dict[str, Any] = {"keep": other}
            with create_collection(address, dim=DIM, schema={"n": "int"}, **options) as target:
                done = copy_rows(source, target)
                assert (done.rows, done.precision) == (ROWS, "float32" if other == keep else other)
                # Of float16 the lengths are not quite 1, and float32 has them brought to it.
                if other == keep or (keep, other) == ("int8", "float32"):
                    assert checksum(target) == checksum(source)
                assert copy_rows(source, target).copied == 0
            with open_collection(address) as again:
                assert again.keep == other
                assert again.search(vectors(1)[0], 1).ids == ["0"]


def test_a_vector_of_the_table_that_changed_is_restored(tmp_path: Path) -> None:
    with filled(tmp_path / "c", keep="int8") as collection:
        collection.search(vectors(1)[0])
        before = held(collection)
    (file,) = (tmp_path / "c" / "data.lance" / "data").glob("*.lance")
    data = bytearray(file.read_bytes())
    row = np.rint(before[33] / np.abs(before[33]).max() * 127).astype(np.int8).tobytes()
    data[data.find(row) + 3] ^= 0x10
    file.write_bytes(data)
    (found,) = check_collection(tmp_path / "c", repair=True)
    assert found.repaired and "'33'" in found.problem
    assert check_collection(tmp_path / "c") == []
    with Collection.open(tmp_path / "c") as collection:
        assert np.array_equal(collection.get(["33"], vectors=True)[0]["vector"], before[33])  # type: ignore[index]


def test_longer_vectors_are_cut(tmp_path: Path) -> None:
    long = vectors(ROWS, dim=96)
    with Collection.create(tmp_path / "c", dim=DIM, nested=True) as collection:
        collection.add([str(i) for i in range(ROWS)], long)
        cut = as_kept(np.ascontiguousarray(long[:, :DIM]), Schema(DIM, "cosine", {}), "vector")
        assert np.array_equal(held(collection), cut)
        for query in vectors(3, 4, 96):
            want = collection.search(query[:DIM], 10)
            for given_ in (query, query.astype(np.float64), query[None]):
                got = collection.search(given_, 10)
                got = got[0] if isinstance(got, list) else got
                assert (got.ids, got.scores.tolist()) == (want.ids, want.scores.tolist())
        with pytest.raises(InputError, match=r"shape \[1, 40\]: expected \[n, 48\] or more"):
            collection.search(vectors(1, 0, 40)[0])
        zeros = np.zeros((1, 96), np.float32)
        zeros[0, 60] = 1
        with pytest.raises(InputError, match="vector 0 is all zeros"):
            collection.add(["zero"], zeros)
    with Collection.open(tmp_path / "c") as collection:
        assert collection.nested and collection.search(long[3], 1).ids == ["3"]


def test_what_does_not_go_together(tmp_path: Path) -> None:
    for options, said in (
        ({"keep": "int4"}, "expected one of float32, float16, int8"),
        ({"keep": "int8", "metric": "dot"}, "goes with metric 'cosine' only"),
        ({"nested": 1}, "nested is 1"),
    ):
        with pytest.raises(InputError, match=said):
            Collection.create(tmp_path / "c", dim=4, **options)  # type: ignore[arg-type]
    with Collection.create(tmp_path / "c", dim=4, keep="float16", metric="dot") as collection:
        collection.add(["a"], [[65_000, 0, 0, 0.5]])
        with pytest.raises(InputError, match="vector 1 holds a number beyond 65504"):
            collection.add(["b", "c"], [[1, 0, 0, 0], [70_000, 0, 0, 0]])
        assert collection.ids() == ["a"]
    with pytest.raises(ConflictError, match="exists with dim 4, metric 'dot', keep 'float16'"):
        Collection.create(tmp_path / "c", dim=4, metric="dot", exist_ok=True)
    with pytest.raises(InputError, match="Qdrant keeps 'float32'"):
        create_collection("qdrant+memory:///x", dim=4, keep="float16")


def test_headers(tmp_path: Path) -> None:
    """A collection that is as all were says what all said; another one says so to an older nextvec."""
    Collection.create(tmp_path / "a", dim=4).close()
    header = json.loads((tmp_path / "a" / "collection.json").read_text())
    assert header == {"format": 1, "dim": 4, "metric": "cosine", "schema": {}}
    Collection.create(tmp_path / "b", dim=4, keep="int8", nested=True).close()
    place = tmp_path / "b" / "collection.json"
    header = json.loads(place.read_text())
    assert (header["format"], header["keep"], header["nested"]) == (2, "int8", True)
    for wrong in ({**header, "format": 3}, {**header, "keep": "int4"}, {**header, "nested": 3}):
        place.write_text(json.dumps(wrong))
        with pytest.raises((StorageError, InputError)):
            Collection.open(tmp_path / "b")


def test_what_fewer_bytes_cost(tmp_path: Path) -> None:
    with filled(tmp_path / "c") as collection:
        steps: list[tuple[int, int | None]] = []
        found = {one.spec: one for one in sizes(collection, rows=1_000, progress=lambda *step: steps.append(step))}
        assert steps[-1][0] == steps[-1][1] == len(found)
        whole, half = found[f"keep=float32, dim={DIM}"], found["keep=int8, dim=24"]
        assert (whole.recall, whole.reranked, whole.bytes) == (1.0, 1.0, 4 * DIM)
        assert (half.bytes, half.on_disk) == (24, 6 * 24 + 40)
        assert found[f"keep=float16, dim={DIM}"].recall > found[f"keep=int8, dim={DIM}"].recall > 0.9
        assert half.low <= half.recall <= half.high and half.recall < half.reranked < 1
        # The figure is the one that a collection of that make really has.
        names = np.array(collection.ids(), object)[np.random.default_rng(0).permutation(ROWS)[:1_200]]
        rows = np.stack([row["vector"] for row in collection.get(names.tolist(), vectors=True) if row])
        with Collection.create(tmp_path / "d", dim=24, keep="int8", nested=True) as small:
            small.add([str(i) for i in range(1_000)], rows[200:])
            truth = np.argsort(-(rows[:200] @ rows[200:].T), axis=1)[:, :10]
            hits = small.search(rows[:200], 10)
        shares = [len({str(i) for i in own} & set(one.ids)) / 10 for own, one in zip(truth, hits, strict=True)]
        assert half.recall == pytest.approx(np.mean(shares), abs=0.002)
        with pytest.raises(InputError, match="100 rows tell too little"):
            sizes(collection, rows=100)
        own = sizes(collection, vectors(7, 3), k=3)
        assert own[0].recall == 1


def test_on_the_command_line(tmp_path: Path) -> None:
    def run(*words: object) -> dict[str, Any]:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    filled(tmp_path / "a").close()
    copied = run("copy", tmp_path / "a", tmp_path / "b", "--dim", 24, "--keep", "int8", "--json")
    assert (copied["rows"], copied["precision"]) == (ROWS, "int8")
    info = run("info", tmp_path / "b", "--json")
    assert (info["dim"], info["keep"], info["nested"]) == (24, "int8", True)
    np.save(tmp_path / "q.npy", vectors(1)[0])
    found = run("search", tmp_path / "b", "--vector", tmp_path / "q.npy", "-k", 1, "--json")
    assert found["hits"][0]["id"] == "0"
    told = run("sizes", tmp_path / "a", "--rows", 600, "--queries", tmp_path / "q.npy", "--json")["sizes"]
    assert told[0]["recall"] == 1 and {one["kind"] for one in told} == {"collection", "codec"}
    made = run("create", tmp_path / "c", "--dim", 8, "--keep", "float16", "--nested", "--json")
    assert (made["keep"], made["nested"]) == ("float16", True)
