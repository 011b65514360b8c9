"""NV-Embed: instructions are left out of the average, stages have their negatives, a run goes on from another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.data.sources import ragged  # noqa: E402
from nextvec.engine.engine import Engine, TrainConfig  # noqa: E402
from nextvec.engine.optim import OptimConfig  # noqa: E402
from nextvec.methods._nv_embed_claim import SCALES, Tasks  # noqa: E402
from nextvec.methods._pooling_attention_claim import World  # noqa: E402
from nextvec.methods.nv_embed import POOLERS, NvEmbed  # noqa: E402
from nextvec.types import InputError  # noqa: E402


def settings(**changes: object) -> NvEmbed.Config:
    return NvEmbed.Config(depth=2, vocab=300, max_length=40, latents=3, **changes)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    words = ("red", "small", "fast", "old", "deep", "warm")
    rows = [{"query": f"a {one} {two}", "document": f"it is {one} and {two}"} for one in words for two in words]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("pooler", POOLERS)
def test_the_instruction_is_read_and_not_averaged(data: Path, tmp_path: Path, pooler: str) -> None:
    """The vector is the pooled states after the instruction, and those depend on it."""
    config = settings(instruction="find the thing", pooler=pooler, hard=0)
    method, source = NvEmbed.prepare(data, config, batch=36, seed=0, folder=tmp_path)
    batch = source.batch(0)
    out = method(batch)["query"]
    text = batch.ragged("query")
    hidden = torch.split(method.transformer(text), text.lengths.tolist())
    for states, skip, vector in zip(hidden, batch.tensor("query_skip").tolist(), out, strict=True):
        assert 5 < skip < len(states)
        after = states[skip:]
        if pooler == "latent":
            expected = method.pooler.tokens(after).mean(0)
        elif pooler == "mean":
            expected = after.mean(0)
        elif pooler == "lasttoken":
            expected = after[-1]
        else:
            expected = (method.pooler.weights(after, torch.tensor([len(after)])) * after).sum(0)
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-4)
    ids = method.text_tokenizer().encode(["a red thing"])
    plain = method.transformer(ragged(ids))[1:]
    led = method.text_tokenizer().encode([method.prompt() + "a red thing"])
    assert not torch.allclose(method.transformer(ragged(led))[-len(plain) :], plain, atol=1e-3)


def test_what_is_skipped_is_the_instruction_alone(data: Path, tmp_path: Path) -> None:
    method, _ = NvEmbed.prepare(data, settings(instruction="find it", hard=0), batch=36, seed=0, folder=tmp_path)
    tokenizer = method.text_tokenizer()
    for query, skip in zip(("a red old", "warm"), method.skipped(["a red old", "warm"]).tolist(), strict=True):
        ids = tokenizer.encode([method.prompt() + query])[0]
        rest = tokenizer.decode([ids[skip:]])[0].strip()
        assert rest.endswith(query) and len(rest) <= len(query) + 2  # a token may hold the end of the instruction
    vectors = method.eval().encode_queries(["a red old", "warm"])
    batch = method.instructed(_pairs(), None, batch=2, seed=0).batch(0)
    rows = method(batch)["query"].detach().numpy()
    assert {tuple(np.round(row, 3)) for row in rows} == {tuple(np.round(row, 3)) for row in vectors}


def _pairs():  # type: ignore[no-untyped-def]
    from nextvec.data.pairs import Pairs

    return Pairs(["a red old", "warm"], ["x y", "z"])


def test_stages_have_their_negatives(data: Path, tmp_path: Path) -> None:
    """In stage 2 the documents of other rows have no gradient from a query's loss."""
    for stage, others in ((1, True), (2, False)):
        method, source = NvEmbed.prepare(data, settings(stage=stage), batch=6, seed=0, folder=tmp_path)
        batch = source.batch(0)
        out = {name: rows.detach().requires_grad_() for name, rows in method(batch).items()}
        weight = torch.zeros(6)
        weight[0] = 1
        method.objective()(out, {**batch.columns, "weight": weight}).sum.backward()
        moved = out["document"].grad.abs().sum(1) > 0
        assert bool(moved[0]) and bool(moved[1:].any()) == others
        assert (out["neg0"].grad.abs().sum(1) > 0).tolist() == [True, *[False] * 5]


def test_the_second_stage_goes_on_from_the_first(data: Path, tmp_path: Path) -> None:
    first, source = NvEmbed.prepare(data, settings(instruction="find"), batch=12, seed=0, folder=tmp_path)
    Engine(first, TrainConfig(steps=10, batch=12, optim=OptimConfig(lr=3e-3))).fit(source)
    first.save(tmp_path / "run" / "model")
    config = replace(settings(stage=2, instruction="find"), start_from=str(tmp_path / "run"), latents=9)
    second, _ = NvEmbed.prepare(data, config, batch=12, seed=0, folder=tmp_path)
    ours, theirs = second.state_dict(), first.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert second.config.stage == 2 and second.config.latents == 3


def test_training_brings_answers_first(data: Path, tmp_path: Path) -> None:
    method, source = NvEmbed.prepare(data, settings(), batch=36, seed=0, folder=tmp_path)
    Engine(method, TrainConfig(steps=60, batch=36, optim=OptimConfig(lr=2e-3))).fit(source)
    queries, documents = (
        method.eval().encode_queries(["a red old", "a deep warm"]),
        method.encode_documents(["it is red and old", "it is deep and warm"]),
    )
    assert (queries @ documents.T).argmax(1).tolist() == [0, 1]


def test_tasks_are_what_they_say() -> None:
    scale = SCALES["smoke"]
    batch = Tasks(World(scale, 0)).batch(np.random.default_rng(0), 20, task="both")
    documents, wrong = batch.ragged("document"), batch.ragged("neg0")
    assert sorted(documents.lengths.tolist()) == [2] * 10 + [scale.length] * 10
    named = [own[0].item() for own in documents.values.split(documents.lengths.tolist()) if len(own) == 2]
    others = [own[0].item() for own in wrong.values.split(wrong.lengths.tolist()) if len(own) == 2]
    assert all(a != b and min(a, b) >= 1 + scale.needles + scale.common for a, b in zip(named, others, strict=True))


def test_settings_that_make_no_sense() -> None:
    for changes, words in (
        ({"stage": 3}, "stage is 3"),
        ({"stage": 2, "hard": 0}, "or 2 with hard negatives"),
        ({"pooler": "max"}, "pooler is 'max'"),
    ):
        with pytest.raises(InputError, match=words):
            NvEmbed(settings(**changes))
