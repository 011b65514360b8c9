"""Synthetic worlds: every sample obeys the rules of its world, and no rule favours a shortcut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="batches need torch: pip install 'nextvec[hf]'")

from nextvec.data.sources import Generated  # noqa: E402
from nextvec.data.synthetic import graphs as told  # noqa: E402
from nextvec.data.synthetic.grid_world import GridWorld  # noqa: E402
from nextvec.data.synthetic.letters import Letters  # noqa: E402
from nextvec.data.synthetic.path_star import PathStar  # noqa: E402
from nextvec.types import Batch, InputError  # noqa: E402


@pytest.mark.parametrize(("degree", "length", "nodes"), [(2, 5, 20), (5, 5, 100), (1, 2, 2), (3, 2, 4), (7, 7, 43)])
def test_path_star_graphs_are_what_they_say(degree: int, length: int, nodes: int) -> None:
    task = PathStar(degree, length, nodes)
    ids = task.sample(np.random.default_rng(0), 50)
    assert ids.shape == (50, task.sequence_length)
    assert ids.min() >= 0 and ids.max() < task.vocab
    for row in ids.tolist():
        prompt, path = row[: task.prompt_length], row[task.prompt_length :]
        pairs = [(prompt[i], prompt[i + 1]) for i in range(0, 3 * task.edges, 3)]
        assert prompt[2 : 3 * task.edges : 3] == [task.separator] * (task.edges - 1) + [task.end_of_edges]
        start, goal, equals = prompt[-3:]
        assert equals == task.equals
        assert (path[0], path[-1], len(path)) == (start, goal, length)
        assert all(edge in pairs for edge in itertools.pairwise(path))
        # A star: only the start is left more than once, no node is entered twice, all arms have the same length.
        leaves = [u for u, _ in pairs]
        entered = [v for _, v in pairs]
        assert leaves.count(start) == degree and start not in entered
        assert len(set(entered)) == task.edges == degree * (length - 1)
        assert all(leaves.count(v) <= 1 for v in entered)
        after = dict(pair for pair in pairs if pair[0] != start)
        for tip in (v for u, v in pairs if u == start):
            steps = 1
            while tip in after:
                tip, steps = after[tip], steps + 1
            assert steps == length - 1


def test_path_star_gives_no_hint_by_value_or_place() -> None:
    task = PathStar(4, 3, 10)
    ids = task.sample(np.random.default_rng(0), 20_000)
    values = np.bincount(ids[:, task.prompt_length + 1], minlength=10)
    assert np.abs(values / 2000 - 1).max() < 0.1
    first = np.argmax(ids[:, 1 : 3 * task.edges : 3] == ids[:, task.prompt_length + 1 : task.prompt_length + 2], axis=1)
    assert np.abs(np.bincount(first, minlength=task.edges) / 2500 - 1).max() < 0.1


def test_path_star_sets_are_fixed_and_apart_from_the_steps() -> None:
    task = PathStar(2, 3, 30)
    assert (task.dataset(8, seed=1) == task.dataset(8, seed=1)).all()
    source = Generated(lambda rng, count: Batch(task.columns(task.sample(rng, count))), batch=8, seed=1)
    for step in range(3):
        made = source.batch(step).ragged("text").values.reshape(8, -1).numpy()
        assert not (made == task.dataset(8, seed=1)).all(axis=1).any()
    batch = source.batch(0, part=1, parts=3)
    assert batch.tensor("prompt").tolist() == [task.prompt_length] * 3
    assert batch.ragged("text").lengths.tolist() == [task.sequence_length] * 3


def test_path_star_accuracy_counts_whole_paths() -> None:
    task = PathStar(2, 4, 30)
    ids = task.dataset(4, seed=0)
    written = ids[:, task.prompt_length :].copy()
    assert task.accuracy(torch.from_numpy(written), torch.from_numpy(ids)) == 1.0
    written[1, 0] += 1
    written[2, -1] += 1
    assert task.accuracy(written, ids) == 0.5
    with pytest.raises(InputError, match="expected"):
        task.accuracy(written[:, 1:], ids)


@pytest.mark.parametrize("wrong", [(0, 5, 100), (2, 1, 100), (2, 5, 8)])
def test_path_star_refuses_what_cannot_be(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="G"):
        PathStar(*wrong)


@pytest.mark.parametrize("every", [1, 3])
def test_grid_walks_follow_their_moves(every: int) -> None:
    world = GridWorld(3, 5, every=every)
    ids, cells = world.sample(np.random.default_rng(0), 40, 12)
    assert ids.shape == cells.shape == (40, world.sequence_length(12))
    for row, truth in zip(ids.tolist(), cells.tolist(), strict=True):
        assert row[0] < world.cells
        r, c = divmod(row[0], 5)
        since = 0
        for token, cell in zip(row, truth, strict=True):
            if token >= world.cells:
                down, right = [(-1, 0), (0, 1), (1, 0), (0, -1)][token - world.cells]
                r, c, since = (r + down) % 3, (c + right) % 5, since + 1
            else:
                assert token == r * 5 + c and since in (0, every)
                since = 0
            assert cell == r * 5 + c
    assert set(np.unique(ids)) == set(range(world.vocab))


def test_grid_worlds_refuse_what_cannot_be() -> None:
    with pytest.raises(InputError, match="0 x 4"):
        GridWorld(0, 4)
    with pytest.raises(InputError, match="multiple of 3"):
        GridWorld(every=3).sample(np.random.default_rng(0), 1, 4)


def test_letter_worlds_keep_their_rules() -> None:
    letters, saccades, positions = Letters().sample(np.random.default_rng(0), 300, 60)
    assert letters.shape == (300, 60) and saccades.shape == positions.shape == (300, 60, 2)
    assert (letters.dtype, saccades.dtype, positions.dtype) == (np.int64, np.float32, np.float32)
    assert letters.min() >= 0 and letters.max() < 26 and len(np.unique(letters)) == 26
    assert (letters[:, 1:] != letters[:, :-1]).all()
    assert (positions[:, 0] == 0).all() and np.abs(positions).max() <= 4
    np.testing.assert_allclose(positions[:, :-1] + saccades[:, :-1], positions[:, 1:], atol=1e-5)
    sizes = []
    for row, places in zip(letters, positions, strict=True):
        known = {int(letter): places[np.flatnonzero(row == letter)[0]] for letter in row}
        sizes.append(len(known))
        assert all((places[i] == known[int(letter)]).all() for i, letter in enumerate(row))  # a letter has one place
        spots = np.stack(list(known.values()))
        apart = np.linalg.norm(spots[:, None] - spots[None], axis=-1)[np.triu_indices(len(spots), 1)]
        assert apart.min() >= 0.25
    assert np.bincount(sizes).tolist()[4:] == pytest.approx([100, 100, 100], abs=30)


def test_letter_walks_are_uniform_over_the_other_letters() -> None:
    letters, _, _ = Letters(vocab=4, fewest=4, most=4).sample(np.random.default_rng(0), 2000, 20)
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (letters[:, :-1].ravel(), letters[:, 1:].ravel()), 1)
    share = pairs / pairs.sum(axis=1, keepdims=True)
    assert np.abs(share - (1 - np.eye(4)) / 3).max() < 0.02


def test_letters_refuse_what_cannot_be() -> None:
    with pytest.raises(InputError, match="expected 2 <= fewest"):
        Letters(fewest=5, most=4)
    with pytest.raises(InputError, match="do not fit"):
        Letters(distance=4.0)
    with pytest.raises(InputError, match="0 worlds"):
        Letters().sample(np.random.default_rng(0), 0, 5)


def reached(facts: list[tuple[str, str]], start: str) -> set[str]:
    """What follows from ``facts``, by definition."""
    found = {start}
    while more := {b for a, b in facts if a in found} - found:
        found |= more
    return found


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(0, 2), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_of_a_graph_one_candidate_is_reached_and_the_other_is_not(seed: int, least: int, more: int, extra: int) -> None:
    for chain in told.graphs(np.random.default_rng(seed), 5, least=least, hops=least + more, extra=extra):
        *facts, asked = chain.question.split(". ")
        pairs = [(a, b) for a, _, b in (fact.split() for fact in facts)]
        _, start, first, _, second = asked.rstrip("?").split()
        (other,) = {first, second} - {chain.answer}
        assert chain.answer in reached(pairs, start) and other not in reached(pairs, start)
        # The steps are facts, one after the other, from what is asked about to the answer; nothing shorter leads there.
        hops = [(a, b) for a, _, b in (step.rstrip(".").split() for step in chain.steps)]
        assert set(hops) <= set(pairs) and least <= len(hops) <= least + more
        assert hops[0][0] == start and hops[-1][1] == chain.answer
        assert all(one[1] == two[0] for one, two in itertools.pairwise(hops))
        assert len({b for _, b in pairs}) == len(pairs)  # one way to everything
        # Neither candidate leads anywhere, and both are as far from a noun that nothing leads to.
        assert not {first, second} & {a for a, _ in pairs}
        into = {b: a for a, b in pairs}
        far = {}
        for candidate in (first, second):
            at, far[candidate] = candidate, 0
            while at in into:
                at, far[candidate] = into[at], far[candidate] + 1
        assert far[first] == far[second] == len(hops)


def test_graphs_to_measure_on_are_new_and_either_candidate_is_right_as_often() -> None:
    learned, tests = told.fresh_split(1, 300, 40, least=1, hops=2, extra=1, before=(0,))
    begun_with, _ = told.fresh_split(0, 300, 40, least=1, hops=2, extra=1)
    known = {chain.question for chain in (*learned, *begun_with)}
    assert not known & {chain.question for chain in tests}
    first = np.mean([chain.question.split()[-3] == chain.answer for chain in learned])
    assert 0.4 < first < 0.6
    with pytest.raises(InputError, match="at least 1 hop"):
        told.graphs(np.random.default_rng(0), 1, least=0, hops=2)
