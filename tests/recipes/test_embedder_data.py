"""What a domain encoder learns from: records of every kind, cropped passages, and what is held out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nextvec.recipes.embedder_data import divide, read_examples
from nextvec.types import InputError

Write = Callable[[Iterable[dict[str, Any]]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(records: Iterable[dict[str, Any]]) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return made


def titled(count: int) -> list[dict[str, Any]]:
    return [{"title": f"title number {i}", "body": f"body of number {i} and more"} for i in range(count)]


def test_titles_and_bodies_are_pairs(write: Write) -> None:
    found = read_examples(write(titled(25)))
    assert (found.kind, len(found)) == ("documents", 25)
    assert (found.first[3], found.second[3], found.owners[3]) == ("title number 3", "body of number 3 and more", 3)


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({"query": "what {i}", "document": "that {i}"}, "pairs"),
        ({"anchor": "what {i}", "positive": "that {i}"}, "pairs"),
        ({"query": "what {i}", "document": "that {i}", "neg": "not {i}"}, "triplets"),
        ({"anchor": "what {i}", "positive": "that {i}", "negative": "not {i}"}, "triplets"),
        ({"sentence1": "one {i}", "sentence2": "two {i}", "score": 0.5}, "graded"),
        ({"title": "one {i}", "summary": "two {i}"}, "documents"),
    ],
)
def test_the_first_record_says_what_they_are(write: Write, record: dict[str, Any], kind: str) -> None:
    rows = [{n: v.format(i=i) if isinstance(v, str) else v for n, v in record.items()} for i in range(20)]
    found = read_examples(write(rows))
    assert found.kind == kind
    assert (found.negatives is not None) == (kind == "triplets")
    if kind == "graded":
        np.testing.assert_array_equal(found.scores, np.full(20, 0.5))


def test_headings_find_their_sections(write: Write) -> None:
    text = "# First *part* #\nsome words stand here\n\n## Second\nother words stand there\nand on\n### Empty\n"
    found = read_examples(write([*titled(20), {"text": text}]))
    assert list(zip(found.first, found.second, strict=True))[20:] == [
        ("First *part*", "some words stand here"),
        ("Second", "other words stand there and on"),
    ]


def test_a_sentence_finds_the_rest_of_its_passage(write: Write) -> None:
    sentences = [f"In sentence {i} of the text stands {'x' * i}." for i in range(60)]
    path = write({"text": " ".join(sentences[i:])} for i in range(20))
    found = read_examples(path)
    for one, other in zip(found.first, found.second, strict=True):
        assert one in sentences
        assert one not in other
        assert len((one + other).split()) <= 160
    passages = [f"{one} {other}" for one, other in zip(found.first, found.second, strict=True)]
    whole = [sentence for sentence in sentences if any(sentence in passage for passage in passages)]
    assert len(whole) == 60  # nothing of a text this short is lost
    assert read_examples(path).first == found.first
    assert read_examples(path, seed=1).first != found.first


def test_one_long_sentence_is_halved_and_a_long_text_is_not_all_of_it(write: Write) -> None:
    words = " ".join(f"w{i}" for i in range(20_000))  # 134 passages of 150
    found = read_examples(write([*titled(20), {"text": words}]))
    assert len(found) == 20 + 32
    assert len(found.first[20].split()) == len(found.second[20].split()) == 75


def test_what_teaches_nothing_is_left_out_and_counted(write: Write) -> None:
    bad = [
        {"title": "one", "body": "one"},
        {"title": "title number 0", "body": "body of number 0 and more"},
        {"title": "!!", "body": "word"},
        {"title": None, "body": "word"},
        {"title": "x", "body": "..."},
    ]
    found = read_examples(write([*titled(20), *bad]))
    assert len(found) == 20
    assert found.left_out == {
        "a text that is its own answer": 1,
        "repeated": 1,
        "a document too short to be divided, without a title": 2,
        "a text without words": 1,
    }


def test_a_query_that_is_its_negative_is_left_out(write: Write) -> None:
    rows = [{"query": f"q {i}", "document": f"d {i}", "neg": f"n {i}"} for i in range(20)]
    same = [{"query": "q", "document": "d", "neg": "q"}, {"query": "q", "document": "d", "neg": "d"}]
    found = read_examples(write([*rows, *same]))
    assert (len(found), sum(found.left_out.values())) == (20, 2)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"name": "x"}, r"data.jsonl:1: expected 'title' and 'body'.*fields found: name"),
        ({"first": "a", "second": "b"}, r"data.jsonl:1: two texts without a 'score'"),
        ({"first": "a", "second": "b", "score": "high"}, r"data.jsonl:1: field 'score' is 'high'; expected a finite"),
        ({"query": "a", "text": "b"}, r"data.jsonl:1: no field 'document' or"),
        ({"title": "a", "body": 3}, r"data.jsonl:1: field 'body' is 3; expected a text"),
        ({"title": "a", "body": "b"}, r"gives 1 pairs of texts; at least 20"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_place(write: Write, record: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_examples(write([record]))


def test_an_empty_file_is_no_corpus(write: Write) -> None:
    with pytest.raises(InputError, match="holds no record"):
        read_examples(write([]))


def test_the_same_records_are_held_out_in_any_order(write: Write) -> None:
    rows = titled(100)
    _, held = divide(read_examples(write(rows)))
    learned, again = divide(read_examples(write(rows[::-1])))
    assert len(held) == 10
    assert set(held.first) == set(again.first)
    assert not set(held.first) & set(learned.first)
    assert len(learned) == 90


def test_no_text_that_is_held_out_is_learned_from(write: Write) -> None:
    """Five documents answer all queries: a query of the rest whose document is held out is dropped."""
    rows = [{"query": f"q {i}", "document": f"d {i // 10}"} for i in range(200)]
    learned, held = divide(read_examples(write(rows)))
    assert len(held) == 20
    assert len(learned) < 180
    assert not {*learned.first, *learned.second} & {*held.first, *held.second}


def test_passages_of_one_record_are_no_negatives_of_each_other(write: Write) -> None:
    text = " ".join(f"This is sentence {i} of a long text about nothing at all." for i in range(100))
    found = read_examples(write([*titled(20), {"text": text}]))
    groups = found.pairs().groups()
    assert len(set(groups[20:].tolist())) == 1
    assert len(set(groups.tolist())) == 21
