"""The bundled transformer: its size, its licence, the sizes it was trained for, and that it knows sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextvec.encoder import Encoder

FOLDER = Path(__file__).parents[2] / "src" / "nextvec" / "models" / "nextvec-small"
ALIKE = [
    ("A man is playing a guitar.", "Someone plays a musical instrument."),
    ("The stock market fell sharply today.", "Shares dropped in heavy trading."),
    ("Two dogs run through the snow.", "A pair of dogs is running outside in winter."),
    ("We train networks by contrastive learning.", "A contrastive loss is used for training."),
    ("The film was a waste of time.", "I did not enjoy this movie at all."),
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load("nextvec-small")


def test_size_and_licence() -> None:
    assert (
        sum(file.stat().st_size for file in FOLDER.rglob("*") if file.name not in ("LICENSE", "README.md"))
        <= 15_000_000
    )
    assert "Apache License" in (FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert "license: apache-2.0" in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("dim", "layers"), [(256, 4), (128, 4), (64, 4), (256, 2)])
def test_every_sentence_is_nearest_to_the_one_that_says_the_same(encoder: Encoder, dim: int, layers: int) -> None:
    assert list(encoder.nested_dims or ()) == [64, 128, 256] and list(encoder.nested_layers or ()) == [1, 2, 3, 4]
    one, other = (encoder.encode([pair[i] for pair in ALIKE], dim=dim, layers=layers) for i in (0, 1))
    assert one.shape == (5, dim)
    scores = one @ other.T
    assert np.argmax(scores, axis=1).tolist() == np.argmax(scores, axis=0).tolist() == list(range(5))


def test_the_same_vectors_as_in_sentence_transformers(encoder: Encoder) -> None:
    peer = pytest.importorskip("sentence_transformers").SentenceTransformer(
        str(FOLDER), device="cpu", model_kwargs={"dtype": "float32"}
    )
    texts = [text for pair in ALIKE for text in pair]
    theirs = peer.encode(texts, normalize_embeddings=True)
    assert np.abs(encoder.encode(texts, precision="fp32") - theirs).max() < 1e-5
