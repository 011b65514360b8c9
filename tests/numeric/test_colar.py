"""CoLaR: chains laid out and merged by hand, thinking through the cache, GRPO, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.data.catalog import find  # noqa: E402
from nextvec.data.reasoning import Chain, read_chains  # noqa: E402
from nextvec.data.sources import ragged  # noqa: E402
from nextvec.data.synthetic.arithmetic import arithmetic, fresh_split  # noqa: E402
from nextvec.methods import _colar_claim, _sentence_claim  # noqa: E402
from nextvec.methods._colar_parts import Thought, collate, flops, log_probability, reinforce, think  # noqa: E402
from nextvec.methods.colar import Colar  # noqa: E402
from nextvec.nn.backbones.transformer import Transformer  # noqa: E402
from nextvec.types import InputError, Ragged, Run  # noqa: E402

SEPARATOR, END = 98, 99


def model(**changes: Any) -> Colar:
    made = Colar.start(Colar.Config(**{"dim": 16, "layers": 2, "heads": 2, "length": 64, **changes}), seed=0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(1 if "tokens" in name else 4)
    return made.eval()


def test_the_layout_by_hand() -> None:
    rows = [([1, 2], [10, 11, 12, 13, 14], [20, 21]), ([3], [], [22])]
    batch = collate(rows, factor=2, separator=SEPARATOR, end=END, rng=np.random.default_rng(0))
    tokens = batch.ragged("tokens")
    first, second = (part.tolist() for part in torch.split(tokens.values, tokens.lengths.tolist()))
    assert first == [1, 2, 98, 10, 11, 12, 13, 14, 98, 20, 21, 99]
    assert second == [3, 98, 98, 22, 99]
    assert batch.ragged("place").values.tolist() == [0, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4]
    labels = batch.ragged("labels").values.tolist()
    assert labels[:2] == [-100, -100]
    assert labels[2] in (10, 11) and labels[3] in (12, 13) and labels[4] == 14
    assert labels[5:10] == [98, 20, 21, 99, -100]
    assert labels[10:] == [-100, 98, 22, 99, -100]
    assert batch.ragged("latent").values.nonzero().flatten().tolist() == [3, 4, 5]
    drawn = {
        collate(rows, factor=5, separator=98, end=99, rng=np.random.default_rng(i)).ragged("labels").values[2].item()
        for i in range(60)
    }
    assert drawn == {10, 11, 12, 13, 14}


@pytest.mark.parametrize("merge", ["sqrt", "mean"])
def test_blocks_are_merged(merge: str) -> None:
    made = model(merge=merge)
    rows = [([1, 2], [10, 11, 12, 13, 14], [20]), ([3], [7, 8], [22])]
    batch = collate(rows, factor=3, separator=made.separator, end=made.end, rng=np.random.default_rng(0))
    vectors = made.merged(batch)
    table = made.backbone.head_weight()
    divide = {"sqrt": (3**0.5, 2**0.5), "mean": (3.0, 2.0)}[merge]
    torch.testing.assert_close(vectors.values[3], table[[10, 11, 12]].sum(0) / divide[0])
    torch.testing.assert_close(vectors.values[4], table[[13, 14]].sum(0) / divide[1])
    torch.testing.assert_close(vectors.values[0], table[1])
    second = int(vectors.lengths[0])
    torch.testing.assert_close(vectors.values[second + 2], table[[7, 8]].sum(0) / divide[1])
    torch.testing.assert_close(vectors.values[second + 1], table[made.separator])


def test_with_a_factor_of_one_it_is_a_language_model() -> None:
    made = model(most=1, latent=0.0)
    row = ([1, 2], [10, 11], [20])
    batch = collate([row], factor=1, separator=made.separator, end=made.end, rng=np.random.default_rng(0))
    ids = [1, 2, made.separator, 10, 11, made.separator, 20, made.end]
    hidden = made.backbone(ragged([ids]))
    found = made(batch)
    torch.testing.assert_close(found["hidden"], hidden)
    torch.testing.assert_close(found["logits"], made.backbone.logits(hidden[2:7]))
    assert batch.ragged("labels").values[2:7].tolist() == ids[3:]
    assert "target" not in found


def by_definition(made: Colar, prompt: list[int], *, most: int, answer: int) -> Thought:
    """One whole pass per place, without a cache."""
    thought = Thought()
    vectors = made.backbone.embed(torch.tensor([*prompt, made.separator]))
    answering = False
    while True:
        with torch.no_grad():
            state = made.backbone(Ragged(vectors, torch.tensor([len(vectors)])))[-1]
            token = int(made.backbone.logits(state).argmax())
            mean, _ = made.latent_head(state)
        if answering:
            if token == made.end or len(thought.answer) >= answer:
                return thought
            thought.answer.append(token)
            feed = made.backbone.embed(torch.tensor([token]))[0]
        elif token == made.separator or len(thought.tokens) >= most:
            answering = True
            thought.tokens.append(made.separator)
            feed = made.backbone.embed(torch.tensor([made.separator]))[0]
        else:
            thought.tokens.append(token)
            thought.latents.append(mean)
            feed = mean * made.embedding_scale
        vectors = torch.cat([vectors, feed[None]])


def test_thinking_reads_every_place_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It equals a whole pass per place, and the backbone sees the prompts once and then one place per row and step."""
    made = model()
    prompts = [[5, 6, 7], [8], [1, 2, 3, 4, 9]]
    seen: list[int] = []
    for name in ("prefill", "forward_cached"):
        inner = getattr(Transformer, name)

        def counted(self: Any, inputs: Any, cache: Any, inner: Any = inner) -> Any:
            seen.append(len(inputs.values) if isinstance(inputs, Ragged) else inputs.shape[0] * inputs.shape[1])
            return inner(self, inputs, cache)

        monkeypatch.setattr(Transformer, name, counted)
    thoughts = think(made, prompts, most=6, answer=4)
    assert seen[0] == sum(len(prompt) + 1 for prompt in prompts)
    assert set(seen[1:]) == {3}
    assert len(seen) == max(thought.passes for thought in thoughts)
    for prompt, thought in zip(prompts, thoughts, strict=True):
        expected = by_definition(made, prompt, most=6, answer=4)
        assert (thought.tokens, thought.answer) == (expected.tokens, expected.answer)
        assert len(thought.latents) == len(expected.latents) > 0
        for one, other in zip(thought.latents, expected.latents, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cut_thinking", [False, True])
@pytest.mark.parametrize("cut_answer", [False, True])
def test_the_probability_of_a_thought_by_hand(cut_thinking: bool, cut_answer: bool) -> None:
    """Every choice that was made counts once; what a limit put there was no choice."""
    made = model()
    prompt, latents = [5, 6], [torch.randn(16, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    thought = Thought(latents, [10, 11, made.separator], [20], cut_thinking=cut_thinking, cut_answer=cut_answer)
    sums, counts = log_probability(made, [prompt], [thought])
    embed = made.backbone.embed
    vectors = torch.cat(
        [
            embed(torch.tensor([5, 6, made.separator])),
            torch.stack(latents) * made.embedding_scale,
            embed(torch.tensor([made.separator, 20])),
        ]
    )
    hidden = made.backbone(Ragged(vectors, torch.tensor([7])))
    choices = {2: 10, 3: 11, 5: 20}
    if not cut_thinking:
        choices[4] = made.separator
    if not cut_answer:
        choices[6] = made.end
    total = sum(float(made.backbone.logits(hidden[at]).log_softmax(0)[token].detach()) for at, token in choices.items())
    for at, latent in ((2, latents[0]), (3, latents[1])):
        mean, scale = made.latent_head(hidden[at])
        total += float(torch.distributions.Normal(mean, scale.exp()).log_prob(latent).mean().detach())
    assert float(sums[0].detach()) == pytest.approx(total, rel=1e-4)
    assert counts.tolist() == [len(choices) + 2.0]


def test_what_a_limit_cut_off_is_told() -> None:
    """Of thoughts that are drawn, each limit is told where it was what ended the thinking, or the answer."""
    torch.manual_seed(0)
    made = Colar(Colar.Config(dim=16, layers=1, heads=2, vocab=6, length=16)).eval()
    thoughts = think(made, [[0]] * 40, most=2, answer=1, noise=1.0, generator=torch.Generator().manual_seed(0))
    assert {(one.cut_thinking, one.cut_answer) for one in thoughts} == {(a, b) for a in (0, 1) for b in (0, 1)}
    for one in thoughts:
        assert one.tokens[-1] == made.separator and made.separator not in one.tokens[:-1]
        assert len(one.tokens) == len(one.latents) + 1
        assert not one.cut_thinking or len(one.latents) == 2
        assert not one.cut_answer or len(one.answer) == 1


def test_operations_of_a_thought_by_hand() -> None:
    """One layer of width 4 and a vocabulary of 6; 192 weights in a block: 48 + 16 for attention, 64 + 64 after it."""
    made = Colar(Colar.Config(dim=4, layers=1, heads=2, vocab=6, length=16, activation="gelu", hidden=3))
    thought = Thought([torch.zeros(4)] * 2, [1, 2, made.separator], [3])
    assert thought.passes == 1 + 3 + 1  # the prompt, two latents, the separator, the answer
    places = 3 + 4
    blocks = 2 * 192 * places
    attended = 2 * 2 * 4 * sum(range(1, places + 1))  # products with keys, and with values
    heads = 2 * 4 * 6 * thought.passes
    latents = 2 * (4 * 3 + 3 * 4 + 2 * 4 * 4) * 2
    assert flops(made, [0, 1], thought) == blocks + attended + heads + latents
    seen: list[int] = []
    made.latent_head.register_forward_hook(lambda *_: seen.append(1))
    explicit = model(most=1, latent=0.0)
    explicit.latent_head.register_forward_hook(lambda *_: seen.append(1))
    think(explicit, [[5, 6]], most=3, answer=2)
    assert not seen  # a model that thinks in tokens has no use for it


def test_reinforcement_makes_right_answers_likelier() -> None:
    """Four tokens, the separator and the end: at first about one answer in four is right, by chance."""
    torch.manual_seed(0)
    made = Colar(Colar.Config(dim=16, layers=1, heads=2, vocab=6, length=16))
    rewards: list[float] = []
    lengths: list[float] = []

    def seen(step: int, steps: int, logs: dict[str, float]) -> None:
        rewards.append(logs["reward"])
        lengths.append(logs["length"])

    reinforce(made, [([0], [2]), ([1], [2])], steps=60, questions=2, lr=1e-2, most=2, answer=1, on_step=seen)
    assert np.mean(rewards[:5]) < 0.5
    assert np.mean(rewards[-10:]) > 0.9
    assert max(lengths) <= 2
    with pytest.raises(InputError, match="groups of 1"):
        reinforce(made, [([0], [2])], steps=1, group=1)


# ---------------------------------------------------------------- data


def test_arithmetic_is_right() -> None:
    for chain in arithmetic(np.random.default_rng(0), 50, least=1, most=5):
        value = int(chain.question[0])
        for i, step in enumerate(chain.steps):
            sign, digit = chain.question[1 + 2 * i], chain.question[2 + 2 * i]
            result = eval(f"{value}{sign}{digit}") % 10
            assert step == f"{value}{sign}{digit}={result};"
            value = result
        assert chain.answer == str(value)
    with pytest.raises(InputError, match="operations"):
        arithmetic(np.random.default_rng(0), 1, least=3, most=2)


def test_questions_to_measure_on_are_new_to_the_shared_model_too() -> None:
    learned, tests = fresh_split(1, 500, 50, least=1, most=2, before=(0,))
    begun_with, _ = fresh_split(0, 500, 50, least=1, most=2, before=(0,))
    known = {chain.question for chain in (*learned, *begun_with)}
    assert not known & {chain.question for chain in tests}
    alone, others = fresh_split(1, 500, 50, least=1, most=2)
    assert alone == learned
    assert {chain.question for chain in begun_with} & {chain.question for chain in others}
    with pytest.raises(InputError, match="are new"):
        fresh_split(0, 5000, 100, least=1, most=1)


@pytest.mark.parametrize(
    ("module", "scale"),
    [
        (_colar_claim, _colar_claim.SCALES["smoke"]),
        (_sentence_claim, _sentence_claim.SCALES["smoke"]),
        (_sentence_claim, _sentence_claim.GRAPHS["smoke"]),
    ],
)
def test_no_arm_is_asked_what_the_shared_model_has_learned(module: Any, scale: Any) -> None:
    scale = dataclasses.replace(scale, count=2000, tests=50, operations=2)
    begun_with, _ = module._chains(scale, 0)
    learned, tests = module._chains(scale, 1)
    assert not {chain.question for chain in tests} & {chain.question for chain in (*begun_with, *learned)}


def test_the_control_of_grpo_differs_in_the_division_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Colar.claim("smoke")
    assert claim.prepare is not None
    claim.prepare(tmp_path)
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(Colar, "reinforce", lambda self, chains, **options: seen.append(options))
    for arm in ("rl", "rl_sum"):
        claim.arms[arm](Run(seed=0, shared=tmp_path, folder=tmp_path, progress=lambda done, total: None))
    assert [options.pop("average") for options in seen] == [True, False]
    assert seen[0] == seen[1]


def test_what_is_too_long_is_left_out_of_the_claim_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 40 tokens: 8 latents, 3 tokens of an answer and two separators leave 27 for a question."""
    scale = dataclasses.replace(_colar_claim.SCALES["smoke"], length=40, budget=8, answer=3)
    made = model(length=40)
    short, long = Chain("1+1", ("1+1=2;",), "2"), Chain("1+1", ("1+1=2;",) * 4, "2")
    assert [made.places(chain) for chain in (short, long)] == [13 + 6 + 1 + 3, 13 + 24 + 1 + 3]
    just, over = Chain("1" * 17, (), "1"), Chain("1" * 18, (), "1")
    monkeypatch.setattr(_colar_claim, "_chains", lambda scale, seed: ([short, long, short], [just, over, over]))
    learned, tests, left = _colar_claim._fitting(made, scale, 0)
    assert (learned, tests) == ([short, short], [just])
    assert left == {"left_out": 1.0, "left_out_tests": 2.0}
    made.rows(learned, 2)
    made.answer([chain.question for chain in tests], factor=2, budget=8, answer=3)
    monkeypatch.setattr(_colar_claim, "_chains", lambda scale, seed: ([long], [just]))
    with pytest.raises(InputError, match="none has room in 40 tokens"):
        _colar_claim._fitting(made, scale, 0)


@pytest.mark.parametrize("chains", ["equations", "sentences"])
def test_gsm8k_has_room_at_gpu_scale(chains: str) -> None:
    scale = dataclasses.replace(_colar_claim.SCALES["gpu"], chains=chains)
    if find("gsm8k") is None or find("icot") is None:
        pytest.skip("GSM8K is not at hand: set NEXTVEC_DATA")
    learned, tests, left = _colar_claim._fitting(model(length=scale.length), scale, 0)
    assert len(learned) + left["left_out"] > 6900 and len(tests) + left["left_out_tests"] == 1319
    assert left["left_out_tests"] < 0.05 * 1319
    if chains == "equations":
        assert left["left_out"] < 0.02 * 7473
        assert all(step.startswith("<<") and step.endswith(">>") for chain in learned for step in chain.steps)


def test_chains_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        "\n".join(
            json.dumps(record)
            for record in (
                {"question": "2+2+1?", "steps": ["2+2=4", "4+1=5"], "answer": "5"},
                {"question": "How many?", "answer": "He has <<3*2=6>>6 of them and <<6+1=7>>one.\n#### 7"},
                {"question": "1?", "steps": "", "answer": 1},
            )
        )
    )
    assert read_chains(tmp_path / "a.jsonl") == [
        Chain("2+2+1?", ("2+2=4", "4+1=5"), "5"),
        Chain("How many?", ("<<3*2=6>>", "<<6+1=7>>"), "7"),
        Chain("1?", (), "1"),
    ]
    (tmp_path / "b.txt").write_text("How?||<<3*2=6>> <<6+1=7>> #### 7\n")
    assert read_chains(tmp_path / "b.txt") == [Chain("How?", ("<<3*2=6>>", "<<6+1=7>>"), "7")]
    (tmp_path / "b.txt").write_text("How?||3 * 2 is $6.5. Then 7. #### 7\nAnd?|| #### 7\n")
    assert read_chains(tmp_path / "b.txt") == [
        Chain("How?", ("3 * 2 is $6.5.", "Then 7."), "7"),
        Chain("And?", (), "7"),
    ]
    hop = {"question": "Tom is a wug. Is Tom a dax or fep?", "steps": ["Tom is a wug."], "answer": "Tom is a dax."}
    (tmp_path / "prosqa.json").write_text(json.dumps([hop | {"edges": [[0, 1]], "root": 0}]))
    assert read_chains(tmp_path / "prosqa.json") == [Chain(hop["question"], ("Tom is a wug.",), "Tom is a dax.")]
    for text, told in (
        ("[", "no valid JSON"),
        ('{"a": 1}', "a list of records"),
        ('[{"question": "1"}]', "record 1: a"),
    ):
        (tmp_path / "prosqa.json").write_text(text)
        with pytest.raises(InputError, match=told):
            read_chains(tmp_path / "prosqa.json")
    (tmp_path / "c.txt").write_text("no form at all\n")
    with pytest.raises(InputError, match=r"c\.txt.*is not 'question"):
        read_chains(tmp_path / "c.txt")
    (tmp_path / "d.jsonl").write_text('{"question": "", "answer": "1"}\n')
    with pytest.raises(InputError, match="are needed"):
        read_chains(tmp_path / "d.jsonl")
    (tmp_path / "e.jsonl").write_text(
        '{"question": "1?", "answer": "1"}\n{"question": "1+1?", "steps": ["1+1=2", " "], "answer": "2"}\n'
    )
    with pytest.raises(InputError, match=r"e\.jsonl:2: step 2 of 2 is empty"):
        read_chains(tmp_path / "e.jsonl")


def test_training_asking_and_going_on(tmp_path: Path) -> None:
    from nextvec.training import fit, load_method

    data = tmp_path / "chains.jsonl"
    chains = arithmetic(np.random.default_rng(1), 20, least=1, most=2)
    data.write_text(
        "\n".join(json.dumps({"question": c.question, "steps": c.steps, "answer": c.answer}) for c in chains)
    )
    shape = ["dim=16", "layers=1", "heads=2", "length=96", "steps=2", "batch=4"]
    fit("colar", data, out=tmp_path / "one", set=[*shape, "most=1", "latent=0"])
    fit("colar", data, out=tmp_path / "two", set=[*shape, f"start_from={tmp_path / 'one'}"])
    loaded = load_method(tmp_path / "two")
    assert isinstance(loaded, Colar)
    answers, thoughts = loaded.answer(["3+4"], factor=5, budget=8, answer=3)
    assert len(answers) == len(thoughts) == 1
    assert len(thoughts[0].latents) <= 8 and len(thoughts[0].answer) <= 3
    with pytest.raises(InputError, match="another shape"):
        fit("colar", data, out=tmp_path / "three", set=["dim=32", *shape[1:], f"start_from={tmp_path / 'one'}"])


def test_refusals() -> None:
    made = model()
    with pytest.raises(InputError, match="factor is 9; this model was trained with 1 to 5"):
        made.answer(["3+4"], factor=9)
    with pytest.raises(InputError, match="within the 64 tokens"):
        made.answer(["3" * 40], budget=30)
    with pytest.raises(InputError, match="raise length"):
        made.rows([Chain("1+1", ("1+1=2;",) * 20, "2")], 2)
    with pytest.raises(InputError, match="merge 'max'"):
        model(merge="max")
