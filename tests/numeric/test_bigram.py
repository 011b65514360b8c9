"""Bigram subnetworks: the table by hand, masks, what is measured, and models from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.methods._bigram_claim import _best  # noqa: E402
from nextvec.methods._bigram_parts import BigramTable, Causal, open_causal  # noqa: E402
from nextvec.methods.bigram_subnetworks import (  # noqa: E402
    BigramMatch,
    BigramSubnetworks,
    correlation,
    find_subnetwork,
)
from nextvec.nn.backbones.transformer import Transformer, TransformerConfig  # noqa: E402
from nextvec.types import InputError, NotFoundError, Ragged  # noqa: E402

SEQUENCES = [np.array([0, 1, 2, 1]), np.array([1, 2]), np.array([3])]


def test_the_table_by_hand() -> None:
    table = BigramTable.of(SEQUENCES, 5)
    alone = (np.array([1, 3, 2, 1, 0]) + 1) / 12
    expected = {
        0: np.eye(5)[1] / 2 + alone / 2,  # once 1: c = 1, T = 1
        1: np.eye(5)[2] * 2 / 3 + alone / 3,  # twice 2: c = 2, T = 1
        2: np.eye(5)[1] / 2 + alone / 2,
        3: alone,  # nothing follows it
        4: alone,  # never seen
    }
    rows = table(torch.tensor([0, 1, 2, 3, 4, 1]))
    for row, token in zip(rows, [0, 1, 2, 3, 4, 1], strict=True):
        np.testing.assert_allclose(row.numpy(), expected[token], rtol=1e-6)
    np.testing.assert_allclose(rows.sum(dim=1).numpy(), 1, rtol=1e-6)
    surprisal = table.surprisal(torch.tensor([1, 3]), torch.tensor([2, 0]))
    np.testing.assert_allclose(surprisal.numpy(), -np.log([expected[1][2], expected[3][0]]), rtol=1e-5)
    with pytest.raises(InputError, match="longer ones are needed"):
        BigramTable.of([np.array([1]), np.array([2])], 3)


def model() -> Causal:
    torch.manual_seed(0)
    causal = Causal(Transformer(TransformerConfig(vocab=5, dim=8, layers=2, heads=2, ffn=16, max_length=16)))
    with torch.no_grad():
        for weight in causal.parameters():
            weight.mul_(5)
    return causal.eval()


def method(**changes: float) -> BigramSubnetworks:
    return BigramSubnetworks.of(model(), BigramTable.of(SEQUENCES, 5), BigramSubnetworks.Config(**changes))


def text() -> Ragged:
    ids = torch.randint(0, 5, (24,), generator=torch.Generator().manual_seed(3))
    return Ragged(ids, torch.tensor([8, 8, 8]))


def test_all_weights_of_the_layers_have_a_mask_and_nothing_else() -> None:
    made = method()
    names = [name.removeprefix("body.") for name in made.names]
    assert names == [f"blocks.{i}.{part}.weight" for i in (0, 1) for part in ("qkv", "out", "up", "down")]
    trained = [name for name, p in made.named_parameters() if p.requires_grad]
    assert sorted(trained) == sorted(f"masks.{name.replace('.', '__')}" for name in made.names)


def test_masks_multiply_the_weights() -> None:
    """With random masks, the logits are those of a model whose weights are what the masks leave."""
    made = method()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for mask in made.masks.values():
            mask.normal_(generator=random)
        made.beta.fill_(3.0)
        plain = model()
        own = dict(plain.named_parameters())
        for name in made.names:
            own[name].mul_(torch.sigmoid(3 * made.masks[name.replace(".", "__")]))
        rows = torch.tensor([0, 5, 9])
        torch.testing.assert_close(made.logits(text(), rows, made.soft()), plain(text(), rows))
        assert not torch.allclose(made.logits(text(), rows), plain(text(), rows))
        made.after_step(10_000_000)
        for name, mask in made.soft().items():
            torch.testing.assert_close(mask, made.hard()[name].float())


def test_what_is_measured() -> None:
    made = method(seed=4)
    with torch.no_grad():
        for i, name in enumerate(made.names):
            mask = made.masks[name.replace(".", "__")]
            mask.fill_(-1.0)
            mask.view(-1)[: 3 * (i + 1)] = 1.0
        made.beta.fill_(100.0)
    found = made.measure(text())
    kept = sum(3 * (i + 1) for i in range(8))
    assert found["active"] == pytest.approx(100 * kept / sum(mask.numel() for mask in made.masks.values()))
    assert [found[f"part_{i}"] for i in range(8)] == pytest.approx([300 * (i + 1) / kept for i in range(8)])
    assert found["undecided"] == 0
    rows = torch.arange(24)[(torch.arange(24) % 8) < 7]
    logits = made.logits(text(), rows, {name: ~mask for name, mask in made.hard().items()})
    expected = torch.nn.functional.cross_entropy(logits, text().values[rows + 1])
    assert found["loss_without"] == pytest.approx(float(expected), rel=1e-5)
    assert found["loss_without"] != pytest.approx(found["loss_random"], rel=1e-3)


def test_correlation() -> None:
    one, other = (torch.randn(50, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert correlation(one, other) == pytest.approx(float(np.corrcoef(one, other)[0, 1]))
    assert correlation(one, torch.ones(50)) == 0


def test_the_loss_of_the_tables_own_logits_is_its_entropy() -> None:
    table = torch.tensor([[0.2, 0.3, 0.5], [0.9, 0.05, 0.05]], dtype=torch.float64)
    objective = BigramMatch()
    batch = {"text": Ragged(torch.zeros(3, dtype=torch.int64), torch.tensor([3]))}
    logits = table.log().requires_grad_()
    term = objective({"logits": logits, "bigram": table}, batch)
    assert float(term.mean.detach()) == pytest.approx(-float((table * table.log()).sum()) / 2)
    assert torch.autograd.gradcheck(lambda x: objective({"logits": x, "bigram": table}, batch).sum, (logits,))
    term.mean.backward()
    assert float(logits.grad.abs().max()) < 1e-12


def test_the_penalty_is_decided_on_other_texts_than_are_reported() -> None:
    few, many = ({"r": 0.94, "active": 1.0}, {"r": 0.99, "active": 5.0})
    lucky = {"r": 0.97, "active": 1.0}
    # What decides says that the few weights suffice, or that they do not, whatever the reported texts say.
    assert _best([(lucky, few), (many, many)]) is few
    assert _best([(few, lucky), (many, many)]) is many
    poor = {"r": 0.2, "active": 0.1}
    assert _best([(poor, lucky), (few, poor)]) is poor


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from nextvec.training import fit

    folder = tmp_path_factory.mktemp("bigram")
    random = np.random.default_rng(0)
    words = ["red", "small", "fast", "dog", "house", "tree", "runs", "stands"]
    lines = [{"text": " ".join(random.choice(words, size=40))} for _ in range(60)]
    data = folder / "texts.jsonl"
    data.write_text("\n".join(json.dumps(line) for line in lines))
    fit("carope", data, out=folder / "gpt", set=["depth=1", "vocab=300", "length=32", "steps=5", "positions=rope"])
    return folder / "gpt", data


def test_a_run_of_ours(run: tuple[Path, Path], tmp_path: Path) -> None:
    gpt, data = run
    made, found = find_subnetwork(str(gpt), data, steps=40, penalty=0.0, length=32, batch=4, lr=0.05)
    assert found["r"] > 0
    assert 0 < found["active"] < 100
    assert set(made.names) == set(BigramSubnetworks.load(made.save(tmp_path / "kept")).names)


def test_a_model_of_hugging_faces(run: tuple[Path, Path], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    gpt, data = run
    _, tokenizer = open_causal(str(gpt))
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=tokenizer.vocab, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save(tmp_path / "gpt2")
    made, found = find_subnetwork(str(tmp_path / "gpt2"), data, steps=3, length=32, batch=4)
    assert len(made.names) == 8
    assert not any("wte" in name or "wpe" in name for name in made.names)
    assert np.isfinite(list(found.values())).all()


def test_refusals(run: tuple[Path, Path], tmp_path: Path) -> None:
    gpt, _ = run
    with pytest.raises(NotFoundError):
        open_causal(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="name the model"):
        BigramSubnetworks(BigramSubnetworks.Config())
    with pytest.raises(InputError, match="growth"):
        method(growth=0.5)
    (tmp_path / "few.jsonl").write_text('{"text": "red dog"}\n')
    with pytest.raises(InputError, match="expected ten or more"):
        find_subnetwork(str(gpt), tmp_path / "few.jsonl")
