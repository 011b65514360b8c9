"""Derived files of search by words: damaged, cut off, mostly dead, on a full disk, of old versions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nextvec.search import text_index
from nextvec.search.collection import Collection
from nextvec.types import Hits

TITLES = ["Sparse attention", "Dense attention models", None, "Sparse coding", "The of and", "sparse SPARSE sparse"]


def vectors(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32)


@pytest.fixture
def small(tmp_path: Path) -> Collection:
    collection = Collection.create(tmp_path / "c", dim=4, schema={"title": "string"})
    collection.add([f"p{i}" for i in range(len(TITLES))], vectors(len(TITLES)), {"title": TITLES})
    return collection


def scored(hits: Hits) -> list[tuple[str, float]]:
    return list(zip(hits.ids, hits.scores.tolist(), strict=True))


@pytest.mark.parametrize("damage", ["header", "path", "gone", "short", "bits", "rules"])
def test_damaged_postings_are_made_again(small: Collection, damage: str) -> None:
    small.index_text(["title"])
    (header,) = small.path.glob("derived/text-*.json")
    (file,) = small.path.glob("derived/text-*.postings")
    expected = scored(small.search(text="sparse", text_columns=["title"]))
    document = json.loads(header.read_text())
    if damage == "header":
        header.write_text(header.read_text()[:-5])
    elif damage == "path":
        document["segments"][0]["name"] = "../collection.json"
        header.write_text(json.dumps(document))
    elif damage == "rules":
        header.write_text(json.dumps({**document, "rules": 0}))
    elif damage == "gone":
        file.unlink()
    else:
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw if damage == "bits" else raw[:-3])
    for _ in range(2):  # made again, then found whole
        assert scored(Collection.open(small.path).search(text="sparse", text_columns=["title"])) == expected
        (again,) = small.path.glob("derived/text-*.postings")
        assert again.name != file.name
    assert (small.path / "collection.json").is_file()


def test_a_writer_of_postings_that_was_cut_off_leaves_nothing(
    small: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.index_text(["title"])
    kept = {path.name for path in small.path.glob("derived/text-*.postings")}
    small.add(["new"], vectors(1), {"title": ["sparse zebra"]})

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(text_index, "atomic_write", cut)
        with pytest.raises(KeyboardInterrupt):
            small.search(text="zebra", text_columns=["title"])
    assert {path.name for path in small.path.glob("derived/text-*.postings")} == kept
    assert small.search(text="zebra", text_columns=["title"]).ids == ["new"]


def test_postings_of_old_versions_and_full_disks_are_kept_in_memory(
    small: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = Collection.open(small.path, version=small.version)
    small.upsert(["p0"], vectors(1), {"title": ["zebra"]})
    assert pinned.search(text="sparse", text_columns=["title"]).ids == ["p5", "p0", "p3"]
    assert list(small.path.glob("derived/text-*")) == []
    small.index_text(["title"])
    again = Collection.open(small.path, version=pinned.version)
    assert again.search(text="sparse", text_columns=["title"]).ids == ["p5", "p0", "p3"]

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(text_index, "atomic_write", full)
    small.add(["new"], vectors(1), {"title": ["yak"]})
    assert small.search(text="yak zebra", text_columns=["title"]).ids == ["p0", "new"]


def test_mostly_dead_postings_are_made_anew(small: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_index, "_GARBAGE_ROWS", 2)
    small.index_text(["title"])
    (before,) = small.path.glob("derived/text-*.postings")
    size = before.stat().st_size
    small.delete(["p1", "p2", "p3", "p4"])
    assert small.search(text="sparse", text_columns=["title"]).ids == ["p5", "p0"]
    (after,) = small.path.glob("derived/text-*.postings")
    assert after.name != before.name and after.stat().st_size < size
