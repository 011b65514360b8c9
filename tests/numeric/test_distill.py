"""Distillation of vectors, similarities and scores: references, hand-computed cases, gradients, directions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="objectives need torch: pip install 'nextvec[hf]'")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from nextvec.objectives.distill import Distill, DistillScores, DistillSimilarities, DistillVectors  # noqa: E402
from nextvec.objectives.matryoshka import Matryoshka  # noqa: E402
from nextvec.types import InputError, Ragged  # noqa: E402

B, D, E = 6, 5, 7


def rows(*names: str, width: int = D, seed: int = 0, count: int = B) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, width, generator=random, dtype=torch.float64) for name in names}


def teacher(*names: str, width: int = E, seed: int = 9, count: int = B) -> dict[str, torch.Tensor]:
    return {f"teacher_{name}": x for name, x in rows(*names, width=width, seed=seed, count=count).items()}


# ------------------------------------------------------------------ vectors


def test_vectors_equal_the_reference() -> None:
    out = {"student": rows("x")["x"].requires_grad_(), "teacher": rows("x", seed=1)["x"].requires_grad_()}
    term = DistillVectors()(out, {})
    one, two = (x.detach().numpy() for x in out.values())
    expected = sum(float(np.mean((a - b) ** 2)) for a, b in zip(one, two, strict=True))
    assert float(term.sum.detach()) == pytest.approx(expected)
    assert (term.count, term.logs) == (B, {"distill_mse": pytest.approx(expected / B)})
    term.mean.backward()
    assert out["teacher"].grad is None
    np.testing.assert_allclose(out["student"].grad.numpy(), 2 * (one - two) / D / B)


def test_vectors_differ_from_directions_in_their_length() -> None:
    out = {"student": rows("x")["x"], "teacher": 3 * rows("x")["x"]}
    assert float(Distill()(out, {}).mean) == pytest.approx(0, abs=1e-12)
    assert float(DistillVectors()(out, {}).mean) == pytest.approx(4 * float(out["student"].square().mean()))


def test_a_projected_student_finds_the_teacher() -> None:
    student = rows("x", count=40)["x"].float()
    target = 2 * student[:, :3] + 0.5
    head = torch.nn.Linear(D, 3)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    losses = []
    for _ in range(300):
        optimiser.zero_grad()
        term = DistillVectors()({"student": head(student), "teacher": target}, {})
        term.mean.backward()
        optimiser.step()
        losses.append(term.logs["distill_mse"])
    assert losses[0] > 1
    assert losses[-1] < 1e-4


# ------------------------------------------------------------------ similarities


def softmax(scores: list[float]) -> list[float]:
    weights = [math.exp(s) for s in scores]
    return [w / sum(weights) for w in weights]


def reference_kl(
    student: dict[str, torch.Tensor], known: dict[str, torch.Tensor], names: tuple[str, ...], t: float, known_t: float
) -> float:
    def unit(x: torch.Tensor) -> list[np.ndarray]:
        return [row / np.linalg.norm(row) for row in x.detach().numpy()]

    total = 0.0
    for i in range(B):
        p, q = (
            softmax([float(unit(made[prefix + "query"])[i] @ c) / heat for n in names for c in unit(made[prefix + n])])
            for made, prefix, heat in ((known, "teacher_", known_t), (student, "", t))
        )
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total


@pytest.mark.parametrize("negatives", [(), ("neg0",), ("neg0", "neg1")])
@pytest.mark.parametrize("known_t", [None, 0.5])
@pytest.mark.parametrize("block", [1, 4, 100])
@pytest.mark.parametrize("live", [True, False])
def test_similarities_equal_the_reference(
    negatives: tuple[str, ...], known_t: float | None, block: int, live: bool
) -> None:
    names = ("document", *negatives)
    student, known = rows("query", *names), teacher("query", *names)
    made = DistillSimilarities(
        negatives=negatives, temperature=0.2, teacher_temperature=known_t, block=block, live=live
    )
    out, columns = ({**student, **known}, {}) if live else (student, known)
    term = made(out, columns)
    expected = reference_kl(student, known, names, 0.2, known_t or 0.2)
    assert float(term.sum) == pytest.approx(expected, rel=1e-9)
    assert term.count == B
    assert term.logs["distill_kl"] == pytest.approx(expected / B)
    assert 0 <= term.logs["distill_agreement"] < 1


@pytest.mark.parametrize("block", [2, 100])
@pytest.mark.parametrize("known_t", [0.05, 0.5])
def test_gradients_of_similarities_equal_finite_differences(block: int, known_t: float) -> None:
    names = ("query", "document", "neg0")
    known = teacher(*names)
    made = DistillSimilarities(negatives=("neg0",), temperature=0.3, teacher_temperature=known_t, block=block)
    inputs = [x.requires_grad_() for x in rows(*names).values()]
    assert torch.autograd.gradcheck(lambda *x: made(dict(zip(names, x, strict=True)), known).mean, inputs)


def test_the_teacher_itself_is_without_loss_and_gets_no_gradient() -> None:
    out = {name: x.requires_grad_() for name, x in rows("query", "document").items()}
    known = {f"teacher_{name}": (2 * x.detach()).requires_grad_() for name, x in out.items()}
    term = DistillSimilarities()(out, known)
    term.sum.backward()
    assert float(term.sum.detach()) == pytest.approx(0, abs=1e-12)
    assert term.logs["distill_agreement"] == 1
    assert all(float(x.grad.abs().max()) < 1e-9 for x in out.values())
    assert all(x.grad is None for x in known.values())
    # Cosines and temperatures are one: twice the temperature on both sides is without loss too, on one side not.
    assert float(DistillSimilarities(temperature=0.1)(out, known).sum.detach()) == pytest.approx(0, abs=1e-12)
    assert float(DistillSimilarities(temperature=0.1, teacher_temperature=0.05)(out, known).sum.detach()) > 0.1


def test_matryoshka_cuts_the_student_and_not_the_teacher() -> None:
    out, known = rows("query", "document"), teacher("query", "document")
    inner = DistillSimilarities(temperature=0.2)
    term = Matryoshka(inner, dims=(2, D))(out, known)
    expected = sum(reference_kl({n: x[:, :d] for n, x in out.items()}, known, ("document",), 0.2, 0.2) for d in (2, D))
    assert float(term.sum) == pytest.approx(expected / 2)


def test_optimising_similarities_ranks_as_the_teacher_does() -> None:
    known = teacher("query", "document", width=4, count=16)
    leaves = {name: x.requires_grad_() for name, x in rows("query", "document", width=8, count=16).items()}
    made = DistillSimilarities(temperature=0.1)
    optimiser = torch.optim.Adam(leaves.values(), lr=0.05)
    seen = []
    for _ in range(200):
        optimiser.zero_grad()
        term = made(leaves, known)
        term.mean.backward()
        optimiser.step()
        seen.append(term.logs)
    assert seen[0]["distill_agreement"] < 0.4 and seen[0]["distill_kl"] > 1
    assert seen[-1]["distill_agreement"] > 0.9 and seen[-1]["distill_kl"] < 0.05


def test_similarities_are_never_held_whole() -> None:
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            self.numbers = max([self.numbers, *(t.numel() for t in tree_leaves(made) if isinstance(t, torch.Tensor))])
            return made

    out = {name: x.requires_grad_() for name, x in rows("query", "document", "neg0", count=300).items()}
    known = teacher("query", "document", "neg0", count=300)
    with Largest() as seen:
        DistillSimilarities(negatives=("neg0",), block=8)(out, known).mean.backward()
    assert seen.numbers == 8 * 600 < 300 * 300


# ------------------------------------------------------------------ scores


@pytest.mark.parametrize("margin", [True, False])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("negatives", [("neg0",), ("neg0", "neg1")])
def test_scores_equal_the_reference(margin: bool, similarity: str, negatives: tuple[str, ...]) -> None:
    names = ("document", *negatives)
    out = rows("query", *names)
    score = torch.randn(B, len(names), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    made = DistillScores(negatives=negatives, margin=margin, similarity=similarity, scale=1.5)
    term = made(out, {"teacher_score": score})
    expected = 0.0
    for i in range(B):
        found = []
        for name in names:
            q, d = out["query"][i].numpy(), out[name][i].numpy()
            length = float(np.linalg.norm(q) * np.linalg.norm(d)) if similarity == "cosine" else 1.0
            found.append(1.5 * float(q @ d) / length)
        wanted = score[i].tolist()
        if margin:
            errors = [(found[0] - f) - (wanted[0] - w) for f, w in zip(found[1:], wanted[1:], strict=True)]
        else:
            errors = [f - w for f, w in zip(found, wanted, strict=True)]
        expected += sum(e * e for e in errors) / len(errors)
    assert float(term.sum) == pytest.approx(expected)
    assert term.logs == {"margin_mse" if margin else "score_mse": pytest.approx(expected / B)}
    assert term.count == made.count({"teacher_score": score}) == B
    inputs = [x.requires_grad_() for x in out.values()]
    assert torch.autograd.gradcheck(
        lambda *x: made(dict(zip(out, x, strict=True)), {"teacher_score": score}).mean, inputs
    )


def test_scores_by_hand() -> None:
    out = {"query": [[1.0, 2.0]], "document": [[2.0, 1.0]], "neg0": [[0.0, 1.0]]}
    tensors = {name: torch.tensor(x) for name, x in out.items()}  # scores 4 and 2
    column = {"teacher_score": torch.tensor([[5.0, 4.0]])}
    assert float(DistillScores()(tensors, column).sum) == (4 - 2 - (5 - 4)) ** 2
    assert float(DistillScores(margin=False)(tensors, column).sum) == (1 + 4) / 2
    alone = DistillScores(negatives=(), margin=False)
    assert float(alone(tensors, {"teacher_score": torch.tensor([5.0])}).sum) == 1
    # A margin does not change with a constant that the teacher adds to the scores of a query.
    assert float(DistillScores()(tensors, {"teacher_score": column["teacher_score"] + 7}).sum) == 1


def test_scores_add_over_micro_batches() -> None:
    made, out, columns = DistillScores.example(7, 0)
    whole = made(out, columns)
    parts = [
        made({n: x[cut] for n, x in out.items()}, {n: x[cut] for n, x in columns.items()})
        for cut in (slice(0, 3), slice(3, 7))
    ]
    assert float(whole.sum.detach()) == pytest.approx(sum(float(part.sum.detach()) for part in parts))


@pytest.mark.parametrize("margin", [True, False])
def test_optimising_scores_reaches_the_teachers(margin: bool) -> None:
    leaves = {name: x.requires_grad_() for name, x in rows("query", "document", "neg0", count=12).items()}
    score = {"teacher_score": torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(12, 2)}
    made = DistillScores(margin=margin)
    optimiser = torch.optim.Adam(leaves.values(), lr=0.05)
    losses = []
    for _ in range(200):
        optimiser.zero_grad()
        term = made(leaves, score)
        term.mean.backward()
        optimiser.step()
        losses.append(float(term.mean.detach()))
    assert losses[0] > 1
    assert losses[-1] < 1e-3


# ------------------------------------------------------------------ wrong use


def test_wrong_use_is_told() -> None:
    out, known = rows("query", "document", "neg0"), teacher("query", "document")
    with pytest.raises(InputError, match=r"DistillVectors compares vectors of one shape.*project the teacher first"):
        DistillVectors()({"student": out["query"], "teacher": out["query"][:, :2]}, {})
    for options in ({"temperature": 0}, {"teacher_temperature": -1.0}, {"block": 0}):
        with pytest.raises(InputError, match="expected positive numbers"):
            DistillSimilarities(**options)
    for options in ({"negatives": "neg0"}, {"prefix": ""}):
        with pytest.raises(InputError, match="expected a sequence of names and a text"):
            DistillSimilarities(**options)
    made = DistillSimilarities()
    with pytest.raises(InputError, match="needs the teacher's 'teacher_document', 6 vectors; got none"):
        made(out, {"teacher_query": known["teacher_query"]})
    ragged = Ragged(torch.ones(B), torch.ones(B, dtype=torch.int64))
    for wrong, found in ((known["teacher_document"][:2], r"\[2, 7\]"), (ragged, "ragged"), (torch.ones(B), r"\[6\]")):
        with pytest.raises(InputError, match=rf"needs the teacher's 'teacher_document', 6 vectors; got {found}"):
            made(out, {**known, "teacher_document": wrong})
    with pytest.raises(InputError, match="'document' has 2 rows for 6 queries"):
        made({**out, "document": out["document"][:2]}, known)
    with pytest.raises(InputError, match="reads 'teacher_query', which the outputs lack"):
        DistillSimilarities(live=True)(out, known)
    for options in ({"negatives": "neg0"}, {"negatives": ()}):
        with pytest.raises(InputError, match="one at least for margins"):
            DistillScores(**options)
    for options in ({"similarity": "euclid"}, {"scale": 0.0}):
        with pytest.raises(InputError, match="expected 'dot' or 'cosine', and above 0"):
            DistillScores(**options)
    with pytest.raises(InputError, match="needs outputs"):
        DistillScores()({**out, "neg0": out["neg0"][:, :2]}, {"teacher_score": torch.ones(B, 2)})
    for column, found in (
        ({"teacher_score": torch.ones(2 * B)}, r"\[12\]"),
        ({"teacher_score": ragged}, "rag"),
        ({}, "no"),
    ):
        with pytest.raises(InputError, match=rf"'teacher_score' \[6, 2\].* of document, neg0; got {found}"):
            DistillScores()(out, column)
    assert DistillScores().count({}) is None
