"""Poolings with weights: against NumPy written from the equations, gradients, and independence of a text's company."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from nextvec.nn.pooling.attention import AttentionPooling, segment_softmax
from nextvec.nn.pooling.latent import LatentAttention, LatentQueryPooling
from nextvec.nn.pooling.modes import pool
from nextvec.nn.pooling.multi_layer import MultiLayerPooling
from nextvec.types import InputError

WIDTH = 4
SIZES = [3, 0, 1, 5]


def states(seed: int = 0, sizes: list[int] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    own = SIZES if sizes is None else sizes
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(own), WIDTH, dtype=torch.float64, generator=generator), torch.tensor(own)


def shaken(module: nn.Module, seed: int = 1) -> nn.Module:
    """In float64 with all weights away from their start, so that nothing is hidden by a zero or a one."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, dtype=torch.float64, generator=generator) * 0.7)
    return module


def build(name: str) -> nn.Module:
    if name == "attention":
        return shaken(AttentionPooling(WIDTH, heads=2, score_width=3))
    if name == "latent":
        return shaken(LatentAttention(WIDTH, latents=5, heads=2, head_width=3, expansion=2))
    return shaken(LatentQueryPooling(WIDTH, latents=5, heads=2, head_width=3, expansion=2))


NAMES = ("attention", "latent", "query")


# ---------------------------------------------------------------- by the equations, in NumPy


def softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()


def layer_norm(x: np.ndarray, norm: nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scale, shift = (weight.detach().numpy() for weight in (norm.weight, norm.bias))
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + norm.eps) * scale + shift


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def matrix(linear: nn.Linear) -> np.ndarray:
    assert linear.bias is None
    return linear.weight.detach().numpy().T


def cross_block(module: nn.Module, x: np.ndarray, context: np.ndarray) -> np.ndarray:
    """x [S, D] reads context [T, D], head by head and row by row; then the gated feed-forward; both with residual."""
    attention, feed = module.attention, module.feed
    q = layer_norm(x, attention.norm) @ matrix(attention.to_q)
    kv = layer_norm(context, attention.norm_context) @ matrix(attention.to_kv)
    inner = q.shape[1]
    k, v = kv[:, :inner], kv[:, inner:]
    width = inner // attention.heads
    read = np.zeros_like(q)
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(x)):
            weights = softmax(np.array([q[i, part] @ row for row in k[:, part]]) / math.sqrt(width))
            read[i, part] = weights @ v[:, part]
    out = x + read @ matrix(attention.to_out)
    up = layer_norm(out, feed.norm) @ matrix(feed.up)
    half = up.shape[1] // 2
    return out + (up[:, :half] * gelu(up[:, half:])) @ matrix(feed.down)


def test_latent_attention_by_the_equations() -> None:
    module, (hidden, lengths) = build("latent"), states()
    latents = module.latents.detach().numpy()
    own = np.split(hidden.numpy(), np.cumsum(SIZES)[:-1])
    expected = [cross_block(module, rows, latents).mean(0) if len(rows) else np.zeros(WIDTH) for rows in own]
    np.testing.assert_allclose(module(hidden, lengths).detach(), np.stack(expected), atol=1e-10)
    skipped = module(hidden, lengths, skip=torch.tensor([1, 0, 0, 2])).detach()
    np.testing.assert_allclose(skipped[3], cross_block(module, own[3], latents)[2:].mean(0), atol=1e-10)


def test_latent_query_by_the_equations() -> None:
    module, (hidden, lengths) = build("query"), states()
    latents = module.latents.detach().numpy()
    own = np.split(hidden.numpy(), np.cumsum(SIZES)[:-1])
    expected = [cross_block(module, latents, rows).mean(0) if len(rows) else np.zeros(WIDTH) for rows in own]
    np.testing.assert_allclose(module(hidden, lengths).detach(), np.stack(expected), atol=1e-10)


def test_attention_by_the_equations() -> None:
    module, (hidden, lengths) = build("attention"), states()
    expected = np.zeros((len(SIZES), 2, WIDTH))
    for text, rows in enumerate(np.split(hidden.numpy(), np.cumsum(SIZES)[:-1])):
        for head in range(2) if len(rows) else ():
            weights = softmax(np.tanh(rows @ matrix(module.inner)) @ matrix(module.score)[:, head])
            expected[text, head] = weights @ rows
    np.testing.assert_allclose(module(hidden, lengths).detach(), expected.reshape(len(SIZES), -1), atol=1e-12)


@pytest.mark.parametrize("mode", ["mean", "lasttoken"])
def test_multi_layer_by_the_equations(mode: str) -> None:
    module = shaken(MultiLayerPooling(WIDTH, 3, mode=mode, latents=5, heads=2, head_width=3, expansion=2))
    every = torch.stack([states(seed)[0] for seed in range(4)])
    lengths = torch.tensor(SIZES)
    found = module(every, lengths).detach().numpy()
    at = 0
    for text, size in enumerate(SIZES):
        rows = every[1:, at : at + size].numpy()  # the embeddings' output is left out
        at += size
        if not size:
            assert not found[text].any()
            continue
        layers = (rows.mean(1) if mode == "mean" else rows[:, -1]) + module.layer.detach().numpy()
        block = cross_block(module.pooler, module.pooler.latents.detach().numpy(), layers)
        np.testing.assert_allclose(found[text], block.mean(0), atol=1e-10)


# ---------------------------------------------------------------- what holds for all


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_states_and_weights(name: str) -> None:
    module, (hidden, lengths) = build(name), states()
    hidden.requires_grad_()
    names = [key for key, _ in module.named_parameters()]
    weights = [weight.detach().requires_grad_() for weight in module.parameters()]

    def run(x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, dict(zip(names, given, strict=True)), (x, lengths))

    assert torch.autograd.gradcheck(run, (hidden, *weights))
    module(hidden, lengths).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 1e-9 for weight in module.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_text_does_not_see_its_company(name: str) -> None:
    """Alone, with others that are longer, and in another order: the same vector. What padding would break."""
    module, (hidden, lengths) = build(name), states()
    together = module(hidden, lengths)
    parts = hidden.split(SIZES)
    for i, rows in enumerate(parts):
        torch.testing.assert_close(module(rows, lengths[i : i + 1])[0], together[i])
    turned = module(torch.cat(parts[::-1]), lengths.flip(0))
    torch.testing.assert_close(turned.flip(0), together)
    longer = module(torch.cat([hidden, 50 * torch.ones(9, WIDTH, dtype=torch.float64)]), torch.tensor([*SIZES, 9]))
    torch.testing.assert_close(longer[:-1], together)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_tokens_does_not_matter(name: str) -> None:
    module, (hidden, _) = build(name), states(sizes=[5])
    lengths = torch.tensor([5])
    torch.testing.assert_close(module(hidden.flip(0), lengths), module(hidden, lengths))
    assert not torch.allclose(module(hidden.roll(1, dims=1), lengths), module(hidden, lengths))


@pytest.mark.parametrize("name", NAMES)
def test_texts_without_tokens_are_zeros_with_finite_gradients(name: str) -> None:
    module, (hidden, lengths) = build(name), states()
    hidden.requires_grad_()
    out = module(hidden, lengths)
    assert not out[1].any() and out[0].any()
    out.sum().backward()
    assert torch.isfinite(hidden.grad).all()
    assert all(torch.isfinite(weight.grad).all() for weight in module.parameters())
    none = module(hidden[:0], torch.tensor([0, 0]))
    assert none.shape == (2, out.shape[1]) and not none.any()


# ---------------------------------------------------------------- each by itself


def test_attention_begins_as_the_mean() -> None:
    hidden, lengths = states()
    fresh = AttentionPooling(WIDTH, heads=2).double()
    torch.testing.assert_close(fresh(hidden, lengths), torch.cat([pool(hidden, lengths)] * 2, dim=1))
    weights = build("attention").weights(hidden, lengths)
    sums = torch.stack([part.sum(0) for part in weights.split(SIZES)])
    torch.testing.assert_close(sums, (lengths > 0).double()[:, None].expand(-1, 2))


def test_segment_softmax_of_large_scores() -> None:
    scores = torch.tensor([[1000.0], [1000.0], [-1000.0], [5.0]])
    assert segment_softmax(scores, torch.tensor([3, 1])).flatten().tolist() == [0.5, 0.5, 0.0, 1.0]
    with pytest.raises(InputError, match="add up to 3"):
        segment_softmax(scores, torch.tensor([3]))


def test_attention_learns_which_token_counts() -> None:
    """Direction: the wanted vector is the one token with a positive first value; the mean cannot give it."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64 * 5, WIDTH, generator=generator)
    hidden[:, 0] = -1
    hidden[::5, 0] = 1
    lengths, wanted = torch.full((64,), 5), hidden[::5]
    module = AttentionPooling(WIDTH)
    adam = torch.optim.Adam(module.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = (module(hidden, lengths) - wanted).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    assert module.weights(hidden, lengths)[::5].mean() > 0.9


def test_one_key_leaves_the_latents_nothing_to_ask() -> None:
    """Why one vector per text is no input for latent queries: query maps do not matter; with two keys they do."""
    module, (hidden, _) = build("query"), states(sizes=[2])
    with torch.no_grad():
        before = [module(hidden[:size], torch.tensor([size])) for size in (1, 2)]
        module.attention.to_q.weight.mul_(-3)
        after = [module(hidden[:size], torch.tensor([size])) for size in (1, 2)]
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1])
    with pytest.raises(InputError, match="at least 2"):
        MultiLayerPooling(WIDTH, 1)


def test_multi_layer_tells_layers_apart() -> None:
    module = shaken(MultiLayerPooling(WIDTH, 2, latents=3, heads=2))
    hidden, lengths = states()
    other = states(9)[0]
    one, two = (module([hidden, *pair], lengths) for pair in ((hidden, other), (other, hidden)))
    assert not torch.allclose(one, two)
    with torch.no_grad():
        module.layer.zero_()
    one, two = (module([hidden, *pair], lengths) for pair in ((hidden, other), (other, hidden)))
    torch.testing.assert_close(one, two)


def test_multi_layer_gradients() -> None:
    module = shaken(MultiLayerPooling(WIDTH, 2, latents=3, heads=2))
    every = torch.stack([states(seed)[0] for seed in range(3)]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module(x, torch.tensor(SIZES)), (every,))
    module(every, torch.tensor(SIZES)).square().sum().backward()
    assert not every.grad[0].any() and every.grad[1].any() and every.grad[2].any()
    assert all(weight.grad.abs().max() > 1e-9 for weight in module.parameters())


def test_published_sizes() -> None:
    module = LatentAttention(64)
    assert module.latents.shape == (512, 64) and module.attention.heads == 8
    assert module.attention.to_q.weight.shape == (64, 64) and module.feed.up.weight.shape == (512, 64)
    layered = MultiLayerPooling(64, 3)
    assert layered.pooler.latents.shape == (768, 64) and layered.pooler.attention.heads == 32


def test_half_precision_states_are_taken() -> None:
    hidden, lengths = states()
    small = {"latents": 3, "heads": 2}
    for module in (AttentionPooling(WIDTH), LatentAttention(WIDTH, **small), LatentQueryPooling(WIDTH, **small)):
        assert module(hidden.bfloat16(), lengths).dtype == torch.float32


def test_refusals() -> None:
    hidden, lengths = states()
    for call, says in (
        (lambda: AttentionPooling(0), "at least 1"),
        (lambda: AttentionPooling(3)(hidden, lengths), r"expected \[N, 3\]"),
        (lambda: LatentAttention(6), "does not divide by 8 heads"),
        (lambda: LatentAttention(8, latents=0), "at least 1"),
        (lambda: LatentAttention(8)(hidden, lengths), r"expected \[N, 8\]"),
        (lambda: LatentQueryPooling(WIDTH, heads=2)(hidden, lengths[:-1]), "add up to 4"),
        (lambda: MultiLayerPooling(WIDTH, 2, heads=2, mode="meen"), "did you mean 'mean'"),
        (lambda: MultiLayerPooling(WIDTH, 3, heads=2)([hidden] * 3, lengths), "3 states; expected 4"),
        (lambda: MultiLayerPooling(8, 2, heads=2)([hidden] * 3, lengths), "4 wide; expected 8"),
    ):
        with pytest.raises(InputError, match=says):
            call()
