"""Sources: shares make up the whole, a batch depends on (seed, step) alone, epochs hold every example once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="sources need torch: pip install 'nextvec[hf]'")

from nextvec.data.sources import (  # noqa: E402
    Changed,
    Columns,
    Generated,
    Shuffled,
    Source,
    TokenBounded,
    columns,
    ragged,
    share,
)
from nextvec.types import Batch, InputError, Ragged  # noqa: E402


def texts(count: int = 50, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 1000, rng.integers(0, 9)).tolist() for _ in range(count)]


def data(count: int = 50) -> dict[str, object]:
    return {"text": texts(count), "number": np.arange(count), "view1": np.random.default_rng(1).normal(size=(count, 3))}


def drawn(rng: np.random.Generator, count: int) -> Batch:
    return Batch(
        columns({"text": [list(range(rng.integers(1, 5))) for _ in range(count)], "x": rng.normal(size=count)})
    )


def noisy(batch: Batch, rng: np.random.Generator) -> Batch:
    noise = torch.from_numpy(rng.normal(size=batch.size))
    return Batch({**batch.columns, "noise": noise})


MAKERS: dict[str, Callable[[], Source]] = {
    "shuffled": lambda: Shuffled(data(), batch=7, seed=3),
    "shuffled, all": lambda: Shuffled(data(), batch=7, seed=3, drop_last=False),
    "token-bounded": lambda: TokenBounded(data(), tokens=40, seed=3, least=3, pool=16),
    "generated": lambda: Generated(drawn, batch=7, seed=3),
    "changed": lambda: Changed(Shuffled(data(), batch=7, seed=3), noisy, seed=4),
}


def flat(batch: Batch) -> dict[str, list[object]]:
    """Every column as a list of examples."""
    found: dict[str, list[object]] = {}
    for name, column in batch.items():
        if isinstance(column, Ragged):
            found[name] = [piece.tolist() for piece in column.values.split(column.lengths.tolist())]
        else:
            found[name] = column.tolist()
    return found


def numbers(batch: Batch) -> list[int]:
    return list(batch.tensor("number").tolist())


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("name", [n for n in MAKERS if n != "shuffled, all"])
def test_the_shares_of_a_batch_are_the_batch(name: str, parts: int) -> None:
    source = MAKERS[name]()
    for step in (0, 1, 9, 30):
        whole = flat(source.batch(step))
        shares = [source.batch(step, part=part, parts=parts) for part in range(parts)]
        assert {n: [example for s in shares for example in flat(s)[n]] for n in whole} == whole
        assert max(s.size for s in shares) - min(s.size for s in shares) <= 1


@pytest.mark.parametrize("name", MAKERS)
def test_a_batch_depends_on_seed_and_step_alone(name: str) -> None:
    straight = MAKERS[name]()
    run = [flat(straight.batch(step)) for step in range(25)]
    resumed = MAKERS[name]()
    assert [flat(resumed.batch(step)) for step in range(11, 25)] == run[11:]
    assert flat(resumed.batch(2)) == run[2]  # back, too
    assert run[0] != run[1]


@given(st.integers(0, 200), st.integers(1, 9))
def test_shares_are_contiguous_and_even(count: int, parts: int) -> None:
    cuts = [share(count, part, parts) for part in range(parts)]
    assert [i for start, stop in cuts for i in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in cuts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("part", "parts"), [(-1, 2), (2, 2), (0, 0)])
def test_a_part_out_of_range_is_refused(part: int, parts: int) -> None:
    with pytest.raises(InputError, match="expected parts >= 1"):
        Shuffled(data(), batch=7, seed=3).batch(0, part=part, parts=parts)


def test_an_epoch_holds_every_example_once_and_orders_differ() -> None:
    source = Shuffled(data(), batch=7, seed=3, drop_last=False)
    assert source.batches_per_epoch == 8
    epochs = [[n for step in range(8 * e, 8 * e + 8) for n in numbers(source.batch(step))] for e in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(50))
    assert source.batch(7).size == 1
    other = Shuffled(data(), batch=7, seed=4, drop_last=False)
    assert numbers(other.batch(0)) != epochs[0][:7]


def test_dropping_the_last_keeps_batches_whole() -> None:
    source = Shuffled(data(), batch=8, seed=3)
    assert [source.batch(step).size for step in range(13)] == [8] * 13
    epoch = [n for step in range(6) for n in numbers(source.batch(step))]
    assert len(set(epoch)) == 48


def test_rows_keep_their_columns_together() -> None:
    made = data()
    batch = Shuffled(made, batch=50, seed=0).batch(0)
    for name, column in flat(batch).items():
        kept = flat(Batch(columns(made)))[name]
        assert column == [kept[i] for i in numbers(batch)]


def test_a_function_collates() -> None:
    source = Shuffled(lambda rows: Batch({"number": torch.from_numpy(rows)}), batch=4, seed=0, count=9)
    assert sorted(numbers(source.batch(0)) + numbers(source.batch(1)))[-1] <= 8
    with pytest.raises(InputError, match="count is None"):
        Shuffled(lambda rows: Batch({}), batch=4, seed=0)
    with pytest.raises(InputError, match="lengths are needed"):
        TokenBounded(lambda rows: Batch({}), tokens=4, seed=0)


@pytest.mark.parametrize("batch", [0, 51])
def test_a_batch_larger_than_the_data_is_refused(batch: int) -> None:
    with pytest.raises(InputError, match="expected 1 to 50"):
        Shuffled(data(), batch=batch, seed=0)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="count is 3, but"):
        Shuffled(data(), batch=2, seed=0, count=3)
    with pytest.raises(InputError, match="batch size 0"):
        Generated(drawn, batch=0, seed=0)
    for source in (Generated(drawn, batch=2, seed=0), Shuffled(data(), batch=2, seed=0)):
        with pytest.raises(InputError, match="must be 0 or more"):
            source.batch(-1)
    with pytest.raises(InputError, match="must be 0 or more"):
        Shuffled(data(), batch=2, seed=-1)
    with pytest.raises(InputError, match="cannot be shared by 3"):
        Shuffled(data(), batch=2, seed=0).batch(0, part=0, parts=3)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=3, max_size=80),
    st.integers(36, 60),
    st.integers(1, 3),
    st.integers(1, 30),
)
def test_token_bounded_batches_keep_their_bounds(lengths: list[int], tokens: int, least: int, pool: int) -> None:
    made = {"text": [[i] * n for i, n in enumerate(lengths)], "number": np.arange(len(lengths))}
    source = TokenBounded(made, tokens=tokens, seed=1, least=least, pool=pool)
    seen: list[int] = []
    step = 0
    while len(seen) <= len(lengths) - least:  # what an epoch may leave out is fewer than `least`
        batch = source.batch(step)
        assert batch.size >= least
        assert len(batch.ragged("text").values) <= tokens
        seen += numbers(batch)
        step += 1
    assert len(set(seen)) == len(seen)
    assert source.batch(step).size >= least  # the next epoch


def test_token_bounded_batches_hold_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 4000)
    source = TokenBounded(
        lambda rows: Batch({"n": torch.from_numpy(lengths[rows])}), tokens=1000, seed=0, lengths=lengths
    )
    batches = [source.batch(step).tensor("n").float() for step in range(180)]
    assert np.mean([float(batch.std()) for batch in batches]) < 2  # the whole has 28.6
    means = [float(batch.mean()) for batch in batches]
    assert np.std(means) > 20 and abs(np.corrcoef(means, np.arange(180))[0, 1]) < 0.3  # the batches are shuffled


def test_token_bounded_batches_use_their_whole_bound() -> None:
    source = TokenBounded({"text": [[1] * 5] * 8}, tokens=15, seed=0)
    assert sorted(source.batch(step).size for step in range(3)) == [2, 3, 3]


def test_token_bounds_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(InputError, match=r"example 1 has 9 tokens; 2 of that length do not fit into a batch of 17"):
        TokenBounded({"text": [[1], [1] * 9]}, tokens=17, seed=0, least=2)
    with pytest.raises(InputError, match="least <= 2"):
        TokenBounded({"text": [[1], [1]]}, tokens=17, seed=0, least=3)
    with pytest.raises(InputError, match="must be 0 or more"):
        TokenBounded({"text": [[1], [1]]}, tokens=17, seed=0).batch(-1)


def test_columns_take_what_is_at_hand() -> None:
    made = columns(
        {
            "text": [[1, 2], [], [3]],
            "frames": [np.zeros((2, 4)), np.ones((1, 4)), np.ones((3, 4))],
            "image": np.zeros((3, 2, 2), dtype=np.uint8),
            "labels": [1, 0, 2],
            "score": [0.5, 1.0, 2.0],
            "kept": torch.zeros(3, 2, dtype=torch.float64),
        }
    )
    assert {n: c.values.dtype if isinstance(c, Ragged) else c.dtype for n, c in made.items()} == {
        "text": torch.int64,
        "frames": torch.float32,
        "image": torch.uint8,
        "labels": torch.int64,
        "score": torch.float32,
        "kept": torch.float64,
    }
    assert made["text"].lengths.tolist() == [2, 0, 1]
    assert made["frames"].values.shape == (6, 4)
    assert Columns(made).lengths.tolist() == [4, 1, 4]
    assert Columns({"labels": [1, 2]}).lengths.tolist() == [1, 1]


@pytest.mark.parametrize(
    "wrong", [[[1], "ab"], [[1], [[1.0, 2.0]]], [[1], None], [[[1.0], [1.0, 2.0]]], [np.ones((2, 3)), np.ones((2, 4))]]
)
def test_sequences_that_do_not_fit_are_refused(wrong: list[object]) -> None:
    with pytest.raises(InputError):
        ragged(wrong)
