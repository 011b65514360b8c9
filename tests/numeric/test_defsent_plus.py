"""DefSent+: entries' vectors by hand, rounds, what a dictionary may be, components that are independent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.data.dictionary import Dictionary, read_dictionary  # noqa: E402
from nextvec.engine.engine import Engine, TrainConfig  # noqa: E402
from nextvec.engine.optim import OptimConfig  # noqa: E402
from nextvec.methods._defsent_plus_claim import divide  # noqa: E402
from nextvec.methods.defsent_plus import DefsentPlus, isotropic, means  # noqa: E402
from nextvec.types import InputError  # noqa: E402

ROWS = [
    {"entry": "dog", "definitions": ["an animal that barks", "a beast that guards"]},
    {"word": "rain", "definition": "water that  falls"},
    {"entry": "dog", "definition": "a bad fellow"},
    {"entry": "to run", "definition": "move fast on foot"},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "words.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def settings(**changes: object) -> DefsentPlus.Config:
    return DefsentPlus.Config(depth=2, vocab=300, max_length=24, **changes)


def test_records_of_one_entry_are_joined(data: Path) -> None:
    found = read_dictionary(data)
    assert found.entries == ["dog", "rain", "to run"]
    assert found.definitions[2] == "water that falls"
    assert found.owner == [0, 0, 1, 0, 2]
    assert found.take([2, 0]) == Dictionary(
        ["to run", "dog"],
        ["an animal that barks", "a beast that guards", "a bad fellow", "move fast on foot"],
        [1, 1, 1, 0],
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"entry": "dog"}], "words.jsonl:1: no field 'definition'"),
        ([{"entry": "dog", "definitions": []}], r"field 'definitions' is \[\]; expected a text"),
        ([{"entry": "dog", "definition": " "}], "field 'definition' is ' '"),
        ([{"entry": 3, "definition": "three"}], "field 'entry' is 3"),
        ([{"entry": "dog", "definition": "an animal"}], "holds 1 entries; at least 2"),
    ],
)
def test_what_is_no_dictionary(tmp_path: Path, rows: list[dict[str, object]], words: str) -> None:
    path = tmp_path / "words.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=words):
        read_dictionary(path)


def test_an_entry_is_the_mean_of_its_definitions(data: Path, tmp_path: Path) -> None:
    dictionary = read_dictionary(data)
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.testing.assert_allclose(means(rows, dictionary), [[8 / 3, 11 / 3], [4, 5], [8, 9]], rtol=1e-6)
    method, source = DefsentPlus.prepare(data, settings(), batch=5, seed=0, folder=tmp_path)
    vectors = method.encoder().encode(dictionary.definitions, normalize=False, precision="fp32")
    np.testing.assert_allclose(method.entries.numpy()[0], vectors[[0, 1, 3]].mean(0), atol=1e-5)
    batch = source.batch(0)
    out = method(batch)["logits"]
    projected = torch.tanh(method.project(method.vectors(batch.ragged("text"))))
    torch.testing.assert_close(out, projected @ method.entries.T)


def test_entries_stay_and_definitions_learn_to_find_them(data: Path, tmp_path: Path) -> None:
    method, source = DefsentPlus.prepare(data, settings(), batch=5, seed=0, folder=tmp_path)
    before = method.entries.clone()
    Engine(method, TrainConfig(steps=80, batch=5, optim=OptimConfig(lr=3e-3))).fit(source)
    assert torch.equal(method.entries, before)
    batch = source.batch(0)
    assert bool((method(batch)["logits"].argmax(1) == batch.tensor("label")).all())


def test_a_second_round_starts_from_the_base_with_other_entries(data: Path, tmp_path: Path) -> None:
    first, source = DefsentPlus.prepare(data, settings(), batch=5, seed=0, folder=tmp_path)
    start = first.transformer.head_weight().clone()
    Engine(first, TrainConfig(steps=20, batch=5, optim=OptimConfig(lr=3e-3))).fit(source)
    first.encoder().save(tmp_path / "one")
    second, _ = DefsentPlus.prepare(data, settings(teacher=str(tmp_path / "one")), batch=5, seed=0, folder=tmp_path)
    assert torch.equal(second.transformer.head_weight(), start)
    assert not torch.allclose(second.entries, first.entries, atol=1e-3)
    expected = means(first.encoder().encode(read_dictionary(data).definitions, normalize=False), read_dictionary(data))
    np.testing.assert_allclose(second.entries.numpy(), expected, atol=1e-5)


def test_defsent_predicts_rows_of_tokens(data: Path, tmp_path: Path) -> None:
    many = [{"entry": word, "definition": f"what is {word} {word} {word}"} for word in ("dog", "rain")]
    data.write_text("".join(json.dumps(row) + "\n" for row in [*many, *ROWS] * 3))
    method, source = DefsentPlus.prepare(data, settings(target="tokens"), batch=4, seed=0, folder=tmp_path)
    tokenizer = method.text_tokenizer()
    assert torch.equal(method.entries, method.transformer.head_weight())
    single = {ids[0] for ids in tokenizer.encode([" dog", " rain"], special=False) if len(ids) == 1}
    assert len(single) == 2
    assert set(source.batch(0).tensor("label").tolist()) <= single


def test_components_are_uncorrelated_and_alike_in_size() -> None:
    random = np.random.default_rng(0)
    rows = (random.laplace(size=(500, 4)) @ random.normal(size=(4, 4)) + 3).astype(np.float32)
    made = isotropic(rows, "ica", seed=0)
    np.testing.assert_allclose(np.cov(made.T, bias=True), np.eye(4), atol=1e-3)
    assert isotropic(rows, "none", seed=0) is rows
    with pytest.raises(InputError, match="more entries than those"):
        isotropic(rows[:4], "ica", seed=0)


def test_the_claim_holds_out_one_definition_of_each() -> None:
    learned, held = divide(Dictionary(["a", "b"], ["1", "2", "3", "4", "5"], [0, 1, 0, 1, 0]))
    assert (learned.definitions, learned.owner) == (["1", "2", "3"], [0, 1, 0])
    assert (held.definitions, held.owner) == (["4", "5"], [1, 0])


def test_settings_that_make_no_sense(data: Path, tmp_path: Path) -> None:
    for changes, words in (({"target": "word"}, "target is 'word'"), ({"isotropy": "pca"}, "isotropy is 'pca'")):
        with pytest.raises(InputError, match=words):
            DefsentPlus.prepare(data, settings(**changes), batch=5, seed=0, folder=tmp_path)
    with pytest.raises(InputError, match="needs words that are one token each"):
        DefsentPlus.prepare(data, settings(target="tokens"), batch=5, seed=0, folder=tmp_path)
    with pytest.raises(InputError, match="vectors are 256 wide, the base's 128"):
        DefsentPlus.prepare(data, settings(teacher="nextvec-mini"), batch=5, seed=0, folder=tmp_path)
