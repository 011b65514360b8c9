"""``nextvec train embedder``: it learns, goes on where it was interrupted, and refuses what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'nextvec[hf]'")

from safetensors.numpy import save_file  # noqa: E402

from nextvec.encoder import Encoder  # noqa: E402
from nextvec.recipes.embedder import EmbedderSettings, train_embedder  # noqa: E402
from nextvec.types import ConflictError, InputError  # noqa: E402

WORDS = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "lmnr"]  # 80 made-up words


def settings(**given: Any) -> EmbedderSettings:
    own: dict[str, Any] = {"base": "scratch", "depth": 1, "vocab": 300, "batch": 20, "epochs": 30.0, "lr": 2e-3}
    return EmbedderSettings(**{**own, **given})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 documents whose titles are three of the words of their bodies."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with path.open("w") as stream:
        for _ in range(120):
            words = random.choice(WORDS, 8, replace=False).tolist()
            stream.write(json.dumps({"title": " ".join(words[:3]), "body": " ".join(words[::-1])}) + "\n")
    return path


def test_from_scratch_it_learns_to_find(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    report = train_embedder(corpus, out=out, settings=settings(nested=(16,), layers=()))
    assert report["data"] == {
        "name": "corpus.jsonl",
        "records are": "documents",
        "pairs learned from": 108,
        "pairs held out": 12,
        "left out": {},
    }
    assert report["gain"]["ndcg@10"]["low"] > 0.1
    assert [size["dim"] for size in report["sizes"]] == [16, 64]
    encoder = Encoder.load(out / "encoder")
    assert (encoder.dim, encoder.nested_dims) == (64, [16, 64])
    card = (out / "encoder" / "README.md").read_text()
    assert "better than its base" in card
    assert f"{report['after']['ndcg@10']['mean']:.3f}" in card
    assert json.loads((out / "encoder" / "report.json").read_text()) == report
    negatives = np.load(out / "negatives.npy")
    assert negatives.shape == (108,)
    assert (negatives != np.arange(108)).all()
    assert not list(out.glob("*/step-*"))


def test_an_interrupted_run_ends_as_an_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    own = settings(epochs=6.0, teacher="nextvec-mini")
    whole = train_embedder(corpus, out=tmp_path / "whole", settings=own)
    stops = ["training, first stage", "mining hard negatives", "training, second stage", "measuring the model"]
    for words in stops:

        def stop(said: str, done: int, total: int | None, words: str = words) -> None:
            if said.startswith(words) and done >= 7:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_embedder(corpus, out=tmp_path / "cut", settings=own, resume=True, say=stop)
    again = train_embedder(corpus, out=tmp_path / "cut", settings=own, resume=True)
    texts = ["a text", "balm dal", " ".join(WORDS[:9])]
    one, other = (Encoder.load(tmp_path / name / "encoder").encode(texts) for name in ("whole", "cut"))
    np.testing.assert_array_equal(one, other)
    assert {**again, "losses": 0} == {**whole, "losses": 0}  # a stage that was over has no last loss


def test_layers_are_nested_where_asked(corpus: Path, tmp_path: Path) -> None:
    report = train_embedder(
        corpus, out=tmp_path / "m", settings=settings(depth=2, epochs=4.0, nested=(32,), layers=(1,), mined=False)
    )
    assert [(size["layers"], size["dim"]) for size in report["sizes"]] == [(1, 32), (1, 128), (2, 32), (2, 128)]
    encoder = Encoder.load(tmp_path / "m" / "encoder")
    assert encoder.nested_layers == [1, 2]
    assert encoder.encode(["bal"], layers=1, dim=32).shape == (1, 32)
    assert not (tmp_path / "m" / "negatives.npy").exists()


def test_the_bundled_model_can_be_the_base(corpus: Path, tmp_path: Path) -> None:
    report = train_embedder(
        corpus, out=tmp_path / "m", settings=settings(base="nextvec-mini", epochs=4.0, lr=1e-2, mined=False)
    )
    base, found = Encoder.load("nextvec-mini"), Encoder.load(tmp_path / "m" / "encoder")
    assert found.nested_dims == base.nested_dims  # what the base can be cut to, its successor can
    assert report["before"]["ndcg@10"]["mean"] == pytest.approx(
        report["after"]["ndcg@10"]["mean"] - report["gain"]["ndcg@10"]["mean"], abs=2e-5
    )
    cosine = (base.encode(WORDS) * found.encode(WORDS)).sum(1)
    assert cosine.min() < 0.999  # it moved
    assert np.median(cosine) > 0.5  # and is still its base's


def test_graded_pairs_and_triplets_are_used(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    graded, triplets = tmp_path / "graded.jsonl", tmp_path / "triplets.jsonl"
    with graded.open("w") as one, triplets.open("w") as other:
        for _ in range(300):
            words = random.choice(WORDS, 9, replace=False).tolist()
            same = int(random.integers(0, 4))
            rest = words[:same] + words[6 : 9 - same]
            # Some words count more than others: the base cannot know.
            score = sum(9 if word[0] in "bd" else 1 for word in words[:same])
            one.write(json.dumps({"first": " ".join(words[:3]), "second": " ".join(rest), "score": score}) + "\n")
            triplet = {"query": " ".join(words[:3]), "document": " ".join(words[2::-1]), "neg": " ".join(words[2:5])}
            other.write(json.dumps(triplet) + "\n")
    report = train_embedder(graded, out=tmp_path / "g", settings=settings(epochs=10.0))
    assert report["measure"] == "spearman"
    assert report["gain"]["spearman"]["mean"] > 0
    assert "bm25" not in report
    found = train_embedder(triplets, out=tmp_path / "t", settings=settings(epochs=2.0))
    assert found["data"]["records are"] == "triplets"
    assert not (tmp_path / "t" / "second").exists()  # nothing is mined where wrong documents are given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nested": (64,)}, r"nested widths \[64\] must be from 1 to below the model's width, 64"),
        ({"layers": (1,)}, r"layers \[1\] must be from 1 to below the model's 1"),
        ({"base": "nextvec-mini", "layers": (1,)}, r"left out: this model has no layers"),
        ({"base": "nowhere"}, r"no model 'nowhere'"),
        ({"max_length": 4096}, r"max_length is 4096; this base reads 1 to 512"),
    ],
)
def test_what_the_base_cannot_be_is_said_and_leaves_nothing(
    corpus: Path, tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(Exception, match=words):
        train_embedder(corpus, out=tmp_path / "m", settings=settings(**given))
    assert not (tmp_path / "m").exists()


def test_two_runs_are_not_mixed(corpus: Path, tmp_path: Path) -> None:
    out, own = tmp_path / "m", settings(base="nextvec-mini", epochs=1.0, mined=False)
    report = train_embedder(corpus, out=out, settings=own)
    with pytest.raises(ConflictError, match="holds a run: go on with --resume"):
        train_embedder(corpus, out=out, settings=own)
    assert train_embedder(corpus, out=out, settings=own, resume=True) == report  # it was complete
    with pytest.raises(InputError, match=r"lr was 0\.002 and is now 0\.1"):
        train_embedder(
            corpus, out=out, settings=settings(base="nextvec-mini", epochs=1.0, mined=False, lr=0.1), resume=True
        )
    other = tmp_path / "other.jsonl"
    other.write_text("".join(corpus.read_text().splitlines(keepends=True)[:60]))
    with pytest.raises(InputError, match="are not those that the run"):
        train_embedder(other, out=out, settings=own, resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ConflictError, match="exists and is not empty"):
        train_embedder(corpus, out=tmp_path / "full", settings=own)


@pytest.mark.parametrize("given", [{"epochs": -1.0}, {"lr": float("nan")}, {"seed": -1}, {"temperature": 0.0}])
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(given))):
        EmbedderSettings(**given)


def test_the_command_line_makes_an_encoder(corpus: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from nextvec.cli.main import build

    run, out = CliRunner(), tmp_path / "m"
    given = ["train", "embedder", "--data", str(corpus), "--out", str(out), "--set", "epochs=1"]
    wrong = run.invoke(build(), [*given, "--nested", "64,x"])
    assert isinstance(wrong.exception, InputError)
    assert "--nested is '64,x'" in str(wrong.exception)
    made = run.invoke(build(), [*given, "--nested", "64", "--set", "mined=false"])
    assert made.exit_code == 0, made.exception
    assert "ndcg@10 on 12 held-out pairs" in made.stdout
    assert Encoder.load(out).dim == 256  # the folder of the run stands for its encoder
    shown = json.loads(
        run.invoke(build(), [*given, "--nested", "64", "-s", "mined=false", "--resume", "--json"]).stdout
    )
    assert shown["sizes"][0]["dim"] == 64
    # Whatever is no command of "train" is a method.
    assert "no 'nonsense' in nextvec.methods" in str(run.invoke(build(), ["train", "nonsense", *given[2:6]]).exception)
    assert "no 'nonsense' in nextvec.methods" in str(run.invoke(build(), ["train", *given[2:6], "nonsense"]).exception)


def test_a_base_that_is_no_text_model_is_refused(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 32}))
    save_file({"embeddings.cls_token": np.zeros((1, 1, 32), np.float32)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="vit"):
        train_embedder(corpus, out=tmp_path / "m", settings=settings(base=str(folder)))
    assert not (tmp_path / "m").exists()


def test_odd_texts_are_handled(tmp_path: Path) -> None:
    """One word, a megabyte, other scripts, one answer to many queries: all in one file."""
    rows = [{"title": word, "body": f"{word} {word}"} for word in WORDS[:20]]
    rows += [{"title": "huge", "body": " ".join(WORDS) * 3500}]
    rows += [{"title": f"標題 {i}", "body": f"這是第 {i} 篇文章的內容"} for i in range(10)]
    rows += [{"title": f"Вопрос {i}", "body": "один ответ на всё"} for i in range(10)]
    rows += [{"title": "", "body": ""}, {"title": "🙂", "body": "words without a title to speak of"}]
    assert max(len(row["body"]) for row in rows) > 1_000_000
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    report = train_embedder(path, out=tmp_path / "m", settings=settings(epochs=1.0, batch=100))
    data = report["data"]
    assert data["pairs learned from"] + data["pairs held out"] <= 41
    assert sum(data["left out"].values()) >= 2
    vectors = Encoder.load(tmp_path / "m").encode(["", "標題", "Вопрос", WORDS[0] * 100_000])
    assert np.isfinite(vectors).all()
