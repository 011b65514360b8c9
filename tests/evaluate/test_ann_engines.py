"""Engines of the filtered-search benchmark: what they return is allowed, and exact where they look at everything."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nextvec.evaluate.ann import engines
from nextvec.evaluate.ann.engines._engine import Engine, Setting, Unsupported
from nextvec.evaluate.ann.engines._sql import DUCKDB, LANCE, POSTGRES, sql
from nextvec.evaluate.ann.engines.nextvec import Nextvec
from nextvec.evaluate.ann.make import Plan, Source, make
from nextvec.evaluate.ann.workload import Workload, matching
from nextvec.search import where
from nextvec.search.collection import Collection
from nextvec.types import NotFoundError

ROWS = 300


def _source() -> Source:
    """Every type of attribute, with NULLs and names that must be quoted."""
    generator = np.random.default_rng(0)

    def some(values: list[object], kind: pa.DataType) -> pa.Array:
        return pa.array([None if generator.random() < 0.05 else value for value in values], kind)

    days = [dt.date(2024, 1, 1) + dt.timedelta(days=int(i)) for i in generator.integers(0, 100, ROWS + 30)]
    table = pa.table(
        {
            "year": some(generator.integers(1990, 2020, ROWS + 30).tolist(), pa.int64()),
            "name of it": some([f"it's {i}" for i in generator.integers(0, 12, ROWS + 30)], pa.string()),
            "share": some((generator.random(ROWS + 30) * 1e-5).tolist(), pa.float64()),
            "open": some((generator.random(ROWS + 30) < 0.5).tolist(), pa.bool_()),
            "day": some(list(days), pa.date32()),
            "moment": some([dt.datetime(d.year, d.month, d.day, 5, 1, 2, 3) for d in days], pa.timestamp("us", "UTC")),
            "tags": some(
                [["a", "b", "c"][: int(i)] for i in generator.integers(0, 4, ROWS + 30)], pa.list_(pa.string())
            ),
        }
    )
    schema = {
        "year": "int", "name of it": "string", "share": "float", "open": "bool", "day": "date", "moment": "timestamp",
        "tags": "list[string]",
    }  # fmt: skip
    vectors = generator.standard_normal((ROWS + 30, 16)).astype(np.float32)
    return Source(
        name="types", vectors=vectors[:ROWS], attributes=table.slice(0, ROWS), schema=schema, queries=vectors[ROWS:],
        query_attributes=table.slice(ROWS),
    )  # fmt: skip


@pytest.fixture(scope="module")
def workload() -> Workload:
    return make(
        _source(), Plan(filters=3, queries=2, k=5, buckets=(1.0, 10.0, 50.0, 100.0), correlations=("independent",))
    )


def _installed(name: str) -> type[Engine]:
    kind = engines.engine(name)
    if reason := kind.missing():
        pytest.skip(reason)
    return kind


@pytest.fixture(scope="module", params=engines.names())
def opened(
    request: pytest.FixtureRequest, workload: Workload, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    kind = _installed(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    kind(folder, workload.schema).build(workload.vectors, workload.attributes)
    engine = kind(folder, workload.schema)
    engine.open(workload.attributes)
    yield engine
    engine.close()


def test_hits_are_allowed_and_the_most_accurate_setting_is_exact(opened: Engine, workload: Workload) -> None:
    """On 300 rows every sweep ends in a look at all of them; post-filtering needs no luck for that either."""
    settings = opened.settings(workload.k)
    last = {setting.series: setting for setting in settings}  # the end of each series
    for setting in last.values():
        for number, group in enumerate(workload.groups):
            prepared = opened.prepare(group.where, setting)
            allowed = matching(workload.attributes, workload.schema, group.where)
            queries = workload.queries[list(group.queries)]
            together = opened.search(queries, workload.k, prepared, setting)
            for case, query, ids in zip(workload.cases(number), queries, together, strict=True):
                alone = opened.search(query[None], workload.k, prepared, setting)[0]
                assert list(alone) == list(ids)
                found = np.array(ids, np.int64)
                assert allowed[found].all() and len(set(found.tolist())) == len(found)
                truth = workload.truth[case][workload.truth[case] >= 0]
                assert set(found.tolist()) == set(truth.tolist()), (setting, group.where)


def test_every_setting_returns_allowed_rows_only(opened: Engine, workload: Workload) -> None:
    for setting in opened.settings(workload.k):
        for group in workload.groups[::7]:
            prepared = opened.prepare(group.where, setting)
            allowed = matching(workload.attributes, workload.schema, group.where)
            found = opened.search(workload.queries[list(group.queries)], workload.k, prepared, setting)
            assert all(allowed[np.array(ids, np.int64)].all() and len(ids) <= workload.k for ids in found)


def test_what_an_engine_says_of_itself(opened: Engine) -> None:
    assert opened.disk() > 0
    assert opened.version()[0].isdigit()
    assert opened.missing() is None


def test_the_collection_forgets_only_where_the_filter_counts_as_new(workload: Workload, tmp_path: Path) -> None:
    engine = Nextvec(tmp_path, workload.schema)
    engine.build(workload.vectors, workload.attributes)
    engine.open(workload.attributes)
    new, known = Setting("nextvec"), Setting("nextvec, filter known", ready=True)
    for text in ("year > 2000", "year > 2001"):
        engine.search(workload.queries[:1], 5, text, known)
    snapshot = engine._collection._current()
    assert len(snapshot._masks) == 2
    engine.search(workload.queries[:1], 5, "year > 2000", new)
    assert len(snapshot._masks) == 1  # the one that this call made
    engine.close()


def test_the_collection_is_swept_by_recall_where_it_takes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def search(
        self: Collection, vector: object, k: int = 10, *, where: str | None = None, recall: object = "exact"
    ) -> None:
        raise AssertionError

    monkeypatch.setattr(Collection, "search", search)
    swept = [s for s in Nextvec(tmp_path, {}).settings(10) if not s.ready]
    assert [s.values for s in swept] == [{"recall": 0.95}, {"recall": 0.97}, {"recall": 0.99}, {"recall": "exact"}]


def test_an_engine_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.engine("duckdb"), "modules", ("no_such_module",))
    assert engines.engine("duckdb").missing() == "'no_such_module' is not installed: pip install 'nextvec[bench]'"
    with pytest.raises(NotFoundError, match="did you mean 'faiss_hnsw'"):
        engines.engine("faiss_hnws")


def test_a_filter_that_cannot_be_expressed_is_named(tmp_path: Path) -> None:
    engine = _installed("qdrant_edge")(tmp_path, {"name": "string"})
    engine._config(4)  # type: ignore[attr-defined]
    with pytest.raises(Unsupported, match="ranges of texts"):
        engine.prepare("name < 'a'", Setting("qdrant edge"))
    with pytest.raises(Unsupported, match="Like"):
        engine.prepare("name LIKE 'a%'", Setting("qdrant edge"))


def test_sql_by_hand() -> None:
    schema = {"a b": "string", "n": "int", "x": "float", "t": "list[string]", "m": "timestamp"}

    def written(text: str) -> list[str]:
        return [sql(where.parse(text, schema), dialect) for dialect in (DUCKDB, LANCE, POSTGRES)]

    assert written("\"a b\" IN ('it''s', 'b')") == [
        "(\"a b\" IN ('it''s', 'b'))",
        "(`a b` IN ('it''s', 'b'))",
        "(\"a b\" IN ('it''s', 'b'))",
    ]
    assert written("'v' IN t")[::2] == ["(list_contains(\"t\", 'v'))", "(\"t\" @> ARRAY['v'])"]
    assert written("x > 0.5")[1] == "(`x` > CAST('0.5' AS DOUBLE))"
    assert written("NOT (n IS NULL OR n = 3)")[0] == '(NOT (("n" IS NULL) OR ("n" = 3)))'
    assert (
        written("m < timestamp '2024-01-01T02:00:00+02:00'")[2] == "(\"m\" < timestamp '2024-01-01T00:00:00.000000Z')"
    )
