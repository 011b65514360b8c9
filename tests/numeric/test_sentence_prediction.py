"""Sentence by sentence: restoration and reasoning by hand, solving through the cache, the lens, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.data.reasoning import Chain  # noqa: E402
from nextvec.data.sources import ragged  # noqa: E402
from nextvec.engine.engine import Engine  # noqa: E402
from nextvec.generate import Generated  # noqa: E402
from nextvec.methods import _sentence_claim  # noqa: E402
from nextvec.methods._sentence_parts import Solution, decode, flops, lens, sentences_of  # noqa: E402
from nextvec.methods.sentence_prediction import KINDS, SentencePrediction, Stops  # noqa: E402
from nextvec.nn.backbones.transformer import Transformer  # noqa: E402
from nextvec.types import Batch, InputError, Ragged, Run  # noqa: E402

CHAINS = [Chain("3+4", ("3+4=7;",), "7"), Chain("1+2*3", ("1+2=3;", "3*3=9;"), "9")]


def model(stage: str = "latent", **changes: Any) -> SentencePrediction:
    shape: dict[str, Any] = {"dim": 16, "layers": 2, "heads": 2, "length": 64, "stage": stage, **changes}
    made = SentencePrediction.start(SentencePrediction.Config(**shape), seed=0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(1 if "tokens" in name else 4)
    return made.eval()


def test_what_the_encoder_is_given() -> None:
    contextual = model("embed", kind="contrast").columns(CHAINS)
    made = model("embed")
    question, first, second, answer = (made.ids([text])[0] for text in ("1+2*3", "1+2=3;", "3*3=9;", "answer 9"))
    assert contextual["given"][2:] == [question, question + first, question + first + second]
    assert contextual["said"][2:] == contextual["alone"][2:] == [first, second, answer]
    assert model("embed", kind="semantic").columns(CHAINS)["given"][2:] == [first, second, answer]
    tokens = model("tokens").columns(CHAINS)
    assert tokens["text"][1] == question + first + second + answer[:-1] + [made.close]
    assert tokens["prompt"].tolist() == [4, 6]
    assert model("tokens", chains=False).columns(CHAINS)["text"][1] == question + answer[:-1] + [made.close]
    assert sentences_of(CHAINS[1]) == ["1+2=3;", "3*3=9;", "answer 9"]


def test_restoration_reads_the_vector_and_then_the_words_by_hand() -> None:
    made = model("embed", kind="contrast")
    columns = made.columns(CHAINS)
    batch = Batch({name: ragged(rows) for name, rows in columns.items()})
    out = made(batch)
    start = 0
    for i, (given, said) in enumerate(zip(columns["given"], columns["said"], strict=True)):
        vector = made.autoencoder(ragged([given]))[-1]
        torch.testing.assert_close(out["context"][i], vector, atol=1e-5, rtol=1e-4)
        words = made.autoencoder.embed(torch.tensor(said[:-1]))
        hidden = made.autoencoder(Ragged(torch.cat([vector[None], words]), torch.tensor([len(said)])))
        torch.testing.assert_close(
            out["logits"][start : start + len(said)], made.autoencoder.logits(hidden), atol=1e-4, rtol=1e-4
        )
        start += len(said)
    assert len(out["logits"]) == start


@pytest.mark.parametrize("kind", KINDS)
def test_the_reasoner_sees_what_was_said_before_and_not_what_it_foretells(kind: str) -> None:
    made = model(kind=kind)
    batch = made.source(CHAINS, batch=2, seed=0).batch(0)
    assert batch.ragged("states").lengths.tolist() in ([2, 3], [3, 2])
    out = made(batch)
    first = 2 if batch.ragged("states").lengths[0] == 2 else 0  # where the longer chain begins
    states = batch.ragged("states").values.clone()
    states[first + 1] += 1.0  # its second sentence
    other = made(Batch(dict(batch) | {"states": Ragged(states, batch.ragged("states").lengths)}))
    same = [torch.allclose(a, b) for a, b in zip(out["pred_0"], other["pred_0"], strict=True)]
    assert [i for i, equal in enumerate(same) if not equal] == [first + 2]
    expected = made.embed([[c.question, *sentences_of(c)[: i + 1]] for c in CHAINS[1:] for i in range(3)])
    torch.testing.assert_close(batch.ragged("states").values[first : first + 3], expected, atol=1e-5, rtol=1e-4)


def test_only_the_reasoner_learns_in_the_last_stage() -> None:
    made = model()
    batch = made.source(CHAINS, batch=2, seed=0).batch(0)
    made.objective()(made(batch), batch).mean.backward()
    moved = {name.partition(".")[0] for name, p in made.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved == {"reasoner", "enter", "leave", "stop"}


def test_the_last_stage_learns(tmp_path: Path) -> None:
    """Loss and stopping get better on what is learned, with a decoder that can speak."""
    first = model("embed", kind="contrast")
    batch = first.source(CHAINS, batch=5, seed=0).batch(0)
    for made, steps in ((first, 150), (None, 150)):
        if made is None:
            first.save(tmp_path / "embed")
            made = SentencePrediction.start(
                SentencePrediction.Config(dim=16, layers=2, heads=2, length=64, start_from=str(tmp_path / "embed")),
                seed=0,
            )
            batch = made.source(CHAINS, batch=2, seed=0).batch(0)
        optimiser = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=5e-3)
        losses = []
        for _ in range(steps):
            term = made.objective()(made(batch), batch)
            optimiser.zero_grad()
            term.mean.backward()
            optimiser.step()
            losses.append(float(term.mean.detach()))
        assert losses[-1] < 0.7 * losses[0]
    assert term.logs["stop_right"] == 1.0
    for chain, solution in zip(CHAINS, made.eval().solve([c.question for c in CHAINS], budget=4), strict=True):
        assert len(solution.states) == len(chain.steps) + 1
        assert not solution.cut


def test_stopping_by_hand() -> None:
    logits = torch.tensor([-1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    batch = {"states": Ragged(torch.zeros(3, 2), torch.tensor([2, 1]))}
    term = Stops()({"stop": logits}, batch)
    expected = np.log1p(np.exp(-1.0)) + np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-0.5))
    assert float(term.sum.detach()) == pytest.approx(expected)
    assert term.logs["stop_right"] == 1.0
    assert torch.autograd.gradcheck(lambda x: Stops()({"stop": x}, batch).sum, (logits,))


def test_a_continuous_solution_reads_every_place_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It equals whole passes, and the reasoner reads the question once and then one place per sentence."""
    made = model()
    with torch.no_grad():
        made.stop[-1].weight.zero_()
        made.stop[-1].bias.fill_(-5.0)  # never stops
    seen: list[int] = []
    inner = Transformer.forward_cached

    def counted(self: Any, inputs: Any, cache: Any) -> Any:
        if self is made.reasoner:
            seen.append(inputs.shape[0] * inputs.shape[1])
        return inner(self, inputs, cache)

    monkeypatch.setattr(Transformer, "forward_cached", counted)
    solutions = made.solve(["3+4", "1+2*3"], budget=4, most=5)
    assert seen == [2, 2, 2]
    for question, solution in zip(("3+4", "1+2*3"), solutions, strict=True):
        assert solution.cut and len(solution.states) == 4
        rows = made.reasoner.embed(torch.tensor(made.ids([question])[0]))
        for state in solution.states:
            with torch.no_grad():
                hidden = made.reasoner(Ragged(rows, torch.tensor([len(rows)])))[-1]
                torch.testing.assert_close(made.leave(hidden), state, atol=1e-4, rtol=1e-4)
                rows = torch.cat([rows, made.enter(state)[None]])
    discrete = made.solve(["3+4"], continuous=False, budget=3, most=5)[0]
    assert len(discrete.sentences) == 3
    assert discrete.decoder_places > solutions[0].decoder_places


def watch(monkeypatch: pytest.MonkeyPatch, made: SentencePrediction) -> list[tuple[str, int]]:
    """Which transformer ran, and how many places it read."""
    seen: list[tuple[str, int]] = []
    for name in ("forward", "prefill", "forward_cached"):
        inner = getattr(Transformer, name)

        def counted(self: Any, inputs: Any, *rest: Any, inner: Any = inner, name: str = name) -> Any:
            part = "reasoner" if self is made.reasoner else "encoder" if name == "forward" else "decoder"
            seen.append((part, len(inputs.values) if isinstance(inputs, Ragged) else inputs.shape[0]))
            return inner(self, inputs, *rest)

        monkeypatch.setattr(Transformer, name, counted)
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("continuous", [True, False])
def test_places_are_those_that_are_read(kind: str, continuous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All questions together read what their solutions say: solved ones leave, and sentences are read again at once."""
    made = model(kind=kind)
    with torch.no_grad():
        made.stop[-1].bias.fill_(-5.0)
        made.autoencoder.tokens.weight[made.end] *= 3  # sentences of several lengths
    seen = watch(monkeypatch, made)
    solutions = made.solve(["3+4", "1+2*3", "7"], continuous=continuous, budget=4, most=6)
    total = {part: sum(count for name, count in seen if name == part) for part in ("reasoner", "decoder", "encoder")}
    assert total["reasoner"] == sum(one.reasoner_places for one in solutions)
    assert total["decoder"] == sum(sum(one.decoded) for one in solutions)
    assert total["encoder"] == sum(sum(one.encoded) for one in solutions)
    assert total["encoder"] + total["decoder"] == sum(one.decoder_places for one in solutions)
    steps = max(len(one.states) for one in solutions)
    assert [name for name, _ in seen].count("encoder") == (0 if continuous else steps - 1)


def test_operations_of_a_solution_by_hand() -> None:
    """One layer of width 4; 192 weights in a block: 48 + 16 for attention, 64 + 64 after it."""
    made = model(dim=4, layers=1, activation="gelu")
    solution = Solution(states=[torch.zeros(4)] * 3, asked=5, decoded=[2], encoded=[6, 4])
    assert (solution.reasoner_places, solution.decoder_places) == (7, 12)
    assert solution.passes == 3 + 2 + 2  # question and two embeddings; two places decoded; two sentences encoded
    blocks = 2 * 192 * (7 + 12)
    attended = 2 * 2 * 4 * sum(n * (n + 1) // 2 for n in (7, 2, 6, 4))
    spoken = 2 * 2 * 4 * 262
    between = 2 * (3 * (4 * 4 + 4 * 192 + 192 * 48 + 48) + 2 * 4 * 4)
    assert made.config.vocab == 262
    assert flops(made, solution) == blocks + attended + spoken + between


def test_solved_questions_leave_and_change_nothing() -> None:
    """Questions that stop at different steps are solved as each is alone."""
    made = model()
    questions = [f"{a}{sign}{b}" for a in range(4) for sign in "+-*" for b in range(3)]
    with torch.no_grad():
        hidden = made.stop[0](made.reasoner(ragged(made.ids(questions))))
        # Between the two in the middle: at one of them, the last digit would say whether it stops.
        made.stop[-1].bias.sub_(made.stop[1:](hidden).quantile(0.5))
    for continuous in (True, False):
        together = made.solve(questions, continuous=continuous, budget=5, most=5)
        assert len({len(one.states) for one in together}) > 1
        for question, solution in zip(questions, together, strict=True):
            (alone,) = made.solve([question], continuous=continuous, budget=5, most=5)
            assert (alone.sentences, alone.cut, alone.decoded) == (solution.sentences, solution.cut, solution.decoded)
            assert len(alone.states) == len(solution.states)


def test_decoding_equals_whole_passes() -> None:
    made = model()
    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    for vector, found in zip(vectors, decode(made, vectors, most=6), strict=True):
        rows, ids = vector[None], []
        while len(ids) < 6:
            with torch.no_grad():
                token = int(
                    made.autoencoder.logits(made.autoencoder(Ragged(rows, torch.tensor([len(rows)])))[-1]).argmax()
                )
            if token == made.end:
                break
            ids.append(token)
            rows = torch.cat([rows, made.autoencoder.embed(torch.tensor([token]))])
        assert found == ids


def test_the_lens_shows_every_layer_of_every_step() -> None:
    made = model()
    (last,) = made.solve(["1+2"], budget=3, most=5)
    found, steps = list(lens(made, "1+2", last, most=5)), len(last.states)
    assert sorted((step, layer) for step, layer, _, _ in found) == [
        (step, layer) for step in range(1, steps + 1) for layer in range(3)
    ]
    assert all(cosine == pytest.approx(1, abs=1e-4) for _, layer, _, cosine in found if layer == 2)
    assert [text for step, layer, text, _ in found if (step, layer) == (steps, 2)] == last.sentences


def test_runs_one_after_the_other_and_the_page(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from nextvec.cli.main import build
    from nextvec.training import fit

    data = tmp_path / "chains.jsonl"
    records = [{"question": c.question, "steps": c.steps, "answer": c.answer} for c in CHAINS * 4]
    data.write_text("\n".join(map(json.dumps, records)))
    shape = ["dim=16", "layers=1", "heads=2", "length=64", "steps=2", "batch=4"]
    with pytest.raises(InputError, match="goes on from a run of 'embed'"):
        fit("sentence_prediction", data, out=tmp_path / "none", set=shape)
    fit("sentence_prediction", data, out=tmp_path / "a", set=[*shape, "stage=tokens"])
    fit("sentence_prediction", data, out=tmp_path / "b", set=[*shape, "stage=embed", f"start_from={tmp_path / 'a'}"])
    fit("sentence_prediction", data, out=tmp_path / "c", set=[*shape, f"start_from={tmp_path / 'b'}"])
    asked = ["lens", str(tmp_path / "c"), "-q", "3+<4", "--budget", "3", "--html", str(tmp_path / "lens.html")]
    result = CliRunner().invoke(build(), asked)
    assert result.exit_code == 0, result.output
    assert "layer 1" in result.output
    page = (tmp_path / "lens.html").read_text()
    assert "3+&lt;4" in page and "<script" not in page
    assert CliRunner().invoke(build(), ["lens", str(tmp_path / "a"), "-q", "3+4"]).exit_code != 0


def test_refusals() -> None:
    with pytest.raises(InputError, match="empty sentence"):
        model().columns([Chain("1+1", ("1+1=2;", "  "), "2")])
    with pytest.raises(InputError, match="raise length"):
        model().columns([Chain("1" * 60, ("1+1=2;",), "2")])
    with pytest.raises(InputError, match="none empty"):
        model().solve([" "])
    with pytest.raises(InputError, match="stage 'sentences'"):
        model("sentences")


# ---------------------------------------------------------------- the claim


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured on four questions in place of twenty: writing the answers takes most of a smoke claim's time."""
    for scales in (_sentence_claim.SCALES, _sentence_claim.GRAPHS):
        monkeypatch.setitem(scales, "smoke", replace(scales["smoke"], tests=4))


def settled(measures: Any) -> dict[str, float]:
    """Measures but for times."""
    return {name: value for name, value in measures.items() if not name.startswith("ms")}


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("after", [2, 6])
def test_an_interrupted_arm_goes_on_with_its_own_stage(after: int, tmp_path: Path) -> None:
    """Four steps of the autoencoder, then four of the reasoner; stopped within either, the result is the same."""
    claim = SentencePrediction.claim("smoke")
    shared = tmp_path / "shared"
    shared.mkdir()
    assert claim.prepare is not None
    claim.prepare(shared)
    calls: list[int] = []

    def interrupt(done: int, total: int | None) -> None:
        calls.append(done)
        if len(calls) == after:
            raise KeyboardInterrupt

    def run(folder: str, progress: Any) -> Run:
        (tmp_path / folder).mkdir(exist_ok=True)
        return Run(seed=0, shared=shared, folder=tmp_path / folder, progress=progress)

    whole = claim.arms["contrast"](run("whole", lambda done, total: calls.append(done)))
    assert calls == [1, 2, 3, 4, 1, 2, 3, 4]
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        claim.arms["contrast"](run("cut", interrupt))
    calls.clear()
    torch.manual_seed(99)
    again = claim.arms["contrast"](run("cut", lambda done, total: calls.append(done)))
    assert len(calls) == 8 - after
    assert settled(again) == settled(whole)


@pytest.mark.usefixtures("brief")
def test_every_arm_has_as_many_steps_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "_save_now", lambda engine, keep_last: False)  # after each of four steps, otherwise
    claim = SentencePrediction.claim("smoke")
    scale = _sentence_claim.SCALES["smoke"]
    shared = tmp_path / "shared"
    shared.mkdir()
    assert claim.prepare is not None
    claim.prepare(shared)
    for arm, run in claim.arms.items():
        calls: list[int] = []
        (tmp_path / arm).mkdir()
        run(Run(0, shared, tmp_path / arm, lambda done, total, calls=calls: calls.append(done)))
        begun = 0 if arm.startswith("none") else scale.begin
        assert begun + len(calls) == scale.begin + scale.restore + scale.steps, arm


def test_chains_in_tokens_stop_at_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written ends with the chain, and is right where its last sentence is the answer."""
    claim = SentencePrediction.claim("smoke")
    assert claim.prepare is not None
    claim.prepare(tmp_path)
    scale = _sentence_claim.SCALES["smoke"]
    _, tests = _sentence_claim._chains(scale, 0)
    made = model("tokens")

    def answers(model: Any, prompts: Any, *, max_new: int, stop: Any) -> Generated:
        assert stop == (made.close,)
        one = [*made.ids([tests[0].steps[0]])[0], *made.ids([f"answer {tests[0].answer}"])[0][:-1], made.close]
        two = made.ids([f"answer {tests[1].answer}"])[0]  # not closed
        rest = [[*made.ids(["answer no"])[0][:-1], made.close] for _ in tests[2:]]
        return Generated([one, two, *rest], 1, [1] * len(tests), 0, 0.0)

    monkeypatch.setattr(_sentence_claim, "generate", answers)
    measures = claim.arms["tokens"](Run(seed=0, shared=tmp_path, folder=tmp_path, progress=lambda done, total: None))
    assert measures["right"] == pytest.approx(100 / len(tests))
    written = [len(tests[0].steps[0]) + 1 + len("answer 3,"), len("answer 3,"), *[len("answer no,")] * (len(tests) - 2)]
    asked = [len(chain.question) + 1 for chain in tests]
    assert measures["places"] == pytest.approx(np.mean(np.add(asked, written) - 1))
    assert measures["passes"] == 1.0 and measures["mflops"] > 0
