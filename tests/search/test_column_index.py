"""Indexes of columns: the same rows as a pass over the columns, whatever the filter, and told in fewer looks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from filter_cases import SCHEMA, Row, filters, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from nextvec.search import column_index
from nextvec.search import resolve as resolve_module
from nextvec.search.collection import Collection
from nextvec.search.filters import columns_used, mask
from nextvec.search.indexes import allowed
from nextvec.search.inputs import attribute_table
from nextvec.search.resolve import resolve
from nextvec.search.schema import check_schema
from nextvec.search.where import parse

COLUMNS = {"id": "string", **SCHEMA}
Truth = Callable[[Row], bool | None]


def columns_of(records: list[Row]) -> dict[str, pa.Array]:
    return dict(attribute_table(records, check_schema(4, "cosine", SCHEMA), len(records)))


@settings(max_examples=examples(100, 600), deadline=None)
@given(
    st.lists(rows, min_size=1, max_size=40),
    filters,
    st.sampled_from([0, 16_384]),
    st.sampled_from([0, 256]),
    st.booleans(),
    st.booleans(),
)
def test_the_same_rows_as_a_pass_over_the_columns(
    records: list[Row], case: tuple[str, Truth], steps: int, direct: int, listed: bool, kernels: bool
) -> None:
    """However many values a column may have to be known one by one, from however few rows on there is a test, whether
    rows are listed or have a bit each, and who makes the bits."""
    where, truth = case
    columns, tree = columns_of(records), parse(where, COLUMNS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_index, "_STEPS", steps)
        patch.setattr(column_index, "DIRECT", direct)
        if listed:
            patch.setattr(resolve_module, "_PASS", -1)
            patch.setattr(resolve_module, "_EACH", 0)
            patch.setattr(resolve_module, "FEW", 1.0)
        if not kernels:
            patch.setattr(allowed, "kernels", None)
        indexes = {name: column_index.index_of(columns[name], SCHEMA[name]) for name in columns_used(tree)}
        found = resolve(tree, len(records), indexes.get, columns.__getitem__)
        assert np.flatnonzero(np.unpackbits(found.bits, bitorder="little")).tolist() == found.rows.tolist()
    expected = [i for i, record in enumerate(records) if truth(record) is True]
    assert np.flatnonzero(mask(tree, columns.__getitem__)).tolist() == expected
    assert found.rows.dtype == np.int64 and found.rows.tolist() == expected
    assert found.count == len(expected) and sorted(found.listed.tolist()) == expected
    if found.test is not None:
        assert np.flatnonzero(found.test.rows()).tolist() == expected


@pytest.mark.parametrize(
    "where",
    [
        "year = 3",
        "year BETWEEN 3 AND 4",
        "score < 0.01",
        "venue IN ('v1', 'v7', 'v1')",
        "'t3' IN tags AND score < 0.5 AND NOT open",
        "venue = 'v1' OR year = 3",
        "score IS NULL",
        "venue = 'nowhere'",
        "venue = 'v1' AND venue = 'nowhere'",
        "year IN (3, 5, 6, 99) AND open",
        "'t3' IN tags OR 't4' IN tags OR year < 30",
        "NOT (venue = 'v1' OR score > 0.5)",
        "venue != 'v1' AND year IS NOT NULL",
        "NOT ('t3' IN tags AND year >= 4 AND year <= 7)",
    ],
)
def test_filters_that_the_indexes_answer(where: str) -> None:
    rng = np.random.default_rng(0)
    records: list[Row] = [
        {
            "year": int(rng.integers(0, 40)),
            "score": None if i % 17 == 0 else float(rng.random()),
            "open": bool(i % 2),
            "venue": f"v{rng.integers(0, 30)}",
            "tags": [f"t{j}" for j in rng.integers(0, 30, 3)],
        }
        for i in range(2000)
    ]
    columns, tree = columns_of(records), parse(where, COLUMNS)
    indexes = {name: column_index.index_of(columns[name], SCHEMA[name]) for name in columns_used(tree)}
    looked: list[int] = []

    def column(name: str) -> pa.Array:
        looked.append(1)
        return columns[name]

    found = resolve(tree, len(records), indexes.get, column)
    assert found.rows.tolist() == np.flatnonzero(mask(tree, columns.__getitem__)).tolist()
    assert not looked


def test_wide_filters_unique_texts_and_large_numbers_are_left_to_the_pass() -> None:
    column = pa.array(range(2000), pa.int64())
    index = column_index.index_of(column, "int")
    assert index is not None
    wide = resolve(parse("year > 10 AND year <= 1500", COLUMNS), 2000, {"year": index}.get, {}.__getitem__)
    assert wide.rows.tolist() == list(range(11, 1501))
    for where, looks in (("NOT year = 3", 0), ("year != 3", 0), ("year > 3.5", 1), ("year > 3.5 AND year != 7", 1)):
        looked: list[str] = []

        def values(name: str, looked: list[str] = looked) -> pa.Array:
            looked.append(name)
            return column

        tree = parse(where, COLUMNS)
        found = resolve(tree, 2000, {"year": index}.get, values)
        assert found.rows.tolist() == np.flatnonzero(mask(tree, {"year": column}.__getitem__)).tolist()
        assert len(looked) == looks
    assert column_index.index_of(pa.array([f"text {i}" for i in range(2000)]), "string") is None
    huge = pa.array([2**53, 2**53 + 1, -(2**63), 2**63 - 1], pa.int64())
    sorted_ = column_index.index_of(huge, "int")
    tree = parse(f"year = {2**53 + 1}", COLUMNS)
    found = resolve(tree, 1000, {"year": sorted_}.get, {"year": huge}.__getitem__)
    assert found.rows.tolist() == [1]


def test_a_collection_answers_the_same_before_and_after_an_index_pays(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((3000, 8)).astype(np.float32)
    attributes = {"year": rng.integers(0, 100, 3000).tolist(), "venue": [f"v{i % 50}" for i in range(3000)]}
    with Collection.create(tmp_path / "c", dim=8, schema={"year": "int", "venue": "string"}) as collection:
        collection.add([str(i) for i in range(3000)], vectors, attributes)
        for year in range(12):  # the index is made on the way
            want = [str(i) for i in range(3000) if attributes["year"][i] == year and attributes["venue"][i] != "v3"]
            assert collection.ids(f"year = {year} AND venue != 'v3'") == want
        collection.delete(["5", "17"])
        year = attributes["year"][5]
        assert "5" not in collection.ids(f"year = {year}")
