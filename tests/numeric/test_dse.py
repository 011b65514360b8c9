"""DSE: sentence vectors and features by hand, its loss, the teacher that is kept, and what a judged pair may be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.data.judged import JudgedPairs, read_judged  # noqa: E402
from nextvec.data.sources import ragged  # noqa: E402
from nextvec.engine.engine import Engine, TrainConfig  # noqa: E402
from nextvec.engine.optim import OptimConfig  # noqa: E402
from nextvec.methods._dse_parts import best_constant  # noqa: E402
from nextvec.methods.dse import Dse  # noqa: E402
from nextvec.types import InputError  # noqa: E402

WORDS = ("red", "small", "fast", "old", "deep", "warm")


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"sentence1": f"a {one} thing", "sentence2": f"it is {two}", "label": int(one == two)}
        for one in WORDS
        for two in (one, *WORDS[:2])
    ]
    return write(tmp_path / "pairs.jsonl", rows)


def settings(**changes: object) -> Dse.Config:
    return Dse.Config(depth=2, vocab=300, max_length=16, hidden=16, teacher_steps=5, **changes)


def test_vectors_and_features_by_hand(data: Path, tmp_path: Path) -> None:
    method, source = Dse.prepare(data, settings(last=2, alpha=0.0), batch=18, seed=0, folder=tmp_path)
    batch = source.batch(0)
    ids = method.text_tokenizer().encode(["a red thing"])
    states = method.transformer(ragged(ids), all_states=True)
    expected = torch.cat([states[-2][1:].mean(0), states[-1][1:].mean(0)])
    torch.testing.assert_close(method.vectors(ragged(ids))[0], expected)
    u, v = method.vectors(batch.ragged("first")), method.vectors(batch.ragged("second"))
    features = torch.cat([u, v, u * v, (u - v).abs()], dim=1)
    first, second = method.head[0], method.head[2]
    logits = torch.relu(features @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(method(batch)["logits"], logits, atol=1e-5, rtol=1e-4)
    kept = method.eval().encode(["it is old", "it is red"])
    alone = method.score(method.encode(["a red thing"]), kept)
    pairwise = method.score(method.encode(["a red thing"] * 2), kept)
    np.testing.assert_allclose(alone, pairwise, atol=1e-5)


def test_the_loss_is_labels_and_teacher(data: Path, tmp_path: Path) -> None:
    method, source = Dse.prepare(data, settings(alpha=0.3), batch=18, seed=0, folder=tmp_path)
    batch = source.batch(0)
    z, y = method(batch)["logits"].detach().numpy()[:, 0], batch.tensor("label").numpy()
    taught = batch.tensor("teacher").numpy()[:, 0]
    task = np.where(y == 1, np.log1p(np.exp(-z)), np.log1p(np.exp(z))).mean()
    out = method(batch)
    total = sum(weight * float(part(out, batch).mean.detach()) for weight, part in method.objective().parts())
    assert total == pytest.approx(0.7 * task + 0.3 * np.square(z - taught).mean(), rel=1e-4)


def test_heads_begin_at_the_best_constant() -> None:
    """The loss of no other constant is lower: of a score its mean, of yes or no and of classes the log odds."""
    texts = [f"a {word} thing" for word in WORDS]
    score = JudgedPairs(texts, texts, np.array([0, 1, 2, 3, 4, 5], np.float32), "score")
    assert best_constant(score).tolist() == [2.5]
    yes = JudgedPairs(texts, texts, np.array([0, 0, 0, 0, 1, 1]), "binary")
    torch.testing.assert_close(best_constant(yes), torch.tensor([np.log(2.5 / 4.5)], dtype=torch.float32))
    classes = JudgedPairs(texts, texts, np.array([0, 1, 1, 2, 2, 2]), "classes", ("a", "b", "c"))
    torch.testing.assert_close(
        torch.softmax(best_constant(classes), 0), torch.tensor([1.5, 2.5, 3.5]) / 7.5, atol=1e-6, rtol=0
    )
    for head in ("mlp", "cosine"):
        method = Dse.start(settings(kind="score", head=head), texts)
        method.begin(score)
        last = method.head[-1] if head == "mlp" else method.head
        if head == "mlp":
            assert float(last.bias) == 2.5
        else:  # both texts of a pair are one: all cosines are 1, and the constant is all that can be fitted
            assert float(last.bias + last.weight) == pytest.approx(2.5, abs=1e-5)


def test_the_cosine_begins_at_least_squares() -> None:
    first = [f"a {word} thing" for word in WORDS]
    pairs = JudgedPairs(first, first[::-1], np.array([5, 4, 2, 3, 1, 0], np.float32), "score")
    method = Dse.start(settings(kind="score", head="cosine"), first)
    method.begin(pairs)
    cosines = torch.nn.functional.cosine_similarity(
        *(torch.from_numpy(method.encode(side)) for side in (first, first[::-1]))
    )
    slope, offset = np.linalg.lstsq(np.stack([cosines.numpy(), np.ones(6)], 1), pairs.label, rcond=None)[0]
    np.testing.assert_allclose(
        method.score(method.encode(first), method.encode(first[::-1]))[:, 0],
        slope * cosines.numpy() + offset,
        atol=1e-2,
    )


def test_the_teacher_is_trained_once_and_kept(data: Path, tmp_path: Path) -> None:
    _, source = Dse.prepare(data, settings(), batch=18, seed=0, folder=tmp_path)
    kept = np.load(tmp_path / "teacher.npy")
    assert kept.shape == (18, 1)
    np.save(tmp_path / "teacher.npy", np.full((18, 1), 7.0, np.float32))
    _, again = Dse.prepare(data, settings(), batch=18, seed=0, folder=tmp_path)
    assert set(again.batch(0).tensor("teacher").flatten().tolist()) == {7.0}
    assert sorted(source.batch(0).tensor("teacher").flatten().tolist()) == sorted(kept.flatten().tolist())
    np.save(tmp_path / "teacher.npy", np.zeros((3, 1), np.float32))
    with pytest.raises(InputError, match="for 18 pairs: remove it"):
        Dse.prepare(data, settings(), batch=18, seed=0, folder=tmp_path)


def test_teacher_and_student_learn(data: Path, tmp_path: Path) -> None:
    pairs = read_judged(data)
    config = settings(alpha=0.5, teacher_lr=3e-3, seed=0)
    teacher = Dse.teacher(pairs, replace(config, kind="binary", teacher_steps=150), batch=18)
    taught = teacher.logits(pairs)
    assert float(((taught[:, 0] > 0) == pairs.label).mean()) > 0.9
    method = Dse.start(config, [*pairs.first, *pairs.second])
    source = method.judged(pairs, taught, batch=18, seed=0)
    Engine(method, TrainConfig(steps=150, batch=18, optim=OptimConfig(lr=3e-3))).fit(source)
    method.eval()
    found = method.score(method.encode(pairs.first), method.encode(pairs.second))
    assert float(((found[:, 0] > 0) == pairs.label).mean()) > 0.9


def test_classes_and_scores(tmp_path: Path) -> None:
    rows = [{"first": f"a {w}", "second": f"b {w}", "label": name} for w in WORDS for name in ("yes", "no", "maybe")]
    pairs = read_judged(write(tmp_path / "classes.jsonl", rows))
    assert (pairs.kind, pairs.names, pairs.outputs) == ("classes", ("maybe", "no", "yes"), 3)
    method, source = Dse.prepare(tmp_path / "classes.jsonl", settings(), batch=6, seed=0, folder=tmp_path / "one")
    assert method(source.batch(0))["logits"].shape == (6, 3)
    scores = [{"first": f"a {w}", "second": f"b {w}", "score": i / 2} for i, w in enumerate(WORDS)]
    config = settings(head="cosine")
    method, source = Dse.prepare(
        write(tmp_path / "scores.jsonl", scores), config, batch=6, seed=0, folder=tmp_path / "two"
    )
    assert method.config.kind == "score" and method(source.batch(0))["logits"].shape == (6, 1)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"first": "a", "second": "b"}], "expected a score or a label in every record"),
        ([{"first": "a", "second": "b", "score": 1}, {"first": "a", "second": "b", "label": 1}], "expected 'score'"),
        ([{"first": "a", "second": "b", "score": "much"}], "field 'score' is 'much'; expected a finite number"),
        ([{"first": "a", "label": 1}], "no field 'second' or 'sentence2' or 'text2'"),
        ([{"first": "a", "second": "b", "label": 1}] * 3, "3 pairs with 1 different labels"),
    ],
)
def test_what_is_no_judged_pair(tmp_path: Path, rows: list[dict[str, object]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_judged(write(tmp_path / "pairs.jsonl", rows))


def test_settings_that_make_no_sense() -> None:
    for changes, words in (
        ({"alpha": 2.0}, "alpha is 2.0"),
        ({"head": "dot"}, "head is 'dot'"),
        ({"head": "cosine", "outputs": 3}, "with 3 logits"),
        ({"last": 0}, "last is 0"),
    ):
        with pytest.raises(InputError, match=words):
            Dse(settings(**changes))
