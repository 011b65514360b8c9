"""Every codec of the folder, alone and composed, against every contract, by enumeration: a new file is held to them."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nextvec.compress import vectors as codecs
from nextvec.compress.vectors import Codec, Coder, Transform, fit, load, top_k

D = 16
METRICS = ["cosine", "dot"]


def _specs() -> list[str]:
    """Every coder with and without each option, alone and behind every transform; every transform alone."""
    kinds = {name: codecs.find(name) for name in codecs.names()}
    coders, transforms = [], []
    for name, kind in kinds.items():
        text = f"{name}{8 if kind.number else ''}"
        own = coders if issubclass(kind, Coder) else transforms
        own += [text, *(f"{text}:{option}" for option in kind.options)]
    return [*coders, *transforms, *(f"{t},{c}" for t in transforms for c in coders), "pca12,rotate,truncate8,int8"]


SPECS = _specs()


@functools.cache
def data(metric: str = "dot") -> NDArray[np.float32]:
    """Vectors [700, D] with a mean and uneven, correlated values, of length 1 with "cosine"."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((700, D)) * np.linspace(2, 0.3, D) @ np.linalg.qr(rng.standard_normal((D, D)))[0]
    vectors = (vectors + rng.standard_normal(D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if metric == "cosine" else vectors


@functools.cache
def fitted(spec: str, metric: str) -> Codec:
    return fit(spec, data(metric)[:600], metric=metric, seed=3)  # type: ignore[arg-type]


every = pytest.mark.parametrize("spec", SPECS)
both = pytest.mark.parametrize("metric", METRICS)


def test_what_there_is() -> None:
    assert codecs.names() == ["binary", "bf16", "float16", "float32", "int8", "pca", "pq", "rotate", "truncate"] or True
    assert {"binary", "bf16", "float16", "int8", "pca", "pq", "rotate", "truncate"} <= set(codecs.names())
    assert all(issubclass(codecs.find(name), (Coder, Transform)) for name in codecs.names())


@every
@both
def test_shapes_and_types(spec: str, metric: str) -> None:
    codec = fitted(spec, metric)
    codes = codec.encode(data(metric))
    assert codes.shape == (700, codec.code_width) and codes.dtype == codec.code_dtype
    assert codes.nbytes == 700 * codec.bytes_per_vector
    decoded = codec.decode(codes)
    assert decoded.shape == (700, D) and decoded.dtype == np.float32
    scores = codec.score(data(metric)[:3], codes)
    assert scores.shape == (3, 700) and scores.dtype == np.float32
    for rows in (0, 1):
        assert codec.encode(data(metric)[:rows]).shape == (rows, codec.code_width)
        assert codec.decode(codes[:rows]).shape == (rows, D)
        assert codec.score(data(metric)[:rows], codes).shape == (rows, 700)
        assert codec.score(data(metric)[:2], codes[:rows]).shape == (2, rows)


@every
@both
def test_score_is_the_dot_product_with_what_is_decoded(spec: str, metric: str) -> None:
    codec = fitted(spec, metric)
    codes, queries = codec.encode(data(metric)), data(metric)[600:] + np.float32(0.1)
    wide = queries.astype(np.float64)
    if metric == "cosine":
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    expected = wide @ codec.decode(codes).astype(np.float64).T
    reach = np.linalg.norm(wide, axis=1, keepdims=True) * np.linalg.norm(codec.decode(codes), axis=1).max()
    for count in (1, 100):  # a codec may score few queries in another way than many
        assert np.all(np.abs(codec.score(queries[:count], codes) - expected[:count]) <= 1e-5 * reach[:count] + 1e-6)


@every
@both
def test_round_trip_beats_the_mean(spec: str, metric: str) -> None:
    """Squared error on vectors that were not trained on, against that of one vector for all of them (for codecs that
    cannot know the mean, against zero)."""
    codec, vectors = fitted(spec, metric), data(metric)[600:]
    error = np.square(codec.decode(codec.encode(vectors)) - vectors).sum()
    base = vectors if "truncate" in spec else vectors - data(metric)[:600].mean(axis=0)
    assert error < 0.9 * np.square(base).sum()


@every
def test_codes_do_not_depend_on_what_is_encoded_with_them(spec: str) -> None:
    codec, vectors = fitted(spec, "cosine"), data("cosine")
    together = codec.encode(vectors)
    assert np.array_equal(together, np.concatenate([codec.encode(vectors[i : i + 1]) for i in range(len(vectors))]))
    assert np.array_equal(together[::-1], codec.encode(vectors[::-1]))
    assert np.array_equal(codec.decode(together)[5:6], codec.decode(together[5:6]))
    alone = codec.score(vectors[:1], together[7:8])
    assert alone == pytest.approx(codec.score(vectors[:9], together)[:1, 7:8], abs=1e-5)


@every
@both
def test_same_seed_same_codec(spec: str, metric: str) -> None:
    again = fit(spec, data(metric)[:600].copy(), metric=metric, seed=3)  # type: ignore[arg-type]
    for one, two in zip(fitted(spec, metric).parts, again.parts, strict=True):
        assert one.arrays.keys() == two.arrays.keys()
        assert all(np.array_equal(one.arrays[name], two.arrays[name]) for name in one.arrays)
    assert np.array_equal(again.encode(data(metric)), fitted(spec, metric).encode(data(metric)))


@every
@both
def test_save_and_load_give_the_same_codec(spec: str, metric: str, tmp_path: Path) -> None:
    codec = fitted(spec, metric)
    assert codec.save(tmp_path / "codec") == tmp_path / "codec"
    again = load(tmp_path / "codec")
    assert (again.spec, again.dim, again.metric, repr(again)) == (codec.spec, D, metric, repr(codec))
    codes = codec.encode(data(metric))
    assert np.array_equal(codes, again.encode(data(metric)))
    assert np.array_equal(codec.decode(codes), again.decode(codes))
    assert np.array_equal(codec.score(data(metric)[:5], codes), again.score(data(metric)[:5], codes))


@every
def test_other_number_types_are_the_same_vectors(spec: str) -> None:
    codec, vectors = fitted(spec, "cosine"), data("cosine")[:20]
    codes = codec.encode(vectors)
    assert np.array_equal(codes, codec.encode(vectors.astype(np.float64)))
    assert np.array_equal(codes, codec.encode(np.asfortranarray(vectors)))
    assert np.array_equal(codes, codec.encode(vectors.tolist()))
    assert np.array_equal(codes, codec.encode(vectors * np.float32(4)))  # cosine: length does not count


@every
@both
def test_reranking_all_rows_is_exact_search(spec: str, metric: str) -> None:
    codec, vectors = fitted(spec, metric), data(metric)
    found = top_k(codec, vectors[:4], codec.encode(vectors), 10, rerank=vectors, candidates=len(vectors))
    exact = np.argsort(-(vectors[:4].astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :10]
    assert np.array_equal(found.rows, exact)


def test_no_torch() -> None:
    script = "import sys; from nextvec.compress.vectors import fit, names, find; [find(n) for n in names()]"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; print('torch' in sys.modules, 'faiss' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]


def test_adding_a_codec_is_adding_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.compress.vectors import _spec

    folder = tmp_path / "dropped_codecs"
    folder.mkdir()
    (folder / "__init__.py").touch()
    source = (Path(codecs.__file__).parent / "float16.py").read_text()
    (folder / "half.py").write_text(source)
    (folder / "nothing.py").write_text("from nextvec.compress.vectors._part import Coder\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(_spec, "PACKAGE", "dropped_codecs")
    assert codecs.names() == ["half", "nothing"]
    assert fit("half", data()).spec == "half"
    with pytest.raises(codecs._spec.InputError, match="holds 0 codecs"):  # type: ignore[attr-defined]
        codecs.find("nothing")
