"""Search by words, by both, in groups, ranges and pages: what it returns, and what it says about bad input."""

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import references

from nextvec.search import answer, fusion, postings, store
from nextvec.search.collection import Collection
from nextvec.search.paging import Cursor
from nextvec.search.postings import Bm25, segments
from nextvec.search.ranking import Listed
from nextvec.types import Hits, InputError, NotFoundError

SCHEMA = {"title": "string", "body": "string", "venue": "string", "year": "int", "tags": "list[string]", "x": "float"}
TITLES = ["Sparse attention", "Dense attention models", None, "Sparse coding", "The of and", "sparse SPARSE sparse"]


def vectors(n: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


@pytest.fixture
def small(tmp_path: Path) -> Collection:
    collection = Collection.create(tmp_path / "c", dim=4, schema=SCHEMA)
    rows = [
        {"title": title, "body": "attention is all you need" if i % 2 else None, "year": 2020 + i % 3}
        | {"venue": [None, "ACL", "NAACL"][i % 3], "x": [0.0, -0.0, 1.5][i % 3]}
        for i, title in enumerate(TITLES)
    ]
    collection.add([f"p{i}" for i in range(len(TITLES))], vectors(len(TITLES)), rows)
    return collection


def scored(hits: Hits) -> list[tuple[str, float]]:
    return list(zip(hits.ids, hits.scores.tolist(), strict=True))


def test_words_alone(small: Collection) -> None:
    expected = references.bm25({f"p{i}": title for i, title in enumerate(TITLES)}, "sparse")
    hits = small.search(text="sparse", text_columns=["title"], columns=["title"], explain=True)
    assert hits.ids == ["p5", "p0", "p3"]
    assert hits.scores.tolist() == pytest.approx([expected[name] for name in hits.ids])
    assert hits.attributes[0] == {"title": "sparse SPARSE sparse"}
    assert hits.explain is not None and (hits.explain["plan"], hits.explain["matches"]) == ("bm25", 6)
    assert hits.cursor is None
    assert small.search(text="SPARSE  sparse's", text_columns=["title"]).ids == hits.ids
    assert small.search(text="sparse", text_columns=["title"], where="year = 2020").ids == ["p0", "p3"]
    for nothing in ("", "the of", "zebra", "§§"):
        assert small.search(text=nothing, text_columns=["title"]).ids == []
    two = small.search(text=["sparse", "need"], text_columns=["title", "body"], k=2)
    assert [one.ids for one in two] == [["p5", "p0"], ["p1", "p3"]]
    heavy = small.search(text="sparse attention", text_columns={"title": 1, "body": 100})
    assert set(heavy.ids[:3]) == {"p1", "p3", "p5"} and heavy.ids[3:] == ["p0"]


def test_bm25_is_that_of_bm25s() -> None:
    bm25s = pytest.importorskip("bm25s")
    rng = np.random.default_rng(3)
    words = np.array([f"w{i}x" for i in range(60)])
    texts = [" ".join(rng.choice(words, rng.integers(1, 40))) for _ in range(300)]
    peer = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    peer.index([text.split() for text in texts], show_progress=False)
    ours = Bm25(list(segments(enumerate(texts))), [np.arange(300)])
    for query in (["w1x"], ["w3x", "w40x", "w59x"], list(words)):
        total = np.zeros(300)
        ours.add_scores(query, 1.0, total)
        assert total == pytest.approx(peer.get_scores(query), rel=1e-4, abs=1e-5)


def test_scores_do_not_depend_on_how_rows_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one write or in many, with replaced and deleted rows between them, in segments of any size."""
    texts = [f"{'common ' * (i % 4)}word{i % 7} word{i % 3}" for i in range(60)]
    ids = [f"r{i}" for i in range(60)]
    once = Collection.create(tmp_path / "once", dim=4, schema={"t": "string"})
    once.add(ids, vectors(60), {"t": texts})
    monkeypatch.setattr(postings, "SEGMENT_ROWS", 16)
    often = Collection.create(tmp_path / "often", dim=4, schema={"t": "string"})
    query: dict[str, Any] = {"text": "common word2", "text_columns": ["t"], "k": 60}
    sizes = []
    for start in range(0, 60, 3):
        part = slice(start, start + 3)
        often.add(["gone", f"old{start}"], vectors(2), {"t": ["common word2 word2", "word2"]})
        often.upsert(ids[part], vectors(3), {"t": ["replaced common"] * 3})
        often.search(**query)
        often.upsert(ids[part], vectors(60)[part], {"t": texts[part]})
        often.delete(["gone", f"old{start}"])
        assert len(often.search(**query)) > 0
        sizes.append(len(list((tmp_path / "often" / "derived").glob("text-*.postings"))))
    assert scored(often.search(**query)) == scored(once.search(**query))
    assert scored(Collection.open(tmp_path / "often").search(**query)) == scored(once.search(**query))
    assert max(sizes) <= 16  # rows read: 10 for each of 20 rounds, in pieces of 16 and a few smaller ones


def test_hybrid(small: Collection) -> None:
    query = vectors(1, seed=9)[0]
    plain = scored(small.search(query))
    words = scored(small.search(text="sparse attention", text_columns=["title"]))
    hits = small.search(query, text="sparse attention", text_columns=["title"], explain=True)
    expected = references.rrf([plain, words])
    assert sorted(hits.ids) == small.ids() and dict(scored(hits)) == pytest.approx(expected)
    assert hits.explain is not None and hits.explain["plan"] == "rrf of direct and bm25"
    for alpha in (0.0, 0.3, 1.0):
        asked: dict[str, Any] = {"text": "sparse attention", "text_columns": ["title"], "fusion": "weighted"}
        mixed = small.search(query, alpha=alpha, **asked)
        assert dict(scored(mixed)) == pytest.approx(references.weighted(plain, words, alpha), abs=1e-6)
    assert mixed.ids == [name for name, _ in plain]
    many = small.search([query, -query], text=["sparse", "need"], text_columns=["title", "body"], where="year < 2022")
    one = small.search(-query, text="need", text_columns=["title", "body"], where="year < 2022")
    assert scored(many[1]) == scored(one)


def test_fusion_does_not_depend_on_the_order_of_rows_or_sides() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        sides = []
        for _ in range(2):
            rows = rng.permutation(30)[: rng.integers(0, 20)]
            scores = np.sort(rng.integers(0, 6, len(rows)).astype(np.float32))[::-1]
            sides.append((rows, scores))
        rows, fused = fusion.rrf(sides)
        again = fusion.rrf(sides[::-1])
        assert rows.tolist() == again[0].tolist() and fused.tolist() == again[1].tolist()
        renamed = rng.permutation(30)
        other = fusion.rrf([(renamed[side], scores) for side, scores in sides])
        by_row = dict(zip(other[0].tolist(), other[1].tolist(), strict=True))
        assert [by_row[renamed[row]] for row in rows] == fused.tolist()


def test_groups(small: Collection) -> None:
    query = vectors(1, seed=9)[0]
    plain = scored(small.search(query))
    venue = {name: [None, "ACL", "NAACL"][int(name[1]) % 3] for name in small.ids()}
    for size in (1, 2, 5):
        hits = small.search(query, 2, group_by="venue", group_size=size)
        expected = references.grouped(plain, venue.__getitem__, size)[:2]
        assert scored(hits) == [item for group in expected for item in group]
        assert hits.groups == [venue[name] for name in hits.ids]
    assert small.search(query).groups == []
    assert len(small.search(query, group_by="x")) == 2  # -0.0 and 0.0 are one value
    assert small.search(query, group_by="year", where="year = 1").ids == []
    far = Collection.create(small.path.parent / "far", dim=4, schema={"g": "int"})
    rows = np.concatenate([np.tile(query, (3000, 1)), -query[None], vectors(1)])
    far.add([f"r{i}" for i in range(3002)], rows, {"g": [0] * 3000 + [1, None]})
    hits = far.search(query, 3, group_by="g", group_size=2)
    assert hits.ids == ["r0", "r1", "r3001", "r3000"] and hits.groups == [0, 0, None, 1]


def test_diversity(small: Collection) -> None:
    collection = Collection.create(small.path.parent / "twins", dim=2)
    collection.add(["a", "twin", "b"], [[1, 0.1], [1, 0.11], [1, -0.9]])
    assert collection.search([1, 0]).ids == ["a", "twin", "b"]
    assert collection.search([1, 0], diversity=0.0).ids == ["a", "twin", "b"]
    diverse = collection.search([1, 0], diversity=0.8, explain=True)
    assert diverse.ids == ["a", "b", "twin"]
    assert dict(scored(diverse)) == dict(scored(collection.search([1, 0])))  # scores stay what they were
    assert diverse.explain is not None and diverse.explain["plan"] == "direct, diversified"


def test_ranges(small: Collection) -> None:
    query = vectors(1, seed=9)[0]
    plain = scored(small.search(query))
    for place, (_, least) in enumerate(plain):
        assert scored(small.search(query, k=None, min_score=least)) == plain[: place + 1]
        assert scored(small.search(query, k=2, min_score=least)) == plain[: min(2, place + 1)]
    assert small.search(query, k=None, min_score=2).ids == []
    assert small.search(query, k=1, min_score=plain[0][1]).cursor is None
    both = small.search([query, -query], k=None, min_score=-1)
    assert [len(hits) for hits in both] == [6, 6]
    big = Collection.create(small.path.parent / "big", dim=4)
    big.add([f"r{i}" for i in range(5000)], vectors(5000))
    assert len(big.search(query, k=None, min_score=-1)) == 5000
    assert len(big.search(query, k=None, min_score=0.0)) == int((big.search(query, 5000).scores >= 0).sum())


def test_pages(small: Collection) -> None:
    query = vectors(1, seed=9)[0]
    first = small.search([query, -query], 4)
    second = small.search([query, -query], 4, cursor=[hits.cursor for hits in first if hits.cursor])
    for one, two, sign in zip(first, second, (1, -1), strict=True):
        assert scored(one) + scored(two) == scored(small.search(sign * query, 10))
        assert two.cursor is None
    # The page size and the attributes may change from page to page.
    rest = small.search(query, 1, cursor=first[0].cursor, columns=["year"])
    assert rest.ids == second[0].ids[:1] and rest.attributes[0]["year"] in (2020, 2021, 2022)
    assert rest.cursor is not None


def test_deep_pages_search_no_deeper_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = Collection.create(tmp_path / "c", dim=4)
    collection.add([f"r{i}" for i in range(2000)], vectors(2000))
    query = vectors(1, seed=2)[0]
    asked: list[int] = []
    found = Collection._found

    def counted(self: Collection, snapshot: Any, queries: Any, k: int, *others: Any, told: bool) -> Any:
        asked.append(k)
        return found(self, snapshot, queries, k, *others, told=told)

    monkeypatch.setattr(Collection, "_found", counted)
    hits = collection.search(query, 10)
    ids = list(hits.ids)
    while hits.cursor is not None:
        hits = collection.search(query, 10, cursor=hits.cursor)
        ids += hits.ids
    assert len(ids) == len(set(ids)) == 2000
    assert asked[:2] == [10, 20] and sum(asked) < 4 * 2000 and len(asked) < 12


def test_a_cursor_stays_with_its_version(small: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    query = vectors(1, seed=9)[0]
    asked: dict[str, Any] = {"text": "attention sparse need", "text_columns": ["title", "body"]}
    for how in ({"vector": query}, asked, {"vector": query, **asked}):
        whole = small.search(k=100, **how)
        page = small.search(k=2, **how)
        small.upsert(["p0", f"new{small.version}"], [query, query], {"title": ["sparse attention"] * 2})
        small.compact()
        for reader in (small, Collection.open(small.path)):
            rest = reader.search(k=100, cursor=page.cursor, explain=True, **how)
            assert scored(page) + scored(rest) == scored(whole)
            assert rest.explain is not None and rest.explain["version"] < small.version
    pinned = Collection.open(small.path, version=small.version)
    with pytest.raises(InputError, match=r"the cursor comes from version \d+, this handle is pinned"):
        pinned.search(**how, cursor=page.cursor)
    monkeypatch.setattr(store, "RETENTION", dt.timedelta(0))
    small.delete(["p1"])
    small.compact()
    for reader in (small, Collection.open(small.path)):
        with pytest.raises(NotFoundError, match=r"which is no longer kept .* search again without cursor") as caught:
            reader.search(**how, cursor=page.cursor, columns=["title"])
        assert "\n" not in str(caught.value)


def test_changed_cursors_are_refused(small: Collection) -> None:
    query = vectors(1, seed=9)[0]
    cursor = small.search(query, 2).cursor
    assert cursor is not None
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place in range(len(cursor)):
        for letter in (letters[(letters.index(cursor[place]) + 1) % 64], "=", "é", ""):
            with pytest.raises(InputError, match="not one that a search gave"):
                small.search(query, 2, cursor=cursor[:place] + letter + cursor[place + 1 :])
    for other in ({"where": "year > 0"}, {"min_score": -1}, {"diversity": 0.5}, {"group_by": "year"}):
        with pytest.raises(InputError, match="belongs to another search"):
            small.search(query, 2, cursor=cursor, **other)
    with pytest.raises(InputError, match="belongs to another search"):
        small.search(-query, 2, cursor=cursor)
    assert Cursor.read(cursor).text() == cursor
    anew = Collection.create(small.path.parent / "anew", dim=4, schema=SCHEMA)
    anew.add(["q0", "q1", "q2"], vectors(3))
    with pytest.raises(InputError, match="belongs to another search"):
        anew.search(query, 2, cursor=cursor)


T: dict[str, Any] = {"text": "a", "text_columns": ["title"]}
V = [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "nothing to search for"),
        ({"text": "a"}, "text and text_columns go together"),
        ({"vector": V, "text_columns": ["title"]}, "text and text_columns go together"),
        ({"text": "a", "text_columns": []}, "expected a list of string attributes"),
        ({"text": "a", "text_columns": "title"}, "expected a list of string attributes"),
        ({"text": "a", "text_columns": ["titel"]}, "did you mean 'title'?"),
        ({"text": "a", "text_columns": ["year"]}, "of type int: expected string attributes"),
        ({"text": "a", "text_columns": ["id"]}, "not an attribute"),
        ({"text": "a", "text_columns": {"title": 0}}, "the weight of 'title' is 0"),
        ({"text": "a", "text_columns": {"title": "x"}}, "the weight of 'title' is 'x'"),
        ({"text": 5, "text_columns": ["title"]}, "text is a int"),
        ({"text": [5], "text_columns": ["title"]}, "text holds 5"),
        ({"text": "\ud800", "text_columns": ["title"]}, "not valid Unicode"),
        ({"text": "x" * 10_001, "text_columns": ["title"]}, "10001 characters"),
        ({"vector": V, **T, "text": ["a"]}, "a list of 1 text came with one vector"),
        ({"vector": [V, V], **T, "text": ["a"]}, "a list of 1 text came with a list of 2 vector"),
        ({"vector": [V], **T}, "one text came with a list of 1 vector"),
        ({"vector": V, **T, "fusion": "sum"}, "expected 'rrf' or 'weighted'"),
        ({"vector": V, "fusion": "weighted"}, "fusion and alpha need a vector and a text"),
        ({**T, "alpha": 0.5}, "fusion and alpha need a vector and a text"),
        ({"vector": V, **T, "alpha": 0.5}, "alpha goes with fusion='weighted'"),
        ({"vector": V, **T, "fusion": "weighted", "alpha": 1.5}, "alpha is 1.5: expected a number from 0 to 1"),
        ({"vector": V, "group_by": "tags"}, "of type list"),
        ({"vector": V, "group_by": "yaer"}, "did you mean 'year'?"),
        ({"vector": V, "group_by": ["year"]}, "not an attribute"),
        ({"vector": V, "group_size": 2}, "group_size goes with group_by"),
        ({"vector": V, "group_by": "year", "group_size": 0}, "group_size is 0"),
        ({"vector": V, "diversity": 1.01}, "diversity is 1.01"),
        ({"vector": V, "diversity": "much"}, "diversity is 'much'"),
        ({"vector": V, "diversity": float("nan")}, "diversity is nan"),
        ({"vector": V, "min_score": float("inf")}, "min_score is inf: expected a finite number"),
        ({"vector": V, "min_score": True}, "min_score is True"),
        ({"vector": V, "k": None}, "k is None: only with min_score"),
        ({"vector": V, "cursor": 5}, "cursor is a int"),
        ({"vector": V, "cursor": ""}, "not one that a search gave"),
        ({"vector": [V, V], "cursor": "x"}, "one cursor for each"),
        ({"vector": [V, V], "cursor": [None, None]}, "cursor is a NoneType"),
        ({"vector": V, "k": None, "min_score": 0, "cursor": "x"}, "cursor needs k"),
    ],
)
def test_bad_input_is_told(small: Collection, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        small.search(**arguments)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_cursors_of_many_queries_must_fit(small: Collection) -> None:
    first = small.search([V, V], 1)
    small.add(["later"], [V])
    later = small.search(V, 1)
    with pytest.raises(InputError, match="1 cursors came with 2 queries"):
        small.search([V, V], 1, cursor=[str(first[0].cursor)])
    with pytest.raises(InputError, match="different versions"):
        small.search([V, V], 1, cursor=[str(first[0].cursor), str(later.cursor)])


def test_words_in_many_threads(small: Collection) -> None:
    faults: list[Exception] = []

    def read() -> None:
        try:
            for _ in range(15):
                hits = small.search(V, text="sparse", text_columns=["title", "body"], group_by="venue")
                assert len(hits) == 3
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(5):
        small.upsert(["new"], vectors(1, seed=i), {"title": ["sparse"], "venue": ["ACL"]})
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_list_is_sorted_as_far_as_needed() -> None:
    scores = np.random.default_rng(0).integers(0, 9, 500).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    listed = Listed(np.arange(500) * 2, scores, "")
    for n in (1, 3, 4, 100, 499, 500, 501):
        assert listed.first(n)[0].tolist() == (order[:n] * 2).tolist()
    assert answer.DEPTH == fusion.DEPTH == 500


def test_an_empty_collection_and_one_without_texts(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "c", dim=4, schema={"t": "string"})
    for _ in range(2):
        assert collection.search(text="a1", text_columns=["t"], group_by="t").ids == []
        assert collection.search(V, text="a1", text_columns=["t"], diversity=0.5, k=3).ids == collection.ids()
        assert collection.search(text=[], text_columns=["t"]) == []
        collection.upsert(["a"], [V])
