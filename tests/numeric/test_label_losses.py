"""Losses of labels against NumPy, their gradients, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="objectives need torch: pip install 'nextvec[hf]'")

from nextvec.objectives.labels import Labels  # noqa: E402
from nextvec.types import InputError  # noqa: E402

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(6, 3))


def test_classes_against_numpy() -> None:
    label = np.array([0, 2, 1, 1, 0, 2])
    expected = (np.log(np.exp(LOGITS).sum(1)) - LOGITS[np.arange(6), label]).sum()
    term = Labels()({"logits": torch.tensor(LOGITS)}, {"label": torch.tensor(label)})
    assert float(term.sum) == pytest.approx(expected, rel=1e-12)
    assert term.count == 6
    assert term.logs["labels_accuracy"] == pytest.approx((LOGITS.argmax(1) == label).mean())


def test_yes_or_no_against_numpy() -> None:
    z, y = LOGITS[:, :1], np.array([1.0, 0, 0, 1, 1, 0])
    expected = np.where(y == 1, np.log1p(np.exp(-z[:, 0])), np.log1p(np.exp(z[:, 0]))).sum()
    term = Labels("binary", name="yes")({"logits": torch.tensor(z)}, {"label": torch.tensor(y)})
    assert float(term.sum) == pytest.approx(expected, rel=1e-12)
    assert term.logs["yes_accuracy"] == pytest.approx(((z[:, 0] > 0) == (y == 1)).mean())


def test_scores_against_numpy() -> None:
    y = RANDOM.uniform(0, 5, size=6)
    term = Labels("score")({"logits": torch.tensor(LOGITS[:, :1])}, {"label": torch.tensor(y)})
    assert float(term.sum) == pytest.approx(((LOGITS[:, 0] - y) ** 2).sum(), rel=1e-12)
    assert list(term.logs) == ["labels"]


def test_several_against_numpy() -> None:
    label = np.array([[1, 0, 1], [-1, -1, -1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]])
    expected = 0.0
    for z, y in zip(LOGITS, label, strict=True):
        if (y >= 0).all():
            expected += np.log1p(np.exp(-z[y == 1])).mean() if (y == 1).any() else 0
            expected += np.log1p(np.exp(z[y == 0])).mean() if (y == 0).any() else 0
    columns = {"label": torch.tensor(label)}
    term = Labels("several")({"logits": torch.tensor(LOGITS)}, columns)
    assert float(term.sum) == pytest.approx(expected, rel=1e-12)
    assert term.count == 5 == Labels("several").count(columns)


@pytest.mark.parametrize("kind", ["classes", "binary", "score", "several"])
def test_gradients_and_direction(kind: str) -> None:
    label = torch.tensor([0, 1, 1, 0, 1, 0])
    if kind == "several":
        label = torch.stack([label, 1 - label, label], dim=1)
    logits = torch.tensor(LOGITS if kind in ("classes", "several") else LOGITS[:, :1]).requires_grad_()
    made = Labels(kind)
    assert torch.autograd.gradcheck(lambda z: made({"logits": z}, {"label": label}).sum, [logits])
    optimiser = torch.optim.Adam([logits], lr=0.1)
    first = float(made({"logits": logits}, {"label": label}).mean.detach())
    for _ in range(100):
        optimiser.zero_grad()
        made({"logits": logits}, {"label": label}).mean.backward()
        optimiser.step()
    assert float(made({"logits": logits}, {"label": label}).mean.detach()) < 0.1 * first


def test_what_does_not_fit_is_refused() -> None:
    logits = torch.tensor(LOGITS)
    with pytest.raises(InputError, match="expected one of classes"):
        Labels("sort")
    with pytest.raises(InputError, match=r"need a column 'label' \[6\]"):
        Labels()({"logits": logits}, {})
    with pytest.raises(InputError, match="from 0 to 3; expected whole numbers from 0 to 2"):
        Labels()({"logits": logits}, {"label": torch.tensor([0, 1, 2, 3, 0, 0])})
    with pytest.raises(InputError, match=r"expected \[B, 1\]"):
        Labels("score")({"logits": logits}, {"label": torch.zeros(6)})
