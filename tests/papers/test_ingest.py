from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import HashEncoder

from nextvec.papers import ingest as module
from nextvec.papers.db import Filters
from nextvec.papers.ingest import is_ready, read_file, read_source
from nextvec.papers.records import Paper
from nextvec.papers.search import search
from nextvec.papers.site import Site
from nextvec.papers.word_index import LexicalIndex
from nextvec.types import ConflictError, InputError, NotFoundError, StorageError

pytestmark = pytest.mark.both

ingest = partial(module.ingest, understand=False)  # what is worked out about the papers has tests of its own


def make(count: int, *, first: int = 0) -> list[Paper]:
    return [
        Paper(id=f"p{i:04d}", title=f"Title number{i} about topic{i % 7}", summary=f"Text word{i}.", upvotes=i)
        for i in range(first, first + count)
    ]


def open_site(home: Path, *, state: str = "1") -> tuple[Site, HashEncoder]:
    encoder = HashEncoder(state=state)
    return Site(home, encoder=encoder), encoder


def check_whole(site: Site, papers: list[Paper]) -> None:
    """Database, vectors and words hold exactly these papers, in the same state."""
    assert is_ready(site)
    assert {paper.id for paper in papers} == site.db.ids(module_filters()) == set(site.collection.ids())
    assert set(LexicalIndex.load(site.words_path).ids) == {paper.id for paper in papers}
    rows = site.collection.get([paper.id for paper in papers], vectors=True)
    expected = HashEncoder(state=site.encoder.fingerprint()).encode_query([paper.document() for paper in papers])
    assert np.allclose([row["vector"] for row in rows if row], expected, atol=1e-6)
    assert [row["upvotes"] for row in rows if row] == [paper.upvotes for paper in papers]


def module_filters() -> Filters:
    return Filters()


def test_twice_is_once(tmp_path: Path) -> None:
    site, encoder = open_site(tmp_path)
    papers = make(30)
    first = ingest(site, papers)
    assert (first.read, first.changed, first.embedded, first.papers) == (30, 30, 30, 30)
    second = ingest(site, papers)
    assert (second.changed, second.embedded, second.papers) == (0, 0, 30) and encoder.embedded == 30
    check_whole(site, papers)


def test_only_new_text_is_embedded(tmp_path: Path) -> None:
    site, encoder = open_site(tmp_path)
    papers = make(10)
    ingest(site, papers)
    changed = [replace(papers[0], upvotes=999), replace(papers[1], summary="another abstract"), *make(2, first=10)]
    report = ingest(site, changed)
    assert (report.changed, report.embedded, encoder.embedded) == (4, 3, 13)
    check_whole(site, [*changed, *papers[2:]])
    assert search(site, "another abstract").matches[0].stored.paper.id == "p0001"


class Killed(BaseException):
    """Like the end of a process: nothing of the program catches it."""


STEPS: dict[str, Callable[[pytest.MonkeyPatch, Site], None]] = {
    "before the vectors": lambda patch, site: patch.setattr(
        type(site.collection), "upsert", lambda *_: (_ for _ in ()).throw(Killed())
    ),
    "between vectors and note": lambda patch, site: patch.setattr(
        type(site.db), "note_indexed", lambda *_: (_ for _ in ()).throw(Killed())
    ),
    "before the words": lambda patch, site: patch.setattr(
        LexicalIndex, "save", lambda *_: (_ for _ in ()).throw(Killed())
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_killed_in_the_middle_then_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    site, _ = open_site(tmp_path)
    papers = make(25)
    ingest(site, papers[:5])
    monkeypatch.setattr(module, "BATCH", 10)
    STEPS[step](monkeypatch, site)
    changed = [replace(papers[0], summary="changed"), *papers[1:]]
    with pytest.raises(Killed):
        ingest(site, changed)
    assert not is_ready(site)
    seen = site.db.select(module_filters(), limit=99)
    assert len(seen) == (25 if step == "before the words" else 5), "a batch is there whole or not at all"
    assert all(stored.mark for stored in seen), "no paper is there without its vector"
    site.close()
    monkeypatch.undo()
    again, encoder = open_site(tmp_path)
    ingest(again, changed)
    check_whole(again, changed)
    assert encoder.embedded == (0 if step == "before the words" else 22), "what was noted is not embedded again"


def test_interrupted_by_the_user_while_storing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 10)
    site, _ = open_site(tmp_path)

    def stop(done: int, total: int | None) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(site, make(50), stage=lambda name: stop)
    assert site.db.count() == 20, "whole batches are kept"
    report = ingest(site, make(50))
    assert report.changed == 30 and report.papers == 50
    check_whole(site, make(50))


@pytest.mark.parametrize("lost", ["vectors", "words", pytest.param("papers.sqlite", marks=pytest.mark.sqlite)])
def test_what_is_lost_is_made_again(tmp_path: Path, lost: str) -> None:
    site, _ = open_site(tmp_path)
    ingest(site, make(12))
    site.close()
    target = tmp_path / lost
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    for extra in tmp_path.glob("papers.sqlite-*"):
        extra.unlink()
    again, _ = open_site(tmp_path)
    papers = make(8) if lost == "papers.sqlite" else make(12)
    ingest(again, papers)
    check_whole(again, papers)


@pytest.mark.parametrize("name", ["collection.json", "index.json"])
def test_what_is_damaged_is_made_again(tmp_path: Path, name: str) -> None:
    site, _ = open_site(tmp_path)
    ingest(site, make(12))
    site.close()
    next(tmp_path.rglob(name)).write_bytes(b"\x00garbage")
    again, _ = open_site(tmp_path)
    assert not is_ready(again)
    ingest(again, [])
    check_whole(again, make(12))


def test_another_encoder_embeds_everything_anew(tmp_path: Path) -> None:
    site, _ = open_site(tmp_path)
    ingest(site, make(12))
    site.close()
    other, encoder = open_site(tmp_path, state="2")
    assert other.usable_collection() is None
    assert ingest(other, []).embedded == 12 == encoder.embedded
    check_whole(other, make(12))


def test_papers_without_a_known_token_are_found_by_nothing_but_kept(tmp_path: Path) -> None:
    site, _ = open_site(tmp_path)
    empty = Paper(id="empty", title="???", summary="!!!")
    ingest(site, [*make(3), empty])
    assert is_ready(site) and site.similar("empty") == [] and site.collection.count() == 3
    ingest(site, [replace(empty, title="now it has words")])
    assert is_ready(site) and site.collection.count() == 4
    ingest(site, [empty])
    assert is_ready(site) and site.collection.count() == 3


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    site, _ = open_site(tmp_path)
    other, _ = open_site(tmp_path)
    with site.writing(), pytest.raises(ConflictError, match="another process is writing"):
        ingest(other, make(1))
    ingest(other, make(1))


def test_a_full_disk_while_saving_words_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, _ = open_site(tmp_path)
    ingest(site, make(4))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="the disk is full"):
        ingest(site, make(6))
    monkeypatch.undo()
    ingest(site, make(6))
    check_whole(site, make(6))


# -- files ---------------------------------------------------------------------------------------------------------
ROWS = [
    {"id": "2501.00001", "title": "First", "summary": "One, two.", "upvotes": 3, "authors": ["A", "B"]},
    {"id": "2501.00002", "title": "Second", "summary": "Three.", "upvotes": 0, "authors": []},
]


def test_jsonl_csv_and_parquet_give_the_same_papers(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "p.csv").write_text(
        'id,title,summary,upvotes,authors\n2501.00001,First,"One, two.",3,A;B\n2501.00002,Second,Three.,0,\n'
    )
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "p.parquet")
    found = [read_file(tmp_path / name) for name in ("p.jsonl", "p.csv", "p.parquet")]
    assert found[0] == found[1] == found[2] and found[0][0].authors == ("A", "B")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (json.dumps({**ROWS[0], "upvotes": "many"}), "p.jsonl:2: field 'upvotes' is 'many'"),
        (json.dumps(ROWS[0]), r"p.jsonl:2: field 'id' is '2501.00001' again \(first at p.jsonl:1\)"),
        (json.dumps({"id": "x", "summary": "s"}), "p.jsonl.*title"),
        ("{broken", "p.jsonl"),
        ("[1]", "p.jsonl"),
    ],
)
def test_a_bad_line_is_found_before_anything_is_written(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + line + "\n")
    with pytest.raises(InputError, match=message):
        read_file(tmp_path / "p.jsonl")


def test_missing_or_unknown_sources(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_file(tmp_path / "none.jsonl")
    (tmp_path / "x.bin").write_bytes(b"\x00")
    with pytest.raises(InputError, match=r"x\.bin"):
        read_file(tmp_path / "x.bin")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "a", "title": "\xe9", "summary": "s"}\n')
    with pytest.raises(InputError, match=r"latin\.jsonl"):
        read_file(tmp_path / "latin.jsonl")
    with pytest.raises(InputError, match="source 'x' is not known; known: daily_papers"):
        read_source("x")


def test_a_home_without_papers_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nextvec papers ingest"):
        Site(tmp_path / "nothing", must_exist=True)


def test_a_site_with_a_damaged_word_index_searches_on(tmp_path: Path) -> None:
    site, _ = open_site(tmp_path)
    ingest(site, make(12))
    site.close()
    for path in (tmp_path / "words").rglob("*.postings"):
        path.write_bytes(b"not what was written")
    again, _ = open_site(tmp_path)
    assert search(again, "topic3").matches[0].terms == ["topic3"]
    assert not is_ready(again), "the next ingest writes it anew"
