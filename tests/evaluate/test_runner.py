"""Sizes of one encoder, results as files, and models compared: with the bundled model and small BEIR folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nextvec import Encoder
from nextvec.evaluate.embedder import Embedder, Size, vector_bytes
from nextvec.evaluate.records import read_record, safe_name
from nextvec.evaluate.runner import Model, compare, evaluate, load_model
from nextvec.evaluate.task_kinds import FolderTask
from nextvec.evaluate.tasks import task
from nextvec.types import InputError, StorageError

TEXTS = ["graph neural networks", "speech recognition", "graphs and networks", "", "a theorem about primes"]


@pytest.fixture(scope="module")
def mini() -> Model:
    return load_model("nextvec-mini")


def folder(path: Path, topics: Sequence[str] = ("graphs", "speech", "primes", "images", "proteins", "robots")) -> Path:
    (path / "qrels").mkdir(parents=True, exist_ok=True)
    documents = [
        {"_id": f"d{i}", "title": topic, "text": f"We study {topic} at length."} for i, topic in enumerate(topics)
    ]
    queries = [{"_id": f"q{i}", "text": f"work on {topic}"} for i, topic in enumerate(topics)]
    for name, records in (("corpus", documents), ("queries", queries)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    rows = "".join(f"q{i}\td{i}\t2\nq{i}\td{(i + 1) % len(topics)}\t1\n" for i in range(len(topics)))
    (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return path


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "binary"])
@pytest.mark.parametrize("dim", [None, 32, 129])
def test_every_size_is_what_encode_gives(mini: Model, dim: int | None, dtype: str) -> None:
    encoder = mini.engine
    assert isinstance(encoder, Encoder)
    ours = Embedder(encoder).at(Size(dim, None, dtype))(TEXTS, role="query")
    theirs = encoder.encode(TEXTS, role="query", dim=dim, dtype=dtype)
    if dtype == "binary":
        bits = np.unpackbits(theirs, axis=1)[:, : ours.shape[1]]
        np.testing.assert_array_equal(ours > 0, bits == 1)
    else:
        np.testing.assert_allclose(ours, theirs.astype(np.float32), atol=1e-6)
    assert theirs.nbytes == len(TEXTS) * vector_bytes(dim or encoder.dim, dtype)


class Counting:
    """Stands for an encoder; its vectors depend on the layers asked for."""

    dim = full_dim = 4

    def __init__(self) -> None:
        self.calls: list[tuple[str, int | None]] = []

    def encode(self, texts: list[str], *, role: str, layers: int | None, **options: Any) -> NDArray[np.float32]:
        assert options["normalize"] is False and options["dim"] == self.full_dim
        self.calls.append((role, layers))
        return np.full((len(texts), 4), (layers or 9) * [1, -1][role == "query"], np.float32)


def test_texts_are_encoded_once_for_all_widths_of_one_depth() -> None:
    counting = Counting()
    embedder = Embedder(counting)  # type: ignore[arg-type]
    for layers in (None, 2):
        for dim in (1, 4):
            for role in ("query", "document"):
                vectors = embedder.at(Size(dim, layers))(["a", "b"], role=role)
                np.testing.assert_allclose(vectors, [[(-1.0 if role == "query" else 1.0) / dim**0.5] * dim] * 2)
    assert counting.calls == [("query", None), ("document", None), ("query", 2), ("document", 2)]
    assert embedder.seconds > embedder.fresh_seconds > 0
    embedder.at(Size(4, 2))(["a", "c"], role="query")  # other texts
    embedder.forget()
    embedder.at(Size(4, 2))(["a", "c"], role="query")
    assert len(counting.calls) == 6


def test_sizes_that_a_model_cannot_give(mini: Model) -> None:
    for size, message in (
        (Size(dim=257), "dim is 257; nextvec-mini gives 1 to 256"),
        (Size(layers=1), "it has no layers"),
        (Size(dtype="int4"), "dtype is 'int4'"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(mini, [task("daily-titles")], sizes=[size])


# ---------------------------------------------------------------------- results


def test_results_are_kept_and_measured_again_only_when_they_must(mini: Model, tmp_path: Path) -> None:
    one, out = FolderTask(folder(tmp_path / "set")), tmp_path / "out"
    seen: list[str] = []

    def run(**options: Any) -> Any:
        (result,) = evaluate(mini, [one], out=out, report=lambda done, total, words: seen.append(words), **options)
        return result

    first = run()
    assert not first.kept and seen[0] == "nextvec-mini on set" and "12/12" not in seen
    record = first.record
    assert record["examples"] == 6 and record["dim"] == 256 and record["bytes"] == 1024 and record["seconds"] > 0
    assert record["measures"]["recall@10"] == {"mean": 1, "low": 1, "high": 1}
    assert 0.8 < record["measures"]["ndcg@10"]["mean"] <= 1
    (path,) = out.rglob("*.json")
    assert path.name == f"{one.slug}.dim256.json" and path.parent.name.startswith("nextvec-mini-")
    kept = run()
    assert kept.kept and kept.record["measures"] == record["measures"]
    for name, column in first.outcome.columns.items():
        np.testing.assert_array_equal(kept.outcome.columns[name], column)
    assert not run(again=True).kept
    assert not run(limit=3).kept  # beside the whole result, not over it
    assert run().kept
    assert not run(samples=50).kept  # another bootstrap
    folder(tmp_path / "set", ("graphs", "speech", "verbs"))
    assert run(samples=50).record["examples"] == 3  # other data


def test_damaged_results_are_told_and_replaced(mini: Model, tmp_path: Path) -> None:
    one, out = FolderTask(folder(tmp_path / "set")), tmp_path / "out"
    evaluate(mini, [one], out=out)
    (path,) = out.rglob("*.json")
    whole, examples = path.read_text(), path.with_suffix(".npz").read_bytes()
    for text, message in (
        (whole[:40], "not valid JSON"),
        ("[]", "no evaluation of schema 1"),
        (json.dumps({"kind": "evaluation", "schema": 1}), "it lacks 'settings'"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=f"{message}.*measure again with --again"):
            evaluate(mini, [one], out=out)
    path.write_text(whole)
    for data in (examples[:100], b""):
        path.with_suffix(".npz").write_bytes(data)
        with pytest.raises(InputError, match="cannot be used"):
            evaluate(mini, [one], out=out)
    path.with_suffix(".npz").unlink()
    with pytest.raises(InputError, match="cannot be used"):
        evaluate(mini, [one], out=out)
    assert not evaluate(mini, [one], out=out, again=True)[0].kept
    assert evaluate(mini, [one], out=out)[0].kept


def test_a_folder_that_cannot_be_written(mini: Model, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        evaluate(mini, [FolderTask(folder(tmp_path / "set"))], out=tmp_path / "out")


def test_what_is_finished_stays_when_a_task_fails(mini: Model, tmp_path: Path) -> None:
    good, bad = FolderTask(folder(tmp_path / "good")), FolderTask(folder(tmp_path / "bad"))
    (tmp_path / "bad" / "queries.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"queries\.jsonl:1: invalid JSON"):
        evaluate(mini, [good, bad], out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*.json")] == [f"{good.slug}.dim256.json"]
    assert evaluate(mini, [good], out=tmp_path / "out")[0].kept


def test_sizes_come_in_the_order_asked_for(mini: Model, tmp_path: Path) -> None:
    one = FolderTask(folder(tmp_path / "set"))
    sizes = [Size(64), Size(32), Size(None), Size(256), Size(32, dtype="binary")]
    results = evaluate(mini, [one], sizes=sizes, out=tmp_path / "out")
    assert [(r.size.dim, r.size.dtype) for r in results] == [
        (64, "float32"),
        (32, "float32"),
        (256, "float32"),
        (32, "binary"),
    ]
    assert [r.record["bytes"] for r in results] == [256, 128, 1024, 4]


# ---------------------------------------------------------------------- two models


def test_models_are_compared_by_task_and_size(mini: Model, tmp_path: Path) -> None:
    tasks = [FolderTask(folder(tmp_path / "a")), FolderTask(folder(tmp_path / "b", ("graphs", "speech", "verbs")))]
    ours = evaluate(mini, tasks, sizes=[Size(64), Size(256)])
    bm25 = evaluate(load_model("bm25"), tasks)
    assert [r.record["bytes"] for r in bm25] == [None, None]
    pairs = compare(ours, bm25, samples=50)
    assert [(one.task.name, one.size.dim, two.task.name) for one, two, _ in pairs] == [
        ("a", 64, "a"),
        ("a", 256, "a"),
        ("b", 64, "b"),
        ("b", 256, "b"),
    ]
    for one, two, found in pairs:
        mean = one.outcome.measures()["mrr@10"] - two.outcome.measures()["mrr@10"]
        assert found["mrr@10"].mean == pytest.approx(mean)
    assert compare(ours, bm25[:1], samples=10)[-1][0].task.name == "a"


def test_bm25_runs_on_retrieval_alone(tmp_path: Path) -> None:
    tasks = [task("stsb"), FolderTask(folder(tmp_path / "a"))]
    assert [r.task.name for r in evaluate(load_model("bm25"), tasks)] == ["a"]


def test_names() -> None:
    assert safe_name("../../owner/name v2") == "owner-name-v2"
    assert safe_name("..") == "model" and len(safe_name("x" * 500)) == 60
    assert read_record(Path("nowhere.json"), {}) is None


def test_a_model_with_another_length_is_another_model() -> None:
    whole, short = load_model("nextvec-mini"), load_model("nextvec-mini", max_length=5)
    assert whole.folder != short.folder
    assert whole.folder == load_model("nextvec-mini").folder
