"""Pairs from a user's file: field names, groups of pairs that share a text, columns of token ids, complaints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="batches need torch: pip install 'nextvec[hf]'")

from nextvec.data.pairs import Pairs, pair_columns, read_pairs  # noqa: E402
from nextvec.data.sources import Shuffled  # noqa: E402
from nextvec.data.tokenizers import ByteTokenizer  # noqa: E402
from nextvec.types import InputError  # noqa: E402


def write(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("document", ["document", "body", "summary", "abstract"])
@pytest.mark.parametrize("query", ["query", "title"])
def test_field_names(tmp_path: Path, query: str, document: str) -> None:
    path = write(tmp_path / "p.jsonl", {query: "a  b\n", document: "c"}, {query: "d", document: "e", "year": 3})
    assert read_pairs(path) == Pairs(["a b", "d"], ["c", "e"])


def test_csv_negatives_and_limit(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("query,document,neg\nq0,d0,n0\nq1,d1,n1\nq2,d2,n2\n", encoding="utf-8")
    assert read_pairs(path, limit=2) == Pairs(["q0", "q1"], ["d0", "d1"], ["n0", "n1"])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"query": "a", "text": "b"}], r"p.jsonl:1: no field 'document' or .*\(fields found: query, text\)"),
        ([{"query": "a", "document": "b"}, {"query": " ", "document": "b"}], "p.jsonl:2: field 'query' is ' '"),
        ([{"query": "a", "document": 3}], "field 'document' is 3; expected a text"),
        ([{"query": "a", "document": "b"}, {"query": "a", "document": "b", "neg": "c"}], "p.jsonl:2: some records"),
        ([{"query": "a", "document": "b", "neg": "c"}, {"query": "a", "document": "b"}], "p.jsonl:2: some records"),
        ([{"query": "a", "document": "b"}], "holds 1 pairs"),
    ],
)
def test_complaints(tmp_path: Path, records: list[dict[str, object]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_pairs(write(tmp_path / "p.jsonl", *records))


def test_groups_join_what_shares_a_text() -> None:
    pairs = Pairs(["a", "a", "b", "c", "d"], ["1", "2", "2", "3", "4"])
    groups = pairs.groups().tolist()
    assert groups[0] == groups[1] == groups[2]
    assert len({groups[0], groups[3], groups[4]}) == 3


def test_columns_of_token_ids() -> None:
    pairs = Pairs(["ab", "c"], ["defghij", "k"], ["n", "no"])
    batch = Shuffled(pair_columns(pairs, ByteTokenizer(), max_length=6), batch=2, seed=0).batch(0)
    assert set(batch) == {"query", "document", "neg0", "group"}
    order = [0, 1] if batch.ragged("query").lengths.tolist() == [4, 3] else [1, 0]
    documents = ByteTokenizer().encode([pairs.documents[i] for i in order], max_length=6)
    assert batch.ragged("document").values.tolist() == [i for ids in documents for i in ids]
    assert batch.tensor("group").tolist() == order


def test_texts_without_tokens_are_refused() -> None:
    class Deaf(ByteTokenizer):
        def encode(self, texts: object, **options: object) -> list[list[int]]:
            return [[1], []]

    with pytest.raises(InputError, match="pair 1: its query has no token left"):
        pair_columns(Pairs(["a", "b"], ["c", "d"]), Deaf(), max_length=8)
