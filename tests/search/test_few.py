"""Searches under a filter that takes few rows: one call from vectors to ids gives what the long way gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nextvec.search.collection import Collection
from nextvec.search.indexes import exact as exact_module
from nextvec.search.indexes.exact import ExactIndex
from nextvec.search.indexes.rows import in_memory
from nextvec.search.native import kernels, outputs
from nextvec.types import Hits, InputError

pytestmark = pytest.mark.skipif(kernels is None, reason="the search kernels were not compiled")

N, DIM = 3_000, 40
FILTERS = [
    "place = 7",
    "kind = 'é'",
    "place BETWEEN 3 AND 9",
    "kind IN ('a', 'é')",
    "place = 7 AND kind = 'a'",
    "place < 0",
]


def made(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


@pytest.fixture
def stored(tmp_path: Path) -> Collection:
    collection = Collection.create(tmp_path / "c", dim=DIM, schema={"place": "int", "kind": "string"})
    vectors = made(N, 0)
    vectors[100:140] = vectors[100]  # ties
    kinds = ["é" if i % 40 == 3 else "b" if i % 3 else "a" for i in range(N)]
    ids = [f"名{i}" for i in range(N)]
    collection.add(ids, vectors, {"place": [None if i % 50 == 0 else i % 50 for i in range(N)], "kind": kinds})
    return collection


def same(one: Hits, other: Hits) -> None:
    assert one.ids == other.ids
    np.testing.assert_array_equal(one.scores, other.scores)
    assert one.cursor == other.cursor


@pytest.mark.parametrize("where", FILTERS)
@pytest.mark.parametrize("k", [1, 10, 200])
@pytest.mark.parametrize("recall", ["exact", 0.9])
def test_they_are_what_the_long_way_finds(
    stored: Collection, monkeypatch: pytest.MonkeyPatch, where: str, k: int, recall: Any
) -> None:
    queries: Any = made(40, 1)
    for _ in range(4):
        stored.search(queries[0], k, where=where, recall=recall)  # from the fourth on, by an index of the column
    one = [stored.search(query, k, where=where, recall=recall) for query in queries]
    together: Any = stored.search(queries, k, where=where, recall=recall)
    monkeypatch.setattr(ExactIndex, "few", lambda *_, **__: None)
    long: Any = stored.search(queries, k, where=where, recall=recall)
    assert len(one) == len(together) == len(long) == 40
    for few, batch, true in zip(one, together, long, strict=True):
        same(few, true)
        same(batch, true)


def test_they_are_taken_at_all(stored: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    plain = ExactIndex.few

    def counted(self: ExactIndex, *args: Any, **kwargs: Any) -> Any:
        found = plain(self, *args, **kwargs)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(ExactIndex, "few", counted)
    query = made(1, 2)[0]
    stored.search(query, where="place = 7")
    stored.search(made(8, 2), where="place = 7")
    assert taken == [True, True]
    monkeypatch.setattr(exact_module, "_SHARED", 10)  # threads share what is many products
    stored.search(query, where="place = 7")
    assert taken == [True, True, False]
    longer: list[dict[str, Any]] = [{"columns": ["kind"]}, {"explain": True}, {"min_score": 0.1}]
    for options in longer:
        stored.search(query, where="place = 7", **options)
    stored.search(query, where="kind = 'a' OR kind = 'b'")  # many rows
    assert len(taken) == 3


def test_pages_go_on_and_deleted_rows_are_gone(stored: Collection) -> None:
    query = 3 * made(1, 3)[0]
    first = stored.search(query, 20, where="place = 7")
    second = stored.search(query, 100, where="place = 7", cursor=first.cursor)
    assert len({*first.ids, *second.ids}) == 60 and second.cursor is None
    stored.delete([first.ids[0]])
    again = stored.search(query, 20, where="place = 7")
    assert again.ids[:19] == first.ids[1:]


def test_a_vector_without_direction_is_named(stored: Collection) -> None:
    queries = made(5, 4)
    queries[3] = 0
    with pytest.raises(InputError, match="query vector 3 is all zeros"):
        stored.search(queries, where="place = 7")
    with pytest.raises(InputError, match="NaN"):
        stored.search(np.full(DIM, np.nan, np.float32), where="place = 7")
    assert len(stored.search(queries[0], where="place = 7")) == 10


def test_damaged_rows_are_found_out(stored: Collection) -> None:
    query = made(1, 5)[0]
    before = stored.search(query, where="place = 7")
    row = int(before.ids[0][1:])
    with next((stored.path / "derived").glob("exact-*.rows")).open("r+b") as stream:
        stream.seek(4 * DIM * row)
        stream.write(np.full(DIM, 0.9, np.float32).tobytes())
    same(stored.search(query, where="place = 7"), before)


def test_damaged_codes_are_found_out(stored: Collection) -> None:
    query = made(1, 5)[0]
    before = stored.search(query, where="place = 7")
    with next((stored.path / "derived").glob("exact-*.codes")).open("r+b") as stream:
        stream.seek(DIM * 500)
        stream.write(b"\x05" * DIM)
    stored.close()
    with Collection.open(stored.path) as opened:
        same(opened.search(query, where="place = 7"), before)


def test_the_kernel_checks_what_it_is_given() -> None:
    rows = in_memory([(np.arange(50), made(50, 6))], DIM)
    index = ExactIndex(rows)
    begins, text = np.arange(51, dtype=np.int32), bytes(range(48, 98))
    queries, listed = made(3, 7), np.arange(30)

    def few(
        vectors: NDArray[np.float32] = queries,
        units: NDArray[np.float32] | None = None,
        listed: NDArray[np.int64] = listed,
        k: int = 5,
        begins: NDArray[np.int32] = begins,
    ) -> list[list[str]] | None:
        room = np.empty_like(queries) if units is None else units
        found: list[list[str]] | None = kernels.few(
            index.native, vectors, room, listed, k, 0, 1.0, outputs(3, 5), begins, text
        )
        return found

    true = index.search(queries / np.linalg.norm(queries, axis=1, keepdims=True), 5, listed)
    assert few() == [[chr(48 + row) for row in one.rows] for one in true]
    for row in (-1, 50):
        with pytest.raises(IndexError, match="not there"):
            few(listed=np.array([0, row]))
    with pytest.raises(ValueError, match="do not fit"):
        few(vectors=queries[:2])
    with pytest.raises(ValueError, match="do not fit"):
        few(k=6)
    with pytest.raises(ValueError, match="contiguous"):
        few(vectors=queries[:, ::2])
    with pytest.raises(IndexError, match="not there"):
        few(begins=begins[:3])
    frozen = np.empty_like(queries)
    frozen.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        few(units=frozen)
    assert few(vectors=np.zeros_like(queries)) is None
    rows.vectors[true[0].rows[0], 3] += 1
    assert few() is None
