"""``check_collection`` finds every kind of damage that has a checksum, and repairs what has a second copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nextvec.cli.collection import app
from nextvec.search.checkup import check_collection
from nextvec.search.collection import Collection
from nextvec.types import StorageError

DIM, ROWS = 12, 5_000


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ROWS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Collection.create(tmp_path / "c", dim=DIM, schema={"year": "int"}) as collection:
        collection.add([str(i) for i in range(ROWS)], vectors, {"year": list(range(ROWS))})
        collection.delete(["17"])
        collection.search(vectors[0])
    return tmp_path / "c", vectors


def flip(path: Path, needle: bytes) -> None:
    data = bytearray(path.read_bytes())
    at = data.find(needle)
    assert at >= 0
    data[at + 2] ^= 0x10
    path.write_bytes(data)


def exit_code(*words: object) -> int:
    return CliRunner().invoke(app, [str(word) for word in words]).exit_code


def test_a_sound_collection(made: tuple[Path, np.ndarray]) -> None:
    path, _ = made
    steps: list[tuple[str, int, int]] = []
    assert check_collection(path, progress=lambda *step: steps.append(step)) == []
    assert {"exact index", "vectors"} <= {step[0] for step in steps}
    assert exit_code("check", path) == 0


@pytest.mark.parametrize("part", ["rows", "codes"])
def test_a_derived_row_that_changed(made: tuple[Path, np.ndarray], part: str) -> None:
    path, vectors = made
    (file,) = (path / "derived").glob(f"exact-*.{part}")
    data = bytearray(file.read_bytes())
    data[777] ^= 1
    file.write_bytes(data)
    (found,) = check_collection(path)
    assert found.part == "exact index" and "1 of 4999 rows" in found.problem and not found.repaired
    assert exit_code("check", path) == 1
    assert exit_code("check", path, "--repair") == 0
    assert check_collection(path) == []
    with Collection.open(path) as collection:
        assert collection.search(vectors[5], 1).ids == ["5"]


def test_stats_that_were_cut(made: tuple[Path, np.ndarray]) -> None:
    path, _ = made
    (file,) = (path / "derived").glob("exact-*.stats")
    file.write_bytes(file.read_bytes()[:-8])
    (found,) = check_collection(path, repair=True)
    assert found.part == "exact index" and found.repaired
    assert check_collection(path) == []


def test_a_vector_of_the_table_that_changed_is_restored_from_its_copy(made: tuple[Path, np.ndarray]) -> None:
    path, vectors = made
    (file,) = (path / "data.lance" / "data").glob("*.lance")
    flip(file, vectors[33].tobytes())
    (found,) = check_collection(path)
    assert found.part == "table" and "1 rows" in found.problem and "'33'" in found.problem
    assert "restores" in found.remedy
    (found,) = check_collection(path, repair=True)
    assert found.repaired
    assert check_collection(path) == []
    with Collection.open(path) as collection:
        row = collection.get(["33"], vectors=True)[0]
        assert row is not None and row["year"] == 33 and np.array_equal(row["vector"], vectors[33])
        assert len(collection) == ROWS - 1


def test_without_a_copy_the_vector_is_named_and_left(made: tuple[Path, np.ndarray]) -> None:
    path, vectors = made
    (file,) = (path / "data.lance" / "data").glob("*.lance")
    flip(file, vectors[33].tobytes())
    (rows,) = (path / "derived").glob("exact-*.rows")
    flip(rows, vectors[33].tobytes())
    found = {one.part: one for one in check_collection(path, repair=True)}
    assert not found["table"].repaired and "add those rows again" in found["table"].remedy
    assert found["exact index"].repaired


def test_a_table_that_cannot_be_read(made: tuple[Path, np.ndarray]) -> None:
    path, _ = made
    (file,) = (path / "data.lance" / "data").glob("*.lance")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    try:
        found = check_collection(path)
    except StorageError:
        return
    assert found and all(one.part == "table" and "copy" in one.remedy for one in found)


def test_an_approximate_index_that_changed(made: tuple[Path, np.ndarray]) -> None:
    pytest.importorskip("faiss", reason="the extra 'ann' (faiss) is not installed")
    path, vectors = made
    with Collection.open(path) as collection:
        collection.index(graph=False)
    assert check_collection(path) == []
    (file,) = (path / "derived").glob("approximate-*.codes.npy")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    (found,) = check_collection(path, repair=True)
    assert found.part == "approximate index" and found.repaired
    assert check_collection(path) == []
    with Collection.open(path) as collection:
        assert collection.info()["index"] is None
        assert collection.search(vectors[5], 1, recall=0.9).ids == ["5"]
