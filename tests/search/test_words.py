"""The tokenizer that every search by words shares."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextvec.search.words import Numbering, tokenize, tokens_of


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("GPT-4o", ["gpt", "4o", "gpt4o"]),
        ("gpt4o", ["gpt4o"]),
        ("chain-of-thought", ["chain", "thought", "chainofthought"]),
        ("Models, classes, queries; status is analysis", ["model", "class", "query", "status", "analysis"]),
        ("v1.5 and github.com", ["v1.5", "github", "com"]),
        ("the model's users' DINOv2", ["model", "user", "dinov2"]),
        ("Schölkopf naïve Gödel", ["scholkopf", "naive", "godel"]),
        ("C++ R²", ["c++", "r2"]),
        ("... !!! ___", []),
        ("the of and", []),
        ("视频 生成", ["视频", "生成"]),
    ],
)
def test_tokenizer(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


@settings(max_examples=200)
@given(st.text(max_size=80))
def test_tokenizer_never_fails_and_is_stable_under_case(text: str) -> None:
    assert all(tokenize(text))
    assert tokenize(text.upper().lower()) == tokenize(text.upper().lower().lower())


@given(st.lists(st.text(max_size=30), max_size=5))
def test_numbers_stand_for_the_same_tokens(texts: list[str]) -> None:
    numbering = Numbering()
    numbers = [numbering.of(text) for text in texts]
    tokens = list(numbering.vocabulary)
    assert [[tokens[number] for number in one] for one in numbers] == [tokenize(text) for text in texts]


def test_the_token_cache_does_not_change_results() -> None:
    tokens_of.cache_clear()
    first = tokenize("Large-scale models")
    assert tokenize("Large-scale models") == first == ["large", "scale", "largescale", "model"]
