"""InfoNCE's switches against a reference written out item by item, gradients, directions, and the memory of a step."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="objectives need torch: pip install 'nextvec[hf]'")

from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from nextvec.objectives.info_nce import InfoNCE, ReweightedInfoNCE  # noqa: E402
from nextvec.objectives.matryoshka import Matryoshka  # noqa: E402
from nextvec.types import InputError  # noqa: E402

B, D, M = 6, 5, 4
POOL = {"negatives": "pool"}
OWN = {"own_negatives": ("neg0", "neg1")}
HARD_ONLY = {**OWN, "in_batch": False, "symmetric": False}
GTE = {"same_tower": "both", "symmetric": "joint"}
EVERYTHING = {**POOL, **OWN, **GTE, "margin": 0.1}
COLUMNS = {
    "group": torch.tensor([0, 1, 1, 2, 3, 3]),
    "weight": torch.tensor([1.0, 0.0, 2.5, 0.3, 1.0, 0.7], dtype=torch.float64),
    "temperature": torch.tensor([0.0, 0.1, 0.5, 0.0, 2.0, 0.3], dtype=torch.float64),
}


def outputs(seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    sizes = {"query": B, "document": B, "pool": M, "neg0": B, "neg1": B}
    return {name: torch.randn(n, D, generator=random, dtype=torch.float64) for name, n in sizes.items()}


def objective(**options: Any) -> ReweightedInfoNCE:
    # The temperature is kept in float32; to compare in float64 it needs it there too.
    made = ReweightedInfoNCE(**{"temperature": 0.2, "block": 4, **options}).double()
    made.log_scale.data.fill_(-math.log(options.get("temperature", 0.2)))
    return made


def reference(
    out: dict[str, torch.Tensor],
    columns: dict[str, torch.Tensor],
    *,
    negatives: str | None = None,
    own_negatives: tuple[str, ...] = (),
    in_batch: bool = True,
    same_tower: str | None = None,
    symmetric: bool | str = True,
    margin: float | None = None,
    ratio: float | None = None,
    temperature: float = 0.2,
    focal: float = 0.0,
    hardness: float = 0.0,
) -> float:
    """Cosines one at a time, candidates as lists: on purpose unlike the vectorised objective."""
    text = {name: [row / math.sqrt(float(row @ row)) for row in rows.numpy()] for name, rows in out.items()}
    q, d = text["query"], text["document"]
    group = columns["group"].tolist() if "group" in columns else list(range(B))

    def loss(i: int, candidates: list[float]) -> float:
        own = float(q[i] @ d[i])
        given = float(columns["temperature"][i]) if "temperature" in columns else 0.0
        t = given or temperature
        if margin is not None:
            candidates = [c for c in candidates if c <= own + margin]
        if ratio is not None:
            candidates = [c for c in candidates if c <= own + (ratio - 1) * abs(own)]
        hard = [math.exp(hardness * c) for c in candidates]
        weights = [h * len(hard) / sum(hard) for h in hard]
        total = sum(w * math.exp(c / t) for w, c in zip(weights, candidates, strict=True))
        p = math.exp(own / t) / (math.exp(own / t) + total)
        weight = float(columns["weight"][i]) if "weight" in columns else 1.0
        return -weight * (1 - p) ** focal * math.log(p)

    total = 0.0
    for i in range(B):
        others = [j for j in range(B) if j != i and group[j] != group[i]]
        forward = [float(q[i] @ d[j]) for j in others] if in_batch else []
        forward += [float(q[i] @ row) for row in (text[negatives] if negatives else [])]
        forward += [float(q[i] @ text[name][i]) for name in own_negatives]
        queries = [float(q[i] @ q[j]) for j in others] if same_tower in ("query", "both") else []
        documents = [float(d[i] @ d[j]) for j in others] if same_tower in ("document", "both") else []
        back = [float(q[j] @ d[i]) for j in others]
        if symmetric is True:
            total += (loss(i, forward + queries) + loss(i, back + documents)) / 2
        else:
            total += loss(i, forward + queries + documents + (back if symmetric else []))
    return total


CASES = {
    "own": OWN,
    "own and pool": {**OWN, **POOL},
    "own, one-sided": {**OWN, "symmetric": False},
    "hard negatives only": HARD_ONLY,
    "pool only": {**POOL, "in_batch": False, "symmetric": False},
    "no in-batch, own and pool": {**HARD_ONLY, **POOL},
    "queries": {"same_tower": "query", "symmetric": False},
    "documents": {"same_tower": "document", "symmetric": False},
    "queries alone": {"same_tower": "query", "symmetric": False, "in_batch": False},
    "SimCLR": {"same_tower": "both"},
    "joint": {"symmetric": "joint"},
    "GTE": GTE,
    "margin": {"margin": 0.1},
    "negative margin": {"margin": -0.2, **OWN, **POOL},
    "ratio": {"ratio": 0.95, **OWN},
    "ratio above one": {"ratio": 1.2, "same_tower": "both"},
    "focal": {"focal": 2.0},
    "hardness": {"hardness": 3.0, **OWN},
    "everything": EVERYTHING,
    "everything, reweighted": {**EVERYTHING, "focal": 0.5, "hardness": 2.0},
    "everything, two sums": {**EVERYTHING, "symmetric": True, "focal": 1.0, "hardness": 1.0},
}


@pytest.mark.parametrize("columns", [{}, COLUMNS], ids=["plain", "columns"])
@pytest.mark.parametrize("block", [1, 4, 100])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_values_equal_the_reference(options: dict[str, Any], block: int, columns: dict[str, torch.Tensor]) -> None:
    for seed in range(3):
        out = outputs(seed)
        term = objective(**options, block=block)(out, columns)
        expected = reference(out, columns, **options)
        assert float(term.sum.detach()) == pytest.approx(expected, rel=1e-9)
        assert term.count == B
        assert term.logs["info_nce"] == pytest.approx(expected / B, rel=1e-9)


@pytest.mark.parametrize("columns", [{}, COLUMNS], ids=["plain", "columns"])
@pytest.mark.parametrize("options", [c for c in CASES.values() if not {"focal", "hardness"} & set(c)])
def test_gradients_equal_finite_differences(options: dict[str, Any], columns: dict[str, torch.Tensor]) -> None:
    made = objective(**options, learn_temperature=True)
    out = {name: rows for name, rows in outputs(7).items() if name in made.reads}

    def loss(log_scale: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        given = dict(zip(out, tensors, strict=True))
        return torch.func.functional_call(made, {"log_scale": log_scale}, (given, columns)).mean

    inputs = [made.log_scale.detach(), *out.values()]
    # Along random directions (fast_mode): as strict, and not two evaluations for each of a hundred numbers.
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(loss, leaves, fast_mode=True, atol=1e-7)


@pytest.mark.parametrize("columns", [{}, COLUMNS], ids=["plain", "columns"])
@pytest.mark.parametrize("focal", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("hardness", [0.0, 1.5])
def test_weights_by_hardness_get_no_gradient(focal: float, hardness: float, columns: dict[str, torch.Tensor]) -> None:
    """Against automatic differentiation of whole score matrices, with the weights taken out of the graph."""
    out = {name: rows.requires_grad_() for name, rows in outputs(3).items()}
    objective(**OWN, symmetric=False, focal=focal, hardness=hardness)(out, columns).sum.backward()
    found = {name: rows.grad for name, rows in out.items() if rows.grad is not None}
    for rows in out.values():
        rows.grad = None
    q, d, one, two = (torch.nn.functional.normalize(out[n], dim=1) for n in ("query", "document", "neg0", "neg1"))
    scores = torch.cat([q @ d.T, (q * one).sum(1, keepdim=True), (q * two).sum(1, keepdim=True)], dim=1)
    group = columns.get("group", torch.arange(B))
    left = torch.cat([group[:, None] != group[None, :], torch.ones(B, 2, dtype=torch.bool)], dim=1)
    hard = torch.where(left, (hardness * scores).exp(), 0.0)
    weights = (hard / hard.sum(1, keepdim=True) * left.sum(1, keepdim=True)).detach()
    given = columns.get("temperature", torch.zeros(B, dtype=torch.float64))
    t = torch.where(given > 0, given, torch.tensor(0.2, dtype=torch.float64))[:, None]
    own = (scores.diagonal() / t[:, 0]).exp()
    p = own / (own + (weights * (scores / t).exp()).sum(1))
    loss = (columns.get("weight", torch.ones(B)) * (1 - p).detach() ** focal * -p.log()).sum()
    loss.backward()
    assert set(found) == {"query", "document", "neg0", "neg1"}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, out[name].grad, rtol=1e-9, atol=1e-12)


def test_without_reweighting_it_is_info_nce_to_the_last_bit() -> None:
    for dtype in (torch.float32, torch.float64):
        one, other = ({name: x.to(dtype).requires_grad_() for name, x in outputs().items()} for _ in range(2))
        plain = InfoNCE(**EVERYTHING)(one, COLUMNS)
        weighed = ReweightedInfoNCE(**EVERYTHING)(other, COLUMNS)
        plain.sum.backward()
        weighed.sum.backward()
        assert plain.sum.dtype == dtype
        assert torch.equal(plain.sum, weighed.sum)
        assert all(torch.equal(one[name].grad, other[name].grad) for name in one)


def test_a_query_has_its_own_hard_negatives_alone() -> None:
    """Of two outputs with the same rows, one shared and one owned: the gradient tells whose negative a row was."""
    out = {name: rows.requires_grad_() for name, rows in outputs().items()}
    first = {"weight": torch.eye(B, dtype=torch.float64)[2]}
    objective(**OWN, **POOL, symmetric=False)(out, first).sum.backward()
    rows = out["neg0"].grad.abs().sum(1)
    assert float(rows[2]) > 0
    assert float(rows.sum()) == float(rows[2])
    assert bool((out["pool"].grad.abs().sum(1) > 0).all())
    assert bool((out["document"].grad.abs().sum(1) > 0).all())
    out["document"].grad = None
    objective(**HARD_ONLY)(out, first).sum.backward()
    rows = out["document"].grad.abs().sum(1)
    assert float(rows.sum()) == float(rows[2]) > 0


def test_what_scores_above_the_margin_does_not_repel() -> None:
    """Document 1 is query 0's answer too, and is not known to be."""
    query = torch.eye(4, dtype=torch.float64)
    document = query.clone()
    document[1] = torch.tensor([1.0, 0.9, 0.0, 0.0])
    gradient = {}
    for margin in (None, -0.3):
        rows = document.clone().requires_grad_()
        weight = torch.tensor([1.0, 0, 0, 0])
        found = InfoNCE(symmetric=False, margin=margin, temperature=0.5)(
            {"query": query, "document": rows}, {"weight": weight}
        )
        found.sum.backward()
        gradient[margin] = rows.grad[1]
    assert float(gradient[None].norm()) > 0.1
    assert float(gradient[-0.3].norm()) == 0


@pytest.mark.parametrize("same_tower", ["query", "document", "both"])
def test_everything_left_out_is_a_loss_of_zero(same_tower: str) -> None:
    """One group, or a margin that nothing stays under: no negative is left, and nothing breaks."""
    out = {name: rows.requires_grad_() for name, rows in outputs().items()}
    for made, columns in (
        (objective(same_tower=same_tower, focal=0.5, hardness=2.0), {"group": torch.zeros(B, dtype=torch.int64)}),
        (objective(**OWN, same_tower=same_tower, margin=-2.0, focal=1.5, hardness=2.0), {}),
    ):
        term = made(out, columns)
        term.sum.backward()
        assert float(term.sum.detach()) == 0
        assert term.logs["info_nce_accuracy"] == 1
        assert all(rows.grad is None or not rows.grad.any() for rows in out.values())


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 3), st.floats(0, 4), st.sampled_from([True, False, "joint"]), st.integers(0, 99), st.booleans())
@example(focal=0.0, hardness=5e-324, symmetric=True, seed=0, columns=True)
def test_more_negatives_cost_more_and_weights_are_linear(
    focal: float, hardness: float, symmetric: bool | str, seed: int, columns: bool
) -> None:
    out, given_columns = outputs(seed), COLUMNS if columns else {}
    options = {"focal": focal, "hardness": hardness, "symmetric": symmetric}
    plain = float(objective(symmetric=symmetric)(out, given_columns).sum)
    assert plain <= float(objective(symmetric=symmetric, **OWN)(out, given_columns).sum) + 1e-12
    assert float(objective(symmetric=symmetric, margin=0.0)(out, given_columns).sum) <= plain + 1e-12
    whole = objective(**options)(out, given_columns)
    assert math.isfinite(float(whole.sum)) and float(whole.sum) >= 0
    # Harder negatives weigh more, so that the sum over them, of mean weight 1, can only grow.
    assert float(objective(**{**options, "focal": 0.0})(out, given_columns).sum) >= plain - 1e-9
    weight = given_columns.get("weight", torch.ones(B, dtype=torch.float64))
    double = objective(**options)(out, {**given_columns, "weight": 2 * weight})
    assert float(double.sum) == pytest.approx(2 * float(whole.sum))


def test_an_example_weighs_less_the_better_it_is_known() -> None:
    """What the focal weight is for, and what would not hold if the gradient went through it."""
    cosine = torch.linspace(-0.9, 0.95, 40, dtype=torch.float64)
    sizes = []
    for c in cosine:
        negative = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        document = torch.tensor([[float(c), math.sqrt(1 - float(c) ** 2)]], dtype=torch.float64).requires_grad_()
        out = {"query": torch.tensor([[0.0, 1.0]], dtype=torch.float64), "document": document, "neg0": negative}
        gradients = []
        for focal in (0.0, 0.5):
            document.grad = None
            made = objective(own_negatives=("neg0",), in_batch=False, symmetric=False, focal=focal)
            made(out, {}).sum.backward()
            gradients.append(float(document.grad.norm()))
        own, t = math.sqrt(1 - float(c) ** 2), 0.2
        p = 1 / (1 + math.exp(-own / t))
        assert gradients[1] / gradients[0] == pytest.approx((1 - p) ** 0.5)
        sizes.append((p, gradients[1] / gradients[0]))
    ordered = [share for _, share in sorted(sizes)]
    assert ordered == sorted(ordered, reverse=True)


def test_hardness_grows_by_the_step_and_survives_a_restart() -> None:
    made = ReweightedInfoNCE(hardness=2.0, ramp=4)
    seen = []
    for _ in range(6):
        seen.append(made(outputs(), {}).logs["hardness"])
        made.commit()
    assert seen == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    other = ReweightedInfoNCE(hardness=2.0, ramp=4)
    start = float(other(outputs(), {}).sum)
    assert start == float(InfoNCE()(outputs(), {}).sum)
    for _ in range(2):
        other.commit()
    resumed = ReweightedInfoNCE(hardness=2.0, ramp=4)
    resumed.load_state_dict(other.state_dict())
    assert resumed.beta() == 1.0
    assert float(resumed(outputs(), {}).sum) == float(other(outputs(), {}).sum) > start
    inside = ReweightedInfoNCE(hardness=2.0, ramp=4)
    Matryoshka(inside, dims=(2,)).commit()
    assert inside.beta() == 0.5
    assert ReweightedInfoNCE(hardness=2.0).beta() == 2.0


def test_own_temperatures_are_bounded_and_zero_means_the_objectives() -> None:
    out = outputs()
    zero = {"temperature": torch.zeros(B)}
    assert float(objective()(out, zero).sum) == float(objective()(out, {}).sum)
    sharp, limit = ({"temperature": torch.full((B,), t)} for t in (1e-9, 0.01))
    assert float(objective()(out, sharp).sum) == pytest.approx(float(objective()(out, limit).sum))
    learned = objective(learn_temperature=True)
    learned(out, {"temperature": torch.full((B,), 0.3)}).sum.backward()
    assert float(learned.log_scale.grad) == 0


@pytest.mark.parametrize(
    "options",
    [HARD_ONLY, {**OWN, **GTE}, {**OWN, "same_tower": "both", "focal": 0.5, "hardness": 2.0}],
    ids=["hard only", "gte", "reweighted"],
)
def test_optimising_brings_the_document_before_its_negatives(options: dict[str, Any]) -> None:
    """The hard negatives begin next to the query, the document anywhere."""
    random = torch.Generator().manual_seed(1)
    out = {name: torch.randn(24, 12, generator=random) for name in ("query", "document")}
    out |= {name: out["query"] + 0.3 * torch.randn(24, 12, generator=random) for name in ("neg0", "neg1")}
    leaves = {name: rows.clone().requires_grad_() for name, rows in out.items()}
    made = ReweightedInfoNCE(**options, temperature=0.1, block=7)
    optimiser = torch.optim.Adam(leaves.values(), lr=0.05)

    def first() -> float:
        q, d, one, two = (torch.nn.functional.normalize(leaves[n].detach(), dim=1) for n in out)
        return float(((q * d).sum(1) > torch.maximum((q * one).sum(1), (q * two).sum(1))).float().mean())

    before = first()
    for _ in range(150):
        optimiser.zero_grad()
        made(leaves, {}).mean.backward()
        optimiser.step()
    assert before < 0.2
    assert first() > 0.95


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that anything makes."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(t.numel() for t in tree_leaves(made) if isinstance(t, torch.Tensor))])
        return made


def test_scores_are_never_held_whole() -> None:
    rows, width, block = 300, 4, 8
    random = torch.Generator().manual_seed(0)
    out = {
        n: torch.randn(rows, width, generator=random).requires_grad_() for n in ("query", "document", "neg0", "pool")
    }
    options = {"negatives": "pool", "own_negatives": ("neg0",), **GTE, "margin": 0.1, "hardness": 1.0}
    with Largest() as seen:
        ReweightedInfoNCE(**options, block=block)(out, {"group": torch.arange(rows)}).mean.backward()
    assert block * rows < seen.numbers <= block * (5 * rows + 1) < rows * rows
    with Largest() as seen:
        ReweightedInfoNCE(**options, block=rows)(out, {}).mean.backward()
    assert seen.numbers > rows * rows


def test_wrong_use_is_told() -> None:
    out = outputs()
    for options, message in (
        ({"own_negatives": "neg0"}, "expected a sequence of names"),
        ({"same_tower": "queries"}, "same_tower is 'queries'"),
        ({"symmetric": "both"}, "symmetric 'both'"),
        ({"in_batch": False}, "give symmetric=False with it"),
        ({"in_batch": False, "symmetric": False}, "needs negatives, own_negatives or same_tower"),
        ({"margin": 0.1, "ratio": 0.95}, "at most one of them"),
        ({"focal": -1.0}, "must be finite and not negative"),
        ({"hardness": math.inf}, "must be finite and not negative"),
        ({"ramp": -1}, "must be finite and not negative"),
    ):
        with pytest.raises(InputError, match=message):
            ReweightedInfoNCE(**options)
    with pytest.raises(InputError, match="InfoNCE reads 'neg9', which the outputs lack"):
        ReweightedInfoNCE(own_negatives=("neg9",))(out, {})
    with pytest.raises(InputError, match=r"'pool' is \[4, 5\]; expected \[6, 5\], row i a hard"):
        InfoNCE(own_negatives=("pool",))(out, {})
    with pytest.raises(InputError, match=r"'pool' is \[4, 3\]; expected documents of width 5"):
        InfoNCE(negatives="pool")({**out, "pool": out["pool"][:, :3]}, {})
    with pytest.raises(InputError, match=r"column 'weight' is \[2\]; expected a number for each example"):
        InfoNCE()(out, {"weight": torch.ones(2)})
    for column in ("weight", "temperature"):
        for worst in (-1.0, math.nan, math.inf):
            with pytest.raises(InputError, match=f"column '{column}' holds .* expected finite numbers >= 0"):
                InfoNCE()(out, {column: torch.tensor([1.0, 1, 1, 1, 1, worst])})


def test_examples_cover_every_switch() -> None:
    """What the tests of two processes and of micro-batches run must have the switches on."""
    for cls in (InfoNCE, ReweightedInfoNCE):
        made, out, columns = cls.example(6, 0)
        assert set(made.reads) == set(out)
        assert set(columns) == {"group", "weight", "temperature"}
        assert made.margin is not None and made.same_tower == "both" and len(made.own_negatives) == 2
        plain = float(made(out, columns).sum.detach())
        for name in columns:
            fewer = {key: column for key, column in columns.items() if key != name}
            assert float(made(out, fewer).sum.detach()) != pytest.approx(plain, rel=1e-6)
        made.margin = None
        assert float(made(out, columns).sum.detach()) != pytest.approx(plain, rel=1e-6)
