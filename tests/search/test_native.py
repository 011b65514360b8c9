"""The compiled kernels and what is built on them: as NumPy has it, and no memory but what was handed over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nextvec.search.collection import Collection
from nextvec.search.indexes import allowed as allowed_module
from nextvec.search.indexes import approximate, cells, codes, exact, graph
from nextvec.search.indexes.allowed import (
    Allowed,
    Condition,
    bits_without,
    code_test,
    range_test,
    rank_test,
    ranks_test,
)
from nextvec.search.indexes.exact import ExactIndex
from nextvec.search.indexes.rows import Damaged, Rows, in_memory
from nextvec.search.native import BITS, CODES, INTS, kernels, outputs

pytestmark = pytest.mark.skipif(kernels is None, reason="the search kernels were not compiled")

N, DIM = 5_000, 24


def made(seed: int = 0, count: int = N) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rows_of(vectors: NDArray[np.float32]) -> Rows:
    return in_memory([(np.arange(len(vectors)), vectors)], vectors.shape[1])


@pytest.fixture(scope="module")
def grown() -> tuple[ExactIndex, graph.Graph, cells.Cells]:
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    rows = rows_of(made())
    built = graph.start_graph(rows)
    graph.extend_graph(built, rows, lambda _: None)
    return ExactIndex(rows), graph.links_of(built), cells.build_cells(rows)


# ---------------------------------------------------------------- exact


@pytest.mark.parametrize("dim", [1, 3, 16, 17, 100])
@pytest.mark.parametrize("k", [1, 7, 400])
def test_listed_rows_are_ranked_as_float64_does(dim: int, k: int) -> None:
    random = np.random.default_rng(dim)
    vectors = random.standard_normal((400, dim)).astype(np.float32)
    vectors[::3] = vectors[0]  # ties
    index, query = ExactIndex(rows_of(vectors)), random.standard_normal((2, dim)).astype(np.float32)
    listed = random.permutation(400)[:300]
    for one, found in zip(query, index.listed(query, k, listed), strict=True):
        scores = np.array(
            [np.float32(np.dot(vectors[row].astype(np.float64), one.astype(np.float64))) for row in listed]
        )
        order = np.lexsort((listed, -scores))[:k]
        np.testing.assert_allclose(found.scores, scores[order], rtol=1e-6, atol=1e-7)
        assert (
            set(found.rows.tolist()) == set(listed[order].tolist()) or dim == 1
        )  # last digits may break ties of 1 value
        order = np.lexsort((found.rows, -found.scores))  # ties in row order
        assert order.tolist() == list(range(len(found.rows)))


def test_codes_rule_no_row_out_that_belongs_to_the_best() -> None:
    """Rows that lie closer than their codes can tell."""
    random = np.random.default_rng(1)
    centre = random.standard_normal(DIM).astype(np.float32)
    vectors = (centre + 1e-4 * random.standard_normal((N, DIM))).astype(np.float32)
    index = ExactIndex(rows_of(vectors))
    (found,) = index.listed(centre[None], 10, np.arange(N))
    (all_scored,) = index.listed(centre[None], 10, np.arange(N), certain=N)
    assert found.rows.tolist() == all_scored.rows.tolist() and found.scores.tolist() == all_scored.scores.tolist()
    assert found.reranked > 10 and all_scored.reranked == N


def test_a_damaged_row_is_noticed_when_it_is_scored() -> None:
    rows = rows_of(made(count=300))
    rows.vectors[7, 3] += 1
    with pytest.raises(Damaged):
        ExactIndex(rows).listed(rows.vectors[:1], 10, np.arange(300), certain=300)


@pytest.mark.parametrize("listed", [[-1], [300], [2**40]])
def test_rows_that_are_not_there_are_refused(listed: list[int]) -> None:
    index = ExactIndex(rows_of(made(count=300)))
    with pytest.raises(IndexError):
        index.listed(made(count=1), 1, np.array(listed))


def test_arrays_that_do_not_fit_are_refused() -> None:
    rows = rows_of(made(count=300))
    with pytest.raises(ValueError, match="codes"):
        kernels.rows(rows.vectors, rows.codes[:-1], rows.scale, rows.error, rows.norm, rows.check, 1.0, 1.0, DIM)
    held = ExactIndex(rows).native
    with pytest.raises(ValueError, match="fit"):
        kernels.exact(held, made(count=1), np.arange(5), None, 0, 5, 3, 5, 1.0, outputs(1, 4))
    with pytest.raises(ValueError, match="fit"):
        kernels.exact(held, np.zeros(DIM - 1, np.float32), np.arange(5), None, 0, 5, 3, 5, 1.0, outputs(1, 3))
    frozen = outputs(1, 3)
    frozen[0].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        kernels.exact(held, made(count=1), np.arange(5), None, 0, 5, 3, 5, 1.0, frozen)
    with pytest.raises(TypeError):
        kernels.exact(object(), made(count=1), np.arange(5), None, 0, 5, 3, 5, 1.0, outputs(1, 3))
    with pytest.raises(ValueError, match="kind"):
        kernels.filter(9, np.zeros(8, np.uint8), None, 0, 0, 64)
    with pytest.raises(ValueError, match="data"):
        kernels.filter(INTS, np.zeros(5, np.int64), None, 0, 0, 6)
    with pytest.raises(ValueError, match="table"):
        kernels.filter(CODES, np.zeros(6, np.int32), None, -1, 0, 6)


# ---------------------------------------------------------------- filters


def filters_of(random: np.random.Generator) -> list[Condition | None]:
    ints, floats = random.integers(-5, 5, N), random.random(N)
    nulls, codes = np.flatnonzero(random.random(N) < 0.2), random.integers(-1, 6, N).astype(np.int32)
    valid = bits_without(N, nulls)
    return [
        None,
        range_test(ints, None, -1, 2),
        range_test(ints, valid, 0, 0),
        range_test(floats, None, 0.25, 0.75),
        range_test(floats, valid, 0.1, 0.5),
        code_test(codes, 6, [0, 3]),
        code_test(codes, 6, [2]),
        rank_test(random.integers(0, 9, N).astype(np.uint16), 2, 5),
        ranks_test(random.integers(0, 9, N).astype(np.uint16), [7, 2, 3]),
        ranks_test(random.integers(0, 60, N).astype(np.uint16), [*range(5, 50, 2)]),
    ]


@pytest.mark.parametrize("itself", [True, False])
@pytest.mark.parametrize("number", range(10))
def test_every_kind_of_filter_is_the_mask_that_it_stands_for(
    number: int, itself: bool, monkeypatch: pytest.MonkeyPatch, grown: tuple[ExactIndex, graph.Graph, cells.Cells]
) -> None:
    index, links, own = grown
    test = filters_of(np.random.default_rng(2))[number]
    mask = np.random.default_rng(3).random(N) < 0.3 if test is None else test.rows()
    allowed = (
        Allowed(N, rows=np.flatnonzero(mask)) if test is None else Allowed(N, runs=[np.flatnonzero(mask)], test=test)
    )
    assert np.array_equal(allowed.mask, mask) and np.array_equal(allowed.rows, np.flatnonzero(mask))
    monkeypatch.setattr(allowed_module, "_SEVERAL", 1 << 30 if itself else 0)
    queries = made(9, 40)
    if test is not None:
        bits = np.empty((N + 7) // 8, np.uint8)
        kernels.bits(kernels.filter(test.kind, test.values, test.extra, test.low, test.high, N), bits)
        assert np.array_equal(bits, np.packbits(mask, bitorder="little"))
        with pytest.raises(ValueError, match="room"):
            kernels.bits(allowed.native(1), bits[:-1])
    truth = index.search(queries, 10, np.flatnonzero(mask))
    order, counts = np.empty((40, len(own.means)), np.int32), np.empty((40, 4), np.int64)
    kernels.near(own.native, allowed.native(1), queries, 1, N, order, counts)
    assert (counts[:, 2:] == (N, mask.sum())).all() and (counts[:, 0] < N).all()
    assert [count[1] for count in counts] == [
        mask[own.order[own.starts[first] : own.starts[first + 1]]].sum() for first in order[:, 0]
    ]
    hits = 0
    for found, true in zip(graph.search_graph(links, index, queries, 10, allowed, width=128), truth, strict=True):
        assert mask[found.rows].all() and len(set(found.rows.tolist())) == len(found.rows) == 10
        hits += len(set(found.rows.tolist()) & set(true.rows.tolist()))
    assert hits >= 0.95 * 400
    everything = cells.search_cells(own, index, queries, 10, allowed, order, rows=np.full(40, float(N)))
    for found, true in zip(everything, truth, strict=True):
        assert found.rows.tolist() == true.rows.tolist() and found.scores.tolist() == true.scores.tolist()


def test_the_cells_of_the_best_means_come_first(grown: tuple[ExactIndex, graph.Graph, cells.Cells]) -> None:
    _, _, own = grown
    queries = np.concatenate([made(9, 40), -own.means[:3]])  # the last ones with scores below 0
    order, share = cells.look(own, queries)
    assert share == [1.0] * len(queries)
    assert (np.sort(order, axis=1) == np.arange(len(own.means))).all()
    scores = np.take_along_axis(queries @ own.means.T, order, axis=1)
    width = np.ptp(scores, axis=1, keepdims=True)
    assert (np.diff(scores, axis=1) <= 0.05 * width).all()  # as far as their codes tell them apart
    half = Allowed(N, rows=np.flatnonzero(np.arange(N) % 2))
    assert np.allclose(cells.look(own, queries, half)[1], 0.5, atol=0.2)


def test_cells_that_are_ranked_in_the_call_are_those_that_look_gives(
    grown: tuple[ExactIndex, graph.Graph, cells.Cells],
) -> None:
    index, _, own = grown
    queries, rows = made(9, 20), np.full(20, 300.0)
    for keep in (0, 50):
        given = cells.search_cells(own, index, queries, 10, None, cells.look(own, queries)[0], rows=rows, keep=keep)
        ranked = cells.search_cells(own, index, queries, 10, None, rows=rows, keep=keep)
        for one, other in zip(given, ranked, strict=True):
            assert one.rows.tolist() == other.rows.tolist() and one.reranked == other.reranked < N


@pytest.mark.parametrize("dim", [5, 32, 100, 128, 300, 1024])
def test_all_ways_rank_cells_alike(dim: int) -> None:
    rng = np.random.default_rng(dim)
    rows = rng.normal(size=(400, dim)).astype(np.float32)
    rows[:8] = np.sign(rows[:8])  # codes and sums as large as they can be
    rows[8] = 1
    means = codes.quantise(rows, 15)
    assert np.abs(means.codes).max() == 15
    places = np.arange(401, dtype=np.int64)
    kept = np.zeros((400, dim), np.int8), np.ones(400, np.float32)
    signs, flips = np.zeros(13 * 32 * ((dim + 63) // 64 * 8 + 8), np.uint8), np.ones((2, dim), np.int8)
    own = kernels.cells(
        np.arange(400, dtype=np.int32), places, *kept, means.codes, means.scale, signs, flips, None, dim
    )
    orders = []
    try:
        for level in range(4):
            kernels.use(level)
            orders.append(np.empty((10, 400), np.int32))
            kernels.near(own, None, rows[:10], 1, 1, orders[-1], np.empty((10, 4), np.int64))
    finally:
        kernels.use(3)
    assert all(np.array_equal(orders[0], order) for order in orders)
    asked = codes.quantise(rows[:10])
    scores = asked.codes.astype(np.int64) @ means.codes.T.astype(np.int64) * means.scale
    ranked = np.take_along_axis(scores, orders[0].astype(np.int64), axis=1)
    assert (np.diff(ranked, axis=1) <= np.ptp(scores, axis=1, keepdims=True) / 500).all()


def test_each_query_of_a_batch_looks_as_far_as_it_was_told(grown: tuple[ExactIndex, graph.Graph, cells.Cells]) -> None:
    index, links, own = grown
    queries, rows, widths = made(9, 6), np.array([10.0, 50, 100, 400, 1_000, N]), np.array([10, 20, 40, 80, 160, 320])
    order, _ = cells.look(own, queries)
    scanned = cells.search_cells(own, index, queries, 10, None, order, rows=rows)
    walked = graph.search_graph(links, index, queries, 10, None, width=widths)
    for i in range(6):
        part = slice(i, i + 1)
        (one,) = cells.search_cells(own, index, queries[part], 10, None, order[part], rows=rows[part])
        assert scanned[i].rows.tolist() == one.rows.tolist() and scanned[i].reranked == one.reranked >= rows[i]
        (one,) = graph.search_graph(links, index, queries[part], 10, None, width=int(widths[i]))
        assert walked[i].rows.tolist() == one.rows.tolist() and walked[i].plan == one.plan


def test_orders_and_widths_that_do_not_fit_are_refused(grown: tuple[ExactIndex, graph.Graph, cells.Cells]) -> None:
    index, links, own = grown
    query, out, one = made(9, 1), outputs(1, 5), np.ones(1)
    order, _ = cells.look(own, query)
    for bad in (order[:, :-1], order + len(own.means), order - 1, np.repeat(order, 2, axis=0)):
        with pytest.raises(ValueError, match="order"):
            kernels.scan(index.native, own.native, None, query, np.ascontiguousarray(bad), one, 0, 1.0, 5, 20, out)
    with pytest.raises(ValueError, match="order"):
        kernels.scan(index.native, own.native, None, query, order, np.ones(2), 0, 1.0, 5, 20, out)
    for widths in ([], [0], [-1], [2**40], [5, 5]):
        with pytest.raises(ValueError, match="width"):
            kernels.walk(index.native, links.native, None, query, np.array(widths, np.int64), 5, 20, out)
    with pytest.raises(ValueError, match="fit"):
        kernels.near(own.native, None, query, 5, 5, np.empty((2, len(own.means)), np.int32), np.empty((1, 4), np.int64))


def test_a_walk_without_matches_near_gives_what_it_met_and_one_that_is_wide_enough_all(
    grown: tuple[ExactIndex, graph.Graph, cells.Cells],
) -> None:
    index, links, _ = grown
    for rows in (np.array([17]), np.zeros(0, np.int64)):
        (found,) = graph.search_graph(links, index, made(9, 1), 10, Allowed(N, rows=rows), width=10)
        assert set(found.rows.tolist()) <= set(rows.tolist())
    (found,) = graph.search_graph(links, index, made(9, 1), 10, None, width=N)
    assert found.rows.tolist() == index.search(made(9, 1), 10)[0].rows.tolist()


def test_many_walks_in_a_row_do_not_remember_each_other(grown: tuple[ExactIndex, graph.Graph, cells.Cells]) -> None:
    """More than the numbers that rows are marked with."""
    index, links, _ = grown
    query = made(9, 1)
    first = graph.search_graph(links, index, query, 5, None, width=5)[0].rows.tolist()
    many = graph.search_graph(links, index, np.repeat(query, 70_000, axis=0), 5, None, width=5)
    assert all(found.rows.tolist() == first for found in many[::1_000]) and many[-1].rows.tolist() == first


# ---------------------------------------------------------------- hostile files


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection with an index; tests take a copy."""
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    path = tmp_path_factory.mktemp("indexed") / "c"
    with Collection.create(path, dim=DIM) as collection:
        collection.add([str(i) for i in range(N)], made())
        assert collection.index()["graph"]
    return path


@pytest.mark.parametrize("harm", ["links", "upper", "order", "starts"])
def test_a_file_that_leads_outside_is_refused_though_its_checksum_is_right(
    indexed: Path, tmp_path: Path, harm: str
) -> None:
    shutil.copytree(indexed, tmp_path / "c")
    with Collection.open(tmp_path / "c") as collection:
        assert collection.info()["index"] is not None
    (path,) = (tmp_path / "c" / "derived").glob(f"approximate-*.{harm}.npy")
    array = np.load(path)
    array.ravel()[-1] = N + 1_000_000
    np.save(path, array)
    header = tmp_path / "c" / "derived" / "approximate.json"
    document = json.loads(header.read_text())
    document["files"][harm] = {"bytes": path.stat().st_size, "crc": approximate._crc(path)}
    header.write_text(json.dumps(document))
    with Collection.open(tmp_path / "c") as collection:
        assert collection.info()["index"] is None
        assert len(collection.search(made(9, 1)[0], 10, recall=0.9)) == 10


def test_shapes_of_the_upper_levels_are_checked() -> None:
    links = np.full((4, 2), -1, np.int32)
    for upper in ([1], [2, 1, 0], [-1, 1], [1, 1, 9, 0], [1, 1, 0, 9], [1, 5_000, 0]):
        with pytest.raises(ValueError, match="not there"):
            kernels.graph(links, np.array(upper, np.int32), 2, 0)
    with pytest.raises(ValueError, match="not there"):
        kernels.graph(links, np.zeros(0, np.int32), 2, 4)


# ---------------------------------------------------------------- the collection


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    path = tmp_path_factory.mktemp("native") / "c"
    random = np.random.default_rng(5)
    attributes = {
        "year": [None if i % 11 == 0 else int(year) for i, year in enumerate(random.integers(2000, 2020, N))],
        "share": random.random(N).tolist(),
        "venue": [f"v{i % 7}" for i in range(N)],
        "tags": [[f"t{i % 5}", f"t{i % 3}"] for i in range(N)],
    }
    schema = {"year": "int", "share": "float", "venue": "string", "tags": "list[string]"}
    with Collection.create(path, dim=DIM, schema=schema) as collection:
        collection.add([str(i) for i in range(N)], made(), attributes)
        collection.delete([str(i) for i in range(0, N, 50)])
        collection.index()
        collection.add(
            [f"late {i}" for i in range(100)], made(8, 100), [{"year": 2003, "share": 0.5, "venue": "v1"}] * 100
        )
    return path


WHERE = [
    None,
    "year = 2003",
    "year BETWEEN 2001 AND 2012",
    "year >= 2000",
    "year IS NULL",
    "share < 0.01",
    "share > 0.2 AND share <= 0.9",
    "venue = 'v1'",
    "venue IN ('v1', 'v2', 'nowhere')",
    "'t1' IN tags",
    "NOT venue = 'v3'",
    "year < 2005 OR share > 0.99",
    "year < 2005 AND venue = 'v2'",
    "venue = 'nowhere'",
]


@pytest.mark.parametrize("where", WHERE)
def test_the_short_way_the_long_way_and_numpy_agree(
    stored: Path, where: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = made(9, 6)
    with Collection.open(stored) as collection:
        for _ in range(5):  # so that the columns are indexed
            collection.count(where)
        short = [collection.search(query, 10, where=where, columns=["year"]) for query in queries]
        long = [collection.search(query.tolist(), 10, where=where, columns=["year"]) for query in queries]
        together = collection.search(queries, 10, where=where, columns=["year"])
        listed = collection.search(queries.tolist(), 10, where=where, columns=["year"])
        near: list[Any] = [collection.search(query, 10, where=where, recall=0.95) for query in queries]
        matching = set(collection.ids(where))
    monkeypatch.setattr(exact, "native", None)
    with Collection.open(stored) as collection:
        plain = [collection.search(query.tolist(), 10, where=where, columns=["year"]) for query in queries]
    assert [one.ids for one in together] == [one.ids for one in listed]
    assert [one.cursor for one in together] == [one.cursor for one in listed] == [one.cursor for one in short]
    want = min(10, len(matching))
    for a, b, c, d, e in zip(short, long, together, plain, near, strict=True):
        assert a.ids == b.ids == c.ids == d.ids and a.attributes == b.attributes == c.attributes == d.attributes
        np.testing.assert_allclose(a.scores, d.scores, rtol=1e-6)
        assert a.scores.tolist() == b.scores.tolist() == c.scores.tolist()
        assert len(a.ids) == len(e.ids) == want and set(e.ids) <= matching
        assert a.cursor == b.cursor and (a.cursor is None) == (len(matching) <= 10)
    reached = (
        np.mean([len(set(a.ids) & set(e.ids)) / max(want, 1) for a, e in zip(short, near, strict=True)]) if want else 1
    )
    assert reached >= 0.85  # 60 hits: a small sample of 0.95


def test_strings_are_those_of_the_rows_and_no_bytes_but_the_text() -> None:
    words = ["", "a", "Größe", "語", "long " * 20]
    text = "".join(words).encode()
    begins = np.cumsum([0, *(len(word.encode()) for word in words)]).astype(np.int32)
    rows = np.array([4, 2, 2, 0, 3])
    assert kernels.strings(begins, text, [rows, rows[:0], rows[:1]]) == [[words[row] for row in rows], [], [words[4]]]
    assert kernels.strings(begins, text, []) == []
    with pytest.raises(ValueError, match="contiguous"):
        kernels.strings(begins, text, [rows[::2]])
    for row in (-1, 5):
        with pytest.raises(IndexError, match="not there"):
            kernels.strings(begins, text, [rows, np.array([0, row])])
    for wrong in (begins + 1000, -begins - 1, begins[::-1].copy()):
        with pytest.raises(IndexError, match="not there"):
            kernels.strings(wrong.astype(np.int32), text, [np.array([1])])
    with pytest.raises(UnicodeDecodeError):
        kernels.strings(np.array([0, 1], np.int32), b"\xff", [np.array([0])])


def test_pages_after_a_short_first_one(stored: Path) -> None:
    query = made(9, 1)[0]
    with Collection.open(stored) as collection:
        ids: list[str] = []
        hits = collection.search(query, 7, where="year < 2010")
        while True:
            ids += hits.ids
            if hits.cursor is None:
                break
            hits = collection.search(query, 7, where="year < 2010", cursor=hits.cursor)
        assert ids == collection.search(query, 10_000, where="year < 2010").ids and len(ids) == len(set(ids))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_queries_that_are_no_vectors_are_refused_the_short_way_too(stored: Path, value: float) -> None:
    from nextvec.types import InputError

    query = made(9, 1)[0]
    query[3] = value
    if value == 0:
        query[:] = 0
    with Collection.open(stored) as collection, pytest.raises(InputError, match=r"zeros|NaN|nan|finite|inf"):
        collection.search(query, 10)


def test_bits_past_the_end_do_not_match() -> None:
    rows = rows_of(made(count=10))
    index = ExactIndex(rows)
    links = np.array([[(i + 1) % 10, (i + 2) % 10] for i in range(10)], np.int32)
    own = graph.Graph(links, np.zeros(0, np.int32), 0)
    bits = np.packbits(np.ones(9, np.bool_), bitorder="little")
    filter_ = kernels.filter(BITS, bits, None, 0, 0, 9)  # knows 9 of the 10 rows
    out = outputs(1, 10)
    assert kernels.walk(index.native, own.native, filter_, made(9, 1), np.array([10]), 10, 10, out)
    assert out[2][0, 0] == 9 and 9 not in out[0][0, :9].tolist()


def test_info_tells_the_memory_that_is_held(stored: Path) -> None:
    with Collection.open(stored) as collection:
        before = collection.info()["memory"]
        collection.search(made(9, 1)[0], 10, where="year = 2003 AND share < 0.5")
        after = collection.info()["memory"]
    rows = 5_000  # as many as the files hold, with those that were deleted
    assert after["own"] > before["own"] and before["own"] > 8 * (rows - 100)
    assert before["mapped"] >= rows * DIM * 5  # float32 and int8
