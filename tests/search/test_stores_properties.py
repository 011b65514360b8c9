"""Folder, Qdrant, PostgreSQL, object stores: the same writes, filters, searches give what dict and NumPy would give."""

from __future__ import annotations

import datetime as dt
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filter_cases import SCHEMA, filters, name_text, quote, rows
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from examples import examples
from nextvec.search.stores import create_collection, open_collection
from nextvec.types import ConflictError

DIM = 3
NAMES = itertools.count()
PHASES = [Phase.explicit, Phase.generate]  # looking for a smaller example takes a server many minutes
IDS = st.integers(0, 20).map(lambda i: f"id{i}")
# Few values, so that equal scores are common.
VECTORS = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=DIM, max_size=DIM).filter(any)
BATCH = st.lists(st.tuples(IDS, VECTORS, rows), min_size=1, max_size=6, unique_by=lambda item: item[0])


def drop(address: str) -> None:
    """Forget a table of the tests' server."""
    import psycopg

    uri, _, name = address.rpartition("&collection=")
    with psycopg.connect(uri, autocommit=True) as link:
        link.execute(f'DROP TABLE IF EXISTS "{name}"')  # type: ignore[call-overload]


def machine(kind: str, server: str) -> type[RuleBasedStateMachine]:
    """The tests for one kind of store."""

    class StoreMachine(RuleBasedStateMachine):
        """``self.model``: id -> (vector as stored, attributes), in insertion order."""

        def __init__(self) -> None:
            super().__init__()
            self.folder = tempfile.TemporaryDirectory()
            self.model: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}

        @initialize(metric=st.sampled_from(["cosine", "dot"]))
        def create(self, metric: Any) -> None:
            self.metric = metric
            self.address = address(kind, self.folder.name, server)
            self.store = create_collection(self.address, dim=DIM, schema=SCHEMA, metric=metric)
            self.reader = open_collection(self.address)
            assert (self.reader.schema, self.reader.metric, self.reader.dim) == (SCHEMA, metric, DIM)

        def teardown(self) -> None:
            if hasattr(self, "store"):
                self.store.close()
                self.reader.close()
                if kind == "postgres":
                    drop(self.address)
            self.folder.cleanup()

        def stored(self, vector: list[float]) -> np.ndarray:
            array = np.array(vector, np.float32)
            length = np.sqrt(np.sum(array.astype(np.float64) ** 2))
            return (array / length).astype(np.float32) if self.metric == "cosine" else array

        @rule(batch=BATCH)
        def add(self, batch: list) -> None:
            ids = [item[0] for item in batch]
            taken = [identifier for identifier in ids if identifier in self.model]
            arguments = (ids, [item[1] for item in batch], [item[2] for item in batch])
            if taken:
                with pytest.raises(ConflictError, match=f"'{taken[0]}' exists"):
                    self.store.add(*arguments)
            else:
                self.store.add(*arguments)
                self.model.update({name: (self.stored(vector), row) for name, vector, row in batch})

        @rule(batch=BATCH)
        def upsert(self, batch: list) -> None:
            columns = {name: [item[2][name] for item in batch] for name in SCHEMA}
            self.store.upsert([item[0] for item in batch], [item[1] for item in batch], columns)
            for name, vector, row in batch:
                self.model.pop(name, None)
                self.model[name] = (self.stored(vector), row)

        @rule(ids=st.lists(IDS, max_size=5))
        def delete(self, ids: list[str]) -> None:
            gone = {name for name in ids if name in self.model}
            assert self.store.delete(ids) == len(gone)
            for name in gone:
                del self.model[name]

        @rule(case=filters)
        def delete_where(self, case: tuple) -> None:
            gone = [name for name, (_, row) in self.model.items() if case[1](row) is True]
            assert self.store.delete(where=case[0]) == len(gone)
            for name in gone:
                del self.model[name]

        @rule(cases=st.lists(filters, min_size=1, max_size=5))
        def filter(self, cases: list[tuple]) -> None:
            for where, truth in cases:
                names = [name for name, (_, row) in self.model.items() if truth(row) is True]
                assert self.reader.ids(where) == names
                assert self.reader.count(where) == len(names)

        @rule(ids=st.lists(IDS, max_size=5), where=st.sampled_from(["id = 'id1'", "id IN ('id2', 'no', 'id3')"]))
        def by_id(self, ids: list[str], where: str) -> None:
            for name, row in zip(ids, self.reader.get(ids, vectors=True), strict=True):
                if name not in self.model:
                    assert row is None
                    continue
                assert row is not None
                vector = row.pop("vector")
                assert (vector.dtype, vector.tolist()) == (np.float32, self.model[name][0].tolist())
                assert row == {"id": name, **self.model[name][1]}
            named = [name for name in self.model if repr(name) in where]
            assert self.reader.ids(where) == named
            assert self.reader.ids(f"NOT ({where})") == [name for name in self.model if name not in named]

        @rule(case=st.none() | filters, query=VECTORS, k=st.integers(1, 30))
        def search(self, case: tuple | None, query: list[float], k: int) -> None:
            where = None if case is None else case[0]
            names = [name for name, (_, row) in self.model.items() if case is None or case[1](row) is True]
            wide = self.stored(query).astype(np.float64)
            true = {name: float(self.model[name][0].astype(np.float64) @ wide) for name in names}
            hits = self.reader.search(query, k, where=where, columns=list(SCHEMA))
            best = sorted(true.values(), reverse=True)[:k]
            # Every hit has its own score, and the scores are the best there are: the order up to ties at 1e-5.
            assert hits.scores.dtype == np.float32
            np.testing.assert_allclose(hits.scores, best, atol=1e-5)
            np.testing.assert_allclose(hits.scores, [true[name] for name in hits.ids], atol=1e-5)
            assert len(set(hits.ids)) == len(hits.ids)
            assert list(hits.attributes) == [self.model[name][1] for name in hits.ids]

        @invariant()
        def same_rows(self) -> None:
            if hasattr(self, "store"):
                assert self.reader.ids() == list(self.model)

    return StoreMachine


def address(kind: str, folder: str, server: str) -> str:
    name = f"t{next(NAMES)}"
    return {
        "folder": f"{folder}/{name}",
        "qdrant": f"qdrant+memory:///{name}",
        "postgres": f"{server}{name}",
        "objects": f"{server}{name}",
        "objects over the bound": f"file://{folder}/{name}",
    }[kind]


@pytest.mark.parametrize("kind", ["qdrant", "postgres", "objects", "objects over the bound"])
def test_a_store_does_what_a_dict_would(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "qdrant":
        pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    if kind == "objects over the bound":
        monkeypatch.setenv("NEXTVEC_REMOTE_MEMORY", "0")
    server = request.getfixturevalue({"postgres": "postgres", "objects": "objects"}.get(kind, "tmp_path"))
    run_state_machine_as_test(
        machine(kind, server),
        settings=settings(max_examples=examples(7, 30), stateful_step_count=15, deadline=None, phases=PHASES),
    )


# Random schemas: names that engines reserve or cut off, and values at the edges of their types.

_ATTRIBUTES = ["xmin", "seen at", "é", "Select", "a-b", "x" * 64, "ü" * 64, "distance", "payload", "Score"]
_INTS = [0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2020]
_TIMES = [
    dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC),
    dt.datetime(2024, 2, 29, 12, 30, 0, 1, tzinfo=dt.UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=dt.UTC),
]
_VALUES: dict[str, list[Any]] = {
    "string": ["", "a", "A", "%", "_", "a%b", "'", '"', "\\", "é", "日本", "😀", "a\nb", "Z", "ab", "%s", "$1"],
    "int": _INTS,
    "float": [0.0, 0.1, -1e-300, 1e300, float(2**53), 2.0**60, 1 / 3],
    "bool": [True, False],
    "date": [dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(2024, 2, 29), dt.date(9999, 12, 31)],
    "timestamp": _TIMES,
    "list[string]": [[], [""], ["a", "a"], ["%", "é"], ["'", "NULL"]],
}


def literal(value: Any) -> str:
    if isinstance(value, (dt.date, dt.datetime)):
        return f"'{value.isoformat()}'"
    return quote(value) if isinstance(value, str) else str(value).upper() if isinstance(value, bool) else repr(value)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, str], list[dict[str, Any]], list[str]]:
    """A schema, rows and filters."""
    names = draw(st.lists(st.sampled_from(_ATTRIBUTES), min_size=1, max_size=5, unique=True))
    schema = {name: draw(st.sampled_from(sorted(_VALUES))) for name in names}
    row = st.fixed_dictionaries({name: st.none() | st.sampled_from(_VALUES[kind]) for name, kind in schema.items()})
    leaves: list[st.SearchStrategy[str]] = []
    for name, kind in schema.items():
        shown = name_text(name) if name != "Select" else '"Select"'
        leaves.append(st.sampled_from([f"{shown} IS NULL", f"{shown} IS NOT NULL"]))
        if kind == "list[string]":
            leaves.append(st.sampled_from(["", "a", "é", "no"]).map(lambda v, shown=shown: f"{quote(v)} IN {shown}"))
            continue
        choices = [value for value in _VALUES[kind] if value != "a\nb"]
        choices += [2.0**53, 2.0**63, 0.5] if kind == "int" else [3] if kind == "float" else []
        values = st.sampled_from(choices).map(literal)
        operators = ["=", "!="] if kind == "bool" else ["=", "!=", "<", "<=", ">", ">="]
        leaves.append(st.tuples(st.just(shown), st.sampled_from(operators), values).map(" ".join))
        several = st.lists(values, min_size=1, max_size=3).map(", ".join)
        leaves.append(several.map(lambda text, shown=shown: f"{shown} IN ({text})"))
        if kind == "string":
            patterns = st.sampled_from(["%", "_", "", "a%", "%b", "\\%%", "%\\_", "a\\%b", "%'%", "é", "%%", "__"])
            leaves.append(patterns.map(lambda p, shown=shown: f"{shown} LIKE {quote(p)}"))
    tree = st.recursive(
        st.one_of(leaves),
        lambda inner: (
            inner.map(lambda text: f"NOT ({text})")
            | st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})")
        ),
        max_leaves=4,
    )
    return schema, draw(st.lists(row, min_size=1, max_size=12)), draw(st.lists(tree, min_size=1, max_size=8))


@given(world=worlds())
@settings(max_examples=examples(10, 50), deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
def test_any_schema_on_all_stores(world: tuple, postgres: str, objects: str) -> None:
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    schema, records, wheres = world
    ids = [f"r{i}" for i in range(len(records))]
    vectors = np.random.default_rng(len(records)).standard_normal((len(records), DIM)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        places = [address(kind, str(Path(folder)), postgres) for kind in ("folder", "qdrant", "postgres")]
        places.append(address("objects", folder, objects))
        stores = [create_collection(place, dim=DIM, schema=schema) for place in places]
        try:
            for store in stores:
                store.add(ids, vectors, records)
                assert store.get(ids) == [{"id": name, **row} for name, row in zip(ids, records, strict=True)]
            for where in wheres:
                wanted = stores[0].ids(where)
                first = stores[0].search(vectors[0], 5, where=where, columns=list(schema))
                for store in stores[1:]:
                    assert store.ids(where) == wanted, where
                    hits = store.search(vectors[0], 5, where=where, columns=list(schema))
                    assert (hits.ids, hits.attributes) == (first.ids, first.attributes)
                    np.testing.assert_allclose(hits.scores, first.scores, atol=1e-5)
        finally:
            for store in stores:
                store.close()
            drop(places[2])
