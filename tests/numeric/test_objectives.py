"""Objectives against independent NumPy references, finite differences, and what optimising them must bring about."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="objectives need torch: pip install 'nextvec[hf]'")

from nextvec.objectives.base import Columns, Objective, Outputs  # noqa: E402
from nextvec.objectives.distill import Distill  # noqa: E402
from nextvec.objectives.info_nce import InfoNCE  # noqa: E402
from nextvec.objectives.matryoshka import Matryoshka  # noqa: E402
from nextvec.types import InputError, Term  # noqa: E402


def vectors(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64)


def pair(rows: int = 6, width: int = 8, extra: int = 0) -> dict[str, torch.Tensor]:
    out = {"query": vectors(rows, width, 1), "document": vectors(rows, width, 2)}
    return out | ({"negative": vectors(extra, width, 3)} if extra else {})


def reference_info_nce(
    query: np.ndarray,
    document: np.ndarray,
    temperature: float,
    symmetric: bool,
    group: np.ndarray | None = None,
    negatives: np.ndarray | None = None,
) -> float:
    """Written out item by item, on purpose unlike the vectorised objective."""

    def unit(row: np.ndarray) -> np.ndarray:
        return row / math.sqrt(float((row * row).sum()))

    def score(one: np.ndarray, other: np.ndarray) -> float:
        return math.exp(float(unit(one) @ unit(other)) / temperature)

    count = len(query)

    def allowed(i: int, j: int) -> bool:
        return i == j or group is None or group[i] != group[j]

    total = 0.0
    for i in range(count):
        others = sum(score(query[i], document[j]) for j in range(count) if allowed(i, j))
        others += sum(score(query[i], row) for row in (negatives if negatives is not None else ()))
        total -= math.log(score(query[i], document[i]) / others)
        if symmetric:
            back = sum(score(query[j], document[i]) for j in range(count) if allowed(j, i))
            total -= math.log(score(query[i], document[i]) / back)
    return total / 2 if symmetric else total


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("block", [1, 4, 100])
def test_info_nce_equals_the_reference(symmetric: bool, extra: int, block: int) -> None:
    out = pair(extra=extra)
    negatives = "negative" if extra else None
    term = InfoNCE(temperature=0.1, symmetric=symmetric, negatives=negatives, block=block)(out, {})
    numbers = {name: rows.numpy() for name, rows in out.items()}
    expected = reference_info_nce(
        numbers["query"], numbers["document"], 0.1, symmetric, negatives=numbers.get("negative")
    )
    assert float(term.sum) == pytest.approx(expected, rel=1e-6)
    assert term.count == 6
    assert term.logs["info_nce"] == pytest.approx(expected / 6, rel=1e-6)


@pytest.mark.parametrize("block", [4, 100])
def test_info_nce_leaves_the_own_group_alone(block: int) -> None:
    out = pair(extra=2)
    group = torch.tensor([0, 0, 1, 2, 3, 3])
    term = InfoNCE(temperature=0.2, negatives="negative", block=block)(out, {"group": group})
    numbers = {name: rows.numpy() for name, rows in out.items()}
    expected = reference_info_nce(numbers["query"], numbers["document"], 0.2, True, group.numpy(), numbers["negative"])
    assert float(term.sum) == pytest.approx(expected, rel=1e-6)


def test_learned_temperature_is_bounded_and_gets_a_gradient() -> None:
    objective = InfoNCE(temperature=0.5, learn_temperature=True)
    objective(pair(), {}).mean.backward()
    assert objective.log_scale.grad is not None
    assert float(objective.log_scale.grad) != 0
    assert not InfoNCE().log_scale.requires_grad
    sharp, limit = InfoNCE(temperature=1e-9), InfoNCE(temperature=0.01)
    assert float(sharp(pair(), {}).sum) == pytest.approx(float(limit(pair(), {}).sum), rel=1e-5)


def test_distill_equals_the_reference() -> None:
    out = {"student": vectors(5, 7, 3), "teacher": vectors(5, 7, 4)}
    term = Distill()(out, {})
    one, two = out["student"].numpy(), out["teacher"].numpy()
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(one, two, strict=True)]
    assert float(term.sum) == pytest.approx(sum(1 - c for c in cosines))
    assert term.logs["distill_cosine"] == pytest.approx(np.mean(cosines))
    teacher = out["teacher"].requires_grad_()
    student = out["student"].requires_grad_()
    Distill()({"student": student, "teacher": teacher}, {}).mean.backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_matryoshka_is_the_weighted_sum_over_prefixes() -> None:
    out = pair()
    dims, weights = (2, 4, 8), (0.5, 1.0, 2.0)
    term = Matryoshka(InfoNCE(temperature=0.3), dims=dims, weights=weights)(out, {})
    expected = sum(
        weight * reference_info_nce(out["query"].numpy()[:, :dim], out["document"].numpy()[:, :dim], 0.3, True)
        for dim, weight in zip(dims, weights, strict=True)
    )
    assert float(term.sum) == pytest.approx(expected, rel=1e-6)
    assert set(term.logs) == {f"{name}@{dim}" for name in ("info_nce", "info_nce_accuracy") for dim in dims}
    even = Matryoshka(Distill(student="query", teacher="document"), dims=(4, 8))(out, {})
    single = [
        float(Distill()({"student": out["query"][:, :d], "teacher": out["document"][:, :d]}, {}).sum) for d in (4, 8)
    ]
    assert float(even.sum) == pytest.approx(sum(single) / 2)


@pytest.mark.parametrize(
    "objective",
    [
        InfoNCE(temperature=0.5),
        InfoNCE(temperature=0.5, symmetric=False),
        InfoNCE(temperature=0.5, negatives="negative", block=3),
        Matryoshka(InfoNCE(temperature=0.5, block=2), dims=(2, 5)),
        Distill(student="query", teacher="document"),
        InfoNCE(temperature=0.5) + 0.3 * Matryoshka(Distill(student="query", teacher="document"), dims=(3, 5)),
    ],
    ids=["info_nce", "one-sided", "negatives", "matryoshka", "distill", "sum"],
)
def test_gradients_equal_finite_differences(objective: Objective) -> None:
    query, document, negative = (vectors(4, 5, seed).requires_grad_() for seed in (5, 6, 7))

    def loss(q: torch.Tensor, d: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return objective({"query": q, "document": d, "negative": n}, {}).mean

    # The temperature is kept in float32; in float64 the check needs it there too.
    objective.double()
    # A teacher gets no gradient, whatever finite differences say.
    document.requires_grad_(isinstance(objective, InfoNCE | Matryoshka))
    assert torch.autograd.gradcheck(loss, (query, document, negative))


def test_optimising_info_nce_brings_pairs_together_at_every_width() -> None:
    query, document = (vectors(16, 8, seed).requires_grad_() for seed in (7, 8))
    objective = Matryoshka(InfoNCE(temperature=0.1), dims=(4, 8))
    optimiser = torch.optim.Adam([query, document], lr=0.05)

    def own_rank_first(dim: int) -> float:
        q, d = (torch.nn.functional.normalize(v.detach()[:, :dim], dim=1) for v in (query, document))
        return float(((q @ d.T).argmax(1) == torch.arange(16)).double().mean())

    before = own_rank_first(4), own_rank_first(8)
    for _ in range(150):
        optimiser.zero_grad()
        objective({"query": query, "document": document}, {}).mean.backward()
        optimiser.step()
    assert max(before) < 0.5
    assert own_rank_first(4) > 0.9
    assert own_rank_first(8) == 1.0


class Squares(Objective):
    """Sum of squares of one output; remembers how often it was committed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.reads = (name,)
        self.commits = 0

    def forward(self, out: Outputs, batch: Columns) -> Term:
        values = out[self.reads[0]]
        return Term((values**2).sum(), float(len(values)), {self.reads[0]: float(len(values))})

    def commit(self) -> None:
        self.commits += 1


def test_sums_and_scaling_are_linear_in_the_means() -> None:
    out = {"a": torch.arange(4.0), "b": torch.arange(3.0) + 1}
    a, b = Squares("a"), Squares("b")
    means = float(a(out, {}).mean), float(b(out, {}).mean)
    total = (a + 0.5 * b)(out, {})
    assert float(total.mean) == pytest.approx(means[0] + 0.5 * means[1])
    assert total.count == 4
    assert total.logs == {"a": 4.0, "b": 3.0}
    assert float((2 * (a + b) + a * 3)(out, {}).mean) == pytest.approx(5 * means[0] + 2 * means[1])
    assert [(weight, type(part).__name__) for weight, part in (2 * (a + 0.5 * b)).parts()] == [
        (2.0, "Squares"),
        (1.0, "Squares"),
    ]


def test_sums_combine_reads_scope_and_commits() -> None:
    a, b = Squares("query"), Squares("b")
    total = a + 0.1 * b + InfoNCE()
    assert total.reads == ("query", "b", "document")
    assert (a + b).scope == "example"
    assert total.scope == "batch"
    assert Matryoshka(InfoNCE(), dims=(2,)).scope == "batch"
    total.commit()
    Matryoshka(a, dims=(1,)).commit()
    assert (a.commits, b.commits) == (2, 1)


def test_example_terms_add_over_micro_batches() -> None:
    out = {"student": vectors(6, 4, 1), "teacher": vectors(6, 4, 2)}
    whole = Distill()(out, {})
    parts = [Distill()({name: rows[part] for name, rows in out.items()}, {}) for part in (slice(0, 2), slice(2, 6))]
    assert float(whole.sum) == pytest.approx(sum(float(part.sum) for part in parts))
    assert whole.count == sum(part.count for part in parts)


def test_wrong_use_is_told() -> None:
    with pytest.raises(InputError, match="InfoNCE reads 'document', which the outputs lack"):
        InfoNCE()({"query": vectors(2, 2, 1)}, {})
    with pytest.raises(InputError, match="one document per query"):
        InfoNCE()({"query": vectors(3, 2, 1), "document": vectors(2, 2, 1)}, {})
    with pytest.raises(InputError, match="2 groups for 6 queries"):
        InfoNCE()(pair(), {"group": torch.zeros(2)})
    with pytest.raises(InputError, match="block is 0"):
        InfoNCE(block=0)
    with pytest.raises(InputError, match="temperature must be positive"):
        InfoNCE(temperature=0)
    with pytest.raises(InputError, match="project the teacher first"):
        Distill()({"student": vectors(2, 2, 1), "teacher": vectors(2, 3, 1)}, {})
    with pytest.raises(InputError, match="width 16 is more than the embedding's 8"):
        Matryoshka(InfoNCE(), dims=(8, 16))(pair(), {})
    for dims in ((), (0, 4), (4, 4)):
        with pytest.raises(InputError, match="different positive widths"):
            Matryoshka(InfoNCE(), dims=dims)
    with pytest.raises(TypeError):
        InfoNCE() * "2"  # type: ignore[operator]
