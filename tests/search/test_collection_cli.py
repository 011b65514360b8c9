"""``nextvec collection``: from a file to hits, and one line for each fault."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from nextvec.cli.collection import app
from nextvec.search.collection import Collection
from nextvec.types import ConflictError, InputError, NextvecError, NotFoundError

RUNNER = CliRunner()


def run(*words: object, fails: type[NextvecError] | None = None, said: str = "") -> str:
    result = RUNNER.invoke(app, [str(word) for word in words])
    if fails is None:
        assert result.exit_code == 0, (result.output, result.exception)
    else:
        assert isinstance(result.exception, fails), (result.output, result.exception)
        assert said in str(result.exception)
        assert "\n" not in str(result.exception)
    return result.stdout


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "c"
    document = run("create", path, "--dim", 3, "--schema", "year:int, tags:list[string],day:date", "--json")
    assert json.loads(document)["schema"] == {"year": "int", "tags": "list[string]", "day": "date"}
    return path


def records(tmp_path: Path, n: int, **extra: object) -> Path:
    file = tmp_path / "records.jsonl"
    rows = [
        {"id": f"r{i}", "vector": [1, i, 0], "year": 2000 + i % 3, "tags": ["even"] if i % 2 == 0 else []}
        for i in range(n)
    ]
    file.write_text("".join(json.dumps({**row, **extra}) + "\n" for row in rows))
    return file


def test_create_add_search_info(made: Path, tmp_path: Path) -> None:
    file = records(tmp_path, 2500, other="left out")
    added = json.loads(run("add", made, file, "--json"))
    assert (added["added"], added["rows"]) == (2500, 2500)
    np.save(tmp_path / "q.npy", np.array([1, 0, 0], np.float32))
    shown = run("search", made, "--vector", tmp_path / "q.npy", "-k", 2, "--where", "'even' IN tags AND year = 2002")
    assert shown.split("\n")[2].split()[:2] == ["0.4472", "r2"]
    found = json.loads(
        run("search", made, "--vector", tmp_path / "q.npy", "-k", 1, "--columns", "year", "--explain", "--json")
    )
    assert found["hits"] == [{"id": "r0", "score": 1.0, "year": 2000}]
    assert found["explain"]["matches"] == 2500
    np.save(tmp_path / "two.npy", np.eye(3, dtype=np.float32)[:2])
    assert len(json.loads(run("search", made, "--vector", tmp_path / "two.npy", "--json"))) == 2
    assert run("search", made, "--vector", tmp_path / "q.npy", "--where", "year = 1") == "no hits\n"
    assert json.loads(run("info", made, "--json"))["rows"] == 2500
    assert "2500" in run("info", made)


def test_resume_and_upsert(made: Path, tmp_path: Path) -> None:
    run("add", made, records(tmp_path, 10))
    run("add", made, records(tmp_path, 20), fails=ConflictError, said="'r0' exists already")
    again = json.loads(run("add", made, records(tmp_path, 20), "--skip-existing", "--json"))
    assert (again["added"], again["skipped"], again["rows"]) == (10, 10, 20)
    again = json.loads(run("add", made, records(tmp_path, 25, year=1), "--upsert", "--json"))
    assert again["rows"] == 25
    # A fault in a later batch: what came before stays, and the message says how to go on.
    file = records(tmp_path, 3000)
    file.write_text(file.read_text() + '{"id": "bad", "vector": [1]}\n')
    run("add", made, file, "--skip-existing", fails=InputError, said="go on with --skip-existing")
    assert json.loads(run("info", made, "--json"))["rows"] == 3000


def test_csv_and_parquet(made: Path, tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "vector": [[1.0, 0, 0], [0, 1.0, 0]], "year": [2020, None]})
    pq.write_table(table, tmp_path / "r.parquet")
    assert json.loads(run("add", made, tmp_path / "r.parquet", "--json"))["added"] == 2
    (tmp_path / "r.csv").write_text("id,year,vector\na,2020,1\n")
    run("add", made, tmp_path / "r.csv", fails=InputError, said="is not a list of numbers")
    (tmp_path / "e.csv").write_text("id,vector\n")
    run("add", made, tmp_path / "e.csv", fails=InputError, said="no records to add")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"vector": [1, 2, 3]}, "no id in field 'id'"),
        ({"id": "a"}, "no field 'vector'"),
        ({"id": "a", "vector": "x"}, "'vector' is not a list of numbers"),
        ({"id": "a", "vector": [1, 2]}, "expected [n, 3] (position 0 is bad.jsonl:1)"),
        ({"id": "a", "vector": [True, False, True]}, "'vector' is not a list of numbers"),
        ({"id": "a", "vector": ["1", "2", "3"]}, "'vector' is not a list of numbers"),
        ({"id": "a", "vector": [10**400, 1, 2]}, "'vector' is not a list of numbers"),
        ({"id": "a", "vector": [float("nan"), 1, 2]}, "bad.jsonl:1: 'vector' holds NaN"),
        ({"id": "a", "vector": [1, 2, 3], "year": 2**70}, "(position 0 is bad.jsonl:1)"),
        ({"id": "a", "vector": [1, 2, 3], "year": "soon"}, "'year' is 'soon', expected int"),
        ({"id": "a", "vector": [1, 2, 3], "year": 1.5}, "expected int"),
    ],
)
def test_bad_records(made: Path, tmp_path: Path, line: dict, said: str) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps(line) + "\n")
    run("add", made, tmp_path / "bad.jsonl", fails=InputError, said=said)
    assert json.loads(run("info", made, "--json"))["rows"] == 0


def test_bad_options(made: Path, tmp_path: Path) -> None:
    run("create", tmp_path / "x", "--dim", 3, "--schema", "year", fails=InputError, said="expected name:type")
    run("create", tmp_path / "x", "--dim", 3, "--schema", "a:int,a:int", fails=InputError, said="twice")
    run("create", made, "--dim", 3, fails=ConflictError, said="exists")
    run("info", tmp_path / "nope", fails=NotFoundError, said="no such folder")
    run("search", made, fails=InputError, said="--vector FILE.npy or --text")
    run("search", made, "--text", "x", fails=InputError, said="--text needs --model")
    run("search", made, "--vector", tmp_path / "no.npy", fails=NotFoundError, said="does not exist")
    run("add", made, tmp_path / "no.jsonl", fails=NotFoundError)
    run("add", made, tmp_path / "no.jsonl", "--upsert", "--skip-existing", fails=InputError, said="exclude each other")
    run("add", made, tmp_path / "no.jsonl", "--model", "m", fails=InputError, said="go together")
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    run("search", made, "--vector", tmp_path / "o.npy", fails=InputError, said="not a .npy file of numbers")
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3)}".ljust(117) + "\n"
    (tmp_path / "h.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.encode())
    run("search", made, "--vector", tmp_path / "h.npy", fails=InputError, said="not a .npy file of numbers")
    run("search", made, "--vector", tmp_path, fails=NotFoundError, said="is not a file")
    (tmp_path / "t.npy").write_bytes(b"\x93NUMPY\x01")
    run("search", made, "--vector", tmp_path / "t.npy", fails=InputError, said="not a .npy file of numbers")


def test_text_with_a_model(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec import encoder

    class Letters:
        """Counts of a, b and c."""

        @classmethod
        def load(cls, name: str) -> Letters:
            assert name == "letters"
            return cls()

        def encode_query(self, text: str) -> np.ndarray:
            return np.array([text.count(letter) for letter in "abc"], np.float32)

        def encode_document(self, texts: list[str]) -> np.ndarray:
            return np.stack([self.encode_query(text) for text in texts])

    monkeypatch.setattr(encoder, "Encoder", Letters)
    (tmp_path / "t.jsonl").write_text('{"id": "x", "title": "aab"}\n{"id": "y", "title": "ccb"}\n')
    run("add", made, tmp_path / "t.jsonl", "--model", "letters", "--text", "title")
    found = run("search", made, "--text", "cab c", "--model", "letters", "-k", 1, "--json")
    assert json.loads(found)["hits"][0]["id"] == "y"
    (tmp_path / "t.jsonl").write_text('{"id": "z"}\n')
    run("add", made, tmp_path / "t.jsonl", "--model", "letters", "--text", "title", fails=InputError, said="no text")


def test_index_and_recall(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    path, file = tmp_path / "c", tmp_path / "q.npy"
    vectors = np.random.default_rng(0).standard_normal((5_000, 16)).astype(np.float32)
    with Collection.create(path, dim=16) as collection:
        collection.add([str(i) for i in range(5_000)], vectors)
    np.save(file, vectors[0])
    assert "nextvec collection index" in run("info", path)
    assert json.loads(run("index", path, "--json"))["rows"] == 5_000
    answer = json.loads(run("search", path, "--vector", file, "--recall", "0.9", "--explain", "--json"))
    assert answer["hits"][0]["id"] == "0" and "considered" in answer["explain"]
    run("search", path, "--vector", file, "--recall", "much", fails=InputError, said="recall is 'much'")
    assert "and a graph" in run("info", path)
    np.save(tmp_path / "many.npy", vectors[:40])
    assert "calibrated" in run("calibrate", path, "--queries", tmp_path / "many.npy")
    with Collection.open(path) as collection:
        assert collection.info()["index"]["calibrated_on"] == 40
    run("calibrate", path, "--queries", file, fails=InputError, said="1 queries to calibrate with: at least 32")
    run("index", path, "--queries", tmp_path / "no.npy", fails=NotFoundError, said="--queries takes a .npy file")
    assert json.loads(run("index", path, "--no-graph", "--queries", tmp_path / "many.npy", "--json"))["cells"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "t"
    run("create", path, "--dim", 3, "--schema", "title:string,venue:string,year:int")
    titles = ["sparse attention", "dense attention", "sparse coding", "graphs", "sparse graphs"]
    rows = [
        {"id": f"r{i}", "vector": [1, i, 0], "title": title, "venue": [None, "ACL"][i % 2], "year": i}
        for i, title in enumerate(titles)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("add", path, tmp_path / "t.jsonl")
    np.save(tmp_path / "q.npy", np.array([1, 0, 0], np.float32))
    return path


def test_words_hybrid_and_pages(texts: Path, tmp_path: Path) -> None:
    vector = tmp_path / "q.npy"
    words = json.loads(run("search", texts, "-q", "sparse", "--text-columns", "title", "--json"))
    assert [hit["id"] for hit in words["hits"]] == ["r0", "r2", "r4"] and words["cursor"] is None
    both = json.loads(run("search", texts, "-q", "sparse", "--vector", vector, "--hybrid", "--json", "--explain"))
    assert [hit["id"] for hit in both["hits"]] == ["r0", "r2", "r4", "r1", "r3"]
    assert both["explain"]["plan"].startswith("rrf of")
    mixed = run("search", texts, "-q", "graphs", "--vector", vector, "--text-columns", "title", "--alpha", 0, "-k", 1)
    assert mixed.split("\n")[2].split()[1] == "r3"
    found, cursor = [], []
    while True:
        page = json.loads(run("search", texts, "--vector", vector, "-k", 2, "--json", *cursor))
        found += [hit["id"] for hit in page["hits"]]
        if page["cursor"] is None:
            break
        cursor = ["--cursor", page["cursor"]]
    assert found == ["r0", "r1", "r2", "r3", "r4"]
    shown = run("search", texts, "--vector", vector, "-k", 2)
    assert shown.split("\n")[4].startswith("more: --cursor ")
    assert "more" not in run("search", texts, "--vector", vector)
    small = run("search", texts, "-q", "sparse", "--vector", vector, "--hybrid", "-k", 1)
    assert small.split("\n")[2].split()[0] == "0.032787"  # four digits would not tell ranks apart


def test_shapes_of_an_answer(texts: Path, tmp_path: Path) -> None:
    vector = tmp_path / "q.npy"

    def ids(*options: object) -> list[str]:
        document = json.loads(run("search", texts, "--vector", vector, "--json", *options))
        return [hit["id"] for hit in document["hits"]]

    assert ids("--group-by", "venue") == ["r0", "r1"]
    assert ids("--group-by", "venue", "--group-size", 2, "-k", 1) == ["r0", "r2"]
    assert ids("--min-score", 0.4) == ["r0", "r1", "r2"]
    assert ids("--min-score", 0.4, "-k", 1) == ["r0"]
    assert ids("--min-score", -1, "-k", 1, "--all") == ["r0", "r1", "r2", "r3", "r4"]
    assert ids("--diversity", 0.9, "-k", 2) == ["r0", "r4"]


def test_bad_options_of_search(texts: Path, tmp_path: Path) -> None:
    vector = tmp_path / "q.npy"
    run("search", texts, "-q", "a", "--hybrid", fails=InputError, said="--hybrid needs --model or --vector")
    run("search", texts, "--vector", vector, "--hybrid", fails=InputError, said="need --text")
    run("search", texts, "--vector", vector, "-q", "a", fails=InputError, said="needs --hybrid")
    run("search", texts, "--vector", vector, "-q", "a", "-m", "m", fails=InputError, said="exclude each other")
    run("search", texts, "-q", "a", "--text-columns", "year", fails=InputError, said="expected string attributes")
    run("search", texts, "--vector", vector, "--cursor", "zzz", fails=InputError, said="not one that a search gave")
    run("search", texts, "--vector", vector, "--all", fails=InputError, said="only with min_score")
    run("search", texts, "--vector", vector, "--alpha", 0.5, fails=InputError, said="need a vector and a text")
    run("create", tmp_path / "n", "--dim", 3)
    run(
        "search",
        tmp_path / "n",
        "--vector",
        vector,
        "-q",
        "a",
        "--hybrid",
        fails=InputError,
        said="no string attribute",
    )


def test_delete_and_compact(made: Path, tmp_path: Path) -> None:
    for _ in range(3):
        run("add", made, records(tmp_path, 30), "--upsert")
    assert json.loads(run("delete", made, "r1", "r2", "nope", "--json")) == {"deleted": 2, "rows": 28}
    assert "9 rows deleted; 19 left" in run("delete", made, "--where", "year = 2001")
    run("delete", made, fails=InputError, said="give either their ids or --where")
    run("delete", made, "r3", "--where", "year = 2000", fails=InputError, said="give either")
    run("delete", made, "--where", "yaer = 2000", fails=InputError, said="did you mean 'year'")
    reader = Collection.open(made)  # stays open, and sees the merged pieces
    run("add", made, records(tmp_path, 40), "--skip-existing")
    told = json.loads(run("compact", made, "--json"))
    assert told["before"]["fragments"] > told["after"]["fragments"] == 1
    assert told["after"]["rows"] == 40 and told["after"]["version"] > told["before"]["version"]
    assert reader.info()["fragments"] == 1 and len(reader) == 40
    assert "1 pieces are 1" in run("compact", made)
    run("compact", tmp_path / "nowhere", fails=NotFoundError)
