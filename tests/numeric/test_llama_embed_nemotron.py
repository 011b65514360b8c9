"""Llama-Embed-Nemotron: what a query is compared with, what is mined for it, and what merging does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.data.pairs import Pairs  # noqa: E402
from nextvec.methods.llama_embed_nemotron import LlamaEmbedNemotron  # noqa: E402
from nextvec.text_claims import Measured, TextScale  # noqa: E402
from nextvec.text_method import toy_pairs  # noqa: E402
from nextvec.types import Batch, InputError, Ragged  # noqa: E402

Config = LlamaEmbedNemotron.Config


def test_the_loss_is_that_of_the_hard_negatives_alone() -> None:
    """Beside NumPy; another query's document may change and nothing moves."""
    random = np.random.default_rng(0)
    vectors = {name: random.normal(size=(4, 6)) for name in ("query", "document", "neg0", "neg1")}
    method, _ = LlamaEmbedNemotron.toy(0)
    objective = method.objective().double()
    out = {name: torch.from_numpy(rows) for name, rows in vectors.items()}
    unit = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in vectors.items()}
    scores = np.stack([(unit["query"] * unit[name]).sum(1) for name in ("document", "neg0", "neg1")], 1) / 0.02
    expected = (np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1) - scores[:, 0]).mean()
    assert float(objective(out, {}).mean) == pytest.approx(expected)
    swapped = dict(out, document=torch.cat([out["document"][:1], torch.randn(3, 6, dtype=torch.float64)]))
    losses = [float(objective({n: x[:1] for n, x in given.items()}, {}).mean) for given in (out, swapped)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("against", "batch", "queries"), [("hard", False, False), ("batch", True, False), ("all", True, True)]
)
def test_what_stands_in_the_loss(against: str, batch: bool, queries: bool) -> None:
    """Whether query 0's gradient reaches the other documents and the other queries."""
    method, _ = LlamaEmbedNemotron.toy(0)
    method.config.against = against
    random = torch.Generator().manual_seed(0)
    names = ("query", "document", "neg0", "neg1")
    out = {name: torch.randn(3, 6, generator=random, requires_grad=True) for name in names}
    weight = torch.tensor([1.0, 0.0, 0.0])  # the loss of query 0 alone
    method.objective()(out, Batch({"weight": weight})).sum.backward()
    moved = {name: x.grad is not None and bool(x.grad[1:].abs().sum() > 0) for name, x in out.items()}
    assert moved == {"query": queries, "document": batch, "neg0": False, "neg1": False}


def test_mined_documents_never_answer_the_query() -> None:
    pairs = Pairs(["red", "red", "blue", "green"], ["a red thing", "it is red", "a blue thing", "something green"])
    method = LlamaEmbedNemotron.start(Config(depth=1, vocab=300, hard=2), [*pairs.queries, *pairs.documents])
    chosen = method.mine(pairs, 2, seed=0)
    assert chosen.shape == (4, 2)
    assert set(chosen[0]) == set(chosen[1]) == {2, 3}  # both answers of "red" are left out, and no two are alike
    assert 2 not in chosen[2] and 3 not in chosen[3]


def test_rows_and_negatives_belong_together() -> None:
    method, _ = LlamaEmbedNemotron.toy(0)
    pairs, chosen = toy_pairs(), np.array([[(i + 1) % 8, (i + 2) % 8] for i in range(8)])
    batch = method.source(pairs, batch=3, seed=0, hard=chosen, rows=np.array([5, 0, 7])).batch(0)
    read = {n: method.text_tokenizer().decode(_lists(batch.ragged(n))) for n in ("query", "document", "neg0", "neg1")}
    seen = [pairs.documents.index(text) for text in read["document"]]
    assert sorted(seen) == [0, 5, 7]
    assert read["query"] == [pairs.queries[i] for i in seen]
    for h in (0, 1):
        assert read[f"neg{h}"] == [pairs.documents[chosen[i, h]] for i in seen]


def test_the_instruction_stands_before_queries_alone(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"query": q, "document": d} for q, d in zip(toy_pairs().queries, toy_pairs().documents, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = Config(depth=1, vocab=300, instruction="find it", hard=1)
    method, source = LlamaEmbedNemotron.prepare(path, config, batch=4, seed=0, folder=tmp_path)
    batch = source.batch(0)
    text = method.text_tokenizer().decode(_lists(batch.ragged("query")))
    assert all(one.replace("\n", " ").startswith("Instruct: find it Query:") for one in text)
    assert not any("Instruct" in one for one in method.text_tokenizer().decode(_lists(batch.ragged("neg0"))))
    encoder = method.eval().encoder()
    asked = encoder.encode(["a red thing"], role="query")
    np.testing.assert_allclose(asked, encoder.encode([method.prompt() + "a red thing"], role="document"), atol=1e-6)


def test_merging_averages_weights() -> None:
    members = [LlamaEmbedNemotron.toy(seed)[0] for seed in range(3)]
    merged = LlamaEmbedNemotron.merge(members)
    for name, value in merged.state_dict().items():
        torch.testing.assert_close(value, torch.stack([m.state_dict()[name] for m in members]).mean(0))
    with pytest.raises(InputError, match="at least two are needed"):
        LlamaEmbedNemotron.merge(members[:1])


def test_the_ensemble_averages_cosines() -> None:
    method, _ = LlamaEmbedNemotron.toy(0)
    texts = {"sts": [["a", "b", 1], ["c", "d", 2]], "papers": [["a red thing", "it is red"], ["x", "y"]]}
    made = [Measured(lambda t, s=s: s * method.vectors(t), method.text_tokenizer(), texts, TextScale()) for s in (1, 7)]
    both = Measured.beside(made)
    assert both.points() == pytest.approx(made[0].points())  # the same directions twice


@pytest.mark.parametrize(("given", "words"), [({"against": "hrd"}, "did you mean 'hard'"), ({"hard": 0}, "hard is 0")])
def test_settings_that_make_no_sense_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LlamaEmbedNemotron(Config(depth=1, vocab=300, **given))


def _lists(column: Ragged) -> list[list[int]]:
    return [ids.tolist() for ids in torch.split(column.values, column.lengths.tolist())]
