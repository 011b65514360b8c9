"""Byte2Word: words as bytes, attention over them by hand, what is hidden, and slips of the pen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.methods._byte2word_claim import _hidden, _unigram  # noqa: E402
from nextvec.methods.byte2word import Byte2Word, slips, split_words  # noqa: E402
from nextvec.nn.inputs.byte_words import ByteWords, word_bytes  # noqa: E402
from nextvec.types import Batch, InputError  # noqa: E402

TEXTS = [["the", "red", "dog"], ["the", "dog", "sleeps", "here"], ["le", "chien", "rêve"]]


def test_bytes_of_words() -> None:
    rows = word_bytes(["ab", "é", "", "abcdef", "\ud800"], longest=4)
    assert rows.tolist() == [[98, 99, 0, 0], [0xC3 + 1, 0xA9 + 1, 0, 0], [0] * 4, [98, 99, 100, 101], [64, 0, 0, 0]]


def test_attention_over_bytes_by_hand() -> None:
    torch.manual_seed(0)
    reader = ByteWords(6, width=8, longest=4, queries=2, heads=2).double()
    words = torch.from_numpy(word_bytes(["ab", "c", "ab", ""], longest=4))
    found = reader(words).detach().numpy()
    both = reader.both.weight.detach().numpy()
    for row, text in zip(found[:3], ("ab", "c", "ab"), strict=True):
        x = (
            reader.byte_table.weight.detach().numpy()[[ord(c) for c in text]]
            + reader.place_table.weight.detach().numpy()[: len(text)]
        )
        keys, values = x @ both[:8].T, x @ both[8:].T
        read = []
        for query in reader.queries.detach().numpy():
            for head in (slice(0, 4), slice(4, 8)):
                scores = np.exp(keys[:, head] @ query[head] / 2)
                read.append((scores / scores.sum()) @ values[:, head])
        # Heads of the first query, then of the second.
        expected = reader.out.weight.detach().numpy() @ np.concatenate(read) + reader.out.bias.detach().numpy()
        np.testing.assert_allclose(row, expected, atol=1e-10)
    np.testing.assert_array_equal(found[3], reader.empty.detach().numpy())
    assert not np.allclose(
        *(reader(torch.from_numpy(word_bytes([w], longest=4))).detach().numpy() for w in ("ab", "ba"))
    )


def test_a_mean_is_blind_to_nothing_but_order_of_places() -> None:
    torch.manual_seed(0)
    reader = ByteWords(6, width=8, longest=4, kind="mean").double()
    found = reader(torch.from_numpy(word_bytes(["ab"], longest=4))).detach().numpy()[0]
    x = reader.byte_table.weight.detach().numpy()[[97, 98]] + reader.place_table.weight.detach().numpy()[:2]
    expected = reader.out.weight.detach().numpy() @ x.mean(axis=0) + reader.out.bias.detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_gradients_of_bytes() -> None:
    torch.manual_seed(0)
    reader = ByteWords(3, width=4, longest=3, heads=2).double()
    words = torch.from_numpy(word_bytes(["ab", "", "c"], longest=3))

    def read(table: Any, queries: Any, empty: Any) -> Any:
        return torch.func.functional_call(
            reader, {"byte_table.weight": table, "queries": queries, "empty": empty}, (words,)
        )

    assert torch.autograd.gradcheck(read, (reader.byte_table.weight, reader.queries, reader.empty))


def model(**changes: Any) -> Byte2Word:
    torch.manual_seed(0)
    config = Byte2Word.Config(dim=16, layers=1, heads=2, width=8, length=8, **changes)
    return Byte2Word.start(TEXTS, config)


def test_what_is_hidden() -> None:
    made = model(most=4)
    assert made.config.words[:2] == ("dog", "the")
    batch = Batch(dict(made.columns(TEXTS)))
    hidden = made.hide(batch, np.random.default_rng(0))
    labels = hidden.ragged("labels").values
    known = batch.ragged("known").values
    chosen = labels >= 0
    assert bool(chosen.any())
    assert torch.equal(labels[chosen], known[chosen])
    assert not bool(hidden.ragged("words").values[chosen].any())
    assert set(hidden.ragged("ids").values[chosen].tolist()) == {1}
    assert torch.equal(hidden.ragged("words").values[~chosen], batch.ragged("words").values[~chosen])
    for part, words in zip(torch.split(chosen, [3, 4, 3]), TEXTS, strict=True):
        assert bool(part.any()) == any(word in made.numbers for word in words)


def test_only_bytes_tell_unknown_words_apart() -> None:
    """Of a word that the vocabulary lacks, a table knows nothing; its bytes say which it is."""
    one, other = [["the", "red", "dgo"]], [["the", "red", "godless"]]
    for kind, differs in (("bytes", True), ("mean", True), ("table", False)):
        made = model(input=kind).eval()
        states = []
        for texts in (one, other):
            columns = made.columns(texts)
            states.append(made(Batch(dict(columns) | {"labels": columns["known"]}))["hidden"])
        assert torch.allclose(*states) != differs, kind


def test_parameters_of_the_input() -> None:
    made = model(input="table")
    assert made.input_parameters() == (len(made.config.words) + 2) * 16
    reader = model().reader
    assert reader is not None
    assert model().input_parameters() == 256 * 8 + 16 * 8 + 8 + 2 * 8 * 8 + 8 * 16 + 16 + 16


def test_slips() -> None:
    random = np.random.default_rng(0)
    words = ["transformer", "a", "of", "representation"] * 50
    assert slips(words, 0.0, random) == words
    changed = slips(words, 0.2, random)
    assert all(changed)
    assert 0.3 < np.mean([one != other for one, other in zip(words, changed, strict=True)]) < 0.9
    assert all(set(other) <= set(one) for one, other in zip(words, changed, strict=True))
    assert split_words("A red-nosed dog, 3 of them.") == ["a", "red", "-", "nosed", "dog", ",", "3", "of", "them", "."]


def test_words_by_their_frequency_by_hand() -> None:
    """Of "the" and "dog", twice each, and five words that occur once."""
    made = model()
    held = [["the", "godless"], ["red", "wolf"]]  # of each text the one word that is known is hidden
    assert _hidden(made, held).values.tolist() == [made.numbers["the"], -100, made.numbers["red"], -100]
    total = sum(len(words) for words in TEXTS)
    assert _unigram(made, TEXTS, held) == pytest.approx(-np.log([2 / total, 1 / total]).mean())


def test_the_claim_wants_clean_text_to_be_learned() -> None:
    claim = Byte2Word.claim("cpu")
    assert claim.config["steps"] == 4000
    wanted = {(check.better, check.worse, check.margin) for check in claim.checks}
    assert {("bytes.unigram", "bytes.nats_0", 0.5), ("table.unigram", "table.nats_0", 0.5)} <= wanted


def test_training_from_texts_and_back(tmp_path: Path) -> None:
    from nextvec.training import fit, load_method

    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(json.dumps({"text": f"the red dog number {i} sleeps here"}) for i in range(40)))
    fit("byte2word", data, out=tmp_path / "run", set=["depth=1", "length=4", "steps=3", "batch=4", "width=16"])
    loaded = load_method(tmp_path / "run")
    assert isinstance(loaded, Byte2Word)
    assert "sleeps" in loaded.config.words


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="input is 'word'"):
        model(input="word")
    with pytest.raises(InputError, match="the heads divide"):
        ByteWords(4, width=10, heads=4)
    with pytest.raises(InputError, match="expected uint8"):
        ByteWords(4, longest=8)(torch.zeros(3, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match="hold no words"):
        Byte2Word.start([], Byte2Word.Config())
