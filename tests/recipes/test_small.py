"""The recipe of nextvec-small at smoke scale, with a stand-in teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the recipe needs torch: pip install 'nextvec[hf]'")

from nextvec.data.bundled import daily_papers  # noqa: E402
from nextvec.data.titles import Paper, papers_of  # noqa: E402
from nextvec.encoder import Encoder  # noqa: E402
from nextvec.evaluate.retrieval import dense_ranks  # noqa: E402
from nextvec.recipes.mini_steps import Recipe as TableRecipe  # noqa: E402
from nextvec.recipes.small import Recipe, Stage, train_small, write_small  # noqa: E402
from nextvec.recipes.training import Stage as TableStage  # noqa: E402
from nextvec.types import InputError, Progress  # noqa: E402

TINY = Recipe(
    table=TableRecipe(
        vocabulary=1500,
        teacher_papers=200,
        dims=(8, 32),
        distil=TableStage(steps=20, batch=128, general=12, learning_rate=5e-3),
        contrast=TableStage(steps=20, batch=128, general=12, learning_rate=5e-3, distill_weight=2.0),
    ),
    layers=2,
    heads=2,
    ffn=64,
    positions=128,
    distil=Stage(steps=60, batch=48, lr=3e-3, length=32),
    contrast=Stage(steps=30, batch=32, lr=1e-3, length=64),
)


class WordTeacher:
    """A stand-in: the mean of fixed random vectors, one per word."""

    def encode_cached(
        self, texts: Sequence[str], folder: Path, *, progress: Progress | None = None
    ) -> NDArray[np.float16]:
        return np.stack([self._vector(text) for text in texts]).astype(np.float16)

    @staticmethod
    def _vector(text: str) -> NDArray[np.float64]:
        seeds = [int.from_bytes(hashlib.sha256(w.encode()).digest()[:4]) for w in text.lower().split() or [""]]
        return np.asarray(np.stack([np.random.default_rng(seed).normal(size=48) for seed in seeds]).mean(axis=0))


@pytest.fixture(scope="module")
def papers() -> list[Paper]:
    return papers_of(daily_papers(columns=["id", "title", "summary"]).to_pylist()[:9800:25], "summary")


@pytest.fixture(scope="module")
def folder(papers: list[Paper], tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("small")
    general = [f"a {one} {two}" for one in ("red", "small", "old") for two in ("dog", "house", "idea", "tree")]
    model = train_small(papers[100:], general, WordTeacher(), TINY, work)
    assert write_small(model, work / "model") == sum(p.stat().st_size for p in (work / "model").rglob("*.*"))
    return work / "model"


def found(encoder: Encoder, papers: Sequence[Paper], *, dim: int | None = None, layers: int | None = None) -> float:
    queries, documents = (
        encoder.encode(texts, dim=dim, layers=layers)
        for texts in ([paper.title for paper in papers], [paper.abstract for paper in papers])
    )
    return float((dense_ranks(queries, documents, np.arange(len(papers))) <= 10).mean())


def test_it_finds_abstracts_at_every_size(folder: Path, papers: list[Paper]) -> None:
    encoder = Encoder.load(folder)
    assert (encoder.nested_dims, encoder.nested_layers, encoder.dim) == ([8, 32], [1, 2], 32)
    # By chance, 10 of 100 are found.
    assert found(encoder, papers[:100]) > 0.4
    assert found(encoder, papers[:100], layers=1) > 0.3
    assert found(encoder, papers[:100], dim=8) > 0.2


def test_weights_are_half_as_large_and_open_elsewhere(folder: Path) -> None:
    from safetensors import safe_open
    from transformers import AutoModel

    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float16"}  # noqa: SIM118
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert AutoModel.from_pretrained(folder).config.num_hidden_layers == 2


def test_a_text_without_words_has_a_vector(folder: Path) -> None:
    encoder = Encoder.load(folder)
    vectors = encoder.encode(["", "?!", "a red dog", "word " * 4000])
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_what_an_interrupted_run_left_is_taken_up(papers: list[Paper], tmp_path: Path) -> None:
    """The second call finds both stages done and gives the same weights without a step."""
    models = [train_small(papers[100:300], ["a red dog"] * 3, WordTeacher(), TINY, tmp_path) for _ in range(2)]
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_sizes_that_do_not_end_at_the_models_are_refused(papers: list[Paper], tmp_path: Path) -> None:
    from nextvec.recipes.small_model import SmallConfig, SmallEmbedder, shape_of

    shape = shape_of(100, dim=32, layers=2, heads=2, ffn=64, length=64)
    with pytest.raises(InputError, match="must end at the model's 32 and 2"):
        SmallEmbedder(SmallConfig(shape=shape, max_length=64, dims=(8, 16), depths=(1, 2)))


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.recipes import small

    (tmp_path / "kept.txt").write_text("mine")
    monkeypatch.setattr("sys.argv", ["small", "--data", "none", "--teacher", "none", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="is not empty: choose another folder"):
        small.main()
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_it_starts_as_its_table(papers: list[Paper]) -> None:
    """Before training every depth gives the mean of the table's rows, long and short ones."""
    from nextvec.data.sources import ragged
    from nextvec.nn.backbones.transformer import Transformer
    from nextvec.recipes.small_model import shape_of, start_from

    torch.manual_seed(0)
    transformer = Transformer(shape_of(1002, dim=64, layers=2, heads=4, ffn=128, length=64))
    random = np.random.default_rng(0)
    rows = random.normal(size=(1000, 64)).astype(np.float32) * random.uniform(0.1, 2, size=(1000, 1)).astype(np.float32)
    start_from(transformer, rows)
    texts = [random.integers(0, 1000, size=size).tolist() for size in (1, 7, 40)]
    with torch.inference_mode():
        states = transformer(ragged(texts), all_states=True)[1:]
    for state in states:
        for text, own in zip(texts, torch.split(state, [1, 7, 40]), strict=True):
            expected = torch.from_numpy(rows[text].mean(axis=0)[:-2])
            assert float(torch.cosine_similarity(own.mean(dim=0)[:-2], expected, dim=0)) > 0.99
            assert float(own[:, -2:].abs().max()) == 0
