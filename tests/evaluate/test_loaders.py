"""Loaders of evaluation sets: small files of each layout, damaged ones, and the catalogued sets where they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nextvec.data.catalog import dataset
from nextvec.data.labelled import arxiv_categories, movie_reviews, subjectivity, trec
from nextvec.data.paraphrases import mrpc
from nextvec.data.sts import sick, sts_year
from nextvec.data.titles import acl_titles, arxiv_titles, daily_titles
from nextvec.data.wordsim import WORD_SETS, word_similarity
from nextvec.types import InputError, NotFoundError, StorageError

Needs = Callable[[str], None]


def write(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


# ---------------------------------------------------------------------- STS and SICK


def test_a_year_joins_its_parts_and_leaves_out_what_has_no_score(tmp_path: Path) -> None:
    folder = tmp_path / "STS15-en-test"
    write(folder / "STS.input.b.txt", "one\ttwo\nthree\tfour\textra\nfive\tsix\n")
    write(folder / "STS.gs.b.txt", "\n2.5\n\n")
    write(folder / "STS.input.a.txt", 'a "q\tb\u2028c\n')
    write(folder / "STS.gs.a.txt", "5\n")
    pairs = sts_year(2015, folder=tmp_path)
    assert (pairs.first, pairs.second) == (['a "q', "three"], ["b\u2028c", "four"])
    assert pairs.scores.tolist() == [5, 2.5]


@pytest.mark.parametrize(
    ("inputs", "scores", "message"),
    [
        ("a\tb\nc\td\n", "1\n", "STS.input.x.txt has 2 lines and STS.gs.x.txt 1: a file is damaged"),
        ("a b\n", "1\n", "STS.input.x.txt:1: expected two sentences"),
        ("a\tb\n", "six\n", "STS.gs.x.txt:1: the score is 'six'; expected a number"),
        ("a\tb\n", "6\n", "STS.gs.x.txt:1: the score is 6.0; expected 0 to 5"),
        ("a\tb\n", "nan\n", "the score is nan"),
        ("a\tb\n", "\n", "holds no scored pair"),
    ],
)
def test_a_damaged_year(tmp_path: Path, inputs: str, scores: str, message: str) -> None:
    write(tmp_path / "STS12-en-test" / "STS.input.x.txt", inputs)
    write(tmp_path / "STS12-en-test" / "STS.gs.x.txt", scores)
    with pytest.raises(InputError, match=message):
        sts_year(2012, folder=tmp_path)


def test_years_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no STS of 2017; expected one of 2012"):
        sts_year(2017, folder=tmp_path)
    write(tmp_path / "STS13-en-test" / "STS.input.x.txt", "a\tb\n")
    with pytest.raises(StorageError, match=r"STS\.gs\.x\.txt.*no such file"):
        sts_year(2013, folder=tmp_path)


HEADER = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment"


def test_sick(tmp_path: Path) -> None:
    path = tmp_path / "sick2014" / "SICK_test_annotated.txt"
    write(path, f"{HEADER}\r\n6\tA boy\tA girl\t3.3\tNEUTRAL\r\n")
    assert (sick(folder=tmp_path).first, sick(folder=tmp_path).scores.tolist()) == (["A boy"], [3.3])
    for text, message in (
        ("6\ta\tb\t3.3\tNEUTRAL\n", ":1: expected the header pair_ID"),
        (f"{HEADER}\n6\ta\tb\t3.3\n", ":2: 4 fields"),
        (f"{HEADER}\n6\ta\tb\t0.5\tX\n", ":2: the score is 0.5; expected 1 to 5"),
        (f"{HEADER}\n", "holds no pair"),
    ):
        with pytest.raises(InputError, match=message):
            write(path, text)
            sick(folder=tmp_path)


def test_the_catalogued_sts_sets(needs: Needs) -> None:
    needs("sts")
    sizes = {year: len(sts_year(year)) for year in (2012, 2013, 2014, 2015, 2016)}
    assert sizes == {2012: 3108, 2013: 1500, 2014: 3750, 2015: 3000, 2016: 1186}
    needs("sts_tsv")
    assert [len(sick(split)) for split in ("train", "dev", "test")] == [4500, 500, 4927]


# ---------------------------------------------------------------------- MRPC and words


def test_mrpc(tmp_path: Path) -> None:
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    path = write(tmp_path / "msr-para-test.tsv", f'\ufeff{header}\n1\t2\t3\tsays "a\tsays a\n0\t2\t3\tb\tc\n')
    pairs = mrpc(folder=tmp_path)
    assert pairs.first == ['says "a', "b"] and pairs.labels.tolist() == [True, False]
    for text, message in ((header + "\n2\t2\t3\ta\tb", ":2: expected 0 or 1"), (header, "holds no pair"), ("x", ":1:")):
        write(path, text)
        with pytest.raises(InputError, match=message):
            mrpc(folder=tmp_path)
    with pytest.raises(InputError, match="expected one of train, dev, test"):
        mrpc("valid", folder=tmp_path)


def test_words(tmp_path: Path) -> None:
    write(tmp_path / "EN-RG-65.txt", "gem\tjewel\t3.94\nnoon string 0.1\n")
    pairs = word_similarity("rg65", folder=tmp_path)
    assert (pairs.first, pairs.second, pairs.scores.tolist()) == (["gem", "noon"], ["jewel", "string"], [3.94, 0.1])
    for text, message in (("a b", ":1: 2 fields"), ("a b c", "is 'c'; expected a number"), ("a b inf", "infinite")):
        with pytest.raises(InputError, match=message):
            write(tmp_path / "EN-RG-65.txt", text)
            word_similarity("rg65", folder=tmp_path)
    with pytest.raises(InputError, match="did you mean 'simlex999'"):
        word_similarity("simlex-999")


def test_the_catalogued_pairs(needs: Needs) -> None:
    needs("mrpc")
    assert [len(mrpc(split)) for split in ("train", "dev", "test")] == [3576, 500, 1725]
    assert mrpc().labels.sum() == 1147
    needs("wordsim")
    sizes = {name: len(word_similarity(name)) for name in WORD_SETS}
    assert sizes["simlex999"] == 999 and sizes["men"] == 3000 and sum(sizes.values()) == 11_768


# ---------------------------------------------------------------------- classes


def test_texts_fall_on_one_side_and_are_cp1252(tmp_path: Path) -> None:
    lines = "".join(f"{i % 2} text {i // 4} d\xe9j\xe0\x85vu\n" for i in range(400))
    write(tmp_path / "subj.all", lines, encoding="latin-1")
    split = subjectivity(folder=tmp_path)
    assert not set(split.train.texts) & set(split.test.texts)
    assert len(split.train) + len(split.test) == 400 and 40 < len(split.test) < 120
    assert split.train.texts[0].endswith("déjà…vu")
    assert split.train.names == ("subjective", "objective") and set(split.test.labels.tolist()) == {0, 1}
    assert subjectivity(folder=tmp_path).test.texts == split.test.texts


def test_trec_trains_on_no_test_question(tmp_path: Path) -> None:
    questions = "".join(f"{i} question {i}\n" for i in range(6))
    write(tmp_path / "TREC.test.all", questions)
    write(tmp_path / "TREC.train.all", questions + "".join(f"{i} another {i}\n" for i in range(6)))
    split = trec(folder=tmp_path)
    assert split.train.texts == [f"another {i}" for i in range(6)] and split.train.labels.tolist() == list(range(6))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 text\n", "rt-polarity.all:1: expected a class from 0 to 1"),
        ("0\n", "rt-polarity.all:1: expected a class"),
        ("0 only\n", "has no text of the class 'positive'"),
        ("\n\n", "holds no line"),
        ("0 \x81\n", "is not CP1252"),
    ],
)
def test_damaged_classes(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "rt-polarity.all", text, encoding="latin-1")
    with pytest.raises(InputError, match=message):
        movie_reviews(folder=tmp_path)


def papers(folder: Path, count: int, *, set_name: str = "arxiv_daily", **fields: object) -> None:
    import lzma

    records = (
        {
            "id": f"{i}",
            "title": f"A title number {i}",
            "summary": "word " * 50,
            "categories": [f"c{i % 3}", "x"],
            **fields,
        }
        for i in range(count)
    )
    folder.mkdir(exist_ok=True)
    for file in dataset(set_name).files:
        (folder / file.path).write_bytes(lzma.compress("".join(json.dumps(r) + "\n" for r in records).encode()))


def test_arxiv_categories(tmp_path: Path) -> None:
    papers(tmp_path, 50)
    split = arxiv_categories(folder=tmp_path, classes=2, train=6, test=4)
    assert split.train.names == ("c0", "c1")
    assert np.bincount(split.train.labels).tolist() == [6, 6] and np.bincount(split.test.labels).tolist() == [4, 4]
    assert not set(split.train.texts) & set(split.test.texts)
    assert all(int(text.split("\n")[0].split()[-1]) % 3 == 0 for text in split.test.texts[:4])
    with pytest.raises(InputError, match="the smallest of 16; need 20 of each"):
        arxiv_categories(folder=tmp_path, train=10, test=10)
    papers(tmp_path, 1, categories="cs.CL")
    with pytest.raises(InputError, match=r"categories are 'cs\.CL'; expected a list"):
        arxiv_categories(folder=tmp_path)


def test_the_catalogued_classes(needs: Needs) -> None:
    needs("sentcls_harvardnlp")
    assert (len(trec().train), len(trec().test)) == (5442, 500)
    for split in (subjectivity(), movie_reviews()):
        assert 0.17 < len(split.test) / (len(split.test) + len(split.train)) < 0.23
        assert not set(split.train.texts) & set(split.test.texts)


# ---------------------------------------------------------------------- titles


def test_daily_titles_are_bundled() -> None:
    found = daily_titles()
    assert len(found) == len(found.documents) > 9_800
    assert found.gains[7] == {7: 1} and min(map(len, found.documents)) >= 200


def test_titles_hold_no_daily_paper_and_none_twice(tmp_path: Path) -> None:
    papers(tmp_path, 40)
    found = arxiv_titles(folder=tmp_path, size=40)
    assert sorted(map(int, found.query_ids)) == list(range(40))
    assert arxiv_titles(folder=tmp_path, size=5).query_ids == found.query_ids[:5]
    papers(tmp_path, 40, title=daily_titles().queries[0].upper())
    with pytest.raises(InputError, match="0 papers with an abstract; 5 are needed"):
        arxiv_titles(folder=tmp_path, size=5)


def test_acl_titles_begin_in_2016(tmp_path: Path) -> None:
    papers(tmp_path, 20, set_name="acl_anthology_2025", abstract="word " * 50, year="2016")
    assert len(acl_titles(folder=tmp_path, size=20)) == 20
    papers(tmp_path, 20, set_name="acl_anthology_2025", abstract="word " * 50, year="2015")
    with pytest.raises(InputError, match="0 papers"):
        acl_titles(folder=tmp_path, size=1)


def test_sets_that_are_absent_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTVEC_DATA", str(tmp_path))
    monkeypatch.setenv("NEXTVEC_CACHE", str(tmp_path))
    for load in (sick, mrpc, trec, arxiv_titles, lambda: sts_year(2012), lambda: word_similarity("rg65")):
        with pytest.raises(NotFoundError, match="is not on this machine"):
            load()
