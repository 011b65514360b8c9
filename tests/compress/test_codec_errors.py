"""What cannot be used is refused with one clear error of ours."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nextvec.compress.vectors import _spec, fit, load, parse
from nextvec.compress.vectors._folder import header_check
from nextvec.types import InputError, NextvecError, NotFoundError, StorageError

SPECS = ["float32", "float16", "bf16", "int8", "int8:vector", "binary", "pq2", "pq2:opq", "pca4", "truncate4", "rotate"]


def normal(rows: int = 300, dim: int = 8) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)


def at(row: int, value: Any, rows: int = 300) -> NDArray[np.float32]:
    vectors = normal(rows)
    vectors[row] = value
    return vectors


@pytest.mark.parametrize("spec", SPECS)
def test_vectors_and_codes(spec: str) -> None:
    codec = fit(spec, normal())
    codes = codec.encode(normal())
    for vectors, message in (
        (at(7, np.nan), "vector 7 holds NaN or an infinite number"),
        (at(8, np.inf), "vector 8 holds NaN or an infinite number"),
        (at(9, -np.inf), "vector 9 holds NaN or an infinite number"),
        (at(11, 0), "vector 11 is all zeros and has no direction"),
        (at(9000, np.nan, rows=9001), "vector 9000 holds NaN"),  # rows are counted across blocks
        (normal(3, 7), r"shape \[3, 7\]: expected \[n, 8\]"),
        (normal()[0], r"shape \[8\]: expected \[n, 8\]; one alone: x\[None\]"),
        ([], r"shape \[0\]: expected \[n, 8\]"),
        ([[1.0], [1.0, 2.0]], "do not form one array"),
        ([["a"] * 8], "expected numbers"),
        (np.full((2, 8), 1e300), "vector 0 holds NaN or an infinite"),
    ):
        for act in (codec.encode, lambda v: fit(spec, v), lambda v: codec.score(v, codes)):
            if act is not codec.encode and "expected [n, 8]" in message.replace("\\", ""):
                continue  # a sample may have any width
            with pytest.raises(InputError, match=message):
                act(vectors)
    with pytest.raises(InputError, match="query vector 2 is all zeros"):
        codec.score(at(2, 0), codes)
    with pytest.raises(InputError, match=r"query vectors have shape \[4, 3\]"):
        codec.score(normal(4, 3), codes)
    for wrong in (codes[:, :-1], np.concatenate([codes, codes], axis=1), codes[0], codes.astype(np.int64), [[1.0]]):
        for use in (codec.decode, lambda c: codec.score(normal(2), c)):
            with pytest.raises(InputError, match="were they made by another codec"):
                use(wrong)


@pytest.mark.parametrize("spec", SPECS)
def test_dot_takes_zero_vectors_and_refuses_lengths_out_of_range(spec: str) -> None:
    codec = fit(spec, normal(), metric="dot")
    assert np.isfinite(codec.decode(codec.encode(at(3, 0)))).all()
    for length in (1e16, 1e-20):
        with pytest.raises(InputError, match=r"vector 4 has length .*: expected 0 or 1e-15 to 1e15, rescale it"):
            codec.encode(at(4, [length, *[0] * 7]))


@pytest.mark.parametrize(
    ("spec", "sample", "message"),
    [
        ("int8", normal(1), "at least 2 training vectors, got 1"),
        ("binary", normal(1), "at least 2 training vectors, got 1"),
        ("pq2", normal(255), "learns 256 centroids for each part .* got 255"),
        ("pca4", normal(4), "needs more than 4 training vectors, got 4"),
        ("pca4,pq2", normal(100), "learns 256 centroids"),
        ("int8", normal(0), "there are no training vectors"),
        ("pq3", normal(), "cannot cut 8 values into 3 equal parts: use pq1, pq2, pq4, or put 'pca6,' before it"),
        ("pq16", normal(), "cannot cut 8 values into 16 equal parts: use pq2, pq4, pq8"),
        ("pca9", normal(), "'pca9' keeps more dimensions than the 8"),
        ("truncate9", normal(), "'truncate9' keeps more values than the 8"),
        ("truncate4,pca6", normal(), "'pca6' keeps more dimensions than the 4"),
        ("truncate4", at(5, [0, 0, 0, 0, 1, 1, 1, 1]), "vector 5 has nothing but zeros in its first 4 values"),
    ],
)
def test_samples(spec: str, sample: NDArray[np.float32], message: str) -> None:
    with pytest.raises(InputError, match=message):
        codec = fit(spec, sample)
        codec.encode(sample)  # truncate learns nothing and first looks here


def test_one_vector_is_enough_where_nothing_is_learnt() -> None:
    for spec in ("float32", "float16", "bf16", "int8:vector", "truncate4", "rotate"):
        assert fit(spec, normal(1)).encode(normal(1)).shape[0] == 1


def test_float16_names_what_it_cannot_hold() -> None:
    vectors = at(6, [70_000, *[0] * 7])
    with pytest.raises(InputError, match="vector 6 holds a value of 70000: float16 ends at 65504"):
        fit("float16", vectors, metric="dot").encode(vectors)


def test_seed() -> None:
    for seed in (-1, 1.5, None, True):
        with pytest.raises(InputError, match=r"seed is .*: expected a whole number of at least 0"):
            fit("rotate", normal(), seed=seed)  # type: ignore[arg-type]


def test_metric() -> None:
    with pytest.raises(InputError, match="metric is 'cosin': expected 'cosine' or 'dot'; did you mean 'cosine'"):
        fit("int8", normal(), metric="cosin")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("int4", NotFoundError, "no codec 'int4'.*did you mean 'int8'"),
        ("pac128,int8", NotFoundError, "no codec 'pac128'.*did you mean 'pca'"),
        ("truncat64", NotFoundError, "did you mean 'truncate'"),
        ("xyz", NotFoundError, "no codec 'xyz'.*there are bf16, binary"),
        ("pca", InputError, "'pca' needs a number"),
        ("pq,", InputError, "'pq' needs a number"),
        ("int816", InputError, "'int8' takes no number"),
        ("pca0", InputError, "the number of 'pca0' .* is 0: expected at least 1"),
        ("pca-3", NotFoundError, "no codec 'pca-3'"),
        ("pca1.5", NotFoundError, "no codec 'pca1.5'"),
        ("int8,int8", InputError, "'int8' makes the codes: expected it last, and once"),
        ("binary,rotate", InputError, "'binary' makes the codes: expected it last"),
        ("pq8:opk", InputError, "'pq' has no option 'opk' .known: opq.; did you mean 'opq'"),
        ("int8:", InputError, "'int8' has no option ''"),
        ("pq8:opq:opq", InputError, "comes twice"),
        ("", InputError, "the spec has 0 characters"),
        ("rotate," * 100, InputError, "characters: expected 1 to 200"),
        ("rotate,,int8", NotFoundError, "no codec ''"),
        (None, InputError, "the spec is a NoneType: expected a text"),
        ("pca99999999", NotFoundError, "no codec"),
        ("_part", NotFoundError, "no codec '_part'"),
        ("../pca4", NotFoundError, "no codec '../pca4'"),
    ],
)
def test_specs(spec: Any, kind: type[NextvecError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        parse(spec)
    assert "\n" not in str(caught.value)


def test_specs_that_are_right() -> None:
    assert [str(stage) for stage in parse(" pca64 , pq8:opq ")] == ["pca64", "pq8:opq"]
    assert [str(stage) for stage in parse("truncate64")] == ["truncate64", "float32"]
    assert parse("float16")[0].number is None


def header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header, checksum and all."""
    document = json.loads((folder / "codec.json").read_text())
    change(document)
    document.pop("check")
    (folder / "codec.json").write_text(json.dumps({**document, "check": header_check(document)}))


def replace(folder: Path, array: Any, *, pickle: bool = False) -> None:
    """Put another array in place of the first, checksum and all."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickle)
    raw(folder, buffer.getvalue())


def raw(folder: Path, content: bytes) -> None:
    (folder / entry_of(json.loads((folder / "codec.json").read_text()))["file"]).write_bytes(content)
    header(folder, lambda d: entry_of(d).update(sha256=hashlib.sha256(content).hexdigest()))


def first(folder: Path) -> Path:
    return min(folder.glob("*.npy"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def entry_of(document: dict[str, Any]) -> dict[str, Any]:
    return next(iter(document["arrays"].values()))  # type: ignore[no-any-return]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "an array is missing": lambda f: first(f).unlink(),
    "an array is cut": lambda f: first(f).write_bytes(first(f).read_bytes()[:-5]),
    "a bit is flipped": lambda f: flip(first(f)),
    "an array is empty": lambda f: first(f).write_bytes(b""),
    "an array is huge": lambda f: first(f).write_bytes(b"x" * 10_000_000),
    "NaN": lambda f: replace(f, np.full(8, np.nan, np.float32)),
    "another shape": lambda f: replace(f, np.zeros(9, np.float32)),
    "another type": lambda f: replace(f, np.zeros(8, np.float64)),
    "a pickle": lambda f: replace(f, np.array([{"a": 1}] * 8, object), pickle=True),
    "no array at all": lambda f: raw(f, b"hello"),
    "a shape that would take all memory": lambda f: raw(
        f, b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(128)
    ),
    "the header is cut": lambda f: (f / "codec.json").write_text('{"format": 1, '),
    "the header is a list": lambda f: (f / "codec.json").write_text("[]"),
    "the header is deep": lambda f: (f / "codec.json").write_text("[" * 30_000),
    "the header is no text": lambda f: (f / "codec.json").write_bytes(b"\xff\xfe\x00"),
    "the header is huge": lambda f: (f / "codec.json").write_text(" " * 100_000),
    "another format": lambda f: header(f, lambda d: d.update(format=2)),
    "no dim": lambda f: header(f, lambda d: d.pop("dim")),
    "dim is a bool": lambda f: header(f, lambda d: d.update(dim=True)),
    "dim is huge": lambda f: header(f, lambda d: d.update(dim=10**12)),
    "dim is another": lambda f: header(f, lambda d: d.update(dim=9)),
    "an unknown codec": lambda f: header(f, lambda d: d.update(spec="int4")),
    "another codec": lambda f: header(f, lambda d: d.update(spec="float16")),
    "no spec": lambda f: header(f, lambda d: d.update(spec=None)),
    "an unknown metric": lambda f: header(f, lambda d: d.update(metric=["cosine"])),
    "no arrays": lambda f: header(f, lambda d: d.update(arrays=[{}])),
    "an array is not named": lambda f: header(f, lambda d: d["arrays"].popitem()),
    "one array too many": lambda f: header(f, lambda d: d["arrays"].update(x={})),
    "a path that leaves": lambda f: header(f, lambda d: entry_of(d).update(file="../0-int8-centre-000000000000.npy")),
    "an entry that is none": lambda f: header(f, lambda d: d["arrays"].update({next(iter(d["arrays"])): 3})),
    "no checksum": lambda f: header(f, lambda d: entry_of(d).pop("sha256")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_folder_that_is_not_what_was_written(damage: str, tmp_path: Path) -> None:
    fit("int8", normal()).save(tmp_path)
    load(tmp_path)
    DAMAGE[damage](tmp_path)
    with pytest.raises(StorageError, match="the codec in") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_link_that_leaves_the_folder(tmp_path: Path) -> None:
    folder = fit("int8", normal()).save(tmp_path / "codec")
    moved = tmp_path / "elsewhere.npy"
    path = first(folder)
    path.rename(moved)
    path.symlink_to(moved)
    with pytest.raises(StorageError, match="leaves the folder"):
        load(folder)


@pytest.mark.parametrize("spec", ["float16", "truncate4,int8"])
def test_any_byte_that_changes_is_noticed(spec: str, tmp_path: Path) -> None:
    fit(spec, normal()).save(tmp_path)
    rng = np.random.default_rng(0)
    for path in [tmp_path / "codec.json", *tmp_path.glob("*.npy")]:
        good = path.read_bytes()
        for place in rng.choice(len(good), min(len(good), 60), replace=False):
            bad = bytearray(good)
            bad[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(bad))
            try:
                load(tmp_path)
            except NextvecError as error:
                assert "\n" not in str(error)
            else:  # only white space between the values may differ
                assert path.suffix == ".json" and json.loads(bytes(bad)) == json.loads(good)
        path.write_bytes(good)
    load(tmp_path)


def test_a_codec_that_is_replaced_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit("int8", normal()).save(tmp_path)
    read, turns = _spec.read_array, []

    def replaced_first(folder: Path, *rest: Any) -> Any:
        if not turns:
            turns.append(fit("pca4,int8", normal()).save(folder))
        return read(folder, *rest)

    monkeypatch.setattr(_spec, "read_array", replaced_first)
    assert load(tmp_path).spec == "pca4,int8"


def test_writers_take_turns(tmp_path: Path) -> None:
    specs = ["int8", "binary", "pca4,int8", "rotate"] * 5
    made = [fit(spec, normal()) for spec in specs]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda codec: codec.save(tmp_path), made))
    assert load(tmp_path).dim == 8
    assert len(list(tmp_path.glob("*.npy"))) == len([a for part in load(tmp_path).parts for a in part.arrays])


def test_no_codec_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(NotFoundError, match=r"no codec in .*codec\.json"):
            load(folder)


def test_a_folder_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot use"):
        fit("int8", normal()).save(tmp_path / "file")


def test_saving_over_a_codec_replaces_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "mine.npy").touch()
    fit("pca4,int8", normal()).save(tmp_path)
    codec = fit("binary", normal())
    codec.save(tmp_path)
    assert load(tmp_path).spec == "binary"
    names = sorted(path.name.rpartition("-")[0] or path.name for path in tmp_path.iterdir())
    assert [name for name in names if name != "codec.lock"] == [
        "0-binary-centre",
        "0-binary-scale",
        "codec.json",
        "mine.npy",
    ]


def test_a_save_that_fails_leaves_the_codec_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextvec.compress.vectors import _folder

    fit("int8", normal()).save(tmp_path)
    written = 0
    whole = _folder.atomic_write

    def fails_late(path: Path, mode: str = "wb") -> Any:
        nonlocal written
        written += 1
        if written == 3:  # two arrays are there, the header is not
            raise StorageError("the disk is full")
        return whole(path, mode)

    monkeypatch.setattr(_folder, "atomic_write", fails_late)
    with pytest.raises(StorageError, match="full"):
        fit("binary", normal()).save(tmp_path)
    assert load(tmp_path).spec == "int8"
