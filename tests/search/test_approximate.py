"""Approximate ways: recall as asked for, always min(k, matches) hits that match, and files that cannot mislead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray

from nextvec.search import calibration
from nextvec.search.calibration import Calibration
from nextvec.search.collection import Collection
from nextvec.search.indexes import approximate, codes
from nextvec.search.indexes import cells as cells_module
from nextvec.search.indexes import exact as exact_module
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.approximate import ApproximateFiles
from nextvec.search.indexes.cells import build_cells, cell_count, look, search_cells
from nextvec.search.indexes.exact import ExactIndex
from nextvec.search.indexes.rows import in_memory
from nextvec.search.watch import Watch
from nextvec.types import ConflictError, InputError, NotFoundError

pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")

ROWS, DIM = 6_000, 24
Float32 = NDArray[np.float32]


def clustered(rows: int, seed: int, *, topics: int = 60) -> Float32:
    """Unit vectors around a few dozen centres, as embeddings are."""
    centres = np.random.default_rng(0).standard_normal((topics, DIM))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, topics, rows)] + 0.7 * rng.standard_normal((rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def attributes(rows: int) -> dict[str, list[object]]:
    rng = np.random.default_rng(7)
    return {"share": rng.random(rows).tolist(), "venue": [f"v{i % 20}" for i in range(rows)]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("approximate") / "c"
    with Collection.create(path, dim=DIM, schema={"share": "float", "venue": "string", "far": "float"}) as collection:
        vectors = clustered(ROWS, 1)
        # "far" grows as a row turns away from the first axis: filters on it work against queries along that axis.
        columns = {**attributes(ROWS), "far": (-vectors[:, 0]).astype(float).tolist()}
        collection.add([str(i) for i in range(ROWS)], vectors, columns)
        seen: list[tuple[str, int, int]] = []
        told = collection.index(progress=lambda *step: seen.append(step))
        assert (
            told["rows"] == ROWS and told["graph"] and {step[0] for step in seen} == {"cells", "graph", "calibrating"}
        )
    return path


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "c"))


QUERIES = clustered(60, 2)


def recall_of(collection: Collection, queries: Float32, k: int, where: str | None, recall: float) -> float:
    best = collection.search(queries, k, where=where)
    found = collection.search(queries, k, where=where, recall=recall)
    matches = set(collection.ids(where))
    shares = []
    for one, truth in zip(found, best, strict=True):
        assert len(one.ids) == len(truth.ids) == min(k, len(matches))
        assert len(set(one.ids)) == len(one.ids) and set(one.ids) <= matches
        assert np.all(np.diff(one.scores) <= 0)
        shares.append(np.mean(one.scores >= truth.scores[-1]) if len(truth.ids) else 1.0)
    return float(np.mean(shares))


@pytest.mark.parametrize("k", [1, 10, 40])
@pytest.mark.parametrize(
    "where",
    [None, "share < 0.5", "share < 0.2", "venue IN ('v1', 'v2')", "share < 0.01", "share < 0.0004", "share < 0"],
)
@pytest.mark.parametrize("recall", [0.9, 0.99])
def test_recall_and_hits_at_every_selectivity(built: Path, where: str | None, k: int, recall: float) -> None:
    with Collection.open(built) as collection:
        assert recall_of(collection, QUERIES, k, where, recall) >= recall


def test_one_query_at_a_time_gives_the_same_as_many(built: Path) -> None:
    with Collection.open(built) as collection:
        for where in (None, "share < 0.3"):
            many = collection.search(QUERIES, 10, where=where, recall=0.95)
            truth = collection.search(QUERIES, 10, where=where)
            alone = [collection.search(query, 10, where=where, recall=0.95) for query in QUERIES]
            for found in (many, alone):
                shares = [np.mean(one.scores >= best.scores[-1]) for one, best in zip(found, truth, strict=True)]
                assert np.mean(shares) >= 0.95


def test_matches_that_lie_far_from_the_query_are_left_to_the_exact_index(built: Path) -> None:
    query = np.zeros(DIM, np.float32)
    query[0] = 1.0
    with Collection.open(built) as collection:
        where = "far > 0"  # about half of all rows, all on the other side
        assert 0.3 * ROWS < collection.count(where) < 0.7 * ROWS
        hits = collection.search(query, 10, where=where, recall=0.95, explain=True)
        assert hits.ids == collection.search(query, 10, where=where).ids
        # Signs are no help here: hundreds of rows lie as near to the border, and a scan of all cells gives up.
        assert hits.explain is not None and "int8" in hits.explain["plan"]


def test_filters_that_shut_out_what_is_near_reach_the_recall(tmp_path: Path) -> None:
    """ "Any cluster but the query's own": nearly all rows match, and none of those that a search would look at."""
    rng = np.random.default_rng(11)
    centres = rng.standard_normal((40, DIM))
    cluster = np.arange(12_000) % 40
    vectors = (centres[cluster] + 0.4 * rng.standard_normal((12_000, DIM))).astype(np.float32)
    with Collection.create(tmp_path / "c", dim=DIM, schema={"cluster": "int"}) as collection:
        collection.add([str(i) for i in range(12_000)], vectors, {"cluster": cluster.tolist()})
        collection.index()
        shares = []
        for i in range(40):
            query = (centres[i] + 0.4 * rng.standard_normal(DIM)).astype(np.float32)
            best = collection.search(query, 10, where=f"cluster != {i}")
            found = collection.search(query, 10, where=f"cluster != {i}", recall=0.95)
            shares.append(np.mean(found.scores >= best.scores[-1]))
        assert np.mean(shares) >= 0.95


@pytest.mark.parametrize("compiled", [True, False])
def test_the_share_near_a_query_is_the_lower_of_two(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    if not compiled:
        monkeypatch.setattr(cells_module, "kernels", None)
    elif cells_module.kernels is None:
        pytest.skip("the search kernels were not compiled")
    vectors = clustered(20_000, 5)
    cells = build_cells(in_memory([(np.arange(20_000), vectors)], DIM))
    query = vectors[:1]
    nearest = np.argsort(-(vectors @ query[0]))
    rng = np.random.default_rng(3)
    half = rng.random(20_000) < 0.5
    assert look(cells, query, Allowed(20_000, rows=np.flatnonzero(half)))[1][0] == pytest.approx(0.5, abs=0.15)
    order, _ = look(cells, query)
    ends = np.cumsum(cells.starts[order[0] + 1] - cells.starts[order[0]])
    first = order[0][: int(np.searchsorted(ends, cells_module.CLOSE)) + 1]
    close = np.concatenate([cells.order[cells.starts[cell] : cells.starts[cell + 1]] for cell in first])
    without = np.ones(20_000, np.bool_)
    without[close] = False  # all but what is close
    assert look(cells, query, Allowed(20_000, rows=np.flatnonzero(without)))[1][0] == 0
    without[close[: len(close) * 3 // 10]] = True  # and three tenths of that
    assert look(cells, query, Allowed(20_000, rows=np.flatnonzero(without)))[1][0] == pytest.approx(0.3, abs=0.02)
    few = nearest[::100]  # too few to tell
    assert look(cells, query, Allowed(20_000, rows=np.sort(few)))[1][0] > 0


def test_explain_tells_what_was_considered(built: Path) -> None:
    with Collection.open(built) as collection:
        told = collection.search(QUERIES[0], 10, recall=0.95, explain=True).explain
        assert told is not None
        assert set(told["considered"]) == {"exact", "cells", "graph"}
        assert told["predicted_ms"] == min(told["considered"].values())
        assert told["plan"].split(",")[0] in ("cells", "graph", "scan int8", "scan float32")
        few = collection.search(QUERIES[0], 10, where="share < 0.01", recall=0.95, explain=True).explain
        assert few is not None and "matches for k=10" in few["why"]


def test_without_an_index_the_answer_is_exact_and_explain_says_so(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", dim=DIM) as collection:
        collection.add([str(i) for i in range(ROWS)], clustered(ROWS, 1))
        hits = collection.search(QUERIES[0], 10, recall=0.9, explain=True)
        assert hits.ids == collection.search(QUERIES[0], 10).ids
        assert hits.explain is not None and "Collection.index()" in hits.explain["why"]


@pytest.mark.parametrize("recall", [0, -1, 1.5, "most", True, float("nan"), None])
def test_bad_recall(built: Path, recall: object) -> None:
    with Collection.open(built) as collection, pytest.raises(InputError, match="recall is"):
        collection.search(QUERIES[0], recall=recall)  # type: ignore[call-overload]


def test_rows_added_replaced_and_deleted_since(copy: Path) -> None:
    with Collection.open(copy) as collection:
        new = clustered(500, 3)
        collection.add([f"new{i}" for i in range(500)], new, {"share": [0.1] * 500, "venue": ["new"] * 500})
        collection.delete([str(i) for i in range(0, ROWS, 7)])
        collection.upsert(["1", "2"], clustered(2, 4), {"share": [0.05, 0.05], "venue": ["new", "new"]})
        told = collection.info()["index"]
        assert told["rows_added_since"] == 502
        for where in (None, "share < 0.2", "venue = 'new'"):
            assert recall_of(collection, np.concatenate([QUERIES, new[:20]]), 10, where, 0.95) >= 0.95
        for i in range(5):  # a new row is its own best match
            assert collection.search(new[i], 1, recall=0.9).ids == [f"new{i}"]
        assert collection.index()["rows_added_since"] == 0
        assert recall_of(collection, QUERIES, 10, None, 0.95) >= 0.95


def test_another_handle_sees_the_index_when_it_is_published(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", dim=DIM) as writer, Collection.open(tmp_path / "c") as reader:
        writer.add([str(i) for i in range(ROWS)], clustered(ROWS, 1))
        reader.search(QUERIES[0], recall=0.9)
        assert reader.info()["index"] is None
        writer.index(graph=False)
        told = reader.search(QUERIES[0], recall=0.9, explain=True).explain
        assert told is not None and set(told["considered"]) == {"exact", "cells"}


PARTS = ["means.npy", "order.npy", "codes.npy", "links.npy", "upper.npy"]
OTHERS = [("codes.npy", "gone"), ("means.npy", "flip")]


def damage(copy: Path, part: str, harm: str) -> None:
    (path,) = (copy / "derived").glob(f"approximate-*.{part}")
    data = bytearray(path.read_bytes())
    if harm == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 0x40
        path.write_bytes(data if harm == "flip" else data[: len(data) // 2])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_damaged_file_is_noticed(copy: Path, part: str, harm: str) -> None:
    damage(copy, part, harm)
    with Collection.open(copy) as collection:
        assert collection.info()["index"] is None
        assert recall_of(collection, QUERIES[:5], 10, None, 0.9) == 1.0


ANEW = [("links.npy", "cut"), *(pytest.param(*one, marks=pytest.mark.thorough) for one in OTHERS)]


@pytest.mark.parametrize(("part", "harm"), ANEW)
def test_a_damaged_file_is_made_anew(copy: Path, part: str, harm: str) -> None:
    damage(copy, part, harm)
    with Collection.open(copy) as collection:
        assert collection.index()["rows"] == ROWS
        assert recall_of(collection, QUERIES, 10, None, 0.95) >= 0.95


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}', '{"format": 99, "rows": "x", "count": 1}'])
def test_a_damaged_header_is_noticed(copy: Path, text: str) -> None:
    (copy / "derived" / "approximate.json").write_text(text)
    with Collection.open(copy) as collection:
        assert collection.info()["index"] is None
        assert len(collection.search(QUERIES[0], 10, recall=0.9)) == 10


def test_a_header_that_names_files_elsewhere_is_refused(copy: Path) -> None:
    header = copy / "derived" / "approximate.json"
    document = json.loads(header.read_text())
    document["name"] = "../" + document["name"]
    header.write_text(json.dumps(document))
    with Collection.open(copy) as collection:
        assert collection.info()["index"] is None


def test_an_interrupted_build_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "extend_graph", _in_small_steps(stop_at=3_000))
    with Collection.create(tmp_path / "c", dim=DIM) as collection:
        collection.add([str(i) for i in range(ROWS)], clustered(ROWS, 1))
        with pytest.raises(KeyboardInterrupt):
            collection.index()
        assert collection.info()["index"] is None  # nothing half-made is used
        assert (tmp_path / "c" / "derived" / "building" / "graph").is_file()
        started: list[int] = []
        monkeypatch.setattr(approximate, "build_cells", lambda *_, **__: pytest.fail("the cells were there"))
        monkeypatch.setattr(approximate, "extend_graph", _in_small_steps(started=started))
        assert collection.index()["rows"] == ROWS
        assert started == [3_000]
        assert not (tmp_path / "c" / "derived" / "building").exists()
        assert recall_of(collection, QUERIES, 10, None, 0.95) >= 0.95


def _in_small_steps(stop_at: int | None = None, started: list[int] | None = None):  # type: ignore[no-untyped-def]
    def extend(graph, rows, after):  # type: ignore[no-untyped-def]
        if started is not None:
            started.append(graph.ntotal)
        while graph.ntotal < len(rows):
            if graph.ntotal == stop_at:
                raise KeyboardInterrupt
            graph.add(np.ascontiguousarray(rows.vectors[graph.ntotal : graph.ntotal + 1_000]))
            after(graph.ntotal)

    return extend


def test_what_cannot_be_indexed(tmp_path: Path, copy: Path) -> None:
    with Collection.create(tmp_path / "few", dim=DIM) as collection:
        collection.add(["a"], clustered(1, 1))
        with pytest.raises(InputError, match="an index pays from"):
            collection.index()
    with Collection.open(copy) as collection:
        from filelock import FileLock

        with FileLock(copy / "derived" / "approximate.lock"), pytest.raises(ConflictError, match="another process"):
            collection.index()
        version = collection.version
    with Collection.open(copy, version=version) as pinned, pytest.raises(InputError, match="read-only"):
        pinned.index()


def test_dot_products_of_vectors_of_many_lengths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = clustered(ROWS, 1) * rng.lognormal(0, 0.5, (ROWS, 1)).astype(np.float32)
    with Collection.create(tmp_path / "c", dim=DIM, metric="dot") as collection:
        collection.add([str(i) for i in range(ROWS)], vectors)
        collection.index()
        assert recall_of(collection, QUERIES * 3, 10, None, 0.95) >= 0.95


@pytest.mark.parametrize("kernels", ["compiled", "numkong", "none"])
def test_cells_that_give_every_row_give_the_exact_answer(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels != "compiled":
        monkeypatch.setattr(exact_module, "native", None)
    if kernels == "none":
        monkeypatch.setattr(codes, "numkong", None)
    vectors = clustered(2_000, 5)
    rows = in_memory([(np.arange(2_000), vectors)], DIM)
    exact, cells = ExactIndex(rows), build_cells(rows)
    assert len(cells.means) == cell_count(2_000)
    assert sorted(cells.order.tolist()) == list(range(2_000))
    assert np.array_equal(cells.order[cells.places], np.arange(2_000))
    for taken in (None, np.arange(0, 2_000, 3), np.arange(0, 2_000, 300), np.zeros(0, np.int64)):
        allowed = None if taken is None else Allowed(2_000, rows=taken)
        truths = exact.search(QUERIES[:5], 10, taken)
        order, _ = look(cells, QUERIES[:5], allowed)
        every = search_cells(cells, exact, QUERIES[:5], 10, allowed, order, rows=np.full(5, 2_000.0))
        for found, truth in zip(every, truths, strict=True):
            assert found.rows.tolist() == truth.rows.tolist() and found.scores.tolist() == truth.scores.tolist()


def test_calibration_on_real_queries_looks_as_far_as_they_need(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collection.open(copy) as collection, Collection.open(copy) as other:
        stored = collection.get([str(i) for i in range(100)], vectors=True)
        rows = np.stack([row["vector"] for row in stored if row])
        assert collection.info()["index"]["calibrated_on"] == 0
        before = other.info()["index"]["widths"]
        told = collection.calibrate(rows)  # a row finds itself and its neighbours sooner than noise finds any
        assert told["calibrated_on"] == 100 and not told["recall"]
        assert all(told["widths"][target] <= before[target] for target in before)
        assert other.info()["index"]["widths"] == told["widths"]  # every handle uses the outcome
        assert recall_of(collection, clustered(200, 1)[100:], 10, None, 0.9) > 0.85
        monkeypatch.setattr(calibration, "MOST", 64)
        assert collection.calibrate(clustered(100, 3))["calibrated_on"] == 64


def test_calibration_on_what_was_checked(copy: Path) -> None:
    with Collection.open(copy) as collection:
        with pytest.raises(InputError, match="fewer than 32 approximate searches of this process were checked"):
            collection.calibrate()
        for query in QUERIES[:40]:
            collection._derived.watch.saw(query[None])
        assert collection.calibrate()["calibrated_on"] == 40


def test_what_cannot_be_calibrated(tmp_path: Path, copy: Path) -> None:
    with Collection.create(tmp_path / "new", dim=DIM) as collection:
        collection.add([str(i) for i in range(50)], clustered(50, 1))
        with pytest.raises(NotFoundError, match="no index over the present rows"):
            collection.calibrate(QUERIES)
    with Collection.open(copy) as collection:
        with pytest.raises(InputError, match="at least 32"):
            collection.calibrate(QUERIES[:31])
        with pytest.raises(InputError, match="1 queries"):
            collection.calibrate(QUERIES[0])
        with pytest.raises(InputError, match="expected"):
            collection.calibrate(np.ones((40, DIM + 1)))
        with FileLock(copy / "derived" / "approximate.lock"), pytest.raises(ConflictError):
            collection.calibrate(QUERIES)
        assert collection.info()["index"]["calibrated_on"] == 0


def test_what_a_batch_costs_lies_on_what_was_measured() -> None:
    costs = {"scan": (0.0, 8e-6), "some scan": (0.0, 2e-6), "many scan": (0.0, 1e-6)}
    costs |= {"cells 1.0": (0.0, 4e-6), "some cells 1.0": (0.0, 3e-6)}
    known = Calibration(1_000_000, {}, {}, {}, costs)
    at = {queries: known.exact(1_000_000, False, queries) for queries in (1, 3, 4, 8, 16, 32, 64, 500)}
    assert at[1] == at[3] == pytest.approx(8.0)
    assert at[16] == pytest.approx(2.0) and at[64] == at[500] == pytest.approx(1.0)
    # Between them as a part for each query and one that all share: 2/3 and 16 * 4/3 / queries.
    assert at[32] == pytest.approx(2 / 3 + 16 * 4 / 3 / 32) and at[8] == pytest.approx(2 / 3 + 16 * 4 / 3 / 8)
    assert known.at_share("cells", 1.0, 1e6, 3) == pytest.approx(4.0)
    assert known.at_share("cells", 1.0, 1e6, 4) == pytest.approx(3.0)


def test_the_watch_looks_further_when_recall_is_short_and_less_far_when_it_is_ample() -> None:
    watch = Watch()
    for _ in range(64):
        watch.note(0.95, "graph", 0.8)
        watch.note(0.95, "cells", 1.0)
        watch.note(0.9, "cells", 0.91)
    assert watch.boost[0.95, "graph"] > 2 and watch.boost[0.95, "cells"] < 1 and (0.9, "cells") not in watch.boost
    told = watch.told()
    assert told["0.95"]["graph"] == {"checked": 64, "recall": 0.8, "looks_further": 64.0}
    for recall in (1.0, 0.8) * 8:  # short, and not surely
        watch.note(0.95, "exact", recall)
    assert (0.95, "exact") not in watch.boost
    for recall in (1.0, 0.89) * 60:
        watch.note(0.95, "other", recall)
    assert (0.95, "other") not in watch.boost
    for recall in (1.0, 0.89) * 4:  # 128 of them: short in the mean, and still not surely
        watch.note(0.95, "other", recall)
    assert watch.boost[0.95, "other"] == 1.5


def test_files_of_another_generation_are_not_used(copy: Path, built: Path) -> None:
    with Collection.open(copy) as collection:
        collection.delete(where="share < 0.9")  # most rows are dead now: the exact index is made anew
        collection.compact()
        shutil.rmtree(copy / "derived" / "none", ignore_errors=True)
        files = ApproximateFiles(copy / "derived", DIM)
        other = in_memory([(np.arange(ROWS), clustered(ROWS, 1))], DIM)
        assert files.open(other) is None
        assert recall_of(collection, QUERIES, 10, None, 0.95) >= 0.95
