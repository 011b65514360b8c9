"""The recipe of nextvec-mini: at smoke scale with a stand-in teacher, and the quality of the bundled model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the recipe needs torch: pip install 'nextvec[hf]'")

from nextvec.data.bundled import daily_papers  # noqa: E402
from nextvec.data.titles import Paper, papers_of, title_key  # noqa: E402
from nextvec.encoder import Encoder  # noqa: E402
from nextvec.evaluate.retrieval import dense_ranks  # noqa: E402
from nextvec.recipes.corpus import halves, split  # noqa: E402
from nextvec.recipes.mini_steps import Recipe, prepare, train  # noqa: E402
from nextvec.recipes.package import write_model  # noqa: E402
from nextvec.recipes.static_table import Bags, TokenTable, principal_axes, quantise, unit  # noqa: E402
from nextvec.recipes.training import Stage  # noqa: E402
from nextvec.recipes.vocabulary import train_tokenizer  # noqa: E402
from nextvec.types import Progress  # noqa: E402

BUNDLED = Path(__file__).parents[2] / "src" / "nextvec" / "models" / "nextvec-mini"
SMALL = Recipe(
    vocabulary=2000,
    dims=(8, 16, 32),
    teacher_papers=250,
    distil=Stage(steps=10, batch=64, general=8, learning_rate=5e-3),
    contrast=Stage(steps=60, batch=128, general=8, learning_rate=1e-2),
)
GENERAL = [f"{one} {two}" for one in ("a red", "an old", "the small") for two in ("dog barks", "door closes", "idea")]


class WordTeacher:
    """A stand-in: the mean of fixed random vectors, one per word. Counts how many texts it had to encode."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode_cached(
        self, texts: Sequence[str], folder: Path, *, progress: Progress | None = None
    ) -> NDArray[np.float16]:
        self.encoded += len(texts)
        return np.stack([self._vector(text) for text in texts]).astype(np.float16)

    @staticmethod
    def _vector(text: str) -> NDArray[np.float64]:
        words = text.lower().split() or [""]
        seeds = [int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) for word in words]
        vectors = np.stack([np.random.default_rng(seed).normal(size=48) for seed in seeds])
        return np.asarray(vectors.mean(axis=0))


@pytest.fixture(scope="module")
def papers() -> list[Paper]:
    return papers_of(daily_papers(columns=["id", "title", "summary"]).to_pylist()[:9800:20], "summary")


def recall_at_10(encoder: Encoder, papers: Sequence[Paper], dim: int) -> float:
    queries = encoder.encode_query([paper.title for paper in papers], dim=dim)
    documents = encoder.encode_document([paper.abstract for paper in papers], dim=dim)
    ranks = dense_ranks(np.asarray(queries), np.asarray(documents), np.arange(len(papers)))
    return float((ranks <= 10).mean())


def test_recipe_trains_a_model_that_loads_and_ranks(papers: list[Paper], tmp_path: Path) -> None:
    teacher = WordTeacher()
    held_out, training = papers[:150], papers[150:]
    prepared = prepare(training, teacher, SMALL, tmp_path / "work", general=GENERAL)
    stages = train(prepared, SMALL, tmp_path / "work", seed=0)
    size = write_model(tmp_path / "model", prepared.tokenizer, stages["final"], nested_dims=SMALL.dims)
    assert size == sum(file.stat().st_size for file in (tmp_path / "model").iterdir())
    encoder = Encoder.load(tmp_path / "model")
    # By chance, 10 of 150 are found.
    assert recall_at_10(encoder, held_out, 32) > 0.5
    assert recall_at_10(encoder, held_out, 8) > 0.2
    vectors = encoder.encode([held_out[0].abstract])
    rows = stages["final"]
    exact = unit(TokenTable(rows).encode(Bags.of(prepared.tokenizer, [held_out[0].abstract])))
    assert float((np.asarray(vectors) * exact).sum()) > 0.999


def test_general_texts_follow_the_teacher_too(papers: list[Paper], tmp_path: Path) -> None:
    """Words that no paper has: with general texts the vocabulary knows them, and their vectors are learned."""
    odd = [f"{one} {two}" for one in ("zbrolq", "krontz", "vimpel") for two in ("yxors", "whamble", "quindle")]
    stage = Stage(steps=40, batch=64, general=9, learning_rate=2e-2)
    settings = Recipe(vocabulary=900, dims=(16,), teacher_papers=50, repeat=30, distil=stage, contrast=stage)
    prepared = prepare(papers[:80], WordTeacher(), settings, tmp_path, general=odd)
    rows = train(prepared, settings, tmp_path, seed=0)
    assert "zbrolq" in prepared.tokenizer.get_vocab()
    wanted = unit(prepared.views.teacher_general)
    before, after = (
        float((unit(TokenTable(rows[step]).encode(prepared.views.general)) * wanted).sum(1).mean())
        for step in ("tokens", "distilled")
    )
    assert 1 - after < 0.3 * (1 - before)


def test_recipe_repeats_and_goes_on_from_what_is_there(papers: list[Paper], tmp_path: Path) -> None:
    few = Recipe(
        vocabulary=800,
        dims=(8, 16),
        teacher_papers=50,
        distil=Stage(steps=3, batch=32, learning_rate=5e-3),
        contrast=Stage(steps=3, batch=32, learning_rate=5e-3),
    )
    runs = []
    for name in ("one", "two"):
        prepared = prepare(papers[:80], WordTeacher(), few, tmp_path / name)
        runs.append(train(prepared, few, tmp_path / name, seed=1)["contrastive"])
    np.testing.assert_allclose(runs[0], runs[1], atol=1e-6)
    kept = next((tmp_path / "one").glob("contrastive-*.npy"))
    np.save(kept, np.zeros_like(runs[0]))
    prepared = prepare(papers[:80], WordTeacher(), few, tmp_path / "one")
    assert not train(prepared, few, tmp_path / "one", seed=1)["contrastive"].any()
    assert train(prepared, few, tmp_path / "one", seed=2)["contrastive"].any()


def test_split_lets_no_paper_cross() -> None:
    def pair(identifier: str, title: str) -> Paper:
        return Paper(identifier, title, "x" * 300)

    daily = [pair("1", "Seen On The List"), pair("2", "Another One Listed")]
    arxiv = [pair("1", "Seen on the list, v2"), *(pair(f"a{i}", f"Paper number {i}") for i in range(40))]
    acl = [pair("acl-1", "Another one: LISTED"), *(pair(f"b{i}", f"Paper number {i}!") for i in range(20, 60))]
    corpus = split({"arxiv": arxiv, "acl": acl}, daily, sizes={"arxiv": 5, "acl": 5})
    held = [paper for pairs in corpus.held_out.values() for paper in pairs]
    assert {name: len(pairs) for name, pairs in corpus.held_out.items()} == {
        "daily_papers": 2,
        "arxiv": 5,
        "acl": 5,
    }
    assert not {p.id for p in held} & {p.id for p in corpus.train}
    titles = [title_key(p.title) for p in corpus.train]
    assert not {title_key(p.title) for p in held} & set(titles)
    assert len(set(titles)) == len(titles)
    again = split({"arxiv": arxiv[::-1], "acl": acl}, daily, sizes={"arxiv": 5, "acl": 5})
    assert again.held_out == corpus.held_out


def test_halves_cut_at_a_sentence() -> None:
    first, second = halves("A short one. A second sentence that is longer. End.")
    assert (first + " " + second) == "A short one. A second sentence that is longer. End."
    assert first.endswith(".")
    assert halves("no sentence end here")[0] == "no sentence"


def test_vocabulary_is_deterministic_and_ordered_by_count() -> None:
    records = daily_papers(columns=["summary"]).to_pylist()[:9800:25]
    texts = [record["summary"] for record in records]
    (one, counts), (two, _) = (train_tokenizer(texts, size=3000) for _ in range(2))
    assert one.to_str() == two.to_str()
    assert one.get_vocab_size() == 3000
    assert list(counts[1:]) == sorted(counts[1:], reverse=True)
    assert one.encode("The MODEL, language!").tokens == ["the", "model", "language"]
    assert counts[one.token_to_id("the")] > counts[one.token_to_id("language")] > 100


def test_bags_are_means_of_rows() -> None:
    tokenizer, _ = train_tokenizer(["a b c d a b"] * 5, size=30)
    texts = ["a b a", "", "d"]
    bags = Bags.of(tokenizer, texts)
    rows = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 4)).astype(np.float32)
    expected = [
        np.mean([rows[i] for i in tokenizer.encode(text).ids], axis=0) if text else np.zeros(4) for text in texts
    ]
    np.testing.assert_allclose(TokenTable(rows).encode(bags), expected, atol=1e-6)
    np.testing.assert_allclose(
        TokenTable(rows).encode(bags.take(np.array([2, 0]))), [expected[2], expected[0]], atol=1e-6
    )


def test_principal_axes_are_ordered_and_repeatable() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(500, 6)) * np.array([1, 5, 2, 0.1, 0.1, 0.1])
    axes = principal_axes(vectors, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-5)
    assert np.abs(axes).argmax(0).tolist() == [1, 2, 0]
    np.testing.assert_array_equal(axes, principal_axes(vectors, 3))


def test_quantised_rows_keep_their_direction() -> None:
    rows = np.random.default_rng(1).normal(size=(100, 64)).astype(np.float32)
    rows[7] = 0
    values, scale = quantise(rows)
    assert np.abs(values.astype(int)).max() == 127
    back = values * scale[:, None]
    assert not back[7].any()
    cosine = (unit(back) * unit(rows)).sum(1)
    assert np.delete(cosine, 7).min() > 0.9998


def test_bundled_model_is_small() -> None:
    assert sum(file.stat().st_size for file in BUNDLED.iterdir()) <= 10_000_000


@pytest.mark.parametrize(("dim", "floor"), [(256, 0.975), (64, 0.96), (32, 0.91)])
def test_bundled_model_keeps_its_quality(dim: int, floor: float) -> None:
    """Title -> abstract on 988 of the daily papers, none of which it was trained on."""
    papers = papers_of(daily_papers(columns=["id", "title", "summary"]).to_pylist()[:9877:10], "summary")
    assert recall_at_10(Encoder.load("nextvec-mini"), papers, dim) >= floor
