"""Masking: what may be chosen, what it becomes, and in which shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="batches need torch: pip install 'nextvec[hf]'")

from nextvec.data.masking import IGNORED, Masking  # noqa: E402
from nextvec.data.sources import Changed, Shuffled, ragged  # noqa: E402
from nextvec.types import InputError, Ragged  # noqa: E402

VOCAB, MASK = 50, 3
SPECIALS = (0, 1, 2)


def masking(**changed: Any) -> Masking:
    return Masking(**{"vocab": VOCAB, "mask": MASK, "specials": SPECIALS, **changed})


def long_text(count: int = 200_000) -> Ragged:
    return ragged(np.random.default_rng(0).integers(4, VOCAB, (count // 100, 100)))


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.integers(0, VOCAB - 1), max_size=12), min_size=1, max_size=6),
    st.sampled_from(["token", "span"]),
    st.sampled_from([0.01, 0.15, 0.9, 1.0]),
    st.integers(0, 99),
)
def test_the_rules_hold_for_any_texts(texts: list[list[int]], unit: Any, probability: float, seed: int) -> None:
    tokens = ragged(texts)
    seen, labels = masking(unit=unit, probability=probability).apply(tokens, np.random.default_rng(seed))
    assert seen.lengths.equal(tokens.lengths) and labels.shape == tokens.values.shape
    cuts = tokens.lengths.tolist()
    for text, now, label in zip(texts, seen.values.split(cuts), labels.split(cuts), strict=True):
        chosen = [i for i, value in enumerate(label.tolist()) if value != IGNORED]
        free = [i for i, token in enumerate(text) if token not in (*SPECIALS, MASK)]
        assert set(chosen) <= set(free)  # never a special token
        assert bool(chosen) == bool(free)  # at least one, wherever there is one
        assert [label[i] for i in chosen] == [text[i] for i in chosen]
        assert all(now[i] == token for i, token in enumerate(text) if i not in chosen)
        assert not set(now[chosen].tolist()) & set(SPECIALS)  # none drawn
        if probability == 1.0:
            assert chosen == free
    assert tokens.values.tolist() == [token for text in texts for token in text]  # the input is left alone


@pytest.mark.parametrize("unit", ["token", "span"])
def test_shares_are_as_asked(unit: Any) -> None:
    tokens = long_text()
    seen, labels = masking(unit=unit).apply(tokens, np.random.default_rng(1))
    chosen = labels != IGNORED
    assert float(chosen.float().mean()) == pytest.approx(0.15, abs=0.004)
    now, then = seen.values[chosen], tokens.values[chosen]
    assert float((now == MASK).float().mean()) == pytest.approx(0.8, abs=0.012)
    assert float((now == then).float().mean()) == pytest.approx(0.1 + 0.1 / 46, abs=0.012)
    drawn = now[(now != MASK) & (now != then)]
    counts = torch.bincount(drawn, minlength=VOCAB)[4:].float()
    assert float(counts.min()) > 0.5 * float(counts.mean()) and float(counts.max()) < 1.5 * float(counts.mean())


def test_other_shares_are_kept_too() -> None:
    tokens = long_text(20_000)
    seen, labels = masking(masked=0.0, random=1.0, probability=0.5).apply(tokens, np.random.default_rng(1))
    chosen = labels != IGNORED
    assert not (seen.values[chosen] == MASK).any()
    assert float((seen.values[chosen] == tokens.values[chosen]).float().mean()) == pytest.approx(1 / 46, abs=0.01)
    seen, _ = masking(masked=0.0, random=0.0).apply(tokens, np.random.default_rng(1))
    assert seen.values.equal(tokens.values)


def spans(chosen: np.ndarray) -> list[int]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


def test_spans_have_geometric_lengths() -> None:
    tokens = ragged(np.full((100, 4000), 9))
    _, labels = masking(unit="span", probability=0.02, stop=0.25, longest=8).apply(tokens, np.random.default_rng(0))
    found = [n for row in labels.numpy().reshape(100, 4000) for n in spans(row != IGNORED)]
    counts = np.bincount(found)
    # Geometric, cut at 8; a few runs touch, and the last of a text is cut to the share.
    assert np.mean(found) == pytest.approx((1 - 0.75**8) / 0.25, abs=0.15)
    assert counts[2] / counts[1] == pytest.approx(0.75, abs=0.12)
    assert counts[8] > counts[7]
    by_token = masking(probability=0.02).apply(tokens, np.random.default_rng(0))[1].numpy()
    assert np.mean(spans(by_token != IGNORED)) < 1.1


def test_a_span_is_replaced_as_a_whole() -> None:
    tokens = ragged(np.full((500, 100), 9))
    seen, labels = masking(unit="span", random=0.0, probability=0.05).apply(tokens, np.random.default_rng(0))
    rows = zip(seen.values.numpy().reshape(500, 100), labels.numpy().reshape(500, 100), strict=True)
    whole = total = 0
    for now, label in rows:
        places = np.flatnonzero(label != IGNORED)
        for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
            if len(run) > 1:
                total += 1
                whole += len(set(now[run].tolist())) == 1
    assert total > 300 and whole / total > 0.93  # two runs that touch may differ


@pytest.mark.parametrize("unit", ["token", "span"])
def test_texts_of_special_tokens_alone_have_no_labels(unit: Any) -> None:
    seen, labels = masking(unit=unit).apply(ragged([[0, 1, 3], [], [2]]), np.random.default_rng(0))
    assert seen.values.tolist() == [0, 1, 3, 2] and (labels == IGNORED).all()


def test_the_one_chosen_of_a_short_text_is_any_of_its_tokens() -> None:
    tokens = ragged([[1, 10, 11, 12, 2]] * 3000)
    for unit in ("token", "span"):
        _, labels = masking(unit=unit, probability=1e-6).apply(tokens, np.random.default_rng(0))
        places = (labels.numpy().reshape(3000, 5) != IGNORED).mean(axis=0)
        assert places.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0], abs=0.03)


def test_masks_do_not_depend_on_the_number_of_processes() -> None:
    texts = [np.random.default_rng(i).integers(4, VOCAB, 3 + i % 9) for i in range(30)]
    source = Changed(Shuffled({"text": texts}, batch=10, seed=0), masking(), seed=5)
    for step in (0, 4):
        whole = source.batch(step)
        assert (whole.ragged("labels").values != IGNORED).any()
        for name in ("text", "labels"):
            shares = [source.batch(step, part=part, parts=3).ragged(name).values for part in range(3)]
            assert torch.cat(shares).equal(whole.ragged(name).values)
    first, second = source.batch(0).ragged("labels").values, source.batch(3).ragged("labels").values
    assert first.shape != second.shape or not first.equal(second)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask": 50},
        {"mask": -1},
        {"specials": range(50)},
        {"specials": [70]},
        {"probability": 0.0},
        {"probability": 1.1},
        {"stop": 0.0},
        {"longest": 0},
        {"masked": 0.9, "random": 0.2},
        {"random": -0.1},
        {"unit": "word"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        masking(**wrong)


@pytest.mark.parametrize("wrong", [ragged([[50]]), ragged([[-1, 5]]), ragged([[[0.5, 0.5]]])])
def test_tokens_that_cannot_be_are_refused(wrong: Ragged) -> None:
    with pytest.raises(InputError, match="expected int64 token ids from 0 to 49"):
        masking().apply(wrong, np.random.default_rng(0))
