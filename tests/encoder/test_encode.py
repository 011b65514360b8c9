"""The encoder's own promises: order of steps, batching, precision, resumable output, similarity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import TEXTS

from nextvec import Encoder
from nextvec.encoder import _batches
from nextvec.types import ConflictError, InputError


def test_one_text_gives_a_vector_and_many_a_matrix(static_folder: Path) -> None:
    encoder = Encoder.load(static_folder)
    assert encoder.encode(TEXTS[0]).shape == (16,)
    assert encoder.encode(iter(TEXTS)).shape == (len(TEXTS), 16)
    assert encoder.encode([]).shape == (0, 16)
    np.testing.assert_array_equal(encoder.encode(TEXTS)[0], encoder.encode(TEXTS[0]))


def test_truncation_comes_before_normalisation(static_folder: Path) -> None:
    encoder = Encoder.load(static_folder)
    raw = encoder.encode(TEXTS, normalize=False)
    short = encoder.encode(TEXTS, dim=4)
    expected = raw[:, :4] / np.linalg.norm(raw[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)


def test_quantised_forms(static_folder: Path) -> None:
    encoder = Encoder.load(static_folder)
    unit = encoder.encode(TEXTS)
    assert encoder.encode(TEXTS, dtype="float16").dtype == np.float16
    codes = encoder.encode(TEXTS, dtype="int8")
    assert codes.dtype == np.int8
    assert np.abs(codes / 127 - unit).max() <= 0.5 / 127 + 1e-6
    bits = np.unpackbits(encoder.encode(TEXTS, dtype="binary"), axis=1)[:, :16]
    np.testing.assert_array_equal(bits.astype(bool), unit > 0)


def test_empty_text_is_a_zero_vector(static_folder: Path, model_folders: dict[str, Path]) -> None:
    assert not Encoder.load(static_folder).encode("").any()
    llama = Encoder.load(model_folders["llama"], device="cpu")
    vectors = llama.encode(["", "search"], precision="fp32")
    assert not vectors[0].any() and vectors[1].any()


@pytest.mark.parametrize("name", ["bert", "modernbert", "qwen3"])
def test_batching_does_not_change_vectors(model_folders: dict[str, Path], name: str) -> None:
    encoder = Encoder.load(model_folders[name], device="cpu")
    whole = encoder.encode(TEXTS, precision="fp32", batch_tokens=100_000)
    single = encoder.encode(TEXTS, precision="fp32", batch_tokens=1)
    np.testing.assert_allclose(whole, single, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_bf16_is_close_to_fp32(model_folders: dict[str, Path], name: str) -> None:
    encoder = Encoder.load(model_folders[name], device="cpu")
    exact, fast = (encoder.encode(TEXTS, precision=p) for p in ("fp32", "bf16"))
    assert fast.dtype == np.float32
    assert (exact * fast).sum(1).min() > 0.999
    assert not np.array_equal(exact, fast)


def test_batches_are_bounded_and_complete() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 300, 500).tolist()
    batches = _batches(lengths, 512)
    assert sorted(i for batch in batches for i in batch) == [i for i, n in enumerate(lengths) if n]
    assert all(sum(lengths[i] for i in batch) <= 512 for batch in batches)
    # A text longer than the budget still gets its own batch.
    assert _batches([900, 5], 512) == [[0], [1]]


def test_max_length(model_folders: dict[str, Path], static_folder: Path) -> None:
    for folder in (model_folders["bert"], static_folder):
        encoder = Encoder.load(folder, device="cpu", max_length=5)
        assert encoder.max_length == 5
        assert all(len(ids) <= 5 for ids in encoder.backbone.tokenize(TEXTS))


def test_similarity(static_folder: Path) -> None:
    encoder = Encoder.load(static_folder)
    a, b = encoder.encode(TEXTS[:2]), encoder.encode(TEXTS[2:])
    np.testing.assert_allclose(encoder.similarity(3 * a, b), a @ b.T, atol=1e-6)
    assert encoder.similarity(a[0], b[0]).shape == (1, 1)
    encoder.layout.similarity = "euclidean"
    distances = np.linalg.norm(a[:, None] - b[None], axis=2)
    np.testing.assert_allclose(encoder.similarity(a, b), -distances, atol=1e-5)
    with pytest.raises(InputError, match="widths differ"):
        encoder.similarity(a, b[:, :4])


def test_out_is_written_and_resumed(static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "_window", 4)
    encoder = Encoder.load(static_folder)
    texts = [f"{text} {i}" for i in range(3) for text in TEXTS]
    target = tmp_path / "v.npy"
    seen: list[int] = []

    def stop_at(done: int, total: int | None) -> None:
        seen.append(done)
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(texts, out=target, progress=stop_at)
    assert not target.exists()
    calls: list[int] = []
    original = encoder._encode_texts
    monkeypatch.setattr(encoder, "_encode_texts", lambda t, s: calls.append(len(t)) or original(t, s))
    vectors = encoder.encode(texts, out=target)
    assert sum(calls) == len(texts) - 8
    np.testing.assert_array_equal(vectors, encoder.encode(texts))
    np.testing.assert_array_equal(np.load(target), vectors)
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


def test_out_of_another_job_is_not_resumed(
    static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "_window", 2)
    encoder = Encoder.load(static_folder)
    target = tmp_path / "v.npy"

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(TEXTS, out=target, progress=interrupt)
    changed = ["something else", *TEXTS[1:]]
    np.testing.assert_array_equal(encoder.encode(changed, out=target), encoder.encode(changed))
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(TEXTS, out=tmp_path / "w.npy", progress=interrupt)
    (tmp_path / "w.npy.part.json").write_text("{torn")
    np.testing.assert_array_equal(encoder.encode(TEXTS, out=tmp_path / "w.npy"), encoder.encode(TEXTS))


def test_save_refuses_a_folder_in_use(static_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    with pytest.raises(ConflictError, match="not empty"):
        Encoder.load(static_folder).save(tmp_path / "used")
    assert (tmp_path / "used" / "file").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_static_models_need_no_torch(static_folder: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from nextvec import Encoder; "
        f"v = Encoder.load({json.dumps(str(static_folder))}).encode(['a graph']); "
        "assert v.shape == (1, 16) and 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
