"""Poolings without weights: every mode against a loop in NumPy, masks, layers, gradients, texts without tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nextvec.nn.pooling.layers import first_last, last_layers, layer_mean
from nextvec.nn.pooling.modes import MODES, check_modes, pool
from nextvec.nn.pooling.spans import is_special, keep, pool_kept, second_copy, span, tail
from nextvec.types import InputError

WIDTH = 3


def reference(rows: np.ndarray, mode: str, skip: int = 0) -> np.ndarray:
    """One text by the definition; rows [n, D]."""
    if mode in ("cls", "lasttoken"):
        return rows[0 if mode == "cls" else -1] if len(rows) else np.zeros(WIDTH)
    rows = rows[skip:]
    if not len(rows):
        return np.zeros(WIDTH)
    if mode == "max":
        return np.array([max(column) for column in rows.T])
    if mode == "weightedmean":
        return sum((i + 1) * row for i, row in enumerate(rows)) / sum(range(1, len(rows) + 1))
    return rows.sum(0) / (len(rows) if mode == "mean" else len(rows) ** 0.5)


def texts(seed: int, sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor, list[np.ndarray]]:
    """float64 states, lengths, and the texts by themselves."""
    rows = np.random.default_rng(seed).normal(size=(sum(sizes), WIDTH))
    return torch.from_numpy(rows), torch.tensor(sizes), np.split(rows, np.cumsum(sizes)[:-1])


SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 2), st.integers(0, 10**6))
def test_every_mode_is_its_definition(sizes: list[int], skip: int, seed: int) -> None:
    hidden, lengths, own = texts(seed, sizes)
    for mode in MODES:
        expected = np.stack([reference(rows, mode, skip) for rows in own])
        np.testing.assert_allclose(pool(hidden, lengths, modes=(mode,), skip=skip), expected, atol=1e-12)
    both = pool(hidden, lengths, modes=("max", "mean"), skip=skip)
    assert torch.equal(both[:, WIDTH:], pool(hidden, lengths, skip=skip))


@settings(max_examples=40, deadline=None)
@given(SIZES, st.data())
def test_each_text_may_have_its_own_instruction(sizes: list[int], data: st.DataObject) -> None:
    hidden, lengths, own = texts(1, sizes)
    skips = data.draw(st.lists(st.integers(0, 6), min_size=len(sizes), max_size=len(sizes)))
    found = pool(hidden, lengths, modes=("weightedmean",), skip=torch.tensor(skips))
    expected = [reference(rows, "weightedmean", skip) for rows, skip in zip(own, skips, strict=True)]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-12)
    masked = pool_kept(hidden, lengths, span(lengths, torch.tensor(skips), lengths), modes=("weightedmean",))
    torch.testing.assert_close(masked, found)


@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode: str) -> None:
    hidden, lengths, _ = texts(2, [3, 0, 1, 2])
    hidden.requires_grad_()
    skip = torch.tensor([1, 0, 0, 0])
    assert torch.autograd.gradcheck(lambda x: pool(x, lengths, modes=(mode,), skip=skip), (hidden,))


@pytest.mark.parametrize("mode", MODES)
def test_order_of_texts_and_company_do_not_matter(mode: str) -> None:
    hidden, lengths, own = texts(3, [4, 1, 3])
    together = pool(hidden, lengths, modes=(mode,))
    turned = pool(torch.from_numpy(np.concatenate(own[::-1])), lengths.flip(0), modes=(mode,))
    torch.testing.assert_close(turned.flip(0), together)
    for i, rows in enumerate(own):
        torch.testing.assert_close(pool(torch.from_numpy(rows), lengths[i : i + 1], modes=(mode,))[0], together[i])


def test_order_of_tokens_matters_where_it_should() -> None:
    hidden, lengths, _ = texts(4, [4])
    for mode in MODES:
        same = torch.allclose(pool(hidden, lengths, modes=(mode,)), pool(hidden.flip(0), lengths, modes=(mode,)))
        assert same == (mode in ("mean", "max", "mean_sqrt_len_tokens"))


@pytest.mark.parametrize("mode", MODES)
def test_one_token_is_its_own_summary(mode: str) -> None:
    hidden, lengths, _ = texts(5, [1, 1])
    torch.testing.assert_close(pool(hidden, lengths, modes=(mode,)), hidden)


def test_precision_and_refusals() -> None:
    hidden, lengths, _ = texts(6, [2, 1])
    assert pool(hidden.bfloat16(), lengths).dtype == torch.float32
    assert pool(hidden, lengths).dtype == torch.float64
    with pytest.raises(InputError, match="did you mean 'lasttoken'"):
        check_modes(["last_token"])
    with pytest.raises(InputError, match="one number for each"):
        pool(hidden, lengths, skip=torch.tensor([1]))


# ---------------------------------------------------------------- which tokens


@settings(max_examples=40, deadline=None)
@given(SIZES, st.data())
def test_what_a_mask_keeps_is_pooled_as_if_alone(sizes: list[int], data: st.DataObject) -> None:
    hidden, lengths, own = texts(7, sizes)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=sum(sizes), max_size=sum(sizes))), dtype=bool)
    kept, left = keep(hidden, lengths, torch.from_numpy(mask))
    parts = [rows[part] for rows, part in zip(own, np.split(mask, np.cumsum(sizes)[:-1]), strict=True)]
    assert left.tolist() == [len(part) for part in parts]
    np.testing.assert_array_equal(kept, np.concatenate(parts))
    for mode in MODES:
        expected = np.stack([reference(part, mode) for part in parts])
        found = pool_kept(hidden, lengths, torch.from_numpy(mask), modes=(mode,))
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_spans_by_hand() -> None:
    lengths = torch.tensor([4, 0, 2])
    assert span(lengths, 1, 3).int().tolist() == [0, 1, 1, 0, 0, 1]
    assert span(lengths, torch.tensor([2, 0, 0]), torch.tensor([9, 9, 1])).int().tolist() == [0, 0, 1, 1, 1, 0]
    assert tail(lengths, 3).int().tolist() == [0, 1, 1, 1, 1, 1]
    ids = torch.tensor([101, 7, 8, 102, 101, 102])
    assert is_special(ids, {101, 102}).int().tolist() == [1, 0, 0, 1, 1, 1]


def test_special_tokens_left_out() -> None:
    ids, lengths = torch.tensor([101, 7, 8, 102, 101, 102]), torch.tensor([4, 2])
    hidden = torch.tensor([[9.0], [1.0], [3.0], [9.0], [9.0], [9.0]])
    assert pool_kept(hidden, lengths, ~is_special(ids, [101, 102])).tolist() == [[2.0], [0.0]]  # nothing left: zeros
    assert pool_kept(hidden, lengths, ~is_special(ids, [])).tolist() == [[5.5], [9.0]]


def test_echo_reads_the_second_copy() -> None:
    """Prompts "r a b : a b ." and "r c : c d ." whose copies have two tokens; one follows them."""
    lengths = torch.tensor([7, 6])
    hidden = torch.arange(13.0)[:, None]
    mask = second_copy(lengths, torch.tensor([2, 2]), after=1)
    assert mask.nonzero()[:, 0].tolist() == [4, 5, 10, 11]
    assert pool_kept(hidden, lengths, mask, modes=("mean", "lasttoken")).tolist() == [[4.5, 5.0], [10.5, 11.0]]
    with pytest.raises(InputError, match=r"text 1: a prompt of 6 tokens cannot hold 3 tokens twice and 1 after"):
        second_copy(lengths, torch.tensor([3, 3]), after=1)


def test_masks_that_do_not_fit() -> None:
    hidden, lengths = torch.ones(3, 2), torch.tensor([2, 1])
    with pytest.raises(InputError, match="expected bool"):
        keep(hidden, lengths, torch.ones(3))
    with pytest.raises(InputError, match="one for each of 3"):
        keep(hidden, lengths, torch.ones(2, dtype=torch.bool))
    with pytest.raises(InputError, match="add up to 2"):
        keep(hidden, torch.tensor([2]), torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match="begin has shape"):
        span(lengths, torch.tensor([1]), 2)
    with pytest.raises(InputError, match="at least 1"):
        tail(lengths, 0)
    with pytest.raises(InputError, match="copied has shape"):
        second_copy(lengths, torch.tensor([1]))


# ---------------------------------------------------------------- which layers


def test_layers_by_hand() -> None:
    states = [torch.full((2, 1), value) for value in (100.0, 1.0, 2.0, 6.0)]  # embeddings, three layers
    assert first_last(states).tolist() == [[3.5], [3.5]]
    assert first_last(states, first=0).tolist() == [[53.0], [53.0]]
    assert last_layers(states, 2).tolist() == [[4.0], [4.0]]
    assert last_layers(states, 3).tolist() == [[3.0], [3.0]]
    assert layer_mean(states, [0, -1]).tolist() == first_last(states, first=0).tolist()
    assert torch.equal(last_layers(torch.stack(states), 2), last_layers(states, 2))
    assert first_last(states[:2]).tolist() == [[1.0], [1.0]]  # one layer is first and last


def test_layers_gradients() -> None:
    states = torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(first_last, (states,))
    assert torch.autograd.gradcheck(lambda x: last_layers(x, 2), (states,))
    first_last(states).sum().backward()
    assert states.grad is not None
    assert states.grad[:, 0, 0].tolist() == [0.0, 0.5, 0.0, 0.5]


def test_layers_that_there_are_not() -> None:
    states = [torch.ones(1, 1)] * 3
    for call, says in (
        (lambda: last_layers(states, 3), "the last 3 layers; there are 2"),
        (lambda: last_layers(states, 0), "the last 0"),
        (lambda: first_last(states, first=3), "states 0 to 2"),
        (lambda: layer_mean(states, [3]), "no state 3 among 3"),
        (lambda: layer_mean(states, [0, -3]), "one layer twice"),
        (lambda: layer_mean(states, []), "no layers"),
    ):
        with pytest.raises(InputError, match=says):
            call()
