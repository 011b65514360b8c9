"""Tasks with encoders that know the answer, that know nothing, and BM25; names, groups and folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nextvec import Encoder
from nextvec.data.labelled import LabelledSplit, LabelledTexts
from nextvec.data.paraphrases import LabelledPairs
from nextvec.data.relevance import Relevance
from nextvec.data.sts import ScoredPairs
from nextvec.evaluate.lexical import Bm25
from nextvec.evaluate.outcomes import differences, intervals
from nextvec.evaluate.tasks import GROUPS, choose, task, tasks
from nextvec.types import InputError, NotFoundError

WORDS = ("red", "green", "blue", "cat", "dog", "sun")


class Bag:
    """Counts of the words it knows; remembers what it was asked."""

    def __init__(self, words: Sequence[str] = WORDS) -> None:
        self.words = words
        self.asked: list[tuple[str | None, int]] = []

    def __call__(self, inputs: Sequence[str], *, role: Any = None, progress: Any = None) -> NDArray[np.float32]:
        self.asked.append((role, len(inputs)))
        counts = [[text.split().count(word) for word in self.words] + [0.01] for text in inputs]
        return np.array(counts, dtype=np.float32)


def deaf(inputs: Sequence[str], *, role: Any = None, progress: Any = None) -> NDArray[np.float32]:
    return np.ones((len(inputs), 3), np.float32)


def texts(count: int, classes: int, seed: int) -> LabelledTexts:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return LabelledTexts([f"{WORDS[i]} thing {rng.integers(9)}" for i in labels], labels, WORDS[:classes])


PAIRS = ScoredPairs(["red cat", "red cat", "red cat"], ["red cat", "red dog", "sun dog"], np.array([5.0, 2.5, 0.0]))


def test_pairs_are_scored_by_cosine() -> None:
    bag = Bag()
    outcome = task("stsb").run(bag, data=PAIRS)
    assert outcome.measures() == {"spearman": pytest.approx(1)}
    np.testing.assert_allclose(outcome.columns["score"], [1, 0.5, 0], atol=1e-3)
    assert bag.asked == [(None, 6)]  # both sides at once, without a role
    assert task("men").run(deaf, data=PAIRS).measures() == {"spearman": 0}


def test_paraphrases() -> None:
    pairs = LabelledPairs(["red cat"] * 4, ["red cat", "sun dog", "red", "blue"], np.array([True, False, True, False]))
    assert task("mrpc").run(Bag(), data=pairs).measures() == {"ap": 1, "accuracy": 1, "f1": 1}
    blind = task("mrpc").run(deaf, data=pairs).measures()
    assert blind["ap"] == 0.5 and blind["accuracy"] == 0.5


def test_classes_and_clusters() -> None:
    pytest.importorskip("sklearn")
    data = LabelledSplit(texts(90, 3, 0), texts(60, 3, 1))
    assert task("trec").run(Bag(), data=data).measures() == {"accuracy": 1, "f1": 1}
    assert task("trec").run(deaf, data=data).measures()["accuracy"] < 0.6
    bag = Bag()
    outcome = task("trec-clusters").run(bag, data=data)
    assert outcome.measures()["v_measure"] == pytest.approx(1)
    assert bag.asked == [(None, 60)]
    found = intervals(task("trec-clusters").run(Bag(WORDS[:1]), data=data), samples=100)["v_measure"]
    assert found.low < found.mean < found.high


SEARCH = Relevance(
    query_ids=["a", "b", "c"],
    queries=["red cat", "sun", "blue"],
    document_ids=["1", "2", "c", "4"],
    documents=["red cat", "sun dog", "blue", "blue thing"],
    gains=[{0: 2}, {1: 1}, {3: 1}],
    own=[-1, -1, 2],
)


def test_retrieval_uses_roles_and_passes_the_query_itself_over() -> None:
    bag = Bag()
    outcome = task("cranfield").run(bag, data=SEARCH)
    assert outcome.measures()["recall@1"] == 1
    assert bag.asked == [("query", 3), ("document", 4)]
    found = task("cranfield").run(Bm25(), data=SEARCH).measures()
    assert found["ndcg@10"] == 1 and found["recall@1"] == 1
    assert task("cranfield").run(deaf, data=SEARCH).measures()["mrr@10"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_bm25_finds_nothing_where_no_word_is_shared() -> None:
    found = Bm25().rank(["unheard", "", "zebra"], ["a zebra", "", "zebra zebra"], 2, own=[-1, -1, 2])
    assert found.tolist() == [[-1, -1], [-1, -1], [0, -1]]
    assert Bm25().rank(["zebra"], ["", "the"], 5, own=[-1]).tolist() == [[-1, -1]]


def test_a_limit_takes_the_same_examples_for_everyone() -> None:
    pairs = ScoredPairs([f"red {i}" for i in range(50)], ["red"] * 50, np.arange(50.0))
    one, two = (task("stsb").run(model, data=pairs, limit=10) for model in (Bag(), deaf))
    assert len(one) == 10
    np.testing.assert_array_equal(one.columns["gold"], two.columns["gold"])
    assert len(set(one.columns["gold"].tolist())) == 10
    assert len(task("cranfield").run(Bag(), data=SEARCH, limit=2)) == 2
    with pytest.raises(InputError, match="limit is 1; expected at least 2"):
        task("stsb").run(Bag(), data=pairs, limit=1)


def test_what_an_encoder_may_not_give() -> None:
    with pytest.raises(InputError, match="not finite"):
        task("stsb").run(lambda inputs, **_: np.full((len(inputs), 2), np.nan), data=PAIRS)
    with pytest.raises(InputError, match="the task 'stsb' compares vectors"):
        task("stsb").run(Bm25(), data=PAIRS)


# ---------------------------------------------------------------------- the catalogue


def test_the_catalogue() -> None:
    kinds = [one.kind for one in tasks().values()]
    assert sorted(set(kinds), key=kinds.index) == list(GROUPS)
    assert len({one.slug for one in tasks().values()}) == len(tasks())
    for one in tasks().values():
        assert one.title and one.main and len(one.fingerprint()) == 16


def folder(path: Path) -> Path:
    (path / "qrels").mkdir(parents=True)
    documents = [{"_id": "d1", "text": "red cat"}, {"_id": "d2", "title": "sun", "text": "dog"}]
    for name, records in (("corpus", documents), ("queries", [{"_id": "q", "text": "cat"}])):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    return path


def test_names_groups_and_folders(tmp_path: Path) -> None:
    chosen = choose(["daily-titles", "retrieval", str(folder(tmp_path / "mine")), str(tmp_path / "." / "mine")])
    names = [one.name for one in chosen.tasks]
    assert names[0] == "daily-titles" and names[-1] == "mine" and len(set(names)) == len(names)
    mine = chosen.tasks[-1]
    assert mine.kind == "retrieval" and mine.slug.startswith("beir-mine-")
    assert mine.slug != choose([str(folder(tmp_path / "other" / "mine"))]).tasks[0].slug
    before = mine.fingerprint()
    (tmp_path / "mine" / "corpus.jsonl").write_text('{"_id": "d1", "text": "red cat"}\n')
    assert mine.fingerprint() != before
    everything = choose(["all"])
    assert {one.name for one in everything.tasks} | set(everything.left_out) == set(tasks())


def test_names_that_are_none(tmp_path: Path) -> None:
    for names, message in (
        (["crandfield"], r"no task or group 'crandfield': .* qrels/; did you mean 'cranfield'\?"),
        (["retreival"], "did you mean 'retrieval'"),
        (["./nowhere"], "no folder './nowhere'"),
        ([str(tmp_path)], "is no BEIR folder"),
    ):
        with pytest.raises(NotFoundError, match=message):
            choose(names)
    with pytest.raises(InputError, match="no task is named"):
        choose([])


def test_groups_leave_out_what_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTVEC_DATA", str(tmp_path))
    monkeypatch.setenv("NEXTVEC_CACHE", str(tmp_path))
    chosen = choose(["retrieval"])
    assert [one.name for one in chosen.tasks] == ["daily-titles"]
    assert chosen.left_out["cranfield"] == "the data set 'cranfield' is not on this machine"
    with pytest.raises(NotFoundError, match="no task of sts can run here: the data set 'sts' is not on this machine"):
        choose(["sts"])
    with pytest.raises(NotFoundError, match="data set 'cranfield' is not on this machine"):
        choose(["cranfield"])


# ---------------------------------------------------------------------- real data


@pytest.mark.parametrize(
    ("name", "data", "low", "high"),
    [
        ("stsb", "sts", 0.725, 0.765),  # its card says 0.745
        ("sick", "sts_tsv", 0.58, 0.68),
        ("men", "wordsim", 0.73, 0.81),
        ("mrpc", "mrpc", 0.80, 0.87),
        ("cranfield", "cranfield", 0.28, 0.35),
        ("limit-small", "limit", 0.32, 0.42),
    ],
)
def test_the_bundled_model(name: str, data: str, low: float, high: float, needs: Callable[[str], None]) -> None:
    needs(data)
    model = Encoder.load("nextvec-mini")
    assert low < task(name).run(model.encode).measures()[task(name).main] < high


def test_the_bundled_model_and_bm25_on_cranfield(needs: Callable[[str], None]) -> None:
    needs("cranfield")
    one = task("cranfield")
    data = one.load()
    mini, bm25 = one.run(Encoder.load("nextvec-mini").encode, data=data), one.run(Bm25(), data=data)
    assert 0.31 < bm25.measures()["ndcg@10"] < 0.36
    found = differences(mini, bm25, samples=200)["ndcg@10"]
    assert found.low < found.mean < found.high
    assert found.mean == pytest.approx(mini.measures()["ndcg@10"] - bm25.measures()["ndcg@10"])
