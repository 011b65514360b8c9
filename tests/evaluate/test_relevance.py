"""Queries, documents and judgements: BEIR folders, Cranfield and LIMIT, whole and damaged."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nextvec.data.relevance import cranfield, is_beir, limit_small, read_beir
from nextvec.types import InputError, NotFoundError

CORPUS = [{"_id": "d1", "title": "Cats", "text": "purr"}, {"_id": "d2", "text": "dogs"}, {"_id": "q1", "text": "cats"}]
QUERIES = [{"_id": "q1", "text": "cats"}, {"_id": "q2", "text": "dogs"}, {"_id": "q3", "text": "birds"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\nq2\td1\t0\nq3\td1\t0\n"


def lines(records: list[dict[str, str]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def beir(folder: Path, *, corpus: str = lines(CORPUS), queries: str = lines(QUERIES), qrels: str = QRELS) -> Path:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    (folder / "corpus.jsonl").write_text(corpus)
    (folder / "queries.jsonl").write_text(queries)
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_a_beir_folder(tmp_path: Path) -> None:
    found = read_beir(beir(tmp_path))
    assert (found.query_ids, found.queries) == (["q1", "q2"], ["cats", "dogs"])
    assert found.documents == ["Cats purr", "dogs", "cats"]
    assert found.gains == [{0: 2}, {1: 1}]
    assert found.own == [2, -1]
    assert found.left_out == 1  # q3 has no relevant document
    assert is_beir(tmp_path) and not is_beir(tmp_path / "qrels")


def test_a_document_judged_relevant_is_no_mere_copy_of_its_query(tmp_path: Path) -> None:
    assert read_beir(beir(tmp_path, qrels="q1\tq1\t1\n")).own == [-1]


def test_splits_and_compressed_parts(tmp_path: Path) -> None:
    beir(tmp_path)
    (tmp_path / "corpus.jsonl").unlink()
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as stream:
        stream.write(lines(CORPUS))
    (tmp_path / "qrels" / "dev.tsv").write_text("q3\td2\t1\n")
    assert read_beir(tmp_path).query_ids == ["q1", "q2"]
    assert read_beir(tmp_path, split="dev").query_ids == ["q3"]
    with pytest.raises(NotFoundError, match=r"has no tset.tsv \(found: dev, test\); did you mean 'test'"):
        read_beir(tmp_path, split="tset")
    (tmp_path / "qrels" / "test.tsv").unlink()
    assert read_beir(tmp_path).query_ids == ["q3"]  # the only one


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"qrels": "q1\td9\t1\n"}, r"test.tsv:1: no document 'd9' in corpus.jsonl"),
        ({"qrels": "q9\td1\t1\n"}, r"test.tsv:1: no query 'q9' in queries.jsonl"),
        ({"qrels": "q1\td1\n"}, r"test.tsv:1: 2 fields"),
        ({"qrels": "q1\td1\thigh\n"}, r"test.tsv:1: the score is 'high'"),
        ({"qrels": "q1\td1\t0.5\n"}, r"the score is 0.5; expected a whole number"),
        ({"qrels": "q1\td1\t1\nq1\td1\t1\n"}, r"test.tsv:2: .* judged twice"),
        ({"qrels": "q1\td1\t0\n"}, "judges no document relevant"),
        ({"qrels": ""}, "holds no line"),
        ({"corpus": lines([*CORPUS, CORPUS[0]])}, r"corpus.jsonl:4: the id 'd1' comes twice"),
        ({"corpus": '{"_id": "d1", "text": 3}\n'}, r"corpus.jsonl:1: 'text' .* must be texts"),
        ({"corpus": '{"text": "a"}\n'}, "the field '_id' is None"),
        ({"corpus": '{"_id": "d1", '}, r"corpus.jsonl:1: invalid JSON"),
        ({"queries": ""}, "holds no record"),
    ],
)
def test_damaged_folders(tmp_path: Path, parts: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_beir(beir(tmp_path, **parts))


def test_folders_without_a_part(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"has no corpus.jsonl: expected"):
        read_beir(tmp_path)
    (beir(tmp_path) / "qrels" / "test.tsv").unlink()
    with pytest.raises(NotFoundError, match=r"has no test.tsv \(found: none\)"):
        read_beir(tmp_path)


DOCUMENTS = ".I 1\n.T\ntitle\n.A\n.B\n.W\na wing\nin a stream .\n.I 2\n.W\n.I 3\n.W\nheat .\n"
QUESTIONS = ".I 001\n.W\nwhat of wings\n.I 004\n.W\nwhat of heat\n"


def aero(
    folder: Path, documents: str = DOCUMENTS, questions: str = QUESTIONS, codes: str = "1 1 2 \n1 3 -1\n2 3 4"
) -> Path:
    for name, text in (("cran.all.1400", documents), ("cran.qry", questions), ("cranqrel", codes)):
        (folder / name).write_text(text)
    return folder


def test_cranfield(tmp_path: Path) -> None:
    found = cranfield(folder=aero(tmp_path))
    assert found.documents == ["a wing in a stream .", "", "heat ."]
    assert found.queries == ["what of wings", "what of heat"]
    assert found.gains == [{0: 3}, {2: 1}]  # 5 - code; -1 is no answer; queries by their order
    assert found.own == [-1, -1]  # numbers of queries and documents have nothing to do with each other


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"documents": "no records"}, "cran.all.1400: expected records"),
        ({"documents": ".I 1\n.T\nx\n"}, "record 1 comes twice or has no text"),
        ({"documents": ".I 1\n.W\nx\n.I 1\n.W\ny\n"}, "record 1 comes twice"),
        ({"codes": "1 9 1"}, "cranqrel:1: expected the numbers"),
        ({"codes": "1 1 7"}, "cranqrel:1: the code is 7.0; expected -1 to 4"),
    ],
)
def test_a_damaged_cranfield(tmp_path: Path, parts: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cranfield(folder=aero(tmp_path, **parts))


def test_the_catalogued_sets(needs: Callable[[str], None]) -> None:
    needs("cranfield")
    found = cranfield()
    assert (len(found), len(found.documents), sum(map(len, found.gains))) == (225, 1400, 1612)
    assert found.gains[0][183] == 3  # query 1, document 184, code 2
    needs("limit")
    small = limit_small()
    assert (len(small), len(small.documents)) == (1000, 46)
    assert all(len(gains) == 2 for gains in small.gains)
