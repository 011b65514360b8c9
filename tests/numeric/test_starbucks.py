"""Starbucks: the loss on fixed sizes against NumPy, nested masks of whole words, both stages on texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.data.tokenizers import train_bpe  # noqa: E402
from nextvec.engine.engine import Engine, TrainConfig  # noqa: E402
from nextvec.engine.optim import OptimConfig  # noqa: E402
from nextvec.methods._starbucks_parts import NestedMasks  # noqa: E402
from nextvec.methods.starbucks import Starbucks  # noqa: E402
from nextvec.objectives.fixed_sizes import FixedSizes  # noqa: E402
from nextvec.objectives.info_nce import InfoNCE  # noqa: E402
from nextvec.objectives.masked_tokens import MaskedTokens  # noqa: E402
from nextvec.types import Batch, InputError, Ragged  # noqa: E402

B, L, D = 5, 3, 8
SIZES = ((1, 2), (2, 4), (3, 8))


def outputs() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {f"{n}_layers": torch.randn(B, L, D, generator=random, dtype=torch.float64) for n in ("query", "document")}


def softmax(x: np.ndarray) -> np.ndarray:
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def contrast(q: np.ndarray, d: np.ndarray, temperature: float) -> float:
    """One direction of InfoNCE over cosines."""
    scores = softmax(unit(q) @ unit(d).T / temperature)
    return float(-np.log(np.diag(scores)).mean())


def test_coordinates_against_numpy() -> None:
    out = outputs()
    q, d = (out[f"{name}_layers"].numpy() for name in ("query", "document"))
    expected = sum(contrast(q[:, n - 1, :w], d[:, n - 1, :w], 0.2) for n, w in SIZES)
    for n, w in SIZES[:-1]:
        rows = np.concatenate([q, d])
        target, guess = softmax(rows[:, -1, :w]), softmax(rows[:, n - 1, :w])
        expected += 0.7 * 0.3 * float((target * np.log(target / guess)).sum(1).mean())
    made = FixedSizes(InfoNCE(temperature=0.2, symmetric=False), sizes=SIZES, weight=0.7)
    assert float(made(out, {}).mean) == pytest.approx(expected, rel=1e-10)


def test_candidates_against_numpy() -> None:
    out = outputs()
    q, d = (out[f"{name}_layers"].numpy() for name in ("query", "document"))
    expected = sum(contrast(q[:, n - 1, :w], d[:, n - 1, :w], 0.2) for n, w in SIZES)
    whole = softmax(unit(q[:, -1]) @ unit(d[:, -1]).T / 0.1)
    for n, w in SIZES[:-1]:
        small = softmax(unit(q[:, n - 1, :w]) @ unit(d[:, n - 1, :w]).T / 0.1)
        expected += float((whole * np.log(whole / small)).sum(1).mean())
    inner = InfoNCE(temperature=0.2, symmetric=False)
    made = FixedSizes(inner, sizes=SIZES, form="candidates", temperature=0.1)
    assert float(made(out, {}).mean) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("form", ["coordinates", "candidates", "none"])
def test_gradients(form: str) -> None:
    made = FixedSizes(InfoNCE(), sizes=SIZES, form=form)
    rows = [x.requires_grad_() for x in outputs().values()]
    if form == "candidates":  # the whole model is a constant there, which finite differences cannot know
        made(dict(zip(("query_layers", "document_layers"), rows, strict=True)), {}).mean.backward()
        assert all(bool(x.grad.abs().sum((0, 2)).gt(0).all()) for x in rows)
        return
    assert torch.autograd.gradcheck(lambda q, d: made({"query_layers": q, "document_layers": d}, {}).mean, rows)


def test_optimising_it_brings_small_sizes_to_the_whole() -> None:
    out = {name: x.requires_grad_() for name, x in outputs().items()}
    made = FixedSizes(InfoNCE(temperature=0.2), sizes=SIZES)
    optimiser = torch.optim.Adam(out.values(), lr=0.05)
    seen = []
    for _ in range(80):
        optimiser.zero_grad()
        term = made(out, {})
        term.mean.backward()
        optimiser.step()
        seen.append(term.logs)
    assert seen[-1]["kl"] < seen[0]["kl"] / 2
    assert seen[-1]["info_nce_accuracy/1x2"] > seen[0]["info_nce_accuracy/1x2"]


def test_what_sizes_cannot_be() -> None:
    for sizes in ([], [(0, 4)], [(1, 4), (1, 4)], [(2, 8), (1, 4)]):
        with pytest.raises(InputError, match="sizes"):
            FixedSizes(InfoNCE(), sizes=sizes)
    with pytest.raises(InputError, match="said to be 9 wide"):
        FixedSizes(InfoNCE(), sizes=[(1, 2), (3, 9)])(outputs(), {})
    with pytest.raises(InputError, match="expected one of coordinates"):
        FixedSizes(InfoNCE(), sizes=SIZES, form="other")


# ---------------------------------------------------------------------------- masked tokens


def test_masked_tokens_by_hand() -> None:
    labels = Ragged(torch.tensor([-100, 1, -100, 0, -100]), torch.tensor([3, 2]))
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    term = MaskedTokens()({"logits": logits}, {"labels": labels})
    assert term.count == 2 == MaskedTokens().count({"labels": labels})
    # -log softmax: log(1 + e^-2) for both
    assert float(term.sum) == pytest.approx(2 * np.log1p(np.exp(-2)))
    assert torch.autograd.gradcheck(lambda x: MaskedTokens()({"logits": x}, {"labels": labels}).sum, [logits])
    with pytest.raises(InputError, match=r"expected \[2, vocabulary\]"):
        MaskedTokens()({"logits": logits[:1]}, {"labels": labels})
    with pytest.raises(InputError, match="need a batch column 'labels'"):
        MaskedTokens()({"logits": logits}, {})


# ---------------------------------------------------------------------------- masks


def test_masks_nest_and_take_whole_words() -> None:
    texts = ["understanding embeddings beautifully takes patience", "a", "unbelievable unbelievable words " * 30]
    tokenizer = train_bpe(texts, vocab=290)
    ids = tokenizer.encode(texts * 40)
    tokens = Ragged(torch.tensor([i for text in ids for i in text]), torch.tensor([len(text) for text in ids]))
    made = NestedMasks.of(tokenizer)(Batch({"text": tokens}), np.random.default_rng(0))
    few, many = (made.ragged(name).values >= 0 for name in ("encoder_labels", "decoder_labels"))
    assert bool((many | ~few).all())
    assert 0.15 < float(few.float().mean()) < 0.3 < float(many.float().mean()) < 0.5
    assert not few[torch.isin(tokens.values, torch.tensor(sorted(tokenizer.specials)))].any()
    seen, labels = made.ragged("encoder").values, made.ragged("encoder_labels").values
    assert bool((seen[few] == tokenizer.mask).all()) and bool((seen[~few] == tokens.values[~few]).all())
    assert bool((labels[few] == tokens.values[few]).all())
    for text, own in zip(ids, torch.split(few, tokens.lengths.tolist()), strict=True):
        assert bool(own.any()) or not set(text) - tokenizer.specials
    # A token that goes on with a word has the fate of the one before it.
    begins = NestedMasks.of(tokenizer).begins
    goes_on = ~torch.from_numpy(begins)[tokens.values] & ~torch.isin(tokens.values, torch.tensor([0, 1, 2, 3]))
    places = goes_on.nonzero().squeeze(1)
    places = places[tokens.values[places - 1] != tokenizer.bos]
    assert len(places) > 100
    assert bool((few[places] == few[places - 1]).all())


# ---------------------------------------------------------------------------- both stages


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("starbucks") / "pairs.jsonl"
    words = ("red", "small", "fast", "old", "deep", "warm", "loud", "round", "dark", "soft")
    rows = [{"query": f"a {one} {two}", "document": f"it is {one} and {two}"} for one in words for two in words]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pre_training_falls_at_every_size_and_is_a_base(data: Path, tmp_path: Path) -> None:
    config = Starbucks.Config(stage="smae", depth=2, vocab=300, max_length=16)
    method, source = Starbucks.prepare(data, config, batch=32, seed=0, folder=tmp_path)
    first = method.objective()(method(source.batch(0)), source.batch(0)).logs
    Engine(method, TrainConfig(steps=60, batch=32, optim=OptimConfig(lr=3e-3))).fit(source)
    last = method.objective()(method(source.batch(0)), source.batch(0)).logs
    assert len(first) == 4 and all(last[name] < first[name] - 0.5 for name in first)
    method.encoder().save(tmp_path / "base")
    tuned, _ = Starbucks.prepare(
        data, Starbucks.Config(base=str(tmp_path / "base"), max_length=16), batch=8, seed=0, folder=tmp_path
    )
    assert torch.equal(tuned.transformer.head_weight(), method.transformer.head_weight())


def test_what_it_was_trained_on_is_what_it_can_be_cut_to() -> None:
    method, _ = Starbucks.toy(0)
    assert method.sizes == ((1, 8), (2, 16), (3, 32))
    encoder = method.eval().encoder()
    assert (encoder.nested_dims, encoder.nested_layers) == ([8, 16, 32], [1, 2, 3])
    assert encoder.encode(["a text"], dim=8, layers=1).shape == (1, 8)


def test_settings_that_make_no_sense(data: Path, tmp_path: Path) -> None:
    for settings, words in (
        ({"stage": "both"}, "stage is 'both'"),
        ({"sizes": ("1x8", "2by16")}, "'2by16'"),
        ({"sizes": ("1x8", "2x16")}, "whole model's"),
        ({"form": "none of these"}, "form is"),
    ):
        with pytest.raises(InputError, match=words):
            Starbucks.prepare(
                data, Starbucks.Config(depth=2, vocab=300, max_length=16, **settings), batch=8, seed=0, folder=tmp_path
            )
