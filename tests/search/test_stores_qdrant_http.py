"""``qdrant://``: what goes over the wire, with a stand-in for the server (``qdrant_over_http``)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from filter_cases import SCHEMA, filters, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from installed import need
from nextvec.search.stores import create_collection, open_collection
from nextvec.search.stores import qdrant as module
from nextvec.search.stores.moving import copy_rows
from nextvec.types import ConflictError, NotFoundError

need("qdrant_client", reason="qdrant-client is not installed")

from qdrant_over_http import serving  # noqa: E402

REQUESTS: list[tuple[str, str, str | None]] = []


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(REQUESTS) as place:
        yield place


def test_writes_and_reads(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"qdrant://{server}/first"
    with pytest.raises(NotFoundError, match="create it first"):
        open_collection(address)
    monkeypatch.setattr(module, "REQUEST", 400)
    monkeypatch.setattr(module, "PAGE", 7)
    monkeypatch.setattr(module, "POINTS", 5)
    vectors = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
    with create_collection(address, dim=5, schema={"n": "int", "t": "timestamp", "x": "float"}, metric="dot") as store:
        start = len(REQUESTS)
        columns = {"n": [2**62 + i for i in range(60)], "t": ["9999-12-31T23:59:59.999999"] * 60, "x": [0.1] * 60}
        store.add([f"r{i}" for i in range(60)], vectors, columns)
        assert sum(path.endswith("/points?wait=true") for _, path, _ in REQUESTS[start:]) > 1
        row = store.get(["r3"], vectors=True)[0]
        assert row is not None
        assert row["vector"].tobytes() == vectors[3].tobytes()
        assert (row["n"], row["x"]) == (2**62 + 3, 0.1)
        assert row["t"].microsecond == 999_999
        with pytest.raises(ConflictError, match="'r3' exists already"):
            store.add(["new", "r3"], vectors[:2])
        assert store.ids() == [f"r{i}" for i in range(60)]
        where = f"n > {2**62 + 9} AND id LIKE 'r%'"
        assert store.ids(where) == [f"r{i}" for i in range(10, 60)]
        hits = store.search(vectors[20], 8, where=where, columns=["n"], explain=True)
        best = np.argsort(-(vectors[10:] @ vectors[20]))[:8] + 10
        assert hits.ids == [f"r{i}" for i in best]
        assert hits.explain is not None
        assert (hits.explain["matches"], "resolved by client" in hits.explain["plan"]) == (50, True)
        assert store.delete(where="n < 4611686018427387910") == 6
        assert store.delete(["r59", "r0"]) == 1
        assert len(store) == 53
        with create_collection(f"qdrant://{server}/copy", dim=5, schema=store.schema, metric="dot") as copy:
            assert copy_rows(store, copy).copied == 53
    assert all(key is None for _, _, key in REQUESTS)


@pytest.mark.filterwarnings("ignore:Api key is used")
def test_the_key_comes_from_the_environment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "opensesame")
    with create_collection(f"qdrant://{server}/keyed", dim=2) as store:
        assert store.count() == 0
        assert "opensesame" not in str(store.info())
    assert REQUESTS[-1][2] == "opensesame"


@given(records=st.lists(rows, min_size=1, max_size=10), cases=st.lists(filters, min_size=1, max_size=6))
@settings(max_examples=examples(10, 50), deadline=None)
def test_filters_over_the_wire(server: str, records: list, cases: list) -> None:
    with create_collection(f"qdrant://{server}/filters", dim=2, schema=SCHEMA, exist_ok=True) as store:
        store.delete(store.ids())
        ids = [f"r{i}" for i in range(len(records))]
        store.add(ids, np.ones((len(ids), 2)), records)
        assert store.get(ids) == [{"id": name, **row} for name, row in zip(ids, records, strict=True)]
        for where, truth in cases:
            wanted = [name for name, row in zip(ids, records, strict=True) if truth(row) is True]
            assert store.ids(where) == wanted
            assert store.search([1, 1], 20, where=where).ids == wanted
