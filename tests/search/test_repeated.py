"""Filters that are asked for again and again, whose rows are laid cell by cell on their own."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nextvec.search import repeated as repeated_module
from nextvec.search.calibration import Calibration
from nextvec.search.collection import Collection
from nextvec.search.indexes.allowed import Allowed
from nextvec.search.indexes.cells import Cells, alone, build_cells, look, search_cells
from nextvec.search.indexes.exact import ExactIndex
from nextvec.search.indexes.rows import Rows, in_memory
from nextvec.search.indexes.signs import signs_of
from nextvec.search.native import kernels
from nextvec.search.repeated import Repeated
from nextvec.types import Hits

pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
needs_kernels = pytest.mark.skipif(kernels is None, reason="the search kernels are not compiled")

N, DIM = 5_000, 64


def clustered(count: int, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((40, DIM))
    made = centres[rng.integers(0, 40, count)] + 0.7 * rng.standard_normal((count, DIM))
    unit: NDArray[np.float32] = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return unit


def rows_of(vectors: NDArray[np.float32]) -> Rows:
    return in_memory([(np.arange(len(vectors)), vectors)], DIM)


@pytest.fixture(scope="module")
def grown() -> tuple[ExactIndex, Cells]:
    rows = rows_of(clustered(N, 1))
    return ExactIndex(rows), build_cells(rows)


def taking(share: float, seed: int = 5) -> Allowed:
    return Allowed(N, rows=np.flatnonzero(np.random.default_rng(seed).random(N) < share))


@needs_kernels
@pytest.mark.parametrize("share", [0.0, 0.002, 0.3, 1.0])
def test_rows_alone_have_the_signs_that_these_rows_have(grown: tuple[ExactIndex, Cells], share: float) -> None:
    index, cells = grown
    own = alone(cells, taking(share))
    assert own.at is not None and np.all(np.diff(own.at) > 0) and own.starts[-1] == len(own)
    taken = own.order[own.at]
    cell = np.searchsorted(own.starts, np.arange(len(own)), side="right") - 1
    assert np.array_equal(cell, np.searchsorted(cells.starts, cells.places[taken], side="right") - 1)
    assert np.array_equal(own.signs, signs_of(index.rows.vectors[taken] - cells.means[cell], cells.flips))


@needs_kernels
def test_rows_are_laid_out_within_their_room_and_once(grown: tuple[ExactIndex, Cells]) -> None:
    _, cells = grown
    allowed = taking(0.3)
    room = np.empty_like(cells.starts), np.empty(allowed.count - 1, np.int32), np.empty((N, 1), np.uint8)
    with pytest.raises(ValueError, match="room"):
        kernels.lay(cells.native, allowed.native(64), *room)
    short = *room[:2], np.empty((-(-len(room[1]) // 32), cells.signs.shape[1]), np.uint8)
    with pytest.raises(ValueError, match="room"):
        kernels.lay(cells.native, allowed.native(64), *short)
    with pytest.raises(ValueError, match="room"):
        alone(alone(cells, allowed), taking(0.5))


@needs_kernels
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_rows_alone_give_the_answers_of_the_filter(grown: tuple[ExactIndex, Cells], share: float) -> None:
    index, cells = grown
    allowed, queries = taking(share), clustered(20, 2)
    own = alone(cells, allowed)
    assert sorted(own.order[own.at].tolist()) == allowed.rows.tolist() and len(own.means) == len(cells.means)
    order, shares = look(cells, queries, allowed)
    with_own, same_shares = look(cells, queries, allowed, own)
    assert np.array_equal(order, with_own) and shares == same_shares
    truth = index.search(queries, 10, allowed.rows)
    for keep in (0, 400):
        found = search_cells(cells, index, queries, 10, allowed, order, rows=np.full(20, float(N)), keep=keep, own=own)
        for one, true in zip(found, truth, strict=True):
            assert one.rows.tolist() == true.rows.tolist() and one.scores.tolist() == true.scores.tolist()
    # Of the nearest cells alone: the same rows as the filter finds in as many cells.
    enough = len(allowed.rows) / 4
    for one in search_cells(cells, index, queries, 10, allowed, order, rows=np.full(20, enough), own=own):
        assert enough <= one.reranked < len(allowed.rows) and np.isin(one.rows, allowed.rows).all()


@needs_kernels
def test_cells_of_other_rows_are_refused(grown: tuple[ExactIndex, Cells]) -> None:
    _, cells = grown
    few = build_cells(rows_of(clustered(600, 3)))
    with pytest.raises(ValueError, match="fit"):
        look(cells, clustered(2, 2), taking(0.5), few)
    short = ExactIndex(rows_of(clustered(N, 1)[: N // 2]))
    with pytest.raises(ValueError, match="fit"):
        search_cells(cells, short, clustered(2, 2), 5, None, rows=np.full(2, 10.0))


@needs_kernels
def test_what_searches_lost_decides_and_memory_is_bounded(
    grown: tuple[ExactIndex, Cells], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cells = grown
    monkeypatch.setattr(repeated_module, "_ROOM", 0.5)
    with ThreadPoolExecutor(1) as background:
        repeated, filters = Repeated(cells), [taking(0.3, seed) for seed in range(4)]

        def ask(allowed: Allowed, milliseconds: float) -> None:
            repeated.lost(allowed, milliseconds, 5.0, background)
            background.submit(int).result()  # what came before it is done

        ask(filters[0], 3.0)
        ask(filters[0], -9.0)
        ask(filters[1], 1e6)  # once is not again and again
        assert repeated.own(filters[0]) is None and repeated.told() == {"filters": 0, "rows": 0}
        ask(filters[0], 3.0)
        own = repeated.own(filters[0])
        assert own is not None and len(own) == filters[0].count
        wide = taking(0.9)  # nothing to save
        ask(wide, 1e6)
        ask(wide, 1e6)
        assert repeated.told() == {"filters": 1, "rows": filters[0].count}
        for allowed in filters[1:]:
            ask(allowed, 3.0)
            ask(allowed, 3.0)
            assert repeated.own(allowed) is not None and repeated.told()["rows"] <= N / 2
        assert repeated.own(filters[0]) is None  # the oldest made room
        assert Repeated(None).own(filters[0]) is None
        Repeated(None).lost(filters[0], 1e6, 5.0, background)


@needs_kernels
def test_a_collection_lays_out_what_pays_and_stays_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What each way costs is measured, and so few rows take next to nothing in any: here rows alone take half as long.
    monkeypatch.setattr(Calibration, "exact", lambda *_: 1e3)
    monkeypatch.setattr(Calibration, "scanning", lambda _, share, *__: 1.0 if share == 1.0 else 2.0)
    monkeypatch.setattr(Calibration, "laying", lambda *_: 100.0)
    vectors, queries, where = clustered(N, 1), clustered(40, 2), "topic = 'a'"
    topics = ["a" if i % 2 == 0 else "b" for i in range(N)]
    with Collection.create(tmp_path / "c", dim=DIM, schema={"topic": "string"}) as collection:
        collection.add([str(i) for i in range(N)], vectors, {"topic": topics})
        collection.index(graph=False)
        first = collection.search(queries, 10, where=where, recall=0.9)
        ended = time.monotonic() + 60
        assert collection.info()["index"]["repeated_filters"]["filters"] == 0
        while not collection.info()["index"]["repeated_filters"]["filters"]:
            collection.search(queries, 10, where=where, recall=0.9)
            assert time.monotonic() < ended, "never laid out"
        assert collection.info()["index"]["repeated_filters"] == {"filters": 1, "rows": N // 2}
        truth = collection.search(queries, 10, where=where)

        def recall(found: list[Hits]) -> float:
            both = zip(found, truth, strict=True)
            return float(np.mean([len({*one.ids} & {*true.ids}) / 10 for one, true in both]))

        then = collection.search(queries, 10, where=where, recall=0.9)
        assert all(int(name) % 2 == 0 for hits in then for name in hits.ids) and {len(hits) for hits in then} == {10}
        assert recall(first) >= 0.85 and recall(then) >= 0.85
        collection.add(["late"], queries[:1], {"topic": ["a"]})
        collection.delete([truth[1].ids[0]])
        for _ in range(3):
            after = collection.search(queries, 10, where=where, recall=0.9)
            assert after[0].ids[0] == "late" and truth[1].ids[0] not in after[1].ids
