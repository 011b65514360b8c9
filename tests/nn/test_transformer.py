"""The transformer: who sees whom, whatever the attention path, the cache or the company a sequence is in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nextvec.types import InputError, Ragged

torch = pytest.importorskip("torch", reason="the transformer needs torch: pip install 'nextvec[hf]'")

from torch import Tensor  # noqa: E402

from nextvec.nn.backbones.positions import POSITIONS  # noqa: E402
from nextvec.nn.backbones.transformer import Transformer, TransformerConfig  # noqa: E402

LENGTHS = torch.tensor([3, 5, 3, 7, 1, 5])
IDS = torch.randint(0, 50, (int(LENGTHS.sum()),), generator=torch.Generator().manual_seed(1))
TEXTS = Ragged(IDS, LENGTHS)
BLOCKS = torch.cat([torch.arange(n) // 2 for n in LENGTHS.tolist()])
ATTENTIONS = ("causal", "bidirectional", "block_causal")
BERT = {
    "norm": "layer", "norm_position": "post", "activation": "gelu", "positions": "learned",
    "attention": "bidirectional", "biases": True, "embed_norm": True, "token_types": 2, "eps": 1e-12,
}  # fmt: skip


def build(**changes: Any) -> Transformer:
    """A small model with weights large enough to matter."""
    torch.manual_seed(0)
    shape = {"vocab": 50, "dim": 24, "layers": 2, "heads": 4, "kv_heads": 2, "max_length": 16, **changes}
    if str(shape.get("positions")).startswith("carope"):  # every head turns at its own pace
        shape["kv_heads"] = 4
    model = Transformer(TransformerConfig(**shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def alone(model: Transformer, texts: Ragged, blocks: Tensor | None = None) -> Tensor:
    """Every sequence in a batch of its own."""
    sizes = texts.lengths.tolist()
    each = [None] * len(sizes) if blocks is None else blocks.split(sizes)
    parts = zip(texts.values.split(sizes), each, strict=True)
    return torch.cat([model(Ragged(part, torch.tensor([len(part)])), blocks=b) for part, b in parts])


def one(values: Tensor) -> Ragged:
    return Ragged(values, torch.tensor([len(values)]))


# ---------------------------------------------------------------------------- a reference written out


def reference(model: Transformer, ids: np.ndarray) -> np.ndarray:
    """A causal, pre-norm, SwiGLU, rotary model of one sequence, in float64 and one head and token at a time."""
    config = model.config
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    d, group = config.head_width, config.heads // config.key_heads

    def rms(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.eps) * scale

    def turn(x: np.ndarray, place: int) -> np.ndarray:
        pairs = (x[: d // 2] + 1j * x[d // 2 :]) * np.exp(
            1j * place * config.rope_theta ** (-2 * np.arange(d // 2) / d)
        )
        return np.concatenate((pairs.real, pairs.imag))

    h = state["tokens.weight"][ids]
    for i in range(config.layers):
        w = {name.removeprefix(f"blocks.{i}."): value for name, value in state.items()}
        heads = (rms(h, w["attention_norm.weight"]) @ w["qkv.weight"].T).reshape(len(ids), -1, d)
        q, k, v = np.split(heads, [config.heads, config.heads + config.key_heads], axis=1)
        q, k = rms(q, w["query_scale"]), rms(k, w["key_scale"])
        attended = np.zeros((len(ids), config.heads, d))
        for t in range(len(ids)):
            for head in range(config.heads):
                own = head // group
                scores = np.array([turn(q[t, head], t) @ turn(k[s, own], s) for s in range(t + 1)]) / np.sqrt(d)
                weights = np.exp(scores - scores.max())
                attended[t, head] = weights / weights.sum() @ v[: t + 1, own]
        h = h + attended.reshape(len(ids), -1) @ w["out.weight"].T
        gate, value = np.split(rms(h, w["ffn_norm.weight"]) @ w["up.weight"].T, 2, axis=1)
        h = h + (gate / (1 + np.exp(-gate)) * value) @ w["down.weight"].T
    return rms(h, state["final_norm.weight"])


def test_equals_the_formulas() -> None:
    model = build(qk_norm=True)
    ids = IDS[:7]
    np.testing.assert_allclose(model(one(ids)).detach().numpy(), reference(model, ids.numpy()), atol=1e-5)


# ---------------------------------------------------------------------------- paths


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_company_changes_nothing(positions: str, attention: str) -> None:
    """Sequences of mixed lengths in one batch give the states that each gives alone."""
    model = build(positions=positions, attention=attention, qk_norm=True)
    blocks = BLOCKS if attention == "block_causal" else None
    torch.testing.assert_close(model(TEXTS, blocks=blocks), alone(model, TEXTS, blocks), atol=2e-5, rtol=1e-5)


def gradients(model: Transformer, states: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    weights = torch.linspace(-1, 1, states.numel()).view_as(states)
    (states * weights).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("changes", [{}, {"attention": "bidirectional"}, BERT | {"kv_heads": 4}], ids=str)
def test_paths_agree_in_states_and_gradients(changes: dict[str, Any]) -> None:
    model = build(**changes).double()
    grouped = model(TEXTS)
    model.path = "jagged"
    jagged = model(TEXTS)
    model.path = "auto"
    single = alone(model, TEXTS)
    torch.testing.assert_close(jagged, grouped)
    torch.testing.assert_close(single, grouped)
    expected = gradients(model, grouped)
    assert len(expected) == len(list(model.parameters()))
    for states in (jagged, single):
        torch.testing.assert_close(gradients(model, states), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_gpu_equals_cpu(attention: str) -> None:
    model = build(attention=attention, dim=32)
    expected = model(TEXTS)
    wanted = gradients(model, expected)
    model.cuda()
    states = model(TEXTS.to("cuda"))
    torch.testing.assert_close(states.cpu(), expected, atol=1e-3, rtol=1e-3)
    got = {name: value.cpu() for name, value in gradients(model, states.cpu()).items()}
    torch.testing.assert_close(got, wanted, atol=1e-2, rtol=1e-2)


def test_jagged_refuses_masks() -> None:
    model = build(positions="alibi")
    model.path = "jagged"
    with pytest.raises(InputError, match="jagged attention takes no masks"):
        model(TEXTS)


def test_gradient_is_the_derivative() -> None:
    model = build(layers=1, dim=8, heads=2, kv_heads=1, qk_norm=True).double()
    x = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: model(Ragged(x, torch.tensor([2, 3]))), (x,))


def test_grouped_heads_are_repeated_heads() -> None:
    shared = build(kv_heads=2)
    full = build(kv_heads=4)
    d, state = shared.config.head_width, shared.state_dict()
    for name, value in state.items():
        if "qkv" in name:
            q, k, v = value.split((4 * d, 2 * d, 2 * d))
            k, v = (x.view(2, d, -1).repeat_interleave(2, 0).flatten(0, 1) for x in (k, v))
            state[name] = torch.cat((q, k, v))
    full.load_state_dict(state)
    torch.testing.assert_close(full(TEXTS), shared(TEXTS), atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------------- who sees whom


def influence(model: Transformer, blocks: Tensor | None = None) -> np.ndarray:
    """bool [L, L]: does token j change the state of token i?"""
    h = torch.randn(6, 24, generator=torch.Generator().manual_seed(2))
    before = model(one(h), blocks=blocks)
    columns = []
    for j in range(6):
        changed = h.clone()
        changed[j] += 1
        columns.append((model(one(changed), blocks=blocks) - before).abs().amax(1) > 1e-6)
    return torch.stack(columns, 1).numpy()


@pytest.mark.parametrize("positions", ["rope", "alibi"])
def test_causal_and_bidirectional(positions: str) -> None:
    assert (influence(build(positions=positions)) == np.tri(6, dtype=bool)).all()
    assert influence(build(positions=positions, attention="bidirectional")).all()


@pytest.mark.parametrize("positions", ["rope", "alibi"])
def test_block_causal(positions: str) -> None:
    blocks = torch.tensor([0, 0, 1, 1, 1, 2])
    seen = influence(build(positions=positions, attention="block_causal"), blocks)
    assert (seen == (blocks[None, :] <= blocks[:, None]).numpy()).all()


def test_block_causal_contains_both_others() -> None:
    model = build(attention="block_causal")
    for kind, blocks in (
        ("causal", torch.arange(len(IDS))),
        ("bidirectional", torch.zeros(len(IDS), dtype=torch.long)),
    ):
        plain = build(attention=kind)
        torch.testing.assert_close(model(TEXTS, blocks=blocks), plain(TEXTS), atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------------- inputs and outputs


def test_vectors_stand_in_for_tokens() -> None:
    model = build()
    at = torch.zeros(len(IDS), dtype=torch.bool)
    at[[1, 4, 9, 20]] = True
    vectors = torch.randn(4, 24, requires_grad=True)
    rows = model.embed(IDS).detach().clone()
    rows[at] = vectors.detach()
    mixed = model(TEXTS, vectors=vectors, at=at)
    torch.testing.assert_close(mixed, model(Ragged(rows, LENGTHS)))
    mixed.sum().backward()
    assert bool((vectors.grad.abs().amax(1) > 0).all())
    # Token ids whose every place was taken by a vector get no gradient; all others do (the head is not in use).
    used = torch.zeros(50, dtype=torch.bool)
    used[IDS[~at]] = True
    assert torch.equal(model.tokens.weight.grad.abs().amax(1) > 0, used)


@pytest.mark.parametrize("changes", [{}, BERT], ids=["pre", "post"])
def test_all_states(changes: dict[str, Any]) -> None:
    model = build(**changes)
    states = model(TEXTS, all_states=True)
    assert len(states) == 3
    torch.testing.assert_close(states[-1], model(TEXTS))
    if not changes:
        torch.testing.assert_close(states[0], model.embed(IDS))
        # The state in between is what a model of one layer ends with, before its final norm.
        first = Transformer(TransformerConfig(vocab=50, dim=24, layers=1, heads=4, kv_heads=2)).eval()
        first.load_state_dict(model.state_dict(), strict=False)
        torch.testing.assert_close(first(TEXTS), model.final_norm(states[1]))


def test_heads() -> None:
    tied, untied = build(), build(tied=False)
    hidden = tied(TEXTS)
    torch.testing.assert_close(tied.logits(hidden), hidden @ tied.tokens.weight.T)
    assert untied.head_weight() is untied.head.weight
    assert untied.logits(hidden).shape == (len(IDS), 50)
    assert build(vocab=0).tokens is None


@pytest.mark.parametrize("activation", ["swiglu", "geglu", "gelu", "gelu_tanh", "relu"])
def test_activations(activation: str) -> None:
    def erf(x: float) -> float:
        return float(torch.erf(torch.tensor(x, dtype=torch.float64)))

    formulas = {
        "swiglu": lambda x: x / (1 + np.exp(-x)),
        "geglu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
        "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
        "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
        "relu": lambda x: max(x, 0.0),
    }
    block = build(activation=activation, ffn=8, biases=True, layers=1).blocks[0]
    x = torch.randn(1, 24)
    up = (x @ block.up.weight.T + block.up.bias)[0].tolist()
    made = [formulas[activation](value) for value in up[:8]]
    if activation in ("swiglu", "geglu"):
        assert len(up) == 16
        made = [value * gate for value, gate in zip(made, up[8:], strict=True)]
    expected = torch.tensor([made], dtype=torch.float32) @ block.down.weight.T + block.down.bias
    torch.testing.assert_close(block._ffn(x), expected, atol=1e-5, rtol=1e-4)


def test_checkpointing_gives_the_same_gradient_with_dropout() -> None:
    results = []
    for checkpointing in (False, True):
        model = build(dropout=0.3, checkpointing=checkpointing).train()
        torch.manual_seed(5)
        results.append(gradients(model, model(TEXTS)))
    torch.testing.assert_close(results[0], results[1], atol=0, rtol=0)


def test_dropout_only_in_training() -> None:
    model = build(dropout=0.5)
    torch.testing.assert_close(model(TEXTS), model(TEXTS), atol=0, rtol=0)
    model.train()
    assert not torch.allclose(model(TEXTS), model(TEXTS), atol=1e-2)


def test_initialisation() -> None:
    torch.manual_seed(0)
    config = TransformerConfig(vocab=500, dim=128, layers=8, heads=4, biases=True)
    model = Transformer(config).requires_grad_(False)
    block = model.blocks[3]
    assert float(block.qkv.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert float(block.out.weight.std()) == pytest.approx(0.02 / 4, rel=0.05)
    assert float(block.down.weight.std()) == pytest.approx(0.02 / 4, rel=0.05)
    assert not bool(block.up.bias.any())
    # Untrained logits are nearly level: the first loss is that of guessing.
    logits = model.logits(model(Ragged(torch.arange(60), torch.tensor([60]))))
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(60, 120))
    assert float(loss.detach()) == pytest.approx(np.log(500), rel=0.05)


def test_learns_to_copy() -> None:
    """A causal model learns to repeat what it saw four tokens ago, which takes attention and positions."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig.sized(1, vocab=8, layers=2, heads=2))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        words = torch.randint(0, 8, (16, 4)).repeat(1, 3)
        states = model(Ragged(words.flatten(), torch.full((16,), 12))).view(16, 12, -1)
        loss = torch.nn.functional.cross_entropy(model.logits(states[:, 3:-1]).flatten(0, 1), words[:, 4:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.6  # guessing gives log 8 = 2.08


def test_compiled_blocks_are_compiled_once_for_all_lengths() -> None:
    """Lengths differ in every batch: they must not enter what is compiled."""
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    model, plain = build(), build()
    for block in model.blocks:
        block.compile(backend=counter, dynamic=True)
    frames = []
    for sizes in ([3, 5, 3], [4, 4], [2, 9, 1, 6], [7], [5, 6], [1, 2, 3, 4]):
        texts = Ragged(torch.arange(sum(sizes)), torch.tensor(sizes))
        torch.testing.assert_close(model(texts), plain(texts))
        frames.append(counter.frame_count)
    assert frames[-1] == frames[2]
    torch._dynamo.reset()


# ---------------------------------------------------------------------------- cache


@pytest.mark.parametrize("positions", POSITIONS)
def test_cached_equals_uncached(positions: str) -> None:
    """Rows of different lengths: read as prompts, continued, partly rolled back, continued, one dropped."""
    model = build(positions=positions, qk_norm=True, max_length=32)
    random = torch.Generator().manual_seed(3)
    cache = model.new_cache(len(TEXTS), capacity=2)
    torch.testing.assert_close(model.prefill(TEXTS, cache), model(TEXTS).detach(), atol=1e-5, rtol=1e-5)
    rows = [list(part) for part in IDS.split(LENGTHS.tolist())]

    def append(steps: int) -> None:
        new = torch.randint(0, 50, (len(rows), steps), generator=random)
        states = model.forward_cached(new, cache)
        for row, tokens, state in zip(rows, new, states, strict=True):
            row += list(tokens)
            whole = model(one(torch.stack(row)))[-steps:]
            torch.testing.assert_close(state, whole.detach(), atol=1e-5, rtol=1e-5)

    append(1)
    append(4)
    kept = cache.lengths - torch.tensor([0, 1, 2, 3, 4, 0])
    cache.truncate(kept)
    rows = [row[:n] for row, n in zip(rows, kept.tolist(), strict=True)]
    append(2)
    cache.select(torch.tensor([5, 1, 1]))
    rows = [list(rows[i]) for i in (5, 1, 1)]
    append(1)
    append(3)


def test_cache_from_nothing_and_with_vectors() -> None:
    model = build()
    cache = model.new_cache(2, capacity=1)
    ids = torch.randint(0, 50, (2, 5))
    expected = model(Ragged(ids.flatten(), torch.tensor([5, 5]))).view(2, 5, -1).detach()
    torch.testing.assert_close(model.forward_cached(ids[:, :3], cache), expected[:, :3], atol=1e-5, rtol=1e-5)
    vectors = model.embed(ids[:, 3:].flatten()).view(2, 2, -1)
    torch.testing.assert_close(model.forward_cached(vectors, cache), expected[:, 3:], atol=1e-5, rtol=1e-5)
    assert cache.lengths.tolist() == [5, 5] and cache.capacity >= 5


def test_cache_refuses() -> None:
    model = build()
    cache = model.new_cache(2)
    with pytest.raises(InputError, match="only causal models"):
        build(attention="bidirectional").new_cache(2)
    with pytest.raises(InputError, match=r"\[3, 1\] for a cache of 2 rows"):
        model.forward_cached(torch.zeros(3, 1, dtype=torch.long), cache)
    model.forward_cached(torch.zeros(2, 2, dtype=torch.long), cache)
    with pytest.raises(InputError, match=r"truncate\(\[3, 1\]\)"):
        cache.truncate(torch.tensor([3, 1]))
    with pytest.raises(InputError, match="an empty cache"):
        model.prefill(Ragged(torch.zeros(2, dtype=torch.long), torch.tensor([1, 1])), cache)


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "rmsnorm"}, "norm='rmsnorm'; expected one of rms, layer"),
        ({"activation": "swigul"}, "did you mean 'swiglu'"),
        ({"heads": 5, "kv_heads": None}, "no multiple of heads=5"),
        ({"kv_heads": 3}, "4 heads cannot share kv_heads=3"),
        ({"head_dim": 7}, "a head of width 7 must be even"),
        ({"layers": 0}, "at least 1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"rope_factor": 2.0}, "only with linear or ntk"),
    ],
)
def test_bad_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**changes)


@pytest.mark.parametrize(
    ("values", "lengths", "options", "message"),
    [
        (torch.tensor([3, 50]), [2], {}, "token id 50 is outside the vocabulary of 50"),
        (torch.tensor([-1, 4]), [2], {}, "token id -1 is outside"),
        (torch.tensor([1, 2]), [2, 0], {}, "sequence 1 has no tokens"),
        (torch.zeros(0, dtype=torch.long), [], {}, "no sequences"),
        (torch.zeros(2, 2, dtype=torch.long), [2], {}, r"token ids of shape \[2, 2\]"),
        (torch.tensor([True, False]), [2], {}, "token ids of type torch.bool"),
        (torch.zeros(2, 23), [2], {}, r"expected \[N, 24\]"),
        (torch.tensor([1, 2]), [2], {"blocks": torch.tensor([0, 0])}, "causal attention takes no blocks"),
        (torch.tensor([1, 2]), [2], {"vectors": torch.zeros(1, 24)}, "come together"),
        (
            torch.tensor([1, 2]),
            [2],
            {"vectors": torch.zeros(2, 24), "at": torch.tensor([True, False])},
            r"expected \[1, 24\]",
        ),
        (
            torch.tensor([1, 2]),
            [2],
            {"vectors": torch.zeros(1, 24), "at": torch.tensor([1, 0])},
            r"expected bool \[2\]",
        ),
    ],
)
def test_bad_inputs(values: Tensor, lengths: list[int], options: dict[str, Any], message: str) -> None:
    texts = Ragged(values, torch.tensor(lengths, dtype=torch.long))
    with pytest.raises(InputError, match=message):
        build()(texts, **options)


def test_bad_blocks_and_no_table() -> None:
    model = build(attention="block_causal")
    with pytest.raises(InputError, match="needs blocks"):
        model(TEXTS)
    with pytest.raises(InputError, match=r"expected int64 \[24\]"):
        model(TEXTS, blocks=BLOCKS[:-1])
    with pytest.raises(InputError, match="without a token table"):
        build(vocab=0)(TEXTS)
    with pytest.raises(InputError, match="without a vocabulary"):
        build(vocab=0).logits(torch.zeros(1, 24))
