"""Stores: addresses, the same errors as a folder gives, what outlives a handle, and what is each engine's own."""

from __future__ import annotations

import itertools
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_calls import BAD_CALLS, SCHEMA, vectors

from nextvec.search.collection import Collection
from nextvec.search.stores import create_collection, open_collection
from nextvec.types import ConflictError, InputError, MissingExtraError, NotFoundError, StorageError

NUMBERS = itertools.count()


@pytest.fixture(params=["folder", "qdrant", "postgres", "objects"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is yet."""
    name = f"s{next(NUMBERS)}"
    if request.param == "postgres":
        return request.getfixturevalue("postgres") + name
    if request.param == "objects":
        return request.getfixturevalue("objects") + name
    if request.param == "qdrant":
        pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
        return f"qdrant+file://{tmp_path}/q/{name}"
    return str(tmp_path / name)


def fill(address: str) -> Any:
    collection = create_collection(address, dim=4, schema=SCHEMA)
    collection.add(
        ["a", "b", "c"],
        [[1, 0, 0, 0], [3, 4, 0, 0], [0, 0, 0, 2]],
        [{"year": 2020, "venue": "ACL", "tags": ["x"]}, {"year": 2021, "tags": []}, {"venue": "EMNLP"}],
    )
    return collection


def test_what_a_handle_wrote_outlives_it(address: str) -> None:
    with fill(address) as made:
        assert len(made) == 3
    with pytest.raises(InputError, match="closed"):
        made.count()
    with open_collection(address) as again:
        assert (again.dim, again.metric, list(again.schema.items())) == (4, "cosine", list(SCHEMA.items()))
        hits = again.search([1, 0, 0, 0], 2, columns=["year", "venue"], explain=True)
        assert (hits.ids, hits.scores.tolist()) == (["a", "b"], pytest.approx([1.0, 0.6]))
        assert hits.attributes == [{"year": 2020, "venue": "ACL"}, {"year": 2021, "venue": None}]
        assert hits.explain is not None
        assert (hits.explain["rows"], hits.explain["matches"]) == (3, 3)
        assert again.search([1, 0, 0, 0]).attributes == []
        facts = again.info()
        assert (facts["rows"], facts["dim"], facts["schema"]) == (3, 4, SCHEMA)
        both = again.search(np.eye(4)[:2], 1, where="year = 2021")
        assert [one.ids for one in both] == [["b"], ["b"]]
        none = again.search([1, 0, 0, 0], where="year = 1900")
        assert (none.ids, none.scores.dtype, len(none.scores)) == ([], np.float32, 0)
        again.add([], [])
        assert again.delete([]) == 0
        assert again.get([]) == []
        assert len(again.search([1, 0, 0, 0], 10**12)) == 3


def test_the_same_calls_are_refused_with_the_same_words(address: str) -> None:
    with fill(address) as small:
        for call, error, said in BAD_CALLS:
            with pytest.raises(error, match=said) as caught:
                call(small)
            assert "\n" not in str(caught.value)
        assert small.ids() == ["a", "b", "c"]


def test_create_and_open(address: str) -> None:
    with pytest.raises(NotFoundError, match="is not a collection"):
        open_collection(address)
    with create_collection(address, dim=4, schema={"n": "int"}) as made:
        made.add(["a"], vectors(1))
    with pytest.raises(ConflictError, match="exists: open it, or pass exist_ok"):
        create_collection(address, dim=4)
    with pytest.raises(ConflictError, match="exists with dim 4"):
        create_collection(address, dim=5, exist_ok=True)
    with create_collection(address, dim=4, schema={"n": "int"}, exist_ok=True) as again:
        assert again.count() == 1
    with pytest.raises(InputError, match="dim is 0"):
        create_collection(address + "x", dim=0)


def test_equal_scores_come_in_insertion_order(address: str) -> None:
    with create_collection(address, dim=4, metric="dot") as store:
        ids = [f"r{i * 7919 % 50}" for i in range(50)]
        store.add(ids, np.tile([1.0, 2, 0, 0], (50, 1)))
        store.upsert(["r0"], [[1.0, 2, 0, 0]])
        assert store.search([1, 0, 0, 0], 3).ids == ids[1:4]
        assert store.search([1, 0, 0, 0], 100).ids == [*ids[1:], "r0"]
        assert store.search([1, 0, 0, 0], 2, where="id LIKE 'r4%'").ids == [i for i in ids if i.startswith("r4")][:2]


def test_min_score_cuts(address: str) -> None:
    with create_collection(address, dim=2) as store:
        store.add(["a", "b", "c", "d"], [[1, 0], [3, 4], [0, 1], [1, 0]])
        assert store.search([1, 0], 3, min_score=0.5).ids == ["a", "d", "b"]
        every = store.search([[1, 0], [0, 1]], None, min_score=0.7)
        assert [one.ids for one in every] == [["a", "d"], ["c", "b"]]
        assert store.search([1, 0], None, min_score=2).scores.shape == (0,)
        with pytest.raises(InputError, match="only with min_score"):
            store.search([1, 0], None)
        with pytest.raises(InputError, match="min_score is nan"):
            store.search([1, 0], min_score=float("nan"))


def test_threads_share_a_handle(address: str) -> None:
    failures: list[BaseException] = []
    with create_collection(address, dim=4, schema={"n": "int"}) as store:

        def work(number: int) -> None:
            try:
                for i in range(5):
                    store.add([f"{number}-{i}"], vectors(1, seed=i), [{"n": i}])
                    assert store.count(f"n = {i}") >= 1
                    assert len(store.search(vectors(1)[0], 1)) == 1
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(store) == 15


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("qdrat://host/c", "did you mean 'qdrant'"),
        ("mysql://host/c", "no store has addresses that begin with 'mysql://'"),
        ("qdrant://host", "names the collection ''"),
        ("qdrant://host/a/b", "is not an address of Qdrant"),
        ("qdrant:///c", "is not an address of Qdrant"),
        ("qdrant://host:port/c", "[Pp]ort"),
        ("qdrant://user:secret@host/c", "has a user or options"),
        ("qdrant+memory:///a/b", "is not an address of Qdrant"),
        ("qdrant+file://folder/c", "is not an address of Qdrant"),
        ("qdrant+memory:///9c", "expected a letter"),
        ("postgresql://user:secret@host/db", "names no collection: end it with"),
        ("postgresql://user:secret@host/db?collection=a&collection=b", "names no collection"),
        ('postgresql://user:secret@host/db?collection=a"; DROP', "expected a letter"),
        ("postgresql:///db?password=secret&collection=-", "expected a letter"),
        ("s4://bucket/c", "no store has addresses that begin with 's4://'"),
        ("s3://bucket", "is not an address of an object store"),
        ("s3:///c", "is not an address of an object store"),
        ("s3://bucket/a//b", "is not an address of an object store"),
        ("s3://bucket/../c", "is not an address of an object store"),
        ("s3://user:secret@bucket/c", "keys are taken from the environment"),
        ("s3://bucket/c?aws_secret_access_key=secret", "keys are taken from the environment"),
        ("az://container", "is not an address of an object store"),
        ("file://folder/c", "is not an address of an object store"),
    ],
)
def test_addresses_that_cannot_be(address: str, said: str) -> None:
    if address.startswith("qdrant") and "qdrat" not in address:
        pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    with pytest.raises(InputError, match=said) as caught:
        open_collection(address)
    assert "secret" not in str(caught.value)


def test_a_missing_client_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, extra in (("qdrant_client", "qdrant"), ("psycopg", "postgres")):
        monkeypatch.setitem(sys.modules, module, None)
        where = {"qdrant": "qdrant+memory:///c", "postgres": "postgresql:///db?collection=c"}[extra]
        with pytest.raises(MissingExtraError, match=f"nextvec\\[{extra}\\]"):
            open_collection(where)


def test_nobody_answers(tmp_path: Path) -> None:
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(StorageError, match=r"no Qdrant answers at 'http://127\.0\.0\.1:1'"):
        open_collection("qdrant://127.0.0.1:1/c")
    with pytest.raises(StorageError, match="PostgreSQL refused") as caught:
        open_collection(f"postgresql://u:secret@/db?host={tmp_path}&collection=c")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


# Each engine's own


def test_postgres_refuses_what_it_cannot_store(postgres: str) -> None:
    with create_collection(postgres + "own", dim=4, schema={"t": "string", "l": "list[string]"}) as store:
        for attributes in ({"t": "a\x00b"}, {"l": ["a\x00"]}):
            with pytest.raises(InputError, match=r"U\+0000"):
                store.add(["a"], vectors(1), [attributes])
        with pytest.raises(InputError, match="over 2600 bytes"):
            store.add(["😀" * 1000], vectors(1))
        assert store.count() == 0
    with pytest.raises(InputError, match="at most 16000"):
        create_collection(postgres + "wide", dim=16_001)


def test_postgres_leaves_other_tables_alone(postgres: str) -> None:
    import psycopg

    with psycopg.connect(postgres.removesuffix("&collection="), autocommit=True) as link:
        link.execute("CREATE TABLE theirs (id text)")
    with pytest.raises(NotFoundError, match="not made by nextvec"):
        open_collection(postgres + "theirs")
    with pytest.raises(NotFoundError, match="not made by nextvec"):
        create_collection(postgres + "theirs", dim=4)


def test_postgres_index_and_half_precision(postgres: str) -> None:
    from nextvec.search.stores.postgres import PostgresCollection

    rows, queries = vectors(400, 16), vectors(5, 16, seed=1)
    address = postgres + "indexed"
    with PostgresCollection.create(address, dim=16, schema={"n": "int"}, precision="float16") as store:
        store.add([f"r{i}" for i in range(400)], rows, {"n": list(range(400))})
        kept = store.get(["r3"], vectors=True)[0]["vector"]  # type: ignore[index]
        unit = rows[3] / np.linalg.norm(rows[3])
        assert kept.tolist() == unit.astype(np.float16).astype(np.float32).tolist()
        assert store.info()["index"] == "none"
        store.create_index(m=8, ef_construction=32)
        facts = store.info()
        assert (facts["index"], facts["precision"]) == ("hnsw", "float16")
        exact = store.search(queries, 10, explain=True)
        assert exact[0].explain["plan"] == "exact"  # type: ignore[index]
        with PostgresCollection.open(address, approximate=True) as fast:
            found = fast.search(queries, 10, explain=True)
            assert found[0].explain["plan"] == "hnsw"  # type: ignore[index]
            overlap = [len({*a.ids} & {*b.ids}) for a, b in zip(exact, found, strict=True)]
            assert sum(overlap) >= 45
            # A filter that an index finds hard still gets all its matches.
            assert len(fast.search(queries[0], 10, where="n IN (1, 200, 399)")) == 3
            assert len(fast.search(queries[0], 400)) == 400
        with pytest.raises(InputError, match="expected 2 to 100"):
            store.create_index(m=1)
        store.drop_index()
        assert store.info()["index"] == "none"
        with pytest.raises(ConflictError, match="with precision float16"):
            PostgresCollection.create(address, dim=16, schema={"n": "int"}, exist_ok=True)


def test_postgres_connection_is_made_anew(postgres: str) -> None:
    import psycopg

    with fill(postgres + "broken") as store:
        with psycopg.connect(postgres.removesuffix("&collection="), autocommit=True) as link:
            link.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'nextvec' AND pid <> pg_backend_pid()"
            )
        with pytest.raises(StorageError, match="PostgreSQL refused"):
            store.count()
        assert store.count() == 3


def test_postgres_values_reach_no_sql(postgres: str) -> None:
    nasty = "'); DROP TABLE x; --%s$1\\"
    with create_collection(postgres + "nasty", dim=4, schema={"Drop table": "string"}) as store:
        store.add([nasty], vectors(1), [{"Drop table": nasty}])
        quoted = nasty.replace("'", "''")
        assert store.ids(f"\"Drop table\" = '{quoted}' AND id IN ('{quoted}')") == [nasty]
        assert store.ids(f"'{quoted}' != \"Drop table\"") == []
        assert store.delete([nasty]) == 1


def test_qdrant_local_mode(tmp_path: Path) -> None:
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    one, two = (f"qdrant+file://{tmp_path}/q/{name}" for name in ("one", "two"))
    with create_collection(one, dim=2) as first, create_collection(two, dim=2) as second:
        first.add(["a"], [[1, 1]])
        assert (first.count(), second.count()) == (1, 0)
    other = create_collection(one + "f", dim=2, schema={"x": "float"})
    with other, pytest.raises(InputError, match="infinite"):
        other.add(["a"], [[1, 1]], [{"x": float("inf")}])
    with create_collection("qdrant+memory:///c", dim=2) as memory:
        memory.add(["a"], [[1, 1]])
        with open_collection("qdrant+memory:///c") as same:
            assert same.ids() == ["a"]
    with pytest.raises(NotFoundError):
        open_collection("qdrant+memory:///c")


def test_a_folder_is_a_collection(tmp_path: Path) -> None:
    with create_collection(tmp_path / "c", dim=2) as made:
        assert isinstance(made, Collection)
    assert isinstance(open_collection(str(tmp_path / "c")), Collection)
