"""Five designs: what each reads, what it must not, and the synthetic tasks."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.data.sources import ragged  # noqa: E402
from nextvec.engine.engine import Engine, TrainConfig  # noqa: E402
from nextvec.engine.optim import OptimConfig  # noqa: E402
from nextvec.methods._pooling_attention_claim import SCALES, World, each_needle_once  # noqa: E402
from nextvec.methods.pooling_attention import DESIGNS, PoolingAttention  # noqa: E402
from nextvec.types import InputError  # noqa: E402

TEXTS = [[5, 7, 9, 2, 1], [3, 4, 1], [8, 8, 6, 2, 2, 2, 1]]


def made(design: str, **changes: object) -> PoolingAttention:
    torch.manual_seed(0)
    config = PoolingAttention.Config(design=design, depth=2, vocab=12, max_length=16, latents=3, **changes)
    return PoolingAttention(config).eval()


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_a_vector_does_not_depend_on_its_batch(design: str) -> None:
    """Padding is never attended to, which the published M4 does not guarantee."""
    method = made(design)
    together = method.vectors(ragged(TEXTS))
    alone = torch.cat([method.vectors(ragged([text])) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert together.shape == (3, 128)


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_attention_is_the_designs(design: str) -> None:
    """A later token changes earlier states of a bidirectional model alone."""
    method = made(design)
    one, two = (method.transformer(ragged([text]))[0] for text in ([5, 7, 9, 2, 1], [5, 7, 9, 3, 1]))
    assert torch.allclose(one, two, atol=1e-6) == (DESIGNS[design][0] == "causal")


def test_as_published_latents_and_their_queries_have_no_effect() -> None:
    """The defect: over one key the softmax is 1, so what is attended to does not depend on queries or latents."""
    for one_key in (True, False):
        method = made("M2", one_key=one_key)
        assert method.pooler is not None
        before = method.vectors(ragged(TEXTS))
        with torch.no_grad():
            method.pooler.attention.to_q.weight.mul_(-3)
        same = torch.allclose(before, method.vectors(ragged(TEXTS)), atol=1e-6)
        assert same == one_key


def test_every_weight_of_the_pooler_is_trained_but_as_published() -> None:
    for design in ("M2", "M3", "M4", "M5"):
        method = made(design)
        method.vectors(ragged(TEXTS)).square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in method.pooler.parameters())
    method = made("M2", one_key=True)
    method.vectors(ragged(TEXTS)).square().sum().backward()
    query, out = (getattr(method.pooler.attention, name).weight.grad.abs().max() for name in ("to_q", "to_out"))
    assert float(query) < 1e-5 * float(out)


def test_a_needle_is_found_after_training() -> None:
    world = World(SCALES["smoke"], 0)
    torch.manual_seed(0)
    config = PoolingAttention.Config(design="M4", depth=2, vocab=world.vocab, max_length=12)
    method = PoolingAttention(config)
    batch = world.batch(np.random.default_rng(0), 24, task="needle")

    class Same:
        def batch(self, step: int, *, part: int = 0, parts: int = 1) -> object:
            return batch

    Engine(method, TrainConfig(steps=60, batch=24, optim=OptimConfig(lr=1e-3))).fit(Same())
    logs = method.objective()(method(batch), batch).logs
    assert logs["info_nce_accuracy"] > 0.9


def test_the_world_is_what_it_says() -> None:
    world = World(SCALES["smoke"], 0)
    random = np.random.default_rng(0)
    texts, kinds = world.texts(random, "needle", 50)
    assert texts.shape == (2, 50, 12) and bool((texts[..., -1] == 0).all())
    for side in texts:
        for text, kind in zip(side, kinds, strict=True):
            assert [token for token in text if 0 < token <= 30] == [1 + kind]
    once, order = each_needle_once(world, random)
    assert order.tolist() == list(range(30))
    assert [[token for token in text if 0 < token <= 30] for text in once[1]] == [[1 + i] for i in range(30)]
    texts, kinds = world.texts(random, "topic", 3000)
    assert texts.min() == 0 and texts[..., :-1].min() > 30 and texts.max() == 70
    share = np.bincount(texts[0, kinds == 0, :-1].ravel(), minlength=71)[31:]
    assert np.sort(share)[-4:].sum() > 0.4 * share.sum()  # 4 of 40 tokens are ten times as frequent


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="design is 'M6'"):
        made("M6")
    with pytest.raises(InputError, match="one_key is a form of M2"):
        made("M4", one_key=True)


def test_only_the_last_token_can_be_exported() -> None:
    method, _ = PoolingAttention.toy(0)
    assert method.encoder() is None
    from dataclasses import replace

    last = PoolingAttention(
        replace(method.config, design="M1", shape=None, depth=2, vocab=300), tokenizer=method.tokenizer
    )
    encoder = last.eval().encoder()
    ids = last.tokenizer.encode(["it is red"])
    found = encoder.encode(["it is red"], normalize=False, precision="fp32")
    np.testing.assert_allclose(found, last.vectors(ragged(ids)).detach().numpy(), atol=1e-4)
