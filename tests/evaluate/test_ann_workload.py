"""Workloads of filtered search: exact answers, filters in their buckets, sources, readers of strangers' files."""

from __future__ import annotations

import datetime as dt
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextvec.evaluate.ann.draw import BOUNDS, Drawer
from nextvec.evaluate.ann.make import Plan, Source, cached, make
from nextvec.evaluate.ann.sources import collection, papers, parquet, synthetic
from nextvec.evaluate.ann.study import read_lists, read_study, read_vectors
from nextvec.evaluate.ann.workload import Workload, exact, matching, open_workload, save, unit
from nextvec.search.collection import Collection
from nextvec.types import InputError, NotFoundError, StorageError

SMALL = Plan(filters=2, queries=4, k=5)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return make(synthetic(4000, dim=16, queries=60), SMALL)


# ---------------------------------------------------------------- exact answers


def test_the_truth_is_brute_force_in_float64(workload: Workload) -> None:
    wide = workload.vectors.astype(np.float64)
    for number, group in enumerate(workload.groups):
        allowed = matching(workload.attributes, workload.schema, group.where)
        assert allowed.sum() == group.matches
        for case, query in zip(workload.cases(number), group.queries, strict=True):
            scores = np.where(allowed, wide @ workload.queries[query].astype(np.float64), -np.inf)
            wanted = np.argsort(-scores, kind="stable")[: min(workload.k, group.matches)]
            found = workload.truth[case]
            assert np.allclose(scores[found[found >= 0]], scores[wanted], rtol=0, atol=1e-12)
            assert (found >= 0).sum() == len(wanted)


def test_ties_are_in_row_order_and_what_is_missing_is_minus_one() -> None:
    vectors = unit(np.array([[1, 0], [0, 1], [1, 0], [1, 0]]), "vectors")
    assert exact(vectors, None, vectors[:1], 3).tolist() == [[0, 2, 3]]
    assert exact(vectors, np.array([1, 3]), vectors[:1], 3).tolist() == [[3, 1, -1]]
    assert exact(vectors, np.array([], np.int64), vectors[:1], 2).tolist() == [[-1, -1]]


def test_exact_is_right_where_float32_is_not() -> None:
    """Two rows whose float32 scores are the same or swapped: float64 decides."""
    generator = np.random.default_rng(0)
    query = unit(generator.standard_normal((1, 512)), "q")
    base = np.repeat(query, 200, axis=0) + 1e-6 * generator.standard_normal((200, 512)).astype(np.float32)
    vectors = unit(base, "v")
    scores = vectors.astype(np.float64) @ query[0].astype(np.float64)
    found = exact(vectors, None, query, 10)[0]
    assert np.allclose(scores[found], np.sort(scores)[::-1][:10], rtol=0, atol=1e-15)


# ---------------------------------------------------------------- filters and their queries


def test_selectivities_lie_in_their_buckets(workload: Workload) -> None:
    seen = set()
    for group in workload.groups:
        low, high = BOUNDS[group.cell.bucket]
        assert low <= 100 * group.matches / len(workload.vectors) <= high
        seen.add((group.cell.kind, group.cell.bucket))
    for kind in ("set", "range", "and", "or"):
        assert {bucket for name, bucket in seen if name == kind} >= {1.0, 10.0, 50.0}
    told = {str(cell) for cell in workload.cells()} | set(workload.left_out)
    assert len(told) == 1 + 5 * 5 * 3  # nothing is left out without a word


def test_near_filters_hold_for_their_query_and_attract_far_ones_repel() -> None:
    plan = Plan(filters=6, queries=4, kinds=("match", "set"), buckets=(10.0,))
    source = synthetic(4000, dim=16, queries=60)
    made = make(source, plan)
    lift = {
        name: [g.lift for g in made.groups if g.cell.correlation == name] for name in ("independent", "near", "far")
    }
    assert np.mean(lift["near"]) > 1.5 > 0.7 > np.mean(lift["far"])
    for group in (group for group in made.groups if group.cell.correlation == "near"):
        assert source.query_attributes is not None
        assert matching(source.query_attributes, made.schema, group.where)[list(group.queries)].any()


def test_every_kind_is_what_it_says() -> None:
    source = synthetic(4000, dim=4)
    drawer = Drawer(source.attributes, source.schema, np.random.default_rng(1))
    marks = {"match": " = ", "set": " IN ", "range": " BETWEEN ", "and": " AND ", "or": " OR "}
    for kind, mark in marks.items():
        text, rows = drawer.draw(kind, 10.0) or ("", np.array([]))
        assert mark in text and len(rows)


def test_values_that_are_hard_to_write_are_written_right() -> None:
    table = pa.table({
        "a name": pa.array(["it's", 'a "b"', "c\n"] * 40),
        "when": pa.array([dt.datetime(2024, 1, 1 + i % 20, 3) for i in range(120)], pa.timestamp("us", "UTC")),
        "level": pa.array([-1.5e-7 * i for i in range(120)]),
        "day": pa.array([None if i % 2 else dt.date(2024, 1, 1 + i % 28) for i in range(120)]),
    })  # fmt: skip
    schema = {"a name": "string", "when": "timestamp", "level": "float", "day": "date"}
    drawer = Drawer(table, schema, np.random.default_rng(0))
    texts = [found[0] for kind in ("match", "range", "and", "or") * 12 if (found := drawer.draw(kind, 50.0))]
    texts += [found[0] for kind in ("match", "range", "and", "or") * 12 if (found := drawer.draw(kind, 10.0))]
    assert all(any(part in text for text in texts) for part in ('"when" B', '"level" B', '"day"', "'it''s'"))
    assert not any("\n" in text for text in texts)


def test_the_same_seed_gives_the_same_workload() -> None:
    plan = Plan(filters=1, queries=2, buckets=(10.0,))
    one, two = (make(synthetic(1000, dim=8, queries=20), plan) for _ in range(2))
    assert one.groups == two.groups
    assert (one.truth == two.truth).all() and (one.vectors == two.vectors).all()


def test_a_plan_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match="'regex' is not one of match"):
        Plan(kinds=("regex",))
    with pytest.raises(InputError, match="filters is 0"):
        Plan(filters=0)


def test_a_source_without_attributes_says_so() -> None:
    vectors = np.eye(20)
    source = Source(
        name="n", vectors=vectors, attributes=pa.table({"x": [1] * 20}).select([]), schema={}, queries=vectors
    )
    with pytest.raises(InputError, match="name other attributes"):
        make(source, Plan(buckets=(1.0,)))


# ---------------------------------------------------------------- kept in a folder


def test_a_workload_comes_back_as_it_was(workload: Workload, tmp_path: Path) -> None:
    read = open_workload(save(workload, tmp_path / "w"))
    assert read.groups == workload.groups and read.left_out == workload.left_out
    assert (read.vectors == workload.vectors).all() and read.attributes.equals(workload.attributes)


def test_damage_is_noticed_and_repaired(tmp_path: Path) -> None:
    calls = []

    def source() -> Source:
        calls.append(1)
        return synthetic(200, dim=4, queries=10)

    plan = Plan(filters=1, queries=2, buckets=(10.0,), kinds=("range",))
    place = cached(source, {"name": "s"}, plan, folder=tmp_path)
    assert cached(source, {"name": "s"}, plan, folder=tmp_path) == place and len(calls) == 1
    raw = bytearray((place / "truth.npy").read_bytes())
    raw[-1] ^= 1
    (place / "truth.npy").write_bytes(raw)
    with pytest.raises(StorageError, match=r"truth\.npy differs from its checksum"):
        open_workload(place)
    cached(source, {"name": "s"}, plan, folder=tmp_path)
    assert len(calls) == 2 and open_workload(place).k == plan.k
    with pytest.raises(NotFoundError, match="not a workload"):
        open_workload(tmp_path / "other")


# ---------------------------------------------------------------- sources


def _table(rows: int = 60) -> pa.Table:
    generator = np.random.default_rng(0)
    return pa.table({
        "id": [f"r{i}" for i in range(rows)],
        "v": pa.array(generator.standard_normal((rows, 4)).tolist()),
        "year": pa.array([2000 + i % 10 for i in range(rows)], pa.int16()),
        "when": pa.array([dt.datetime(2024, 1, 1 + i % 20) for i in range(rows)], pa.timestamp("ns")),
        "share": pa.array([float("nan") if i == 3 else i / 10 for i in range(rows)], pa.float32()),
        "tags": pa.array([["a", "b"][: i % 3] for i in range(rows)], pa.list_(pa.string())),
        "odd": pa.array([b"x"] * rows),
    })  # fmt: skip


def test_a_parquet_file_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "my data.parquet"
    pq.write_table(_table(), path)
    source = parquet(path, "v", ["year", "when", "share", "tags"], queries=5)
    assert source.schema == {"year": "int", "when": "timestamp", "share": "float", "tags": "list[string]"}
    assert len(source.vectors) + len(source.queries) == 60 and source.query_attributes is not None
    assert source.attributes.column("share").null_count + source.query_attributes.column("share").null_count == 1
    made = make(source, Plan(filters=1, queries=2, kinds=("range", "set"), buckets=(10.0, 50.0)))
    assert {group.cell.kind for group in made.groups} == {"range", "set"}


@pytest.mark.parametrize(
    ("column", "attributes", "complaint"),
    [
        ("vv", ["year"], "no column 'vv'.*did you mean 'v'"),
        ("year", [], "expected a list of numbers"),
        ("tags", [], "holds string"),
        ("v", ["odd"], "'odd' has type binary"),
    ],
)
def test_a_parquet_file_that_does_not_do(tmp_path: Path, column: str, attributes: list[str], complaint: str) -> None:
    pq.write_table(_table(), tmp_path / "d.parquet")
    with pytest.raises(InputError, match=complaint):
        parquet(tmp_path / "d.parquet", column, attributes)


def test_numbers_beyond_64_bits_are_refused(tmp_path: Path) -> None:
    large = _table().set_column(0, "id", pa.array([2**63 + i for i in range(60)], pa.uint64()))
    pq.write_table(large.rename_columns(["big", *large.column_names[1:]]), tmp_path / "d.parquet")
    with pytest.raises(InputError, match="outside the range of its type"):
        parquet(tmp_path / "d.parquet", "v", ["big"])


def test_uneven_vectors_and_files_that_are_not_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [[1.0], [1.0, 2.0], [3.0]]}), tmp_path / "d.parquet")
    with pytest.raises(InputError, match="vectors of 1 to 2 numbers"):
        parquet(tmp_path / "d.parquet", "v", [])
    (tmp_path / "e.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        parquet(tmp_path / "e.parquet", "v", [])
    with pytest.raises(NotFoundError, match="no file"):
        parquet(tmp_path / "f.parquet", "v", [])


def test_a_collection_of_the_users(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 4))
    with Collection.create(tmp_path / "c", dim=4, schema={"year": "int"}) as made:
        made.add([f"r{i}" for i in range(50)], vectors, {"year": list(range(50))})
    source = collection(tmp_path / "c", queries=5)
    assert len(source.vectors) == 45 and source.schema == {"year": "int"}
    row = source.attributes.column("year")[0].as_py()
    assert np.allclose(source.vectors[0], unit(vectors, "v")[row])
    with Collection.create(tmp_path / "d", dim=4, metric="dot"):
        pass
    with pytest.raises(InputError, match="metric 'dot'"):
        collection(tmp_path / "d")


def test_papers_with_their_attributes(needs: Callable[[str], None]) -> None:
    needs("arxiv_daily")
    needs("acl_anthology_2025")
    from nextvec.encoder import Encoder

    source = papers(Encoder.load("nextvec-mini"), queries=50, each=1000)
    assert len(source.vectors) > 2500 and len(source.queries) == 50
    made = make(source, Plan(filters=2, queries=4, kinds=("set",), buckets=(10.0,), correlations=("near", "far")))
    lift = {name: np.mean([g.lift for g in made.groups if g.cell.correlation == name]) for name in ("near", "far")}
    assert lift["near"] > 1 > lift["far"]  # papers of a topic lie together


# ---------------------------------------------------------------- files of others


def _rows(path: Path, rows: np.ndarray) -> Path:
    path.write_bytes(b"".join(struct.pack("<i", len(row)) + row.tobytes() for row in rows))
    return path


def test_vectors_are_read_as_they_were_written(tmp_path: Path) -> None:
    floats = np.arange(12, dtype="<f4").reshape(3, 4)
    assert (read_vectors(_rows(tmp_path / "a.fvecs", floats)) == floats).all()
    assert (read_vectors(_rows(tmp_path / "a.bvecs", floats.astype("u1"))) == floats).all()
    assert (read_vectors(_rows(tmp_path / "a.ivecs", floats.astype("<i4"))) == floats).all()
    assert read_vectors(tmp_path / "a.fvecs", limit=2).shape == (2, 4)


def test_lists_may_be_short_and_filled_up(tmp_path: Path) -> None:
    path = tmp_path / "g.ivecs"
    path.write_bytes(struct.pack("<iii", 2, 7, 8) + struct.pack("<iii", 2, 5, -1) + struct.pack("<i", 0))
    path.write_bytes(path.read_bytes() + struct.pack("<iii", 2, -1, -1))
    assert [row.tolist() for row in read_lists(path)] == [[7, 8], [5], [], []]


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "at least one row"),
        (b"\x01\x00", "at least one row"),
        (struct.pack("<i", 0), "says 0 dimensions"),
        (struct.pack("<i", -5), "says -5 dimensions"),
        (struct.pack("<i", 2**31 - 1), "expected 1 to"),
        (struct.pack("<iff", 2, 1, 2) + struct.pack("<if", 2, 1), "is it cut off"),
        (struct.pack("<iff", 2, 1, 2) + struct.pack("<iff", 3, 1, 2), "row 1 says 3 dimensions"),
    ],
)
def test_hostile_vectors_are_refused(tmp_path: Path, raw: bytes, complaint: str) -> None:
    (tmp_path / "h.fvecs").write_bytes(raw)
    with pytest.raises(InputError, match=complaint):
        read_vectors(tmp_path / "h.fvecs")


def test_hostile_lists_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.ivecs"
    for raw, complaint in (
        (struct.pack("<ii", 2**30, 1), "says 1073741824 numbers, 1 are left"),
        (struct.pack("<ii", -1, 1), "says -1 numbers"),
        (struct.pack("<ii", 1, 1) + b"x", "cut off"),
    ):
        path.write_bytes(raw)
        with pytest.raises(InputError, match=complaint):
            read_lists(path)
    with pytest.raises(InputError, match="cannot tell the format"):
        read_vectors(tmp_path / "a.npy")
    with pytest.raises(NotFoundError):
        read_vectors(tmp_path / "a.fvecs")


def _study(folder: Path, *, wrong: bool = False) -> Path:
    """A folder in the study's layout: 200 vectors, 10 queries."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((200, 8)).astype("<f4")
    queries = generator.standard_normal((10, 8)).astype("<f4")
    _rows(folder / "database_vectors.fvecs", vectors)
    _rows(folder / "query_vectors.fvecs", queries)
    rows = [
        {
            "number_of_sub_categories": 1 + i % 2,
            "main_categories": ["cs"] if i % 10 else ["cs", "math"],
            "update_date": i,
        }
        for i in range(200)
    ]
    (folder / "database_attributes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, record in (
        ("em", {"label": 1}),
        ("emis", {"label": "math"}),
        ("r", {"range_start": 50, "range_end": 149}),
    ):
        (folder / f"{name}_query_attributes.jsonl").write_text("\n".join([json.dumps(record)] * 10))
    allowed = {"": [True] * 200, "_em": [i % 2 == 0 for i in range(200)], "_r": [50 <= i < 150 for i in range(200)]}
    allowed["_emis"] = [i % 10 == 0 for i in range(200)]
    scores = unit(queries, "q").astype(np.float64) @ unit(vectors, "v").astype(np.float64).T
    for name, mask in allowed.items():
        best = np.argsort(-np.where(mask, scores, -np.inf), axis=1)[:, :20].astype("<i4")
        _rows(folder / f"ground_truth{name}.ivecs", best[:, ::-1] if wrong else best)
    return folder


def test_the_studys_folder(tmp_path: Path) -> None:
    found = read_study(_study(tmp_path), k=10)
    told = {(g.cell.kind, g.cell.bucket): g.matches for g in found.groups}
    assert told == {("none", 100.0): 200, ("match", 50.0): 100, ("set", 10.0): 20, ("range", 50.0): 100}
    assert found.truth.shape == (40, 10)


def test_a_study_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the published answer differs"):
        read_study(_study(tmp_path, wrong=True), k=10)
    path = tmp_path / "emis_query_attributes.jsonl"
    path.write_text("\n".join(['{"label": 7}'] * 10))
    with pytest.raises(InputError, match=r"emis_query_attributes\.jsonl:1: no label"):
        read_study(tmp_path)
    path.write_text('{"label": "cs"}')
    with pytest.raises(InputError, match="1 filters for 10 queries"):
        read_study(tmp_path)
