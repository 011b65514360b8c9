"""ERNIE-Gram: the lexicon by hand, what is hidden and what sees what, the generator's draws."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")


from nextvec.data.labelled import LabelledSplit, LabelledTexts  # noqa: E402
from nextvec.data.sources import ragged  # noqa: E402
from nextvec.data.synthetic.collocations import collocated, pairings  # noqa: E402
from nextvec.evaluate.labels import classify  # noqa: E402
from nextvec.language_claims import abstracts  # noqa: E402
from nextvec.methods import _ernie_gram_claim  # noqa: E402
from nextvec.methods._ernie_gram_measures import _outside, _spans, hidden_units  # noqa: E402
from nextvec.methods._ernie_gram_parts import Lexicon, Masker, rows_of  # noqa: E402
from nextvec.methods._ernie_gram_text import Abstracts, write_abstracts  # noqa: E402
from nextvec.methods.ernie_gram import KINDS, ErnieGram, Replaced  # noqa: E402
from nextvec.types import Batch, InputError, Run  # noqa: E402

TEXTS = [[1, 2, 3, 1, 2, 4, 5, 6, 7], [1, 2, 5, 6, 7, 3, 1, 2, 4]] * 5


def test_the_lexicon_by_hand() -> None:
    lexicon = Lexicon.mine(TEXTS, 9, pairs=2, triples=1)
    tokens = [token for text in TEXTS for token in text]
    total = len(tokens)
    counts: dict[tuple[int, ...], int] = {}
    for text in TEXTS:
        for n in (2, 3):
            for i in range(len(text) - n + 1):
                gram = tuple(text[i : i + n])
                counts[gram] = counts.get(gram, 0) + 1

    def t(gram: tuple[int, ...]) -> float:
        chance = float(np.prod([tokens.count(token) / total for token in gram]))
        return (counts[gram] / total - chance) / (counts[gram] / total / total) ** 0.5

    pairs = sorted((gram for gram in counts if len(gram) == 2), key=lambda gram: (-t(gram), gram))
    triples = sorted((gram for gram in counts if len(gram) == 3), key=lambda gram: (-t(gram), gram))
    assert lexicon.grams == (*pairs[:2], triples[0])
    assert pairs[0] == (1, 2)
    assert lexicon.size == 12
    assert Lexicon.mine(TEXTS, 9, pairs=5, triples=5, least=1000).grams == ()
    with pytest.raises(InputError, match="no tokens"):
        Lexicon.mine([], 9, pairs=1, triples=1)


def test_units_are_the_longest_from_the_left() -> None:
    lexicon = Lexicon(9, ((1, 2), (5, 6), (5, 6, 7)))
    assert lexicon.units([1, 2, 3, 5, 6, 7, 5, 6, 1]) == [(1, 2), (3,), (5, 6, 7), (5, 6), (1,)]
    assert [lexicon.identity(unit) for unit in ((3,), (1, 2), (5, 6, 7))] == [3, 9, 11]


def masked(kind: str, *, inner: bool) -> dict[str, list[int]]:
    masker = Masker(Lexicon(9, ((5, 6, 7),)), 8, kind, inner, share=0.99)
    return masker.one([1, 5, 6, 7], np.random.default_rng(0))


def test_what_is_hidden_by_hand() -> None:
    assert masked("contiguous", inner=False) == {
        "ids": [8, 8, 8, 8], "at": [0, 1, 2, 3], "query": [0] * 4, "coarse": [-100] * 4, "fine": [1, 5, 6, 7],
    }  # fmt: skip
    assert masked("explicit", inner=False) == {
        "ids": [8, 8], "at": [0, 1], "query": [0, 0], "coarse": [1, 9], "fine": [-100, -100],
    }  # fmt: skip
    assert masked("explicit", inner=True) == {
        "ids": [8] * 6, "at": [0, 1, 0, 1, 2, 3], "query": [0, 0, 1, 1, 1, 1],
        "coarse": [1, 9, -100, -100, -100, -100], "fine": [-100, -100, 1, 5, 6, 7],
    }  # fmt: skip


def test_special_tokens_are_never_hidden() -> None:
    masker = Masker(Lexicon(9, ((1, 2),)), 8, "explicit", False, share=0.9, specials=frozenset({1}))
    for seed in range(20):
        found = masker.one([1, 2, 3, 4], np.random.default_rng(seed))
        assert found["ids"][:2] == [1, 2]
    assert masker.one([1, 2], np.random.default_rng(0))["coarse"] == [-100, -100]


def model(kind: str, **changes: Any) -> ErnieGram:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"dim": 16, "layers": 2, "heads": 2, "vocab": 9, "length": 12, "pairs": 2, "triples": 1}
    made = ErnieGram.start(TEXTS, ErnieGram.Config(kind=kind, share=0.3, **shape | changes), mask=8).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(5)
    return made


def test_the_text_does_not_see_the_queries_and_they_see_it() -> None:
    made = model("comprehensive")
    batch = made.source(TEXTS, batch=1, seed=0).batch(0)
    query = batch.ragged("query").values
    text = (query == 0).nonzero().flatten()
    changed = batch.ragged("at").values.clone()
    changed[query == 1] = 11
    columns = dict(batch) | {"at": type(batch.ragged("at"))(changed, batch.ragged("at").lengths)}
    one, other = made(batch)["hidden"], made(Batch(columns))["hidden"]
    torch.testing.assert_close(one[text], other[text])
    assert not torch.allclose(one[query == 1], other[query == 1])
    ids = batch.ragged("ids").values.clone()
    ids[text[0]] = 7 if ids[text[0]] != 7 else 6
    columns = dict(batch) | {"ids": type(batch.ragged("ids"))(ids, batch.ragged("ids").lengths)}
    assert not torch.allclose(one[query == 1], made(Batch(columns))["hidden"][query == 1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_each_kind_foretells(kind: str) -> None:
    made = model(kind)
    batch = made.source(TEXTS, batch=4, seed=1).batch(0)
    out = made(batch)
    expected = {
        "contiguous": {"fine_logits"},
        "explicit": {"coarse_logits"},
        "comprehensive": {"fine_logits", "coarse_logits"},
        "relation": {"fine_logits", "coarse_logits", "generator_logits", "replaced", "was_replaced"},
    }[kind]
    assert set(out) == expected | {"hidden"}
    if kind != "contiguous":
        assert out["coarse_logits"].shape == (len(rows_of(batch.ragged("coarse"))), made.lexicon.size)
    term = made.objective()(out, batch)
    term.mean.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in made.parameters() if p.grad is not None)


def test_the_generators_draws_belong_to_the_text() -> None:
    made = model("relation")
    batch = made.source(TEXTS, batch=4, seed=1).batch(0)
    whole = made(batch)
    hidden = torch.split(whole["hidden"], batch.ragged("ids").lengths.tolist())
    for i, one in enumerate(batch.split([1] * 4)):
        torch.testing.assert_close(made(one)["hidden"], hidden[i], atol=1e-5, rtol=1e-4)
    assert 0 < float(whole["was_replaced"].mean()) < 1
    # What is marked as replaced are the places whose identity is not the true one.
    text = batch.ragged("query").values == 0
    assert len(whole["was_replaced"]) == int(text.sum())
    assert not bool(whole["was_replaced"][batch.ragged("coarse").values[text] < 0].any())


def test_replacement_by_hand() -> None:
    logits = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    term = Replaced()({"replaced": logits, "was_replaced": torch.tensor([1.0, 1.0])}, {})
    assert float(term.sum.detach()) == pytest.approx(np.log1p(np.exp(-1)) + np.log1p(np.exp(2)))
    assert term.logs["replaced_right"] == 0.5


def test_collocations_depend_on_the_topic() -> None:
    texts, labels = collocated(np.random.default_rng(0), 40, tokens=30, collocations=12, topics=3, units=10, terms=2)
    again, _ = collocated(np.random.default_rng(1), 40, tokens=30, collocations=12, topics=3, units=10, terms=2)
    assert set(labels.tolist()) == {0, 1, 2}
    assert texts != again
    pairs = pairings(tokens=30, collocations=12, topics=3)
    assert len({pair for one in pairs for pair in one}) == 12
    assert len({tuple(sorted(token for pair in one for token in pair)) for one in pairs}) == 1  # one pool
    for text, label in zip(texts, labels.tolist(), strict=True):
        there = set(itertools.pairwise(text))
        assert len(there & set(pairs[label])) >= max(len(there & set(one)) for one in pairs)
    many, _ = collocated(np.random.default_rng(2), 400, tokens=30, collocations=12, topics=3, units=10, terms=2)
    assert set(Lexicon.mine(many, 30, pairs=12, triples=0).grams) == {pair for one in pairs for pair in one}


def test_the_topic_is_in_the_pairs_and_not_in_the_tokens() -> None:
    """At the claim's numbers: from how often each token occurs next to nothing is told of the topic, from how often
    each pair does nearly all."""
    made: dict[str, Any] = {"tokens": 41, "collocations": 30, "topics": 5}
    texts, labels = collocated(np.random.default_rng(5), 2000, units=16, terms=2, **made)
    known = {pair: i for i, pair in enumerate(pair for one in pairings(**made) for pair in one)}
    bags, found = np.zeros((2000, 41)), np.zeros((2000, 30))
    for row, text in enumerate(texts):
        np.add.at(bags[row], text, 1)
        np.add.at(found[row], [known[pair] for pair in itertools.pairwise(text) if pair in known], 1)
    right = [float((classify(x[:1000], labels[:1000], x[1000:]) == labels[1000:]).mean()) for x in (bags, found)]
    assert right[0] < 0.3
    assert right[1] > 0.9


def test_where_hidden_units_are_by_hand() -> None:
    """Side by side two units that touch are two, and a token alone is none; whole, each is its place."""
    lexicon = Lexicon(9, ((1, 2), (5, 6, 7)))
    made = model("contiguous")
    made.lexicon = lexicon
    ids, hidden = [3, 1, 2, 5, 6, 7, 4, 1, 2], [-100, 1, 2, 5, 6, 7, 4, -100, -100]
    batch = Batch({"ids": ragged([ids] * 2), "fine": ragged([hidden] * 2)})
    assert _spans(made, batch) == [(1, 3), (3, 6), (10, 12), (12, 15)]
    made = model("explicit")
    batch = Batch({"coarse": ragged([[-100, 9, 4, 10], [-100, -100, 9]])})
    assert _spans(made, batch) == [(1, 2), (3, 4), (6, 7)]


def test_attention_outside_is_relative_to_uniform_attention() -> None:
    """Where nothing was learned the two kinds look outside alike, however many places an n-gram has; a look at one's
    own places alone is 0."""
    language: dict[str, Any] = {"tokens": 40, "collocations": 12, "topics": 3, "units": 8, "terms": 2}
    texts, _ = collocated(np.random.default_rng(0), 300, **language)
    shares = {}
    for kind in ("contiguous", "explicit"):
        torch.manual_seed(0)
        config = ErnieGram.Config(kind=kind, dim=32, layers=2, heads=2, vocab=41, length=16, pairs=12, triples=0)
        made = ErnieGram.start(texts, config, mask=40).eval()
        _, shares[kind] = hidden_units(made, texts[:100])
    assert shares["contiguous"] == pytest.approx(100, abs=2)
    assert shares["explicit"] == pytest.approx(shares["contiguous"], abs=1)
    block = made.reader.transformer.blocks[0]
    with torch.no_grad():
        # The keys of masks alone answer to the queries of masks: what is left of attention stays with the hidden.
        made.reader.place_table.zero_()
        made.reader.table.weight.zero_()
        made.reader.table.weight[40, 0] = 1.0
        block.qkv.weight.zero_()
        block.qkv.weight[[0, 16, 32, 48], 0] = 30.0  # queries and keys of both heads
    rows = ragged([[1, 2, 3, 4]])
    batch = Batch({"ids": rows, "at": ragged([[0, 1, 2, 3]]), "query": ragged([[0] * 4])})
    batch.ragged("ids").values[1] = 40
    with torch.no_grad():
        assert _outside(made, [(1, 2)], batch)[0] < 1e-3


def test_the_claim_on_abstracts(tmp_path: Path) -> None:
    """What the probe is fitted to and measured on is not learned from, and all that the checks read is measured."""
    texts = [f"title {i}\n{' '.join(text.split())}" for i, text in enumerate(abstracts(180))]
    parts = [LabelledTexts(texts[i : i + 60], np.arange(60) % 2, ("one", "other")) for i in (0, 60)]
    write_abstracts(tmp_path, count=180, vocab=400, pairs=40, triples=20, categories=LabelledSplit(*parts))
    made = json.loads((tmp_path / "abstracts.json").read_text())
    assert len(made["learned"]) == 60 and not {*made["learned"]} & {*made["fit"], *made["held"]}
    assert made["held"][0] == texts[60].partition("\n")[2]
    read = Abstracts(tmp_path, 16)
    assert max(map(len, [*read.learned, *read.fit, *read.held])) == 16
    assert {len(gram) for gram in read.grams} == {2, 3}
    scale = replace(_ernie_gram_claim.SCALES["smoke"], abstracts=180)
    run = Run(seed=0, shared=tmp_path, folder=tmp_path / "run", progress=lambda done, total: None)
    measured = {arm: _ernie_gram_claim._abstracts(run, arm, scale) for arm in ("contiguous", "relation", "untrained")}
    checks = ErnieGram.claim("cpu").checks
    assert {check.better.split(".")[1] for check in checks} == {
        *("topic", "outside", "whole"),
        *("category", "text_outside", "text_whole"),
    }
    for one in measured.values():
        assert set(one) == {"category", "text_whole", "text_outside"}
        assert np.isfinite(list(one.values())).all()
    assert {check.better.split(".")[1] for check in ErnieGram.claim("smoke").checks} == {"topic", "outside", "whole"}


def test_training_from_texts_and_back(tmp_path: Path) -> None:
    from nextvec.training import fit, load_method

    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(json.dumps({"text": f"the red dog number {i} sleeps in the house"}) for i in range(40)))
    fit(
        "ernie_gram",
        data,
        out=tmp_path / "run",
        set=["kind=relation", "depth=1", "length=16", "steps=2", "batch=4", "vocab=300", "pairs=20", "triples=10"],
    )
    loaded = load_method(tmp_path / "run")
    assert isinstance(loaded, ErnieGram) and loaded.lexicon.grams
    states = loaded.states(ragged([[5, 6, 7], [8]]))
    assert tuple(states.shape) == (4, 64)


def test_refusals() -> None:
    with pytest.raises(InputError, match="kind is 'whole'"):
        model("whole")
    with pytest.raises(InputError, match="as many collocations for every topic"):
        pairings(tokens=30, collocations=11, topics=3)
    with pytest.raises(InputError, match="a share between 0 and 1"):
        ErnieGram(ErnieGram.Config(share=1.5, dim=16, layers=1, heads=1))
