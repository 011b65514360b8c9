"""Decoding: cached and speculative equal to the plain definition, in tokens and in law; what is read, and how often."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="decoding needs torch: pip install 'nextvec[hf]'")

from torch import Tensor, nn  # noqa: E402

from nextvec import generate as module  # noqa: E402
from nextvec.generate import Generated, LatentDraft, generate  # noqa: E402
from nextvec.nn.backbones.transformer import Transformer, TransformerConfig  # noqa: E402
from nextvec.types import InputError, Ragged  # noqa: E402


class Residual(nn.Module):
    """h + MLP([h; e]): latent dynamics of the usual shape, weights random or trained."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return h + self.net(torch.cat((h, e), -1))


def make(seed: int, *, vocab: int = 11, scale: float = 6.0, **changes: Any) -> Transformer:
    """A random model whose logits differ by more than rounding (``scale`` times the usual token table)."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"dim": 16, "layers": 2, "heads": 2, "max_length": 64, **changes}
    model = Transformer(TransformerConfig(vocab=vocab, **shape)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(3 if "tokens" not in name else scale)
            if name == "positions.weight":  # 0 at the beginning: no context yet
                weight.normal_(std=0.5)
    return model


def greedy_by_definition(model: Transformer, prompt: list[int], *, max_new: int, stop: set[int]) -> list[int]:
    """One whole pass per token, without cache or batch."""
    ids = list(prompt)
    for _ in range(max_new):
        with torch.no_grad():
            states = model(Ragged(torch.tensor(ids), torch.tensor([len(ids)])))
            ids.append(int(model.logits(states[-1]).argmax()))
        if ids[-1] in stop:
            break
    return ids[len(prompt) :]


PROMPT_6 = [[1, 2], [3], [5, 4, 0]]
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 1, 2], [3, 3], [9, 4, 1]]
SHAPES = [
    {},
    {"positions": "learned", "norm": "layer", "activation": "gelu", "biases": True, "tied": False},
    {"positions": "alibi", "kv_heads": 1},
    {"positions": "carope"},
    {"positions": "none", "qk_norm": True},
    {"positions": "sinusoidal", "dropout": 0.3},
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.get("positions", "rope"))
@pytest.mark.parametrize("seed", range(2))
def test_greedy_is_the_definition_with_and_without_a_draft(shape: dict[str, Any], seed: int) -> None:
    model = make(seed, **shape)
    stop = {seed % 11, (seed + 5) % 11}
    expected = [greedy_by_definition(model, prompt, max_new=11, stop=stop) for prompt in PROMPTS]
    assert generate(model, PROMPTS, max_new=11, stop=stop).ids == expected
    for length in (1, 3, 6):
        draft = LatentDraft(Residual(16), model, length)
        assert generate(model, PROMPTS, max_new=11, stop=stop, draft=draft).ids == expected


def trained(steps: int = 60) -> tuple[Transformer, Residual, list[int]]:
    """A model and its dynamics, taught a text of period 7 with one place that depends on what came 7 before."""
    model = make(0, scale=1.0, dim=32, layers=1)
    dynamics = Residual(32)
    text = list(itertools.chain.from_iterable([1, 2, 3, 1, 4, 5, 6 + i % 3] for i in range(40)))
    values = torch.tensor(text)
    optimiser = torch.optim.Adam([*model.parameters(), *dynamics.parameters()], lr=3e-3)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        starts = rng.integers(0, len(text) - 33, size=4)
        rows = torch.stack([values[s : s + 33] for s in starts])
        h = model(Ragged(rows[:, :-1].flatten(), torch.full((4,), 32))).unflatten(0, (4, 32))
        loss = nn.functional.cross_entropy(model.logits(h).flatten(0, 1), rows[:, 1:].flatten())
        ahead = dynamics(h[:, :-1], model.embed(rows[:, 1:-1].flatten()).unflatten(0, (4, 31)))
        loss = loss + nn.functional.smooth_l1_loss(ahead, h[:, 1:].detach())
        loss = loss + nn.functional.cross_entropy(model.logits(ahead).flatten(0, 1), rows[:, 2:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval(), dynamics, text


@pytest.fixture(scope="module")
def taught() -> tuple[Transformer, Residual, list[int]]:
    return trained()


def test_trained_model_keeps_its_words_and_saves_passes(taught: tuple[Transformer, Residual, list[int]]) -> None:
    model, dynamics, text = taught
    prompts = [text[: 8 + 3 * i] for i in range(5)]
    plain = generate(model, prompts, max_new=25)
    assert plain.ids == [greedy_by_definition(model, prompt, max_new=25, stop=set()) for prompt in prompts]
    fast = generate(model, prompts, max_new=25, draft=LatentDraft(dynamics, model, 4))
    assert fast.ids == plain.ids
    assert plain.forward_passes == 25 and plain.accepted == 0 and plain.tokens_per_pass == 1
    assert fast.forward_passes < 15 and 0.3 < fast.accepted < 1 and fast.tokens_per_pass > 1.8


def test_stops_and_lengths_that_end_inside_a_draft(taught: tuple[Transformer, Residual, list[int]]) -> None:
    model, dynamics, text = taught
    draft = LatentDraft(dynamics, model, 5)
    prompts = [text[:9], text[:12], text[:20]]
    inside = 0
    for max_new, stop in itertools.product((1, 2, 3, 4, 7, 12), (set(), {4}, {5}, {1, 6}, {6, 7, 8})):
        plain = generate(model, prompts, max_new=max_new, stop=stop)
        fast = generate(model, prompts, max_new=max_new, stop=stop, draft=draft)
        assert fast.ids == plain.ids
        for row in fast.ids:
            assert len(row) == max_new or row[-1] in stop
            assert not stop.intersection(row[:-1])
        inside += fast.forward_passes < plain.forward_passes
    assert inside > 10  # in most cases more than one token of a pass was kept, so the ends did fall inside drafts


def test_rows_do_not_depend_on_their_neighbours(taught: tuple[Transformer, Residual, list[int]]) -> None:
    model, dynamics, _ = taught
    draft = LatentDraft(dynamics, model, 3)
    together = generate(model, PROMPTS, max_new=9, stop={4}, draft=draft)
    alone = [generate(model, [prompt], max_new=9, stop={4}, draft=draft) for prompt in PROMPTS]
    assert together.ids == [one.ids[0] for one in alone]
    assert together.forward_passes == max(together.passes)


def memoryless(seed: int = 0) -> tuple[Transformer, Callable[[Tensor, Tensor], Tensor]]:
    """A model whose state depends on the last token alone, and the dynamics that know it exactly."""
    model = make(seed, positions="none")
    with torch.no_grad():
        for block in model.blocks:
            block.out.weight.zero_()

    def perfect(h: Tensor, e: Tensor) -> Tensor:
        return model(Ragged(e, torch.ones(len(e), dtype=torch.long)))

    return model, perfect


def count_reads(model: Transformer) -> list[int]:
    """A list that receives, per pass, how many tokens enter the first block."""
    reads: list[int] = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: reads.append(len(args[0])))
    return reads


@pytest.mark.parametrize(("length", "max_new"), [(1, 9), (3, 13), (4, 26), (7, 9)])
def test_a_perfect_draft_gains_its_length_and_one_in_every_pass(length: int, max_new: int) -> None:
    model, perfect = memoryless()
    plain = generate(model, [[1, 2, 3], [4]], max_new=max_new)
    fast = generate(model, [[1, 2, 3], [4]], max_new=max_new, draft=LatentDraft(perfect, model, length))
    assert fast.ids == plain.ids
    assert fast.forward_passes == 1 + math.ceil((max_new - 1) / (length + 1))
    assert fast.passes == [fast.forward_passes] * 2
    assert fast.accepted == 1
    assert fast.tokens == 2 * max_new


def test_a_useless_draft_still_gains_one_token_in_every_pass() -> None:
    model, perfect = memoryless()
    wrong = LatentDraft(lambda h, e: -perfect(h, e), model, 3)
    slow = generate(model, [[1, 2, 3], [4]], max_new=12, draft=wrong)
    assert slow.ids == generate(model, [[1, 2, 3], [4]], max_new=12).ids
    assert slow.forward_passes == 12 and slow.accepted == 0 and slow.tokens_per_pass == 1


def test_nothing_is_read_twice() -> None:
    model = make(3)
    reads = count_reads(model)
    generate(model, PROMPTS, max_new=6)
    # Prompts once, end to end; then the new token of each row; the last is never read.
    assert reads == [sum(map(len, PROMPTS))] + [len(PROMPTS)] * 5
    reads.clear()
    found = generate(model, PROMPTS, max_new=6, draft=LatentDraft(Residual(16), model, 2))
    assert len(reads) == found.forward_passes and reads[0] == sum(map(len, PROMPTS))
    assert all(read <= 3 * len(PROMPTS) for read in reads[1:])
    assert reads[-1] < reads[1] or len(reads) == 2


def test_rows_that_are_done_leave_the_batch() -> None:
    model = make(5)
    free = generate(model, PROMPTS, max_new=12).ids
    stop = {free[0][2]}
    reads = count_reads(model)
    found = generate(model, PROMPTS, max_new=12, stop=stop)
    assert len(found.ids[0]) <= 3
    assert sum(reads[1:]) == found.tokens - len(PROMPTS)
    assert found.passes == [len(row) for row in found.ids]


def test_learned_positions_leave_room_for_the_drafts_of_other_rows() -> None:
    model = make(1, positions="learned", max_length=16)
    prompts = [[1] * 10, [2] * 2]
    plain = generate(model, prompts, max_new=6)
    fast = generate(model, prompts, max_new=6, draft=LatentDraft(Residual(16), model, 9))
    assert fast.ids == plain.ids and [len(row) for row in fast.ids] == [6, 6]


SAMPLES = 6_000
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 4},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 1.0, "top_k": 5, "top_p": 0.9},
]


def reference_law(logits: np.ndarray, *, temperature: float, top_k: int | None = None, top_p: float = 1.0) -> Any:
    """One distribution [V], written out token by token."""
    scores = np.exp((logits - logits.max()) / temperature)
    order = list(np.argsort(-scores, kind="stable"))[: top_k or None]
    total, mass, kept = sum(scores[i] for i in order), 0.0, []
    for i in order:
        if mass < top_p:
            kept.append(i)
        mass += scores[i] / total
    law = np.zeros_like(scores)
    law[kept] = scores[kept] / scores[kept].sum()
    return law


def joint_law(model: Transformer, prompt: list[int], steps: int, **settings: Any) -> Any:
    """The exact probability [V] * steps of every continuation, by a whole pass over each of them."""
    vocab, start = model.config.vocab, len(prompt) - 1
    law = np.zeros((vocab,) * steps)
    tails = list(itertools.product(range(vocab), repeat=steps - 1))
    rows = torch.tensor([[*prompt, *tail] for tail in tails])
    with torch.no_grad():
        states = model(Ragged(rows.flatten(), torch.full((len(rows),), rows.shape[1]))).unflatten(0, rows.shape)
        logits = model.logits(states[:, start:]).double().numpy()
    for tail, row in zip(tails, logits, strict=True):
        laws = [reference_law(place, **settings) for place in row]
        law[tail] = math.prod(laws[i][token] for i, token in enumerate(tail)) * laws[-1]
    return law


def chi_square(found: Generated, law: Any) -> float:
    """By how many standard deviations the chi-square statistic of the counts exceeds its mean, for whole rows or for
    all but their first token (fewer cells: a finer test), whichever is more."""
    if any(law[tuple(row)] == 0 for row in found.ids):
        return math.inf
    counts = np.zeros(law.shape)
    np.add.at(counts, tuple(np.array(found.ids).T), 1)
    return max(_excess(counts, law * len(found.ids)), _excess(counts.sum(0), law.sum(0) * len(found.ids)))


def _excess(counts: Any, expected: Any) -> float:
    """Cells in which fewer than 5 are expected are counted as one."""
    large = expected >= 5
    seen, wanted = np.append(counts[large], counts[~large].sum()), np.append(expected[large], expected[~large].sum())
    freedom = len(seen) - 1
    statistic = float(((seen - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum())
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.fixture(scope="module")
def toy() -> tuple[Transformer, LatentDraft]:
    """A model over 6 tokens with laws that are far from flat, and a draft that is often wrong."""
    model = make(2, vocab=6, scale=10.0, dim=8)
    torch.manual_seed(0)
    return model, LatentDraft(Residual(8), model, 2)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_samples_follow_the_law(toy: tuple[Transformer, LatentDraft], settings: dict[str, Any]) -> None:
    model, draft = toy
    law = joint_law(model, [1, 2], 4, **settings)
    assert law.sum() == pytest.approx(1)
    plain = generate(model, [[1, 2]] * SAMPLES, max_new=4, seed=1, **settings)
    assert chi_square(plain, law) < 5
    fast = generate(model, [[1, 2]] * SAMPLES, max_new=4, seed=1, draft=draft, **settings)
    assert chi_square(fast, law) < 5
    assert 0.1 < fast.accepted < 0.9 and fast.tokens_per_pass > 1.1  # both branches were taken


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("_accepts", lambda p, q, uniform: torch.ones_like(p, dtype=torch.bool)),
        ("_accepts", lambda p, q, uniform: uniform < p),
        ("_accepts", lambda p, q, uniform: uniform * q < 1.5 * p),
        ("_remainder", lambda p, q: p),
    ],
    ids=["always", "without q", "half too often", "not subtracted"],
)
def test_a_biased_rule_is_found_out(
    toy: tuple[Transformer, LatentDraft], name: str, rule: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, draft = toy
    law = joint_law(model, [1, 2], 4, temperature=1.0)
    monkeypatch.setattr(module, name, rule)
    fast = generate(model, [[1, 2]] * SAMPLES, max_new=4, seed=1, temperature=1.0, draft=draft)
    assert chi_square(fast, law) > 10


def test_a_draft_that_does_not_draw_keeps_the_law(toy: tuple[Transformer, LatentDraft]) -> None:
    """Guesses without distributions (here: always the token 3) are treated as certain."""
    model, _ = toy

    class Constant:
        length = 2

        def propose(self, hidden: Tensor, tokens: Tensor, count: int, choose: Any) -> tuple[Tensor, None]:
            return tokens.new_full((len(tokens), count), 3), None

    law = joint_law(model, [1, 2], 4, temperature=1.0)
    fast = generate(model, [[1, 2]] * SAMPLES, max_new=4, seed=2, temperature=1.0, draft=Constant())
    assert chi_square(fast, law) < 5 and fast.accepted > 0.05


def test_sampling_at_the_edges(toy: tuple[Transformer, LatentDraft]) -> None:
    model, draft = toy
    greedy = generate(model, PROMPT_6, max_new=8).ids
    for settings in ({"temperature": 1e-30}, {"temperature": 5.0, "top_k": 1}, {"temperature": 5.0, "top_p": 1e-9}):
        assert generate(model, PROMPT_6, max_new=8, **settings).ids == greedy
        assert generate(model, PROMPT_6, max_new=8, draft=draft, **settings).ids == greedy
    first = generate(model, PROMPT_6, max_new=8, temperature=1.0, top_k=99, seed=3, draft=draft)
    assert first == generate(model, PROMPT_6, max_new=8, temperature=1.0, top_k=99, seed=3, draft=draft)
    assert first != generate(model, PROMPT_6, max_new=8, temperature=1.0, top_k=99, seed=4, draft=draft)


def test_modes_and_gradients_are_as_before() -> None:
    model, dynamics = make(0, dropout=0.5), Residual(16)
    model.train()
    model.blocks[0].eval()
    found = generate(model, PROMPTS, max_new=6, draft=LatentDraft(dynamics, model, 2))
    assert found.ids == generate(model.eval(), PROMPTS, max_new=6).ids
    model.train()
    model.blocks[0].eval()
    generate(model, PROMPTS, max_new=2)
    assert model.training and not model.blocks[0].training and model.blocks[1].training and dynamics.training


def test_ragged_prompts_and_half_precision() -> None:
    model = make(4)
    ragged = Ragged(torch.tensor([1, 2, 3, 4]), torch.tensor([3, 1]))
    assert generate(model, ragged, max_new=5).ids == generate(model, [[1, 2, 3], [4]], max_new=5).ids
    half = make(4).to(torch.bfloat16)
    found = generate(half, ragged, max_new=5, draft=LatentDraft(Residual(16).to(torch.bfloat16), half, 2))
    assert [len(row) for row in found.ids] == [5, 5]
    sampled = generate(half, ragged, max_new=5, temperature=1.0, top_p=0.9)
    assert [len(row) for row in sampled.ids] == [5, 5]


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "no prompts"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1], [11]], {}, "prompt id 11 is outside the vocabulary of 11"),
        ([[-1]], {}, "prompt id -1"),
        ([[1.5]], {}, "expected token ids"),
        ([["a"]], {}, "expected lists of token ids"),
        ([1, 2], {}, "expected lists of token ids"),
        ([[1]], {"max_new": 0}, "max_new=0"),
        ([[1]], {"temperature": -0.1}, "temperature=-0.1"),
        ([[1]], {"temperature": math.nan}, "temperature=nan"),
        ([[1]], {"temperature": 1.0, "top_k": 0}, "top_k=0"),
        ([[1]], {"temperature": 1.0, "top_p": 0.0}, "top_p=0.0"),
        ([[1]], {"temperature": 1.0, "top_p": 1.1}, "top_p=1.1"),
        ([[1]], {"stop": {3, 20}}, "stop id 20"),
        ([[1], [2] * 60], {"max_new": 5}, "make 65, but learned positions end at max_length=64"),
    ],
)
def test_bad_input(prompts: Any, options: dict[str, Any], message: str) -> None:
    model = make(0, positions="learned")
    with pytest.raises(InputError, match=message) as caught:
        generate(model, prompts, **{"max_new": 4, **options})
    assert "\n" not in str(caught.value)


def test_bad_models_and_drafts() -> None:
    model = make(0)
    with pytest.raises(InputError, match="a draft of 0 tokens"):
        LatentDraft(Residual(16), model, 0)
    with pytest.raises(InputError, match="causal"):
        generate(make(0, attention="bidirectional"), [[1]], max_new=2)
    with pytest.raises(InputError, match="without a vocabulary"):
        generate(make(0, vocab=0), [[1]], max_new=2)
    with torch.no_grad():
        model.blocks[0].out.weight[0, 0] = math.nan
    with pytest.raises(InputError, match="not finite"):
        generate(model, [[1]], max_new=2)
