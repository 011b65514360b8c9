"""Copies between stores: every pair, interrupted and resumed, and what verification finds."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filter_cases import SCHEMA
from typer.testing import CliRunner

from nextvec.cli.collection import app
from nextvec.search.inputs import normalise
from nextvec.search.stores import create_collection, open_collection
from nextvec.search.stores.moving import checksum, copy_rows
from nextvec.types import ConflictError, InputError

ROWS = 57
NUMBERS = itertools.count()
RUNNER = CliRunner()


@pytest.fixture
def places(tmp_path: Path, postgres: str, objects: str) -> dict[str, str]:
    """An empty place of each kind."""
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    n = next(NUMBERS)
    return {
        "folder": str(tmp_path / "folder"),
        "qdrant": f"qdrant+file://{tmp_path}/q/c",
        "postgres": f"{postgres}copy{n}",
        "objects": f"{objects}copy{n}",
        "other folder": str(tmp_path / "other"),
        "memory": f"qdrant+memory:///m{n}",
    }


def fill(address: str, metric: Any = "cosine") -> Any:
    rng = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    for i in range(ROWS):
        row: dict[str, Any] = {
            "year": 2**62 + i,
            "score": i / 7,
            "open": i % 2 == 0,
            "venue": f"é'{i}\n",
            "day": dt.date(1960, 1, 1) + dt.timedelta(days=300 * i),
            "seen at": dt.datetime(1960, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=10**14 * i + 1),
            "tags": [str(i)] * (i % 3),
        }
        rows.append({name: None if (i + j) % 5 == 0 else value for j, (name, value) in enumerate(row.items())})
    collection = create_collection(address, dim=33, schema=SCHEMA, metric=metric)
    collection.add([f"r{i}" for i in range(ROWS)], rng.standard_normal((ROWS, 33)).astype(np.float32) * 5, rows)
    return collection


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_round_the_houses_nothing_changes(places: dict[str, str], metric: Any) -> None:
    with fill(places["folder"], metric) as source:
        first = checksum(source)
        wanted = source.get(source.ids(), vectors=True)
        for name in ("qdrant", "objects", "postgres", "memory", "other folder"):
            target = create_collection(places[name], dim=33, schema=SCHEMA, metric=metric)
            seen: list[tuple[int, int | None]] = []
            done = copy_rows(source, target, batch=10, progress=lambda n, total, seen=seen: seen.append((n, total)))
            assert (done.rows, done.copied, done.skipped, done.checksum) == (ROWS, ROWS, 0, first)
            assert done.precision == "float32"
            assert (seen[0], seen[-1]) == ((0, 2 * ROWS), (2 * ROWS, 2 * ROWS))
            assert checksum(target, batch=7) == first
            assert target.ids() == source.ids()
            for row, copy in zip(wanted, target.get(target.ids(), vectors=True), strict=True):
                assert row["vector"].tobytes() == copy["vector"].tobytes()
                assert {**row, "vector": 0} == {**copy, "vector": 0}
            if name != "qdrant":
                source.close()
            source = target
        source.close()


@pytest.mark.parametrize("name", ["qdrant", "postgres", "objects", "other folder"])
def test_an_interrupted_copy_goes_on_where_it_stopped(
    places: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    with fill(places["folder"]) as source, create_collection(places[name], dim=33, schema=SCHEMA) as target:
        write = type(target).add

        def add(self: Any, ids: Any, vectors: Any, attributes: Any = None) -> None:
            if len(written) == 3:
                raise KeyboardInterrupt
            write(self, ids, vectors, attributes)
            written.append(len(ids))

        with monkeypatch.context() as patch:
            patch.setattr(type(target), "add", add)
            with pytest.raises(KeyboardInterrupt):
                copy_rows(source, target, batch=10)
        assert (written, target.count()) == ([10, 10, 10], 30)
        done = copy_rows(source, target, batch=10)
        assert (done.copied, done.skipped, done.rows) == (27, 30, ROWS)
        assert target.ids() == source.ids()
        again = copy_rows(source, target)
        assert (again.copied, again.skipped, again.checksum) == (0, ROWS, checksum(source))


def test_what_differs_is_told(places: dict[str, str]) -> None:
    with fill(places["folder"]) as source, create_collection(places["memory"], dim=33, schema=SCHEMA) as target:
        copy_rows(source, target)
        row = source.get(["r5"], vectors=True)[0]
        vector = row.pop("vector").copy()
        vector[0] = np.nextafter(vector[0], np.float32(9))  # one bit of one vector
        target.upsert(["r5"], [vector], [{name: row[name] for name in SCHEMA}])
        with pytest.raises(ConflictError, match="differs from its source in 1 of 57 rows, the first 'r5'"):
            copy_rows(source, target)
        target.delete(["r5"])
        assert copy_rows(source, target).copied == 1
        target.upsert(["r6"], source.get(["r6"], vectors=True)[0]["vector"][None], [{"year": 1}])
        with pytest.raises(ConflictError, match="the first 'r6'"):
            copy_rows(source, target)
        target.delete(["r6"])
        target.add(["more"], np.ones((1, 33)))
        with pytest.raises(ConflictError, match="the target holds 58 rows, the source 57"):
            copy_rows(source, target)
    other = create_collection("qdrant+memory:///d", dim=3)
    with other, open_collection(places["folder"]) as source, pytest.raises(InputError, match="different dim"):
        copy_rows(source, other)


def test_half_precision_is_verified_after_rounding(places: dict[str, str]) -> None:
    from nextvec.search.stores.postgres import PostgresCollection

    half = PostgresCollection.create(places["postgres"], dim=33, schema=SCHEMA, precision="float16")
    with fill(places["folder"]) as source, half:
        done = copy_rows(source, half)
        assert (done.precision, done.checksum) == ("float16", checksum(half))
        assert done.checksum != checksum(source)
        assert copy_rows(source, half).copied == 0


def test_scaling_twice_changes_nothing() -> None:
    rows = np.random.default_rng(0).standard_normal((20_000, 48)).astype(np.float32)
    once = normalise(rows)
    assert np.array_equal(normalise(once), once)


def test_on_the_command_line(places: dict[str, str], postgres: str) -> None:
    fill(places["folder"]).close()
    told = RUNNER.invoke(app, ["copy", places["folder"], places["postgres"], "--batch", "20"])
    assert told.exit_code == 0, told.exception
    assert "57 rows copied, 0 were there" in told.stdout
    assert "agree (bit by bit), checksum" in told.stdout
    told = RUNNER.invoke(app, ["copy", places["postgres"], places["qdrant"], "--json"])
    document = json.loads(told.stdout)
    assert (document["copied"], document["target"]) == (57, places["qdrant"])
    info = RUNNER.invoke(app, ["info", places["qdrant"], "--json"])
    assert json.loads(info.stdout)["rows"] == 57
    with open_collection(places["postgres"]) as store:
        store.delete(["r1"])
    told = RUNNER.invoke(app, ["copy", places["postgres"], places["qdrant"]])
    assert told.exit_code == 1
    assert isinstance(told.exception, ConflictError)
    assert "the target holds 57 rows, the source 56" in str(told.exception)


@pytest.mark.parametrize("kind", ["postgres", "objects"])
def test_add_and_search_on_the_command_line(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    address = f"{request.getfixturevalue(kind)}cli"
    assert RUNNER.invoke(app, ["create", address, "--dim", "3", "--schema", "year:int"]).exit_code == 0
    records = [{"id": f"r{i}", "vector": [1, i, 0], "year": 2000 + i} for i in range(5)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "5 rows added" in RUNNER.invoke(app, ["add", address, str(tmp_path / "r.jsonl")]).stdout
    np.save(tmp_path / "q.npy", np.array([1, 0, 0], np.float32))
    words = ["search", address, "--vector", str(tmp_path / "q.npy"), "--where", "year > 2001", "-k", "1", "--json"]
    assert json.loads(RUNNER.invoke(app, words).stdout)["hits"] == [{"id": "r2", "score": 0.447214, "year": 2002}]
    words = ["search", address, "--vector", str(tmp_path / "q.npy"), "--min-score", "0.4", "--all", "--json"]
    found = json.loads(RUNNER.invoke(app, words).stdout)["hits"]
    assert [hit["id"] for hit in found] == ["r0", "r1", "r2"]
    refused = RUNNER.invoke(app, [*words, "--recall", "0.9"])
    assert "recall works on collections in a folder" in str(refused.exception)
    shown = RUNNER.invoke(app, ["info", address, "--json"])
    assert shown.exit_code == 0, shown.exception
    told = json.loads(shown.stdout)
    assert (told["rows"], told["schema"]) == (5, {"year": "int"})
