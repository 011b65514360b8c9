"""Next-token and next-latent objectives: hand-computed cases, independent references, gradients, directions."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="objectives need torch: pip install 'nextvec[hf]'")

from nextvec.methods._nextlat_parts import MultiToken  # noqa: E402
from nextvec.methods.nextlat import NextLat  # noqa: E402
from nextvec.objectives.base import Objective  # noqa: E402
from nextvec.objectives.next_embedding import NextEmbedding  # noqa: E402
from nextvec.objectives.next_latent import LatentKL, NextLatent  # noqa: E402
from nextvec.objectives.next_token import NextToken, predicted  # noqa: E402
from nextvec.types import Batch, InputError, Ragged  # noqa: E402

LENGTHS = (5, 2, 1, 4)
PROMPTS = (2, 1, 1, 4)
WIDTH, VOCAB = 3, 4


def batch(*, prompt: bool = True, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCAB, (sum(LENGTHS),), generator=generator)
    columns: dict[str, object] = {"text": Ragged(ids, torch.tensor(LENGTHS))}
    if prompt:
        columns["prompt"] = torch.tensor(PROMPTS)
    return Batch(columns)  # type: ignore[arg-type]


def positions(*, ahead: int, prompt: bool = True) -> list[int]:
    """Item by item, unlike the vectorised code."""
    found, start = [], 0
    for length, given in zip(LENGTHS, PROMPTS, strict=True):
        for t in range(length):
            if t + ahead < length and (not prompt or t >= given - 1):
                found.append(start + t)
        start += length
    return found


def outputs(reads: tuple[str, ...], *, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name in reads:
        kind, _, number = name.partition("_")
        i = int(number or 0)
        if kind == "hidden":
            rows, width = sum(LENGTHS), WIDTH
        elif kind == "latent":
            rows, width = len(positions(ahead=i, prompt=False)), WIDTH
        else:
            rows, width = len(positions(ahead=i + 1)), VOCAB
        made[name] = (2 * torch.randn(rows, width, generator=generator, dtype=torch.float64)).requires_grad_()
    return made


def softmax(row: np.ndarray) -> np.ndarray:
    powers = [math.exp(value) for value in row]
    return np.array([power / sum(powers) for power in powers])


# ---------------------------------------------------------------- which positions count


@pytest.mark.parametrize("ahead", [1, 2, 3, 9])
@pytest.mark.parametrize("prompt", [True, False])
def test_predicted_positions(ahead: int, prompt: bool) -> None:
    given = batch(prompt=prompt)
    rows = predicted(given.ragged("text"), given.tensor("prompt") if prompt else None, ahead=ahead)
    assert rows.tolist() == positions(ahead=ahead, prompt=prompt)


def test_prompts_that_cannot_be() -> None:
    text = batch().ragged("text")
    for prompt, said in (
        (torch.tensor([2, 3, 1, 4]), "example 1 has a prompt of 3 tokens and a text of 2"),
        (torch.tensor([0, 1, 1, 4]), "example 0 has a prompt of 0"),
        (torch.tensor([1, 1]), r"\[2\]; expected int64 \[4\]"),
        (torch.tensor([1.0, 1.0, 1.0, 1.0]), "float32"),
    ):
        with pytest.raises(InputError, match=said):
            predicted(text, prompt)
    with pytest.raises(InputError, match="ahead"):
        predicted(text, ahead=0)


# ---------------------------------------------------------------- next token


def test_next_token_by_hand() -> None:
    """Text a b c with the prompt a b: one token counts. Logits 0, ln 2, 0 give it probability 1/2, 1/4."""
    text = Ragged(torch.tensor([0, 2, 1, 1, 0]), torch.tensor([3, 2]))
    logits = torch.tensor([[0.0, math.log(2.0), 0.0], [0.0, math.log(2.0), 0.0]])
    term = NextToken()({"logits": logits}, Batch({"text": text, "prompt": torch.tensor([2, 1])}))
    assert term.sum.item() == pytest.approx(math.log(2.0) + math.log(4.0))
    assert term.count == 2
    assert term.logs == {"next_token": pytest.approx(1.5 * math.log(2.0))}


@pytest.mark.parametrize("ahead", [1, 2])
def test_next_token_equals_the_reference(ahead: int) -> None:
    given, out = batch(), outputs((f"draft_{ahead - 1}",))
    logits = out[f"draft_{ahead - 1}"]
    ids = given.ragged("text").values.tolist()
    expected = 0.0
    for row, t in zip(logits.detach().numpy(), positions(ahead=ahead), strict=True):
        expected -= math.log(softmax(row)[ids[t + ahead]])
    objective = NextToken(logits="further", ahead=ahead, name="further")
    term = objective({"further": logits}, given)
    assert term.sum.item() == pytest.approx(expected)
    assert term.count == objective.count(given) == len(positions(ahead=ahead))
    assert term.logs["further"] == pytest.approx(expected / term.count)


def test_next_token_of_texts_that_are_all_prompt_is_zero_with_a_gradient() -> None:
    text = Ragged(torch.tensor([0, 1, 1]), torch.tensor([2, 1]))
    logits = torch.zeros(0, 4, requires_grad=True)
    term = NextToken()({"logits": logits}, {"text": text, "prompt": torch.tensor([2, 1])})
    assert (float(term.sum.detach()), term.count, term.logs["next_token"]) == (0.0, 0.0, 0.0)
    term.mean.backward()


def test_next_token_refusals() -> None:
    given = batch()
    with pytest.raises(InputError, match=r"expected \[4, vocabulary\]"):
        NextToken()({"logits": torch.zeros(8, VOCAB)}, given)
    with pytest.raises(InputError, match="'text' of token ids"):
        NextToken()({"logits": torch.zeros(8, VOCAB)}, {"text": torch.zeros(3, 2)})
    with pytest.raises(InputError, match="ahead"):
        NextToken(ahead=0)


# ---------------------------------------------------------------- next latent


@pytest.mark.parametrize("horizon", [1, 3, 6])
def test_smooth_latent_equals_the_reference(horizon: int) -> None:
    objective = NextLatent(horizon=horizon, kl=0)
    given, out = batch(), outputs(objective.reads)
    hidden = out["hidden"].detach().numpy()
    expected, count = 0.0, 0
    for i in range(1, horizon + 1):
        for row, t in zip(out[f"latent_{i}"].detach().numpy(), positions(ahead=i, prompt=False), strict=True):
            gaps = [abs(a - b) for a, b in zip(row, hidden[t + i], strict=True)]
            expected += sum(0.5 * gap * gap if gap < 1 else gap - 0.5 for gap in gaps) / WIDTH
            count += 1
    term = objective(out, given)
    assert term.sum.item() == pytest.approx(expected)
    assert term.count == count
    assert term.logs["smooth_latent"] == pytest.approx(expected / count)


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_latent_kl_equals_the_reference(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextvec.objectives.next_latent._BLOCK", block)
    objective = LatentKL(horizon=3)
    given, out = batch(), outputs(objective.reads)
    known = dict(zip(positions(ahead=1), out["logits"].detach().numpy(), strict=True))
    expected, count = 0.0, 0
    for i in (1, 2, 3):
        for row, t in zip(out[f"draft_{i}"].detach().numpy(), positions(ahead=i + 1), strict=True):
            p, q = softmax(known[t + i]), softmax(row)
            expected += float(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
            count += 1
    term = objective(out, given)
    assert term.sum.item() == pytest.approx(expected)
    assert term.count == objective.count(given) == count
    assert term.logs["latent_kl"] == pytest.approx(expected / count)


def test_latent_kl_of_equal_laws_is_zero_and_grows_with_certainty() -> None:
    objective = LatentKL(horizon=1)
    given = Batch({"text": Ragged(torch.tensor([0, 1, 2]), torch.tensor([3]))})
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    same = objective({"logits": logits, "draft_1": logits[1:] + 5.0}, given)
    assert same.sum.item() == pytest.approx(0.0, abs=1e-6)
    other = objective({"logits": 2 * logits, "draft_1": logits[:1]}, given)
    assert float(other.sum) > 0.5


def test_next_latent_is_the_weighted_sum_of_two_objectives() -> None:
    objective = NextLatent(horizon=2, smooth=0.5, kl=2.0)
    given, out = batch(), outputs(objective.reads)
    parts = list(objective.parts())
    assert [(weight, type(part)) for weight, part in parts] == [(0.5, NextEmbedding), (2.0, LatentKL)]
    smooth, kl = (part(out, given) for _, part in parts)
    assert smooth.count != kl.count
    term = objective(out, given)
    assert float(term.mean) == pytest.approx(0.5 * float(smooth.mean) + 2.0 * float(kl.mean))
    assert "hidden" not in NextLatent(horizon=2, smooth=0).reads
    assert "logits" not in NextLatent(horizon=2, kl=0).reads


@pytest.mark.parametrize("make", [NextToken, lambda: NextLatent(horizon=2, kl=0), lambda: LatentKL(horizon=2)])
def test_gradients_equal_finite_differences(make: Callable[[], Objective]) -> None:
    objective = make()
    given, out = batch(), outputs(objective.reads)
    moved = [name for name in objective.reads if name != "hidden" and (name != "logits" or len(objective.reads) == 1)]

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return 3.0 * objective({**out, **dict(zip(moved, tensors, strict=True))}, given).sum

    assert moved
    assert torch.autograd.gradcheck(loss, [out[name] for name in moved])


def test_no_gradient_reaches_the_targets() -> None:
    objective = NextLatent(horizon=2)
    out = outputs(objective.reads)
    objective(out, batch()).mean.backward()
    assert out["hidden"].grad is None
    assert out["logits"].grad is None
    for name in ("latent_1", "latent_2", "draft_1", "draft_2"):
        gradient = out[name].grad
        assert gradient is not None
        assert bool(gradient.abs().sum(1).gt(0).all()), name


def test_optimising_brings_forecasts_to_the_truth() -> None:
    objective = NextLatent(horizon=2)
    given, out = batch(), outputs(objective.reads)
    moved = [tensor for name, tensor in out.items() if name not in ("hidden", "logits")]
    optimiser = torch.optim.Adam(moved, lr=0.1)
    first = objective(out, given)
    for _ in range(300):
        optimiser.zero_grad()
        objective(out, given).mean.backward()
        optimiser.step()
    last = objective(out, given)
    for name in ("smooth_latent", "latent_kl"):
        assert last.logs[name] < 0.01 * first.logs[name]
    truth = out["hidden"][torch.tensor(positions(ahead=2, prompt=False)) + 2]
    assert torch.allclose(out["latent_2"], truth, atol=0.02)


def test_optimising_next_token_makes_the_texts_certain() -> None:
    given, out = batch(), outputs(("logits",))
    optimiser = torch.optim.Adam(out.values(), lr=0.3)
    for _ in range(100):
        optimiser.zero_grad()
        NextToken()(out, given).mean.backward()
        optimiser.step()
    rows = torch.tensor(positions(ahead=1))
    assert torch.equal(out["logits"].argmax(1), given.ragged("text").values[rows + 1])


def test_micro_batches_add_up() -> None:
    """Sums and counts of two parts are those of the whole, for every part objective."""
    objective = NextToken() + NextLatent(horizon=2)
    given, out = batch(), outputs((*objective.reads,))
    whole = [part(out, given) for _, part in objective.parts()]
    first, second = given.split([2, 2])
    ahead = {"hidden": 0, "logits": 1, "latent_1": 1, "latent_2": 2, "draft_1": 2, "draft_2": 3}
    half: dict[str, torch.Tensor] = {}
    rest: dict[str, torch.Tensor] = {}
    for name, tensor in out.items():
        masked = name.startswith(("logits", "draft"))
        cut = sum(t < sum(LENGTHS[:2]) for t in positions(ahead=ahead[name], prompt=masked))
        half[name], rest[name] = tensor[:cut], tensor[cut:]
    for (_, part), term in zip(objective.parts(), whole, strict=True):
        one, other = part(half, first), part(rest, second)
        assert float(one.sum + other.sum) == pytest.approx(float(term.sum))
        assert one.count + other.count == term.count


def test_next_latent_refusals() -> None:
    for make in (NextLatent, LatentKL):
        with pytest.raises(InputError, match="horizon is 0"):
            make(horizon=0)
    for weights in ((-1.0, 1.0), (0.0, 0.0)):
        with pytest.raises(InputError, match="weights"):
            NextLatent(smooth=weights[0], kl=weights[1])
    objective = NextLatent(horizon=1, kl=0)
    out = outputs(objective.reads)
    with pytest.raises(InputError, match=r"'latent_1' is \[12, 3\]; expected \[8, 3\]"):
        objective({**out, "latent_1": out["hidden"]}, batch())
    with pytest.raises(InputError, match="'draft_1'"):
        LatentKL(horizon=1)(outputs(("logits",)), batch())


# ---------------------------------------------------------------- the method


def model(**changes: object) -> NextLat:
    torch.manual_seed(0)
    settings = {"dim": 8, "layers": 1, "heads": 2, "vocab": VOCAB, "length": 8, "horizon": 3, "kl": 1.0, **changes}
    return NextLat(NextLat.Config(**settings)).double()  # type: ignore[arg-type]


def test_the_forecasts_equal_a_walk_position_by_position() -> None:
    method, given = model(), batch()
    text = given.ragged("text")
    out = method(given)
    hidden, table = out["hidden"], method.backbone.embed(text.values)
    assert method.dynamics is not None
    for i in (1, 2, 3):
        for row, t in zip(out[f"latent_{i}"], positions(ahead=i, prompt=False), strict=True):
            state = hidden[t]
            for j in range(1, i + 1):
                state = method.dynamics(state, table[t + j])
            assert torch.allclose(row, state)
        asked = [positions(ahead=i, prompt=False).index(t) for t in positions(ahead=i + 1)]
        expected = method.backbone.logits(out[f"latent_{i}"])[asked]
        assert torch.allclose(out[f"draft_{i}"], expected)
    assert torch.allclose(out["logits"], method.backbone.logits(hidden[positions(ahead=1)]))


def test_next_latent_trains_dynamics_and_states_but_not_the_head() -> None:
    method, given = model(tied=False), batch()
    NextLatent(horizon=3)(method(given), given).mean.backward()
    assert method.backbone.head is not None
    assert method.dynamics is not None
    assert method.backbone.head.weight.grad is None
    for part in (method.dynamics, method.backbone.blocks[0]):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()), name


def test_targets_are_constants_to_the_states() -> None:
    """The gradient with respect to the states is that of a loss whose targets were written down beforehand."""
    method, given = model(kl=0.0, horizon=1), batch()
    text = given.ragged("text")
    rows = predicted(text)
    assert method.dynamics is not None
    found = []
    for written_down in (False, True):
        method.zero_grad()
        out = dict(method(given))
        if written_down:
            out["hidden"] = torch.tensor(out["hidden"].tolist(), dtype=torch.float64)
        NextLatent(horizon=1, kl=0)(out, given).mean.backward()
        found.append(method.backbone.blocks[0].qkv.weight.grad.clone())
    assert len(rows)
    assert torch.equal(found[0], found[1])
    assert bool(found[0].any())


def test_horizon_0_is_a_plain_language_model() -> None:
    plain = model(horizon=0)
    assert plain.dynamics is None
    assert sorted(plain(batch())) == ["hidden", "logits"]
    assert [type(part) for _, part in plain.objective().parts()] == [NextToken]
    assert model(kl=None, horizon=1).kl == 0.0
    assert model(kl=None, horizon=2).kl == 1.0


def test_multi_token_heads_predict_further_on() -> None:
    torch.manual_seed(0)
    method = MultiToken(MultiToken.Config(model=NextLat.Config(dim=8, layers=1, heads=2, vocab=VOCAB).model()))
    given = batch()
    out = method(given)
    assert {name: len(rows) for name, rows in out.items() if name != "hidden"} == {
        "logits": len(positions(ahead=1)),
        **{f"logits_{i}": len(positions(ahead=i + 1)) for i in (1, 2, 3)},
    }
    ahead = [part.ahead for _, part in method.objective().parts() if isinstance(part, NextToken)]
    assert ahead == [1, 2, 3, 4]
    method.objective()(out, given).mean.backward()
    assert all(p.grad is not None for p in method.parameters())


@pytest.mark.parametrize("tokenizer", ["bpe", "bytes"])
def test_texts_become_a_model_and_batches(tokenizer: str, tmp_path: Path) -> None:
    texts = [f"the state of {word} foretells the next" for word in ("words", "moves", "stars", "paths", "walks")] * 4
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts), encoding="utf-8")
    config = NextLat.Config(depth=1, tokenizer=tokenizer, vocab=300, field="body", length=16)
    folder = tmp_path / "data"
    method, source = NextLat.prepare(data, config, batch=4, seed=1, folder=folder)
    given = source.batch(0)
    assert len(given.ragged("text").values) == 64
    assert int(given.ragged("text").lengths.max()) <= 16
    assert method.tokenizer is not None
    assert method.config.vocab == method.tokenizer.vocab == method.backbone.config.vocab
    objective = method.objective()
    assert objective(method(given), given).mean.item() > 0

    again, same = NextLat.prepare(data, config, batch=4, seed=1, folder=folder)
    assert torch.equal(same.batch(3).ragged("text").values, source.batch(3).ragged("text").values)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), method.parameters(), strict=True))

    method.eval().save(tmp_path / "model")
    loaded = NextLat.load(tmp_path / "model")
    assert loaded.tokenizer is not None
    ids = method.tokenizer.encode(texts[:1])
    assert loaded.tokenizer.encode(texts[:1]) == ids
    assert loaded.tokenizer.decode(ids) == texts[:1]


def test_data_that_cannot_be() -> None:
    config = NextLat.Config(field="body")
    for record, said in (({"text": "a"}, "'body' is missing"), ({"body": 3}, "int")):
        with tempfile.TemporaryDirectory() as name:
            data = Path(name) / "texts.jsonl"
            data.write_text(json.dumps(record) + "\n", encoding="utf-8")
            with pytest.raises(InputError, match=said):
                NextLat.prepare(data, config, batch=1, seed=0, folder=Path(name) / "data")
    for changes in ({"horizon": -1}, {"smooth": 0.0, "kl": 0.0}, {"kl": -1.0}):
        with pytest.raises(InputError, match=r"horizon|weights"):
            model(**changes)
