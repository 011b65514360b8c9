"""Next-embedding prediction against NumPy, finite differences and by direction, for every distance."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="objectives need torch: pip install 'nextvec[hf]'")

from nextvec.objectives.next_embedding import DISTANCES, NextEmbedding, foretelling  # noqa: E402
from nextvec.types import Batch, InputError, Ragged  # noqa: E402

LENGTHS = (4, 1, 3)
OWNER = (0, 0, 0, 0, 1, 2, 2, 2)
MASK = (True, True, False, True, True, False, True, True)
WIDTH = 3
SCALED = ("gaussian", "soft_mse")


def batch() -> Batch:
    lengths = torch.tensor(LENGTHS)
    return Batch(
        {"text": Ragged(torch.zeros(8, dtype=torch.int64), lengths), "seen": Ragged(torch.tensor(MASK), lengths)}
    )


def pairs(ahead: int, *, mask: bool) -> list[int]:
    """Item by item, unlike the vectorised code."""
    return [t for t in range(8) if t + ahead < 8 and OWNER[t] == OWNER[t + ahead] and (not mask or MASK[t + ahead])]


def outputs(objective: NextEmbedding) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    rows = {"target": 8}
    for i in objective.ahead:
        rows[f"pred_{i}"] = rows[f"pred_{i}_log_scale"] = len(pairs(i, mask=objective.mask is not None))
    return {
        name: torch.randn(rows[name], WIDTH, generator=random, dtype=torch.float64).requires_grad_()
        for name in objective.reads
    }


def reference(objective: NextEmbedding, out: dict[str, torch.Tensor]) -> tuple[float, int]:
    values = {name: tensor.detach().numpy() for name, tensor in out.items()}
    target, total, count = values["target"], 0.0, 0
    for i in objective.ahead:
        for k, t in enumerate(pairs(i, mask=objective.mask is not None)):
            p, e = values[f"pred_{i}"][k], target[t + i]
            s = np.exp(values[f"pred_{i}_log_scale"][k]) if objective.distance in SCALED else None
            total += one(objective, p, e, s, [target[j] for j in range(8) if OWNER[j] == OWNER[t]])
            count += 1
    return total, count


def one(objective: NextEmbedding, p: np.ndarray, e: np.ndarray, s: np.ndarray | None, own: list[np.ndarray]) -> float:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / math.sqrt((a @ a) * (b @ b)))

    gap = np.abs(p - e)
    if objective.distance == "mse":
        return float((gap**2).mean())
    if objective.distance == "smooth_l1":
        return float(np.where(gap < 1, gap**2 / 2, gap - 0.5).mean())
    if objective.distance == "cosine":
        return 1 - cosine(p, e)
    if objective.distance == "contrastive":
        scores = [math.exp(cosine(p, other) / objective.temperature) for other in own]
        return -math.log(math.exp(cosine(p, e) / objective.temperature) / sum(scores))
    assert s is not None
    if objective.distance == "gaussian":
        densities = np.exp(-(gap**2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi))
        return float((-np.log(densities) - math.log(2 * math.pi) / 2).mean())
    return float((gap**2 + s**2 - objective.entropy * np.log(s)).mean())


@pytest.mark.parametrize("mask", [None, "seen"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_it_equals_the_reference(distance: str, mask: str | None) -> None:
    objective = NextEmbedding(distance=distance, ahead=(1, 2), mask=mask, entropy=0.3)
    out = outputs(objective)
    total, count = reference(objective, out)
    term = objective(out, batch())
    assert term.sum.item() == pytest.approx(total, rel=1e-9)
    assert term.count == objective.count(batch()) == count
    assert term.logs["next_embedding"] == pytest.approx(total / count)


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_equal_finite_differences(distance: str) -> None:
    objective = NextEmbedding(distance=distance, ahead=(1, 2), mask="seen", stop=False, entropy=0.3)
    out = outputs(objective)

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return objective(dict(zip(out, tensors, strict=True)), batch()).sum

    assert torch.autograd.gradcheck(loss, list(out.values()))


def test_a_sample_of_the_prediction_is_as_far_away_as_soft_mse_says() -> None:
    objective = NextEmbedding(distance="soft_mse")
    out = outputs(objective)
    rows = foretelling(batch().ragged("text"))
    pred, scale = out["pred_1"].detach(), out["pred_1_log_scale"].detach().exp()
    noise = torch.randn(200_000, *pred.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = (pred + scale * noise - out["target"].detach()[rows + 1]).square().mean()
    assert float(objective(out, batch()).mean.detach()) == pytest.approx(float(drawn), rel=0.01)


@pytest.mark.parametrize("distance", DISTANCES)
def test_optimising_moves_predictions_to_the_targets(distance: str) -> None:
    objective = NextEmbedding(distance=distance)
    out = outputs(objective)
    moved = [tensor for name, tensor in out.items() if name != "target"]
    optimiser = torch.optim.Adam(moved, lr=0.05)
    target = out["target"].detach()[foretelling(batch().ragged("text")) + 1]

    def near() -> float:
        return float(torch.cosine_similarity(out["pred_1"].detach(), target, dim=-1).mean())

    before = near()
    for _ in range(200):
        optimiser.zero_grad()
        objective(out, batch()).mean.backward()
        optimiser.step()
    # Contrast tells targets of one sequence apart; it does not ask for the target itself.
    assert near() > max(before, 0.5 if distance == "contrastive" else 0.9)
    assert out["target"].grad is None


def test_a_constant_is_the_best_answer_where_the_gradient_is_not_stopped() -> None:
    """The control of ``stop``: with the gradient, targets move to the predictions."""
    free, held = NextEmbedding(distance="mse", stop=False), NextEmbedding(distance="mse")
    for objective, moves in ((free, True), (held, False)):
        out = outputs(objective)
        objective(out, batch()).mean.backward()
        assert (out["target"].grad is not None) == moves


def test_refusals() -> None:
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        NextEmbedding(distance="cosin")
    with pytest.raises(InputError, match="ahead is"):
        NextEmbedding(ahead=(-1,))
    with pytest.raises(InputError, match="temperature"):
        NextEmbedding(temperature=0)
    objective = NextEmbedding()
    out = outputs(objective)
    with pytest.raises(InputError, match=r"'pred_1' is \[8, 3\]; expected \[5, 3\]"):
        objective({**out, "pred_1": out["target"]}, batch())
    with pytest.raises(InputError, match="needs a batch column 'patches'"):
        NextEmbedding(sequence="patches")(out, batch())
    lengths = torch.tensor(LENGTHS)
    with pytest.raises(InputError, match="expected bool"):
        foretelling(batch().ragged("text"), Ragged(torch.zeros(8), lengths))
