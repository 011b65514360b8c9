"""Future Token Prediction: which pairs are asked, what the decoder sees, and the loss by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="methods need torch: pip install 'nextvec[hf]'")

from nextvec.methods.future_token import FutureToken, FutureTokens, pairs, positions  # noqa: E402
from nextvec.types import Batch, InputError, Ragged  # noqa: E402

LENGTHS = (5, 1, 3)


def text(seed: int = 0) -> Ragged:
    ids = torch.randint(0, 7, (sum(LENGTHS),), generator=torch.Generator().manual_seed(seed))
    return Ragged(ids, torch.tensor(LENGTHS))


def model(**changes: Any) -> FutureToken:
    torch.manual_seed(1)
    config = {
        "dim": 16,
        "layers": 1,
        "heads": 2,
        "vocab": 7,
        "length": 9,
        "ahead": 3,
        "pseudo": 2,
        "every": 1,
        **changes,
    }
    made = FutureToken(FutureToken.Config(**config)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)
    return made


def test_pairs_by_hand() -> None:
    at, which, steps = pairs(text(), None, ahead=3, every=1)
    assert at.tolist() == [0, 1, 2, 3, 6, 7]
    expected = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (6, 1), (6, 2), (7, 1)]
    assert list(zip(at[which].tolist(), steps.tolist(), strict=True)) == expected
    assert pairs(text(), torch.tensor([3, 1, 1]), ahead=1, every=1)[0].tolist() == [2, 3, 6, 7]


def test_which_positions_are_asked_does_not_depend_on_the_batch() -> None:
    whole = text(3)
    together = positions(whole, None, every=2).tolist()
    apart, start = [], 0
    for length in LENGTHS:
        own = Ragged(whole.values[start : start + length], torch.tensor([length]))
        apart += [start + t for t in positions(own, None, every=2).tolist()]
        start += length
    assert together == apart
    assert 0 < len(together) < 6
    first = {positions(Ragged(torch.full((9,), i), torch.tensor([9])), None, every=4).tolist()[0] for i in range(7)}
    assert len(first) > 1  # texts begin at different places


def test_the_loss_by_hand() -> None:
    objective = FutureTokens(ahead=3, gamma=0.5)
    at, which, steps = pairs(text(), None, ahead=3, every=1)
    logits = torch.randn(
        len(which), 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    ).requires_grad_()
    total = count = 0.0
    for row, t, k in zip(logits.detach().numpy(), at[which].tolist(), steps.tolist(), strict=True):
        weight = 0.5 ** (k - 1)
        total -= weight * float(np.log(np.exp(row[int(text().values[t + k])]) / np.exp(row).sum()))
        count += weight
    term = objective({"future": logits}, {"text": text()})
    assert float(term.mean.detach()) == pytest.approx(total / count)
    assert term.count == objective.count({"text": text()}) == pytest.approx(count)
    assert torch.autograd.gradcheck(lambda x: objective({"future": x}, {"text": text()}).sum, (logits,))


def test_everything_about_the_future_passes_through_one_state() -> None:
    """The decoder's answers depend on the state of t and on the told tokens, not on other tokens of the past."""
    made = model()
    out = made(Batch({"text": text()}))
    at, which, steps = pairs(text(), None, ahead=3, every=1)
    values = text().values
    for row, t, k in zip(out["future"], at[which].tolist(), steps.tolist(), strict=True):
        told = made.backbone.embed(values[t + 1 : t + k])[None]
        said = made.decode(out["hidden"][t][None], told)[0, -1]
        torch.testing.assert_close(row, made.backbone.logits(said))
    torch.testing.assert_close(made.next_logits(out["hidden"][at]), out["future"][steps == 1])


def test_the_decoder_does_not_see_what_it_foretells() -> None:
    made = model()
    states, told = torch.randn(2, 16).double(), torch.randn(2, 2, 16).double()
    other = told.clone()
    other[:, 1] += 1
    one, two = made.decode(states, told), made.decode(states, other)
    torch.testing.assert_close(one[:, :2], two[:, :2])
    assert not torch.allclose(one[:, 2], two[:, 2])


def test_the_future_shapes_the_state_and_the_control_has_none() -> None:
    """With N = 1 only the next token's loss reaches the state; with N = 3 so do later ones."""
    for ahead, expected in ((1, {1}), (3, {1, 2, 3})):
        made = model(ahead=ahead)
        _, _, steps = pairs(text(), None, ahead=ahead, every=1)
        assert set(steps.tolist()) == expected
        assert len(made(Batch({"text": text()}))["future"]) == len(steps)


def test_refusals() -> None:
    for changes in ({"ahead": 0}, {"gamma": 0.0}, {"every": 0}):
        with pytest.raises(InputError, match="expected whole numbers"):
            model(**changes)
    with pytest.raises(InputError, match="pseudo is 0"):
        model(pseudo=0)
    with pytest.raises(InputError, match=r"'future' is \[3, 7\]; expected \[12"):
        FutureTokens(ahead=3)({"future": torch.zeros(3, 7)}, {"text": text()})
