"""The recipe of nextvec-small at smoke scale, with a small teacher of random weights that was taught a little."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the recipe needs torch: pip install 'nextvec[hf]'")

from nextvec.data.bundled import daily_papers  # noqa: E402
from nextvec.data.sources import ragged  # noqa: E402
from nextvec.data.titles import Paper, papers_of  # noqa: E402
from nextvec.encoder import Encoder  # noqa: E402
from nextvec.evaluate.retrieval import dense_ranks  # noqa: E402
from nextvec.nn.backbones.transformer import Transformer  # noqa: E402
from nextvec.recipes import corpus  # noqa: E402
from nextvec.recipes.small import Recipe, Stage, train_small, write_small  # noqa: E402
from nextvec.recipes.small_model import SmallConfig, SmallEmbedder  # noqa: E402
from nextvec.recipes.small_start import cut_tokenizer, cut_transformer, fit_layers  # noqa: E402
from nextvec.recipes.teacher import Teacher  # noqa: E402
from nextvec.text_method import open_base, tiny_shape  # noqa: E402
from nextvec.types import InputError  # noqa: E402

TINY = Recipe(
    pieces=400,
    layers=(0, 2),
    ffn=96,
    positions=128,
    dims=(8, 32),
    teacher_papers=200,
    precision="fp32",  # many processors reckon in bf16 by a detour that takes ten times as long
    distil=Stage(steps=30, batch=48, lr=3e-3, length=24),
    depths=Stage(steps=30, batch=48, lr=2e-3, length=24),
    contrast=Stage(steps=30, batch=32, lr=2e-3, length=48),
)
GENERAL = [f"a {one} {two}" for one in ("red", "small", "old") for two in ("dog", "house", "idea", "tree")]

PROSE = [f"they saw that the {one} house was not {two}" for one in ("red", "small") for two in ("old", "theirs", "far")]


@pytest.fixture(scope="module")
def papers() -> list[Paper]:
    return papers_of(daily_papers(columns=["id", "title", "summary"]).to_pylist()[:9800:25], "summary")


@pytest.fixture(scope="module")
def teacher(papers: list[Paper], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of three layers with a WordPiece tokenizer in BERT's own form."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([paper.abstract for paper in papers], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    from nextvec.data.tokenizers import TextTokenizer
    from nextvec.nn.backbones.statemap import save_hf

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher") / "model"
    transformer = Transformer(tiny_shape(3, tokenizer.get_vocab_size()))
    with torch.no_grad():  # random tables tell words apart; larger weights mix them
        transformer.head_weight().mul_(20)
    save_hf(transformer, folder, tokenizer=TextTokenizer(tokenizer))
    return folder


@pytest.fixture(scope="module")
def trained(papers: list[Paper], teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SmallEmbedder]:
    """The folder of the work, and what came of it."""
    work = tmp_path_factory.mktemp("small")
    return work, train_small(papers[100:], GENERAL, PROSE, Teacher(teacher), TINY, work)


@pytest.fixture(scope="module")
def folder(trained: tuple[Path, SmallEmbedder]) -> Path:
    work, model = trained
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
    # By chance, 10 of 100 are found, give or take 3; arithmetic of other threads moves these figures by a few.
    assert found(encoder, papers[:100]) > 0.4
    assert found(encoder, papers[:100], layers=1) > 0.3
    assert found(encoder, papers[:100], dim=8) > 0.15


def test_weights_are_half_as_large_and_open_elsewhere(folder: Path, papers: list[Paper]) -> None:
    from safetensors import safe_open
    from sentence_transformers import SentenceTransformer

    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float16"}  # noqa: SIM118
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    texts = [paper.title for paper in papers[:5]]
    other = SentenceTransformer(str(folder), device="cpu").float().encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(Encoder.load(folder).encode(texts, precision="fp32"), other, atol=2e-3)


def test_a_text_without_words_has_a_vector(folder: Path) -> None:
    encoder = Encoder.load(folder)
    assert encoder.encode([]).shape == (0, 32)  # the map after pooling is wider than what it gives
    vectors = encoder.encode(["", "?!", "a red dog", "word " * 4000])
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_what_an_interrupted_run_left_is_taken_up(
    trained: tuple[Path, SmallEmbedder], papers: list[Paper], teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second call finds all stages done and gives the same weights without a step."""

    def step(*_: object) -> None:
        raise AssertionError("a stage that is done was trained again")

    work, model = trained
    monkeypatch.setattr(SmallEmbedder, "forward", step)
    again = train_small(papers[100:], GENERAL, PROSE, Teacher(teacher), TINY, work).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_the_vocabulary_is_the_commonest_pieces(teacher: Path, papers: list[Paper]) -> None:
    texts = [paper.abstract for paper in papers[:50]]
    whole = cut_tokenizer(teacher / "tokenizer.json", texts, size=900)[0]
    cut, ids = cut_tokenizer(teacher / "tokenizer.json", texts, size=400)
    assert cut.vocab == len(ids) == 400
    assert [whole.spelling(i) for i in ids.tolist()] == [cut.spelling(i) for i in range(400)]
    assert [cut.spelling(i) for i in sorted(cut.specials)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    one, other = (tokenizer.encode(texts[:1])[0] for tokenizer in (whole, cut))
    assert len(other) > len(one)  # the same text in smaller pieces, and nothing unknown
    unknown = [i for i in range(400) if cut.spelling(i) == "[UNK]"]
    assert not set(unknown) & set(other)
    assert (cut.spelling(other[0]), cut.spelling(other[-1])) == ("[CLS]", "[SEP]")
    small, _ = cut_tokenizer(teacher / "tokenizer.json", texts, size=300)
    foreign = [
        {piece for piece in map(made.spelling, range(made.vocab)) if len(piece) == 1 and not piece.isascii()}
        for made in (small, whole)
    ]
    assert foreign[0] == {piece for piece in foreign[1] if any(piece in text.lower() for text in texts)} < foreign[1]
    with pytest.raises(InputError, match="do not hold"):
        cut_tokenizer(teacher / "tokenizer.json", texts, size=20)


def test_all_layers_and_pieces_are_the_teacher(teacher: Path) -> None:
    """Nothing cut, nothing changed; and what is cut is what says least."""
    whole, _, _ = open_base(str(teacher))
    everything = np.arange(whole.config.vocab)
    same = cut_transformer(whole, everything, layers=(0, 1, 2), ffn=whole.config.ffn_width, positions=512)
    ids = ragged([[5, 6, 7, 8], [9, 10]])
    with torch.inference_mode():
        torch.testing.assert_close(same(ids), whole(ids))
        half = cut_transformer(whole, everything, layers=(0, 1, 2), ffn=whole.config.ffn_width // 2, positions=512)
        assert not torch.allclose(half(ids), whole(ids))
        rows = np.array([0, 5, 6, 7, 8])
        part = cut_transformer(whole, rows, layers=(2,), ffn=whole.config.ffn_width, positions=4)
        torch.testing.assert_close(part.head_weight(), whole.head_weight()[rows])
        state = whole.blocks[2](whole(ragged([[5, 6]]), all_states=True)[0], None, lambda q, k, v: v.flatten(1))
        other = part.blocks[0](part(ragged([[1, 2]]), all_states=True)[0], None, lambda q, k, v: v.flatten(1))
        torch.testing.assert_close(state, other)
    for wrong in ({"layers": (3,)}, {"ffn": 10_000}, {"positions": 1000}):
        with pytest.raises(InputError):
            cut_transformer(whole, everything, **{"layers": (0,), "ffn": 8, "positions": 8, **wrong})  # type: ignore[arg-type]


def test_fitted_layers_end_where_the_teachers_do(teacher: Path, papers: list[Paper]) -> None:
    """Where a layer was left out behind another, and neurons of both, the states come far nearer to the teacher's on
    texts that were not looked at; where nothing was left out, nothing changes."""
    whole, tokenizer, _ = open_base(str(teacher))
    everything, kept = np.arange(whole.config.vocab), (0, 2)
    learned, fresh = (
        ragged(tokenizer.encode([paper.abstract for paper in part], max_length=64))
        for part in (papers[:200], papers[200:230])
    )
    with torch.no_grad():
        wanted = whole(fresh)
        cut = cut_transformer(whole, everything, layers=kept, ffn=whole.config.ffn_width // 2, positions=64)
        before = (cut(fresh) - wanted).square().mean()
    fit_layers(cut, whole, everything, learned, layers=kept)
    same = cut_transformer(whole, everything, layers=(0, 1, 2), ffn=whole.config.ffn_width, positions=64)
    fit_layers(same, whole, everything, learned, layers=(0, 1, 2))
    with torch.no_grad():
        assert (cut(fresh) - wanted).square().mean() < 0.7 * before
        torch.testing.assert_close(same(fresh), wanted, rtol=1e-3, atol=1e-3)


def test_prose_from_archives(tmp_path: Path) -> None:
    """Sentences of the right length, of texts alone, the same in every run; a text that is far too long is refused."""
    (tmp_path / "text" / "nltk_data").mkdir(parents=True)
    long = "Here is a sentence of more than forty characters, \nover two lines."
    for path in corpus.PROSE:
        with zipfile.ZipFile(tmp_path / path, "w") as archive:
            archive.writestr("a/one.txt", f"Short. {long} And {'x' * 500}.")
            archive.writestr("a/README", f"{long} {long}")
    assert corpus.prose_texts(tmp_path) == [" ".join(long.split())] * 3
    with zipfile.ZipFile(tmp_path / corpus.PROSE[1], "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.txt", "word " * 300_000)
    with pytest.raises(InputError, match=r"b\.txt has 1,500,000 bytes"):
        corpus.prose_texts(tmp_path)


def test_sizes_that_do_not_fit_the_model_are_refused() -> None:
    shape = tiny_shape(2, 100)
    with pytest.raises(InputError, match="depths"):
        SmallEmbedder(SmallConfig(shape=shape, max_length=64, dims=(8, 16), depths=(1,)))
    with pytest.raises(InputError, match="within the model's 128"):
        SmallEmbedder(SmallConfig(shape=shape, max_length=64, dims=(8, 256), depths=(1, 2)))


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.recipes import small

    (tmp_path / "kept.txt").write_text("mine")
    monkeypatch.setattr("sys.argv", ["small", "--data", "none", "--teacher", "none", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="is not empty: choose another folder"):
        small.main()
    assert (tmp_path / "kept.txt").read_text() == "mine"
